package listener

import (
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	// offerAgain is how soon a full Sink is asked again.
	offerAgain = 100 * time.Millisecond
	// maxPerSource bounds the incidents of one source that wait. One is usual: its death.
	maxPerSource = 8
	// lastLines are kept of a trace that waits beyond limits.traces.
	lastLines = 24
)

// handover passes incidents on to the Sink, in order. What the Sink has no room for waits here, deaths apart from the
// rest: the chatter of the living never holds up the dying.
type handover struct {
	sink    Sink
	metrics *Metrics
	limits  limits

	deaths, reports []*waiting
	traces          int       // bytes
	retry           time.Time // zero: nothing waits
}

// waiting is an incident that has not been taken yet.
type waiting struct {
	src    *source
	inc    detect.Incident
	traces int
}

// offer hands an incident over, behind those that wait already.
func (h *handover) offer(now time.Time, src *source, inc detect.Incident) {
	queue, limit := &h.reports, h.limits.reports
	if inc.Verdict == detect.Dying {
		queue, limit = &h.deaths, h.limits.deaths
	}
	if len(*queue) == 0 && h.sink.Offer(inc) {
		return
	}
	h.metrics.HandoverFull.Inc()
	if h.retry.IsZero() {
		h.retry = now.Add(offerAgain)
	}
	switch last := src.newest; {
	case last != nil && supersedes(inc, last.inc):
		h.put(last, inc)
	case src.waiting >= maxPerSource && (inc.Verdict != detect.Dying || last.inc.Verdict == detect.Dying):
		// The oldest ones are the alarms; what is least missed is the finding before the newest.
		h.metrics.IncidentsDropped.Inc()
		if inc.Verdict >= last.inc.Verdict {
			h.put(last, inc)
		}
	case len(*queue) >= limit:
		h.metrics.IncidentsDropped.Inc()
	default:
		w := &waiting{src: src}
		h.put(w, inc)
		*queue = append(*queue, w)
		src.waiting++
		src.newest = w
		h.metrics.Waiting.Inc()
	}
}

// supersedes reports whether who gets b need not have got a: it is the same death, told completely.
func supersedes(b, a detect.Incident) bool {
	return a.Verdict == detect.Dying && b.Verdict == detect.Dying && !a.Complete && a.Identity == b.Identity && a.Time.Equal(b.Time)
}

// put makes inc what waits as w.
func (h *handover) put(w *waiting, inc detect.Incident) {
	h.traces -= w.traces
	if h.traces+traceSize(inc) > h.limits.traces && len(inc.Trace) > lastLines {
		inc.Trace = slices.Insert(slices.Clone(inc.Trace[len(inc.Trace)-lastLines:]), 0, netconsole.Gap)
	}
	w.inc, w.traces = inc, traceSize(inc)
	h.traces += w.traces
}

func traceSize(inc detect.Incident) int {
	n := 0
	for _, line := range inc.Trace {
		n += len(line)
	}
	return n
}

// flush offers again what waits. It stops where the Sink does, so that a dead cleanup costs two calls a turn.
func (h *handover) flush(now time.Time) {
	for _, queue := range [...]*[]*waiting{&h.deaths, &h.reports} {
		for len(*queue) > 0 && h.sink.Offer((*queue)[0].inc) {
			w := (*queue)[0]
			(*queue)[0] = nil
			*queue = (*queue)[1:]
			h.traces -= w.traces
			h.metrics.Waiting.Dec()
			w.src.waiting--
			if w.src.newest == w {
				w.src.newest = nil
			}
		}
	}
	h.retry = time.Time{}
	if h.size() > 0 {
		h.retry = now.Add(offerAgain)
	}
}

// size is how many incidents wait.
func (h *handover) size() int { return len(h.deaths) + len(h.reports) }
