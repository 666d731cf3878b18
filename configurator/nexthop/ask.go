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
	tries        = 4
	replyTimeout = 250 * time.Millisecond // per try; a local answer takes less than 1 ms, a VPC's router some 20
)

// question is an ARP request or a neighbour solicitation, and how to recognise its answer.
type question struct {
	kind   string // for error messages
	proto  uint16 // EtherType of question and answer
	frame  []byte // to be sent
	answer func([]byte) (mac, bool)
	filter []unix.SockFilter // lets answers of any station through and little else
}

// ask finds the Ethernet address of target, which is on d's link, by asking on the wire, several times if need be. source is
// the address that packets will carry; the question is sent from it, too, if it is d's.
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
		if err := s.SetReadDeadline(time.Now().Add(replyTimeout)); err != nil {
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
	return nil, fmt.Errorf("%w: %s on %s ignored %d %s within %v", ErrNoReply, target, d.name, tries, q.kind, tries*replyTimeout)
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

// questionFor builds the question for target. An invalid sender means that the device has no fitting address: ARP has a form
// without one.
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

// senderOf picks the device's address to ask from, as the kernel does (arp_solicit, ndisc_solicit): the packets' source if the
// device has it, else a link-local one (IPv6) or one in target's subnet (IPv4). If there is none the result is invalid:
// another device's address would teach the link a wrong neighbour.
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

// openPacketSocket opens a socket for whole Ethernet frames on one device. It binds it last, because the socket must receive
// nothing before its filter is attached.
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

// networkOrder returns proto as packet sockets take it: in network byte order.
func networkOrder(proto uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], proto)
	return binary.NativeEndian.Uint16(b[:])
}
