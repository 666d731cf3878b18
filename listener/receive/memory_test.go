package receive

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// checkKept compares what the table has booked with what its sources keep and with its bound. What one datagram may add
// before anybody can be asked to make room is the growth of one ring.
func checkKept(t *testing.T, sh *Shard) {
	t.Helper()
	kept := 0
	for _, src := range sh.table.sources {
		for ; src != nil; src = src.sibling {
			kept += src.stream.Size() + src.judge.Size()
		}
	}
	if booked := sh.table.lanes[verified].kept + sh.table.lanes[strangers].kept; kept != booked {
		t.Fatalf("%d bytes kept, %d booked", kept, booked)
	}
	if most := sh.table.limits.kept + 32<<10; kept > most {
		t.Fatalf("%d bytes kept, want %d at most", kept, most)
	}
}

// Whatever is sent by however many, a shard keeps no more log than its share.
func TestLogIsBoundedOverAllSources(t *testing.T) {
	const sources = 200
	for _, tt := range []struct {
		name string
		send func(n, i int) []byte // the ith datagram of node n
	}{
		{"lines", func(_, i int) []byte { return kernelRecord(i, strings.Repeat("x", 500)) }},
		{"panics that go on and on", func(_, i int) []byte {
			return kernelRecord(i, "Kernel panic - not syncing: "+strings.Repeat("x", 500))
		}},
		{"panics of a new boot each", func(_, i int) []byte {
			return fmt.Appendf(nil, "0,%d,%d,-;Kernel panic - not syncing: forged\n boot=%d\n", i, i, i)
		}},
		{"fragments of which there is never all", func(_, i int) []byte {
			return fmt.Appendf(nil, "6,%d,%d,-,ncfrag=%d/70000;%s", i/64, i/64, 1000*(i%64), strings.Repeat("x", 900))
		}},
		{"beginnings of panics", func(_, i int) []byte {
			return fmt.Appendf(nil, "0,%d,%d,-,ncfrag=0/70000;Kernel panic - not syncing: x\n%s", i, i, strings.Repeat("x", 800))
		}},
		{"records in the basic format that are cut", func(_, i int) []byte {
			return fmt.Appendf(nil, "[%5d.000000] %s", i, strings.Repeat("x", 985))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sh, _ := testShard(new(sink))
			sh.table.limits.kept = 512 << 10
			for i := range 70 {
				for n := range sources {
					sh.Receive(epoch, nth(n), tt.send(n, i))
				}
				checkKept(t, sh)
			}
			if len(sh.table.sources) != sources {
				t.Errorf("%d sources, want all %d to be known still", len(sh.table.sources), sources)
			}
			advance(sh, epoch, epoch.Add(time.Hour))
			checkKept(t, sh)
		})
	}
}

// Where memory is short, strangers let go of their lines before nodes, and nobody of what an incident is told with.
func TestWhoLetsGoOfLinesFirst(t *testing.T) {
	s := new(sink)
	sh, _ := testShard(s)
	sh.table.limits.kept = 512 << 10
	const before = 20 // lines
	speak := func(from netip.AddrPort, seq int) {
		for i := range before {
			sh.Receive(epoch, from, kernelRecord(seq+i, fmt.Sprintf("line %d %s", i, strings.Repeat("x", 50))))
		}
	}
	quiet, dying := nth(1), nth(2)
	sh.Receive(epoch, quiet, canaryDatagram(7, canaryA(true), userdata))
	speak(quiet, 100)
	speak(dying, 100)
	sh.Receive(epoch, dying, kernelRecord(200, "Kernel panic - not syncing: Fatal exception"))
	for n := range 1000 {
		speak(nth(1000+n), 100)
	}
	for i := range quotaBurst {
		sh.Receive(epoch, nth(3), kernelRecord(i, strings.Repeat("flood ", 100)))
	}
	checkKept(t, sh)
	sh.Receive(epoch.Add(time.Second), quiet, kernelRecord(300, "Kernel panic - not syncing: Fatal exception"))
	advance(sh, epoch.Add(time.Second), epoch.Add(time.Minute))
	told := 0
	for _, inc := range s.incidents {
		if !inc.Complete {
			continue
		}
		told++
		if len(inc.Trace) != before+1 {
			t.Errorf("%d lines told of %s, want %d", len(inc.Trace), inc.Source, before+1)
		}
	}
	if told != 2 {
		t.Errorf("%d deaths told, want 2", told)
	}
}

// Many sources whose lines do not fit are content with their share: nothing is trimmed to grow again.
func TestLinesOfManyDoNotChurn(t *testing.T) {
	const sources = 1000
	sh, _ := testShard(new(sink))
	sh.table.limits.kept = 512 << 10
	i := 0
	say := func() {
		sh.Receive(epoch, nth(i%sources), kernelRecord(1000+i/sources, "IPv6: ADDRCONF(NETDEV_CHANGE): veth3f2a1b: link becomes ready"))
		i++
	}
	for range 40 * sources {
		say()
	}
	trimmed := 0
	for range 10 * sources {
		had := sh.table.sources[nth(i%sources)].kept
		say()
		if sh.table.sources[nth((i-1)%sources)].kept != had {
			trimmed++
		}
	}
	if trimmed > 0 {
		t.Errorf("%d of %d lines made their source keep more or less than before, want none", trimmed, 10*sources)
	}
	checkKept(t, sh)
}

// When nothing is left to let go of, an alarm is still given, and costs nobody but who gives it.
func TestAlarmWithoutMemory(t *testing.T) {
	s := new(sink)
	sh, _ := testShard(s)
	sh.table.limits.kept = 0
	sh.Receive(epoch, nodeA, kernelRecord(100, strings.Repeat("x", 600)))
	sh.Receive(epoch, nodeA, kernelRecord(101, "Kernel panic - not syncing: Fatal exception"))
	sh.Receive(epoch, nodeA, kernelRecord(102, "CPU: 1 UID: 0 PID: 1 Comm: init"))
	advance(sh, epoch, epoch.Add(time.Minute))
	if len(s.incidents) != 2 || s.incidents[0].Verdict != detect.Dying || !s.incidents[1].Complete {
		t.Errorf("told %+v, want a death twice", s.incidents)
	}
	if got := sh.metrics.Cramped.Load(); got == 0 {
		t.Error("nothing was counted")
	}
}

func TestShardsShareWhatAListenerMayKeep(t *testing.T) {
	for shards := 1; shards <= 64; shards++ {
		l := share(shards)
		if l.sources*shards > maxSources || l.kept*shards > maxKept || l.traces*shards > maxTraces ||
			l.incidents[deaths]*shards > maxDeaths || l.incidents[findings]*shards > maxFindings {
			t.Errorf("%d shards of %+v are more than there is", shards, l)
		}
		if l.sources < 1024 || l.incidents[findings] < 16 {
			t.Errorf("%+v is too little for one of %d shards", l, shards)
		}
	}
}
