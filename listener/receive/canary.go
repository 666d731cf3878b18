package receive

import (
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// canary records that a node can be heard, hands its identity on and builds the ack.
func (s *Shard) canary(src *source, r *netconsole.Record, c netconsole.Canary) {
	s.metrics.Canaries.Add(1)
	id, addr := r.Identity(), src.addr.Addr()
	switch {
	case id.Boot != "" && id.Boot != c.Boot || id.Instance != "" && id.Instance != c.Instance:
		s.metrics.Malformed.Add(1) // the text contradicts the target it came through: the configurator did not write it
		return
	case c.Cluster != s.cfg.Cluster:
		s.metrics.CanariesForeign.Add(1)
		return
	case !mayAck(s.now, src):
		s.metrics.AcksLimited.Add(1)
		return
	}
	known := s.cfg.Nodes == nil || s.cfg.Nodes.Known(c.Instance, addr)
	ack, ok := s.signed(s.now, src, netconsole.Ack{Nonce: c.Nonce, Seq: r.Seq, Known: known}, c.Cluster, c.Boot)
	if !ok {
		return
	}
	s.table.prove(src)
	src.learn(fact{id.Boot, id.Secret, r.Seq, c.Facts.PanicOnOops, c.Facts.Kdump})
	if s.cfg.Canaries != nil && !s.cfg.Canaries.Canary(Canary{
		Canary: c, At: s.now, From: addr, Seq: r.Seq, Secret: id.Secret, Known: known,
		Verified: known && src.party.node != nil,
	}) {
		s.metrics.CanariesRepeated.Add(1)
	}
	if id.Secret != "" && known && !s.cfg.Sink.Canary(addr, id, s.now) {
		s.metrics.HandoverFull.Add(1) // the next canary claims
	}
	if !known {
		s.metrics.CanariesStranger.Add(1)
	}
	s.metrics.Acks.Add(1)
	s.ack = []byte(ack.Line())
}

// mayAck reports whether a canary of the source may be acknowledged, and counts it. The young ports of an address, which may
// be made up, share one limit. It is wide enough for the kernel's own port to be among them.
func mayAck(now time.Time, src *source) bool {
	if src.party.node != nil {
		return src.party.acks.take(now, acksBurst, acksPerSecond)
	}
	return src.acks.take(now, acksBurst, acksPerSecond) &&
		(!src.young(now) || src.party.acks.take(now, strangerAcksBurst, strangerAcksPerSecond))
}
