package detect

import (
	"strconv"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// ParseLogLine reads one line of kernel log as dmesg, journalctl, syslog or a serial console prints it. It tells the
// text, the uptime if there is one, and the facility if the line names it (`dmesg -r`, `dmesg -x`); whatever it says, a
// log line proves nothing. It reports false for a line that is not the kernel's: another program's in a syslog, or empty.
//
// A time stamp inside the text stays there: it belongs to the log of another machine, or to an older log that is being
// quoted.
func ParseLogLine(line string) (netconsole.Record, bool) {
	r := netconsole.Record{Prefix: -1, Uptime: -1}
	line = strings.TrimRight(line, "\r\n")
	if i := strings.Index(line, " login: ["); i > 0 && !strings.ContainsAny(line[:i], " [") {
		line = line[i+len(" login: "):] // agetty's prompt, which a console message does not wait for
	}

	line, ok := cutSyslog(line)
	if !ok {
		return r, false
	}
	line, r.Prefix = cutDecoded(line)
	if r.Prefix < 0 {
		line, r.Prefix = cutPriority(line)
	}
	line, r.Uptime = cutStamp(line)
	line = cutCaller(line)
	if r.Uptime >= 0 {
		// journalctl -o short-monotonic has the host and the identifier behind the time.
		if rest, kernel, named := cutIdentifier(line); named {
			if !kernel {
				return r, false
			}
			line = rest
		}
	}
	r.Text = []byte(line)
	return r, line != ""
}

// cutSyslog takes off "Nov 21 21:44:00 host kernel: " and its form with an ISO 8601 time. It reports false if another
// program is named.
func cutSyslog(line string) (rest string, ok bool) {
	after := cutDate(line)
	if after == line {
		return line, true
	}
	rest, kernel, named := cutIdentifier(after)
	if !named {
		return after, true // dmesg --time-format=iso has the time alone
	}
	return rest, kernel
}

// cutDate takes off a date and time of syslog or ISO 8601 and the space behind it.
func cutDate(line string) string {
	if len(line) > 16 && strings.Contains("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec ", line[:4]) &&
		line[3] == ' ' && line[6] == ' ' && line[9] == ':' && line[12] == ':' && line[15] == ' ' {
		return line[16:]
	}
	if len(line) > 20 && line[4] == '-' && line[7] == '-' && line[10] == 'T' && line[13] == ':' && line[16] == ':' {
		if date, rest, found := strings.Cut(line, " "); found && isDigits(date[:4]) && len(date) <= 35 {
			return rest
		}
	}
	return line
}

// cutIdentifier takes off "host kernel: ". Named is false if there is no host and program at all.
func cutIdentifier(s string) (rest string, kernel, named bool) {
	host, after, found := strings.Cut(s, " ")
	if !found || host == "" || strings.ContainsAny(host, ":[]()<>,=") {
		return s, false, false
	}
	program, rest, found := strings.Cut(after, ": ")
	if !found || program == "" || strings.ContainsAny(program, " ,=") {
		return s, false, false
	}
	if program != "kernel" && !strings.HasSuffix(program, "]") {
		return s, false, false // "foo bar: text" is kernel text as well
	}
	return rest, program == "kernel", true
}

// cutDecoded takes off what `dmesg -x` puts in front: "kern  :emerg : ".
func cutDecoded(line string) (rest string, prefix int) {
	facility, after, found := strings.Cut(line, ":")
	if !found || len(facility) != 6 {
		return line, -1
	}
	level, rest, found := strings.Cut(after, ": ")
	if !found || len(level) > 7 {
		return line, -1
	}
	n := -1
	for i, name := range [...]string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"} {
		if strings.TrimRight(level, " ") == name {
			n = i
		}
	}
	switch strings.TrimRight(facility, " ") {
	case "kern":
	case "user", "mail", "daemon", "auth", "syslog", "lpr", "news":
		n |= 1 << 3 // which one does not matter
	default:
		return line, -1
	}
	if n < 0 {
		return line, -1
	}
	return rest, n
}

// cutPriority takes off "<12>" (dmesg -r, console_msg_format=syslog).
func cutPriority(line string) (rest string, prefix int) {
	if !strings.HasPrefix(line, "<") {
		return line, -1
	}
	number, rest, found := strings.Cut(line[1:], ">")
	if !found || len(number) > 4 || !isDigits(number) {
		return line, -1
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		return line, -1
	}
	return rest, n
}

// cutStamp takes off a time in brackets and the space behind it: "[    3.591339] ", "[    3.591339 <    0.000012>] "
// (dmesg -d), "[  +0.000012] ", "[Nov21 21:44] " (dmesg -e), "[Fri Nov 21 21:44:00 2025] " (dmesg -T). The latter ones do
// not tell the uptime.
func cutStamp(line string) (rest string, uptime time.Duration) {
	if !strings.HasPrefix(line, "[") {
		return line, -1
	}
	in, rest, found := strings.Cut(line[1:], "]")
	if !found || len(in) < 8 || len(in) > 40 {
		return line, -1
	}
	rest = strings.TrimPrefix(rest, " ")
	number, delta, _ := strings.Cut(in, " <")
	if delta != "" && !strings.HasSuffix(delta, ">") {
		return line, -1
	}
	number = strings.TrimLeft(number, " ")
	if sec, frac, found := strings.Cut(strings.TrimPrefix(number, "+"), "."); found && len(sec) <= 9 && len(frac) == 6 &&
		isDigits(sec) && isDigits(frac) {
		if number[0] == '+' {
			return rest, -1
		}
		s, _ := strconv.ParseInt(sec, 10, 64)
		us, _ := strconv.ParseInt(frac, 10, 64)
		return rest, time.Duration(s)*time.Second + time.Duration(us)*time.Microsecond
	}
	for _, layout := range [...]string{"Mon Jan _2 15:04:05 2006", "Jan_2 15:04"} {
		if _, err := time.Parse(layout, in); err == nil {
			return rest, -1
		}
	}
	return line, -1
}

// cutCaller takes off "[    T1] ", which CONFIG_PRINTK_CALLER adds.
func cutCaller(line string) string {
	if !strings.HasPrefix(line, "[") {
		return line
	}
	in, rest, found := strings.Cut(line[1:], "]")
	in = strings.TrimLeft(in, " ")
	if !found || len(in) < 2 || in[0] != 'T' && in[0] != 'C' || !isDigits(in[1:]) {
		return line
	}
	return strings.TrimPrefix(rest, " ")
}

// isDigits reports whether s is a decimal number of at least one digit.
func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
