package listener

import (
	"net/netip"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	// maxSources bounds one shard's table: a fleet of 20,000 nodes with room for noise.
	maxSources = 65536
	// maxPerAddress bounds the sources of one address. A node needs one per target; more means that something there
	// makes up source ports.
	maxPerAddress = 8
	// idleAfter is when a silent source may be forgotten: well beyond a canary interval.
	idleAfter = 30 * time.Minute
	// offerAgain is how soon an incident is offered again to a full hand-over.
	offerAgain = 100 * time.Millisecond
	// maxPending bounds the incidents that wait with one source. Two are usual: the alarm and the whole record.
	maxPending = 8
)

// shard owns the sources of one socket. It has no socket, no clock and no lock: one goroutine feeds it.
type shard struct {
	judge    *detect.Config
	sink     Sink
	coverage *Coverage
	metrics  *Metrics

	sources    map[netip.AddrPort]*source
	perAddress map[netip.Addr]int
	due        deadlines
}

func newShard(judge *detect.Config, sink Sink, coverage *Coverage, metrics *Metrics) *shard {
	return &shard{
		judge: judge, sink: sink, coverage: coverage, metrics: metrics,
		sources:    make(map[netip.AddrPort]*source),
		perAddress: make(map[netip.Addr]int),
	}
}

// source is one sender: a kernel's netconsole target, or whoever else sends datagrams.
type source struct {
	addr    netip.AddrPort
	stream  netconsole.Stream
	judge   *detect.Source
	seen    time.Time
	acks    bucket
	pending []detect.Incident

	due   time.Time // zero: not in the heap
	index int       // in the heap
}

// receive takes one datagram and returns the ack to send back, nil if there is none.
func (s *shard) receive(now time.Time, from netip.AddrPort, payload []byte) (ack []byte) {
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	s.metrics.Datagrams.Inc()
	src := s.source(now, from)
	if src == nil {
		s.metrics.Refused.Inc()
		return nil
	}
	err := src.stream.Push(now, payload, func(r *netconsole.Record) {
		if a := s.record(now, src, r); a != nil {
			ack = a
		}
	})
	if err != nil {
		s.metrics.Malformed.Inc()
	}
	s.schedule(now, src)
	return ack
}

// record judges one record and answers a canary.
func (s *shard) record(now time.Time, src *source, r *netconsole.Record) (ack []byte) {
	s.metrics.Records.Inc()
	if c, ok := netconsole.ParseCanary(r.Text); ok && !r.Partial && r.Missing == 0 {
		ack = s.canary(now, src, r, c)
	}
	src.judge.Push(now, r, func(inc detect.Incident) { s.offer(now, src, inc) })
	return ack
}

// canary books a node that could be heard just now, hands its identity on and builds the answer.
func (s *shard) canary(now time.Time, src *source, r *netconsole.Record, c netconsole.Canary) []byte {
	s.metrics.Canaries.Inc()
	id := r.Identity()
	if id.Boot != "" && id.Boot != c.Boot || id.Instance != "" && id.Instance != c.Instance {
		s.metrics.Malformed.Inc() // the text and the target it came through disagree: not the configurator's writing
		return nil
	}
	if !src.acks.take(now) {
		s.metrics.AcksLimited.Inc()
		return nil
	}
	s.coverage.heard(now, src.addr.Addr(), c)
	src.judge.SetFatal(c.Facts.PanicOnOops, c.Facts.Kdump)
	if id.Gasp != "" && !s.sink.Canary(src.addr.Addr(), id, now) {
		s.metrics.HandoverFull.Inc() // the next canary pins
	}
	s.metrics.Acks.Inc()
	return []byte(netconsole.Ack{Nonce: c.Nonce, Seq: r.Seq}.Line())
}

// offer hands an incident over, behind those that already wait with the source.
func (s *shard) offer(now time.Time, src *source, inc detect.Incident) {
	if !inc.Complete {
		s.metrics.incident(inc, now)
	}
	if len(src.pending) == 0 && s.sink.Offer(inc) {
		return
	}
	s.metrics.HandoverFull.Inc()
	if len(src.pending) == maxPending {
		// The oldest ones are the alarms; what is least missed is the finding that came before the newest.
		s.metrics.IncidentsDropped.Inc()
		src.pending[maxPending-1] = inc
		return
	}
	src.pending = append(src.pending, inc)
}

// tick does what is due at now and returns when it wants to be called again, zero for never.
func (s *shard) tick(now time.Time) time.Time {
	for {
		src := s.due.first()
		if src == nil {
			return time.Time{}
		}
		if src.due.After(now) {
			return src.due
		}
		src.stream.Flush(now, func(r *netconsole.Record) { s.record(now, src, r) })
		src.judge.Flush(now, func(inc detect.Incident) { s.offer(now, src, inc) })
		for len(src.pending) > 0 && s.sink.Offer(src.pending[0]) {
			src.pending = src.pending[1:]
		}
		s.schedule(now, src)
	}
}

// schedule notes when the source wants attention next. A deadline that is already over is put just ahead of now, so
// that no mistake elsewhere can make tick spin.
func (s *shard) schedule(now time.Time, src *source) {
	at := earliest(src.stream.Deadline(), src.judge.Deadline())
	if len(src.pending) > 0 {
		at = earliest(at, now.Add(offerAgain))
	}
	if !at.IsZero() && !at.After(now) {
		at = now.Add(time.Millisecond)
	}
	s.due.set(src, at)
}

// source finds or makes the state of a sender; nil means that the table has no room for it.
func (s *shard) source(now time.Time, from netip.AddrPort) *source {
	if src, ok := s.sources[from]; ok {
		src.seen = now
		return src
	}
	if s.perAddress[from.Addr()] >= maxPerAddress || len(s.sources) >= maxSources {
		s.evict(now)
	}
	if s.perAddress[from.Addr()] >= maxPerAddress || len(s.sources) >= maxSources {
		return nil
	}
	src := &source{addr: from, judge: detect.NewSource(s.judge, from), seen: now}
	s.sources[from] = src
	s.perAddress[from.Addr()]++
	s.metrics.Sources.Inc()
	return src
}

// evict forgets every idle source. A source with an incident in hand is never idle.
func (s *shard) evict(now time.Time) {
	for from, src := range s.sources {
		if now.Sub(src.seen) < idleAfter || len(src.pending) > 0 || !src.due.IsZero() {
			continue
		}
		delete(s.sources, from)
		if s.perAddress[from.Addr()]--; s.perAddress[from.Addr()] == 0 {
			delete(s.perAddress, from.Addr())
		}
		s.metrics.Sources.Dec()
		s.metrics.Evicted.Inc()
	}
}

// earliest returns the earlier of two times of which zero means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// bucket limits acks: five at once, one a second after that. The zero value is full.
type bucket struct {
	used float64
	at   time.Time
}

func (b *bucket) take(now time.Time) bool {
	const burst, perSecond = 5, 1
	b.used = max(0, b.used-now.Sub(b.at).Seconds()*perSecond)
	b.at = now
	if b.used+1 > burst {
		return false
	}
	b.used++
	return true
}
