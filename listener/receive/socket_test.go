package receive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// TestBatch sends datagrams of many kinds through a socket of each family.
func TestBatch(t *testing.T) {
	for _, tt := range []struct{ name, listen, dial string }{
		{"IPv4", "127.0.0.1:0", "127.0.0.1"},
		{"IPv6", "[::1]:0", "::1"},
		{"IPv4 on a socket for both", ":0", "127.0.0.1"},
		{"IPv6 on a socket for both", ":0", "::1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := listen(t.Context(), tt.listen, true)
			if err != nil {
				t.Fatal(err)
			}
			defer s.conn.Close()
			in, err := newBatch(s.conn)
			if err != nil {
				t.Fatal(err)
			}
			port := netip.MustParseAddrPort(s.conn.LocalAddr().String()).Port()
			to, err := net.Dial("udp", netip.AddrPortFrom(netip.MustParseAddr(tt.dial), port).String())
			if err != nil {
				t.Fatal(err)
			}
			defer to.Close()
			const sent = batchSize + 10
			for i := range sent {
				fmt.Fprintf(to, "datagram %d", i)
			}
			fmt.Fprint(to, strings.Repeat("x", maxDatagram+1))
			fmt.Fprint(to, "")
			s.conn.SetReadDeadline(time.Now().Add(time.Minute))
			var got []string
			for len(got) < sent+2 {
				if err := in.read(); err != nil {
					t.Fatal(err)
				}
				for i := range in.n {
					payload, whole := in.payload(i)
					if want := len(got) != sent; whole != want {
						t.Errorf("datagram %d of %d bytes is whole: %t, want %t", len(got), len(payload), whole, want)
					}
					if from := in.source(i); from.String() != to.LocalAddr().String() {
						t.Errorf("datagram %d from %s, want %s", len(got), from, to.LocalAddr())
					}
					if len(got) == 0 {
						in.reply(i, []byte("answer"))
					}
					got = append(got, string(payload))
				}
			}
			for i := range sent {
				if want := fmt.Sprintf("datagram %d", i); got[i] != want {
					t.Errorf("got %q, want %q", got[i], want)
				}
			}
			if got[sent+1] != "" {
				t.Errorf("got %q, want the empty datagram", got[sent+1])
			}
			answer := make([]byte, 100)
			to.SetReadDeadline(time.Now().Add(time.Minute))
			if n, err := to.Read(answer); err != nil || string(answer[:n]) != "answer" {
				t.Errorf("answer %q, %v", answer[:n], err)
			}
			s.conn.SetReadDeadline(time.Unix(1, 0))
			if err := in.read(); err == nil {
				t.Error("read beyond the deadline")
			}
		})
	}
}

// TestAdoptedSocket is one that another program, systemd, opened without our options.
func TestAdoptedSocket(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	s, err := adopt(pc)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := s.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if on, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RXQ_OVFL); on != 1 || err != nil {
			t.Errorf("SO_RXQ_OVFL is %d, %v", on, err)
		}
		if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF); n != s.granted || err != nil {
			t.Errorf("receive buffer is %d, %v; noted %d", n, err, s.granted)
		}
	})
	ln, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: t.TempDir() + "/s", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := adopt(ln); err == nil {
		t.Error("a Unix socket is adopted")
	}
}

// TestKernelDropsAreCounted overflows a small receive buffer.
func TestKernelDropsAreCounted(t *testing.T) {
	s, err := listen(t.Context(), "127.0.0.1:0", true)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.conn.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	to, err := net.Dial("udp", s.conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	sent := int64(1000)
	for range sent { // loopback mostly delivers or drops before the call returns
		to.Write(dull())
	}
	sh, _ := testShard(new(sink))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.serve(ctx, sh); err != nil {
		t.Fatal(err)
	}
	var got, dropped int64
	for range 1000 { // the kernel tells of drops beside the next datagram that it takes in
		to.Write(dull())
		sent++
		if err := s.serve(ctx, sh); err != nil {
			t.Fatal(err)
		}
		if got, dropped = int64(sh.metrics.Datagrams.Load()), int64(sh.metrics.KernelDrops.Load()); got+dropped == sent {
			break
		}
	}
	if dropped == 0 || got+dropped != sent {
		t.Errorf("%v received and %v dropped, want %d together and some dropped", got, dropped, sent)
	}
	if int64(s.dropped.Load()) != dropped {
		t.Errorf("state tells of %d, metrics of %v", s.dropped.Load(), dropped)
	}
	s.conn.Close()
}

// TestEndWaitsForADeathToBeTold ends the listener in the middle of a panic.
func TestEndWaitsForADeathToBeTold(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := new(sink)
	l := &Receiver{
		Addresses: []string{"127.0.0.1:0"}, Log: slog.New(slog.DiscardHandler),
		Config: Config{Judge: &detect.Config{Silence: 50 * time.Millisecond}, Sink: s, Metrics: new(Metrics)},
	}
	if err := l.Listen(ctx); err != nil {
		t.Fatal(err)
	}
	to, err := net.Dial("udp", l.addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	to.Write(kernelRecord(8, "Kernel panic - not syncing: Fatal exception"))
	to.Write(kernelRecord(9, "CPU: 0 UID: 0 PID: 1 Comm: init"))
	cancel()
	if err := l.Serve(ctx); err != nil {
		t.Fatal(err)
	}
	if len(s.incidents) != 2 || !s.incidents[1].Complete || len(s.incidents[1].Trace) != 2 {
		t.Errorf("handed over %+v, want the alarm and the complete incident", s.incidents)
	}
}

// A busy machine may run the listener only after its deadline has passed. What has arrived is read all the same.
func TestReadAfterTheDeadline(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in, err := newBatch(conn)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Unix(1, 0))
	if _, err := conn.WriteToUDPAddrPort([]byte("a"), conn.LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
		t.Fatal(err)
	}
	if err := in.read(); err != nil || in.n != 1 {
		t.Errorf("read %d datagrams: %v; want 1", in.n, err)
	}
	if err := in.read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read an empty socket: %v", err)
	}
}

// The kernel would give each of two listeners a part of the nodes, and neither would know.
func TestOneListenerPerPort(t *testing.T) {
	first, err := listen(t.Context(), "127.0.0.1:0", true)
	if err != nil {
		t.Fatal(err)
	}
	defer first.conn.Close()
	address := first.conn.LocalAddr().String()
	port := strconv.Itoa(first.conn.LocalAddr().(*net.UDPAddr).Port)
	second, err := listen(t.Context(), address, false)
	if err != nil {
		t.Fatalf("a second socket of the same listener: %v", err)
	}
	defer second.conn.Close()
	for _, other := range []string{address, ":" + port} {
		r := Receiver{Addresses: []string{other}, Log: slog.New(slog.DiscardHandler), Config: Config{Metrics: new(Metrics)}}
		want := "listen on " + other + ": address already in use; stop the other listener or choose another port"
		if err := r.Listen(t.Context()); err == nil || err.Error() != want {
			r.Close()
			t.Errorf("another listener: %v, want %s", err, want)
		}
	}

	const nodes = 64
	for range nodes {
		conn, err := net.Dial("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "x")
	}
	var heard [2]int
	for deadline := time.Now().Add(time.Minute); heard[0]+heard[1] < nodes && time.Now().Before(deadline); {
		for i, s := range []*socket{first, second} {
			heard[i] += drain(t, s.conn)
		}
	}
	if heard[0] == 0 || heard[1] == 0 || heard[0]+heard[1] != nodes {
		t.Errorf("the sockets of the listener hear %v datagrams, want some each and %d together", heard, nodes)
	}
}

// drain reads the datagrams that are there, and returns how many those were.
func drain(t *testing.T, conn *net.UDPConn) (n int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		for buf := make([]byte, 8); ; n++ {
			if _, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT); err != nil {
				return
			}
		}
	})
	return n
}
