package cleanup

import (
	"errors"
	"time"
)

const (
	// defaultLease is for how long kubelets take their Lease unless told otherwise (nodeLeaseDurationSeconds).
	defaultLease = 40 * time.Second
	// settle is how long after a panic a renewal that the kubelet sent before it may still arrive.
	settle = 2 * time.Second
	// skew is by how much a node's clock may differ from ours before a renewal looks younger than the gasp.
	skew = 5 * time.Second
)

// Lease is what was seen of a kubelet's Lease since a gasp. Its times of renewal are by the node's clock, so a renewal
// is believed only if it was seen to happen; a time alone raises doubt, no more.
type Lease struct {
	First    time.Time     // of the first look
	Since    time.Time     // of the look that read Baseline; zero if there was none yet
	Baseline time.Time     // when the Lease said it was renewed, once it had settled
	Renewed  time.Time     // the same at the last look that got an answer
	Duration time.Duration // for how long the kubelet holds the Lease, from that look; zero if it does not say
	Err      error         // of the last look
}

// renewal is the longest that a living kubelet leaves a Lease of that duration alone: a quarter of it and up to 4 % more
// (kubernetes pkg/kubelet/kubelet.go: nodeLeaseRenewIntervalFraction; component-helpers/apimachinery/lease/controller.go:
// JitterUntil).
func renewal(lease time.Duration) time.Duration { return lease / 4 * 104 / 100 }

// Look notes what a look at now found. A failed look starts the observation anew: while the API server cannot be
// reached, kubelets cannot renew either, and their silence proves nothing.
func (l *Lease) Look(now, gasp, renewed time.Time, duration time.Duration, err error) {
	if l.First.IsZero() {
		l.First = now
	}
	l.Err = err
	if err != nil {
		l.Since = time.Time{}
		return
	}
	l.Renewed, l.Duration = renewed, duration
	if l.Since.IsZero() && now.Sub(gasp) >= settle {
		l.Since, l.Baseline = now, renewed
	}
}

// Alive reports whether the Lease was seen to be renewed after the gasp: whatever was heard, that kernel runs.
func (l *Lease) Alive() bool { return !l.Since.IsZero() && l.Renewed.After(l.Baseline) }

// Silent reports whether the Lease was not renewed for so long that a living kubelet would have done it.
func (l *Lease) Silent(now time.Time, corroborate time.Duration) bool {
	return l.Err == nil && !l.Since.IsZero() && now.Sub(l.Since) >= max(corroborate-settle, renewal(l.Duration))
}

// Doubtful reports whether the Lease claims to have been renewed well after the gasp. Then even a gasp of full authority
// has to wait until it is seen whether that goes on: it may be old, or the node's clock wrong.
func (l *Lease) Doubtful(gasp time.Time) bool { return l.Renewed.Sub(gasp) > skew }

// Missing reports whether there is no Lease to look at, as against a look that failed and may succeed.
func (l *Lease) Missing() bool { return errors.Is(l.Err, ErrNotFound) || errors.Is(l.Err, ErrDenied) }
