package listener

import "time"

// bucket is a rate limit: burst at once, perSecond after that. The zero value is full.
type bucket struct {
	used float64
	at   time.Time
}

// take reports whether there was one left to take. Every call must name the same limits.
func (b *bucket) take(now time.Time, burst, perSecond float64) bool {
	if now.After(b.at) {
		b.used = max(0, b.used-now.Sub(b.at).Seconds()*perSecond)
		b.at = now
	}
	if b.used+1 > burst {
		return false
	}
	b.used++
	return true
}
