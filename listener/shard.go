package listener

import (
	"net/netip"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// shard owns the sources of one socket. It has no socket, no clock and no lock: one goroutine feeds it.
type shard struct {
	judge    *detect.Config
	sink     Sink
	coverage *Coverage
	metrics  *Metrics
	ship     *Shipper // nil: nothing is shipped

	table    *table
	due      deadlines
	handover handover
	dying    int // sources whose alarm was given and whose complete incident is still to come
	alarms   int // incidents given so far, each counted once

	datagrams, records int // not in metrics yet

	// What the two callbacks work on while receive or tick runs. Closures would cost an allocation per datagram.
	now        time.Time
	src        *source
	ack        []byte
	onRecord   func(*netconsole.Record)
	onIncident func(detect.Incident)
}

// newShard makes one of so many shards, which share what the process may keep.
func newShard(shards int, judge *detect.Config, sink Sink, coverage *Coverage, metrics *Metrics) *shard {
	l := share(shards)
	s := &shard{
		judge: judge, sink: sink, coverage: coverage, metrics: metrics,
		table:    newTable(l, judge),
		handover: handover{sink: sink, metrics: metrics, limits: l},
	}
	s.onRecord, s.onIncident = s.record, s.incident
	return s
}

// receive takes one datagram and returns the ack to send back, nil if there is none.
func (s *shard) receive(now time.Time, from netip.AddrPort, payload []byte) (ack []byte) {
	s.datagrams++
	src := s.source(now, from)
	switch {
	case src == nil:
		s.metrics.Refused.Inc()
		return nil
	case !src.quota.take(now, quotaBurst, quotaPerSecond):
		s.metrics.OverQuota.Inc()
		return nil
	}
	s.now, s.src, s.ack = now, src, nil
	if err := src.stream.Push(now, payload, s.onRecord); err != nil {
		s.metrics.Malformed.Inc()
	}
	s.schedule()
	s.settle()
	return s.ack
}

// source finds or makes the state of a sender; nil means that the table has no room for it.
func (s *shard) source(now time.Time, from netip.AddrPort) *source {
	if src := s.table.find(now, from); src != nil {
		return src
	}
	src, forgotten := s.table.add(now, from)
	if src == nil {
		if old := s.table.stalest(from.Addr()); old != nil {
			s.hurry(now, old)
			more := 0
			src, more = s.table.add(now, from)
			forgotten += more
		}
	}
	s.metrics.Evicted.Add(float64(forgotten))
	s.metrics.Sources.Sub(float64(forgotten))
	if src != nil {
		s.metrics.Sources.Inc()
	}
	return src
}

// hurry tells at once what the source has in hand, as far as it goes.
func (s *shard) hurry(now time.Time, src *source) {
	s.now, s.src = now, src
	src.stream.GiveUp(s.onRecord)
	src.judge.Flush(now.Add(time.Hour), s.onIncident) // later than any of its deadlines
	s.schedule()
}

// record judges one record of s.src and answers a canary.
func (s *shard) record(r *netconsole.Record) {
	s.records++
	if s.ship != nil {
		s.ship.record(s.now, s.src.addr, r)
	}
	if c, ok := r.Canary(); ok {
		s.canary(r, c)
	}
	if len(s.src.claims) > 0 {
		s.src.judge.SetFatal(s.src.fatal(r, false))
	}
	s.src.judge.Push(s.now, r, s.onIncident)
}

// canary books a node that could be heard just now, hands its identity on and builds the answer.
func (s *shard) canary(r *netconsole.Record, c netconsole.Canary) {
	s.metrics.Canaries.Inc()
	id, addr := r.Identity(), s.src.addr.Addr()
	if id.Boot != "" && id.Boot != c.Boot || id.Instance != "" && id.Instance != c.Instance {
		s.metrics.Malformed.Inc() // the text and the target it came through disagree: not the configurator's writing
		return
	}
	if !s.src.ackBucket().take(s.now, acksBurst, acksPerSecond) {
		s.metrics.AcksLimited.Inc()
		return
	}
	s.table.prove(s.src)
	s.src.claim(claim{id.Boot, id.Secret, r.Seq, c.Facts.PanicOnOops, c.Facts.Kdump})
	if !s.coverage.heard(s.now, addr, heard{canary: c, seq: r.Seq, gasp: id.Secret.Sum()}) {
		s.metrics.CanariesRepeated.Inc()
	}
	if id.Secret != "" && !s.sink.Canary(addr, id, s.now) {
		s.metrics.HandoverFull.Inc() // the next canary pins
	}
	s.metrics.Acks.Inc()
	s.ack = []byte(netconsole.Ack{Nonce: c.Nonce, Seq: r.Seq}.Line())
}

// incident hands over what s.src was found to have.
func (s *shard) incident(inc detect.Incident) {
	alarm := inc.Verdict == detect.Dying && !inc.Complete
	if !inc.Complete && !(alarm && s.src.dying) || inc.Verdict == detect.Sick {
		s.metrics.Incidents.WithLabelValues(inc.Verdict.String(), inc.Cause).Inc()
		s.alarms++
	}
	switch {
	case alarm && !s.src.dying:
		s.dying++
	case inc.Verdict == detect.Dying && inc.Complete && s.src.dying:
		s.dying--
	}
	if inc.Verdict == detect.Dying {
		s.src.dying = alarm
	}
	s.handover.offer(s.now, s.src, inc)
}

// publish takes the counts over that change with every datagram. The counters are shared: to write to one costs as much as
// a good part of a datagram when other processors do so, too.
func (s *shard) publish() {
	s.metrics.Datagrams.Add(float64(s.datagrams))
	s.metrics.Records.Add(float64(s.records))
	s.datagrams, s.records = 0, 0
}

// tick does what is due at now and returns when it wants to be called again, zero for never.
func (s *shard) tick(now time.Time) time.Time {
	defer s.publish()
	if retry := s.handover.retry; !retry.IsZero() && !retry.After(now) {
		s.handover.flush(now)
	}
	for {
		src := s.due.first()
		if src == nil || src.due.After(now) {
			return s.next()
		}
		s.now, s.src = now, src
		src.stream.Flush(now, s.onRecord)
		src.judge.Flush(now, s.onIncident)
		s.table.of(src).touch(src) // what it has let go of by now is seen when its turn comes
		s.schedule()
		s.settle()
	}
}

// next is when tick wants to be called, zero for never.
func (s *shard) next() time.Time {
	if src := s.due.first(); src != nil {
		return earliest(src.due, s.handover.retry)
	}
	return s.handover.retry
}

// unfinished reports whether a death is still being told or an incident waits to be taken.
func (s *shard) unfinished() bool { return s.dying > 0 || s.handover.size() > 0 }

// schedule notes when s.src wants attention next. A deadline that is already over is put just ahead of now, so that no
// mistake elsewhere can make tick spin.
func (s *shard) schedule() {
	at := earliest(s.src.stream.Deadline(), s.src.judge.Deadline())
	if !at.IsZero() && !at.After(s.now) {
		at = s.now.Add(time.Millisecond)
	}
	s.due.set(s.src, at)
}

// earliest returns the earlier of two times of which zero means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
