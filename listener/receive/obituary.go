package receive

import "github.com/lastgasp/lastgasp/listener/netconsole"

// partsBurst parts of obituaries of one node are acknowledged at once, and partsPerSecond from then on: a whole one
// mostly at once, and within half a minute.
const partsBurst, partsPerSecond = 64, 16

// obituary takes a part of an obituary and builds its ack. A sender that does not know the secret of the boot it claims to run is
// neither believed nor answered.
func (s *Shard) obituary(src *source, r *netconsole.Record, p netconsole.ObituaryPart) {
	switch {
	case src.party.node == nil:
		s.metrics.ObituariesStranger.Add(1)
		return
	case s.cfg.Obituaries == nil:
		return
	case p.Cluster != s.cfg.Cluster:
		s.metrics.CanariesForeign.Add(1)
		return
	case !src.party.parts.take(s.now, partsBurst, partsPerSecond):
		s.metrics.AcksLimited.Add(1)
		return
	}
	id := r.Identity()
	whole, ack := s.obituaries.Add(s.now, id, p)
	if whole != nil {
		s.metrics.Obituaries.Add(1)
		if ack = s.cfg.Obituaries.Obituary(src.addr.Addr(), id, *whole, s.now); ack {
			s.obituaries.Done(p.Nonce, id)
		}
	}
	if !ack {
		return
	}
	if a, ok := s.signed(s.now, src, netconsole.Ack{Nonce: p.Nonce, Seq: r.Seq, Known: s.obituaries.Recorded(p.Nonce, id)}, p.Cluster, id.Boot); ok {
		s.metrics.Acks.Add(1)
		s.ack = []byte(a.Line())
	}
}
