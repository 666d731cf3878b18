package webhook

import (
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// watch remembers which deaths have been sent, and as what.
type watch struct {
	cluster, replica string
	since            time.Time // deaths created before are the past
	sent             map[string]sent
}

// sent is what was sent about a death, or would have been.
type sent struct {
	phase         policy.Phase
	cause, reason string
}

// changes returns the events of what is new in deaths, the oldest death first. Deaths of other replicas are theirs to send; they
// are remembered, so that a death that changes hands is not sent twice.
func (w *watch) changes(deaths []policy.Death) []Event {
	deaths = slices.Clone(deaths)
	slices.SortStableFunc(deaths, func(a, b policy.Death) int { return a.Created.Compare(b.Created) })
	var out []Event
	next := make(map[string]sent, len(deaths))
	for _, d := range deaths {
		if d.Owner == "" {
			continue // its status is written a moment after its spec
		}
		now := sent{d.Phase.OrPending(), d.Cause, d.Reason}
		last, known := w.sent[d.UID]
		next[d.UID] = now
		kind := Changed
		switch {
		case !known && d.Created.Before(w.since):
			continue // it was sent before this process started; what becomes of it is still news
		case !known:
			kind = Died
		case last == now || !stops(now.phase):
			continue
		case last.phase == now.phase:
			kind = Amended
		}
		if d.Owner != w.replica {
			continue
		}
		e := event(kind, w.cluster, d)
		if kind == Amended {
			e.before(last.cause, last.reason)
		}
		out = append(out, e)
	}
	w.sent = next
	return out
}

// stops reports whether a cleanup in phase p has ended or waits for a person.
func stops(p policy.Phase) bool { return p.Finished() || p == policy.Held }
