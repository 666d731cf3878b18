package configurator

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/configurator/endpoint"
)

var (
	oneListener = endpoint.Found{Endpoints: []endpoint.Endpoint{{Host: "10.0.2.10", Port: 6666}}}
	refused     = endpoint.Found{Throttled: true}
)

// middle is chance without chance.
func middle() float64 { return 0.5 }

// at is someTime and so much.
func at(d time.Duration) time.Time { return someTime.Add(d) }

// idle is a schedule whose first pass has ended well at someTime.
func idle() *schedule {
	s := &schedule{interval: 10 * time.Minute, lookup: time.Hour, chance: middle}
	s.start(someTime)
	s.lookedUp(someTime, oneListener, false)
	s.done(someTime, passProved)
	return s
}

func TestScheduleDue(t *testing.T) {
	for _, tt := range []struct {
		name   string
		happen func(s *schedule)
		want   time.Duration
	}{
		{"nothing happens", func(*schedule) {}, 10 * time.Minute},
		{"a change is acted on when nothing more happens", func(s *schedule) {
			s.change(at(time.Minute), "link")
		}, time.Minute + quiet},
		{"changes that go on are waited for", func(s *schedule) {
			s.change(at(time.Minute), "link")
			s.change(at(time.Minute+200*time.Millisecond), "address")
		}, time.Minute + 200*time.Millisecond + quiet},
		{"but not for ever", func(s *schedule) {
			for d := time.Duration(0); d < 5*time.Second; d += 100 * time.Millisecond {
				s.change(at(time.Minute+d), "flapping")
			}
		}, time.Minute + atLatest},
		{"a failed pass is repeated soon", func(s *schedule) { s.done(someTime, passFailed) }, retryMin},
		{"and less and less often", func(s *schedule) {
			for range 4 {
				s.done(someTime, passFailed)
			}
		}, 8 * retryMin},
		{"up to a limit", func(s *schedule) {
			for range 100 {
				s.done(someTime, passFailed)
			}
		}, retryMax},
		{"success ends the repeating", func(s *schedule) {
			s.done(someTime, passFailed)
			s.done(someTime, passProved)
		}, 10 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := idle()
			tt.happen(s)
			if got := s.due().Sub(someTime); got != tt.want {
				t.Errorf("due after %s, want %s", got, tt.want)
			}
		})
	}
}

func TestScheduleIsBoundedWhateverHappens(t *testing.T) {
	s := idle()
	passes := 0
	for d := time.Duration(0); d < 10*time.Minute; d += 100 * time.Millisecond {
		now := at(d)
		s.change(now, "flapping")
		if !now.Before(s.due()) {
			s.start(now)
			s.done(now, passProved)
			passes++
		}
	}
	if passes < 10*perMinute-1 || passes > 10*perMinute+1 {
		t.Errorf("%d passes in 10 minutes of flapping, want %d", passes, 10*perMinute)
	}
}

func TestScheduleGivesReasonsOnce(t *testing.T) {
	s := idle()
	s.change(at(time.Second), "link eth0")
	s.change(at(time.Second), "route")
	s.change(at(time.Second), "link eth0")
	reasons, _, _ := s.start(at(2 * time.Second))
	if diff := cmp.Diff([]string{"link eth0", "route"}, reasons); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
	if reasons, _, _ = s.start(at(3 * time.Second)); len(reasons) > 0 {
		t.Errorf("given again: %v", reasons)
	}
}

func TestScheduleLookups(t *testing.T) {
	stale := oneListener
	stale.Stale = true
	for _, tt := range []struct {
		name  string
		found endpoint.Found
		known bool
		want  time.Duration // until the next look-up
		held  time.Duration // until the next pass of any kind
	}{
		{"found", oneListener, false, time.Hour, 0},
		{"found on disk only", stale, false, retryMax, 0},
		{"failed while listeners are known", endpoint.Found{}, true, retryMax, 0},
		{"failed with nothing known", endpoint.Found{}, false, 0, 0},
		{"refused while listeners are known: no hurry", refused, true, throttled / 2, 0},
		{"refused with nothing known: sooner, and nothing before", refused, false, time.Minute / 2, time.Minute / 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &schedule{interval: 10 * time.Minute, lookup: time.Hour, chance: middle}
			s.start(someTime)
			s.lookedUp(someTime, tt.found, tt.known)
			s.done(someTime, passProved)
			if got := s.nextLookup.Sub(someTime); got != tt.want {
				t.Errorf("next look-up after %s, want %s", got, tt.want)
			}
			s.change(someTime, "link")
			if got := s.due().Sub(someTime); got < tt.held {
				t.Errorf("pass after %s, though there is nothing to be had for %s", got, tt.held)
			}
		})
	}
}

// The kernel takes a target down with its device, and newer kernels take it up again by themselves: the plan is as before, and only a
// canary shows that the listener still hears it.
func TestScheduleProvesWhatHasMoved(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	s := schedule{interval: time.Hour, lookup: time.Hour, chance: func() float64 { return 0.5 }}
	s.done(now, passProved)
	for _, tt := range []struct {
		name   string
		record func()
		canary bool
	}{
		{"a path or a target has changed", func() { s.change(now, "eth0 is another device than before") }, true},
		{"a file was written", func() { s.reconsider(now, "the configuration changed") }, false},
		{"both", func() { s.reconsider(now, "the configuration changed"); s.change(now, "a target was disabled") }, true},
		{"nothing", func() {}, false},
	} {
		tt.record()
		if _, _, canary := s.start(now); canary != tt.canary {
			t.Errorf("%s: canary %t, want %t", tt.name, canary, tt.canary)
		}
	}
}
