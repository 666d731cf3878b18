package load

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestOnlyLoopback(t *testing.T) {
	for _, to := range []string{"10.0.0.1:6666", "192.0.2.1:6666", "0.0.0.0:6666", "[::1]:6666", "[::ffff:10.0.0.1]:6666"} {
		if s, err := NewSender(netip.MustParseAddrPort(to)); err == nil {
			s.Close()
			t.Errorf("a sender to %s", to)
		}
	}
	s := sender(t, netip.MustParseAddrPort("127.0.0.1:9"))
	if _, err := s.Send(t.Context(), Plan{Count: 1}, func() (netip.Addr, []byte) {
		return netip.MustParseAddr("10.0.0.1"), nil
	}); err == nil {
		t.Error("sent from 10.0.0.1")
	}
}

func TestLimits(t *testing.T) {
	s := sender(t, netip.MustParseAddrPort("127.0.0.1:9"))
	for _, plan := range []Plan{{}, {Count: -1}, {Count: MaxCount + 1}, {Count: 1, Within: MaxWithin + 1}, {Count: 1, PerSecond: -1}} {
		if _, err := s.Send(t.Context(), plan, NewNodes(0, 1, Basic).Chatter); err == nil {
			t.Errorf("%+v is accepted", plan)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Send(ctx, Plan{Count: 1000, PerSecond: 1}, NewNodes(0, 1, Basic).Chatter); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
	if sent, err := s.Send(t.Context(), Plan{Count: 1000, PerSecond: 1, Within: time.Nanosecond}, NewNodes(0, 1, Basic).Chatter); err == nil || sent.Count > 1 {
		t.Errorf("sent %d in a nanosecond, %v", sent.Count, err)
	}
}

func TestPace(t *testing.T) {
	plan := Plan{Count: 1000, PerSecond: 100}
	var got []int
	for _, after := range []time.Duration{0, 9 * time.Millisecond, 10 * time.Millisecond, time.Second, time.Minute} {
		got = append(got, plan.due(after))
	}
	if diff := cmp.Diff([]int{1, 1, 2, 101, 1000}, got); diff != "" {
		t.Errorf("due (-want +got):\n%s", diff)
	}
}

func TestEverySourceArrives(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s := sender(t, conn.LocalAddr().(*net.UDPAddr).AddrPort())
	const nodes = 100
	sent, err := s.Send(t.Context(), Plan{Count: 2 * nodes, PerSecond: 1e6}, NewNodes(0, nodes, Extended).Chatter)
	if err != nil || sent.Count != 2*nodes {
		t.Fatalf("sent %d, %v", sent.Count, err)
	}
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	want, got := map[netip.Addr]int{}, map[netip.Addr]int{}
	buf := make([]byte, 2*maxDatagram)
	for i := range 2 * nodes {
		_, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatalf("datagram %d: %v", i, err)
		}
		got[from.Addr()]++
		want[Addr(i%nodes)]++
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("datagrams by source (-want +got):\n%s", diff)
	}
}

func sender(t *testing.T, to netip.AddrPort) *Sender {
	t.Helper()
	s, err := NewSender(to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
