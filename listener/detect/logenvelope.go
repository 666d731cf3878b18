package detect

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// Pieces of the expressions below.
const (
	// Times: ISO 8601 with a zone or none, a syslog's in any language and order, seconds since 1970, a time of day.
	isoTime    = `(?:[\pL\pM.]{1,12},? )?\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?: ?(?:Z|[+-]\d\d(?::?\d\d)?)(?:\[[\w/]+\])?)?(?: [A-Z]{3,5})?`
	syslogTime = `(?:[\pL\pM.]{2,5},? )?(?:[\pL\pM.]{2,12}|\d{1,2}[月월]|[Tt]hg \d{1,2}) {1,2}\d{1,2}\.?,?(?: \d{4})? \d\d:\d\d:\d\d(?:\.\d+)?(?: \d{4})?`
	dayFirst   = `(?:[\pL\pM.]{2,5},? )?\d{1,2}\.? [\pL\pM.]{3,12}(?: \d{4})? \d\d:\d\d:\d\d(?:\.\d+)?`
	otherTime  = `\d{10}\.\d{3,9}|\d{1,2}/\d{1,2}/\d{2,4},? \d{1,2}:\d\d:\d\d(?:\.\d+)?(?: [AP]M)?|\d\d:\d\d:\d\d(?:\.\d+)?`
	anyTime    = `(?:` + isoTime + `|` + syslogTime + `|` + dayFirst + `|` + otherTime + `)`
	hostName   = `[\pL\d_][\pL\d_.:%/-]*`
	facility   = `kern|user|mail|daemon|auth|syslog|lpr|news|cron|authpriv|ftp|local\d`
	levelName  = `emerg|panic|alert|crit|critical|err|error|warn|warning|notice|info|debug`
	// kernelStamp is what uptimeStamp matches, behind the envelope.
	kernelStamp = `(?:<\d{1,3}>)?\[ *\d{1,12}\.\d{6}(?:[@,]\d{1,4})? ?\]`
)

var (
	// lineNumber is what `cat -n`, `grep -n` and pagers put in front, only believed if a time stamp is next.
	lineNumber = regexp.MustCompile(`^ *\d{1,9}(?:[:|.\-][ \t]*|[ \t]+)`)
	// podName is kubectl's --prefix and docker compose's: "[pod/a/b] ", "name-1  | ".
	podName = regexp.MustCompile(`^(?:\[(?:pod/)?[\w.-]+/[\w./-]+\] |[\w.-]+ +\| )`)
	logTime = regexp.MustCompile(`^(?:\[` + isoTime + `\]|` + anyTime + `):? `)
	// dmesgISO is dmesg --time-format=iso, whose comma no other has. The message is next.
	dmesgISO = regexp.MustCompile(`^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d,\d{6}[+-]\d\d:?\d\d `)
	// stream is CRI's, or logcli's labels: "{host=\"a\"} ".
	stream = regexp.MustCompile(`^(?:(?:stdout|stderr) [FP] |\{[^{}]{1,500}\} +)`)
	// fileName is what `grep` puts in front: "/var/log/kern.log:", "kern.log.1-", with the number of the line.
	fileName = regexp.MustCompile(`^(?:[\w.+@-]*/[\w./+@-]+|[\w+@-]+\.[\w.]+)[:-](?:\d{1,9}[:-])?`)

	kernelName = regexp.MustCompile(`^(?:` + hostName + ` )?kernel(?:\[\d+\])?: ?`)
	stampNext  = regexp.MustCompile(`^(?:` + hostName + ` )?(` + kernelStamp + `)`)
	// syslog-ng, logread and loggers that write the names: "kern.crit kernel: ", "host kern.warn kernel: ", "kern crit: ".
	named = regexp.MustCompile(`^(?:` + hostName + ` )?(` + facility + `)[. ](` + levelName + `)(?: ` + hostName + `)?(?: (kernel)(?:\[\d+\])?)?: `)
	// talosctl dmesg: "10.0.1.5: kern: warning: [time]: ".
	talos = regexp.MustCompile(`^(?:` + hostName + `: )?(` + facility + `): *(` + levelName + `): (?:\[[\dT:.Z+ -]{10,40}\]: ?)?`)
	// RFC 5424 behind its priority: "1 time host app procid msgid data ".
	rfc5424 = regexp.MustCompile(`^(?:<(\d{1,3})>)1 (?:-|\S+) (?:-|` + hostName + `) (\S+) \S+ \S+ (?:-|(?:\[[^\]]*\])+) ?`)
	// rfc3164 is a priority in front of a syslog line as it is on the wire.
	rfc3164 = regexp.MustCompile(`^<(\d{1,3})>(?:\d+: )?`)
	// address is the address that collectors of netconsole put in front.
	address = regexp.MustCompile(`^(?:\d{1,3}(?:\.\d{1,3}){3}|\[?[0-9a-f]*:[0-9a-f:]+:[0-9a-f.]*\]?)(?::\d+)?:? (` + kernelStamp + `)`)
)

// cutEnvelope removes what other logs put in front of the kernel's line: dates, hosts, priorities, container streams, line
// numbers. It reports foreign where another program is named, and leaves the line alone where it knows nothing of it.
func cutEnvelope(line string, r *netconsole.Record) (rest string, how origin) {
	rest = strings.TrimLeft(line, " \t\r")
	if m := podName.FindString(rest); m != "" && (logTime.MatchString(rest[len(m):]) || stampNext.MatchString(rest[len(m):])) {
		rest = rest[len(m):]
	}
	if m := fileName.FindString(rest); m != "" && (logTime.MatchString(rest[len(m):]) || uptimeStamp.MatchString(rest[len(m):])) && !logTime.MatchString(rest) {
		rest = rest[len(m):]
	}
	if m := lineNumber.FindString(rest); m != "" && (logTime.MatchString(rest[len(m):]) || stampNext.MatchString(rest[len(m):])) && !logTime.MatchString(rest) {
		rest = rest[len(m):]
	}
	if m := dmesgISO.FindString(rest); m != "" {
		return rest[len(m):], addressed
	}
	if m := rfc5424.FindStringSubmatch(rest); m != nil {
		n, _ := strconv.Atoi(m[1])
		if n >= 8 || m[2] != "kernel" && m[2] != "-" {
			return "", foreign
		}
		r.Prefix = n
		return rest[len(m[0]):], addressed
	}
	if m := rfc3164.FindStringSubmatch(rest); m != nil && logTime.MatchString(rest[len(m[0]):]) {
		n, _ := strconv.Atoi(m[1])
		if n >= 8 {
			return "", foreign
		}
		r.Prefix = n
		rest = rest[len(m[0]):]
	}
	dated := false
	for range 3 { // a container's time, a daemon's and a serial logger's
		m := logTime.FindString(rest)
		if m == "" {
			break
		}
		dated = true
		rest = rest[len(m):]
		if s := stream.FindString(rest); s != "" {
			rest = rest[len(s):]
		}
	}
	if m := kernelName.FindString(rest); m != "" {
		return rest[len(m):], addressed
	}
	if m := named.FindStringSubmatch(rest); m != nil {
		r.Prefix = facilityOf(m[1])<<3 | levelOf(m[2])
		if m[3] == "" && !strings.HasPrefix(rest[len(m[0]):], "[") || r.Prefix >= 8 {
			return "", foreign
		}
		return rest[len(m[0]):], addressed
	}
	if m := talos.FindStringSubmatch(rest); m != nil && !decoded.MatchString(rest) {
		r.Prefix = facilityOf(m[1])<<3 | levelOf(m[2])
		return rest[len(m[0]):], addressed
	}
	if m := stampNext.FindStringSubmatchIndex(rest); m != nil {
		if dated {
			return rest[m[2]:], addressed
		}
		if m[2] == 0 {
			return rest, marked
		}
	}
	if m := address.FindStringSubmatchIndex(rest); m != nil {
		return rest[m[2]:], addressed
	}
	if dated {
		return "", foreign // another program's, or one cannot know
	}
	if priority.MatchString(rest) || wallStamp.MatchString(rest) || decoded.MatchString(rest) {
		return rest, bare // indented, perhaps
	}
	return line, bare
}
