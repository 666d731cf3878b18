package canary

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// tap is a packet socket that sees acknowledgements as they come from the wire, before netfilter (packet(7)). If the tap sees
// one and the UDP socket does not, this node's own firewall has dropped it.
type tap struct{ socket *os.File }

// openTap opens a tap for UDP to the source ports of routes. It needs CAP_NET_RAW.
func openTap(routes []Route) (tap, error) {
	low, high := portsOf(routes)
	filter := tapFilter(low, high)
	// Protocol 0 receives nothing until the filter is attached.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return tap{}, fmt.Errorf("open packet socket: %w", err)
	}
	socket := os.NewFile(uintptr(fd), "packet socket")
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program); err != nil {
		socket.Close()
		return tap{}, fmt.Errorf("attach filter: %w", err)
	}
	// Only a tap for all protocols comes before nftables' ingress hook.
	every := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: every}); err != nil {
		socket.Close()
		return tap{}, fmt.Errorf("bind packet socket: %w", err)
	}
	return tap{socket}, nil
}

// Close ends receive. The zero tap has nothing to close.
func (t tap) Close() {
	if t.socket != nil {
		t.socket.Close()
	}
}

func (t tap) receive(to chan<- arrival, done <-chan struct{}) {
	buf := make([]byte, 2048)
	for {
		n, err := t.socket.Read(buf)
		if err != nil {
			return
		}
		from, local, payload, ok := parseUDP(buf[:n])
		if !ok {
			continue
		}
		select {
		case to <- arrival{local: local, from: from, payload: string(payload), wire: true}:
		case <-done:
			return
		}
	}
}

// tapFilter lets UDP datagrams to ports from low to high through. A packet begins with its IP header.
func tapFilter(low, high uint16) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K, K: 4},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 6, Jt: 6},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 4, Jf: 11},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 9}, // IPv4: protocol
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_UDP, Jf: 9},
		{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: 0}, // header length
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_IND, K: 2},
		{Code: unix.BPF_JMP | unix.BPF_JA, K: 3},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 6}, // IPv6: next header
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_UDP, Jf: 4},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 42},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: uint32(low), Jf: 2},
		{Code: unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, K: uint32(high), Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
}
