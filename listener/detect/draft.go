package detect

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/lazyregexp"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	// maxTail and maxTailBytes bound what is collected behind the headline. An oops and its panic are some 70 lines.
	maxTail      = 1000
	maxTailBytes = 64 << 10
	// maxFatal and maxSick bound how long lines are collected, because a kernel that runs on need not fall silent. A slow
	// serial console on the same machine delays the lines of an oops by seconds.
	maxFatal = 30 * time.Second
	maxSick  = 10 * time.Second
	// maxAnswer is how long the kernel waits for backtraces of other CPUs, in silence: ten thousand delays of 1 ms
	// (nmi_trigger_cpumask_backtrace, lib/nmi_backtrace.c), which take longer in a virtual machine. On arm64 without pseudo-NMIs a
	// CPU with interrupts off never answers, and the panic comes only then.
	// Stalled CPUs are asked one after the other (rcu_dump_cpu_stacks, kernel/rcu/tree_stall.h), for maxAsking at most.
	maxAnswer = 30 * time.Second
	maxAsking = 2 * time.Minute
	// maxHeading is how far, in lines, a WARNING or BUG stands behind the message that names it.
	maxHeading = 4
	// maxAbove is how many lines an oops has between its headline and its CPU's: arm64 explains the abort in some twenty.
	maxAbove = 25
)

// A headline is a message that a rule matched.
type headline struct {
	rule  *Rule
	title string
	place string // the function that the message names, or empty
}

// same reports whether two headlines are of the same finding.
func (h headline) same(g headline) bool {
	return h.rule.Cause == g.rule.Cause && h.title == g.title && h.place == g.place
}

// A draft is an incident while its lines are being collected.
type draft struct {
	table    *table
	headline     // that names the incident
	head     int // index in lines of the headline, where the trace begins
	verdict  Verdict
	cause    string

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
	asked      int       // CPUs that have not yet answered with their backtrace
	answers    time.Time // until when they may
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
	if d.rule.stalls && d.rule.Verdict == Sick {
		silence *= 3
	}
	d.due = now.Add(silence)
	if d.due.After(d.limit) {
		d.due = d.limit
	}
	if d.asked > 0 && d.due.Before(d.answers) {
		d.due = d.answers
	}
}

// noticeAnswers counts the CPUs that are asked for their backtraces, and those that answer. If some never do, a panic comes right
// after the kernel has given up.
func (d *draft) noticeAnswers(now time.Time, msg []byte) {
	if m := askedCPUs.FindSubmatch(msg); m != nil && now.Sub(d.at) < maxAsking {
		d.asked, d.answers = countCPUs(string(m[1])), now.Add(maxAnswer)
	}
	switch {
	case d.asked <= 0:
	case bytes.HasPrefix(msg, []byte("NMI backtrace for cpu ")):
		d.asked--
	case bytes.HasPrefix(msg, []byte("Kernel panic")):
		d.asked = 0
	case bytes.HasPrefix(msg, []byte("After 10 seconds, these CPU")):
		d.asked, d.answers = 1, now.Add(netconsole.WireTimeout)
	}
}

// askedCPUs finds the CPUs in "Sending NMI from CPU 0 to CPUs 1-3,5:".
var askedCPUs = lazyregexp.New(`^Sending NMI from CPU \d+ to CPUs ([\d,-]+):`)

// countCPUs counts the CPUs of a list such as "1-3,5".
func countCPUs(list string) (n int) {
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err1 := strconv.Atoi(from)
		last, err2 := strconv.Atoi(to)
		if err1 == nil && err2 == nil && first <= last {
			n += last - first + 1
		}
	}
	return n
}

// end notes that the kernel has printed its last message. Records in flight, or under assembly, still arrive.
func (d *draft) end(now time.Time) {
	if !d.ended {
		d.ended = true
		d.due = now.Add(netconsole.WireTimeout)
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

// setHeadline names the incident by the message at head. A message that only says what an oops led to is no name. If the oops was
// reported a while ago its headline names the incident, and if that was lost, the lines that did arrive.
func (d *draft) setHeadline(h headline, head int) {
	d.headline, d.head = h, head
	if h.rule.rank != vague || !slices.Contains(strings.Fields(h.rule.follows), kernelOops) {
		return
	}
	if at := lostOops(d.lines[:min(head, len(d.lines))]); at >= 0 {
		d.headline = headline{rule: &Rule{Cause: kernelOops, Verdict: Oops, Title: "oops" + inFunction, rank: vague}, title: "oops" + inFunction}
		d.head = at
		d.takeOops()
	}
}

// takeOops names the incident by the best headline of an oops in the lines above its head, if they have one.
func (d *draft) takeOops() {
	best := placeholder
	for i := d.head - 1; i >= max(0, d.head-maxAbove) && !strings.HasPrefix(d.lines[i].message(), "---[ end trace"); i-- {
		text := []byte(d.lines[i].message())
		if rule, at := d.table.find(text); rule != nil && d.lines[i].kernel && rule.Verdict == Oops && rule.rank < best {
			best = rule.rank
			d.headline = headline{rule, titleOf(rule, text, at), placeOf(rule, text, at)}
		}
	}
}

// rename takes the headline of a further record of the incident if it says more.
func (d *draft) rename(h headline) {
	causes := strings.Fields(h.rule.follows)
	caused := slices.Contains(causes, d.rule.Cause) || slices.Contains(causes, d.cause) || d.verdict > Sick && d.rule.rank == proper
	switch {
	case h.rule.rank == placeholder, h.rule.rank == vague && caused, d.heads(h.rule):
		return
	case d.verdict == h.rule.Verdict && h.rule.rank >= d.rule.rank:
		return
	case d.verdict > h.rule.Verdict:
		return
	}
	d.setHeadline(h, max(0, len(d.lines)-1))
}

// heads reports whether the incident's headline names what rule has found: the WARNING or BUG right behind it.
func (d *draft) heads(rule *Rule) bool {
	if !d.rule.heads || rule.Verdict != Oops && rule.Cause != kernelWarning {
		return false
	}
	return d.since() <= maxHeading
}

// since is how many lines the headline's own CPU has printed behind it.
func (d *draft) since() int {
	if d.head >= len(d.lines) {
		return 0
	}
	caller, n := d.lines[d.head].caller(), 0
	for i := d.head + 1; i < len(d.lines); i++ {
		if d.lines[i].caller() == caller {
			n++
		}
	}
	return n
}

// lostOops is the index of the first line that arrived of an oops whose headline was lost, -1 if there is no such oops at the
// end of lines. It is the line of the CPU or of the instruction pointer, or where the backtrace begins. A report ends with a
// backtrace, registers or "end trace".
func lostOops(lines []line) int {
	const near = 100 // lines
	at, ends := -1, 0
	for i := len(lines) - 1; i >= max(0, len(lines)-near); i-- {
		if !lines[i].kernel {
			continue
		}
		msg := lines[i].message()
		switch {
		case strings.HasPrefix(msg, "---[ end trace"):
			if ends++; ends > 1 {
				return at // another report's
			}
		case strings.HasPrefix(msg, "------------[ cut here"), strings.HasPrefix(msg, "WARNING: "), strings.HasPrefix(msg, "Linux version "):
			if strings.HasPrefix(msg, "WARNING: ") {
				return -1 // it is that one's
			}
			return at
		case wherever(msg) != nil, ends == 1 && at < 0 && startsStack(msg):
			at = i
		case cpuLine.MatchString(msg):
			if at >= 0 {
				return i
			}
		}
	}
	return at
}
