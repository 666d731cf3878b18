package policy

import "time"

const (
	// defaultLease is how long kubelets hold their Lease by default (nodeLeaseDurationSeconds).
	defaultLease = 40 * time.Second
	// shortestLease is the shortest silence of a kubelet that proves anything, whatever its Lease says: twice the time in which one
	// with the default renews. A kubelet keeps what somebody else writes into leaseDurationSeconds.
	shortestLease = 2 * defaultLease / 4 * 104 / 100
	// unreadLooks is how many looks in a row, one every two seconds, go without an answer in the time in which a kubelet renews.
	unreadLooks = 6
	// leaseMade is how long after its Node a kubelet has its Lease at the latest. It tries once with each renewal, and the first
	// attempt fails where the Node is not there yet (component-helpers/apimachinery/lease/controller.go: ensureLease). EC2 stamps a
	// console later than its last line.
	leaseMade = 2 * time.Minute
	// InFlight is how long after a panic a renewal that the kubelet sent before it may still arrive.
	InFlight = 2 * time.Second
	// skew is how far another machine's clock may be ahead of ours before its times look later than the incident.
	skew = 5 * time.Second
)

// Renewal is a kubelet's Lease as it reads.
type Renewal struct {
	At       time.Time     // when the kubelet says that it has renewed it last
	Duration time.Duration // for how long it holds it; zero if it does not say
	Version  string        // resourceVersion: another one after every write, whoever wrote
	Missing  bool          // there is none; with an error
}

// Lease is what this replica saw of a kubelet's Lease since an incident. The times of renewal are by the node's clock, so
// a renewal is believed only if it was seen to happen; a time alone raises doubt, no more. How long the Lease stayed
// unchanged is by our own monotonic clock.
type Lease struct {
	Since    time.Time     // of the look that saw the last change; zero if there was none yet
	Baseline time.Time     // when the Lease said it was renewed, once no renewal could be in flight
	Renewed  time.Time     // the same at the last look that got an answer
	Duration time.Duration // for how long the kubelet holds the Lease, from that look; zero if it does not say
	Version  string        // of the Lease at that look
	Failed   int           // looks without an answer since the last that had one
	Missing  bool          // a look since the last that found a Lease found none: kubelets leave theirs behind, once they have made one
}

// Look notes what a look at now found. A failed look starts the observation anew: while the API server cannot be reached,
// kubelets cannot renew either, and their silence proves nothing. A missing right and a missing Lease are failures, too. A
// write that renews nothing also starts it anew: somebody may be setting back what the kubelet wrote.
func (l *Lease) Look(now, heard time.Time, r Renewal, err error) {
	if err != nil {
		l.Since, l.Missing = time.Time{}, l.Missing || r.Missing
		l.Failed++
		return
	}
	switch {
	case l.Since.IsZero() && now.Sub(heard) >= InFlight:
		l.Since, l.Baseline = now, r.At
	case !l.Since.IsZero() && r.Version != l.Version:
		l.Since = now
	}
	l.Renewed, l.Duration, l.Version, l.Failed, l.Missing = r.At, r.Duration, r.Version, 0, false
}

// Alive reports whether the Lease was seen to be renewed after the incident: whatever was heard, that kernel runs.
func (l *Lease) Alive() bool { return !l.Since.IsZero() && l.Renewed.After(l.Baseline) }

// Silent reports whether the Lease was seen unchanged for its whole duration.
func (l *Lease) Silent(now time.Time) bool {
	return l.Failed == 0 && !l.Since.IsZero() && now.Sub(l.Since) >= l.duration()
}

// Overdue reports whether the Lease was seen unchanged for longer than a living kubelet leaves it alone: a quarter of its
// duration and up to 4 % more (kubernetes pkg/kubelet/kubelet.go: nodeLeaseRenewIntervalFraction;
// component-helpers/apimachinery/lease/controller.go: JitterUntil).
func (l *Lease) Overdue(now time.Time) bool {
	return l.Failed == 0 && !l.Since.IsZero() && now.Sub(l.Since) >= max(l.duration(), defaultLease)/100*26 // which no duration overflows
}

// Unread reports whether the last looks got no answer: the Lease says nothing for or against the kubelet. One look may fail while
// the kubelet renews.
func (l *Lease) Unread() bool { return l.Failed >= unreadLooks }

// Doubtful reports whether the Lease claims to have been renewed well after the incident. Then even a pinned one has to
// wait until it is seen whether that goes on: it may be old, or the node's clock wrong.
func (l *Lease) Doubtful(heard time.Time) bool { return l.Renewed.Sub(heard) > skew }

func (l *Lease) duration() time.Duration {
	if l.Duration <= 0 {
		return defaultLease
	}
	return max(l.Duration, shortestLease)
}
