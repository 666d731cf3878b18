package receive

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// nth is the nth node of a fleet.
func nth(n int) netip.AddrPort {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 10<<24|uint32(n))
	return netip.AddrPortFrom(netip.AddrFrom4(a), 6665)
}

func TestFullTableForgets(t *testing.T) {
	const size = 4
	fill := func(tbl *table) (sources []*source) {
		for i := range size {
			src, _ := tbl.add(epoch.Add(time.Duration(i)*time.Second), nth(i), nil)
			sources = append(sources, src)
		}
		return sources
	}
	now := epoch.Add(time.Minute)
	for _, tt := range []struct {
		name string
		do   func(tbl *table, s []*source)
		at   time.Time
		gone int // -1: the newcomer is refused
	}{
		{"whom it has not heard for the longest time", func(*table, []*source) {}, now, 0},
		{"nobody who was heard since", func(tbl *table, s []*source) { tbl.find(now, s[0].addr, nil) }, now, 1},
		{"strangers before who sent a canary", func(tbl *table, s []*source) { tbl.prove(s[0]); tbl.prove(s[1]) }, now, 2},
		{"nobody with an incident in hand", func(_ *table, s []*source) { s[0].due = now }, now, 1},
		{"the proven in the same order, if there are no others", func(tbl *table, s []*source) {
			for _, src := range s {
				tbl.prove(src)
			}
			tbl.find(now, s[0].addr, nil)
		}, now, 1},
		{"nobody if all are busy", func(_ *table, s []*source) {
			for _, src := range s {
				src.due = now
			}
		}, now, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tbl := newTable(limits{sources: size}, &detect.Config{}, nil)
			sources := fill(tbl)
			tt.do(tbl, sources)
			newcomer, forgotten := tbl.add(tt.at, nth(99), nil)
			if (newcomer != nil) != (tt.gone >= 0) {
				t.Fatalf("newcomer %v, want one: %t", newcomer, tt.gone >= 0)
			}
			if tt.gone >= 0 && forgotten != 1 {
				t.Errorf("%d forgotten, want 1", forgotten)
			}
			for i, src := range sources {
				if here := tbl.sources[src.addr] != nil; here != (i != tt.gone) {
					t.Errorf("source %d is there: %t, want %d gone", i, here, tt.gone)
				}
			}
		})
	}
}

func TestFullAddressForgets(t *testing.T) {
	port := func(n uint16) netip.AddrPort { return netip.AddrPortFrom(nodeA.Addr(), n) }
	fill := func(tbl *table) (sources []*source) {
		for i := range uint16(maxPerAddress) {
			src, _ := tbl.add(epoch.Add(time.Duration(i)*time.Second), port(i), nil)
			sources = append(sources, src)
		}
		return sources
	}
	prove := func(n int) func(*table, []*source) {
		return func(tbl *table, s []*source) {
			for _, src := range s[:n] {
				tbl.prove(src)
			}
		}
	}
	now := epoch.Add(youngFor / 2)
	for _, tt := range []struct {
		name string
		do   func(tbl *table, s []*source)
		gone int // -1: the newcomer is refused
	}{
		{"the port it has not heard for the longest time", func(*table, []*source) {}, 0},
		{"a port that may be made up before one that is older", func(_ *table, s []*source) { s[0].first = epoch.Add(-time.Hour) }, 1},
		{"no port that was heard since", func(tbl *table, s []*source) { tbl.find(now, s[0].addr, nil) }, 1},
		{"no port that sent a canary", prove(2), 2},
		{"a port, however many sent canaries", prove(maxPerAddress), maxProven},
		{"no port with an incident in hand", func(_ *table, s []*source) { s[0].due = now }, 1},
		{"nobody if all strangers are busy", func(tbl *table, s []*source) {
			prove(maxProven)(tbl, s)
			for _, src := range s {
				src.due = now
			}
		}, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tbl := newTable(share(1), &detect.Config{}, nil)
			sources := fill(tbl)
			tt.do(tbl, sources)
			if newcomer, _ := tbl.add(now, port(6665), nil); (newcomer != nil) != (tt.gone >= 0) {
				t.Fatalf("newcomer %v, want one: %t", newcomer != nil, tt.gone >= 0)
			}
			for i, src := range sources {
				if here := tbl.sources[src.addr] != nil; here != (i != tt.gone) {
					t.Errorf("port %d is there: %t, want %d gone", i, here, tt.gone)
				}
			}
			if n := len(tbl.addresses[nodeA.Addr()].sources); n != maxPerAddress {
				t.Errorf("%d sources of the address, want %d", n, maxPerAddress)
			}
		})
	}
}

// Whoever shares a node's address makes up ports in front of its kernel, which was restarted with the listener.
func TestMadeUpPortsDoNotShutTheKernelOut(t *testing.T) {
	s := new(sink)
	sh, _ := testShard(s)
	for n := range uint16(1000) {
		from := netip.AddrPortFrom(nodeA.Addr(), 20000+n)
		sh.Receive(epoch, from, canaryDatagram(int(n), canaryA(true), another))
		sh.Receive(epoch, from, kernelRecord(int(n), "noise"))
	}
	sh.Receive(epoch, nodeA, kernelRecord(400, "Kernel panic - not syncing: Fatal exception"))
	if len(s.incidents) != 1 {
		t.Fatalf("%d incidents, want the kernel's panic", len(s.incidents))
	}
	for n := range uint16(1000) {
		sh.Receive(epoch, netip.AddrPortFrom(nodeA.Addr(), 40000+n), kernelRecord(int(n), "noise"))
	}
	sh.Receive(epoch, nodeA, kernelRecord(401, "CPU: 1 UID: 0 PID: 1 Comm: init"))
	advance(sh, epoch, epoch.Add(time.Minute))
	if last := s.incidents[len(s.incidents)-1]; !last.Complete || len(last.Trace) != 2 {
		t.Errorf("told %+v, want the panic to its end", last)
	}
}

// The same, but each of the made-up ports has a panic to tell, and never comes to its end.
func TestForgedPanicsDoNotShutTheKernelOut(t *testing.T) {
	s := new(sink)
	sh, _ := testShard(s)
	for n := range uint16(maxPerAddress) {
		from := netip.AddrPortFrom(nodeA.Addr(), 20000+n)
		sh.Receive(epoch, from, canaryDatagram(int(n), canaryA(true), another))
		sh.Receive(epoch, from, []byte("0,500,500,-;Kernel panic - not syncing: forged\n"))
		sh.Receive(epoch, from, []byte("0,501,501,-,ncfrag=0/900;Call Trace:\n"))
	}
	before := len(s.incidents)
	sh.Receive(epoch, nodeA, kernelRecord(400, "Kernel panic - not syncing: Fatal exception"))
	told := s.incidents[before:]
	if len(told) != 2 || !told[0].Complete || told[0].Title != "forged" || told[1].Complete || told[1].Source != nodeA {
		t.Fatalf("told %+v, want a forged panic to its end and then the kernel's own", told)
	}
	advance(sh, epoch, epoch.Add(time.Minute))
	if sh.unfinished() {
		t.Errorf("%d deaths are never told to their end", sh.dying)
	}
	if n := len(sh.table.addresses[nodeA.Addr()].sources); n != maxPerAddress {
		t.Errorf("%d sources of the address, want %d", n, maxPerAddress)
	}
}

func TestIdleSourcesMakeWayBeforeTheTableIsFull(t *testing.T) {
	tbl := newTable(limits{sources: 1000}, &detect.Config{}, nil)
	for i := range 100 {
		tbl.add(epoch, nth(i), nil)
	}
	for i := range 60 {
		tbl.add(epoch.Add(2*idleAfter), nth(1000+i), nil)
	}
	if n := len(tbl.sources); n != 100 {
		t.Errorf("%d sources, want 60 new ones to have replaced 60 idle ones", n)
	}
	if len(tbl.addresses) != len(tbl.sources) {
		t.Errorf("%d addresses for %d sources that have one each", len(tbl.addresses), len(tbl.sources))
	}
}

// A flood from made-up addresses forgets strangers, never a node that is known, and a panic gets through it.
func TestFloodOfAddresses(t *testing.T) {
	s := new(sink)
	sh, _ := testShard(s)
	sh.table.limits.sources = 64
	sh.Receive(epoch, nodeA, canaryDatagram(7, canaryA(false), userdata))
	for i := range 10_000 {
		sh.Receive(epoch.Add(time.Duration(i)*time.Millisecond), nth(i), []byte("noise"))
	}
	if sh.table.sources[nodeA] == nil {
		t.Error("the flood pushed a proven source out")
	}
	if n := len(sh.table.sources); n > 64 {
		t.Errorf("%d sources, want 64 at most", n)
	}
	sh.Receive(epoch.Add(time.Minute), nth(1<<20), kernelRecord(8, "Kernel panic - not syncing: Fatal exception"))
	if len(s.incidents) != 1 {
		t.Error("the panic of a node that was never heard before is lost")
	}
}

func TestQuota(t *testing.T) {
	s := new(sink)
	sh, _ := testShard(s)
	for i := range 10 * quotaBurst {
		sh.Receive(epoch, nodeA, kernelRecord(i, "flood"))
	}
	sh.publish()
	if got := sh.metrics.Records.Load(); got != quotaBurst {
		t.Errorf("%v records of a flood judged at once, want %d", got, quotaBurst)
	}
	if got := sh.metrics.OverQuota.Load(); got != 9*quotaBurst {
		t.Errorf("%v datagrams counted as over quota, want %d", got, 9*quotaBurst)
	}
	sh.Receive(epoch, nth(1), kernelRecord(400, "Kernel panic - not syncing: Fatal exception"))
	if len(s.incidents) != 1 {
		t.Error("another source pays for the flood")
	}
	sh.Receive(epoch.Add(time.Second), nodeA, kernelRecord(400, "Kernel panic - not syncing: Fatal exception"))
	if len(s.incidents) != 2 {
		t.Error("the source is not heard again a second later")
	}
}

// A datagram in the basic format can hold dozens of records, and each may cost what a death costs.
func TestQuotaOfRecords(t *testing.T) {
	sh, _ := testShard(new(sink))
	const each = 40
	for i := range 2 * quotaBurst / each {
		datagram := ""
		for j := range each {
			datagram += fmt.Sprintf("[%5d.%06d] flood\n", i, j)
		}
		sh.Receive(epoch, nodeA, []byte(datagram))
	}
	sh.publish()
	if got := sh.metrics.Records.Load(); got > quotaBurst {
		t.Errorf("%v records of a flood judged at once, want %d at most", got, quotaBurst)
	}
}

func TestBucket(t *testing.T) {
	var b bucket
	take := func(at time.Duration) bool { return b.take(epoch.Add(at), 2, 1) }
	for i, step := range []struct {
		at   time.Duration
		want bool
	}{
		{0, true}, {0, true}, {0, false}, {time.Second, true}, {time.Second, false}, {0, false}, {time.Hour, true}, {time.Hour, true}, {time.Hour, false},
		{-time.Hour, false}, {time.Second - time.Hour, true}, // the clock is set back: it is full again after two seconds, not two hours
	} {
		if got := take(step.at); got != step.want {
			t.Errorf("take %d at %s is %t, want %t", i, step.at, got, step.want)
		}
	}
}
