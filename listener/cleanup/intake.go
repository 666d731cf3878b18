package cleanup

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Lanes of the intake. What waits in one takes no room in another.
const (
	verified  = iota // the secret is that of a pin, and the sender is a Node
	strangers        // a Node answers to the sender
	unknowns         // none does
	lanes
)

const (
	// perAddress is how many incidents of one address may wait in a lane. A newer one takes the place of the oldest: a node
	// that dies is silent from then on, so its own incident is the last.
	perAddress = 4
	// pauseAfter is how long nothing more of an address is taken from a lane after something that came to nothing.
	pauseAfter = 10 * time.Second
)

// bounds of each lane: addresses that may wait, bytes of their traces, and incidents that may be in hand until they are
// decided.
func bounds(l int) (waiting, bytes, inHand int) {
	return [...]int{512, 512, 64}[l], [...]int{16 << 20, 8 << 20, 1 << 20}[l], [...]int{512, 256, 8}[l]
}

// lastLines are kept of a stranger's trace that waits beyond its lane's bytes.
const lastLines = 16

// intake holds incidents until they are taken in hand. It owns no clock and no goroutine.
type intake struct {
	wake chan struct{} // something may be taken

	mu    sync.Mutex
	lanes [lanes]lane
}

// lane is round robin over addresses.
type lane struct {
	turn    []netip.Addr // of addresses with something waiting, each once
	waiting map[netip.Addr][]*heard
	busy    map[netip.Addr]time.Time // when something of the address may be taken again; zero: when it is done
	bytes   int                      // of the traces that wait
	inHand  int
}

func newIntake() *intake {
	in := &intake{wake: make(chan struct{}, 1)}
	for i := range in.lanes {
		in.lanes[i] = lane{waiting: map[netip.Addr][]*heard{}, busy: map[netip.Addr]time.Time{}}
	}
	return in
}

// put adds h to its lane. False means that there is no room.
func (in *intake) put(h *heard) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	l, src := &in.lanes[h.lane], h.key.src
	waiting, bytes, _ := bounds(h.lane)
	if len(l.waiting[src]) == 0 && len(l.turn) >= waiting {
		return false
	}
	if l.bytes+h.inc.TraceSize() > bytes {
		if h.lane == verified {
			return false
		}
		h.inc.Trace = slices.Clone(h.inc.Trace[max(0, len(h.inc.Trace)-lastLines):])
	}
	if len(l.waiting[src]) == 0 {
		l.turn = append(l.turn, src)
	}
	l.bytes += h.inc.TraceSize()
	// A later emission of the same incident takes the place of the earlier one.
	if i := slices.IndexFunc(l.waiting[src], func(o *heard) bool { return o.key == h.key }); i >= 0 {
		if first := l.waiting[src][i].inc.Time; !isLater(h.inc, first) {
			h.inc.Time = first
		}
		l.bytes -= l.waiting[src][i].inc.TraceSize()
		l.waiting[src][i] = h
	} else {
		l.waiting[src] = append(l.waiting[src], h)
	}
	if len(l.waiting[src]) > perAddress {
		l.bytes -= l.waiting[src][0].inc.TraceSize()
		l.waiting[src] = l.waiting[src][1:]
	}
	hand(in.wake, struct{}{})
	return true
}

// take returns the next incident to take in hand, nil if there is none now, and then in how long there may be one, zero if
// only done or put can tell.
func (in *intake) take(now time.Time) (h *heard, wait time.Duration) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i := range in.lanes {
		l := &in.lanes[i]
		if _, _, most := bounds(i); l.inHand >= most {
			continue
		}
		for t, src := range l.turn {
			if until, busy := l.busy[src]; busy {
				if left := until.Sub(now); until.IsZero() || left > 0 {
					if !until.IsZero() && (wait == 0 || left < wait) {
						wait = left
					}
					continue
				}
			}
			l.turn = slices.Delete(l.turn, t, t+1)
			h, l.waiting[src] = l.waiting[src][0], l.waiting[src][1:]
			l.bytes -= h.inc.TraceSize()
			if len(l.waiting[src]) > 0 {
				l.turn = append(l.turn, src)
			} else {
				delete(l.waiting, src)
			}
			l.busy[src] = time.Time{}
			l.inHand++
			return h, 0
		}
	}
	return nil, wait
}

// done notes that h is decided, and whether it came to nothing.
func (in *intake) done(now time.Time, h *heard, nothing bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	l := &in.lanes[h.lane]
	l.inHand--
	delete(l.busy, h.key.src)
	for src, until := range l.busy {
		if !until.IsZero() && now.After(until) {
			delete(l.busy, src)
		}
	}
	if nothing {
		l.busy[h.key.src] = now.Add(pauseAfter)
	}
	hand(in.wake, struct{}{})
}

// empty reports whether nothing waits.
func (in *intake) empty() bool { return len(in.all()) == 0 }

// all is what waits.
func (in *intake) all() (all []*heard) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i := range in.lanes {
		for _, hs := range in.lanes[i].waiting {
			all = append(all, hs...)
		}
	}
	return all
}
