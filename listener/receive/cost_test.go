package receive

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// dull is a datagram of which nothing follows, as sources send all day.
func dull() []byte {
	return kernelRecord(400, "IPv6: ADDRCONF(NETDEV_CHANGE): veth3f2a1b: link becomes ready")
}

// BenchmarkShard is the whole way of one datagram behind the socket: source, quota, frame, record, judgement. A node that
// is verified is in a cluster; strangers are measured without one, and with one that knows others.
func BenchmarkShard(b *testing.B) {
	for _, bb := range []struct {
		name string
		pins Pins
	}{
		{"stranger, no cluster", nil},
		{"stranger", pins{}},
		{"verified", pins{bootA: netconsole.Secret(secretA).Sum()}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			sh := NewShard(&Config{Judge: &detect.Config{}, Sink: new(sink), Metrics: new(Metrics), Pins: bb.pins})
			sh.Receive(epoch, nodeA, canaryDatagram(7, canaryA(true), userdata))
			datagrams := make([][]byte, 256)
			for i := range datagrams {
				datagrams[i] = kernelRecord(1000+i, "IPv6: ADDRCONF(NETDEV_CHANGE): veth3f2a1b: link becomes ready")
			}
			b.SetBytes(int64(len(datagrams[0])))
			b.ReportAllocs()
			now := epoch
			for i := 0; b.Loop(); i++ {
				now = now.Add(time.Millisecond)
				sh.Receive(now, nodeA, datagrams[i%len(datagrams)])
			}
		})
	}
}

// BenchmarkRefused is what a datagram beyond the quota costs. cpu-ns/op leaves out what other processes take.
func BenchmarkRefused(b *testing.B) {
	sh, _ := testShard(new(sink))
	datagram := dull()
	b.ReportAllocs()
	spent := -cpuTime(b)
	for b.Loop() {
		sh.Receive(epoch, nodeA, datagram)
	}
	spent += cpuTime(b)
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N), "cpu-ns/op")
}

// From the frame to the judgement nothing is allocated, once the ring of lines has its size.
func TestADatagramAllocatesNothing(t *testing.T) {
	const text = "IPv6: ADDRCONF(NETDEV_CHANGE): veth3f2a1b: link becomes ready"
	for _, tt := range []struct {
		name     string
		datagram func(i int) []byte
	}{
		{"extended, with userdata", func(i int) []byte { return kernelRecord(1000+i, text) }},
		{"extended, with an escape", func(i int) []byte { return kernelRecord(1000+i, `a tab\x09`+text) }},
		{"extended, of userspace", func(i int) []byte { return fmt.Appendf(nil, "12,%d,%d,-;%s%s", 1000+i, i, text, userdata) }},
		{"extended, in fragments", func(i int) []byte {
			body := strings.Repeat(text+" ", 15) + userdata
			header := fmt.Sprintf("6,%d,%d,-,ncfrag=", 1000+i/2, i/2)
			const cut = 900
			if i%2 == 0 {
				return fmt.Appendf(nil, "%s0/%d;%s", header, len(body), body[:cut])
			}
			return fmt.Appendf(nil, "%s%d/%d;%s", header, cut, len(body), body[cut:])
		}},
		{"basic", func(i int) []byte { return fmt.Appendf(nil, "[%5d.%06d] %s\n", i, i, text) }},
		{"basic, of two lines", func(i int) []byte { return fmt.Appendf(nil, "[%5d.%06d] %[3]s\n[%[1]5d.%06[2]d] %[3]s\n", i, i, text) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sh, _ := clusterShard(new(sink), 0)
			sh.Receive(epoch, nodeA, canaryDatagram(7, canaryA(true), userdata))
			datagrams := make([][]byte, 1000)
			for i := range datagrams {
				datagrams[i] = tt.datagram(i)
			}
			now, i := epoch, 0
			push := func() {
				now = now.Add(time.Millisecond)
				sh.Receive(now, nodeA, datagrams[i%len(datagrams)])
				i++
			}
			for range datagrams {
				push() // until the ring of lines is full
			}
			if n := testing.AllocsPerRun(1000, push); n != 0 {
				t.Errorf("%v allocations a datagram, want none", n)
			}
			if got := sh.metrics.Malformed.Load(); got != 0 {
				t.Errorf("%v datagrams are malformed", got)
			}
		})
	}
}

func TestADatagramOverQuotaAllocatesNothing(t *testing.T) {
	sh, _ := testShard(new(sink))
	datagram := dull()
	over := func() { sh.Receive(epoch, nodeA, datagram) }
	for range quotaBurst {
		over()
	}
	if n := testing.AllocsPerRun(1000, over); n != 0 {
		t.Errorf("%v allocations for a datagram over quota, want none", n)
	}
}

// TestIdleSourcesAreSmall fills a table with a fleet of which every node sent a canary and one line.
func TestIdleSourcesAreSmall(t *testing.T) {
	sh, _ := testShard(new(sink))
	before := heapInUse()
	for n := range maxSources {
		c := canaryA(true)
		c.Instance, c.Boot = fmt.Sprintf("i-%017x", n), fmt.Sprintf("%08x-0000-4000-8000-000000000001", n)
		who := fmt.Sprintf("\n instance=%s\n boot=%s\n gasp=%022d\n", c.Instance, c.Boot, n)
		sh.Receive(epoch, nth(n), canaryDatagram(7, c, who))
		sh.Receive(epoch, nth(n), fmt.Appendf(nil, "6.12.117+deb13-cloud-amd64,6,400,400000,-;link becomes ready%s", who))
	}
	each := (heapInUse() - before) / maxSources
	runtime.KeepAlive(sh)
	t.Logf("%d bytes each", each)
	if len(sh.table.sources) != maxSources {
		t.Fatalf("%d sources, want %d", len(sh.table.sources), maxSources)
	}
	if each > 4<<10 {
		t.Errorf("an idle source takes %d bytes, want 4096 at most", each)
	}
}

// BenchmarkSources is BenchmarkShard for fleets of several sizes whose nodes take turns.
func BenchmarkSources(b *testing.B) {
	for _, n := range []int{10, 1000, 65_536} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			sh, _ := clusterShard(new(sink), n)
			_, _, _, userdata := member(0)
			datagram := says(1000, "IPv6: ADDRCONF(NETDEV_CHANGE): veth3f2a1b: link becomes ready", userdata)
			boot, secret := bytes.Index(datagram, []byte("boot="))+len("boot="), bytes.Index(datagram, []byte("secret"))+len("secret")
			seq := bytes.Index(datagram, []byte(",1000,")) + 1
			now, turn := epoch, 0
			receive := func() {
				i := turn % n
				hexDigits(datagram[boot:boot+8], i)
				decimals(datagram[secret:secret+16], i)
				decimals(datagram[seq:seq+4], 1000+turn/n%9000)
				now = now.Add(3 * time.Microsecond)
				sh.Receive(now, nth(i), datagram)
				turn++
			}
			for range 30 * n {
				receive() // until the rings of lines have their size
			}
			b.ReportAllocs()
			spent := -cpuTime(b)
			for b.Loop() {
				receive()
			}
			spent += cpuTime(b)
			b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N), "cpu-ns/op")
			if sh.metrics.Malformed.Load() > 0 || len(sh.table.nodes) != n {
				b.Errorf("%d malformed, %d nodes", sh.metrics.Malformed.Load(), len(sh.table.nodes))
			}
		})
	}
}

// decimals and hexDigits overwrite b with a number.
func decimals(b []byte, n int) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i], n = byte('0'+n%10), n/10
	}
}

func hexDigits(b []byte, n int) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i], n = "0123456789abcdef"[n%16], n/16
	}
}
