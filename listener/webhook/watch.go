package webhook

import (
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// watch remembers which deaths have been sent, and in which phase.
type watch struct {
	cluster, replica string
	since            time.Time // deaths created before are the past
	sent             map[string]policy.Phase
}

// changes returns the events of what is new in deaths, the oldest death first. Deaths of other replicas are theirs to send; they
// are remembered, so that a death that changes hands is not sent twice.
func (w *watch) changes(deaths []policy.Death) []Event {
	deaths = slices.Clone(deaths)
	slices.SortStableFunc(deaths, func(a, b policy.Death) int { return a.Created.Compare(b.Created) })
	var out []Event
	next := make(map[string]policy.Phase, len(deaths))
	for _, d := range deaths {
		if d.Owner == "" {
			continue // its status is written a moment after its spec
		}
		phase := phaseOf(d)
		last, known := w.sent[d.UID]
		next[d.UID] = phase
		kind := Changed
		switch {
		case !known && d.Created.Before(w.since):
			continue // it was sent before this process started; what becomes of it is still news
		case !known:
			kind = Died
		case last == phase || !stops(phase):
			continue
		}
		if d.Owner == w.replica {
			out = append(out, event(kind, w.cluster, d))
		}
	}
	w.sent = next
	return out
}

// stops reports whether a cleanup in phase p has ended or waits for a person.
func stops(p policy.Phase) bool { return p.Finished() || p == policy.Held }
