package receive

import (
	"net/netip"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	// soon is how soon, at the earliest, a Shard wants to be called again.
	soon = time.Millisecond
	// maxDue bounds how many strangers one Tick serves, so that reading goes on.
	maxDue = 256
)

// Shard owns the sources of one socket. It has no socket, no clock and no lock: one goroutine feeds it.
type Shard struct {
	cfg     *Config
	metrics *Metrics

	table      *table
	due        [lanes]deadlines
	handover   handover
	dying      int // sources whose alarm was given and whose complete incident is still to come
	alarms     int // incidents given so far, each counted once
	signatures bucket
	obituaries netconsole.Obituaries
	lossy      time.Time // until then a datagram may be missing, dropped by the kernel

	datagrams, verified, records int // not yet added to metrics
	nodes                        int // as metrics have it

	// The arguments of the callbacks of netconsole and detect. Closures would cost an allocation per datagram.
	now        time.Time
	src        *source
	ack        []byte
	basics     int // records in the basic format since the last datagram
	onRecord   func(*netconsole.Record)
	onIncident func(detect.Incident)
}

// NewShard makes a Shard that may keep all that a listener may.
func NewShard(cfg *Config) *Shard { return newShard(1, cfg) }

// newShard makes one of several shards, which share what the process may keep.
func newShard(shards int, cfg *Config) *Shard {
	l := share(shards)
	s := &Shard{
		cfg: cfg, metrics: cfg.Metrics,
		table:    newTable(l, cfg.Judge, cfg.Pins),
		handover: handover{sink: cfg.Sink, nodes: cfg.Nodes, metrics: cfg.Metrics, limits: l, unlimited: cfg.Replay},
	}
	s.onRecord, s.onIncident = s.record, s.incident
	return s
}

// Receive takes one datagram and returns the ack to send back, nil if there is none.
func (s *Shard) Receive(now time.Time, from netip.AddrPort, payload []byte) (ack []byte) {
	s.datagrams++
	if string(payload) == netconsole.Hello {
		return nil
	}
	if netconsole.IsBye(payload) {
		return s.farewell(now, from, payload)
	}
	var f netconsole.Frame
	var err error
	var src *source
	if s.table.pins == nil { // the quota comes first: it costs less
		src = s.source(now, from, nil)
	} else {
		f, err = netconsole.ParseFrame(payload)
		src = s.sender(now, from, &f)
	}
	switch {
	case src == nil:
		s.metrics.Refused.Add(1)
		return nil
	case !s.withinQuota(now, src):
		s.metrics.OverQuota.Add(1)
		return nil
	}
	if s.table.pins == nil {
		f, err = netconsole.ParseFrame(payload)
	}
	s.now, s.src, s.ack, s.basics = now, src, nil, 0
	if err := src.stream.PushFrame(now, payload, &f, err, s.onRecord); err != nil {
		s.metrics.Malformed.Add(1)
	}
	s.schedule(src)
	s.enforceMemory(src)
	return s.ack
}

// sender is the source of a datagram: the node's if it proves which node sent it, a stranger's otherwise.
func (s *Shard) sender(now time.Time, from netip.AddrPort, f *netconsole.Frame) *source {
	var stranger *source
	for src := s.table.sources[from]; src != nil; src = src.sibling {
		switch {
		case src.party.node == nil:
			stranger = src
		case src.seal.On(f) && s.table.current(now, src.party.node):
			s.verified++
			s.table.touch(now, src)
			return src
		}
	}
	boot, secret, ok := f.Credentials()
	if !ok || stranger != nil && stranger.refusal.stands(now, boot, secret) {
		return s.source(now, from, nil)
	}
	if p := s.table.verify(now, boot, secret); p != nil {
		s.verified++
		src := s.source(now, from, p)
		if src != nil {
			src.seal, _ = f.Seal()
		}
		return src
	}
	if stranger != nil {
		stranger.refusal.note(now, boot, secret)
	}
	return s.source(now, from, nil)
}

// withinQuota counts a datagram of the source, and reports whether it may be looked at.
func (s *Shard) withinQuota(now time.Time, src *source) bool {
	p := src.party
	if s.cfg.Replay {
		return true
	}
	if p.node != nil {
		return p.quota.take(now, quotaBurst, quotaPerSecond)
	}
	if src.quota.take(now, quotaBurst, quotaPerSecond) && (!src.young(now) || p.quota.take(now, quotaBurst, quotaPerSecond)) {
		return true
	}
	p.lossy = now.Add(netconsole.WireTimeout)
	return false
}

// source finds or makes the state of a sender, a node or nil for strangers; nil means that the table has no room for it.
func (s *Shard) source(now time.Time, from netip.AddrPort, p *party) *source {
	if src := s.table.find(now, from, p); src != nil {
		return src
	}
	size := s.table.size()
	src, forgotten := s.table.add(now, from, p)
	if src == nil {
		if p == nil {
			p = s.table.addresses[from.Addr()]
		}
		if old := p.stalest(now); old != nil {
			s.finish(now, old)
			more := 0
			src, more = s.table.add(now, from, p)
			forgotten += more
		}
	}
	if src != nil && src.party.node != nil {
		s.inherit(src)
	}
	s.metrics.Evicted.Add(int64(forgotten))
	s.metrics.Sources.Add(int64(s.table.size() - size))
	return src
}

// inherit hands to a node what it said before its secret was known.
func (s *Shard) inherit(src *source) {
	for other := s.table.sources[src.addr]; other != nil; other = other.sibling {
		for _, f := range other.facts {
			if f.boot == src.party.node.boot && src.party.node.proves([]byte(f.secret)) {
				src.learn(f)
			}
		}
	}
}

// finish emits at once what the source has in hand, as far as it goes.
func (s *Shard) finish(now time.Time, src *source) {
	s.now = now
	s.finishRecords(src)
	s.src = src
	src.judge.Flush(now.Add(time.Hour), s.onIncident) // later than any of its deadlines
	s.schedule(src)
}

// finishRecords gives up waiting for the rest of the source's records.
func (s *Shard) finishRecords(src *source) {
	s.src = src
	src.stream.GiveUp(s.onRecord)
}

// Record judges a record that did not come as a datagram.
func (s *Shard) Record(now time.Time, from netip.AddrPort, r *netconsole.Record) {
	if src := s.source(now, from, nil); src != nil {
		s.now, s.src = now, src
		s.record(r)
		s.schedule(src)
		s.enforceMemory(src)
	}
}

// record judges one record of s.src and answers a canary.
func (s *Shard) record(r *netconsole.Record) {
	src := s.src
	if !r.Extended {
		if s.basics++; s.basics > 1 && !s.withinQuota(s.now, src) { // no kernel sends several records in one datagram
			s.metrics.OverQuota.Add(1)
			return
		}
	}
	s.records++
	if r.Assembled && src.party.node == nil {
		if s.now.Before(s.lossy) || s.now.Before(src.party.lossy) {
			r.Contested = true // a contradicting fragment may be among the missing datagrams
		}
		if node := s.assembled(r); node != nil {
			s.withdraw(src, r)
			s.src = node
			defer func() {
				s.schedule(node)
				s.enforceMemory(node)
				s.src = src
			}()
			src = node
		}
	}
	if p, ok := r.Obituary(); ok {
		s.obituary(src, r, p)
		return
	}
	if s.cfg.Records != nil {
		s.cfg.Records.Record(s.now, src.addr, r)
	}
	if c, ok := r.Canary(); ok {
		s.canary(src, r, c)
	}
	if len(src.facts) > 0 {
		src.judge.SetFatal(src.fatal(r))
	}
	src.judge.SetShare(s.table.share(src.party.lane()))
	src.judge.Push(s.now, r, s.onIncident)
}

// assembled returns the source of the node that a record in fragments proves to be its sender, now that it is whole; nil if
// it proves none.
func (s *Shard) assembled(r *netconsole.Record) *source {
	id := r.Identity()
	if r.Partial || id.Boot == "" || id.Secret == "" || s.table.pins == nil {
		return nil
	}
	p := s.table.verify(s.now, []byte(id.Boot), []byte(id.Secret))
	if p == nil {
		return nil
	}
	s.table.held = s.src
	node := s.source(s.now, s.src.addr, p)
	s.table.held = nil
	if node == nil || !s.withinQuota(s.now, node) {
		return nil
	}
	return node
}

// withdraw takes back what the beginning of a record proved of a stranger: the whole record belongs to a node.
func (s *Shard) withdraw(src *source, r *netconsole.Record) {
	if src.judge.Withdraw(r) && src.dying {
		src.dying = false
		s.dying--
	}
	s.schedule(src)
}

// incident hands over an incident of s.src.
func (s *Shard) incident(inc detect.Incident) {
	src := s.src
	inc.Verified = src.party.node != nil
	alarm := inc.Verdict == detect.Dying && !inc.Complete
	if !inc.Complete && !(alarm && src.dying) || inc.Verdict == detect.Sick {
		if s.metrics.Incident != nil {
			s.metrics.Incident(inc.Verdict, inc.Cause)
		}
		s.alarms++
	}
	switch {
	case alarm && !src.dying:
		s.dying++
	case inc.Verdict == detect.Dying && inc.Complete && src.dying:
		s.dying--
	}
	if inc.Verdict == detect.Dying {
		src.dying = alarm
	}
	s.handover.offer(s.now, src, inc)
}

func (s *Shard) lost(now time.Time) { s.lossy = now.Add(netconsole.WireTimeout) }

// publish adds the counts that change with every datagram to the metrics. The counters are shared: writing to one costs a
// good part of what a datagram costs when other processors write to it, too.
func (s *Shard) publish() {
	s.metrics.Datagrams.Add(int64(s.datagrams))
	s.metrics.Verified.Add(int64(s.verified))
	s.metrics.Records.Add(int64(s.records))
	s.datagrams, s.verified, s.records = 0, 0, 0
	s.metrics.Nodes.Add(int64(len(s.table.nodes) - s.nodes))
	s.nodes = len(s.table.nodes)
}

// Tick does what is due at now and returns when it wants to be called again, zero for never.
func (s *Shard) Tick(now time.Time) time.Time {
	defer s.publish()
	if retry := s.handover.retry; !retry.IsZero() && !retry.After(now) {
		s.handover.flush(now)
	}
	for l := range s.due {
		for n := 0; lane(l) == verified || n < maxDue; n++ {
			src := s.due[l].first()
			if src == nil || src.due.After(now) {
				break
			}
			s.now, s.src = now, src
			src.stream.Flush(now, s.onRecord)
			src.judge.Flush(now, s.onIncident)
			s.table.queue(src).touch(src) // what it no longer keeps is booked when its turn comes
			s.schedule(src)
			s.enforceMemory(src)
		}
	}
	next := s.Next()
	if !next.IsZero() && !next.After(now) {
		next = now.Add(soon)
	}
	return next
}

// Next is when Tick wants to be called, zero for never.
func (s *Shard) Next() time.Time {
	next := s.handover.retry
	for l := range s.due {
		if src := s.due[l].first(); src != nil {
			next = earliest(next, src.due)
		}
	}
	return next
}

// unfinished reports whether a death is not complete yet or an incident waits to be taken.
func (s *Shard) unfinished() bool { return s.dying > 0 || s.handover.size() > 0 }

// schedule sets when the source is due next. A deadline that has passed is moved to just after now, so that no mistake
// elsewhere can make Tick spin.
func (s *Shard) schedule(src *source) {
	at := earliest(src.stream.Deadline(), src.judge.Deadline())
	if !at.IsZero() && !at.After(s.now) {
		at = s.now.Add(soon)
	}
	s.due[src.party.lane()].set(src, at)
}

// earliest returns the earlier of two times of which zero means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
