package nexthop

import (
	"encoding/binary"
	"net/netip"
)

const (
	ethLen   = 14 // Ethernet header: destination, source, EtherType
	etherARP = 0x0806
	etherIP6 = 0x86dd

	arpLen     = 28 // RFC 826 for Ethernet and IPv4
	arpRequest = 1
	arpReply   = 2
)

// arpHead starts every ARP packet for IPv4 over Ethernet: hardware and protocol type, and their lengths.
var arpHead = [6]byte{0, 1, 8, 0, 6, 4}

// appendARPRequest appends the frame that asks everybody on the link who has target. sender is an address of the device
// that owns from; the zero Addr makes it a probe (RFC 5227 §1.1), which is answered, too, and teaches nobody a wrong entry.
func appendARPRequest(b []byte, from mac, sender, target netip.Addr) []byte {
	b = append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	b = append(b, from[:]...)
	b = binary.BigEndian.AppendUint16(b, etherARP)
	b = append(b, arpHead[:]...)
	b = binary.BigEndian.AppendUint16(b, arpRequest)
	b = append(b, from[:]...)
	b = appendIPv4(b, sender)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return appendIPv4(b, target)
}

func appendIPv4(b []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return append(b, 0, 0, 0, 0)
	}
	a4 := a.As4()
	return append(b, a4[:]...)
}

// parseARPReply returns the Ethernet address that frame gives for target, if frame is an answer to
// appendARPRequest(from, sender, target). As in the kernel (arp_process, net/ipv4/arp.c) the sender address inside ARP
// counts; the frame's source may be another, as it is behind virtual routers.
func parseARPReply(frame []byte, from mac, sender, target netip.Addr) (mac, bool) {
	if len(frame) < ethLen+arpLen || mac(frame[0:6]) != from || binary.BigEndian.Uint16(frame[12:]) != etherARP {
		return mac{}, false
	}
	p := frame[ethLen:]
	switch {
	case [6]byte(p[0:6]) != arpHead,
		binary.BigEndian.Uint16(p[6:]) != arpReply,
		netip.AddrFrom4([4]byte(p[14:18])) != target,
		mac(p[18:24]) != from,
		sender.IsValid() && netip.AddrFrom4([4]byte(p[24:28])) != sender:
		return mac{}, false
	}
	return mac(p[8:14]), true
}
