package cleanup

import (
	"maps"
	"net/netip"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

const (
	// heardSize and heardFor bound the memory of incidents that are over. It leads the rest of a trace to its death, and
	// lets a replica that heard a secret take over without waiting for a witness.
	heardSize = 4096
	heardFor  = 15 * time.Minute
	// deathsApart is how far apart two emissions from one source may be and still speak of one death. A machine has to
	// boot before it can die again.
	deathsApart = 30 * time.Second
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
	key   key
	lane  int
	inc   detect.Incident // as emitted last, with the time of the first emission
	death string          // name of its NodeDeath, once that is known
	// authority is how far the incident was believed when it was judged first.
	authority detect.Authority
	lines     int  // of the trace that is on record
	amending  bool // a longer trace is being recorded
	over      bool // this replica is done with it
	saved     bool // it is in the state directory
}

// speaksOf reports whether inc may be a later emission of the incident heard at the time given.
func speaksOf(inc detect.Incident, at time.Time) bool { return inc.Time.Sub(at).Abs() < deathsApart }

// emittedAgain takes in a later emission of an incident that was taken in hand before, and reports whether inc is one.
func (e *Engine) emittedAgain(inc detect.Incident, k key) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.heard[k]
	if h == nil || !speaksOf(inc, h.inc.Time) || (h.over && !inc.Complete) {
		return false
	}
	inc.Time, inc.Identity = h.inc.Time, h.inc.Identity
	h.inc = inc
	e.amend(h)
	return true
}

// taken remembers an incident that is taken in hand.
func (e *Engine) taken(h *heard) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.heard) >= heardSize {
		maps.DeleteFunc(e.heard, func(_ key, o *heard) bool { return o.over && h.inc.Time.Sub(o.inc.Time) > heardFor })
	}
	if len(e.heard) >= heardSize { // strangers go first
		maps.DeleteFunc(e.heard, func(_ key, o *heard) bool { return o.over && o.lane != verified })
	}
	if len(e.heard) >= 2*heardSize {
		maps.DeleteFunc(e.heard, func(_ key, o *heard) bool { return o.over })
	}
	e.heard[h.key] = h
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

// incident is h's as emitted last.
func (e *Engine) incident(h *heard) detect.Incident {
	e.mu.Lock()
	defer e.mu.Unlock()
	return h.inc
}

// located notes which death h speaks of, and how many lines of its trace are on record.
func (e *Engine) located(h *heard, death string, a detect.Authority, lines int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h.death, h.authority, h.lines = death, a, lines
	e.amend(h)
}
