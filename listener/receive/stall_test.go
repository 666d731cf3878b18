package receive

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// panicOf is what a node sends when it dies, 140 datagrams.
func panicOf(n int) [][]byte {
	lines := make([][]byte, 140)
	for i := range lines {
		lines[i] = fmt.Appendf(nil, "6.12.117+deb13-cloud-amd64,4,%d,%d,-;R%02d: %016x R%02d: %016x\n instance=i-%d\n boot=%08x\n gasp=c2VjcmV0\n",
			1000+i, 9_000_000+i, i, i*7919, i+1, i*104729, n, n)
	}
	lines[3] = fmt.Appendf(nil, "6.12.117+deb13-cloud-amd64,0,1003,9000003,-;Kernel panic - not syncing: Fatal exception\n instance=i-%d\n boot=%08x\n gasp=c2VjcmV0\n", n, n)
	return lines
}

// TestDeadCleanup has 2,000 nodes die while nobody takes their incidents for ten minutes and others go on talking.
func TestDeadCleanup(t *testing.T) {
	const dying, living = 2000, 2000
	s := &sink{full: true}
	sh, _ := testShard(s)
	sent := 0
	at := epoch
	send := func(from netip.AddrPort, payload []byte) {
		at = at.Add(time.Microsecond)
		sh.Tick(at)
		sh.Receive(at, from, payload)
		sent++
	}
	heapBefore := heapInUse()
	panics := make([][][]byte, dying)
	for n := range panics {
		panics[n] = panicOf(n)
	}
	for i := range panics[0] { // all at once: their datagrams come mixed
		for n := range panics {
			send(nth(n), panics[n][i])
		}
	}
	panics = nil
	for minute := range 10 {
		at = epoch.Add(time.Duration(minute) * time.Minute)
		for n := range living {
			send(nth(100_000+n), kernelRecord(minute, "cni0: port 1(veth3f2a1b) entered blocking state"))
		}
		at = advance(sh, at, epoch.Add(time.Duration(minute+1)*time.Minute))
	}
	if got := sh.metrics.Records.Load(); int(got) != sent {
		t.Errorf("%v records of %d datagrams: some were dropped", got, sent)
	}
	if len(s.incidents) != 0 {
		t.Fatalf("%d incidents taken by a dead cleanup", len(s.incidents))
	}
	if grown := heapInUse() - heapBefore; grown > 256<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	} else {
		t.Logf("the heap grew by %d MiB", grown>>20)
	}

	s.full = false
	advance(sh, at, at.Add(offerAgain))
	told := make(map[netip.AddrPort]bool)
	for _, inc := range s.incidents {
		if inc.Verdict == detect.Dying && inc.Complete && len(inc.Trace) > lastLines/2 {
			told[inc.Source] = true
		}
	}
	if len(told) != dying {
		t.Errorf("%d of %d deaths handed over once cleanup is back", len(told), dying)
	}
	if got := sh.metrics.IncidentsDropped.Load(); got != 0 {
		t.Errorf("%v incidents given up", got)
	}
	if sh.unfinished() || sh.handover.lanes[strangers].traces != 0 {
		t.Errorf("%d incidents and %d bytes still wait", sh.handover.size(), sh.handover.lanes[strangers].traces)
	}
}

// advance runs what is due until to.
func advance(sh *Shard, now, to time.Time) time.Time {
	for next := sh.Tick(now); !next.IsZero() && !next.After(to); next = sh.Tick(next) {
		now = next
	}
	return to
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// refusing takes no reports.
type refusing struct{ *sink }

func (s refusing) Offer(inc detect.Incident) bool {
	return inc.Verdict == detect.Dying && s.sink.Offer(inc)
}

func TestReportsDoNotHoldUpADeath(t *testing.T) {
	s := new(sink)
	sh, _ := testShard(refusing{s})
	sh.Receive(epoch, nodeA, kernelRecord(100, "BUG: kernel NULL pointer dereference, address: 0000000000000000"))
	if sh.handover.size() != 1 {
		t.Fatalf("%d incidents wait, want the oops", sh.handover.size())
	}
	sh.Receive(epoch, nodeA, kernelRecord(101, "Kernel panic - not syncing: Fatal exception"))
	if len(s.incidents) != 1 || s.incidents[0].Verdict != detect.Dying {
		t.Errorf("handed over %+v, want the death", s.incidents)
	}
}

// A source that makes up one death after the other cannot fill the hand-over.
func TestOneSourceCannotFillTheHandOver(t *testing.T) {
	s := &sink{full: true}
	sh, _ := testShard(s)
	for i := range 1000 {
		sh.Receive(epoch.Add(time.Duration(i)*time.Millisecond), nodeA,
			fmt.Appendf(nil, "0,%d,%d,-;Kernel panic - not syncing: forged\n boot=%d\n", i, i, i))
	}
	if n := sh.handover.size(); n > maxPerSource {
		t.Errorf("%d incidents of one source wait, want %d at most", n, maxPerSource)
	}
	sh.Receive(epoch.Add(time.Minute), nth(1), kernelRecord(8, "Kernel panic - not syncing: Fatal exception"))
	s.full = false
	advance(sh, epoch.Add(time.Minute), epoch.Add(2*time.Minute))
	if !contains(s.incidents, nth(1)) {
		t.Error("another source's death is lost")
	}
}

func contains(incidents []detect.Incident, from netip.AddrPort) bool {
	for _, inc := range incidents {
		if inc.Source == from {
			return true
		}
	}
	return false
}

func TestTracesThatWaitAreBounded(t *testing.T) {
	long := make([]string, 300)
	for i := range long {
		long[i] = fmt.Sprintf("[%5d.000000] %01000d", i, i)
	}
	s := &sink{full: true}
	h := handover{sink: s, metrics: new(Metrics), limits: share(1)}
	for n := range 1000 {
		h.offer(epoch, &source{addr: nth(n), party: new(party)}, detect.Incident{Verdict: detect.Dying, Trace: long, Source: nth(n)})
	}
	if traces := h.lanes[strangers].traces; traces > maxTraces*5/4+1000*len(netconsole.Gap) {
		t.Errorf("%d bytes of trace wait", traces)
	}
	s.full = false
	h.flush(epoch)
	if len(s.incidents) != 1000 {
		t.Fatalf("%d incidents handed over, want 1000", len(s.incidents))
	}
	kept := map[int]int{}
	for _, inc := range s.incidents {
		kept[len(inc.Trace)]++
	}
	if kept[300] == 0 || kept[1+lastLines] == 0 || kept[1] == 0 || len(kept) != 3 {
		t.Errorf("so many traces by their lines: %v, want whole ones, ends of some, and none of the rest", kept)
	}
	if last := s.incidents[999].Trace; last[0] != netconsole.Gap {
		t.Errorf("the last trace is %q, want it marked that lines are missing", last)
	}
}
