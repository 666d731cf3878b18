package detect

import (
	"strconv"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/lazyregexp"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// ParseLogLine reads one line of kernel log as dmesg, journalctl, a syslog daemon, a container runtime, /dev/kmsg, pstore or
// a serial console prints it. The record has the text, the uptime if there is one, and the facility if the line names it.
// Whatever it says, a log line proves nothing. ParseLogLine reports false for a line that is not the kernel's: another
// program's, or an empty one.
//
// A time stamp inside the text stays there: it belongs to the log of another machine, or to an older log that is quoted.
func ParseLogLine(line string) (netconsole.Record, bool) {
	r, how := parseLine(line)
	return r, how != foreign
}

// An origin is how a line says that it is the kernel's.
type origin int

const (
	foreign   origin = iota // it is another program's, or empty
	bare                    // it does not say
	marked                  // by a time stamp of the kernel's, or by its priority
	addressed               // by the envelope of another log, which names the kernel or has such a stamp behind it
	enclosed                // by an envelope around a record of /dev/kmsg; only within this file
)

// parseLine reads one line. Colour and what consoles put around a line are removed.
func parseLine(line string) (netconsole.Record, origin) {
	r := netconsole.Record{Prefix: -1, Uptime: -1}
	line = strings.TrimSuffix(strings.Trim(uncoloured(line), "\r\n\x00\x1e\a\b"), "^M") // cat -v
	if rec, ok := kmsgLine(strings.TrimLeft(line, " \t")); ok {
		return rec, addressed
	}
	if i := strings.Index(line, " login: ["); i > 0 && !strings.ContainsAny(line[:i], " [") {
		line = line[i+len(" login: "):] // agetty's prompt, which a console message does not wait for
	}
	rest, how := cutEnvelope(line, &r)
	switch how {
	case foreign:
		return r, foreign
	case enclosed:
		if rec, ok := kmsgLine(rest); ok {
			rec.Fields = r.Fields
			return rec, addressed
		}
		return r, foreign
	case addressed:
		rest = unescape(rest)
		if s := strings.TrimLeft(rest, " \r"); uptimeStamp.MatchString(s) {
			rest = s
		}
	}
	unmarked := rest
	rest, level := cutLevel(rest)
	rest, stamp := cutStamp(rest)
	switch {
	case stamp.found:
		r.Uptime = stamp.uptime
		note(&r, KeyTime, stamp.time)
		rest = cutCaller(rest, &r)
		if level < 0 && priority.MatchString(rest) { // crash's log -m
			rest, level = cutLevel(rest)
		}
		how = max(how, marked)
	case (how > bare || level >= 0) && printkCaller.MatchString(rest), paddedCaller.MatchString(rest): // printk.time=0
		rest = cutCaller(rest, &r)
		how = max(how, marked)
	case level >= 0 && how == bare:
		how = marked
	case level < 0:
		rest = unmarked
	}
	if level >= 0 {
		r.Prefix = level
	}
	if rest, found := strings.CutPrefix(rest, "kernel: "); found && level >= 0 && !stamp.found {
		return parseBehindName(rest, r)
	}
	if m := behindStamp.FindStringSubmatch(rest); m != nil && m[2] == "kernel" && stamp.time != "" {
		noteHost(&r, m[1])
		rest, how = rest[len(m[0]):], addressed
	}
	if stamp.found && stamp.time == "" {
		// journalctl -o short-monotonic has the host and the identifier behind the time, and with --no-hostname the latter only.
		if m := behindStamp.FindStringSubmatch(rest); m != nil {
			if m[2] != "" && m[2] != "kernel" {
				return r, foreign
			}
			noteHost(&r, m[1])
			rest, how = rest[len(m[0]):], addressed
		}
	}
	return withText(r, rest, how)
}

// uncoloured returns a line without colour.
func uncoloured(line string) string {
	line = colour.ReplaceAllLiteralString(line, "")
	if strings.Contains(line, "[0m") { // as every coloured line ends
		line = spelledColour.ReplaceAllLiteralString(line, "")
	}
	return line
}

// parseBehindName reads what stands behind "<4>kernel: ": a time stamp, perhaps, and the text.
func parseBehindName(rest string, r netconsole.Record) (netconsole.Record, origin) {
	rest, stamp := cutStamp(rest)
	r.Uptime = stamp.uptime
	return withText(r, rest, addressed)
}

// withText completes a record, unless there is no text.
func withText(r netconsole.Record, text string, how origin) (netconsole.Record, origin) {
	text = strings.TrimRight(text, " \t\r\n")
	if strings.TrimSpace(text) == "" {
		return r, foreign
	}
	r.Text = []byte(text)
	return r, how
}

var (
	// colour is what terminals obey: dmesg --color, systemd's status lines, firmware that clears the screen, a build server's marks.
	// All that ECMA-48 has.
	colour = lazyregexp.New("\x1b(?:\\[[0-?]*[ -/]*[@-~]|[P\\]^_X][^\x07\x1b]{0,200}(?:\x07|\x1b\\\\)|[ -/]*[0-~])")
	// spelledColour is what becomes of it: syslog daemons and cat -v spell the escape character out, and a web page loses it.
	spelledColour = lazyregexp.New(`(?:(?:\^\[|#033)\[[\d;]{0,20}|\[\d{1,2}(?:;\d{1,3}){0,4})m`)
	// behindStamp is "host kernel: ", "host program[12]: " or "kernel: ". "foo bar: text" is the kernel's own, and so is
	// "program[12]: text".
	behindStamp = lazyregexp.New(`^(?:([\w.:-]+) (kernel|[^ :\[\]=,]+\[\d+\])|kernel): `)
	// kmsg is a record of /dev/kmsg (Documentation/ABI/testing/dev-kmsg), with the release in front in netconsole's form.
	kmsg = lazyregexp.New(`^(?:[\w.+~-]+,)?(\d{1,3}),\d+,(\d+),[-cC+](?:,[^;]*)?;(.*)$`)
	// netconsd is what netconsd's logger modules write: release, sequence number, microseconds, facility, level.
	netconsd = lazyregexp.New(`^(?:\S+ )?\d{6,} (\d{14}) (\d{1,3}) ([0-7]) (.*)$`)
)

// kmsgLine reads a record of /dev/kmsg or one of netconsd's.
func kmsgLine(line string) (netconsole.Record, bool) {
	r := netconsole.Record{}
	var us, text string
	if m := kmsg.FindStringSubmatch(line); m != nil {
		r.Prefix, _ = strconv.Atoi(m[1])
		us, text = m[2], m[3]
	} else if m := netconsd.FindStringSubmatch(line); m != nil {
		facility, _ := strconv.Atoi(m[2])
		r.Prefix = facility<<3 | int(m[3][0]-'0')
		us, text = m[1], m[4]
	} else {
		return r, false
	}
	n, err := strconv.ParseInt(us, 10, 64)
	if err != nil || n > int64(maxUptime/time.Microsecond) {
		return r, false
	}
	r.Uptime = time.Duration(n) * time.Microsecond
	r.Text = []byte(strings.TrimRight(text, " "))
	return r, len(r.Text) > 0
}

// unescape undoes what rsyslog does to control characters: a record of several lines comes as one.
func unescape(text string) string {
	if !strings.Contains(text, "#01") {
		return text
	}
	return strings.Trim(strings.NewReplacer("#011", "\t", "#012", "\n", "#015", "").Replace(text), "\n")
}

// maxUptime is more than any machine was ever up.
const maxUptime = 100 * 365 * 24 * time.Hour

// levels are the names of log levels, as `dmesg -x`, syslog daemons and talosctl write them.
var levels = lazyregexp.New(`^(?:(emerg|panic)|(alert)|(crit|critical)|(err|error)|(warn|warning)|(notice)|(info)|(debug)) *$`)

// levelOf is the number of the level with that name, -1 if there is none.
func levelOf(name string) int {
	m := levels.FindStringSubmatchIndex(name)
	if m == nil {
		return -1
	}
	for level := range 8 {
		if m[2+2*level] >= 0 {
			return level
		}
	}
	return -1
}

// facilityOf is the number of the facility with that name: 0 for the kernel, 1 for all of userspace.
func facilityOf(name string) int {
	if strings.TrimSpace(name) == "kern" {
		return 0
	}
	return 1
}

// cutLevel removes "<12>" (dmesg -r, pstore, console_msg_format=syslog) or "kern  :emerg : " (dmesg -x). The level is -1 if
// there is neither.
func cutLevel(line string) (rest string, prefix int) {
	if m := priority.FindStringSubmatch(line); m != nil {
		n, _ := strconv.Atoi(m[1])
		return line[len(m[0]):], n
	}
	if m := decoded.FindStringSubmatch(line); m != nil {
		return line[len(m[0]):], facilityOf(m[1])<<3 | levelOf(m[2])
	}
	return line, -1
}

var (
	priority = lazyregexp.New(`^<(\d{1,3})>`)
	decoded  = lazyregexp.New(`^(kern|user|mail|daemon|auth|syslog|lpr|news|cron|authpriv|ftp|local\d) *:(emerg|alert|crit|err|warn|notice|info|debug) *: `)
)

// A stamp is a time in brackets.
type stamp struct {
	found  bool
	time   string        // a time of day
	uptime time.Duration // -1 if it does not say
}

var (
	// uptimeStamp is print_time's "[    3.591339] ", with what kernels and tools add: the CPU ("@1", ",1"), the time since
	// the line before (dmesg -d), that alone ("+0.000012").
	uptimeStamp = lazyregexp.New(`^\[ *(\+)?(\d{1,12})\.(\d{6})(?:[@,]\d{1,4})?(?: *<[^<>]{0,20}>)? {0,24}\] ?`)
	// wallStamp is dmesg -e, -H and -T, in any language, with the time since the line before or that alone, and crash's log -T.
	wallStamp = lazyregexp.New(`^\[(?:(?:[\pL\pM.\d']{1,8} ` + monthName + ` [ \d]\d \d\d:\d\d:\d\d(?: ` + zoneName + `)? \d{4}|` +
		monthName + ` ?\d\d? \d\d:\d\d(?::\d\d)?)(?: *<[ +\d.]{1,20}>)?|<[ +\d.]{3,20}>)\]:? ?`)
)

// cutStamp removes a time in brackets and the space behind it.
func cutStamp(line string) (rest string, s stamp) {
	if m := uptimeStamp.FindStringSubmatch(line); m != nil {
		if m[1] != "" {
			return line[len(m[0]):], stamp{found: true, uptime: -1}
		}
		return line[len(m[0]):], stamp{found: true, uptime: seconds(m[2], m[3])}
	}
	for _, form := range []*lazyregexp.Regexp{wallStamp, dmesgISO} {
		if m := form.FindString(line); m != "" {
			return line[len(m):], stamp{found: true, time: m, uptime: -1}
		}
	}
	return line, stamp{uptime: -1}
}

// seconds is the time of "%5lu.%06lu", -1 if it is longer than maxUptime.
func seconds(sec, us string) time.Duration {
	s, err := strconv.ParseInt(sec, 10, 64)
	if err != nil || s > int64(maxUptime/time.Second) {
		return -1
	}
	u, _ := strconv.ParseInt(us, 10, 64)
	return time.Duration(s)*time.Second + time.Duration(u)*time.Microsecond
}

var (
	// printkCaller is what print_caller (kernel/printk/printk.c) prints.
	printkCaller = lazyregexp.New(`^\[ *[TC]\d+\] `)
	// paddedCaller cannot be the number of a ticket.
	paddedCaller = lazyregexp.New(`^\[ {1,4}[TC]\d+\] `)
)

// caller is "[    T1] " (CONFIG_PRINTK_CALLER), or a CPU as vendors' kernels print it: "c0 ", "(0)[12:kworker/0] ",
// " [0:  kworker/u:1:   12] ".
var caller = lazyregexp.New(`^(?:\[ *([TC]\d+) ?\] ?|c(\d+) {1,5}(?:\d+ )?|[ -]?\((\d+)\)(?:\[\d+:[^\]]*\])?| ?\[(\d{1,3}): *[^\]]{1,16}: *\d{1,7}\] ?)`)

// cutCaller removes the task or CPU behind a time stamp.
func cutCaller(line string, r *netconsole.Record) string {
	m := caller.FindStringSubmatch(line)
	switch {
	case m == nil:
		return line
	case m[1] != "":
		r.Caller = m[1]
	default:
		r.Caller = "C" + m[2] + m[3] + m[4]
	}
	return line[len(m[0]):]
}
