package configurator

import (
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/configurator/endpoint"
)

// The pace of watching.
const (
	quiet     = 250 * time.Millisecond // a change is acted on when nothing has moved for so long
	atLatest  = time.Second            // but no later than this after the first
	perMinute = 10                     // passes, whatever happens
	retryMin  = 5 * time.Second        // after a pass that failed, doubled each time
	retryMax  = 5 * time.Minute
	throttled = 15 * time.Minute // at most, between look-ups that SSM refuses as too many
)

// schedule decides when passes run and when they look the listeners up anew. It is pure: time and chance are arguments.
type schedule struct {
	interval time.Duration  // between passes when nothing happens
	lookup   time.Duration  // between look-ups, halved to one and a half times
	chance   func() float64 // in [0,1)

	first, last time.Time // changes not acted on yet
	reasons     []string
	next        time.Time // pass at the latest
	nextLookup  time.Time
	failures    int
	refusals    int         // look-ups refused as too many
	notBefore   time.Time   // no pass before, whatever happens: it would have to look up
	starts      []time.Time // of the latest passes
}

// change takes note of something that moved at now.
func (s *schedule) change(now time.Time, reason string) {
	if len(s.reasons) == 0 {
		s.first = now
	}
	s.last = now
	if !slices.Contains(s.reasons, reason) && len(s.reasons) < 8 {
		s.reasons = append(s.reasons, reason)
	}
}

// relook makes the next pass look the listeners up, whenever that was to be.
func (s *schedule) relook() { s.nextLookup, s.notBefore = time.Time{}, time.Time{} }

// due is when the next pass has to start. The zero time means now.
func (s *schedule) due() time.Time {
	at := s.next
	if len(s.reasons) > 0 {
		settled := s.last.Add(quiet)
		if limit := s.first.Add(atLatest); limit.Before(settled) {
			settled = limit
		}
		if settled.Before(at) {
			at = settled
		}
	}
	if len(s.starts) == perMinute {
		at = later(at, s.starts[0].Add(time.Minute))
	}
	return later(at, s.notBefore)
}

// start begins a pass at now. It tells why, and whether to look the listeners up.
func (s *schedule) start(now time.Time) (reasons []string, lookup bool) {
	reasons, s.reasons = s.reasons, nil
	if len(s.starts) == perMinute {
		s.starts = s.starts[1:]
	}
	s.starts = append(s.starts, now)
	return reasons, !now.Before(s.nextLookup)
}

// done ends a pass that ended well or not at now.
func (s *schedule) done(now time.Time, ok bool) {
	if ok {
		s.failures = 0
		s.next = now.Add(s.spread(s.interval, 0.1))
		return
	}
	wait := min(retryMin<<min(s.failures, 10), retryMax, s.interval)
	s.failures++
	s.next = now.Add(s.spread(wait, 0.1))
}

// lookedUp takes note of what a look-up at now found, and whether listeners were known before. A fleet that starts at
// once and is refused is spread out over the whole time, and stays so.
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

// spread is d plus or minus up to share of it.
func (s *schedule) spread(d time.Duration, share float64) time.Duration {
	return d + time.Duration((2*s.chance()-1)*share*float64(d))
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
