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
// and nobody whose incident is in hand. Within one address who was there first stays: no port made up there pushes the
// kernel's own out.
type table struct {
	size   int
	judge  *detect.Config
	source map[netip.AddrPort]*source
	host   map[netip.Addr][]*source // at most maxPerAddress each

	strangers, proven queue // the one heard last is last
}

func newTable(size int, judge *detect.Config) *table {
	return &table{size: size, judge: judge, source: make(map[netip.AddrPort]*source), host: make(map[netip.Addr][]*source)}
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
	if same := t.host[from.Addr()]; len(same) >= maxPerAddress {
		i := slices.IndexFunc(same, func(old *source) bool { return old.idle(now) })
		if i < 0 {
			return nil, forgotten
		}
		t.forget(same[i])
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
	src = &source{addr: from, judge: detect.NewSource(t.judge, from), seen: now}
	t.host[from.Addr()] = append(t.host[from.Addr()], src)
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
	addr := src.addr.Addr()
	t.host[addr] = slices.DeleteFunc(t.host[addr], func(other *source) bool { return other == src })
	if len(t.host[addr]) == 0 {
		delete(t.host, addr)
	}
}

// oldest is whom to forget first, nil if nobody can be. The busy ones it meets go to the back.
func (t *table) oldest(now time.Time) *source {
	for range lookBack {
		src := t.strangers.first
		if src == nil {
			break
		}
		if !src.busy() {
			return src
		}
		t.strangers.touch(src)
	}
	if src := t.proven.first; src != nil && src.idle(now) {
		return src
	}
	return nil
}

// busy reports whether the source has something in hand.
func (src *source) busy() bool { return !src.due.IsZero() }

// idle reports whether the source has been silent for long and has nothing in hand.
func (src *source) idle(now time.Time) bool { return !src.busy() && now.Sub(src.seen) >= idleAfter }

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
