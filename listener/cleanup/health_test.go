package cleanup

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// healthOf is what the condition of node n1 says, zero if it was never written.
func (w *world) healthOf() policy.Health { w.mu.Lock(); defer w.mu.Unlock(); return w.health["n1"] }

func TestConditionOfADeadNode(t *testing.T) {
	const message = "sysrq triggered crash on node n1, kernel 6.12.0; see nodedeath n1-e1238f7ae69b"
	for _, verb := range []policy.NodeVerb{policy.NodeAwait, policy.NodeAnnotate} {
		t.Run(string(verb), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := testPolicy()
				p.NodeVerb = verb
				a, _ := run(t, p, w, "a")
				run(t, p, w, "b")
				w.panics(1)
				offer(t, w, incident(1, boot1, secret1), a)
				pass(10 * time.Second)
				if diff := cmp.Diff(policy.Health{Unhealthy: boot1, Reason: "KernelPanic", Message: message}, w.healthOf()); diff != "" {
					t.Errorf("condition of the dead node (-want +got):\n%s", diff)
				}
				w.reboots(1, boot2)
				pass(10 * time.Second)
				if diff := cmp.Diff(policy.Health{Reason: "NewBoot", Message: "the node runs boot " + boot2}, w.healthOf()); diff != "" {
					t.Errorf("condition of the node that is back (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// Others drain and replace nodes by the condition. Too many deaths at once are held for a person, and so is that.
func TestConditionOfAHeldNode(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := testPolicy()
		p.MaxNodes, p.MaxPercent = 0, 0
		e, _ := run(t, p, w, "a")
		w.panics(1)
		offer(t, w, incident(1, boot1, secret1), e)
		pass(10 * time.Second)
		if got := w.healthOf(); got != (policy.Health{}) || w.only().Phase != policy.Held {
			t.Errorf("condition %+v, the death is %s; want none, Held", got, w.only().Phase)
		}
	})
}

// A replica acts and dies. The one that takes over has not heard the secret, asks the witness, and takes back what was said.
func TestConditionIsTakenBackAfterATakeover(t *testing.T) {
	for _, tt := range []struct {
		name  string
		then  func(w *world)
		phase policy.Phase
		want  string // reason of the condition
	}{
		{"it was a lie", func(w *world) {
			w.set(func() {
				w.dead["n1"] = false
				w.renewed["n1"] = time.Now()
			})
		}, policy.Refused, "DeathRefused"},
		{"the node is left out by now", func(w *world) {
			change(w, func(n *policy.Node) { n.Labels = map[string]string{policy.ExcludeLabel: ""} })
		}, policy.Recorded, policy.NodeExcluded},
		{"the node is left out by now, and back", func(w *world) {
			change(w, func(n *policy.Node) { n.Labels = map[string]string{policy.ExcludeLabel: ""} })
			w.reboots(1, boot2)
		}, policy.Cleaning, "NewBoot"},
	} {
		t.Run(tt.name, func(t *testing.T) { takenBack(t, tt.then, tt.phase, tt.want) })
	}
}

func takenBack(t *testing.T, then func(w *world), phase policy.Phase, want string) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		p := testPolicy()
		p.KeepPods = time.Hour // so that there is something left to do
		a, stop := run(t, p, w, "a")
		w.panics(1)
		offer(t, w, incident(1, boot1, secret1), a)
		pass(2 * time.Second)
		if got := w.healthOf().Unhealthy; got != boot1 {
			t.Fatalf("boot %q is unhealthy, want %s", got, boot1)
		}
		stop()
		then(w)
		run(t, p, w, "b")
		pass(2 * time.Minute)
		if got := w.healthOf(); got.Unhealthy != "" || got.Reason != want || w.only().Phase != phase || w.node("n1").Fenced {
			t.Errorf("condition %+v, fenced %t, the death is %s; want reason %s and %s", got, w.node("n1").Fenced, w.only().Phase, want, phase)
		}
	})
}

func TestConditionOfASickNode(t *testing.T) {
	const remedy = "only a reboot frees it"
	for _, tt := range []struct {
		name   string
		secret netconsole.Secret
		remedy string
		actAt  detect.Authority
		want   policy.Health
	}{
		{"with the pinned secret", secret1, remedy, detect.Pinned, policy.Health{Unhealthy: boot1, Reason: "NetdevRefcountLeak", Message: "leaked; " + remedy}},
		{"without a remedy", secret1, "", detect.Pinned, policy.Health{}},
		{"without the secret", "", remedy, detect.Pinned, policy.Health{}},
		{"where every death waits for a witness", secret1, remedy, policy.Never, policy.Health{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := testPolicy()
				p.ActAt = tt.actAt
				e, _ := run(t, p, w, "a")
				inc := incident(1, boot1, tt.secret)
				inc.Verdict, inc.Cause, inc.Title, inc.Remedy, inc.Complete = detect.Sick, "NetdevRefcountLeak", "leaked", tt.remedy, true
				inc.Verified = tt.secret != ""
				offer(t, w, inc, e)
				pass(10 * time.Second)
				if diff := cmp.Diff(tt.want, w.healthOf()); diff != "" {
					t.Fatalf("condition (-want +got):\n%s", diff)
				}
				w.reboots(1, boot2)
				pass(10 * time.Second)
				if got := w.healthOf(); got.Unhealthy != "" || (got.Reason == "NewBoot") != (tt.want != policy.Health{}) {
					t.Errorf("condition on the new boot: %+v", got)
				}
			})
		})
	}
}

// The node may reboot while its condition is written: the new kernel must not be called unhealthy. The fake checks it.
func TestConditionOfANodeThatReboots(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := testPolicy()
		p.NodeVerb = policy.NodeAnnotate
		rebooted := false
		f := faulty{world: w}
		f.before = func(_ context.Context, call string) error {
			if call == "SetHealth" && !rebooted {
				rebooted = true
				w.reboots(1, boot2)
			}
			return nil
		}
		e, _ := run(t, p, f, "a")
		w.panics(1)
		offer(t, w, incident(1, boot1, secret1), e)
		pass(time.Minute)
		if got := w.healthOf(); got != (policy.Health{}) || !rebooted {
			t.Errorf("condition %+v, rebooted %v; want none", got, rebooted)
		}
	})
}
