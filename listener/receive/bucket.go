package receive

import "time"

// bucket is a rate limit: burst at once, perSecond after that. The zero value is full. Every call must pass the same limits.
type bucket struct {
	used float64
	at   int64 // when it was used last, in nanoseconds of Unix time: every source has several, and a time.Time is three times as large
}

// has reports whether there is one left to take. If the clock is set back, it goes on from there.
func (b *bucket) has(now time.Time, burst, perSecond float64) bool {
	at := now.UnixNano()
	if since := time.Duration(at - b.at); since > 0 {
		b.used = max(0, b.used-since.Seconds()*perSecond)
	}
	b.at = at
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
