package receive

import (
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	// offerAgain is how soon a full Sink is asked again.
	offerAgain = 100 * time.Millisecond
	// maxPerSource and maxPerParty bound the incidents that wait. One of a source is usual: its death.
	maxPerSource, maxPerParty = 8, 32
	// lastLines is how many lines of a trace are kept beyond limits.traces; beyond 5/4 of that, none are.
	lastLines = 24
)

// class is what waits in a line of its own.
type class int

const (
	deaths   class = iota // served first
	findings              // about kernels that are not dying
	classes
)

func classOf(inc detect.Incident) class {
	if inc.Verdict == detect.Dying {
		return deaths
	}
	return findings
}

// handover passes incidents on to the Sink. What the Sink has no room for waits here: verified nodes apart from strangers
// and deaths apart from findings, so that neither holds up the other. Parties take turns, and each is bounded in how many
// incidents it may have waiting and how many are handed over in a second.
type handover struct {
	sink    Sink
	metrics *Metrics
	limits  limits
	// unlimited says that parties may hand over as much as the Sink takes.
	unlimited bool

	lanes [lanes]struct {
		turns  [classes][]*party // with something waiting, the one whose turn is next first
		size   [classes]int      // incidents
		traces int               // bytes
	}
	retry time.Time // zero: nothing waits
}

// waiting is an incident that has not been taken yet.
type waiting struct {
	src    *source
	inc    detect.Incident
	traces int
}

// offer hands an incident over, behind those that wait already.
func (h *handover) offer(now time.Time, src *source, inc detect.Incident) {
	p, class := src.party, classOf(inc)
	lane := &h.lanes[p.lane()]
	if lane.size[class] == 0 && h.may(now, p) && h.sink.Offer(inc) {
		p.offers.take(now, offersBurst, offersPerSecond)
		return
	}
	h.metrics.HandoverFull.Add(1)
	if h.retry.IsZero() {
		h.retry = now.Add(offerAgain)
	}
	switch last := src.newest; {
	case last != nil && supersedes(inc, last.inc):
		h.put(last, inc)
	case src.waiting >= maxPerSource && (class != deaths || last.inc.Verdict == detect.Dying):
		// The oldest ones are the alarms. The finding before the newest is the least loss.
		h.metrics.IncidentsDropped.Add(1)
		if inc.Verdict >= last.inc.Verdict {
			h.put(last, inc)
		}
	case !h.room(p, src, class):
		h.metrics.IncidentsDropped.Add(1)
	default:
		w := &waiting{src: src}
		h.put(w, inc)
		if len(p.waiting[class]) == 0 {
			lane.turns[class] = append(lane.turns[class], p)
		}
		p.waiting[class] = append(p.waiting[class], w)
		lane.size[class]++
		src.waiting++
		src.newest = w
		h.metrics.Waiting.Add(1)
	}
}

// room makes room for one more incident of a source, and reports whether there is any. In a full party the source makes way
// that was first heard last: a port that was just made up, if there is one. In a full lane a party with many makes way.
func (h *handover) room(p *party, src *source, class class) bool {
	if len(p.waiting[class]) >= maxPerParty {
		youngest := len(p.waiting[class]) - 1
		for i, w := range p.waiting[class] {
			if w.src.first.After(p.waiting[class][youngest].src.first) {
				youngest = i
			}
		}
		if !src.first.Before(p.waiting[class][youngest].src.first) {
			return false
		}
		h.metrics.IncidentsDropped.Add(1)
		h.remove(p, class, youngest)
		return true
	}
	lane := &h.lanes[p.lane()]
	if lane.size[class] < h.limits.incidents[class] {
		return true
	}
	for _, other := range lane.turns[class][:min(lookBack, len(lane.turns[class]))] {
		if n := len(other.waiting[class]); n > len(p.waiting[class])+1 {
			h.metrics.IncidentsDropped.Add(1)
			h.remove(other, class, n-1)
			return true
		}
	}
	return false
}

// remove takes an incident out of those that wait. Its party keeps its turn.
func (h *handover) remove(p *party, class class, i int) {
	lane := &h.lanes[p.lane()]
	w := p.waiting[class][i]
	p.waiting[class] = slices.Delete(p.waiting[class], i, i+1)
	lane.size[class]--
	lane.traces -= w.traces
	w.src.waiting--
	if w.src.newest == w {
		w.src.newest = nil
	}
	h.metrics.Waiting.Add(-1)
}

// may reports whether the party may hand over one more.
func (h *handover) may(now time.Time, p *party) bool {
	return h.unlimited || p.offers.has(now, offersBurst, offersPerSecond)
}

// supersedes reports whether b makes a superfluous: it is the same death, complete.
func supersedes(b, a detect.Incident) bool {
	return a.Verdict == detect.Dying && b.Verdict == detect.Dying && !a.Complete && a.Identity == b.Identity && a.Time.Equal(b.Time)
}

// put makes inc the incident of w, with as much of its trace as there is room for.
func (h *handover) put(w *waiting, inc detect.Incident) {
	lane := &h.lanes[w.src.party.lane()]
	lane.traces -= w.traces
	if lane.traces+traceSize(inc) > h.limits.traces && len(inc.Trace) > lastLines {
		inc.Trace = slices.Insert(slices.Clone(inc.Trace[len(inc.Trace)-lastLines:]), 0, netconsole.Gap)
	}
	if lane.traces+traceSize(inc) > h.limits.traces+h.limits.traces/4 {
		inc.Trace = []string{netconsole.Gap}
	}
	w.inc, w.traces = inc, traceSize(inc)
	lane.traces += w.traces
}

func traceSize(inc detect.Incident) int {
	n := 0
	for _, line := range inc.Trace {
		n += len(line)
	}
	return n
}

// flush offers the waiting incidents again.
func (h *handover) flush(now time.Time) {
	for l := range h.lanes {
		for class := range classes {
			h.flushTurns(now, &h.lanes[l].turns[class], class)
		}
	}
	h.retry = time.Time{}
	if h.size() > 0 {
		h.retry = now.Add(offerAgain)
	}
}

// flushTurns gives every party its turn, over and over, until nothing is left, every party has reached its limit, or the
// Sink has no room: a stalled Sink costs one call.
func (h *handover) flushTurns(now time.Time, turns *[]*party, class class) {
	for limited := 0; limited < len(*turns); {
		p := (*turns)[0]
		if !h.may(now, p) {
			limited++
			*turns = append((*turns)[1:], p)
			continue
		}
		first := 0
		for i, w := range p.waiting[class] {
			if w.src.first.Before(p.waiting[class][first].src.first) {
				first = i
			}
		}
		if !h.sink.Offer(p.waiting[class][first].inc) {
			return
		}
		p.offers.take(now, offersBurst, offersPerSecond)
		limited = 0
		h.remove(p, class, first)
		if *turns = (*turns)[1:]; len(p.waiting[class]) > 0 {
			*turns = append(*turns, p)
		}
	}
}

// size is how many incidents wait.
func (h *handover) size() int {
	n := 0
	for l := range h.lanes {
		for _, size := range h.lanes[l].size {
			n += size
		}
	}
	return n
}
