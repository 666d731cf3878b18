package canary

import (
	"crypto/ed25519"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// tally is the pure part of a proof: it decides which routes the arrivals acknowledge.
type tally struct {
	routes []Route
	key    ed25519.PublicKey // nil: acknowledgements need no signature
	origin netconsole.Origin // without its source, which is the route's
	sent   map[string]time.Time
	of     []outcome                // by route
	failed map[netip.AddrPort]error // sources where no socket could be opened
}

// outcome is what arrived for one route.
type outcome struct {
	proof    Proof
	icmp     string // an ICMP error
	unsigned bool   // an acknowledgement that is not signed for this node
	wire     bool   // an acknowledgement was seen on the wire
}

func newTally(routes []Route, key ed25519.PublicKey, origin netconsole.Origin) *tally {
	return &tally{routes: routes, key: key, origin: origin, sent: make(map[string]time.Time), of: make([]outcome, len(routes))}
}

// add counts a for the route that it answers. Targets may share a source port, so the listener's address decides.
func (t *tally) add(a arrival, now time.Time) {
	ack, ok := netconsole.ParseAck(a.payload)
	written, ours := t.sent[ack.Nonce]
	if a.icmp == "" && !(ok && ours) {
		return
	}
	for i, r := range t.routes {
		o := &t.of[i]
		switch {
		case r.Local != a.local || r.Remote != a.from || o.proof.Acked:
		case a.icmp != "":
			o.icmp = a.icmp
		case a.wire:
			o.wire = true
		case t.key != nil && !ack.Verify(t.key, t.originOf(r)):
			o.unsigned = true
		default:
			o.proof = Proof{Acked: true, Known: ack.Known, RTT: now.Sub(written), Seq: ack.Seq}
		}
	}
}

// originOf returns the origin that a signed acknowledgement for r must name.
func (t *tally) originOf(r Route) netconsole.Origin {
	o := t.origin
	o.Source = r.Local
	return o
}

func (t *tally) complete() bool {
	for i, r := range t.routes {
		if !t.of[i].proof.Acked && !r.Optional && t.failed[r.Local] == nil {
			return false
		}
	}
	return true
}

// proofs returns the outcome for each route; waited is how long all attempts took.
func (t *tally) proofs(waited time.Duration) []Proof {
	var proofs []Proof
	for i, r := range t.routes {
		p := t.of[i].proof
		p.Target, p.Listener = r.Target, r.Remote
		if !p.Acked {
			p.Why = fmt.Sprintf("no acknowledgement of %d canaries within %s", len(t.sent), waited)
			if known := t.of[i].reason(r); known != "" {
				p.Why += ": " + known
			}
			p.Reasons = t.reasons(i)
			if err := t.failed[r.Local]; err != nil {
				p.Why, p.Reasons = err.Error(), []string{err.Error()}
			}
		}
		proofs = append(proofs, p)
	}
	return proofs
}

// reason says why r was not acknowledged if that is known and not guessed, else "".
func (o outcome) reason(r Route) string {
	switch {
	case o.unsigned:
		return fmt.Sprintf("%s answers, but not with a signature of endpoint.key for %s", r.Remote, r.Local)
	case o.wire:
		return fmt.Sprintf("it reaches this node and the node's own firewall drops it; accept UDP from port %d to port %d",
			r.Remote.Port(), r.Local.Port())
	}
	return o.icmp
}

// reasons returns the likely reasons why a route was not acknowledged, the likeliest first.
func (t *tally) reasons(i int) []string {
	r := t.routes[i]
	absent := fmt.Sprintf("no lastgasp-listener runs at %s, or it does not belong to cluster %s", r.Remote, t.origin.Cluster)
	if t.origin.Cluster == "" {
		absent = fmt.Sprintf("no lastgasp-listener runs at %s, or it belongs to a cluster; then set cluster here", r.Remote)
	}
	blocked := fmt.Sprintf("a security group, network ACL or firewall drops UDP from %s to %s, or the answer", r.Local, r.Remote)
	moved := "the gateway or the listener has another hardware address now; run lastgasp-configurator apply"
	others := slices.ContainsFunc(t.of, func(o outcome) bool { return o.proof.Acked })
	known := t.of[i].reason(r)
	switch {
	case t.of[i].unsigned:
		return []string{known, "endpoint.key is not the listener's, or somebody else answers in its place"}
	case t.of[i].wire:
		return []string{known}
	case known != "":
		return []string{known, absent}
	case others: // canaries leave this machine
		return []string{absent, blocked, moved}
	default:
		return []string{blocked, absent, moved}
	}
}

func portsOf(routes []Route) (low, high uint16) {
	less := func(a, b Route) int { return int(a.Local.Port()) - int(b.Local.Port()) }
	if len(routes) == 0 {
		return 0, 0
	}
	return slices.MinFunc(routes, less).Local.Port(), slices.MaxFunc(routes, less).Local.Port()
}

// parseUDP reads an IP packet that carries an unfragmented UDP datagram without IPv6 extension headers.
func parseUDP(packet []byte) (from, to netip.AddrPort, payload []byte, ok bool) {
	var src, dst netip.Addr
	var udp []byte
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4 && packet[9] == 17 && len(packet) >= 8+4*int(packet[0]&0xf):
		src, dst = netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20]))
		udp = packet[4*int(packet[0]&0xf):]
	case len(packet) >= 48 && packet[0]>>4 == 6 && packet[6] == 17:
		src, dst = netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40]))
		udp = packet[40:]
	default:
		return from, to, nil, false
	}
	length := int(udp[4])<<8 | int(udp[5])
	if length < 8 || length > len(udp) {
		return from, to, nil, false
	}
	port := func(b []byte) uint16 { return uint16(b[0])<<8 | uint16(b[1]) }
	return netip.AddrPortFrom(src, port(udp)), netip.AddrPortFrom(dst, port(udp[2:])), udp[8:length], true
}
