package receive

import (
	"net/netip"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	// maxPerAddress bounds the sources of the strangers of one address, and maxProven those of them whose canary was
	// answered. A kernel needs one per target. More means that something there makes up source ports, and there must still be
	// room for the kernel's own.
	maxPerAddress, maxProven = 8, 4
	// maxPerNode bounds the sources of a node that is verified: two targets, and two before its address changed.
	maxPerNode = 4
	// maxSiblings bounds the nodes that send from one address and port: its node's boot, and those before. Each datagram looks through
	// them, and root on a node may pin one secret after the other.
	maxSiblings = 4
	// idleAfter is when a silent stranger may be forgotten, and provenIdleAfter the same for a source whose canary was
	// answered: canaries come at least once a day.
	idleAfter, provenIdleAfter = 30 * time.Minute, 25 * time.Hour
	// lookBack is how many sources may be looked at to find one to forget, or to trim.
	lookBack = 8
)

// lane separates verified nodes from strangers: neither takes room from the other.
type lane int

const (
	verified lane = iota // served first
	strangers
	lanes
)

// table is the sources of one shard. Finding, making and forgetting one take constant time, whatever a flood does.
//
// A full lane forgets the source it has not heard for the longest time, strangers before sources whose canary was answered,
// and none whose incident is in hand. Within one address strangers make way in the same order, the young before the old.
// So made-up ports push out neither a source that sent a canary nor a kernel in its panic. They cannot keep a kernel out
// either: if they are all busy the shard makes one of them finish.
type table struct {
	limits limits
	judge  *detect.Config
	pins   Pins // nil: nobody is verified

	spare     netconsole.Spare           // for the streams of all sources
	held      *source                    // must not be forgotten now: one of its records is being judged
	sources   map[netip.AddrPort]*source // the first of its siblings
	addresses map[netip.Addr]*party      // of strangers
	nodes     map[string][]*party        // by boot; Nodes that say they run the same one differ in their secrets
	lanes     [lanes]struct {
		unproven, proven queue // the source heard last is last
		count            int   // of sources
		kept             int   // bytes of log that they keep
	}
}

func newTable(l limits, judge *detect.Config, pins Pins) *table {
	return &table{
		limits: l, judge: judge, pins: pins,
		sources: make(map[netip.AddrPort]*source), addresses: make(map[netip.Addr]*party), nodes: make(map[string][]*party),
	}
}

func (t *table) size() int { return t.lanes[verified].count + t.lanes[strangers].count }

// find is the state of a sender, nil if it has none. A nil node is for the strangers.
func (t *table) find(now time.Time, from netip.AddrPort, n *party) *source {
	for src := t.sources[from]; src != nil; src = src.sibling {
		if src.party == n || n == nil && src.party.node == nil {
			t.touch(now, src)
			return src
		}
	}
	return nil
}

func (t *table) touch(now time.Time, src *source) {
	src.last = now
	t.queue(src).touch(src)
}

// add makes room for a sender that find did not find, and makes its state; nil if there is no room. It returns how
// many others it forgot.
func (t *table) add(now time.Time, from netip.AddrPort, p *party) (src *source, forgotten int) {
	if p == nil {
		p = t.addresses[from.Addr()]
	}
	if p == nil {
		p = new(party)
	}
	for l := range t.lanes { // idle sources go even if there is room: more leave than come
		for _, q := range [...]*queue{&t.lanes[l].unproven, &t.lanes[l].proven} {
			if old := q.first; old != nil && old != t.held && old.idle(now) {
				t.forget(old)
				forgotten++
			}
		}
	}
	if sibling, crowded := t.crowded(from); crowded && p.node != nil {
		if sibling == nil {
			t.release(p)
			return nil, forgotten
		}
		t.forget(sibling)
		forgotten++
	}
	full := len(p.sources) >= p.maxSources()
	var old *source
	switch {
	case full:
		old = p.oldest(now)
	case !t.roomFor(p.lane()):
		full, old = true, t.oldest(p.lane())
	case t.size() >= t.limits.sources:
		old = t.oldest(strangers) // they use room that this lane did not need before
	}
	if old != nil {
		t.forget(old)
		forgotten++
	} else if full {
		t.release(p)
		return nil, forgotten
	}
	if p.node == nil {
		t.addresses[from.Addr()] = p
	}
	src = &source{
		addr: from, party: p, sibling: t.sources[from], judge: detect.NewSource(t.judge, from),
		stream: netconsole.Stream{Spare: &t.spare}, first: now, last: now, proven: p.node != nil,
	}
	p.sources = append(p.sources, src)
	t.sources[from] = src
	t.lanes[p.lane()].count++
	t.queue(src).push(src)
	return src, forgotten
}

// crowded reports whether an address and port has as many nodes as it may have, and which of them to forget; nil if all have something
// in hand.
func (t *table) crowded(from netip.AddrPort) (oldest *source, is bool) {
	n := 0
	for src := t.sources[from]; src != nil; src = src.sibling {
		if src.party.node == nil {
			continue
		}
		n++
		if !src.busy() && src != t.held && (oldest == nil || src.last.Before(oldest.last)) {
			oldest = src
		}
	}
	return oldest, n >= maxSiblings
}

// roomFor reports whether the lane may have one source more. Neither lane can have all of the table.
func (t *table) roomFor(l lane) bool {
	reserved := t.limits.sources / 8
	if l == verified {
		return t.lanes[verified].count < t.limits.sources-reserved
	}
	return t.lanes[strangers].count < max(t.limits.sources-t.lanes[verified].count, reserved)
}

// prove notes that a stranger sent a canary that was answered.
func (t *table) prove(src *source) {
	if !src.proven && src.party.proven() < maxProven {
		t.queue(src).remove(src)
		src.proven = true
		t.queue(src).push(src)
	}
}

// queue is where the source waits for its turn to be forgotten.
func (t *table) queue(src *source) *queue {
	l := &t.lanes[src.party.lane()]
	if src.proven {
		return &l.proven
	}
	return &l.unproven
}

func (t *table) forget(src *source) {
	p := src.party
	t.queue(src).remove(src)
	l := &t.lanes[p.lane()]
	l.count--
	l.kept -= src.kept
	p.kept -= src.kept
	src.kept = 0
	src.stream, src.judge = netconsole.Stream{}, nil // a waiting incident keeps the rest of src alive
	switch first := t.sources[src.addr]; {
	case first != src:
		for first.sibling != src {
			first = first.sibling
		}
		first.sibling = src.sibling
	case src.sibling != nil:
		t.sources[src.addr] = src.sibling
	default:
		delete(t.sources, src.addr)
	}
	p.sources = slices.DeleteFunc(p.sources, func(other *source) bool { return other == src })
	if p.node == nil && len(p.sources) == 0 {
		delete(t.addresses, src.addr.Addr())
	}
	t.release(p)
}

// release forgets a node that has no source.
func (t *table) release(p *party) {
	if p.node != nil && len(p.sources) == 0 {
		t.drop(p)
	}
}

// oldest is the source of the party to forget first, nil if none can be. It has been silent for long, or has nothing in hand
// and is not a stranger whose canary was answered. No old source makes way for ports that may be made up.
func (p *party) oldest(now time.Time) *source {
	removable := func(src *source) bool { return !src.proven || p.node != nil }
	oldest := p.first(now, func(src *source) bool { return src.idle(now) || removable(src) && !src.busy() })
	if oldest == nil || oldest.idle(now) || oldest.young(now) {
		return oldest
	}
	if slices.ContainsFunc(p.sources, func(src *source) bool { return removable(src) && src.young(now) }) {
		return nil // they are all busy: one of them has to finish
	}
	return oldest
}

// stalest is the source to finish and forget in a party that is full, nil if it has room. They may all have something in
// hand: a pod that shares a node's address can keep them busy, and the next one to speak may be the node's kernel.
func (p *party) stalest(now time.Time) *source {
	if p == nil || len(p.sources) < p.maxSources() {
		return nil
	}
	return p.first(now, func(src *source) bool { return !src.proven || p.node != nil })
}

// first is the source that makes way first among those that can: a young one, which may be a port that was just made up, and
// of several the one heard longest ago.
func (p *party) first(now time.Time, can func(*source) bool) *source {
	var first *source
	for _, src := range p.sources {
		switch {
		case !can(src):
		case first == nil, src.young(now) && !first.young(now), src.young(now) == first.young(now) && src.last.Before(first.last):
			first = src
		}
	}
	return first
}

func (p *party) proven() int {
	n := 0
	for _, src := range p.sources {
		if src.proven {
			n++
		}
	}
	return n
}

// oldest is the source of a lane to forget first, nil if none can be. Busy ones on the way go to the back.
func (t *table) oldest(l lane) *source {
	for _, q := range [...]*queue{&t.lanes[l].unproven, &t.lanes[l].proven} {
		for range lookBack {
			src := q.first
			if src == nil {
				break
			}
			if !src.busy() && src != t.held {
				return src
			}
			q.touch(src)
		}
	}
	return nil
}
