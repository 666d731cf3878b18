package configurator

import (
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/configurator/endpoint"
)

// How often a watch acts.
const (
	quiet     = 250 * time.Millisecond // a change is acted on when nothing else has changed for so long
	atLatest  = time.Second            // but no later than this after the first change
	perMinute = 10                     // passes, whatever happens
	retryMin  = 5 * time.Second        // after a pass that failed, doubled each time
	retryMax  = 5 * time.Minute
	throttled = 15 * time.Minute // the longest wait between look-ups that SSM throttles
	register  = time.Minute      // between proofs while the listeners' cluster has no Node for this one
)

// outcome is how a pass ended.
type outcome int

const (
	passFailed    outcome = iota
	passProved            // every target was acknowledged
	passStranger          // the same, but the listeners' cluster has no Node for this machine yet
	passUnchanged         // no canary was needed
)

// schedule decides when passes run and when they look the listeners up again. It is pure: time and chance are arguments.
type schedule struct {
	interval time.Duration  // between passes when nothing happens
	lookup   time.Duration  // between look-ups, plus or minus up to half of it
	chance   func() float64 // in [0,1)

	first, last time.Time // changes not acted on yet
	reasons     []string
	certain     bool      // one of them needs a pass, not only a look at the paths
	moved       bool      // one of them needs a canary, too
	next        time.Time // latest start of the next pass with a canary
	nextLookup  time.Time
	failures    int
	refusals    int         // look-ups in a row that SSM refused
	notBefore   time.Time   // earliest start of any pass: it would have to look up
	starts      []time.Time // of the latest passes
}

// change records at now something that needs a pass and a canary: what a target depends on is not what it was.
func (s *schedule) change(now time.Time, reason string) {
	s.reconsider(now, reason)
	s.moved = true
}

// reconsider records at now something that needs a pass, and a canary only if the pass changes anything.
func (s *schedule) reconsider(now time.Time, reason string) {
	s.mayChange(now, reason)
	s.certain = true
}

// mayChange records at now a network event, which needs a pass only if one of our paths has changed.
func (s *schedule) mayChange(now time.Time, reason string) {
	if len(s.reasons) == 0 {
		s.first = now
	}
	s.last = now
	if !slices.Contains(s.reasons, reason) && len(s.reasons) < 8 {
		s.reasons = append(s.reasons, reason)
	}
}

// relook makes the next pass look the listeners up, even if that is not due yet.
func (s *schedule) relook() { s.nextLookup, s.notBefore = time.Time{}, time.Time{} }

// due returns when the next pass has to start. The zero time means now.
func (s *schedule) due() time.Time {
	at := s.next
	if len(s.reasons) > 0 {
		steady := s.last.Add(quiet)
		if limit := s.first.Add(atLatest); limit.Before(steady) {
			steady = limit
		}
		if steady.Before(at) {
			at = steady
		}
	}
	if len(s.starts) == perMinute {
		at = later(at, s.starts[0].Add(time.Minute))
	}
	return later(at, s.notBefore)
}

// doubtful reports whether only a look at the paths is due at now, not necessarily a pass.
func (s *schedule) doubtful(now time.Time) bool {
	return len(s.reasons) > 0 && !s.certain && now.Before(s.next)
}

// dismiss drops network events that have changed no path.
func (s *schedule) dismiss() { s.reasons = nil }

// prove makes the next pass write a canary even if nothing has changed.
func (s *schedule) prove() { s.next = time.Time{} }

// start begins a pass at now. It returns the reasons for it, whether to look the listeners up, and whether a canary is due:
// also after a change, because the plan can be as before while the kernel has taken the target down and up again.
func (s *schedule) start(now time.Time) (reasons []string, lookup, canary bool) {
	canary = s.moved || !now.Before(s.next)
	reasons, s.reasons, s.certain, s.moved = s.reasons, nil, false, false
	if len(s.starts) == perMinute {
		s.starts = s.starts[1:]
	}
	s.starts = append(s.starts, now)
	return reasons, !now.Before(s.nextLookup), canary
}

// done ends a pass at now.
func (s *schedule) done(now time.Time, how outcome) {
	if how != passFailed {
		s.failures = 0
	}
	switch how {
	case passUnchanged:
		return
	case passProved:
		s.next = now.Add(s.spread(s.interval, 0.1))
		return
	case passStranger:
		s.next = now.Add(s.spread(min(s.interval, register), 0.1))
		return
	}
	wait := min(retryMin<<min(s.failures, 10), retryMax, s.interval)
	s.failures++
	s.next = now.Add(s.spread(wait, 0.1))
}

// lookedUp records what a look-up at now found; known says whether listeners were known before. Nodes that start at the same
// moment and are throttled are spread over the whole wait, and stay spread.
func (s *schedule) lookedUp(now time.Time, found endpoint.Found, known bool) {
	known = known || len(found.Endpoints) > 0
	s.notBefore = time.Time{}
	switch {
	case found.Throttled:
		ceiling := throttled
		if !known { // then it is urgent
			ceiling = min(time.Minute<<min(s.refusals, 10), throttled)
		}
		s.refusals++
		s.nextLookup = now.Add(time.Duration(s.chance() * float64(ceiling)))
		if !known {
			s.notBefore = s.nextLookup
		}
		return
	case found.Stale, len(found.Endpoints) == 0 && known:
		s.nextLookup = now.Add(s.spread(min(s.lookup, retryMax), 0.5))
	case len(found.Endpoints) == 0:
		s.nextLookup = now // with the next pass
	default:
		s.nextLookup = now.Add(s.spread(s.lookup, 0.5))
	}
	s.refusals = 0
}

// spread returns d plus or minus up to share of it.
func (s *schedule) spread(d time.Duration, share float64) time.Duration {
	return d + time.Duration((2*s.chance()-1)*share*float64(d))
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
