package detect

import (
	"slices"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	// maxTail and maxTailBytes bound what is collected behind the headline. An oops and its panic are some 70 lines.
	maxTail      = 1000
	maxTailBytes = 64 << 10
	// maxFatal and maxSick bound how long it is collected for, because a kernel that lives need not fall silent. A slow
	// serial console on the same machine holds up an oops for seconds.
	maxFatal = 30 * time.Second
	maxSick  = 10 * time.Second
	// maxHeading is how far, in lines, a WARNING or BUG stands behind the message that names it.
	maxHeading = 4
)

// A report is an incident while it is being collected.
type report struct {
	rule    *Rule // that the title is from
	title   string
	head    int // index in lines of the headline, where the trace begins
	verdict Verdict
	code    string

	id      netconsole.Identity // of the deciding record, like at, seq, uptime and release
	at      time.Time
	seq     uint64
	uptime  time.Duration
	release string

	lines []line
	size  int // bytes that they take
	tail  int // bytes of lines that were added
	added int
	full  bool

	due   time.Time // complete if nothing is heard until then
	limit time.Time // complete then in any case
	last  time.Time
	ended bool // the kernel has said its last word
	quiet bool // it was told a short while ago
}

// add appends a line, which went through clean, while there is room.
func (rep *report) add(stamp, text []byte, kernel bool) {
	if rep.full || rep.added == maxTail || rep.tail+len(stamp)+len(text) > maxTailBytes {
		rep.full = true
		return
	}
	rep.lines = append(rep.lines, line{text: string(stamp) + string(text), at: len(stamp), kernel: kernel})
	rep.size += rep.lines[len(rep.lines)-1].size()
	rep.added++
	rep.tail += len(stamp) + len(text)
}

// heard puts off the end. A stall is told in bursts that are seconds apart: other CPUs are asked for their backtraces, and
// given time to answer (nmi_trigger_cpumask_backtrace, lib/nmi_backtrace.c).
func (rep *report) heard(now time.Time, silence time.Duration) {
	rep.last = now
	if rep.ended {
		return
	}
	if rep.rule.stalls {
		silence *= 3
	}
	rep.due = now.Add(silence)
	if rep.due.After(rep.limit) {
		rep.due = rep.limit
	}
}

// end is called when the kernel has said its last word. Records that were under way, or under assembly, still come.
func (rep *report) end(now time.Time) {
	if !rep.ended {
		rep.ended = true
		rep.due = now.Add(netconsole.Patience)
	}
}

// decided notes the record that decides about the incident.
func (rep *report) decided(now time.Time, r *netconsole.Record) {
	rep.id, rep.at, rep.seq, rep.uptime, rep.release = r.Identity(), now, r.Seq, r.Uptime, r.Release
	if rep.release != "" {
		return
	}
	for _, f := range r.Fields {
		if f.Key == "release" { // sysdata
			rep.release = f.Value
		}
	}
}

// rename takes the title of a further record of the incident if it tells more.
func (rep *report) rename(rule *Rule, title string) {
	causes := strings.Fields(rule.follows)
	caused := slices.Contains(causes, rep.rule.Code) || slices.Contains(causes, rep.code)
	switch {
	case rule.rank == placeholder, rule.rank == vague && caused, rep.heads(rule):
		return
	case rep.verdict == rule.Verdict && rule.rank >= rep.rule.rank:
		return
	case rep.verdict > rule.Verdict:
		return
	}
	rep.rule, rep.title = rule, title
	rep.head = max(0, len(rep.lines)-1)
}

// heads reports whether the incident's headline names what rule has found: the WARNING or BUG right behind it.
func (rep *report) heads(rule *Rule) bool {
	return rep.rule.heads && len(rep.lines)-1-rep.head <= maxHeading && (rule.Verdict == Oops || rule.Code == kernelWarning)
}
