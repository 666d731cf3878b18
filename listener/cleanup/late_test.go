package cleanup

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// tolerant is a Deployment whose pods tolerate every taint: as long as the dead Node is there, and emptiest, a replacement
// is bound to it.
func tolerant(w *world) faulty {
	n := 0
	return faulty{world: w, after: func(_ context.Context, call string) error {
		if call != "FailPod" {
			return nil
		}
		w.set(func() {
			living := 0
			for _, p := range w.pods {
				if strings.HasPrefix(p.Name, "tolerant") && !p.Finished() {
					living++
				}
			}
			if living > 0 {
				return
			}
			node := "n1"
			if n, ok := w.nodes["n1"]; !ok || n.Closed {
				node = "n2"
			}
			n++
			p := policy.Pod{
				Namespace: "default", Name: fmt.Sprint("tolerant", n), Node: node, Phase: "Pending", Created: time.Now(),
				Owner: policy.Owner{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "tolerant", UID: "uid-tolerant"}, ResourceVersion: w.next(),
			}
			p.UID = "uid-" + p.Name
			if node == "n2" {
				p.Phase, p.Started = "Running", time.Now()
			}
			w.pods["default/"+p.Name] = p
		})
		return nil
	}}
}

func TestPodsThatTolerateEverything(t *testing.T) {
	for _, tt := range []struct {
		name  string
		story func(w *world, p *policy.Policy)
		after time.Duration
		most  int // pods failed meanwhile, with the first
		runs  string
	}{
		{"a node that is deleted", func(*world, *policy.Policy) {}, time.Second, 5, "n2"},
		{"a node that is awaited", func(_ *world, p *policy.Policy) { p.NodeVerb = policy.NodeAwait }, 2 * time.Second, 2, "n2"},
		{"a node that is awaited and does not come back", func(_ *world, p *policy.Policy) { p.NodeVerb = policy.NodeAwait }, 11 * time.Minute, 2, "n2"},
		{"a node that is kept", func(_ *world, p *policy.Policy) { p.NodeVerb = policy.NodeAnnotate }, time.Hour, 2, "n2"},
		{"a node in quarantine", func(w *world, _ *policy.Policy) {
			n := w.nodes["n1"]
			n.Quarantined = true
			w.nodes["n1"] = n
		}, 5 * time.Minute, 2, "n2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.addPod("n1", "tolerant", "apps/v1 ReplicaSet", nil)
				w.panics(1)
				p := testPolicy()
				w.set(func() { tt.story(w, &p) })
				a, _ := run(t, p, tolerant(w), "a")
				run(t, p, w, "b")
				offer(t, w, incident(1, boot1, secret1), a)
				time.AfterFunc(45*time.Second, func() { w.loses(1) })
				pass(tt.after)
				if n := w.failed(); n < 2 || n > tt.most {
					t.Errorf("%d pods failed, want 2 to %d", n, tt.most)
				}
				w.set(func() {
					for _, p := range w.pods {
						if p.Node != tt.runs {
							t.Errorf("pod %s is on %s, want all on %s", p.Name, p.Node, tt.runs)
						}
						if p.Node == "n1" && time.Since(p.Created) > longestSweep+returnEvery {
							t.Errorf("pod %s sits on the dead node for %s", p.Name, time.Since(p.Created))
						}
					}
					for _, d := range w.deaths {
						if d.PodsFailed != len(w.failures) || d.PodsTotal != len(w.failures) {
							t.Errorf("%d/%d pods on record, want %d", d.PodsFailed, d.PodsTotal, len(w.failures))
						}
					}
				})
			})
		})
	}
}

// Policies of an older version let nobody say that a node has no room. Late pods do not wait for it.
func TestLatePodsOfANodeThatMayNotBeClosed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := testPolicy()
		p.NodeVerb = policy.NodeAwait
		c := faulty{world: w, before: func(_ context.Context, call string) error {
			if call == "CloseNode" {
				return ErrForbidden
			}
			return nil
		}}
		e, _ := run(t, p, c, "a")
		w.panics(1)
		offer(t, w, incident(1, boot1, secret1), e)
		pass(3 * time.Second)
		w.addPod("n1", "late", "apps/v1 DaemonSet", func(p *policy.Pod) { p.Phase, p.Started = "Pending", time.Time{} })
		pass(5 * time.Second)
		if w.failed() != 1 {
			t.Errorf("%d pods failed within 5 s, want the late one", w.failed())
		}
	})
}

// The node is back while late pods are dealt with: what is bound to it from then on is its own.
func TestLatePodsOfANodeThatIsBack(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.addPod("n1", "tolerant", "apps/v1 ReplicaSet", nil)
		w.panics(1)
		p := testPolicy()
		p.NodeVerb = policy.NodeAnnotate
		a, _ := run(t, p, tolerant(w), "a")
		offer(t, w, incident(1, boot1, secret1), a)
		pass(45 * time.Second)
		w.loses(1)
		pass(5 * time.Minute)
		w.reboots(1, boot2)
		before := w.failed()
		pass(time.Hour)
		if w.failed() != before || w.node("n1").Fenced {
			t.Errorf("%d pods of a living node failed, fenced %v", w.failed()-before, w.node("n1").Fenced)
		}
	})
}

// A DaemonSet's replacement belongs to this node only, and comes again however often it is failed.
func TestDaemonSetsAreNotSwept(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.addPod("n1", "agent", "apps/v1 DaemonSet", nil)
		w.panics(1)
		p := testPolicy()
		p.NodeVerb = policy.NodeAwait
		a, _ := run(t, p, w, "a")
		offer(t, w, incident(1, boot1, secret1), a)
		pass(time.Second)
		w.addPod("n1", "agent-2", "apps/v1 DaemonSet", func(p *policy.Pod) {
			p.Phase, p.Created, p.Started = "Pending", time.Now(), time.Time{}
		})
		pass(5 * time.Minute)
		if w.failed() != 1 {
			t.Errorf("%d pods failed, want 1", w.failed())
		}
	})
}

// A node in quarantine stays there: deleted, it would come back without cordon and taints.
func TestQuarantinedNodeIsAwaited(t *testing.T) {
	for _, back := range []bool{true, false} {
		t.Run(fmt.Sprintf("it comes back %v", back), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				change(w, func(n *policy.Node) { n.Quarantined = true })
				w.panics(1)
				a, _ := run(t, testPolicy(), w, "a")
				offer(t, w, incident(1, boot1, secret1), a)
				pass(30 * time.Second)
				if w.node("n1").Name == "" {
					t.Fatal("deleted")
				}
				if back {
					w.reboots(1, boot2)
				}
				pass(12 * time.Minute)
				if n := w.node("n1"); back != (n.Name != "") || n.Fenced || back && !n.Quarantined {
					t.Errorf("node %+v", n)
				}
				if d := w.only(); d.Phase != policy.Cleaned {
					t.Errorf("phase %s", d.Phase)
				}
			})
		})
	}
}

// Who was there, and what became of them; each is told by an event, also what nobody replaces.
func TestDeathNamesPods(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.addPod("n1", "n1-app", "apps/v1 ReplicaSet", func(p *policy.Pod) { p.Images = []string{"app:1", "proxy:2"} })
		change(w, func(n *policy.Node) {
			n.Labels = map[string]string{
				"node.kubernetes.io/instance-type": "m7i.large", "topology.kubernetes.io/zone": "z1", "karpenter.sh/nodepool": "default",
			}
		})
		w.panics(1)
		p := testPolicy()
		p.KeepPods = 10 * time.Minute
		a, _ := run(t, p, w, "a")
		inc := incident(1, boot1, secret1)
		offer(t, w, inc, a)
		pass(time.Minute)
		d := w.only()
		if diff := cmp.Diff(policy.NodeInfo{InstanceType: "m7i.large", Zone: "z1", NodePool: "default"}, d.NodeInfo); diff != "" {
			t.Errorf("node (-want +got):\n%s", diff)
		}
		i := slices.IndexFunc(d.Pods, func(p policy.DeadPod) bool { return p.Name == "n1-app" })
		if len(d.Pods) != 9 || i < 0 || len(d.Images) != 2 || !slices.Equal(d.Pods[i].Images, []int{0, 1}) {
			t.Errorf("pods %+v with images %q", d.Pods, d.Images)
		}
		became := map[string]string{}
		for _, o := range d.Outcomes {
			for _, i := range o.Pods {
				became[d.Pods[i].Name] = o.What
			}
		}
		if diff := cmp.Diff(map[string]string{
			"n1-app": policy.PodDeleted, "n1-web": policy.PodDeleted, "n1-db": policy.PodDeleted, "n1-log": policy.PodDeleted,
			"n1-sum": policy.PodDeleted, "n1-bare": policy.PodFailed, "n1-static": policy.PodMirror, "n1-over": policy.PodLeft,
			"n1-broken": policy.PodLeft,
		}, became); diff != "" {
			t.Errorf("outcomes (-want +got):\n%s", diff)
		}
		told := map[string]bool{}
		w.set(func() {
			for _, e := range w.events {
				told[e.Pod.Name] = true
			}
		})
		if !told["n1-bare"] || !told["n1-app"] {
			t.Errorf("events on pods %v", told)
		}
		conditions := map[string]policy.Status{}
		pass(20 * time.Minute)
		for _, c := range w.only().Conditions {
			conditions[c.Type] = c.Status
		}
		if diff := cmp.Diff(map[string]policy.Status{
			policy.Fenced: policy.True, policy.PodsFailed: policy.True, policy.VolumesDetached: policy.True,
			policy.Settled: policy.True, policy.Complete: policy.True,
		}, conditions); diff != "" {
			t.Errorf("conditions (-want +got):\n%s", diff)
		}
	})
}
