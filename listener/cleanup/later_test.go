package cleanup

import (
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// A pod that shares its node's address sends what the kernel would, the kubelet renews its Lease, and then the kernel dies
// before anybody has looked at the Lease again.
func TestTrueDeathWhileALieIsInHand(t *testing.T) {
	for _, tt := range []struct {
		name        string
		lie         netconsole.Identity
		true        netconsole.Identity
		completeToo bool
	}{
		{name: "both without identity", completeToo: true},
		{name: "both with the boot", lie: netconsole.Identity{Boot: boot1}, true: netconsole.Identity{Boot: boot1}},
		{name: "the lie with the boot", lie: netconsole.Identity{Boot: boot1}},
		{name: "the death with the boot", true: netconsole.Identity{Boot: boot1}},
		{name: "the lie with a guessed secret", lie: netconsole.Identity{Boot: boot1, Secret: "guessed"}, completeToo: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				pods := w.populate("n1")
				w.unpin()
				a, _ := run(t, testPolicy(), w, "a")
				say := func(id netconsole.Identity, complete bool) {
					inc := incident(1, "", "")
					inc.Identity, inc.Complete = id, complete
					offer(t, w, inc, a)
				}
				pass(9 * time.Second)
				say(tt.lie, false)
				pass(11*time.Second + 500*time.Millisecond) // the Lease was renewed half a second ago
				w.panics(1)
				w.set(func() { w.calls = nil })
				say(tt.true, false)
				if tt.completeToo {
					pass(time.Second)
					say(tt.true, true)
				}
				pass(2 * time.Minute)
				w.set(func() { w.created = 1 })
				w.cleanedOnce(pods)
			})
		})
	}
}

// The alarm of a true death had to wait, and what is handed over is the complete incident, just after a lie was refused.
func TestCompleteDeathAfterARefusedLie(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		w.unpin()
		a, _ := run(t, testPolicy(), w, "a")
		pass(9 * time.Second)
		inc := incident(1, boot1, "")
		offer(t, w, inc, a)
		pass(15 * time.Second)
		if d := w.only(); d.Phase != policy.Refused {
			t.Fatalf("phase %s (%s): the test proves nothing", d.Phase, d.Decision)
		}
		w.panics(1)
		w.set(func() { w.calls = nil })
		inc.Time, inc.Complete, inc.Verdict = time.Now(), true, detect.Dying
		offer(t, w, inc, a)
		pass(2 * time.Minute)
		w.set(func() { w.created = 1 })
		w.cleanedOnce(pods)
	})
}
