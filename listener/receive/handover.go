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
	// unknowns is a lane of the hand-over alone: strangers whose address is not a Node's. Root on one machine may have any number of
	// addresses of an IPv6 prefix, and what they send leads to nothing but a record of its refusal. This lane may keep
	// 1 / unknownShare of what the others may.
	unknowns     = lanes
	unknownShare = 8
	// maxRefused is how many parties of strangers are asked for once the Sink has refused one: it may have room for others.
	maxRefused = 8
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

// handover passes incidents on to the Sink. What the Sink has no room for waits here: verified nodes apart from strangers,
// those from a Node's address apart from others, and deaths apart from findings, so that neither holds up the other. Parties
// take turns, and each is bounded in how many incidents it may have waiting and how many are handed over in a second.
type handover struct {
	sink    Sink
	nodes   Nodes // nil: every address may be a Node's
	metrics *Metrics
	limits  limits
	// unlimited says that parties may hand over as much as the Sink takes.
	unlimited bool

	lanes [lanes + 1]struct {
		turns  [classes][]*party // with something waiting, the one whose turn is next first
		size   [classes]int      // incidents
		full   [classes]bool     // the Sink has refused one of those that wait
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

// offer hands an incident over, after those of its party and after all that wait for room in the Sink. Parties that have reached
// their limit hold up nobody else.
func (h *handover) offer(now time.Time, src *source, inc detect.Incident) {
	p, class := src.party, classOf(inc)
	h.findLane(src)
	lane := &h.lanes[p.waits]
	if !lane.full[class] && len(p.waiting[class]) == 0 && h.may(now, p) {
		if h.sink.Offer(inc) {
			p.offers.take(now, offersBurst, offersPerSecond)
			return
		}
		lane.full[class] = true
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

// findLane finds the lane of the source's party, which it keeps while something of it waits.
func (h *handover) findLane(src *source) {
	p := src.party
	if len(p.waiting[deaths])+len(p.waiting[findings]) > 0 {
		return
	}
	if p.waits = p.lane(); p.node == nil && h.nodes != nil && !h.nodes.Known("", src.addr.Addr()) {
		p.waits = unknowns
	}
}

// most is what a lane may keep of n.
func most(l lane, n int) int {
	if l == unknowns {
		return n / unknownShare
	}
	return n
}

// room makes room for one more incident of a source, and reports whether there is any. In a full party the youngest source
// makes way: a port that was just made up, if there is one. In a full lane a party with many incidents makes way.
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
	lane := &h.lanes[p.waits]
	if lane.size[class] < most(p.waits, h.limits.incidents[class]) {
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
	lane := &h.lanes[p.waits]
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
	lane, traces := &h.lanes[w.src.party.waits], most(w.src.party.waits, h.limits.traces)
	lane.traces -= w.traces
	if lane.traces+inc.TraceSize() > traces && len(inc.Trace) > lastLines {
		inc.Trace = slices.Insert(slices.Clone(inc.Trace[len(inc.Trace)-lastLines:]), 0, netconsole.Gap)
	}
	if lane.traces+inc.TraceSize() > traces+traces/4 {
		inc.Trace = []string{netconsole.Gap}
	}
	w.inc, w.traces = inc, inc.TraceSize()
	lane.traces += w.traces
}

// flush offers the waiting incidents again.
func (h *handover) flush(now time.Time) {
	for l := range h.lanes {
		for class := range classes {
			h.flushTurns(now, lane(l), class)
		}
	}
	h.retry = time.Time{}
	if h.size() > 0 {
		h.retry = now.Add(offerAgain)
	}
}

// flushTurns gives every party its turn, over and over, until nothing is left, every party has reached its limit, or the
// Sink has no room: a stalled Sink costs a few calls. What a stranger says may be refused for what it says.
func (h *handover) flushTurns(now time.Time, l lane, class class) {
	turns, refused := &h.lanes[l].turns[class], 0
	defer func() { h.lanes[l].full[class] = refused > 0 }()
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
			if refused++; l == verified || refused == maxRefused {
				return
			}
			limited++
			*turns = append((*turns)[1:], p)
			continue
		}
		p.offers.take(now, offersBurst, offersPerSecond)
		limited = 0
		h.remove(p, class, first)
		if *turns = (*turns)[1:]; len(p.waiting[class]) > 0 {
			*turns = append(*turns, p)
		}
	}
}

func (h *handover) size() int {
	n := 0
	for l := range h.lanes {
		for _, size := range h.lanes[l].size {
			n += size
		}
	}
	return n
}
