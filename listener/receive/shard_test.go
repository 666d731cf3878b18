package receive

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

var (
	epoch = time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	nodeA = netip.MustParseAddrPort("10.77.1.5:6665")
)

const userdata = "\n instance=i-0abc\n boot=7f3c2f6e-0000-4000-8000-000000000001\n gasp=c2VjcmV0LXNlY3JldC1zZQ\n"

// sink keeps what it is offered, and refuses while full.
type sink struct {
	full      bool
	incidents []detect.Incident
	pins      []netconsole.Identity
}

func (s *sink) Offer(inc detect.Incident) bool {
	if s.full {
		return false
	}
	s.incidents = append(s.incidents, inc)
	return true
}

func (s *sink) Canary(_ netip.Addr, id netconsole.Identity, _ time.Time) bool {
	if s.full {
		return false
	}
	s.pins = append(s.pins, id)
	return true
}

// answered keeps the canaries that were answered.
type answered struct{ canaries []Canary }

func (a *answered) Canary(c Canary) bool {
	a.canaries = append(a.canaries, c)
	return true
}

func testShard(s Sink) (*Shard, *answered) {
	a := new(answered)
	return NewShard(&Config{Judge: &detect.Config{}, Sink: s, Metrics: new(Metrics), Canaries: a}), a
}

func kernelRecord(seq int, text string) []byte {
	return fmt.Appendf(nil, "6.12.117+deb13-cloud-amd64,0,%d,%d,-;%s%s", seq, seq*1000, text, userdata)
}

func TestPanicIsHandedOverWithItsFirstFatalRecord(t *testing.T) {
	s := new(sink)
	sh, _ := testShard(s)
	sh.Receive(epoch, nodeA, kernelRecord(400, "Kernel panic - not syncing: sysrq triggered crash"))
	if len(s.incidents) != 1 {
		t.Fatalf("%d incidents after the panic line, want 1 at once", len(s.incidents))
	}
	inc := s.incidents[0]
	if inc.Verdict != detect.Dying || inc.Cause != "KernelPanic" || inc.Complete || !inc.Time.Equal(epoch) || inc.Source != nodeA {
		t.Errorf("incident %+v, want a dying KernelPanic of %s at %s, not yet complete", inc, nodeA, epoch)
	}
	if inc.Identity.Boot != "7f3c2f6e-0000-4000-8000-000000000001" || inc.Identity.Secret.Sum() == "" {
		t.Errorf("identity %+v, want the record's userdata", inc.Identity)
	}
	if shown := fmt.Sprintf("%+v %#v", inc, inc); strings.Contains(shown, "c2VjcmV0") {
		t.Errorf("the gasp's secret can be read in %s", shown)
	}
}

func TestIncidentWaitsWhileTheHandOverIsFull(t *testing.T) {
	s := &sink{full: true}
	sh, _ := testShard(s)
	sh.Receive(epoch, nodeA, kernelRecord(400, "Kernel panic - not syncing: Fatal exception"))
	now := epoch
	for range 1000 { // a cleanup that is stuck for a hundred seconds and more
		next := sh.Tick(now)
		if next.IsZero() {
			t.Fatal("nothing is due although an incident waits")
		}
		if !next.After(now) {
			t.Fatalf("tick at %s wants to run again at %s: it would spin", now, next)
		}
		now = next
	}
	if len(s.incidents) != 0 {
		t.Fatalf("%d incidents handed over to a full sink", len(s.incidents))
	}
	s.full = false
	for range 10 {
		now = sh.Tick(now)
	}
	if len(s.incidents) != 1 || !s.incidents[0].Complete {
		t.Fatalf("handed over %+v, want the complete incident in place of the alarm", s.incidents)
	}
	if len(sh.table.sources) != 1 {
		t.Errorf("%d sources, want 1", len(sh.table.sources))
	}
}

func TestCanaryIsAnsweredAndPinned(t *testing.T) {
	s := new(sink)
	sh, cov := testShard(s)
	canary := netconsole.Canary{
		Nonce: strings.Repeat("ab", 16), Instance: "i-0abc", Boot: "7f3c2f6e-0000-4000-8000-000000000001",
		Facts: netconsole.Facts{Kernel: "6.12.117+deb13-cloud-amd64", PanicOnOops: true, Panic: 10, ConsoleLevel: 7, Version: "test"},
	}
	datagram := fmt.Appendf(nil, "12,512,4200,-;%s%s", canary.Line(), userdata)
	ack := sh.Receive(epoch, nodeA, datagram)
	want := netconsole.Ack{Nonce: canary.Nonce, Seq: 512, Known: true}.Line()
	if string(ack) != want {
		t.Errorf("answered %q, want %q", ack, want)
	}
	if len(ack) > len(canary.Line()) {
		t.Errorf("an ack of %d bytes answers a canary of %d: that amplifies", len(ack), len(canary.Line()))
	}
	if len(s.pins) != 1 || s.pins[0].Boot != canary.Boot {
		t.Errorf("handed over %+v to be pinned, want the canary's identity", s.pins)
	}
	if len(cov.canaries) != 1 || cov.canaries[0].Instance != "i-0abc" || cov.canaries[0].From != nodeA.Addr() || !cov.canaries[0].At.Equal(epoch) {
		t.Errorf("told of %+v, want the canary", cov.canaries)
	}
	answered := 1
	for range 100 {
		if sh.Receive(epoch, nodeA, datagram) != nil {
			answered++
		}
	}
	if answered != acksBurst {
		t.Errorf("%d of 101 canaries in one instant answered, want %d", answered, acksBurst)
	}
}

// A kernel that panics on an oops may get no further than the oops: netpoll queues whatever it cannot send at once, and
// nothing is left to empty the queue.
func TestOopsIsDeathWhereTheCanarySaidSo(t *testing.T) {
	for _, c := range []struct {
		name        string
		panicOnOops bool
		want        detect.Verdict
	}{
		{"panic_on_oops=1", true, detect.Dying},
		{"panic_on_oops=0", false, detect.Oops},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := new(sink)
			sh, _ := testShard(s)
			canary := netconsole.Canary{
				Nonce: strings.Repeat("ab", 16), Instance: "i-0abc", Boot: "7f3c2f6e-0000-4000-8000-000000000001",
				Facts: netconsole.Facts{Kernel: "6.12.117+deb13-cloud-amd64", PanicOnOops: c.panicOnOops, ConsoleLevel: 7},
			}
			sh.Receive(epoch, nodeA, fmt.Appendf(nil, "12,512,4200,-;%s%s", canary.Line(), userdata))
			sh.Receive(epoch, nodeA, fmt.Appendf(nil, "6.12.117+deb13-cloud-amd64,1,600,9000,-;%s%s",
				"BUG: kernel NULL pointer dereference, address: 0000000000000000", userdata))
			if len(s.incidents) == 0 || s.incidents[0].Verdict != c.want {
				t.Errorf("incidents %+v, want one that is %s", s.incidents, c.want)
			}
		})
	}
}

func TestCanaryThatContradictsItsTargetIsNotAnswered(t *testing.T) {
	s := new(sink)
	sh, _ := testShard(s)
	canary := netconsole.Canary{Nonce: strings.Repeat("ab", 16), Instance: "i-0abc", Boot: "another-boot"}
	if ack := sh.Receive(epoch, nodeA, fmt.Appendf(nil, "12,512,4200,-;%s%s", canary.Line(), userdata)); ack != nil {
		t.Errorf("answered %q", ack)
	}
	if len(s.pins) != 0 {
		t.Errorf("pinned %+v", s.pins)
	}
}

func TestGarbageIsCountedAndDropped(t *testing.T) {
	for name, payload := range map[string]string{
		"empty":                   "",
		"binary":                  "\x00\xff\xfe\x01",
		"truncated header":        "6,12",
		"fragment beyond its end": "6,1,1,-,ncfrag=900/100;x",
		"oversized":               strings.Repeat("A", 64<<10),
	} {
		t.Run(name, func(t *testing.T) {
			s := new(sink)
			sh, _ := testShard(s)
			if ack := sh.Receive(epoch, nodeA, []byte(payload)); ack != nil {
				t.Errorf("answered %q", ack)
			}
			for now, i := epoch, 0; i < 100 && !now.IsZero(); i++ {
				now = sh.Tick(now)
			}
			if len(s.incidents) != 0 {
				t.Errorf("became incidents %+v", s.incidents)
			}
		})
	}
}

func TestSourcesAreBoundedPerAddress(t *testing.T) {
	s := new(sink)
	sh, _ := testShard(s)
	sh.Receive(epoch, nodeA, kernelRecord(1, "hello"))
	for port := range uint16(1000) {
		sh.Receive(epoch, netip.AddrPortFrom(nodeA.Addr(), 10000+port), kernelRecord(1, "noise"))
	}
	if n := len(sh.table.sources); n != maxPerAddress {
		t.Errorf("%d sources for one address, want %d", n, maxPerAddress)
	}
	sh.Receive(epoch, nodeA, kernelRecord(400, "Kernel panic - not syncing: Fatal exception"))
	if len(s.incidents) != 1 {
		t.Error("the node behind the noisy address is not heard any more")
	}
	later := epoch.Add(idleAfter)
	for now := sh.Tick(later); !now.IsZero(); now = sh.Tick(now) {
		later = now
	}
	newcomer := netip.MustParseAddrPort("10.77.1.5:9")
	sh.Receive(later.Add(idleAfter), newcomer, kernelRecord(1, "new port"))
	if sh.table.sources[newcomer] == nil {
		t.Error("no room for a new source though all others have been silent for long")
	}
}
