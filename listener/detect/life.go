package detect

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	// repeatAfter is how long the same sick report of a source is not told again. unregister_netdevice comes every ten
	// seconds for as long as the machine is up.
	repeatAfter = 10 * time.Minute
	// maxTold bounds how many reports a source may make in that time.
	maxTold = 16
	// resurrection is how long after its death a kernel that cannot prove who it is may still say something, before it
	// is taken for another one, or the death for a lie.
	resurrection = time.Minute
	// maxBare is after how many lines without a time stamp a source is taken to have stopped printing them.
	maxBare = 32
)

// A life is one kernel from boot to death, as told by records of one format that claim the same identity.
type life struct {
	source   *Source
	extended bool
	id       netconsole.Identity
	clock    clock
	kept     uint64 // 1 + the sequence number of the record kept last (extended format)
	ring     ring
	report   *report // the incident being collected, if any
	death    *death  // set once the incident of its death is complete
	told     []telling
	release  string // from the boot banner
	bare     int    // lines without a time stamp since the last one with
	stamped  bool   // lines have time stamps (basic format)
}

// A death is all that is kept of a complete dying incident: what else comes is the same one.
type death struct {
	id netconsole.Identity
	at time.Time // of the last record
	// presumed says that it was concluded from an oops: the kernel itself has not said so.
	presumed bool
}

// A telling is a sick report that was told.
type telling struct {
	code, title string
	at          time.Time
}

// push takes one record of this life.
func (l *life) push(now time.Time, r *netconsole.Record, emit func(Incident)) {
	l.follow(now, r, emit)
	if isCanary(r) || l.repeated(r) {
		return // proof of the channel, or nothing new
	}
	judged := l.judges(r)
	if !r.Partial {
		l.keep(now, r, judged, emit)
	}
	if judged {
		if rule, at := l.source.table.find(r.Text); rule != nil {
			l.found(now, r, rule, at, emit)
		}
	}
}

// follow notices when another kernel begins to speak.
func (l *life) follow(now time.Time, r *netconsole.Record, emit func(Incident)) {
	banner := bytes.HasPrefix(r.Text, []byte(bootBanner)) && r.Facility() <= 0
	switch {
	case l.id.Boot != "":
		// A boot id says it all.
	case l.clock.behind(now, r):
		// panic_print and panic_console_replay (kernel/panic.c) have all of the log printed once more in the middle of a
		// panic, at once.
		replay := l.extended && l.report != nil && l.report.verdict == Dying && !l.report.ended && !l.clock.paused(now)
		if !replay {
			l.reborn(emit)
		}
	case banner && !l.extended:
		l.reborn(emit)
	}
	if d := l.death; d != nil && l.id.Secret == "" && now.Sub(d.at) > resurrection {
		l.death = nil
	}
	if banner {
		l.release, _, _ = strings.Cut(string(r.Text[len(bootBanner):]), " ")
	}
	l.clock.set(now, r)
}

// bootBanner begins linux_banner (init/version.c), the first message of every boot.
const bootBanner = "Linux version "

// reborn starts a new life.
func (l *life) reborn(emit func(Incident)) {
	if l.report != nil {
		l.complete(emit)
	}
	*l = life{source: l.source, extended: l.extended, id: l.id}
}

// judges reports whether the record's message is to be believed the kernel's own words, from its first byte.
func (l *life) judges(r *netconsole.Record) bool {
	switch {
	case r.Cont:
		return false // the middle of a line
	case r.Extended:
		return r.FromKernel()
	case r.Prefix >= 8:
		return false // a log line that says it is userspace's
	case r.Uptime >= 0:
		l.stamped, l.bare = true, 0
	case l.stamped:
		// printk.time stamps every line or none: this one is the rest of a record that was cut (netconsole's write_msg cuts
		// without a mark), or was written to the console by userspace.
		if l.bare++; l.bare < maxBare {
			return false
		}
		l.stamped = false
	}
	return true
}

// newline separates the lines of a record.
var newline = []byte{'\n'}

// repeated reports whether the record is the last one once more, as a second target or the network repeats it.
func (l *life) repeated(r *netconsole.Record) bool { return l.extended && l.kept == r.Seq+1 }

// keep stores the lines of a record.
func (l *life) keep(now time.Time, r *netconsole.Record, judged bool, emit func(Incident)) {
	l.kept = r.Seq + 1
	var buf [32]byte
	stamp := appendStamp(buf[:0], r.Uptime)
	text, rest, more := bytes.Cut(r.Text, newline)
	for first := true; ; first = false {
		kernel := judged && first
		text = clean(text)
		l.ring.add(l.source.cfg.lines(), l.source.cfg.bytes(), stamp, text, kernel)
		if l.report != nil {
			l.report.add(stamp, text, kernel)
		}
		if !more {
			break
		}
		text, rest, more = bytes.Cut(rest, newline)
	}
	if rep := l.report; rep != nil {
		rep.heard(now, l.source.cfg.silence())
		if judged && rep.verdict == Oops && l.source.kdump && dumpsCore(r.Text) {
			l.escalate(now, r, rep.code, emit)
		}
	}
}

// found acts on a message that a rule knows.
func (l *life) found(now time.Time, r *netconsole.Record, rule *Rule, at []int, emit func(Incident)) {
	verdict := rule.Verdict
	if verdict == Oops && l.source.panicOnOops {
		verdict = Dying
	}
	if r.Partial && verdict < Dying {
		return // it comes again, whole
	}
	if l.death != nil {
		confirmed := l.death.presumed && rule.Verdict == Dying
		if verdict < Dying || !confirmed && !stronger(r.Identity(), l.death.id) {
			return
		}
		l.death = nil
	}

	title := titleOf(rule, r.Text, at)
	rep := l.report
	switch {
	case rep == nil:
		l.open(now, r, rule, verdict, title, emit)
	case rep.verdict == Dying:
		rep.rename(rule, title)
		if verdict == Dying {
			if stronger(r.Identity(), rep.id) {
				rep.decided(now, r)
				emit(l.incident(false))
			}
			if rule.ends {
				rep.end(now)
			}
		}
	case verdict == Dying:
		rep.rename(rule, title)
		l.escalate(now, r, rule.Code, emit)
		if rule.ends {
			rep.end(now)
		}
	case rep.heads(rule):
		if verdict > rep.verdict {
			rep.verdict, rep.code, rep.quiet = Oops, rule.Code, false
			rep.decided(now, r)
			emit(l.incident(false))
		}
	case rep.verdict == Oops:
		rep.rename(rule, title)
	case verdict == Sick && l.wasTold(now, rule, title):
		// Known, and no reason to end what is being told.
	case verdict == Sick && rep.code == rule.Code && !rep.quiet:
		rep.rename(rule, title)
	default:
		l.complete(emit)
		l.open(now, r, rule, verdict, title, emit)
	}
}

// open starts an incident with this record as its headline.
func (l *life) open(now time.Time, r *netconsole.Record, rule *Rule, verdict Verdict, title string, emit func(Incident)) {
	rep := &report{
		rule:    rule,
		title:   title,
		verdict: verdict,
		code:    rule.Code,
		lines:   l.ring.all(),
		limit:   now.Add(maxSick),
	}
	if verdict > Sick {
		rep.limit = now.Add(maxFatal)
	}
	if !r.Partial {
		rep.head = max(0, len(rep.lines)-1-bytes.Count(r.Text, newline))
	} else {
		rep.head = len(rep.lines)
	}
	for i := range rep.lines {
		rep.size += rep.lines[i].size()
	}
	rep.decided(now, r)
	rep.heard(now, l.source.cfg.silence())
	if rule.ends {
		rep.end(now)
	}
	l.report = rep
	if verdict < Dying {
		rep.quiet = l.wasTold(now, rule, title)
		if !rep.quiet {
			l.tell(now, rule, title)
		}
	}
	if verdict > Sick && !rep.quiet {
		emit(l.incident(false))
	}
}

// escalate makes the incident a death.
func (l *life) escalate(now time.Time, r *netconsole.Record, code string, emit func(Incident)) {
	rep := l.report
	rep.verdict, rep.code, rep.quiet = Dying, code, false
	rep.limit = now.Add(maxFatal)
	rep.heard(now, l.source.cfg.silence())
	rep.decided(now, r)
	emit(l.incident(false))
}

// complete ends the incident.
func (l *life) complete(emit func(Incident)) {
	inc := l.incident(true)
	rep := l.report
	l.report = nil
	if rep.verdict == Dying {
		l.death = &death{id: rep.id, at: rep.last, presumed: rep.code == kernelOops}
	}
	if !rep.quiet {
		emit(inc)
	}
}

// incident is the report as it stands.
func (l *life) incident(complete bool) Incident {
	rep := l.report
	behind := rep.lines[min(rep.head, len(rep.lines)):]
	t := readTrace(behind, rep.rule)
	inc := Incident{
		Source:    l.source.addr,
		Identity:  rep.id,
		Time:      rep.at,
		Uptime:    rep.uptime,
		Verdict:   rep.verdict,
		Authority: Text,
		Cause:     rep.code,
		Title:     name(rep.title, &t),
		Remedy:    rep.rule.Remedy,
		Release:   rep.release,
		Complete:  complete,
	}
	if l.extended {
		inc.Authority = Kernel
	}
	if complete || len(t.frames) > 0 {
		inc.Fingerprint = fingerprint(rep.rule.Code, rep.title, &t)
	}
	if inc.Release == "" {
		inc.Release = l.release
	}
	if inc.Release == "" {
		inc.Release = release(behind)
	}
	inc.Trace = texts(rep.lines)
	if rep.full {
		inc.Trace = append(inc.Trace, netconsole.Gap)
	}
	return inc
}

// size is how many bytes of log are kept.
func (l *life) size() int {
	n := len(l.ring.buf)
	if l.report != nil {
		n += l.report.size
	}
	return n
}

// texts are the lines as they are printed.
func texts(lines []line) []string {
	t := make([]string, len(lines))
	for i := range lines {
		t[i] = lines[i].text
	}
	return t
}

// wasTold reports whether the finding was told a short while ago, or so many others that it has to wait.
func (l *life) wasTold(now time.Time, rule *Rule, title string) bool {
	if len(l.told) == maxTold && now.Sub(l.told[0].at) < repeatAfter {
		return true
	}
	return slices.ContainsFunc(l.told, func(t telling) bool {
		return t.code == rule.Code && t.title == title && now.Sub(t.at) < repeatAfter
	})
}

// tell remembers that the finding is being told.
func (l *life) tell(now time.Time, rule *Rule, title string) {
	l.told = slices.DeleteFunc(l.told, func(t telling) bool { return t.code == rule.Code && t.title == title })
	if len(l.told) == maxTold {
		l.told = slices.Delete(l.told, 0, 1)
	}
	l.told = append(l.told, telling{rule.Code, title, now})
}

// stronger reports whether a proves more about its sender than b.
func stronger(a, b netconsole.Identity) bool {
	return a.Secret != "" && b.Secret == "" || a.Boot != "" && b.Boot == "" && b.Secret == ""
}

// dumpsCore reports whether the line of an oops tells of a context in which kexec_should_crash (kernel/kexec_core.c)
// has the crash kernel started whatever panic_on_oops says: the idle task, init, or an interrupt.
func dumpsCore(line []byte) bool {
	text := string(line)
	return text == " <IRQ>" || strings.HasPrefix(text, "CPU: ") &&
		(strings.Contains(text, " PID: 0 ") || strings.Contains(text, " PID: 1 "))
}
