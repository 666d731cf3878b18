package cleanup

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// The Node is deleted and registered again, by a machine that lives, at each call of a cleanup: before it gets through, and after. What
// is done to the new Node and its pods, world says: nothing may be.
func TestRegisteredAgainAtEveryCall(t *testing.T) {
	for _, verb := range []policy.NodeVerb{policy.NodeDelete, policy.NodeDeleteClaim, policy.NodeAwait} {
		for _, boot := range []string{boot1, boot2} {
			for _, late := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, on boot %.1s, late %t", verb, boot, late), func(t *testing.T) {
					if late != (boot == boot2) && verb != policy.NodeDelete {
						return // enough of these
					}
					atEveryCall(t, func(t *testing.T, w *world, n int) (more bool) {
						if n == 1 && !late && boot == boot1 {
							return true // it is found as a Node like any other, and the secret is that of its boot
						}
						w.populate("n1")
						w.set(func() {
							w.volumes["n1"] = 1
							node := w.nodes["n1"]
							node.NodeClaim = policy.Owner{APIVersion: "karpenter.sh/v1", Kind: "NodeClaim", Name: "claim", UID: "c"}
							w.nodes["n1"] = node
						})
						w.panics(1)
						calls := 0
						again := func() {
							w.set(func() {
								if was, ok := w.nodes["n1"]; ok {
									w.ends(was)
								}
								delete(w.nodes, "n1")
								for k, p := range w.pods {
									if p.Node == "n1" {
										delete(w.pods, k) // by PodGC
									}
								}
								w.volumes["n1"] = 0
							})
							w.addNode(1, boot, secret1)
							w.set(func() {
								node := w.nodes["n1"]
								node.UID, node.Created = "uid-n1-again", time.Now()
								w.nodes["n1"], w.dead["n1"] = node, false
							})
							for _, name := range []string{"again", "n1-web"} { // a StatefulSet's would have the name of the old one
								w.addPod("n1", name, "apps/v1 StatefulSet", func(p *policy.Pod) {
									p.UID, p.Created, p.Started = "uid-again-"+name, time.Now(), time.Now()
								})
							}
						}
						count := func(after bool) func(context.Context, string) error {
							return func(_ context.Context, call string) error {
								if call == "Renew" || after != late {
									return nil
								}
								w.mu.Lock()
								calls++
								hit := calls == n
								w.mu.Unlock()
								if hit {
									again()
								}
								return nil
							}
						}
						p := testPolicy()
						p.NodeVerb = verb
						p.AwaitTimeout = 20 * time.Second
						e, _ := run(t, p, faulty{world: w, before: count(false), after: count(true)}, "a")
						offer(t, w, incident(1, boot1, secret1), e)
						pass(40 * time.Second)
						w.mu.Lock()
						defer w.mu.Unlock()
						if calls < n {
							return false
						}
						node, ok := w.nodes["n1"]
						if !ok || node.UID != "uid-n1-again" || node.Fenced || node.OutOfService || node.Closed || node.Mark != (policy.Mark{}) {
							t.Errorf("node %+v, want it as it was registered", node)
						}
						for _, name := range []string{"again", "n1-web"} {
							if p := w.pods["default/"+name]; p.Phase != "Running" || p.Marked {
								t.Errorf("pod %+v, want it untouched", p)
							}
						}
						return true
					})
				})
			}
		}
	}
}
