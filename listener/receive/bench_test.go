package receive

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkReceive compares ways to get datagrams out of a socket. Its operation is one datagram; cpu-ns/op is what the
// process spent on it, kernel included. The datagrams wait in the receive buffer before the clock is started.
func BenchmarkReceive(b *testing.B) {
	const queued = 2048
	payload := kernelRecord(1, "RDX: 0000000000000000 RSI: ffffffffc031a048 RDI: ff3d7e4d1fe3e3f0")
	for _, way := range []struct {
		name string
		open func(b *testing.B, conn *net.UDPConn) (read func() int)
	}{
		{"one by one", func(b *testing.B, conn *net.UDPConn) func() int {
			buf, control := make([]byte, maxDatagram), make([]byte, controlSize)
			return func() int {
				if _, _, _, _, err := conn.ReadMsgUDPAddrPort(buf, control); err != nil {
					b.Fatal(err)
				}
				return 1
			}
		}},
		{"recvmmsg", func(b *testing.B, conn *net.UDPConn) func() int {
			in, err := newBatch(conn)
			if err != nil {
				b.Fatal(err)
			}
			var from netip.AddrPort
			return func() int {
				if err := in.read(); err != nil {
					b.Fatal(err)
				}
				for i := range in.n {
					from = in.source(i)
				}
				if !from.IsValid() {
					b.Fatal("no source")
				}
				return in.n
			}
		}},
	} {
		b.Run(way.name, func(b *testing.B) {
			s, err := listen(context.Background(), "127.0.0.1:0", true)
			if err != nil {
				b.Fatal(err)
			}
			conn := s.conn
			defer conn.Close()
			conn.SetReadDeadline(time.Now().Add(time.Minute))
			read := way.open(b, conn)
			to, err := net.Dial("udp", conn.LocalAddr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer to.Close()
			b.ReportAllocs()
			var spent time.Duration
			left := 0
			for n := 0; n < b.N; {
				if left <= 0 {
					b.StopTimer()
					for range queued {
						if _, err := to.Write(payload); err != nil {
							b.Fatal(err)
						}
					}
					left = queued
					b.StartTimer()
					spent -= cpuTime(b)
				}
				got := read()
				n, left = n+got, left-got
				if left <= 0 || n >= b.N {
					spent += cpuTime(b)
				}
			}
			b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

// cpuTime is what the process has used so far.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
