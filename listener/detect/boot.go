package detect

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	// repeatAfter is how long a sick finding of a source is not reported again. The kernel prints unregister_netdevice every
	// ten seconds as long as the machine is up.
	repeatAfter = 10 * time.Minute
	// maxReported bounds how many findings of a source are reported in that time.
	maxReported = 16
	// sameDeath is how long after its death a kernel without a secret may still print something. Anything later comes from
	// another kernel, or the death was a lie.
	sameDeath = time.Minute
	// anotherDeath is how long after the word of its death a kernel without a secret is emitted again if it says so once more:
	// whoever shares its address may have said the first, and a witness is about the time. It is as long as a renewal of a
	// Lease may be in flight (policy.InFlight).
	anotherDeath = 2 * time.Second
	// maxBare is how many lines without a time stamp in a row show that a source has stopped printing time stamps.
	maxBare = 32
)

// A boot is one kernel from start to end, as seen in records of one format that claim the same identity.
type boot struct {
	source   *Source
	extended bool
	id       netconsole.Identity
	clock    clock
	stored   uint64 // 1 + the sequence number of the record stored last (extended format)
	ring     ring
	draft    *draft // the incident being collected, if any
	death    *death // set once the incident of its death is complete
	reported []finding
	release  string // from the boot banner
	bare     int    // lines without a time stamp since the last one with
	stamped  bool   // lines have time stamps (basic format)
}

// A death is all that is kept of a complete dying incident. Later records belong to the same death.
type death struct {
	id netconsole.Identity
	at time.Time // of the last record
	// presumed says that it was concluded from an oops, without a panic message.
	presumed bool
}

// A finding is a sick or oops incident that was reported.
type finding struct {
	headline
	at time.Time
}

// push takes one record of this boot.
func (b *boot) push(now time.Time, r *netconsole.Record, emit func(Incident)) {
	b.noticeReboot(now, r, emit)
	if isCanary(r) || b.repeated(r) {
		return // proof of the channel, or nothing new
	}
	judged := b.judges(r)
	if !r.Partial {
		b.store(now, r, judged, emit)
	}
	if judged {
		if rule, at := b.source.table.find(r.Text); rule != nil {
			b.apply(now, r, rule, at, emit)
		}
	}
}

// noticeReboot starts over when the record is another kernel's.
func (b *boot) noticeReboot(now time.Time, r *netconsole.Record, emit func(Incident)) {
	banner := bytes.HasPrefix(r.Text, []byte(bootBanner)) && r.Facility() <= 0
	switch {
	case b.id.Boot != "":
		// Another boot would have another id.
	case b.clock.behind(now, r):
		// panic_print and panic_console_replay (kernel/panic.c) print the whole log once more in the middle of a panic.
		replay := b.extended && b.draft != nil && b.draft.verdict == Dying && !b.draft.ended && !b.clock.paused(now)
		if !replay {
			b.restart(emit)
		}
	case banner && !b.extended:
		b.restart(emit)
	}
	if d := b.death; d != nil && b.id.Secret == "" && now.Sub(d.at) > sameDeath {
		b.death = nil
	}
	if banner {
		b.release, _, _ = strings.Cut(string(r.Text[len(bootBanner):]), " ")
	}
	b.clock.set(now, r)
}

// bootBanner begins linux_banner (init/version.c), the first message of every boot.
const bootBanner = "Linux version "

// restart forgets everything about the boot: another one has started.
func (b *boot) restart(emit func(Incident)) {
	if b.draft != nil {
		b.complete(emit)
	}
	*b = boot{source: b.source, extended: b.extended, id: b.id}
}

// judges reports whether the record's message is the kernel's own, from its first byte.
func (b *boot) judges(r *netconsole.Record) bool {
	switch {
	case r.Cont:
		return false // the middle of a line
	case r.Extended:
		return r.FromKernel()
	case r.Prefix >= 8:
		return false // a log line that names a facility of userspace
	case r.Uptime >= 0:
		b.stamped, b.bare = true, 0
	case b.stamped:
		// printk.time stamps every line or none: this one is the rest of a record that was cut (netconsole's write_msg cuts
		// without a mark), or was written to the console by userspace.
		if b.bare++; b.bare < maxBare {
			return false
		}
		b.stamped = false
	}
	return true
}

// newline separates the lines of a record.
var newline = []byte{'\n'}

// repeated reports whether the record is the last one again: a second target or the network repeats records.
func (b *boot) repeated(r *netconsole.Record) bool { return b.extended && b.stored == r.Seq+1 }

// store adds the lines of a record to the ring, and to the draft if there is one.
func (b *boot) store(now time.Time, r *netconsole.Record, judged bool, emit func(Incident)) {
	b.stored = r.Seq + 1
	var buf [64]byte
	stamp := appendStamp(buf[:0], r.Uptime, r.Caller)
	text, rest, more := bytes.Cut(r.Text, newline)
	for first := true; ; first = false {
		kernel := judged && first
		text = clean(text)
		b.ring.add(b.source.cfg.lines(), b.most(), stamp, text, kernel)
		if b.draft != nil {
			b.draft.add(stamp, text, kernel)
		}
		if !more {
			break
		}
		text, rest, more = bytes.Cut(rest, newline)
	}
	if d := b.draft; d != nil {
		if judged {
			d.noticeAnswers(now, r.Text)
		}
		d.extend(now, b.source.cfg.silence())
		if judged && d.verdict == Oops && b.source.kdump && dumpsCore(r.Text) {
			b.escalate(now, r, d.cause, emit)
		}
	}
}

// most is how many bytes the lines may take.
func (b *boot) most() int {
	most := b.source.cfg.bytes()
	if b.source.share == 0 || b.draft != nil {
		return most
	}
	return min(most, max(b.source.share, firstRing, len(b.ring.buf)))
}

// apply acts on a message that a rule matches.
func (b *boot) apply(now time.Time, r *netconsole.Record, rule *Rule, at []int, emit func(Incident)) {
	verdict := rule.Verdict
	if verdict == Oops && b.source.panicOnOops {
		verdict = Dying
	}
	if r.Partial && verdict < Dying {
		return // it arrives again, whole
	}
	if b.death != nil {
		confirmed := b.death.presumed && rule.Verdict == Dying
		another := b.mayBeAnother(now, rule, b.death.at)
		if verdict < Dying || !confirmed && !another && !stronger(r.Identity(), b.death.id) {
			return
		}
		b.death = nil
	}

	h := headline{rule, titleOf(rule, r.Text, at), placeOf(rule, r.Text, at)}
	d := b.draft
	switch {
	case d == nil:
		b.open(now, r, h, verdict, emit)
	case d.verdict == Dying:
		d.rename(h)
		if verdict == Dying {
			another := b.mayBeAnother(now, rule, d.at)
			if another && rule.rank == proper {
				d.setHeadline(h, max(0, len(d.lines)-1))
			}
			if another || stronger(r.Identity(), d.id) {
				d.setDeciding(now, r)
				emit(b.incident(false))
			}
			if rule.ends {
				d.end(now)
			}
		}
	case verdict == Dying:
		d.rename(h)
		b.escalate(now, r, rule.Cause, emit)
		if rule.ends {
			d.end(now)
		}
	case d.heads(rule):
		if verdict > d.verdict {
			d.verdict, d.cause, d.suppressed = Oops, rule.Cause, false
			d.setDeciding(now, r)
			emit(b.incident(false))
		}
	case d.verdict == Oops:
		d.rename(h)
	case rule.heads && d.rule.Cause == kernelWarning && d.since() <= maxHeading:
		d.setHeadline(h, d.head) // the message of a WARNING may come behind it, too
		d.cause = rule.Cause
		b.markReported(now, h)
	case verdict == Sick && b.recentlyReported(now, h):
		// It is known, and no reason to end the draft.
	case verdict == Sick && d.cause == rule.Cause && !d.suppressed:
		d.rename(h)
	case verdict == Sick && rule.rank == proper && !rule.heads && strings.Contains(d.title, inFunction) && !strings.Contains(h.title, inFunction):
		// One message says it all, and the draft's backtrace goes on behind it.
		b.draft = nil
		b.open(now, r, h, verdict, emit)
		b.complete(emit)
		b.draft = d
	default:
		b.complete(emit)
		b.open(now, r, h, verdict, emit)
	}
}

// mayBeAnother reports whether the message that rule has found may be of a death of which nothing was heard until at.
func (b *boot) mayBeAnother(now time.Time, rule *Rule, at time.Time) bool {
	return b.id.Secret == "" && !rule.ends && rule.rank != placeholder && now.Sub(at) >= anotherDeath
}

// open starts an incident with this record as its headline.
func (b *boot) open(now time.Time, r *netconsole.Record, h headline, verdict Verdict, emit func(Incident)) {
	d := &draft{
		table:   b.source.table,
		verdict: verdict,
		cause:   h.rule.Cause,
		lines:   b.ring.all(),
		limit:   now.Add(maxSick),
	}
	if verdict > Sick {
		d.limit = now.Add(maxFatal)
	}
	head := len(d.lines)
	if !r.Partial {
		head = max(0, head-1-bytes.Count(r.Text, newline))
	}
	d.setHeadline(h, head)
	for i := range d.lines {
		d.size += d.lines[i].size()
	}
	d.setDeciding(now, r)
	d.extend(now, b.source.cfg.silence())
	if h.rule.ends {
		d.end(now)
	}
	b.draft = d
	if verdict < Dying {
		d.suppressed = b.recentlyReported(now, h)
		if !d.suppressed {
			b.markReported(now, h)
		}
	}
	if verdict > Sick && !d.suppressed {
		emit(b.incident(false))
	}
}

// escalate makes the incident a death.
func (b *boot) escalate(now time.Time, r *netconsole.Record, cause string, emit func(Incident)) {
	d := b.draft
	d.verdict, d.cause, d.suppressed = Dying, cause, false
	d.limit = now.Add(maxFatal)
	d.extend(now, b.source.cfg.silence())
	d.setDeciding(now, r)
	emit(b.incident(false))
}

// complete ends the incident.
func (b *boot) complete(emit func(Incident)) {
	d := b.draft
	if d.verdict == Dying {
		b.death = &death{id: d.id, at: d.last, presumed: d.cause == kernelOops}
	}
	if !d.suppressed {
		emit(b.incident(true))
	}
	b.draft = nil
}

// incident is the draft as it stands.
func (b *boot) incident(complete bool) Incident {
	d := b.draft
	behind := d.lines[min(d.head, len(d.lines)):]
	t := readTrace(behind, d.rule, d.place)
	inc := Incident{
		Source:   b.source.addr,
		Identity: d.id,
		Time:     d.at,

		Verdict:   d.verdict,
		Authority: Text,
		Cause:     d.cause,
		Title:     name(d.title, &t),
		Culprit:   culprit(d.lines, d.head, d.rule),
		Remedy:    d.rule.Remedy,
		Release:   d.release,
		Complete:  complete,
	}
	if b.extended {
		inc.Authority = Kernel
	}
	if complete || t.guilty != "" {
		inc.Fingerprint = fingerprint(d.rule.Cause, cmp.Or(d.rule.alike, d.title), t.guilty)
	}
	if inc.Release == "" {
		inc.Release = b.release
	}
	if inc.Release == "" {
		inc.Release = release(behind)
	}
	inc.Trace = texts(d.lines)
	if d.full {
		inc.Trace = append(inc.Trace, netconsole.Gap)
	}
	return inc
}

// size is how many bytes of log are kept.
func (b *boot) size() int {
	n := len(b.ring.buf)
	if b.draft != nil {
		n += b.draft.size
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

// recentlyReported reports whether the finding, or too many others, were emitted within repeatAfter.
func (b *boot) recentlyReported(now time.Time, h headline) bool {
	if len(b.reported) == maxReported && now.Sub(b.reported[0].at) < repeatAfter {
		return true
	}
	return slices.ContainsFunc(b.reported, func(f finding) bool {
		return f.headline.same(h) && now.Sub(f.at) < repeatAfter
	})
}

// markReported remembers that the finding is being reported.
func (b *boot) markReported(now time.Time, h headline) {
	b.reported = slices.DeleteFunc(b.reported, func(f finding) bool { return f.headline.same(h) })
	if len(b.reported) == maxReported {
		b.reported = slices.Delete(b.reported, 0, 1)
	}
	b.reported = append(b.reported, finding{h, now})
}

// stronger reports whether a proves more about its sender than b.
func stronger(a, b netconsole.Identity) bool {
	return a.Secret != "" && b.Secret == "" || a.Boot != "" && b.Boot == "" && b.Secret == ""
}

// dumpsCore reports whether the line of an oops shows a context in which kexec_should_crash (kernel/kexec_core.c)
// has the crash kernel started whatever panic_on_oops says: the idle task, init, or an interrupt.
func dumpsCore(line []byte) bool {
	text := string(line)
	return strings.HasPrefix(text, " <IRQ>") || strings.HasPrefix(text, "CPU: ") &&
		(strings.Contains(text, " PID: 0 ") || strings.Contains(text, " PID: 1 "))
}
