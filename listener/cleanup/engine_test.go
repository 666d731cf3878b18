package cleanup

import (
	"context"
	"fmt"
	"github.com/lastgasp/lastgasp/listener/policy"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// run starts an engine in the bubble; the function returned stops it and waits.
func run(t *testing.T, p policy.Policy, c Cluster, replica string) (*Engine, func()) {
	t.Helper()
	return runOn(t, p, c, nil, replica)
}

func runOn(t *testing.T, p policy.Policy, c Cluster, instances Instances, replica string, change ...func(*Engine)) (*Engine, func()) {
	t.Helper()
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	e := NewEngine(p, c, instances, replica, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})))
	for _, f := range change {
		f(e)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	switch c := c.(type) {
	case *world:
		wg.Go(func() { renew(ctx, c, nil, replica) })
	case faulty:
		wg.Go(func() { renew(ctx, c.world, c.before, replica) })
	}
	wg.Go(func() {
		if err := e.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	stop := func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return e, stop
}

// bubble runs f with virtual time and a world with two nodes and their kubelets.
func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.addNode(1, boot1, secret1)
		w.addNode(2, "boot of node 2", "secret of node 2")
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(func() { cancel(); synctest.Wait() })
		go w.kubelets(ctx)
		f(t, w)
	})
}

// pass lets time pass, and everything happen that happens in it.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// offer hands an incident to the engines.
func offer(t *testing.T, w *world, inc detect.Incident, engines ...*Engine) {
	t.Helper()
	for _, e := range engines {
		if !e.Offer(inc) {
			t.Fatal("incident not taken")
		}
	}
}

func TestCleanupOfOneNode(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.populate("n2")
		w.set(func() { w.volumes["n1"] = 2 })
		pass(time.Second)
		inc := incident(1, boot1, secret1)
		pass(20 * time.Millisecond)
		w.addPod("n1", "n1-young", "apps/v1 ReplicaSet", nil)
		w.set(func() { // bound to the node after its death: nobody will start it there
			p := w.pods["default/n1-young"]
			p.Created, p.Started = time.Now(), time.Time{}
			w.pods["default/n1-young"] = p
		})
		w.panics(1)
		e, _ := run(t, testPolicy(), w, "a")
		var fenced []time.Duration
		e.Observer.Fenced = func(d time.Duration) { fenced = append(fenced, d) }
		offer(t, w, inc, e)
		pass(5 * time.Second)

		want := []string{
			"create Cleaning death", "fence n1",
			"annotate n1-static", "fail n1-bare", "fail n1-db", "fail n1-log", "fail n1-sum", "fail n1-web", "fail n1-young",
			"out-of-service=true n1",
			"delete n1-sum", // a Job's first
			"delete n1-bare", "delete n1-db", "delete n1-log", "delete n1-web", "delete n1-young",
			"delete n1", // last
		}
		got := w.log()
		slices.Sort(got[:2]) // in parallel
		slices.Sort(got[2:9])
		slices.Sort(got[11:16])
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
		r := w.only()
		if r.Phase != policy.Cleaned || r.PodsFailed != 6 || r.PodsTotal != 6 || r.Authority != detect.Pinned || r.Boot != boot1 {
			t.Errorf("death: %+v", r)
		}
		var steps []string
		for _, s := range r.Steps {
			steps = append(steps, fmt.Sprintf("%s %v: %s", s.Name, s.Done, s.Note))
		}
		wantSteps := []string{
			"fence true: node n1 fenced",
			"list true: 9 pods: 6 to fail, 0 failed before, 1 to annotate, 2 to leave alone",
			"fail true: 6 failed, 1 annotated, 2 left alone",
			"events true: node, 6 pods and 5 owners",
			"condition true: its kernel is not healthy",
			"detach true: 2 volumes attached; node out of service",
			"delete true: 6 deleted; default/n1-db waits for finalizer example.com/backup",
			"node true: deleted",
		}
		if diff := cmp.Diff(wantSteps, steps); diff != "" {
			t.Errorf("steps (-want +got):\n%s", diff)
		}
		if len(fenced) != 1 || fenced[0] < 20*time.Millisecond || fenced[0] > time.Second {
			t.Errorf("fence latencies %v, want one, counted from the panic", fenced)
		}
		var events []string
		for _, ev := range w.events {
			events = append(events, ev.Reason+" "+ev.Node.Name+ev.Pod.Name+ev.Owner.Kind)
		}
		slices.Sort(events)
		if diff := cmp.Diff([]string{
			"KernelPanic DaemonSet", "KernelPanic Job", "KernelPanic ReplicaSet", "KernelPanic ReplicaSet", "KernelPanic StatefulSet",
			"KernelPanic n1", "KernelPanic n1-bare", "KernelPanic n1-db", "KernelPanic n1-log", "KernelPanic n1-sum",
			"KernelPanic n1-web", "KernelPanic n1-young",
		}, events); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func TestTraceIsCompletedAfterwards(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		inc := incident(1, boot1, secret1)
		w.panics(1)
		a, _ := run(t, testPolicy(), w, "a")
		b, _ := run(t, testPolicy(), w, "b")
		offer(t, w, inc, a, b)
		pass(3 * time.Second) // the cleanup is over and the Node is gone
		inc.Complete, inc.Title = true, "sysrq triggered crash in write_sysrq_trigger"
		inc.Trace = append(inc.Trace, "Call Trace:", " panic+0x1", "---[ end Kernel panic ]---")
		offer(t, w, inc, a, b)
		pass(3 * time.Second)
		r := w.only()
		if r.Phase != policy.Cleaned || r.Reason != inc.Title || len(r.Trace) != 5 {
			t.Errorf("death: phase %s, title %q, %d lines", r.Phase, r.Reason, len(r.Trace))
		}
	})
}

func TestTraceIsCompletedDuringCleanup(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.set(func() { w.latency = 700 * time.Millisecond })
		inc := incident(1, boot1, secret1)
		w.panics(1)
		a, _ := run(t, testPolicy(), w, "a")
		offer(t, w, inc, a)
		pass(4 * time.Second)
		inc.Complete = true
		inc.Trace = append(inc.Trace, "Call Trace:")
		offer(t, w, inc, a)
		pass(time.Minute)
		if r := w.only(); r.Phase != policy.Cleaned || len(r.Trace) != 3 {
			t.Errorf("death: phase %s, %d lines", r.Phase, len(r.Trace))
		}
	})
}

func TestTwoReplicasCleanUpOnce(t *testing.T) {
	for _, latency := range []time.Duration{0, time.Millisecond, 2 * time.Second} {
		t.Run(fmt.Sprintf("with calls that take %s", latency), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				pods := w.populate("n1")
				w.set(func() { w.volumes["n1"] = 1; w.latency = latency })
				inc := incident(1, boot1, secret1)
				w.panics(1)
				a, _ := run(t, testPolicy(), w, "a")
				b, _ := run(t, testPolicy(), w, "b")
				offer(t, w, inc, a, b)
				pass(2 * time.Minute)
				w.cleanedOnce(pods)
			})
		})
	}
}

// cleanedOnce checks that everything on n1 happened, and once.
func (w *world) cleanedOnce(pods []string) {
	w.t.Helper()
	r := w.only()
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Phase != policy.Cleaned {
		w.t.Errorf("phase %s (%s), want Cleaned", r.Phase, r.Decision)
	}
	for _, name := range pods {
		if n := w.failures["uid-"+name]; n != 1 {
			w.t.Errorf("pod %s failed %d times, want once", name, n)
		}
	}
	if len(w.failures) != len(pods) {
		w.t.Errorf("failed %v, want %v", slices.Sorted(maps.Keys(w.failures)), pods)
	}
	if w.created != 1 {
		w.t.Errorf("%d deaths created, want 1", w.created)
	}
	if _, ok := w.nodes["n1"]; ok {
		w.t.Error("node n1 is still there")
	}
	for _, once := range []string{"fence n1", "delete n1", "out-of-service=true n1"} {
		n := 0
		for _, c := range w.calls {
			if c == once {
				n++
			}
		}
		if n > 1 {
			w.t.Errorf("%d × %s, want once", n, once)
		}
	}
	lastFail, firstDelete := -1, len(w.calls)
	for i, c := range w.calls {
		if strings.HasPrefix(c, "fail ") {
			lastFail = i
		}
		if strings.HasPrefix(c, "delete n1-") {
			firstDelete = min(firstDelete, i)
		}
	}
	if firstDelete < lastFail {
		w.t.Errorf("a pod was deleted before the last was failed: %q", w.calls)
	}
	for name, p := range w.pods {
		if p.Node == "n1" && p.Phase == "Running" && !p.Mirror {
			w.t.Errorf("pod %s still runs on the dead node", name)
		}
		if w.failures[p.UID] > 0 && !p.Deleting {
			w.t.Errorf("pod %s was failed and not deleted", name)
		}
	}
	if r.PodsFailed != len(pods) || r.PodsTotal != len(pods) {
		w.t.Errorf("%d/%d pods on record, want %d", r.PodsFailed, r.PodsTotal, len(pods))
	}
}

func TestStormIsHeldByTheBreakerAndReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(func() { cancel(); synctest.Wait() })
		go w.kubelets(ctx)
		const nodes = 20
		p := testPolicy()
		p.MaxNodes, p.MaxPercent = 3, 10
		a, _ := run(t, p, w, "a")
		for i := 1; i <= nodes; i++ {
			w.addNode(i, fmt.Sprint("boot ", i), secret1)
			w.populate(fmt.Sprintf("n%d", i))
		}
		for i := 1; i <= 8; i++ {
			w.panics(i)
			offer(t, w, incident(i, fmt.Sprint("boot ", i), secret1), a)
		}
		pass(30 * time.Second)
		phases := func() map[policy.Phase]int {
			w.mu.Lock()
			defer w.mu.Unlock()
			m := map[policy.Phase]int{}
			for _, r := range w.deaths {
				m[r.Phase]++
			}
			return m
		}
		if diff := cmp.Diff(map[policy.Phase]int{policy.Cleaned: 3, policy.Held: 5}, phases()); diff != "" {
			t.Fatalf("phases (-want +got):\n%s", diff)
		}
		for _, n := range w.nodes {
			if w.dead[n.Name] != n.Fenced {
				t.Errorf("node %s: dead %v, fenced %v", n.Name, w.dead[n.Name], n.Fenced)
			}
		}
		w.set(func() { // a human looks at one of them
			for k, r := range w.deaths {
				if r.Phase == policy.Held {
					r.Released, r.Version = true, w.next()
					w.deaths[k] = r
					break
				}
			}
		})
		pass(10 * time.Second)
		if diff := cmp.Diff(map[policy.Phase]int{policy.Cleaned: 4, policy.Held: 4}, phases()); diff != "" {
			t.Errorf("after the release (-want +got):\n%s", diff)
		}
		// One of the held nodes comes back by itself: re-examined, not replayed.
		var back string
		w.set(func() {
			for _, r := range w.deaths {
				if r.Phase == policy.Held {
					back = r.Node
				}
			}
		})
		var i int
		fmt.Sscanf(back, "n%d", &i)
		w.reboots(i, boot2)
		pass(11 * time.Minute)
		if diff := cmp.Diff(map[policy.Phase]int{policy.Cleaned: 7, policy.Recorded: 1}, phases()); diff != "" {
			t.Errorf("after the window (-want +got):\n%s", diff)
		}
		if n := w.node(back); n.Fenced || n.Mark != (policy.Mark{}) {
			t.Errorf("node %s is back and still fenced: %+v", back, n)
		}
	})
}

// A scan that finds claims which are still being judged must not take them for deaths that were let through.
func TestClaimsUnderWayDoNotPassTheBreaker(t *testing.T) {
	for ahead := time.Duration(0); ahead < 2*time.Second; ahead += 200 * time.Millisecond {
		t.Run(fmt.Sprintf("incidents %s after a scan", ahead), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				const nodes = 40
				for i := 10; i < 10+nodes; i++ {
					w.addNode(i, fmt.Sprint("boot ", i), secret1)
				}
				w.set(func() { w.latency = 300 * time.Millisecond })
				p := testPolicy()
				p.MaxNodes, p.MaxPercent = 3, 0
				a, _ := run(t, p, w, "a")
				pass(ahead)
				for i := 10; i < 10+nodes; i++ {
					w.panics(i)
					offer(t, w, incident(i, fmt.Sprint("boot ", i), secret1), a)
				}
				pass(time.Minute)
				cleaned := 0
				w.set(func() {
					for _, r := range w.deaths {
						if r.Phase == policy.Cleaned {
							cleaned++
						}
					}
				})
				if cleaned != p.MaxNodes {
					t.Errorf("%d nodes were cleaned up, want %d", cleaned, p.MaxNodes)
				}
			})
		})
	}
}

// Nor may who takes over claims that nobody had decided on let all of them through because it has seen them.
func TestClaimsTakenOverDoNotPassTheBreaker(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const nodes = 12
		for i := 10; i < 10+nodes; i++ {
			w.addNode(i, fmt.Sprint("boot ", i), secret1)
		}
		w.set(func() { w.latency = 300 * time.Millisecond })
		p := testPolicy()
		p.MaxNodes, p.MaxPercent = 3, 0
		a, stop := run(t, p, w, "a")
		run(t, p, w, "b")
		for i := 10; i < 10+nodes; i++ {
			w.panics(i)
			offer(t, w, incident(i, fmt.Sprint("boot ", i), secret1), a)
		}
		pass(time.Second) // a finds, fences and claims; it does not get to decide
		stop()
		w.set(func() {
			for _, r := range w.deaths {
				if !r.Phase.AtWork() && r.Phase != policy.Held {
					t.Errorf("death of %s is %s, want it at work or held: the test proves nothing", r.Node, r.Phase)
				}
			}
		})
		pass(time.Minute)
		phases := map[policy.Phase]int{}
		w.set(func() {
			for _, r := range w.deaths {
				phases[r.Phase]++
			}
		})
		if diff := cmp.Diff(map[policy.Phase]int{policy.Cleaned: 3, policy.Held: nodes - 3}, phases); diff != "" {
			t.Errorf("phases (-want +got):\n%s", diff)
		}
	})
}

func TestFalseAlarm(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.unpin()
		a, _ := run(t, testPolicy(), w, "a")
		b, _ := run(t, testPolicy(), w, "b")
		offer(t, w, incident(1, boot1, "guessed"), a, b)
		pass(time.Second)
		if !w.node("n1").Fenced {
			t.Fatal("not fenced while the witness is waited for")
		}
		pass(15 * time.Second)
		if r := w.only(); r.Phase != policy.Refused || !strings.Contains(r.Decision, "renewed its Lease") {
			t.Fatalf("death: %s, %s", r.Phase, r.Decision)
		}
		if n := w.node("n1"); n.Fenced || n.Mark != (policy.Mark{}) {
			t.Fatalf("still fenced: %+v", n)
		}

		// Again at once, and later by a replica that did not refuse it itself and knows of it from the death; and under other
		// boots, too: that is judged, and recorded, but nothing is fenced any more, by no replica.
		before := len(w.log())
		for i := range 5 {
			offer(t, w, incident(1, boot1, "guessed"), a)
			pass(20 * time.Second)
			offer(t, w, incident(1, boot1, "guessed"), b)
			pass(20 * time.Second)
			offer(t, w, incident(1, fmt.Sprint("invented ", i), ""), a, b)
			pass(20 * time.Second)
		}
		for _, c := range w.log()[before:] {
			if !strings.Contains(c, " death") {
				t.Errorf("the forger was believed: %s", c)
			}
		}

		// The true death of that boot is not lost by the false one.
		change(w, func(n *policy.Node) { n.Pin = policy.Pin{Boot: boot1, Sum: secret1.Sum()} })
		w.panics(1)
		offer(t, w, incident(1, boot1, secret1), a, b)
		pass(10 * time.Second)
		w.set(func() {
			if d := w.deaths[policy.DeathName("n1", boot1)]; d.Phase != policy.Cleaned || d.Authority != detect.Pinned {
				t.Errorf("death: %+v", d)
			}
		})
	})
}

func TestWeakGaspIsCorroborated(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		inc := incident(1, "", "")
		inc.Identity = netconsole.Identity{} // Linux 6.1: known by its address alone, and never pinned
		w.unpin()
		w.panics(1)
		e, _ := run(t, testPolicy(), w, "a")
		offer(t, w, inc, e)
		pass(41 * time.Second)
		if w.failed() != 0 || !w.node("n1").Fenced {
			t.Fatal("acted on before there was a witness, or not fenced")
		}
		pass(5 * time.Second)
		w.cleanedOnce(pods)
		if r := w.only(); r.Boot != boot1 || r.Authority != detect.Kernel {
			t.Errorf("boot %q, authority %v; want the Node's boot, kernel", r.Boot, r.Authority)
		}
	})
}

func TestWrongNodes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		world func(w *world)
		inc   func() detect.Incident
		phase policy.Phase // empty: Refused
		why   string
	}{
		{
			name: "a boot that is over, without its secret", world: func(w *world) { w.reboots(1, boot2) },
			inc: func() detect.Incident { return incident(1, boot1, "guessed") }, why: "the panic came from boot " + boot1,
		},
		{
			name: "a boot that is over, with its secret", world: func(w *world) { w.reboots(1, boot2) },
			inc: func() detect.Incident { return incident(1, boot1, secret1) }, phase: policy.Recorded, why: "the node runs boot",
		},
		{
			name: "an address that another instance has by now",
			inc: func() detect.Incident {
				inc := incident(1, boot1, secret1)
				inc.Source = incident(2, "", "").Source
				return inc
			},
			why: "no Node answers to instance i-1 with address 10.0.0.2",
		},
		{
			name: "two Nodes with one address",
			world: func(w *world) {
				w.set(func() { n := w.nodes["n2"]; n.Addresses = append(n.Addresses, address(1)); w.nodes["n2"] = n })
			},
			inc: func() detect.Incident {
				inc := incident(1, "", "")
				inc.Identity = netconsole.Identity{}
				return inc
			},
			why: "more than one Node answers",
		},
		{
			name: "text from userspace",
			inc: func() detect.Incident {
				inc := incident(1, boot1, secret1)
				inc.Authority = detect.Text
				return inc
			},
			why: "anybody could have sent",
		},
		{
			name: "a pod on the node that guessed the boot",
			inc:  func() detect.Incident { return incident(1, boot1, "guessed") }, why: "renewed its Lease",
		},
		{
			name: "a control-plane node",
			world: func(w *world) {
				change(w, func(n *policy.Node) { n.ControlPlane = true })
			},
			inc: func() detect.Incident { return incident(1, boot1, secret1) }, why: "control plane", phase: policy.Recorded,
		},
		{
			name: "a host that is no Node",
			inc:  func() detect.Incident { return incident(99, boot1, secret1) }, why: "no Node answers",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				w.populate("n2")
				pass(time.Second)
				if tt.world != nil {
					tt.world(w)
				}
				a, _ := run(t, testPolicy(), w, "a")
				b, _ := run(t, testPolicy(), w, "b")
				offer(t, w, tt.inc(), a, b)
				pass(30 * time.Second)
				if tt.phase == "" {
					tt.phase = policy.Refused
				}
				if r := w.only(); r.Phase != tt.phase || !strings.Contains(r.Decision, tt.why) {
					t.Errorf("death: %s, %s; want …%s…", r.Phase, r.Decision, tt.why)
				}
				for _, c := range w.log() {
					if strings.HasPrefix(c, "delete") || strings.HasPrefix(c, "fail") {
						t.Errorf("%s", c)
					}
				}
				for _, n := range w.nodes {
					if n.Fenced {
						t.Errorf("node %s is left fenced", n.Name)
					}
				}
			})
		})
	}
}

func TestForgerIsDistrustedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, _ := run(t, testPolicy(), w, "a")
		offer(t, w, incident(1, boot2, ""), a)
		pass(time.Millisecond)
		offer(t, w, incident(1, boot1, ""), a) // before any death was read again
		pass(time.Minute)
		if diff := cmp.Diff([]string{"create Refused death", "create Pending death"}, w.log()); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
	})
}

// A replica whose cache still has a refused incident must not lift the fence of the true one that took its place.
func TestFenceOfABetterGaspStays(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := testPolicy()
		p.NodeVerb = policy.NodeAwait
		a, _ := run(t, p, w, "a")
		b, _ := run(t, p, w, "b")
		w.panics(1)
		offer(t, w, incident(1, boot1, secret1), a)
		pass(5 * time.Second)
		if r := w.only(); r.Phase != policy.Cleaning {
			t.Fatalf("phase %s, want Cleaning: the node is awaited", r.Phase)
		}
		if err := b.newWork(detect.Incident{}, b.log).lift(t.Context(), w.node("n1")); err != nil {
			t.Fatal(err)
		}
		pass(5 * time.Second)
		if !w.node("n1").Fenced {
			t.Error("the fence was lifted from under a cleanup")
		}
	})
}

func TestFalseAlarmTakesNoRoomOnTheBreaker(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		p := testPolicy()
		p.MaxNodes, p.MaxPercent = 1, 0
		a, _ := run(t, p, w, "a")
		b, _ := run(t, p, w, "b")
		offer(t, w, incident(2, "boot of node 2", "guessed"), a, b)
		pass(20 * time.Second)
		w.set(func() { clear(w.deaths); w.created = 0 })
		w.panics(1)
		offer(t, w, incident(1, boot1, secret1), a, b)
		pass(20 * time.Second)
		w.cleanedOnce(pods)
	})
}

// A Node that came back with the boot that was cleaned up must have been alive all the time. A replay changes nothing.
func TestReplayOfWhatWasCleanedUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		w.panics(1)
		a, _ := run(t, testPolicy(), w, "a")
		inc := incident(1, boot1, secret1)
		offer(t, w, inc, a)
		pass(time.Minute)
		w.cleanedOnce(pods)
		n := w.addNode(1, boot1, secret1)
		w.set(func() { n.UID = "uid-n1-again"; w.nodes["n1"] = n; w.dead["n1"] = false })
		w.populate("n1")
		before := w.failed()
		offer(t, w, incident(1, boot1, secret1), a)
		pass(time.Minute)
		if n := w.node("n1"); n.Fenced || n.Mark != (policy.Mark{}) || w.failed() != before || w.only().Phase != policy.Cleaned {
			t.Errorf("node %+v, %d pods failed, phase %s", n, w.failed()-before, w.only().Phase)
		}
	})
}

// A weaker incident of a death that is on record may not put its own text there, whether its owner still works on it or not.
func TestForgedTraceIsNotRecorded(t *testing.T) {
	for _, verb := range []policy.NodeVerb{policy.NodeAnnotate, policy.NodeAwait} {
		t.Run(string(verb), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				w.panics(1)
				p := testPolicy()
				p.NodeVerb = verb
				a, _ := run(t, p, w, "a")
				b, _ := run(t, p, w, "b")
				offer(t, w, incident(1, boot1, secret1), a)
				pass(time.Second)
				forged := incident(1, boot1, "guessed")
				offer(t, w, forged, a, b)
				pass(time.Second)
				forged.Complete, forged.Trace = true, make([]string, 100)
				offer(t, w, forged, a, b)
				forged.Identity.Secret = "another guess" // heard complete at first
				offer(t, w, forged, a, b)
				pass(5 * time.Second)
				if r := w.only(); len(r.Trace) != 2 {
					t.Errorf("%d lines on record, want the true two", len(r.Trace))
				}
			})
		})
	}
}

// Sources cost nothing. What no Node answers to is recorded, but not without end.
func TestStrangersAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		e, _ := run(t, testPolicy(), w, "a")
		for i := 100; i < 100+2*refusalsInAll; i++ {
			for !e.Offer(incident(i, boot1, secret1)) {
				pass(time.Millisecond)
			}
		}
		pass(time.Minute)
		if w.created != refusalsInAll {
			t.Errorf("%d deaths, want %d", w.created, refusalsInAll)
		}
	})
}

// The node comes back, panics again before it is Ready, comes back again: two deaths, and the fence is the second's.
func TestCrashLoop(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		p := testPolicy()
		p.NodeVerb = policy.NodeAwait
		a, _ := run(t, p, w, "a")
		b, _ := run(t, p, w, "b")
		die := func(boot string) {
			change(w, func(n *policy.Node) {
				n.BootID, n.Ready, n.Pin = boot, false, policy.Pin{Boot: boot, Sum: secret1.Sum()}
			})
			w.panics(1)
			offer(t, w, incident(1, boot, secret1), a, b)
		}
		die(boot1)
		pass(10 * time.Second)
		die(boot2)
		pass(30 * time.Second)
		if n := w.node("n1"); !n.Fenced || n.Mark.Boot != boot2 {
			t.Fatalf("node %+v, want it fenced for its second boot", n)
		}
		w.reboots(1, "the third boot")
		pass(20 * time.Second)
		if n := w.node("n1"); n.Fenced || n.Mark != (policy.Mark{}) {
			t.Errorf("node %+v, want it unfenced", n)
		}
		w.set(func() {
			if len(w.deaths) != 2 {
				t.Errorf("%d deaths, want 2", len(w.deaths))
			}
			for _, r := range w.deaths {
				if r.Phase != policy.Cleaned {
					t.Errorf("death of boot %s: %s", r.Boot, r.Phase)
				}
			}
		})
	})
}

// The first record lost what tells whose it is; the next one of the same death has it.
func TestLaterRecordProvesMore(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		w.panics(1)
		a, _ := run(t, testPolicy(), w, "a")
		bare := incident(1, "", "")
		bare.Identity = netconsole.Identity{}
		offer(t, w, bare, a)
		pass(time.Second)
		if w.failed() > 0 || !w.node("n1").Fenced {
			t.Fatal("acted on an address alone, or not fenced")
		}
		whole := incident(1, boot1, secret1)
		offer(t, w, whole, a)
		pass(3 * time.Second)
		w.set(func() { w.created-- }) // the death of the first was replaced
		w.cleanedOnce(pods)
		whole.Complete, whole.Trace = true, append(whole.Trace, "Call Trace:")
		offer(t, w, whole, a)
		pass(3 * time.Second)
		if r := w.only(); r.Authority != detect.Pinned || len(r.Trace) != 3 {
			t.Errorf("authority %v, %d lines", r.Authority, len(r.Trace))
		}
	})
}

// A kernel without userdata dies, and again after its reboot, while the first death is still being waited about.
func TestSecondDeathWithoutUserdata(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := testPolicy()
		p.NodeVerb = policy.NodeAwait
		a, _ := run(t, p, w, "a")
		bare := incident(1, "", "")
		bare.Identity = netconsole.Identity{}
		w.panics(1)
		offer(t, w, bare, a)
		pass(50 * time.Second)
		w.reboots(1, boot2)
		change(w, func(n *policy.Node) { n.Ready = false })
		w.panics(1)
		bare.Time = time.Now()
		offer(t, w, bare, a)
		pass(30 * time.Second)
		w.set(func() {
			boots := map[string]bool{}
			for _, r := range w.deaths {
				boots[r.Boot] = true
			}
			if !boots[boot1] || !boots[boot2] {
				t.Errorf("deaths on record: %v, want both boots", boots)
			}
		})
	})
}

// Refused incidents from the address of a node that did die, which anybody may send, make no room for the next one.
func TestForgerDoesNotDrainTheBreaker(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := testPolicy()
		p.MaxNodes, p.MaxPercent, p.NodeVerb = 1, 0, policy.NodeAnnotate
		a, _ := run(t, p, w, "a")
		w.panics(1)
		offer(t, w, incident(1, boot1, secret1), a)
		pass(5 * time.Second)
		offer(t, w, incident(1, "invented", ""), a)
		pass(time.Millisecond)
		w.panics(2)
		offer(t, w, incident(2, "boot of node 2", "secret of node 2"), a)
		pass(5 * time.Second)
		w.set(func() {
			for _, r := range w.deaths {
				if want := map[string]policy.Phase{"n1": policy.Cleaned, "n2": policy.Held}[r.Node]; r.Boot != "invented" && r.Phase != want {
					t.Errorf("death of node %s: %s (%s), want %s", r.Node, r.Phase, r.Decision, want)
				}
			}
		})
	})
}

// Boot ids cost nothing either. What is refused is recorded, but not without end, and looked at ever so often only.
func TestRefusalsAreBounded(t *testing.T) {
	for name, tune := range map[string]func(w *world, p *policy.Policy){
		"of a control-plane node": func(w *world, p *policy.Policy) {
			change(w, func(n *policy.Node) { n.ControlPlane = true })
		},
		"without distrust": func(w *world, p *policy.Policy) { p.Distrust = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := testPolicy()
				tune(w, &p)
				finds := 0
				e, _ := run(t, p, faulty{world: w, before: func(_ context.Context, call string) error {
					if call == "FindNode" {
						w.set(func() { finds++ })
					}
					return nil
				}}, "a")
				for i := range 600 { // ten a second
					offer(t, w, incident(1, fmt.Sprint("invented ", i), ""), e)
					pass(100 * time.Millisecond)
				}
				pass(time.Minute)
				if w.created != refusalsPerAddress || finds > 12 {
					t.Errorf("%d deaths and %d look-ups, want %d and one each ten seconds", w.created, finds, refusalsPerAddress)
				}
			})
		})
	}
}

// A kubelet that was told to hold its Lease for 120 s is silent for 30 s at a time.
func TestLongLease(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		w.unpin()
		w.set(func() { w.lease = 2 * time.Minute })
		w.panics(1)
		e, _ := run(t, testPolicy(), w, "a")
		bare := incident(1, "", "")
		bare.Identity = netconsole.Identity{}
		offer(t, w, bare, e)
		pass(121 * time.Second)
		if w.failed() != 0 {
			t.Fatal("acted on before the Lease was silent for its whole duration")
		}
		pass(5 * time.Second)
		w.cleanedOnce(pods)
	})
}
