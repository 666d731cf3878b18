package receive

import (
	"net/netip"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// Farewells takes the farewells of nodes.
type Farewells interface {
	// Farewell hands over a farewell that arrived from src. Verified says that it carried the secret that is known of its boot,
	// and that a Node is the sender. It must not block: false means "not now", and the node, which gets no ack, repeats it.
	Farewell(src netip.Addr, y netconsole.Bye, at time.Time, verified bool) bool
}

// farewell hands on a datagram that netconsole.IsBye and returns the ack to send back, nil if there is none. It counts towards the
// lane, quota and acks of its sender, whom the secret proves.
func (s *Shard) farewell(now time.Time, from netip.AddrPort, payload []byte) []byte {
	y, ok := netconsole.ParseBye(string(payload))
	if !ok {
		s.metrics.Malformed.Add(1)
		return nil
	}
	var p *party
	if s.table.pins != nil && y.Secret != "" {
		p = s.table.verify(now, []byte(y.Boot), []byte(y.Secret))
	}
	src := s.source(now, from, p)
	switch {
	case src == nil:
		s.metrics.Refused.Add(1)
		return nil
	case !s.withinQuota(now, src):
		s.metrics.OverQuota.Add(1)
		return nil
	case y.Cluster != s.cfg.Cluster:
		s.metrics.CanariesForeign.Add(1)
		return nil
	case !mayAck(now, src):
		s.metrics.AcksLimited.Add(1)
		return nil
	}
	if p != nil {
		s.verified++
	}
	known := s.cfg.Nodes == nil || s.cfg.Nodes.Known(y.Instance, from.Addr())
	ack, ok := s.signed(now, src, netconsole.Ack{Nonce: y.Nonce, Known: known}, y.Cluster, y.Boot)
	if !ok {
		return nil
	}
	if s.cfg.Farewells != nil && !s.cfg.Farewells.Farewell(from.Addr(), y, now, known && p != nil) {
		s.metrics.HandoverFull.Add(1)
		return nil
	}
	s.metrics.Acks.Add(1)
	return []byte(ack.Line())
}

// signed signs an ack to the source, if acks are signed. It reports false if too many strangers ask for that.
func (s *Shard) signed(now time.Time, src *source, ack netconsole.Ack, cluster, boot string) (netconsole.Ack, bool) {
	if s.cfg.Key == nil {
		return ack, true
	}
	if !ack.Known && !s.signatures.take(now, signaturesPerSecond, signaturesPerSecond) {
		s.metrics.AcksLimited.Add(1)
		return ack, false
	}
	return ack.Sign(s.cfg.Key, netconsole.Origin{Cluster: cluster, Boot: boot, Source: src.addr}), true
}
