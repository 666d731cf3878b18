package nexthop

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tries    = 4
	patience = 250 * time.Millisecond // per try; a local answer takes less than one, a VPC's router some 20
)

// question is an ARP request or a neighbour solicitation, and how to know its answer.
type question struct {
	kind   string // for the reader of an error
	proto  uint16 // EtherType of both
	frame  []byte // to be sent
	answer func([]byte) (mac, bool)
	filter []unix.SockFilter // lets answers of any station through and little else
}

// ask finds the Ethernet address of target, which is on d's link, by asking on the wire a few times over. source is the
// address that packets are going to carry; the question comes from it too, if it is d's.
func ask(ctx context.Context, d device, source, target netip.Addr) (net.HardwareAddr, error) {
	own, _ := macOf(d.hw)
	local, err := addressList(target.Is4())
	if err != nil {
		return nil, err
	}
	q, err := questionFor(own, senderOf(local, d.index, source, target), target)
	if err != nil {
		return nil, fmt.Errorf("%w: %s %w", ErrNotReady, d.name, err)
	}
	s, err := openPacketSocket(d.index, q)
	if err != nil {
		return nil, fmt.Errorf("open packet socket on %s: %w", d.name, err)
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { s.Close() })() // ends the read below

	refused := ""
	buf := make([]byte, 2048)
	for range tries {
		if _, err := s.Write(q.frame); err != nil {
			return nil, wireError(ctx, d, fmt.Errorf("send to %s: %w", d.name, err))
		}
		if err := s.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return nil, wireError(ctx, d, err)
		}
		for {
			n, err := s.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return nil, wireError(ctx, d, fmt.Errorf("receive on %s: %w", d.name, err))
			}
			m, ok := q.answer(buf[:n])
			if !ok {
				continue
			}
			if refused = m.unfit(own); refused == "" {
				return m.addr(), nil
			}
		}
	}
	if refused != "" {
		return nil, fmt.Errorf("%w: %s on %s answers with %s", ErrNoReply, target, d.name, refused)
	}
	return nil, fmt.Errorf("%w: %s on %s ignored %d %s within %v", ErrNoReply, target, d.name, tries, q.kind, tries*patience)
}

// wireError is err, unless the real reason is that ctx ended or that the device went down.
func wireError(ctx context.Context, d device, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("ask next hop on %s: %w", d.name, context.Cause(ctx))
	case errors.Is(err, unix.ENETDOWN), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: %s went down", ErrNotReady, d.name)
	}
	return err
}

// questionFor builds the question for target. An invalid sender is one that d lacks: ARP has a form without.
func questionFor(own mac, sender, target netip.Addr) (question, error) {
	if target.Is4() {
		return question{
			kind:   "ARP requests",
			proto:  etherARP,
			frame:  appendARPRequest(nil, own, sender, target),
			answer: func(frame []byte) (mac, bool) { return parseARPReply(frame, own, sender, target) },
			filter: []unix.SockFilter{
				{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: ethLen + 6},
				{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: arpReply, Jf: 1},
				{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16},
				{Code: unix.BPF_RET | unix.BPF_K, K: 0},
			},
		}, nil
	}
	if !sender.IsValid() {
		return question{}, fmt.Errorf("has no IPv6 address to ask %s from", target)
	}
	return question{
		kind:   "neighbour solicitations",
		proto:  etherIP6,
		frame:  appendSolicitation(nil, own, sender, target),
		answer: func(frame []byte) (mac, bool) { return parseAdvertisement(frame, own, sender, target) },
		filter: []unix.SockFilter{
			{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: ethLen + 6},
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: icmp6, Jf: 3},
			{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: ethLen + ip6Len},
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: ndpAdvertise, Jf: 1},
			{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16},
			{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		},
	}, nil
}

// senderOf picks the address of the device to ask from, as the kernel does (arp_solicit, ndisc_solicit): the source of the
// packets in question if it is the device's, else IPv6's link-local one, else IPv4's in target's subnet. Without any the
// answer is invalid: another device's address would teach the link a wrong neighbour.
func senderOf(local []address, device int, source, target netip.Addr) netip.Addr {
	var best netip.Addr
	for _, a := range local {
		switch {
		case a.index != device:
		case a.Addr() == source:
			return source
		case target.Is6() && a.Addr().IsLinkLocalUnicast(), target.Is4() && a.Contains(target):
			best = a.Addr()
		case target.Is6() && !best.IsValid():
			best = a.Addr()
		}
	}
	return best
}

// openPacketSocket opens a socket for whole Ethernet frames on one device. It is bound last, because before its filter
// is in place it must receive nothing.
func openPacketSocket(index int, q question) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	s := os.NewFile(uintptr(fd), "packet socket")
	prog := unix.SockFprog{Len: uint16(len(q.filter)), Filter: &q.filter[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		s.Close()
		return nil, fmt.Errorf("attach filter: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(q.proto), Ifindex: index}); err != nil {
		s.Close()
		return nil, fmt.Errorf("bind: %w", err)
	}
	return s, nil
}

// networkOrder is what packet sockets take as a protocol: the bytes of proto as they stand in a frame, read as a number.
func networkOrder(proto uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], proto)
	return binary.NativeEndian.Uint16(b[:])
}
