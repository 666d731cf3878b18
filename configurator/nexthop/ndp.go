package nexthop

import (
	"encoding/binary"
	"net/netip"
)

const (
	ip6Len   = 40
	icmp6    = 58  // next header
	ndpHops  = 255 // a packet with less was forwarded, so it is not from a neighbour (RFC 4861 §7.1)
	ndpFixed = 24  // solicitation and advertisement up to their options

	ndpSolicit   = 135
	ndpAdvertise = 136

	ndpSolicited = 0x40 // flag S of an advertisement: it answers a solicitation

	optSourceLink = 1
	optTargetLink = 2
)

// appendSolicitation appends the frame of an ICMPv6 neighbour solicitation (RFC 4861 §4.3) to target's solicited-node
// group. sender is an address of the device that owns from: an unspecified one would make this duplicate address detection,
// whose answers go to everybody instead of us.
func appendSolicitation(b []byte, from mac, sender, target netip.Addr) []byte {
	src, tgt := sender.As16(), target.As16()
	group := [16]byte{0: 0xff, 1: 0x02, 11: 0x01, 12: 0xff, 13: tgt[13], 14: tgt[14], 15: tgt[15]}

	b = append(b, 0x33, 0x33)
	b = append(b, group[12:]...)
	b = append(b, from[:]...)
	b = binary.BigEndian.AppendUint16(b, etherIP6)

	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, ndpFixed+8)
	b = append(b, icmp6, ndpHops)
	b = append(b, src[:]...)
	b = append(b, group[:]...)

	at := len(b)
	b = append(b, ndpSolicit, 0, 0, 0, 0, 0, 0, 0)
	b = append(b, tgt[:]...)
	b = append(b, optSourceLink, 1)
	b = append(b, from[:]...)
	binary.BigEndian.PutUint16(b[at+2:], ^checksum6(src, group, b[at:]))
	return b
}

// parseAdvertisement returns the Ethernet address that frame gives for target, if frame is an answer to
// appendSolicitation(from, sender, target). Without the target link-layer option the frame's source counts: only an
// answer to a unicast solicitation may leave it out, but nothing else is known then (RFC 4861 §4.4).
func parseAdvertisement(frame []byte, from mac, sender, target netip.Addr) (mac, bool) {
	if len(frame) < ethLen+ip6Len+ndpFixed || mac(frame[0:6]) != from ||
		binary.BigEndian.Uint16(frame[12:]) != etherIP6 {
		return mac{}, false
	}
	ip := frame[ethLen:]
	size := int(binary.BigEndian.Uint16(ip[4:]))
	src, dst := [16]byte(ip[8:24]), [16]byte(ip[24:40])
	if ip[0]>>4 != 6 || ip[6] != icmp6 || ip[7] != ndpHops || netip.AddrFrom16(dst) != sender ||
		size < ndpFixed || size > len(ip)-ip6Len { // bytes after size are padding
		return mac{}, false
	}
	p := ip[ip6Len : ip6Len+size]
	if p[0] != ndpAdvertise || p[1] != 0 || p[4]&ndpSolicited == 0 ||
		netip.AddrFrom16([16]byte(p[8:24])) != target || checksum6(src, dst, p) != 0xffff {
		return mac{}, false
	}
	found := mac(frame[6:12])
	for opts := p[ndpFixed:]; len(opts) > 0; {
		if len(opts) < 8 || opts[1] == 0 || int(opts[1])*8 > len(opts) {
			return mac{}, false // RFC 4861 §4.6: the whole packet is to be dropped
		}
		if opts[0] == optTargetLink && opts[1] == 1 {
			found = mac(opts[2:8])
		}
		opts = opts[int(opts[1])*8:]
	}
	return found, true
}

// checksum6 is the ones' complement sum over the pseudo header and an ICMPv6 packet (RFC 8200 §8.1): the value to store
// is its complement, and over a packet that carries the right value it is 0xffff.
func checksum6(src, dst [16]byte, icmp []byte) uint16 {
	sum := uint64(len(icmp)) + icmp6
	add := func(b []byte) {
		for ; len(b) >= 2; b = b[2:] {
			sum += uint64(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			sum += uint64(b[0]) << 8
		}
	}
	add(src[:])
	add(dst[:])
	add(icmp)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
