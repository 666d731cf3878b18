package cleanup

import (
	"context"
	"maps"
	"net/netip"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

const (
	// heardSize and heardFor bound the memory of incidents that are over. It leads the rest of a trace to its death, and
	// lets a replica that heard a secret take over without waiting for a witness.
	heardSize = 4096
	heardFor  = 15 * time.Minute
	// deathsApart is how far apart two emissions from one source may be and still speak of one death. A machine has to
	// boot before it can die again.
	deathsApart = 30 * time.Second
	// maxTraces bounds, in bytes, the traces of what is in hand. Beyond that the rest of a trace has to be offered again.
	maxTraces = 64 << 20
)

// key is what makes two emissions, not far apart in time, one incident. The secret is part of it, by its SHA-256: whoever
// sends from the node's address without knowing it speaks of something else.
type key struct {
	src  netip.Addr
	boot string
	sum  string
}

func keyOf(inc detect.Incident) key {
	return key{inc.Source.Addr(), inc.Identity.Boot, inc.Identity.Secret.Sum()}
}

// heard is an incident that this replica heard. Engine.mu guards what may change.
type heard struct {
	key  key
	lane int
	inc  detect.Incident // as emitted last, with the time of the first emission
	// later is the newest alarm that came so long after the first that its kernel may have been alive in between.
	later *detect.Incident
	death string // name of its NodeDeath, once that is known
	// authority is how far the incident was believed when it was judged first.
	authority detect.Authority
	lines     int  // of the trace that is on record
	bytes     int  // of the traces that are not
	amending  bool // a longer trace is being recorded
	over      bool // this replica is done with it
	saved     bool // it is in the state directory
}

// speaksOf reports whether inc may be a later emission of the incident heard at the time given.
func speaksOf(inc detect.Incident, at time.Time) bool { return inc.Time.Sub(at).Abs() < deathsApart }

// isLater reports whether inc came so long after the first alarm that its kernel may have been alive in between. A renewal of
// the Lease that contradicts the first alarm then does not contradict inc.
func isLater(inc detect.Incident, at time.Time) bool { return inc.Time.Sub(at) >= policy.InFlight }

// emittedAgain takes in a later emission of an incident that was taken in hand before. It reports whether inc is one, and
// whether there was room for its trace.
func (e *Engine) emittedAgain(inc detect.Incident, k key) (again, taken bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.heard[k]
	if h == nil || !speaksOf(inc, h.inc.Time) || h.over && (!inc.Complete || isLater(inc, h.inc.Time)) {
		return false, false
	}
	if e.traces+inc.TraceSize()-h.bytes > maxTraces {
		return true, false
	}
	if isLater(inc, h.inc.Time) {
		later := inc
		h.later = &later
	}
	inc.Time, inc.Identity = h.inc.Time, h.inc.Identity
	h.inc = inc
	e.account(h)
	e.amend(h)
	return true, true
}

// account drops h's trace once it is on record or never will be, and counts the bytes of what is left. The caller holds mu.
func (e *Engine) account(h *heard) {
	if len(h.inc.Trace) <= h.lines || h.over && h.death == "" {
		h.inc.Trace = nil
	}
	size := h.inc.TraceSize()
	if h.later != nil {
		size += h.later.TraceSize()
	}
	e.traces += size - h.bytes
	h.bytes = size
}

// taken remembers an incident that is taken in hand.
func (e *Engine) taken(h *heard) {
	e.mu.Lock()
	defer e.mu.Unlock()
	forget := func(of func(*heard) bool) {
		maps.DeleteFunc(e.heard, func(_ key, o *heard) bool {
			if o.over && of(o) {
				e.traces -= o.bytes
				return true
			}
			return false
		})
	}
	if len(e.heard) >= heardSize {
		forget(func(o *heard) bool { return h.inc.Time.Sub(o.inc.Time) > heardFor })
	}
	if len(e.heard) >= heardSize { // strangers go first
		forget(func(o *heard) bool { return o.lane != verified })
	}
	if len(e.heard) >= heardSize {
		forget(func(*heard) bool { return true })
	}
	if was := e.heard[h.key]; was != nil {
		e.traces -= was.bytes
		was.bytes = 0
	}
	e.heard[h.key] = h
	e.account(h)
}

// bestOf is the most trusted incident of a death that this replica heard, nil if it heard none.
func (e *Engine) bestOf(death string) (best *heard) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, h := range e.heard {
		if h.death == death && (best == nil || h.authority > best.authority) {
			best = h
		}
	}
	return best
}

// incident returns h's incident as it was emitted last.
func (e *Engine) incident(h *heard) detect.Incident {
	e.mu.Lock()
	defer e.mu.Unlock()
	return h.inc
}

// located notes which death h belongs to, and how many lines of its trace are on record.
func (e *Engine) located(h *heard, death string, a detect.Authority, lines int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h.death, h.authority, h.lines = death, a, lines
	e.account(h)
	e.amend(h)
}

// recordTrace adds the rest of a trace to its death. Every replica that heard it does so; the second finds nothing to add.
// An incident that is believed less than the death adds nothing.
func (e *Engine) recordTrace(ctx context.Context, h *heard) {
	c := e.calls(e.log.With("source", h.key.src.String(), "boot", h.key.boot))
	e.mu.Lock()
	inc, name, a := h.inc, h.death, h.authority
	e.mu.Unlock()
	err := c.try(ctx, tidying, "record trace", func(ctx context.Context) error {
		d, err := e.cluster.Death(ctx, name)
		if err != nil || a < d.Authority || !d.Lengthen(inc) {
			return err
		}
		_, err = e.cluster.AmendDeath(ctx, d)
		return err
	})
	if !answered(err) {
		return
	}
	if err != nil {
		c.log.Warn("trace not recorded", "death", name, "err", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	h.lines, h.amending = len(inc.Trace), false
	e.account(h)
	e.amend(h)
}

// amend queues a longer trace for recordTrace, once it is complete. The caller holds mu.
func (e *Engine) amend(h *heard) {
	if h.death == "" || h.amending || !h.inc.Complete || len(h.inc.Trace) <= h.lines || e.policy.DryRun {
		return
	}
	h.amending = hand(e.longer, h) // if there is no room, the next emission tries again
}

// traceOnRecord reports whether the whole trace of the death is on record, as far as this replica can tell.
func (w *work) traceOnRecord() bool {
	if w.heard == nil {
		return false
	}
	w.e.mu.Lock()
	defer w.e.mu.Unlock()
	return w.heard.inc.Complete && !w.heard.amending && w.heard.lines >= len(w.heard.inc.Trace)
}
