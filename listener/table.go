package listener

import (
	"net/netip"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

const (
	// maxSources bounds one shard's table: a fleet of 20,000 nodes with room for noise.
	maxSources = 65536
	// maxPerAddress bounds the sources of one address. A node needs one per target; more means that something there
	// makes up source ports.
	maxPerAddress = 8
	// idleAfter is when a silent source may be forgotten: well beyond a canary interval.
	idleAfter = 30 * time.Minute
	// lookBack is how many sources may be looked at to find one to forget.
	lookBack = 8
)

// table is the sources of one shard. Finding, making and forgetting one take constant time, whatever a flood does.
//
// A full table forgets whom it has not heard for the longest time, strangers before sources whose canary was answered,
// and nobody whose incident is in hand.
type table struct {
	size   int
	judge  *detect.Config
	source map[netip.AddrPort]*source
	host   map[netip.Addr]*host

	strangers, proven queue // the one heard last is last
}

// host is one address.
type host struct {
	sources []*source // at most maxPerAddress
	births  bucket    // bounds the work that made-up ports cause
	acks    bucket    // bounds what is sent to the address
}

func newTable(size int, judge *detect.Config) *table {
	return &table{size: size, judge: judge, source: make(map[netip.AddrPort]*source), host: make(map[netip.Addr]*host)}
}

// find is the state of a sender, nil if it has none.
func (t *table) find(now time.Time, from netip.AddrPort) *source {
	src := t.source[from]
	if src != nil {
		src.seen = now
		t.of(src).touch(src)
	}
	return src
}

// add makes room for a sender that find did not find, and makes its state; nil if there is no room. It tells how many
// others it forgot.
func (t *table) add(now time.Time, from netip.AddrPort) (src *source, forgotten int) {
	h := t.host[from.Addr()]
	if h != nil && !h.births.take(now, 2*maxPerAddress, 1) {
		return nil, 0
	}
	for _, q := range [...]*queue{&t.strangers, &t.proven} { // two out for one in: the idle go, though there be room
		if old := q.first; old != nil && !old.busy() && now.Sub(old.seen) >= idleAfter {
			t.forget(old)
			forgotten++
		}
	}
	if h = t.host[from.Addr()]; h == nil {
		h = new(host)
	}
	if len(h.sources) >= maxPerAddress {
		old := h.oldest(now)
		if old == nil {
			return nil, forgotten
		}
		t.forget(old)
		forgotten++
	}
	if len(t.source) >= t.size {
		old := t.oldest(now)
		if old == nil {
			return nil, forgotten
		}
		t.forget(old)
		forgotten++
	}
	src = &source{addr: from, host: h, judge: detect.NewSource(t.judge, from), seen: now}
	h.sources = append(h.sources, src)
	t.host[from.Addr()] = h
	t.source[from] = src
	t.strangers.push(src)
	return src, forgotten
}

// prove notes that the source sent a canary that was answered.
func (t *table) prove(src *source) {
	if !src.proven {
		t.strangers.remove(src)
		src.proven = true
		t.proven.push(src)
	}
}

func (t *table) of(src *source) *queue {
	if src.proven {
		return &t.proven
	}
	return &t.strangers
}

func (t *table) forget(src *source) {
	t.of(src).remove(src)
	delete(t.source, src.addr)
	h := src.host
	h.sources = slices.DeleteFunc(h.sources, func(other *source) bool { return other == src })
	if len(h.sources) == 0 {
		delete(t.host, src.addr.Addr())
	}
}

// oldest is whom to forget first, nil if nobody can be. The busy ones it meets go to the back.
func (t *table) oldest(now time.Time) *source {
	for range lookBack {
		switch src := t.strangers.first; {
		case src == nil:
		case src.busy():
			t.strangers.touch(src)
		default:
			return src
		}
	}
	if src := t.proven.first; src != nil && src.forgettable(now) {
		return src
	}
	return nil
}

// oldest is the address's source to forget first, nil if none can be.
func (h *host) oldest(now time.Time) *source {
	var oldest *source
	for _, src := range h.sources {
		if src.forgettable(now) && (oldest == nil || src.seen.Before(oldest.seen)) {
			oldest = src
		}
	}
	return oldest
}

// busy reports whether the source has something in hand.
func (src *source) busy() bool { return !src.due.IsZero() }

// forgettable reports whether somebody new may have the source's place.
func (src *source) forgettable(now time.Time) bool {
	return !src.busy() && (!src.proven || now.Sub(src.seen) >= idleAfter)
}

// queue is a linked list of sources, threaded through them.
type queue struct{ first, last *source }

func (q *queue) push(src *source) {
	src.before, src.behind = q.last, nil
	if q.last == nil {
		q.first = src
	} else {
		q.last.behind = src
	}
	q.last = src
}

func (q *queue) remove(src *source) {
	if src.before == nil {
		q.first = src.behind
	} else {
		src.before.behind = src.behind
	}
	if src.behind == nil {
		q.last = src.before
	} else {
		src.behind.before = src.before
	}
	src.before, src.behind = nil, nil
}

// touch moves the source to the end.
func (q *queue) touch(src *source) {
	if q.last != src {
		q.remove(src)
		q.push(src)
	}
}
