package cleanup

import (
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// A death that was decided on is true, whatever became of its Node before anything was done.
func TestDecidedDeathOfANodeThatIsGone(t *testing.T) {
	again := func(boot string) func(*world) {
		return func(w *world) {
			n := w.nodes["n1"]
			w.nodes["n1"] = policy.Node{
				Name: n.Name, UID: "uid of the next n1", ProviderID: n.ProviderID, Addresses: n.Addresses, BootID: boot, Ready: true, ResourceVersion: w.next(),
			}
			w.dead["n1"] = false
		}
	}
	for _, phase := range []policy.Phase{policy.Held, policy.Cleaning} {
		for _, tt := range []struct {
			name string
			then func(w *world)
			want policy.Phase
			why  string
		}{
			{"deleted", func(w *world) { delete(w.nodes, "n1") }, policy.Recorded, "node n1 is gone, and its death had been decided on before"},
			{"registered again on another boot", again(boot2), policy.Recorded, "node n1 has rebooted into boot " + boot2 + "; what runs on it is alive"},
			{"registered again on the same boot", again(boot1), policy.Refused, "node n1 was deleted and registered again after the panic"},
		} {
			t.Run(string(phase)+", "+tt.name, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					d := policy.NewDeath(incident(1, boot1, secret1), detect.Pinned, w.node("n1"))
					d.UID, d.Version, d.Phase, d.Owner, d.Created = "d", "1", phase, "b", time.Now() // b is gone
					d.Released = phase == policy.Held
					w.set(func() {
						tt.then(w)
						w.deaths[d.Name] = d
					})
					run(t, testPolicy(), w, "a")
					pass(time.Minute)
					if got := w.only(); got.Phase != tt.want || got.Decision != tt.why || w.failed() > 0 {
						t.Errorf("%s: %s, %d pods failed; want %s: %s", got.Phase, got.Decision, w.failed(), tt.want, tt.why)
					}
				})
			})
		}
	}
}

// Who deletes the record of a death has it judged again, also once the control plane has lost the node.
func TestRecordDeletedWhileTheNodeIsAwaited(t *testing.T) {
	for _, after := range []time.Duration{time.Second, time.Minute, 5 * time.Minute} {
		t.Run(after.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				pods := w.populate("n1")
				w.panics(1)
				p := testPolicy()
				p.NodeVerb = policy.NodeAwait
				a, _ := run(t, p, w, "a")
				offer(t, w, incident(1, boot1, secret1), a)
				time.AfterFunc(45*time.Second, func() { w.loses(1) })
				pass(after)
				w.set(func() { clear(w.deaths) })
				pass(12 * time.Minute)
				if d := w.only(); d.Phase != policy.Cleaned || w.node("n1").Name != "" {
					t.Errorf("%s: %s, node %+v; want it cleaned, and the node gone", d.Phase, d.Decision, w.node("n1"))
				}
				if n := w.failed(); n != len(pods) {
					t.Errorf("%d pods failed, want %d", n, len(pods))
				}
			})
		})
	}
}

// Whoever labels a Node while it is awaited wants to have it left alone.
func TestNodeLeftOutWhileItIsAwaited(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		w.panics(1)
		p := testPolicy()
		p.NodeVerb = policy.NodeAwait
		a, _ := run(t, p, w, "a")
		offer(t, w, incident(1, boot1, secret1), a)
		pass(time.Minute)
		change(w, func(n *policy.Node) { n.Labels = map[string]string{policy.ExcludeLabel: ""} })
		pass(20 * time.Minute)
		d := w.only()
		if note := d.Step(policy.StepNode).Note; d.Phase != policy.Cleaned || note != "kept and fenced: the node was left out meanwhile" || !w.node("n1").Fenced {
			t.Errorf("%s, %q, node %+v; want it kept and fenced", d.Phase, note, w.node("n1"))
		}
		w.loses(1)
		w.addPod("n1", "late", "apps/v1 ReplicaSet", func(p *policy.Pod) { p.Created, p.Started = time.Now(), time.Time{} })
		pass(5 * time.Minute)
		if n := w.failed(); n != len(pods) {
			t.Errorf("%d pods failed, want %d: those of before", n, len(pods))
		}
		w.reboots(1, boot2)
		pass(10 * time.Second)
		if n := w.node("n1"); n.Fenced {
			t.Errorf("node %+v, want it in service on its new boot", n)
		}
	})
}
