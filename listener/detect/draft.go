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
	// maxFatal and maxSick bound how long lines are collected, because a kernel that lives need not fall silent. A slow
	// serial console on the same machine holds up an oops for seconds.
	maxFatal = 30 * time.Second
	maxSick  = 10 * time.Second
	// maxHeading is how far, in lines, a WARNING or BUG stands behind the message that names it.
	maxHeading = 4
)

// A draft is an incident while its lines are being collected.
type draft struct {
	rule    *Rule // that the title is from
	title   string
	head    int // index in lines of the headline, where the trace begins
	verdict Verdict
	cause   string

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

	due        time.Time // complete if nothing arrives until then
	limit      time.Time // complete then in any case
	last       time.Time // of the last record
	ended      bool      // the kernel has printed its last message
	suppressed bool      // the same finding was reported a short while ago
}

// add appends a line, which went through clean, while there is room.
func (d *draft) add(stamp, text []byte, kernel bool) {
	if d.full || d.added == maxTail || d.tail+len(stamp)+len(text) > maxTailBytes {
		d.full = true
		return
	}
	d.lines = append(d.lines, line{text: string(stamp) + string(text), at: len(stamp), kernel: kernel})
	d.size += d.lines[len(d.lines)-1].size()
	d.added++
	d.tail += len(stamp) + len(text)
}

// extend puts off the end, because a record has arrived. A stall is printed in bursts that are seconds apart: other CPUs
// are asked for their backtraces, and given time to answer (nmi_trigger_cpumask_backtrace, lib/nmi_backtrace.c).
func (d *draft) extend(now time.Time, silence time.Duration) {
	d.last = now
	if d.ended {
		return
	}
	if d.rule.stalls {
		silence *= 3
	}
	d.due = now.Add(silence)
	if d.due.After(d.limit) {
		d.due = d.limit
	}
}

// end notes that the kernel has printed its last message. Records in flight, or under assembly, still arrive.
func (d *draft) end(now time.Time) {
	if !d.ended {
		d.ended = true
		d.due = now.Add(netconsole.Patience)
	}
}

// setDeciding notes the record that decides about the incident.
func (d *draft) setDeciding(now time.Time, r *netconsole.Record) {
	d.id, d.at, d.seq, d.uptime, d.release = r.Identity(), now, r.Seq, r.Uptime, r.Release
	if d.release != "" {
		return
	}
	for _, f := range r.Fields {
		if f.Key == "release" { // sysdata
			d.release = f.Value
		}
	}
}

// rename takes the title of a further record of the incident if it says more.
func (d *draft) rename(rule *Rule, title string) {
	causes := strings.Fields(rule.follows)
	caused := slices.Contains(causes, d.rule.Cause) || slices.Contains(causes, d.cause)
	switch {
	case rule.rank == placeholder, rule.rank == vague && caused, d.heads(rule):
		return
	case d.verdict == rule.Verdict && rule.rank >= d.rule.rank:
		return
	case d.verdict > rule.Verdict:
		return
	}
	d.rule, d.title = rule, title
	d.head = max(0, len(d.lines)-1)
}

// heads reports whether the incident's headline names what rule has found: the WARNING or BUG right behind it.
func (d *draft) heads(rule *Rule) bool {
	return d.rule.heads && len(d.lines)-1-d.head <= maxHeading && (rule.Verdict == Oops || rule.Cause == kernelWarning)
}
