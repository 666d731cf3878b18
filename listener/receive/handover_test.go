package receive

import (
	"net/netip"
	"testing"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// A source that has chattered its share still gets its death into the queue of deaths.
func TestChatterDoesNotHoldUpTheDying(t *testing.T) {
	s := &sink{full: true}
	h := &handover{sink: s, metrics: new(Metrics), limits: share(1)}
	src := &source{addr: nodeA, party: new(party)}
	for range 2 * maxPerSource {
		h.offer(epoch, src, detect.Incident{Verdict: detect.Sick, Cause: "SoftLockup", Complete: true})
	}
	h.offer(epoch, src, detect.Incident{Verdict: detect.Dying, Cause: "KernelPanic"})
	s.full = false
	h.flush(epoch.Add(offerAgain))
	if len(s.incidents) != maxPerSource+1 || s.incidents[0].Verdict != detect.Dying {
		t.Errorf("handed over %v, want the death first and %d findings behind it", s.incidents, maxPerSource)
	}
}

// oneNode knows one address, and has room for nothing that comes from any other.
type oneNode struct {
	addr netip.Addr
	sink
}

func (o *oneNode) Known(instance string, addr netip.Addr) bool {
	return instance == "" && addr == o.addr
}

func (o *oneNode) Offer(inc detect.Incident) bool {
	return inc.Source.Addr() == o.addr && inc.Identity.Instance == "" && o.sink.Offer(inc)
}

// Root on some machine sends one gasp from each of its many addresses, more than may wait. A Node dies that has no secret.
func TestManyAddressesHoldUpNoNode(t *testing.T) {
	o := &oneNode{addr: nodeA.Addr()}
	h := &handover{sink: o, nodes: o, metrics: new(Metrics), limits: share(1)}
	offer := func(from netip.AddrPort, p *party, instance string) {
		inc := detect.Incident{Source: from, Verdict: detect.Dying, Cause: "KernelPanic"}
		inc.Identity.Instance = instance
		h.offer(epoch, &source{addr: from, party: p}, inc)
	}
	for n := range 2 * maxDeaths {
		offer(nth(1000+n), new(party), "")
	}
	// A pod at the address of another Node, of which there are a few, names what is no instance.
	for range maxRefused / 2 {
		offer(nodeA, new(party), "i-nobody")
	}
	offer(nodeA, new(party), "")
	h.flush(epoch.Add(offerAgain))
	if len(o.incidents) != 1 {
		t.Errorf("handed over %v, want the Node's death", o.incidents)
	}
	if n := h.size(); n > maxDeaths/unknownShare+maxRefused {
		t.Errorf("%d incidents wait of addresses that no Node has, want at most %d", n, maxDeaths/unknownShare)
	}
}

// dies offers n deaths of a party.
func dies(h *handover, addr netip.AddrPort, p *party, n int) {
	src := &source{addr: addr, party: p}
	for range n {
		h.offer(epoch, src, detect.Incident{Source: addr, Verdict: detect.Dying, Cause: "KernelPanic"})
	}
}

// Somebody replays the last words of a node whose boot is over, with its secret, over and over. Those over its limit wait, and
// no other node's death waits behind them.
func TestANodeOverItsLimitHoldsUpNoOther(t *testing.T) {
	for _, n := range []*node{nil, {boot: "of the dead"}} {
		s := new(sink)
		h := &handover{sink: s, metrics: new(Metrics), limits: share(1)}
		dies(h, nodeA, &party{node: n}, offersBurst+2)
		if h.size() == 0 {
			t.Fatal("nothing waits")
		}
		handed := len(s.incidents)
		dies(h, nth(1), &party{node: n}, 1)
		if len(s.incidents) != handed+1 {
			t.Errorf("verified %t: the other's death waits", n != nil)
		}
	}
}

// While the Sink has no room, who waits already is served first.
func TestTheOrderIsKeptWhileTheSinkIsFull(t *testing.T) {
	s := &sink{full: true}
	h := &handover{sink: s, metrics: new(Metrics), limits: share(1)}
	dies(h, nodeA, &party{node: &node{boot: "a"}}, 1)
	s.full = false
	dies(h, nth(1), &party{node: &node{boot: "b"}}, 1)
	if len(s.incidents) != 0 {
		t.Fatalf("handed over %v before the one that waits", s.incidents)
	}
	h.flush(epoch.Add(offerAgain))
	if len(s.incidents) != 2 || s.incidents[0].Source != nodeA {
		t.Errorf("handed over %v, want both in their order", s.incidents)
	}
	dies(h, nth(2), &party{node: &node{boot: "c"}}, 1)
	if len(s.incidents) != 3 {
		t.Error("the third death waits, although nobody does before it")
	}
}
