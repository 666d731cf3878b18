package receive

import "time"

// bucket is a rate limit: burst at once, perSecond after that. The zero value is full. Every call must pass the same limits.
type bucket struct {
	used float64
	at   time.Time
}

// has reports whether there is one left to take.
func (b *bucket) has(now time.Time, burst, perSecond float64) bool {
	if now.After(b.at) {
		b.used = max(0, b.used-now.Sub(b.at).Seconds()*perSecond)
		b.at = now
	}
	return b.used+1 <= burst
}

// take takes one, and reports whether there was one left.
func (b *bucket) take(now time.Time, burst, perSecond float64) bool {
	if !b.has(now, burst, perSecond) {
		return false
	}
	b.used++
	return true
}
