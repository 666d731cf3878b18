package cleanup

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

func TestNodeVerbs(t *testing.T) {
	for _, tt := range []struct {
		name   string
		verb   policy.NodeVerb
		story  func(w *world) // after the fail-over
		fenced bool           // at the end
		exists bool
		node   string // note of the last step
	}{
		{name: "delete: the node goes last", verb: policy.NodeDelete, node: "deleted"},
		{
			name: "await: a node back on a new boot is unfenced", verb: policy.NodeAwait,
			story: func(w *world) { pass(22 * time.Second); w.reboots(1, boot2) }, exists: true,
			node: "unfenced: the node is back on boot " + boot2,
		},
		{name: "await: a node that does not come back is deleted", verb: policy.NodeAwait, node: "deleted"},
		{
			name: "await: a node back but not Ready is unfenced: its agents may need the scheduler to become so", verb: policy.NodeAwait,
			story: func(w *world) {
				pass(22 * time.Second)
				w.reboots(1, boot2)
				change(w, func(n *policy.Node) { n.Ready = false })
				pass(5 * time.Second)
				if n := w.node("n1"); n.Fenced {
					w.t.Error("fenced on its new boot")
				}
			}, exists: true, node: "unfenced: the node is back on boot " + boot2,
		},
		{
			name: "await: somebody else deleted the node", verb: policy.NodeAwait,
			story: func(w *world) { pass(22 * time.Second); w.set(func() { delete(w.nodes, "n1") }) },
			node:  "the node is gone",
		},
		{
			name: "annotate: the node stays and stays fenced", verb: policy.NodeAnnotate, exists: true, fenced: true,
			node: "kept, fenced until it is back on a new boot",
		},
		{
			name: "annotate: the fence goes when the node is back on a new boot", verb: policy.NodeAnnotate, exists: true,
			story: func(w *world) { pass(time.Minute); w.reboots(1, boot2) },
			node:  "kept, fenced until it is back on a new boot",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				w.set(func() { w.volumes["n1"] = 1 })
				w.panics(1)
				p := testPolicy()
				p.NodeVerb = tt.verb
				e, _ := run(t, p, w, "a")
				offer(t, w, incident(1, boot1, secret1), e)
				pass(5 * time.Second)
				if w.failed() != 5 {
					t.Fatalf("%d pods failed, want 5", w.failed())
				}
				if tt.story != nil {
					tt.story(w)
				}
				pass(12 * time.Minute)
				r := w.only()
				if last := r.Steps[len(r.Steps)-1]; r.Phase != policy.Cleaned || last.Name != policy.StepNode || last.Note != tt.node {
					t.Errorf("%s, %s: %q; want node: %q", r.Phase, last.Name, last.Note, tt.node)
				}
				n := w.node("n1")
				if (n.Name != "") != tt.exists || n.Fenced != tt.fenced || n.OutOfService || (!tt.fenced && n.Mark != (policy.Mark{})) {
					t.Errorf("node: %+v; want it to exist: %v, fenced: %v", n, tt.exists, tt.fenced)
				}
			})
		})
	}
}

// A node that is back before its pods were failed keeps what it restarted.
func TestNodeComesBackDuringTheCleanup(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		w.panics(1)
		written := 0
		c := faulty{world: w, before: func(_ context.Context, call string) error {
			if call != "FailPod" {
				return nil
			}
			var nth int
			w.set(func() { written++; nth = written })
			time.Sleep(time.Duration(nth) * time.Second) // one after the other
			if nth == 3 {                                // two are failed, then the kubelet is up
				w.reboots(1, boot2)
				w.set(func() { // it has read its pods, and restarted none of them yet
					for k, p := range w.pods {
						p.Started = p.Created
						w.pods[k] = p
					}
				})
			}
			return nil
		}}
		e, _ := run(t, testPolicy(), c, "a")
		offer(t, w, incident(1, boot1, secret1), e)
		pass(time.Minute)
		r := w.only()
		if r.Phase != policy.Cleaned || w.failed() != 2 {
			t.Errorf("%s, %d of %d pods failed; want 2", r.Phase, w.failed(), len(pods))
		}
		n := w.node("n1")
		if n.Name == "" || n.Fenced || n.Mark != (policy.Mark{}) {
			t.Errorf("node: %+v; want it unfenced", n)
		}
		alive := 0
		w.set(func() {
			for _, p := range w.pods {
				if p.Node == "n1" && p.Phase == "Running" && !p.Mirror {
					alive++
				}
			}
		})
		if alive+w.failed() != len(pods) {
			t.Errorf("%d alive and %d failed, of %d", alive, w.failed(), len(pods))
		}
		for _, pod := range pods {
			if w.pods["default/"+pod].Phase == "Running" {
				w.restarts(pod)
			}
		}
		pass(2 * time.Minute)
		if got := podsWithEvents(w); !slices.Equal(got, pods) {
			t.Errorf("events about %q, want those that were failed and those that were restarted: %q", got, pods)
		}
	})
}

// The API server takes a while; meanwhile the node reboots in 10 s and registers again.
func TestNodeIsBackBeforeAnythingWasDone(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.panics(1)
		w.set(func() { w.down = true })
		e, _ := run(t, testPolicy(), w, "a")
		offer(t, w, incident(1, boot1, secret1), e)
		pass(10 * time.Second)
		w.reboots(1, boot2)
		pass(10 * time.Second)
		w.set(func() { w.down = false })
		pass(time.Minute)
		if r := w.only(); r.Phase != policy.Recorded || w.failed() != 0 || w.node("n1").Fenced {
			t.Errorf("%s (%s), %d pods failed, fenced %v", r.Phase, r.Decision, w.failed(), w.node("n1").Fenced)
		}
	})
}

// A pod ends by itself between being listed and being failed: its end stands.
func TestPodFinishesUnderTheHand(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.panics(1)
		once := false
		e, _ := run(t, testPolicy(), faulty{world: w, before: func(_ context.Context, call string) error {
			w.set(func() {
				if p := w.pods["default/n1-sum"]; call == "FailPod" && !once {
					p.Phase, p.ResourceVersion, once = "Succeeded", w.next(), true
					w.pods["default/n1-sum"] = p
				}
			})
			return nil
		}}, "a")
		offer(t, w, incident(1, boot1, secret1), e)
		pass(time.Minute)
		r := w.only()
		if p := w.pods["default/n1-sum"]; p.Phase != "Succeeded" || p.Marked {
			t.Errorf("pod: %+v", p)
		}
		if r.PodsFailed != 4 || r.PodsTotal != 4 || r.Phase != policy.Cleaned || w.node("n1").Name != "" {
			t.Errorf("%d/%d pods, phase %s, node %q", r.PodsFailed, r.PodsTotal, r.Phase, w.node("n1").Name)
		}
	})
}

// The kubelet is back at the very moment the Node is to be deleted.
func TestNodeComesBackAtItsDeletion(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.panics(1)
		e, _ := run(t, testPolicy(), faulty{world: w, before: func(_ context.Context, call string) error {
			if call == "DeleteNode" {
				w.reboots(1, boot2)
			}
			return nil
		}}, "a")
		offer(t, w, incident(1, boot1, secret1), e)
		pass(time.Minute)
		if n := w.node("n1"); n.Name == "" || n.Fenced || w.only().Phase != policy.Cleaned {
			t.Errorf("node %+v, phase %s; want it kept and unfenced", n, w.only().Phase)
		}
	})
}

func TestVolumesThatDoNotGo(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.set(func() { w.volumes["n1"] = 1 })
		w.addPod("n1", "n1-wants-it", "", func(p *policy.Pod) { p.Started = time.Now().Add(time.Hour) }) // never ours to fail
		w.panics(1)
		p := testPolicy()
		p.NodeVerb = policy.NodeAnnotate
		e, _ := run(t, p, w, "a")
		offer(t, w, incident(1, boot1, secret1), e)
		pass(policy.NewPlan(p, policy.Death{}, policy.Node{}).DetachFor - 5*time.Second)
		if !w.node("n1").OutOfService {
			t.Fatal("not out of service while volumes are attached")
		}
		pass(10 * time.Second)
		if n := w.node("n1"); n.OutOfService || n.Mark.OutOfService || !n.Fenced {
			t.Errorf("after the bound: %+v", n)
		}
	})
}

func TestForeignOutOfServiceTaintStays(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.set(func() { w.volumes["n1"] = 1; n := w.nodes["n1"]; n.OutOfService = true; w.nodes["n1"] = n })
		w.panics(1)
		p := testPolicy()
		p.NodeVerb = policy.NodeAwait
		e, _ := run(t, p, w, "a")
		offer(t, w, incident(1, boot1, secret1), e)
		pass(10 * time.Second)
		w.reboots(1, boot2)
		pass(10 * time.Second)
		if n := w.node("n1"); !n.OutOfService || n.Fenced {
			t.Errorf("out of service %v, fenced %v; want true, false", n.OutOfService, n.Fenced)
		}
	})
}

func TestKeptPods(t *testing.T) {
	for i, verb := range []policy.NodeVerb{policy.NodeDelete, policy.NodeAwait, policy.NodeAnnotate, policy.NodeDelete, policy.NodeAwait, policy.NodeAnnotate} {
		comesBack := i >= 3
		t.Run(fmt.Sprintf("%s, node comes back %v", verb, comesBack), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				w.panics(1)
				p := testPolicy()
				p.NodeVerb, p.KeepPods = verb, 5*time.Minute
				e, _ := run(t, p, w, "a")
				offer(t, w, incident(1, boot1, secret1), e)
				pass(2 * time.Minute)
				if comesBack {
					w.reboots(1, boot2)
					pass(10 * time.Second)
					if n := w.node("n1"); n.Fenced {
						t.Error("the node is back and kept waiting for the pods' sake")
					}
				}
				pass(2 * time.Minute)
				left := func() (names []string) {
					w.set(func() {
						for _, p := range w.pods {
							if p.Node == "n1" && w.failures[p.UID] > 0 && !p.Deleting {
								names = append(names, p.Name)
							}
						}
					})
					slices.Sort(names)
					return names
				}
				if diff := cmp.Diff([]string{"n1-bare"}, left()); diff != "" {
					t.Errorf("kept (-want +got); what is replaced is not:\n%s", diff)
				}
				if w.node("n1").Name == "" {
					t.Error("the node went before its kept pods: PodGC would take them")
				}
				pass(20 * time.Minute)
				if got := left(); len(got) > 0 {
					t.Errorf("still kept: %q", got)
				}
				if r := w.only(); r.Phase != policy.Cleaned {
					t.Errorf("phase %s", r.Phase)
				}
			})
		})
	}
}

// A controller that Kubernetes does not bring sees why its pod failed before the pod is gone, whatever becomes of the Node, and however
// long after the panic the pod was failed.
func TestPodsOfOtherControllers(t *testing.T) {
	for _, verb := range []policy.NodeVerb{policy.NodeDelete, policy.NodeAwait, policy.NodeAnnotate} {
		for _, tt := range []struct {
			name  string
			story func(w *world, inc *detect.Incident)
			fails time.Duration // when the pods are failed
		}{
			{"acted on at once", func(*world, *detect.Incident) {}, time.Second},
			{"after the witness", func(w *world, inc *detect.Incident) {
				inc.Identity = netconsole.Identity{}
				w.unpin()
			}, 42 * time.Second},
		} {
			t.Run(fmt.Sprintf("%s, %s", verb, tt.name), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					w.populate("n1")
					w.addPod("n1", "n1-step", "argoproj.io/v1alpha1 Workflow", nil)
					w.panics(1)
					p := testPolicy()
					p.NodeVerb, p.KeepPods, p.AwaitTimeout = verb, 5*time.Minute, 20*time.Minute
					e, _ := run(t, p, w, "a")
					inc := incident(1, boot1, secret1)
					tt.story(w, &inc)
					offer(t, w, inc, e)
					pod := func(name string) (p policy.Pod) { w.set(func() { p = w.pods["default/"+name] }); return p }
					pass(tt.fails + 28*time.Second)
					if p := pod("n1-step"); p.Phase != "Failed" {
						t.Errorf("before 30 s have passed the pod is %q, want Failed", p.Phase)
					}
					if p := pod("n1-web"); p.Name != "" {
						t.Errorf("a ReplicaSet's pod is kept: %+v", p)
					}
					if note := w.only().Step(policy.StepDelete).Note; !strings.Contains(note, "1 kept for 30s, so that their controllers see why they failed; 1 kept until ") {
						t.Errorf("the step says %q", note)
					}
					pass(8 * time.Second)
					if p := pod("n1-step"); p.Name != "" {
						t.Errorf("it is still there: %+v", p)
					}
					if p := pod("n1-bare"); p.Name == "" {
						t.Error("a pod that nobody owns is gone, too")
					}
					pass(5 * time.Minute) // an awaited node is not back by then
					if p := pod("n1-bare"); p.Name != "" {
						t.Errorf("a pod that nobody owns is kept for ever: %+v", p)
					}
					for _, o := range w.only().Outcomes {
						if o.What == policy.PodFailed {
							t.Errorf("deleted pods are on record as %+v", o)
						}
					}
				})
			})
		}
	}
}

// A deletion that is denied is not asked for again and again while the node is awaited.
func TestDeniedDeletionOfKeptPods(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.addPod("n1", "n1-step", "argoproj.io/v1alpha1 Workflow", nil)
		w.panics(1)
		p := testPolicy()
		p.NodeVerb, p.KeepPods, p.AwaitTimeout = policy.NodeAwait, 5*time.Minute, 20*time.Minute
		asked := 0
		e, _ := run(t, p, faulty{world: w, before: func(_ context.Context, call string) error {
			if call != "DeletePod" {
				return nil
			}
			w.set(func() { asked++ })
			return fmt.Errorf("%s: %w", call, ErrDenied)
		}}, "a")
		offer(t, w, incident(1, boot1, secret1), e)
		pass(10 * time.Minute)
		w.set(func() {
			if asked != 1 {
				t.Errorf("asked %d times, want once", asked)
			}
		})
	})
}

func TestDenials(t *testing.T) {
	deny := func(calls ...string) func(context.Context, string) error {
		return func(_ context.Context, call string) error {
			if slices.Contains(calls, call) {
				return fmt.Errorf("%s: %w", call, ErrDenied)
			}
			return nil
		}
	}
	full := func(_ context.Context, call string) error {
		if call == "FailPod" {
			return fmt.Errorf("%s: %w", call, ErrFull)
		}
		return nil
	}
	for _, tt := range []struct {
		name   string
		before func(context.Context, string) error
		step   string
		note   string
		gone   bool // the Node
		phase  policy.Phase
	}{
		{name: "a pod that may not be failed keeps its node", before: deny("FailPod"), step: policy.StepNode, note: "kept and fenced: 5 pods could not be failed", phase: policy.Incomplete},
		{name: "pods that their owners have filled keep no node", before: full, step: policy.StepFail, note: "1 annotated, 2 left alone, 5 denied, last: FailPod: denied: it has no room", gone: true, phase: policy.Incomplete},
		{name: "denials are in the step's note", before: deny("FailPod"), step: policy.StepFail, note: "1 annotated, 2 left alone, 5 denied, last: FailPod: denied", phase: policy.Incomplete},
		{name: "pods that may not be deleted", before: deny("DeletePod"), step: policy.StepDelete, note: "5 denied, last: DeletePod: denied", gone: true, phase: policy.Cleaned},
		{name: "a node that may not be deleted", before: deny("DeleteNode"), step: policy.StepNode, note: "kept and fenced; denied: DeleteNode: denied", phase: policy.Cleaned},
		{name: "volumes that may not be counted", before: deny("Attachments"), step: policy.StepDetach, note: "no volumes attached", gone: true, phase: policy.Cleaned},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				w.panics(1)
				e, _ := run(t, testPolicy(), faulty{world: w, before: tt.before}, "a")
				offer(t, w, incident(1, boot1, secret1), e)
				pass(time.Minute)
				r := w.only()
				i := slices.IndexFunc(r.Steps, func(s policy.StepStatus) bool { return s.Name == tt.step })
				if r.Phase != tt.phase || i < 0 || !strings.HasPrefix(r.Steps[i].Note, tt.note) {
					t.Errorf("%s, steps %+v; want %s: %s…", r.Phase, r.Steps, tt.step, tt.note)
				}
				if n := w.node("n1"); (n.Name == "") != tt.gone {
					t.Errorf("node gone: %v, want %v", n.Name == "", tt.gone)
				}
			})
		})
	}
}

// What keeps pods from being failed passes: a webhook is up, people mend rights, or delete the pods themselves.
func TestDenialsThatPass(t *testing.T) {
	for _, tt := range []struct {
		name   string
		verb   policy.NodeVerb
		denial error
		lasts  time.Duration
		people bool // delete the pods
		other  bool // the replica that did the work is gone by then
	}{
		{"a webhook that starts up", policy.NodeDelete, ErrDenied, 3 * time.Minute, false, false},
		{"a right that is missing", policy.NodeDelete, ErrForbidden, 3 * time.Minute, false, false},
		{"a webhook that starts up, of a node that is awaited", policy.NodeAwait, ErrDenied, 3 * time.Minute, false, false},
		{"people delete the pods", policy.NodeDelete, ErrDenied, time.Hour, true, false},
		{"a webhook that starts up, seen by another replica", policy.NodeDelete, ErrDenied, 3 * time.Minute, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				pods := w.populate("n1")
				w.panics(1)
				p := testPolicy()
				p.NodeVerb = tt.verb
				until := time.Now().Add(tt.lasts)
				c := faulty{world: w, before: func(_ context.Context, call string) error {
					if call == "FailPod" && time.Now().Before(until) {
						return fmt.Errorf("%s: %w", call, tt.denial)
					}
					return nil
				}}
				e, stop := run(t, p, c, "a")
				offer(t, w, incident(1, boot1, secret1), e)
				pass(45 * time.Second)
				w.loses(1)
				pass(2 * time.Minute)
				before := w.only()
				if n := w.node("n1"); before.Phase != policy.Incomplete || !n.Fenced || w.failed() > 0 {
					t.Fatalf("phase %s, node %+v, %d pods failed", before.Phase, n, w.failed())
				}
				if tt.other {
					stop()
					run(t, p, c, "b")
				}
				if tt.people {
					w.set(func() {
						for _, name := range pods {
							delete(w.pods, "default/"+name)
						}
					})
				}
				pass(15 * time.Minute)
				if !tt.people {
					w.cleanedOnce(pods)
				}
				if d := w.only(); d.Phase != policy.Cleaned || w.node("n1").Name != "" || d.PodsFailed != 5 || d.PodsTotal != 5 || d.Condition(policy.PodsFailed).Status != policy.True || !d.Completed.After(before.Completed) {
					t.Errorf("%d of %d pods, %+v, completed at %s", d.PodsFailed, d.PodsTotal, d.Condition(policy.PodsFailed), d.Completed)
				}
			})
		})
	}
}

// The control plane had lost the node before its panic was heard, which its secret proved. The work goes on where it was not heard.
func TestDenialsThatPassOfALostNode(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		w.panics(1)
		w.loses(1)
		pass(time.Minute)
		until := time.Now().Add(3 * time.Minute)
		c := faulty{world: w, before: func(_ context.Context, call string) error {
			if call == "FailPod" && time.Now().Before(until) {
				return ErrDenied
			}
			return nil
		}}
		e, stop := run(t, testPolicy(), c, "a")
		offer(t, w, incident(1, boot1, secret1), e)
		pass(2 * time.Minute)
		if d := w.only(); d.Phase != policy.Incomplete || !w.node("n1").Fenced {
			t.Fatalf("phase %s: %s", d.Phase, d.Decision)
		}
		stop()
		run(t, testPolicy(), c, "b")
		pass(5 * time.Minute)
		w.cleanedOnce(pods)
	})
}

// What does not pass costs a call a minute, and nothing is written meanwhile.
func TestDenialsThatDoNotPass(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.panics(1)
		asked := 0
		e, _ := run(t, testPolicy(), faulty{world: w, before: func(_ context.Context, call string) error {
			if call != "FailPod" {
				return nil
			}
			w.set(func() { asked++ })
			return fmt.Errorf("%s: %w", call, ErrDenied)
		}}, "a")
		finished := 0
		e.Observer.Finished = func(policy.Phase, time.Duration) { finished++ }
		offer(t, w, incident(1, boot1, secret1), e)
		pass(45 * time.Second)
		w.loses(1)
		pass(5 * time.Minute)
		before := w.only()
		w.set(func() { asked = 0 })
		pass(time.Hour)
		if d := w.only(); d.Phase != policy.Incomplete || d.Version != before.Version || finished != 1 || w.node("n1").Name == "" {
			t.Errorf("phase %s, version %s before and %s after, finished %d times", d.Phase, before.Version, d.Version, finished)
		}
		w.set(func() {
			if asked < 55 || asked > 65 {
				t.Errorf("asked %d times in an hour, want once a minute", asked)
			}
		})
	})
}

// Without claim and list nothing is right; people mend rights.
func TestDenialsThatAreWaitedOut(t *testing.T) {
	for _, denied := range []string{"CreateDeath", "Pods"} {
		t.Run(denied, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				pods := w.populate("n1")
				w.panics(1)
				until := time.Now().Add(time.Minute)
				e, _ := run(t, testPolicy(), faulty{world: w, before: func(_ context.Context, call string) error {
					if call == denied && time.Now().Before(until) {
						return ErrDenied
					}
					return nil
				}}, "a")
				offer(t, w, incident(1, boot1, secret1), e)
				pass(50 * time.Second)
				if w.failed() > 0 || w.node("n1").Name == "" {
					t.Error("acted without")
				}
				pass(time.Minute)
				w.cleanedOnce(pods)
			})
		})
	}
}

func TestDryRun(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.unpin()
		p := testPolicy()
		p.DryRun = true
		e, _ := run(t, p, w, "a")
		inc := incident(1, boot1, secret1)
		if !e.Canary(inc.Source.Addr(), inc.Identity, time.Now()) {
			t.Fatal("canary not taken")
		}
		pass(time.Second)
		w.panics(1)
		offer(t, w, inc, e)
		pass(time.Minute)
		if diff := cmp.Diff([]string{"create Refused death"}, w.log()); diff != "" {
			t.Errorf("written (-want +got):\n%s", diff)
		}
		r := w.only()
		if !strings.HasPrefix(r.Decision, "dry run: would act: claimed authority, and the Lease of node n1 was not renewed") || r.PodsTotal != 5 {
			t.Errorf("decision %q, %d pods", r.Decision, r.PodsTotal)
		}
		var steps []string
		for _, s := range r.Steps {
			steps = append(steps, s.Name)
			if s.Done {
				t.Errorf("step %s done", s.Name)
			}
		}
		if diff := cmp.Diff(strings.Fields("fence list fail events condition detach delete node"), steps); diff != "" {
			t.Errorf("steps (-want +got):\n%s", diff)
		}
	})
}

func TestHundredNodesAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const nodes = 100
		for i := 10; i < 10+nodes; i++ {
			n := w.addNode(i, fmt.Sprint("boot ", i), secret1)
			for j := range 50 {
				w.addPod(n.Name, fmt.Sprintf("%s-%d", n.Name, j), "apps/v1 ReplicaSet", nil)
			}
			w.panics(i)
		}
		w.set(func() { w.latency = 20 * time.Millisecond })
		p := testPolicy()
		p.MaxPercent = 100
		a, _ := run(t, p, w, "a")
		for i := 10; i < 10+nodes; i++ {
			offer(t, w, incident(i, fmt.Sprint("boot ", i), secret1), a)
		}
		pass(time.Minute)
		calls := w.log()
		count := func(calls []string, prefix string) (n int) {
			for _, c := range calls {
				if strings.HasPrefix(c, prefix) {
					n++
				}
			}
			return n
		}
		firstFail := slices.IndexFunc(calls, func(c string) bool { return strings.HasPrefix(c, "fail ") })
		if n := count(calls[:firstFail], "fence "); n != nodes {
			t.Errorf("%d of %d nodes were fenced before the first pod was written", n, nodes)
		}
		// Round robin: when a fifth of all pods is failed every node has had some of it.
		some := map[string]bool{}
		for _, c := range calls[firstFail:][:nodes*50/5] {
			if name, ok := strings.CutPrefix(c, "fail "); ok {
				node, _, _ := strings.Cut(name, "-")
				some[node] = true
			}
		}
		if len(some) != nodes {
			t.Errorf("only %d of %d nodes had their turn", len(some), nodes)
		}
		if n := count(calls, "fail "); n != nodes*50 {
			t.Errorf("%d pods failed, want %d", n, nodes*50)
		}
		if n := w.NodeCount(); n != 2 {
			t.Errorf("%d nodes left, want the 2 living ones", n)
		}
	})
}

func TestTraceWaitsForTheFailOver(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const nodes, pods = 100, 50
		for i := 10; i < 10+nodes; i++ {
			n := w.addNode(i, fmt.Sprint("boot ", i), secret1)
			for j := range pods {
				w.addPod(n.Name, fmt.Sprintf("%s-%d", n.Name, j), "apps/v1 ReplicaSet", nil)
			}
			w.panics(i)
		}
		w.set(func() { w.latency = 20 * time.Millisecond })
		p := testPolicy()
		p.MaxPercent = 100
		a, _ := run(t, p, w, "a")
		tell := func(whole bool) {
			for i := 10; i < 10+nodes; i++ {
				inc := incident(i, fmt.Sprint("boot ", i), secret1)
				if inc.Complete = whole; whole {
					inc.Trace = append(inc.Trace, "Call Trace:")
				}
				offer(t, w, inc, a)
			}
		}
		traces := func() (whole int) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, r := range w.deaths {
				if len(r.Trace) > 2 {
					whole++
				}
			}
			return whole
		}
		tell(false)
		pass(time.Second)
		tell(true)
		pass(2 * time.Second)
		failed := len(slices.DeleteFunc(w.log(), func(c string) bool { return !strings.HasPrefix(c, "fail ") }))
		if n := traces(); failed == nodes*pods || n > 5 {
			t.Errorf("%d traces were written when %d of %d pods had failed, want them to wait", n, failed, nodes*pods)
		}
		pass(time.Minute)
		if n := traces(); n != nodes {
			t.Errorf("%d traces were written in the end, want %d", n, nodes)
		}
	})
}

// A Node with finalizers is gone only when their owners say so.
func TestNodeWithFinalizers(t *testing.T) {
	const note = "deletion asked for; the node waits for finalizer karpenter.sh/termination"
	for _, tt := range []struct {
		name  string
		then  func(w *world)
		after time.Duration
		want  policy.Condition // Settled at the end; its time is not compared
		step  string
	}{
		{"that are taken away", func(w *world) {
			w.set(func() { delete(w.nodes, "n1"); delete(w.renewed, "n1") })
		}, 10 * time.Second, policy.Condition{Status: policy.True, Reason: "Settled", Message: "the node is gone"}, "the node is gone"},
		{"that stay", func(*world) {}, finalizersFor + time.Minute,
			policy.Condition{Status: policy.False, Reason: "DeletionAskedFor", Message: note}, note},
		{"of a machine that comes back first", func(w *world) { w.reboots(1, boot2) }, 10 * time.Second,
			policy.Condition{Status: policy.True, Reason: "Settled", Message: "the node is back on boot " + boot2}, "unfenced: the node is back on boot " + boot2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				change(w, func(n *policy.Node) { n.Finalizers = []string{"karpenter.sh/termination"} })
				w.panics(1)
				e, _ := run(t, testPolicy(), w, "a")
				offer(t, w, incident(1, boot1, secret1), e)
				pass(20 * time.Second)
				d := w.only()
				c := d.Condition(policy.Settled)
				if c.Status != policy.False || c.Message != note || d.Phase != policy.Cleaning {
					t.Errorf("Settled %s: %s, phase %s; want False: %s, Cleaning", c.Status, c.Message, d.Phase, note)
				}
				tt.then(w)
				pass(tt.after)
				d = w.only()
				c = d.Condition(policy.Settled)
				tt.want.Type, c.Time = policy.Settled, time.Time{}
				if diff := cmp.Diff(tt.want, c); diff != "" {
					t.Errorf("Settled (-want +got):\n%s", diff)
				}
				if got := d.Step(policy.StepNode); d.Phase != policy.Cleaned || got.Note != tt.step {
					t.Errorf("phase %s, step node: %q; want Cleaned, %q", d.Phase, got.Note, tt.step)
				}
				deletes := 0
				for _, call := range w.log() {
					if call == "delete n1" {
						deletes++
					}
				}
				if deletes != 1 {
					t.Errorf("the node was deleted %d times, want once", deletes)
				}
			})
		})
	}
}

// With node: nodeclaim Karpenter deletes the Node.
func TestNodeClaim(t *testing.T) {
	const asked = "deletion of nodeclaim gpu-x asked for; Karpenter deletes the node"
	for _, tt := range []struct {
		name   string
		change func(w *world, n *policy.Node)
		then   func(w *world) // after 20 s
		after  time.Duration
		calls  []string // what deletes, in order
		want   policy.Condition
	}{
		{"Karpenter deletes the node", nil, func(w *world) { w.set(func() { delete(w.nodes, "n1"); delete(w.renewed, "n1") }) }, 10 * time.Second,
			[]string{"delete nodeclaim gpu-x"}, policy.Condition{Status: policy.True, Reason: "Settled", Message: "the node is gone"}},
		{"Karpenter does not answer", nil, nil, finalizersFor + time.Minute,
			[]string{"delete nodeclaim gpu-x"}, policy.Condition{Status: policy.False, Reason: "NodeClaimDeleted", Message: asked}},
		{"a node without one", func(_ *world, n *policy.Node) { n.NodeClaim = policy.Owner{} }, nil, 0,
			[]string{"delete n1"}, policy.Condition{Status: policy.True, Reason: "Deleted", Message: "the node is deleted"}},
		{"one that is gone", func(w *world, _ *policy.Node) { w.nodeClaim = ErrNotFound }, nil, 0,
			[]string{"delete nodeclaim gpu-x", "delete n1"}, policy.Condition{Status: policy.True, Reason: "Deleted", Message: "the node is deleted"}},
		{"one that is another node's", func(w *world, _ *policy.Node) { w.nodeClaim = ErrDenied }, nil, 0,
			[]string{"delete nodeclaim gpu-x"}, policy.Condition{Status: policy.False, Reason: "Denied", Message: "denied"}},
		{"a machine that two nodes claim", func(w *world, n *policy.Node) {
			other := w.nodes["n2"]
			other.ProviderID = n.ProviderID
			w.nodes["n2"] = other
		}, nil, 0, nil, policy.Condition{Status: policy.False, Reason: "Denied", Message: "not only node n1 says that it is i-1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				change(w, func(n *policy.Node) {
					n.NodeClaim = policy.Owner{APIVersion: "karpenter.sh/v1", Kind: "NodeClaim", Name: "gpu-x", UID: "u"}
					if tt.change != nil {
						tt.change(w, n)
					}
				})
				p := testPolicy()
				p.NodeVerb = policy.NodeDeleteClaim
				e, _ := run(t, p, w, "a")
				w.panics(1)
				inc := incident(1, boot1, secret1)
				inc.Identity.Instance = "" // the address is enough, and two nodes may say that they are the instance
				offer(t, w, inc, e)
				pass(20 * time.Second)
				if tt.then != nil {
					if d := w.only(); d.Condition(policy.Settled).Message != asked || d.Phase != policy.Cleaning {
						t.Errorf("phase %s, Settled %+v; want Cleaning, %s", d.Phase, d.Condition(policy.Settled), asked)
					}
					tt.then(w)
				}
				pass(tt.after)
				var calls []string
				for _, call := range w.log() {
					if strings.HasPrefix(call, "delete n") {
						calls = append(calls, call)
					}
				}
				if diff := cmp.Diff(tt.calls, calls); diff != "" {
					t.Errorf("deletions (-want +got):\n%s", diff)
				}
				d := w.only()
				got := d.Condition(policy.Settled)
				tt.want.Type, got.Time = policy.Settled, time.Time{}
				if diff := cmp.Diff(tt.want, got); diff != "" || d.Phase != policy.Cleaned {
					t.Errorf("phase %s, Settled (-want +got):\n%s", d.Phase, diff)
				}
			})
		})
	}
}
