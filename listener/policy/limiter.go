package policy

import (
	"net/netip"
	"time"
)

// Limiter lets each address pass a number of times within a window, and all of them together a larger number. It owns no
// clock.
type Limiter struct {
	PerAddress int
	Total      int
	Window     time.Duration

	began  time.Time // of the current window
	total  int
	passed map[netip.Addr]int
}

// Full reports whether no address may pass at now.
func (l *Limiter) Full(now time.Time) bool {
	return l.passed != nil && now.Sub(l.began) < l.Window && l.total >= l.Total
}

// Allow reports whether a may pass at now, and counts it if so.
func (l *Limiter) Allow(now time.Time, a netip.Addr) bool {
	if l.passed == nil || now.Sub(l.began) >= l.Window {
		l.began, l.total, l.passed = now, 0, map[netip.Addr]int{}
	}
	if l.total >= l.Total || l.passed[a] >= l.PerAddress {
		return false
	}
	l.total++
	l.passed[a]++
	return true
}
