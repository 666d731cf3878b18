package listener

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/receive"
)

var (
	epoch = time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	nodeA = netip.MustParseAddrPort("10.77.1.5:6665")
)

const userdata = "\n instance=i-0abc\n boot=7f3c2f6e-0000-4000-8000-000000000001\n gasp=c2VjcmV0LXNlY3JldC1zZQ\n"

// sink keeps the incidents that it is offered.
type sink struct{ incidents []detect.Incident }

func (s *sink) Offer(inc detect.Incident) bool {
	s.incidents = append(s.incidents, inc)
	return true
}

func (s *sink) Canary(netip.Addr, netconsole.Identity, time.Time) bool { return true }

// shippingShard is a shard whose records are shipped.
func shippingShard(s *sink, p *Shipper) *receive.Shard {
	return receive.NewShard(&receive.Config{Judge: &detect.Config{}, Sink: s, Records: p, Metrics: new(receive.Metrics)})
}

// node is the nth node of a fleet.
func node(n int) netip.AddrPort {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 10<<24|uint32(n))
	return netip.AddrPortFrom(netip.AddrFrom4(a), 6665)
}

func kernelRecord(seq int, text string) []byte {
	return fmt.Appendf(nil, "6.12.117+deb13-cloud-amd64,0,%d,%d,-;%s%s", seq, seq*1000, text, userdata)
}

func canaryA() netconsole.Canary {
	return netconsole.Canary{
		Nonce: strings.Repeat("ab", 16), Instance: "i-0abc", Boot: "7f3c2f6e-0000-4000-8000-000000000001",
		Facts: netconsole.Facts{Kernel: "6.12.117+deb13-cloud-amd64", PanicOnOops: true, ConsoleLevel: 7},
	}
}

func canaryDatagram(seq int, c netconsole.Canary, userdata string) []byte {
	return fmt.Appendf(nil, "12,%d,%d,-;%s%s", seq, seq*1000, c.Line(), userdata)
}

// counter reads a counter.
func counter(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
