package listener

import (
	"net/netip"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

const (
	// maxPerAddress bounds the sources of one address, and maxProven those of them whose canary was answered. A node needs
	// one per target; more means that something there makes up source ports, and there must be room for the kernel's own.
	maxPerAddress, maxProven = 8, 4
	// idleAfter is when a silent stranger may be forgotten, and provenIdleAfter when a source may be whose canary was
	// answered: canaries come once a day at the least.
	idleAfter, provenIdleAfter = 30 * time.Minute, 25 * time.Hour
	// lookBack is how many sources may be looked at to find one to forget, or to trim.
	lookBack = 8
)

// table is the sources of one shard. Finding, making and forgetting one take constant time, whatever a flood does.
//
// A full table forgets whom it has not heard for the longest time, strangers before sources whose canary was answered,
// and nobody whose incident is in hand. Within one address strangers make way in the same order: ports made up there
// push out neither who sent a canary nor a kernel in its panic, and cannot keep a kernel out either: if they are all busy
// the shard has one of them finish.
type table struct {
	limits limits
	judge  *detect.Config
	source map[netip.AddrPort]*source
	host   map[netip.Addr]*host
	kept   int // bytes of log that all sources keep

	strangers, proven queue // the one heard last is last
}

// host is what the sources of one address share.
type host struct {
	sources []*source // at most maxPerAddress
	acks    bucket    // of those that are not proven
}

func newTable(l limits, judge *detect.Config) *table {
	return &table{limits: l, judge: judge, source: make(map[netip.AddrPort]*source), host: make(map[netip.Addr]*host)}
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
	for _, q := range [...]*queue{&t.strangers, &t.proven} { // two out for one in: the idle go, though there be room
		if old := q.first; old != nil && old.idle(now) {
			t.forget(old)
			forgotten++
		}
	}
	h := t.host[from.Addr()]
	if h != nil && len(h.sources) >= maxPerAddress {
		old := h.oldest(now)
		if old == nil {
			return nil, forgotten
		}
		t.forget(old)
		forgotten++
	}
	if len(t.source) >= t.limits.sources {
		old := t.oldest()
		if old == nil {
			return nil, forgotten
		}
		t.forget(old)
		forgotten++
	}
	if h = t.host[from.Addr()]; h == nil {
		h = new(host)
		t.host[from.Addr()] = h
	}
	src = &source{addr: from, host: h, judge: detect.NewSource(t.judge, from), seen: now}
	h.sources = append(h.sources, src)
	t.source[from] = src
	t.strangers.push(src)
	return src, forgotten
}

// prove notes that the source sent a canary that was answered.
func (t *table) prove(src *source) {
	if !src.proven && src.host.proven() < maxProven {
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
	t.kept -= src.kept
	delete(t.source, src.addr)
	src.host.sources = slices.DeleteFunc(src.host.sources, func(other *source) bool { return other == src })
	if len(src.host.sources) == 0 {
		delete(t.host, src.addr.Addr())
	}
}

// oldest is which source of the address to forget first, nil if none can be: a stranger that has nothing in hand, or
// whoever is long silent.
func (h *host) oldest(now time.Time) *source {
	var oldest *source
	for _, src := range h.sources {
		if free := src.idle(now) || !src.proven && !src.busy(); free && (oldest == nil || src.seen.Before(oldest.seen)) {
			oldest = src
		}
	}
	return oldest
}

// stalest is the stranger heard longest ago of an address that is full, nil if it has room. All its strangers may have
// something in hand: whoever shares a node's address can keep them busy, and the next one to speak may be its kernel.
func (t *table) stalest(addr netip.Addr) *source {
	h := t.host[addr]
	if h == nil || len(h.sources) < maxPerAddress {
		return nil
	}
	var oldest *source
	for _, src := range h.sources {
		if !src.proven && (oldest == nil || src.seen.Before(oldest.seen)) {
			oldest = src
		}
	}
	return oldest
}

// proven is how many sources of the address sent a canary.
func (h *host) proven() int {
	n := 0
	for _, src := range h.sources {
		if src.proven {
			n++
		}
	}
	return n
}

// oldest is whom to forget first, nil if nobody can be. The busy ones it meets go to the back.
func (t *table) oldest() *source {
	for _, q := range [...]*queue{&t.strangers, &t.proven} {
		for range lookBack {
			src := q.first
			if src == nil {
				break
			}
			if !src.busy() {
				return src
			}
			q.touch(src)
		}
	}
	return nil
}

// busy reports whether the source has something in hand.
func (src *source) busy() bool { return !src.due.IsZero() }

// idle reports whether the source has been silent for long and has nothing in hand.
func (src *source) idle(now time.Time) bool {
	after := idleAfter
	if src.proven {
		after = provenIdleAfter
	}
	return !src.busy() && now.Sub(src.seen) >= after
}

// queue is a linked list of sources, threaded through them.
type queue struct {
	first, last *source
	untrimmed   *source // those in front of it have let go of what they can; nil if all have
}

func (q *queue) push(src *source) {
	if q.untrimmed == nil {
		q.untrimmed = src
	}
	src.before, src.behind = q.last, nil
	if q.last == nil {
		q.first = src
	} else {
		q.last.behind = src
	}
	q.last = src
}

func (q *queue) remove(src *source) {
	if q.untrimmed == src {
		q.untrimmed = src.behind
	}
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
	switch {
	case q.last != src:
		q.remove(src)
		q.push(src)
	case q.untrimmed == nil:
		q.untrimmed = src
	}
}
