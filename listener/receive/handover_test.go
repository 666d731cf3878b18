package receive

import (
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
