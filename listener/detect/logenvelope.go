package detect

import (
	"cmp"
	"net/netip"
	"strconv"
	"strings"

	"github.com/lastgasp/lastgasp/listener/lazyregexp"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// Pieces of the expressions below.
const (
	// Times: ISO 8601 with a zone or none, a syslog's in any language and order, seconds since 1970, a time of day.
	zoneName   = `(?:[A-Z]{1,3}[SDEAK]T|UTC|GMT|MS[KD]|WIB|WITA?|SGT|MYT|ICT|BRT|ART|CLT)` // and not a level, such as INFO
	monthName  = `(?:(?:de |d[’'])?[\pL\pM.]{2,12}|\d{1,2}[月월]|[Tt]hg \d{1,2})`
	isoTime    = `(?:[\pL\pM.]{1,12},? )?\d{4}[-/.]\d\d[-/.]\d\d[T _]\d\d:\d\d:\d\d(?:\.\d+|,\d{3})?(?: ?(?:Z|[+-]\d\d(?::?\d\d)?)(?:\[[\w/]+\])?)?(?: ` + zoneName + `)?`
	syslogTime = `(?:[\pL\pM.]{1,5},? )?` + monthName + ` {1,2}\d{1,2}\.?,?(?: \d{4})? \d\d:\d\d:\d\d(?:\.\d+)?(?: ` + zoneName + `)?(?: \d{4})?`
	dayFirst   = `(?:[\pL\pM.]{2,5},? )?\d{1,2}\.? [\pL\pM.]{3,12}(?: \d{4})? \d\d:\d\d:\d\d(?:\.\d+)?(?: [AP]M)?(?: ` + zoneName + `)?`
	clockTime  = `(?:\d{1,2}[-./]\d{1,2}(?:[-./]\d{2,4})?,? )?\d{1,2}:\d\d:\d\d(?:[.,]\d+)?(?: [AP]M)?(?: [+-]\d\d:?\d\d)?`
	otherTime  = `\d{10}(?:\.\d{3,9}|\d{3})?|\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}|\d{8}[-T]\d{6}Z?|` + clockTime
	anyTime    = `(?:` + isoTime + `|` + syslogTime + `|` + dayFirst + `|` + otherTime + `)`
	hostName   = `[\pL\d_][\pL\d_.:%/@-]*`
	facility   = `kern|user|mail|daemon|auth|syslog|lpr|news|cron|authpriv|ftp|local\d`
	levelName  = `emerg|panic|alert|crit|critical|err|error|warn|warning|notice|info|debug`
	// kernelStamp is what uptimeStamp matches, behind the envelope.
	kernelStamp = `(?:<\d{1,3}>)?\[ *\d{1,12}\.\d{6}(?:[@,]\d{1,4})? ?\]`
)

var (
	// lineNumber is what `cat -n`, `grep -n`, pagers and web pages put in front, only believed if a time stamp is next.
	lineNumber = lazyregexp.New(`^ *(?:[Ll](?:ine )?|#)?\d{1,9}(?: *[:|│.)\-][ \t]*|[ \t]+)`)
	// sourceName is kubectl's --prefix, docker compose's, xenconsoled's and pdsh's: "[pod/a/b] ", "name-1  | ", "(d1) ", "host: ".
	sourceName = lazyregexp.New(`^(?:\[(?:pod/)?[\w.-]+/[\w./-]+\] |[\w.-]+ +\| |\(d\d+\) |` + hostName + `:? )`)
	// logTime is a time in front of a line, a serial logger's in brackets (tio, minicom).
	logTime = lazyregexp.New(`^(?:[\[(<](?:` + isoTime + `|` + clockTime + `)[\])>]|` + anyTime + `):? {1,2}`)
	// csvTime begins a line of a spreadsheet, CloudWatch's or Kibana's: a time and a comma.
	csvTime = lazyregexp.New(`^"?(?:` + isoTime + `|[A-Z][a-z]{2} \d{1,2}, \d{4} @ \d\d:\d\d:\d\d\.\d{3})"?,("?)`)
	// dmesgISO is dmesg --time-format=iso, whose comma no other has. The message is next.
	dmesgISO = lazyregexp.New(`^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d,\d{6}[+-]\d\d:?\d\d `)
	// stream is CRI's, or logcli's labels: "{host=\"a\"} ".
	stream = lazyregexp.New(`^(?:(?:stdout|stderr) [FP](?::\S+)? |\{[^{}]{1,500}\} +)`)
	// fileName is what `grep` puts in front: "/var/log/kern.log:", "kern.log.1-", with the number of the line.
	fileName = lazyregexp.New(`^(?:[\w.+@-]*/[\w./+@-]+|[\w+@-]+\.[\w.]+)[:-](?:\d{1,9}[:-])?`)
	// quotation is a line of prose or source as `grep -n` prints it.
	quotation = lazyregexp.New(`^[\w./+@-]+\.(?:md|rst|adoc|html?|go|py|rs|c|h|patch|diff)[:-]\d+[:-]`)
	// relay is the host that a syslog daemon puts in front of a line that has a time and a host already.
	relay = lazyregexp.New(`^[\pL\d_](?:[\pL\d_.:%/@>-]*[\pL\d_.%/@-])? `)
	// awsEvents is a line of `aws logs get-log-events --output text` and filter-log-events: times, event id, stream, message, time.
	awsEvents = lazyregexp.New(`^EVENTS\t(?:\S*\t){1,3}(.*)\t\d{13}$`)

	// kernelName has the level in front where a distribution's rsyslog writes it so (ChromeOS, COS).
	kernelName = lazyregexp.New(`^(?:(` + hostName + `) )?(?:(?:EMERG|ALERT|CRIT|ERR|WARNING|NOTICE|INFO|DEBUG) )?kernel(?:\[\d+\])?: ?`)
	// logcat is a line of Android's log from its process 0, which is the kernel.
	logcat = lazyregexp.New(`^\d\d-\d\d \d\d:\d\d:\d\d\.\d{3,6} +(?:root +)?0 +0 [VDIWEF] +(?:: )?`)
	// stamped is a serial logger's time that stands right in front of the kernel's.
	stamped   = lazyregexp.New(`^\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?: \d{4}\]|\.\d+ \d{4}\] ?)(` + kernelStamp + `)`)
	stampNext = lazyregexp.New(`^(?:(` + hostName + `[\pL\d_.%/@-]|[\pL\d_]|[\d.]+:(?:\d+:)?)(?:\t| )|\[(\d+\.\d+\.\d[\d.:]*|[0-9a-f]*:[0-9a-f:]+|[a-zA-Z][\w.-]*)\](?::\d+)? )?[ \t\r]*(` + kernelStamp + `)`)
	kmsgNext  = lazyregexp.New(`^(?:(` + hostName + `) )?((?:[\w.+~-]+,)?\d{1,3},\d+,\d+,[-cC+](?:,[^;]*)?;)`)
	// syslog-ng, logread and loggers that write the names: "kern.crit kernel: ", "host kern.warn kernel: ", "kern crit: ".
	named = lazyregexp.New(`^(?:(` + hostName + `) )?[\[<(]?(` + facility + `)[. :/](` + levelName + `)[\]>)]?(?:(?: (` + hostName + `))? (kernel)(?:\[\d+\])?)?: `)
	// names in front of a line with a time: rsyslog's "%pri-text%".
	namesFirst = lazyregexp.New(`^[\[<(]?(` + facility + `)\.(` + levelName + `)[\]>)]?:? `)
	// talosctl dmesg: "10.0.1.5: kern: warning: [time]: ".
	talos = lazyregexp.New(`^(?:(` + hostName + `): )?(` + facility + `): *(` + levelName + `): (?:\[[\dT:.Z+ -]{10,40}\]: ?)?`)
	// RFC 5424: "<priority>1 time host app procid msgid data ", without the priority in files. A bracket in data is escaped.
	rfc5424 = lazyregexp.New(`^(?:<(\d{1,3})>)?1 (-|\d{4}-\d\d-\d\dT\S+) (-|` + hostName + `) (\S+) \S+ \S+ (?:-|(?:\[(?:[^\]\\]|\\.)*\])+)(?: |$)`)
	// rfc3164 is a priority in front of a syslog line as it is on the wire.
	rfc3164 = lazyregexp.New(`^<(\d{1,3})>(?:\d+: )?`)
	// octets is the length in front of a message on a stream (RFC 6587).
	octets = lazyregexp.New(`^\d{1,6} <\d{1,3}>`)
	// address is the address that collectors of netconsole put in front.
	address = lazyregexp.New(`^(\d{1,3}(?:\.\d{1,3}){3}|\[?[0-9a-f]*:[0-9a-f:]+:[0-9a-f.]*\]?)(?::\d+)?:? (` + kernelStamp + `)`)
)

// maxEnvelopes bounds how many times and priorities stand in front of each other: a container's, a relay's, a daemon's and a
// serial logger's.
const maxEnvelopes = 5

// Keys of the fields that a record of a LogReader has where its line says so.
const (
	// KeyHost is the name or address of the machine, as it is written.
	KeyHost = "host"
	// KeyTime is the time in front of the line, as it is written.
	KeyTime = "time"
)

// maxField bounds what a record says of its host or time, in bytes; a log stream of CloudWatch has a name of 512.
const maxField = 512

// note adds a field to a record.
func note(r *netconsole.Record, key, value string) {
	if value != "" && value != "-" {
		r.Fields = append(r.Fields, netconsole.Field{Key: key, Value: strings.Clone(value[:min(len(value), maxField)])})
	}
}

// noHost is what may stand in a host's place and differs from line to line: a level or its letter, a number, a thread, a CPU, an identifier.
var noHost = lazyregexp.New(`^(?:[A-Z_]|[TC]?\d+|(?i:cpu\d+|(?:(?:` + facility + `)[.:/])?(?:` + levelName + `))|(?:0x)?[0-9a-f]{8}[0-9a-f-]*)$`)

// noteHost notes a host, without the port that it sent from.
func noteHost(r *netconsole.Record, name string) {
	name = strings.TrimRight(name, ":")
	if from, err := netip.ParseAddrPort(name); err == nil {
		name = from.Addr().String()
	}
	if !noHost.MatchString(name) {
		note(r, KeyHost, name)
	}
}

// byteOrderMark begins text files of Windows, and the message of RFC 5424 in UTF-8.
const byteOrderMark = "\ufeff"

// cutEnvelope removes what other logs put in front of the kernel's line: dates, hosts, priorities, container streams, line
// numbers. It reports foreign where another program is named, and leaves the line alone where it knows nothing of it.
func cutEnvelope(line string, r *netconsole.Record) (string, origin) {
	rest := strings.TrimLeft(strings.TrimPrefix(line, byteOrderMark), " \t\r")
	if m := logcat.FindString(rest); m != "" {
		return rest[len(m):], addressed
	}
	if quotation.MatchString(rest) {
		return "", foreign
	}
	// These look like the number of a line, and like a host.
	if !rfc5424.MatchString(rest) && !namesFirst.MatchString(rest) && !address.MatchString(rest) {
		rest = cutSource(rest)
	}
	if m := dmesgISO.FindString(rest); m != "" {
		note(r, KeyTime, m)
		return rest[len(m):], addressed
	}
	if m := stamped.FindStringSubmatchIndex(rest); m != nil {
		return rest[m[2]:], addressed
	}
	rest, dated, how := cutTimes(rest, r)
	if how != bare {
		return rest, how
	}
	names := named.FindStringSubmatch(rest)
	if m := kernelName.FindStringSubmatch(rest); m != nil && (names == nil || names[5] == "") {
		noteHost(r, m[1])
		return rest[len(m[0]):], addressed
	}
	if name := "[kernel] "; dated && strings.HasPrefix(rest, name) { // metalog
		return rest[len(name):], addressed
	}
	if m := names; m != nil {
		noteHost(r, cmp.Or(m[4], m[1]))
		r.Prefix = facilityOf(m[2])<<3 | levelOf(m[3])
		if m[5] == "" && !strings.HasPrefix(rest[len(m[0]):], "[") || r.Prefix >= 8 {
			return "", foreign
		}
		return rest[len(m[0]):], addressed
	}
	if m := talos.FindStringSubmatch(rest); m != nil && !decoded.MatchString(rest) {
		noteHost(r, m[1])
		r.Prefix = facilityOf(m[2])<<3 | levelOf(m[3])
		return rest[len(m[0]):], addressed
	}
	if m := kmsgNext.FindStringSubmatch(rest); m != nil && dated {
		noteHost(r, m[1])
		return rest[len(m[0])-len(m[2]):], enclosed
	}
	if m := stampNext.FindStringSubmatch(rest); m != nil {
		if dated {
			noteHost(r, cmp.Or(m[1], m[2]))
			return rest[len(m[0])-len(m[3]):], addressed
		}
		if m[0] == m[3] {
			return rest, marked
		}
	}
	if m := address.FindStringSubmatch(rest); m != nil {
		noteHost(r, m[1])
		return rest[len(m[0])-len(m[2]):], addressed
	}
	if dated {
		return "", foreign // another program's, or one cannot know
	}
	if priority.MatchString(rest) || wallStamp.MatchString(rest) || decoded.MatchString(rest) {
		return rest, bare // indented, perhaps
	}
	return line, bare
}

// cutTimes removes times, priorities and what stands between them, and reports whether there was a time. It reports bare unless
// that says already whose line it is.
func cutTimes(rest string, r *netconsole.Record) (_ string, dated bool, how origin) {
	for range maxEnvelopes {
		if octets.MatchString(rest) {
			rest = rest[strings.IndexByte(rest, '<'):]
		}
		if m := rfc5424.FindStringSubmatch(rest); m != nil {
			n, _ := strconv.Atoi(m[1])
			if n >= 8 || m[4] != "kernel" && (m[4] != "-" || m[1] == "") {
				return "", false, foreign
			}
			note(r, KeyTime, m[2])
			noteHost(r, m[3])
			r.Prefix = n
			return strings.TrimPrefix(rest[len(m[0]):], byteOrderMark), true, addressed
		}
		if m := rfc3164.FindStringSubmatch(rest); m != nil && logTime.MatchString(rest[len(m[0]):]) {
			n, _ := strconv.Atoi(m[1])
			if n >= 8 {
				return "", false, foreign
			}
			r.Prefix = n
			rest = rest[len(m[0]):]
		}
		if m := namesFirst.FindStringSubmatch(rest); m != nil && logTime.MatchString(rest[len(m[0]):]) {
			if facilityOf(m[1]) != 0 {
				return "", false, foreign
			}
			r.Prefix = levelOf(m[2])
			rest = rest[len(m[0]):]
		}
		m := logTime.FindString(rest)
		if m == "" {
			if host := relay.FindString(rest); dated && host != "" && logTime.MatchString(rest[len(host):]) {
				rest = rest[len(host):]
				continue
			}
			return rest, dated, bare
		}
		if !dated {
			note(r, KeyTime, m)
		}
		dated = true
		rest = rest[len(m):]
		if s := stream.FindString(rest); s != "" {
			rest = rest[len(s):]
		}
	}
	return rest, dated, bare
}

// cutSource removes what says where a line was found: a pod, a container, a host, a file, a line number, a spreadsheet's row. What
// comes next must be a time.
func cutSource(line string) string {
	begins := func(s string) bool {
		return logTime.MatchString(s) || uptimeStamp.MatchString(s) || wallStamp.MatchString(s)
	}
	if m := awsEvents.FindStringSubmatch(line); m != nil {
		return m[1]
	}
	if m := csvTime.FindStringSubmatch(line); m != nil && uptimeStamp.MatchString(line[len(m[0]):]) {
		return strings.ReplaceAll(strings.TrimSuffix(line[len(m[0]):], m[1]), `""`, `"`)
	}
	for _, form := range []*lazyregexp.Regexp{sourceName, fileName, lineNumber} {
		if logTime.MatchString(line) || uptimeStamp.MatchString(line) {
			break
		}
		m := form.FindString(line)
		if m == "" {
			continue
		}
		// A word alone in front of the kernel's own stamp is no envelope yet: see LogReader.
		rest := line[len(m):]
		word := form == sourceName && !strings.HasPrefix(m, "[") && !strings.HasPrefix(m, "(") && !strings.Contains(m, "|")
		numbered := form == lineNumber && (stampNext.MatchString(rest) || strings.HasPrefix(rest, "kernel: "))
		if word && logTime.MatchString(rest) || !word && (begins(rest) || numbered) {
			line = rest
		}
	}
	return line
}
