package cleanup

import (
	"context"
	"errors"
	"fmt"
	"github.com/lastgasp/lastgasp/listener/policy"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// faulty stands between an engine and the world. Every call that may be part of a cleanup passes through before and
// after; the reading of caches does not count.
type faulty struct {
	*world
	before func(ctx context.Context, call string) error // an error: the call never reaches the API server
	after  func(ctx context.Context, call string) error // an error: its answer never comes back
}

func through[T any](ctx context.Context, f faulty, call string, do func() (T, error)) (T, error) {
	var none T
	if f.before != nil {
		if err := f.before(ctx, call); err != nil {
			return none, err
		}
	}
	out, err := do()
	if f.after != nil {
		if err := f.after(ctx, call); err != nil {
			return none, err
		}
	}
	return out, err
}

func (f faulty) FindNode(ctx context.Context, who Sender) (policy.Node, error) {
	return through(ctx, f, "FindNode", func() (policy.Node, error) { return f.world.FindNode(ctx, who) })
}

func (f faulty) Node(ctx context.Context, name string) (policy.Node, error) {
	return through(ctx, f, "Node", func() (policy.Node, error) { return f.world.Node(ctx, name) })
}

func (f faulty) LeaseRenewed(ctx context.Context, node string) (policy.Renewal, error) {
	return through(ctx, f, "LeaseRenewed", func() (policy.Renewal, error) { return f.world.LeaseRenewed(ctx, node) })
}

func (f faulty) PatchNode(ctx context.Context, n policy.Node, p NodePatch) (policy.Node, error) {
	return through(ctx, f, "PatchNode", func() (policy.Node, error) { return f.world.PatchNode(ctx, n, p) })
}

func (f faulty) CloseNode(ctx context.Context, n policy.Node) (policy.Node, error) {
	return through(ctx, f, "CloseNode", func() (policy.Node, error) { return f.world.CloseNode(ctx, n) })
}
func (f faulty) SetHealth(ctx context.Context, n policy.Node, h policy.Health) (policy.Node, error) {
	return through(ctx, f, "SetHealth", func() (policy.Node, error) { return f.world.SetHealth(ctx, n, h) })
}

func (f faulty) DeleteNode(ctx context.Context, n policy.Node) error {
	_, err := through(ctx, f, "DeleteNode", func() (any, error) { return nil, f.world.DeleteNode(ctx, n) })
	return err
}

func (f faulty) CreateDeath(ctx context.Context, d policy.Death) (policy.Death, error) {
	return through(ctx, f, "CreateDeath", func() (policy.Death, error) { return f.world.CreateDeath(ctx, d) })
}

func (f faulty) DeleteDeath(ctx context.Context, d policy.Death) error {
	_, err := through(ctx, f, "DeleteDeath", func() (any, error) { return nil, f.world.DeleteDeath(ctx, d) })
	return err
}

func (f faulty) AmendDeath(ctx context.Context, d policy.Death) (policy.Death, error) {
	return through(ctx, f, "AmendDeath", func() (policy.Death, error) { return f.world.AmendDeath(ctx, d) })
}

func (f faulty) Death(ctx context.Context, name string) (policy.Death, error) {
	return through(ctx, f, "Death", func() (policy.Death, error) { return f.world.Death(ctx, name) })
}

func (f faulty) UpdateDeath(ctx context.Context, r policy.Death) (policy.Death, error) {
	return through(ctx, f, "UpdateDeath", func() (policy.Death, error) { return f.world.UpdateDeath(ctx, r) })
}

func (f faulty) Pods(ctx context.Context, node string) ([]policy.Pod, error) {
	return through(ctx, f, "Pods", func() ([]policy.Pod, error) { return f.world.Pods(ctx, node) })
}

func (f faulty) Pod(ctx context.Context, ns, name string) (policy.Pod, error) {
	return through(ctx, f, "Pod", func() (policy.Pod, error) { return f.world.Pod(ctx, ns, name) })
}

func (f faulty) FailPod(ctx context.Context, p policy.Pod, n policy.Notice) (policy.Pod, error) {
	return through(ctx, f, "FailPod", func() (policy.Pod, error) { return f.world.FailPod(ctx, p, n) })
}

func (f faulty) AnnotatePod(ctx context.Context, p policy.Pod, n policy.Notice) (policy.Pod, error) {
	return through(ctx, f, "AnnotatePod", func() (policy.Pod, error) { return f.world.AnnotatePod(ctx, p, n) })
}

func (f faulty) AnnotateFarewell(ctx context.Context, p policy.Pod, said policy.Farewell) error {
	_, err := through(ctx, f, "AnnotateFarewell", func() (any, error) { return nil, f.world.AnnotateFarewell(ctx, p, said) })
	return err
}

func (f faulty) DeletePod(ctx context.Context, p policy.Pod) error {
	_, err := through(ctx, f, "DeletePod", func() (any, error) { return nil, f.world.DeletePod(ctx, p) })
	return err
}

func (f faulty) UnreadyPod(ctx context.Context, p policy.Pod) error {
	_, err := through(ctx, f, "UnreadyPod", func() (any, error) { return nil, f.world.UnreadyPod(ctx, p) })
	return err
}

func (f faulty) DeleteNodeClaim(ctx context.Context, n policy.Node, death string) error {
	_, err := through(ctx, f, "DeleteNodeClaim", func() (any, error) { return nil, f.world.DeleteNodeClaim(ctx, n, death) })
	return err
}

func (f faulty) Attachments(ctx context.Context, node string) (int, error) {
	return through(ctx, f, "Attachments", func() (int, error) { return f.world.Attachments(ctx, node) })
}

// dying is a listener that is killed at its n-th API call: from then on nothing it sends gets through, and what the n-th
// call answered it never learns. A late death comes after that call got through.
func dying(w *world, n int, late bool) (c faulty, dead <-chan struct{}, calls func() int) {
	var mu sync.Mutex
	count, gone, die := 0, make(chan struct{}), new(sync.Once)
	isDead := func(call string, answered bool) bool {
		mu.Lock()
		defer mu.Unlock()
		if call == "Renew" {
			return count >= n
		}
		if !answered {
			count++
		}
		if count == n && answered == late {
			die.Do(func() { close(gone) })
			return true
		}
		return count > n
	}
	cut := func(ctx context.Context, dead bool) error {
		if dead {
			<-ctx.Done()
		}
		return ctx.Err()
	}
	c.world = w
	c.before = func(ctx context.Context, call string) error { return cut(ctx, isDead(call, false)) }
	c.after = func(ctx context.Context, call string) error { return cut(ctx, isDead(call, true)) }
	return c, gone, func() int { mu.Lock(); defer mu.Unlock(); return count }
}

// atEveryCall runs a test in which a replica is killed at its first API call, its second, and so on, until the test says that it
// made no more.
func atEveryCall(t *testing.T, test func(t *testing.T, w *world, n int) (more bool)) {
	for n, more := 1, true; more; n++ {
		t.Run(fmt.Sprintf("call %d", n), func(t *testing.T) {
			more = false
			bubble(t, func(t *testing.T, w *world) { more = test(t, w, n) })
		})
	}
}

// killed has replica a hear the incident first, and the others after it, and kills a at its n-th API call, before the call got
// through or, if late, after. It reports whether a came that far.
func killed(t *testing.T, w *world, p policy.Policy, inc detect.Incident, n int, late bool, others ...*Engine) bool {
	c, dead, calls := dying(w, n, late)
	a, kill := run(t, p, c, "a")
	defer kill()
	offer(t, w, inc, a)
	pass(time.Microsecond) // so that it is a's
	for _, b := range others {
		offer(t, w, inc, b)
	}
	select {
	case <-dead:
	case <-time.After(2 * time.Minute):
	}
	return calls() >= n
}

// TestKilledAtEveryCall kills the replica that owns the incident. Once another replica heard the incident, too, once only a
// restarted one is there to find what is left.
func TestKilledAtEveryCall(t *testing.T) {
	for _, second := range []string{"another replica that heard the incident", "a replica that did not hear it", "the same one restarted"} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("taken over by %s, answer lost %v", second, late), func(t *testing.T) {
				atEveryCall(t, func(t *testing.T, w *world, n int) bool {
					pods := w.populate("n1")
					w.set(func() { w.volumes["n1"] = 1; w.latency = time.Millisecond })
					w.panics(1)
					var others []*Engine
					if second == "another replica that heard the incident" {
						b, _ := run(t, testPolicy(), w, "b")
						others = append(others, b)
					}
					if !killed(t, w, testPolicy(), incident(1, boot1, secret1), n, late, others...) {
						return false // it was through before
					}
					fenced := w.node("n1").Fenced
					if others == nil {
						run(t, testPolicy(), w, map[bool]string{true: "a", false: "b"}[second == "the same one restarted"])
					}
					begun := time.Now()
					for w.pending() && time.Since(begun) < time.Minute {
						pass(100 * time.Millisecond)
					}
					took := time.Since(begun)
					if others == nil && !fenced && len(w.deaths) == 0 {
						return true // killed before it could do anything: nobody knows of the panic
					}
					w.cleanedOnce(pods)
					// Who did not hear the secret waits for the witness, and before that for a fence without a death.
					limit := 10 * time.Second
					if others == nil {
						limit = 42*time.Second + orphanAfter + time.Second
					}
					if took > limit {
						t.Errorf("finished %s after the owner's death, want %s", took, limit)
					}
					return true
				})
			})
		}
	}
}

// The same where a witness is awaited first: nobody acts before there is one, and everything is done once.
func TestKilledAtEveryCallWhileAWitnessIsAwaited(t *testing.T) {
	for _, heard := range []bool{true, false} {
		t.Run(fmt.Sprintf("the other heard it %v", heard), func(t *testing.T) {
			atEveryCall(t, func(t *testing.T, w *world, n int) (more bool) {
				pods := w.populate("n1")
				w.unpin()
				w.set(func() { w.latency = time.Millisecond })
				inc := incident(1, "", "")
				inc.Identity = netconsole.Identity{}
				w.panics(1)
				b, _ := run(t, testPolicy(), w, "b")
				var others []*Engine
				if heard {
					others = append(others, b)
				}
				more = killed(t, w, testPolicy(), inc, n, n%2 == 0, others...)
				if time.Since(inc.Time) < 40*time.Second && w.failed() > 0 {
					t.Errorf("%d pods failed without a witness", w.failed())
				}
				pass(2 * time.Minute)
				if heard || len(w.deaths) > 0 { // else it was killed before it could do anything
					w.cleanedOnce(pods)
				}
				return more
			})
		})
	}
}

// The same where the node is awaited: it comes back while it is not yet known who takes over, or after.
func TestKilledAtEveryCallOfAnAwaitedNode(t *testing.T) {
	atEveryCall(t, func(t *testing.T, w *world, n int) (more bool) {
		w.populate("n1")
		w.set(func() { w.volumes["n1"] = 1; w.latency = time.Millisecond })
		w.panics(1)
		p := testPolicy()
		p.NodeVerb = policy.NodeAwait
		b, _ := run(t, p, w, "b")
		more = killed(t, w, p, incident(1, boot1, secret1), n, n%2 == 0, b)
		pass(time.Duration(n%3) * 5 * time.Second)
		w.reboots(1, boot2)
		pass(20 * time.Second)
		r, node := w.only(), w.node("n1")
		if !r.Phase.Finished() || node.Name == "" || node.Fenced || node.OutOfService || node.Mark != (policy.Mark{}) {
			t.Errorf("phase %s (%s), node %+v; want it back in service", r.Phase, r.Decision, node)
		}
		w.set(func() {
			for uid, n := range w.failures {
				if n != 1 {
					t.Errorf("pod %s failed %d times", uid, n)
				}
			}
			for name, p := range w.pods {
				if w.failures[p.UID] > 0 && !p.Deleting {
					t.Errorf("pod %s was failed and not deleted", name)
				}
			}
		})
		return more
	})
}

// pending reports whether there is a death at work or a fence without one.
func (w *world) pending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.deaths {
		if r.Phase.AtWork() {
			return true
		}
	}
	return len(w.deaths) == 0
}

func TestAPIServerDownAtThePanic(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		w.set(func() { w.down = true })
		inc := incident(1, boot1, secret1)
		w.panics(1)
		a, _ := run(t, testPolicy(), w, "a")
		b, _ := run(t, testPolicy(), w, "b")
		offer(t, w, inc, a, b)
		pass(time.Minute)
		w.set(func() { w.down = false })
		pass(20 * time.Second)
		w.cleanedOnce(pods)
		if r := w.only(); !r.Time.Equal(inc.Time) {
			t.Errorf("death says %s, it was heard at %s", r.Time, inc.Time)
		}
	})
}

func TestAPIServerDownDuringTheCleanup(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		w.set(func() { w.latency = 100 * time.Millisecond })
		w.panics(1)
		a, _ := run(t, testPolicy(), w, "a")
		b, _ := run(t, testPolicy(), w, "b")
		offer(t, w, incident(1, boot1, secret1), a, b)
		pass(650 * time.Millisecond)
		w.set(func() { w.down = true })
		pass(time.Minute)
		w.set(func() { w.down = false })
		pass(time.Minute)
		w.cleanedOnce(pods)
	})
}

func TestFaultsAtRandom(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				pods := w.populate("n1")
				w.set(func() { w.volumes["n1"] = 1; w.latency = 5 * time.Millisecond })
				w.panics(1)
				var mu sync.Mutex
				dice := rand.New(rand.NewPCG(seed, 0))
				chance := func(context.Context, string) error {
					mu.Lock()
					defer mu.Unlock()
					switch dice.IntN(10) {
					case 0:
						return errors.New("500 internal error")
					case 1:
						return errors.New("429 too many requests")
					}
					return nil
				}
				touch := func(_ context.Context, call string) error { // somebody else writes, so that ours conflicts
					mu.Lock()
					hit := dice.IntN(10) == 0
					mu.Unlock()
					if hit && (call == "PatchNode" || call == "FailPod") {
						w.set(func() {
							for k, n := range w.nodes {
								n.ResourceVersion = w.next()
								w.nodes[k] = n
							}
							for k, p := range w.pods {
								p.ResourceVersion = w.next()
								w.pods[k] = p
							}
						})
					}
					return chance(nil, call)
				}
				a, _ := run(t, testPolicy(), faulty{w, touch, chance}, "a")
				b, _ := run(t, testPolicy(), faulty{w, touch, chance}, "b")
				offer(t, w, incident(1, boot1, secret1), a, b)
				pass(3 * time.Minute)
				w.cleanedOnce(pods)
			})
		})
	}
}

// The owner is cut off for a while, not dead. It must notice that the death is another's by now, and stop.
func TestOwnerThatWasCutOff(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		w.set(func() { w.volumes["n1"] = 1; w.latency = 50 * time.Millisecond })
		w.panics(1)
		p := testPolicy()
		p.KeepPods = time.Minute // so that there is something left to do when it is back
		cut := false
		a, _ := run(t, p, faulty{world: w, before: func(context.Context, string) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if cut {
				return errors.New("no route to host")
			}
			return nil
		}}, "a")
		run(t, p, w, "b")
		offer(t, w, incident(1, boot1, secret1), a)
		pass(350 * time.Millisecond)
		w.set(func() { cut = true })
		pass(20 * time.Second)
		if r := w.only(); r.Owner != "b" {
			t.Fatalf("owner %s, want b", r.Owner)
		}
		w.set(func() { cut = false })
		for range 40 {
			pass(500 * time.Millisecond)
			if r := w.only(); r.Owner != "b" {
				t.Fatalf("owner %s, want b still", r.Owner)
			}
		}
		pass(2 * time.Minute)
		w.cleanedOnce(pods)
	})
}

func TestAwaitedNodeIsUnfencedAfterARestart(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.panics(1)
		p := testPolicy()
		p.NodeVerb = policy.NodeAwait
		a, stop := run(t, p, w, "a")
		offer(t, w, incident(1, boot1, secret1), a)
		pass(5 * time.Second)
		stop()
		w.reboots(1, boot2)
		pass(time.Minute)
		if !w.node("n1").Fenced {
			t.Fatal("unfenced while nobody was there")
		}
		told := len(w.events)
		run(t, p, w, "a")
		pass(10 * time.Second)
		if n := w.node("n1"); n.Fenced || n.Mark != (policy.Mark{}) || w.only().Phase != policy.Cleaned {
			t.Errorf("node %+v, phase %s", n, w.only().Phase)
		}
		if len(w.events) != told {
			t.Errorf("%d events more: people were told already", len(w.events)-told)
		}
	})
}

// A listener dies between fence and death, and what was heard was a lie.
func TestOrphanedFenceOfALivingNode(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		change(w, func(n *policy.Node) {
			n.Fenced, n.Mark = true, policy.Mark{Death: policy.DeathName("n1", boot1), Boot: boot1, Reason: "a lie"}
		})
		run(t, testPolicy(), w, "a")
		pass(time.Minute)
		if n := w.node("n1"); n.Fenced || n.Mark != (policy.Mark{}) || w.failed() > 0 {
			t.Errorf("node %+v, %d pods failed", n, w.failed())
		}
		if r := w.only(); r.Phase != policy.Refused || r.Reason != "a lie" {
			t.Errorf("death: %+v", r)
		}
	})
}

// Whoever deletes a death that is being worked on has it judged anew, from the fence on.
func TestRecordDeletedByAHuman(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		w.panics(1)
		p := testPolicy()
		p.NodeVerb = policy.NodeAwait
		a, _ := run(t, p, w, "a")
		offer(t, w, incident(1, boot1, secret1), a)
		pass(5 * time.Second)
		w.set(func() { clear(w.deaths) })
		pass(time.Minute)
		if r := w.only(); r.Phase != policy.Cleaning {
			t.Errorf("phase %s, want Cleaning: awaited", r.Phase)
		}
		pass(15 * time.Minute)
		if r := w.only(); r.Phase != policy.Cleaned || w.failed() != len(pods) || w.node("n1").Name != "" {
			t.Errorf("phase %s, %d pods failed, node %+v", r.Phase, w.failed(), w.node("n1"))
		}
	})
}

func TestOldRecordsGo(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := testPolicy()
		p.KeepRecords = 2
		w.set(func() {
			for i := range 5 {
				r := policy.Death{Name: fmt.Sprint("r", i), UID: fmt.Sprint("u", i), Phase: policy.Cleaned, Created: time.Now().Add(-time.Duration(i) * time.Hour)}
				w.deaths[r.Name] = r
			}
		})
		run(t, p, w, "a")
		run(t, p, w, "b")
		pass(10 * time.Second)
		w.set(func() {
			if _, r0 := w.deaths["r0"]; len(w.deaths) != 2 || !r0 {
				t.Errorf("left: %v, want the newest two", w.deaths)
			}
		})
	})
}

// The owner waits, for a minute and more; meanwhile somebody else changes the death, and nobody may take the owner for
// dead.
func TestOwnerThatWaitsShowsThatItLives(t *testing.T) {
	for _, tt := range []struct {
		name  string
		story func(w *world, p *policy.Policy, inc *detect.Incident)
	}{
		{"for the node", func(_ *world, p *policy.Policy, _ *detect.Incident) { p.NodeVerb = policy.NodeAwait }},
		{"for kept pods", func(_ *world, p *policy.Policy, _ *detect.Incident) { p.KeepPods = time.Hour }},
		{"for the witness", func(_ *world, p *policy.Policy, inc *detect.Incident) {
			p.Corroborate = 2 * time.Minute
			inc.Identity.Secret = ""
		}},
		{"for volumes", func(w *world, _ *policy.Policy, _ *detect.Incident) {
			w.addPod("n1", "n1-wants-it", "", func(p *policy.Pod) { p.Started = time.Now().Add(time.Hour) })
			w.set(func() { w.volumes["n1"] = 1 })
		}},
		{"for slow calls", func(w *world, _ *policy.Policy, _ *detect.Incident) { w.set(func() { w.latency = 2 * time.Second }) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				w.panics(1)
				p, inc := testPolicy(), incident(1, boot1, secret1)
				tt.story(w, &p, &inc)
				a, _ := run(t, p, w, "a")
				run(t, p, w, "b")
				offer(t, w, inc, a)
				for range 5 {
					pass(15 * time.Second)
					r := w.only()
					if r.Owner != "a" {
						t.Fatalf("owner %s, want a: it lives", r.Owner)
					}
					r.Version = w.next()
					w.set(func() { w.deaths[r.Name] = r })
				}
			})
		})
	}
}

// stale answers from caches that have stopped.
type stale struct {
	*world
	deaths []policy.Death
	marked []policy.Node
}

func (s stale) Deaths(context.Context) ([]policy.Death, error)     { return s.deaths, nil }
func (s stale) MarkedNodes(context.Context) ([]policy.Node, error) { return s.marked, nil }

func TestStaleCacheTakesNothingOver(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.panics(1)
		p := testPolicy()
		p.NodeVerb = policy.NodeAwait
		a, _ := run(t, p, w, "a")
		offer(t, w, incident(1, boot1, secret1), a)
		pass(5 * time.Second)
		run(t, p, stale{world: w, deaths: []policy.Death{w.only()}}, "b")
		pass(time.Minute)
		if r := w.only(); r.Owner != "a" {
			t.Errorf("owner %s, want a: it lives", r.Owner)
		}
	})
}

func TestStaleCacheLiftsNoOtherFence(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		n := w.node("n1")
		n.Fenced, n.Mark = true, policy.Mark{Death: "refused", Boot: "an earlier boot"}
		before := n
		n.Mark = policy.Mark{Death: "newer", Boot: boot1}
		w.set(func() { w.nodes["n1"] = n })
		run(t, testPolicy(), stale{w, []policy.Death{{Name: "refused", Phase: policy.Refused, Node: "n1"}}, []policy.Node{before}}, "a")
		pass(time.Minute)
		if !w.node("n1").Fenced {
			t.Error("the fence of a newer death was lifted")
		}
	})
}

// The owner dies after it has failed and deleted the pods; then the node comes back. That ends the cleanup, it does not
// make a false alarm of it.
func TestNodeComesBackWhileNobodyIsThere(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.set(func() { delete(w.pods, "default/n1-db") }) // it would stay, for its finalizer, and tell
		w.panics(1)
		c := faulty{world: w, before: func(ctx context.Context, call string) error {
			if call == "DeleteNode" {
				<-ctx.Done()
			}
			return ctx.Err()
		}}
		a, stop := run(t, testPolicy(), c, "a")
		offer(t, w, incident(1, boot1, secret1), a)
		pass(time.Second)
		stop()
		w.reboots(1, boot2)
		run(t, testPolicy(), w, "b")
		pass(20 * time.Second)
		if r := w.only(); r.Phase != policy.Cleaned || r.PodsFailed != 4 || w.node("n1").Fenced {
			t.Errorf("phase %s (%s), %d pods, fenced %v", r.Phase, r.Decision, r.PodsFailed, w.node("n1").Fenced)
		}
	})
}

// What an incident proved is not more after a restart than before.
func TestAuthorityDoesNotGrowByATakeover(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		p := testPolicy()
		p.ActAt = detect.Boot
		a, stop := run(t, p, w, "a")
		offer(t, w, incident(1, boot1, "guessed"), a) // kernel authority: the boot is pinned to another secret
		pass(time.Second)
		stop()
		run(t, p, w, "b")
		pass(time.Minute)
		if r := w.only(); r.Phase != policy.Refused || r.Authority != detect.Kernel || w.failed() > 0 {
			t.Errorf("phase %s, authority %v, %d pods failed", r.Phase, r.Authority, w.failed())
		}
	})
}

// While the API server is away owners cannot show that they live. That is no reason to take anything from them.
func TestOutageIsNoSilence(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.panics(1)
		p := testPolicy()
		p.NodeVerb = policy.NodeAwait
		a, _ := run(t, p, w, "a")
		run(t, p, w, "b")
		offer(t, w, incident(1, boot1, secret1), a)
		pass(5 * time.Second)
		w.set(func() { w.down = true })
		pass(time.Minute)
		w.set(func() { w.down = false })
		pass(time.Minute)
		if r := w.only(); r.Owner != "a" {
			t.Errorf("owner %s, want a", r.Owner)
		}
	})
}

// Without the right to claim nobody acts. A false alarm may not keep its node fenced for that.
func TestDeniedClaimOfANodeThatLives(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		denied := faulty{world: w, before: func(_ context.Context, call string) error {
			if call == "CreateDeath" {
				return fmt.Errorf("too long: %w", ErrDenied)
			}
			return nil
		}}
		a, _ := run(t, testPolicy(), denied, "a")
		b, _ := run(t, testPolicy(), denied, "b")
		offer(t, w, incident(1, boot1, "guessed"), a, b)
		pass(time.Second)
		if !w.node("n1").Fenced {
			t.Fatal("not fenced while the witness is waited for")
		}
		pass(time.Minute)
		if n := w.node("n1"); n.Fenced || n.Mark != (policy.Mark{}) {
			t.Errorf("still fenced: %+v", n)
		}
	})
}

// The pods cannot be listed until the node is back on another boot, whose kubelet has not started them again yet.
func TestBackBeforeThePodsWereListed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.panics(1)
		down := time.Now().Add(time.Minute)
		a, _ := run(t, testPolicy(), faulty{world: w, before: func(_ context.Context, call string) error {
			if call == "Pods" && time.Now().Before(down) {
				return errors.New("429 too many requests")
			}
			return nil
		}}, "a")
		offer(t, w, incident(1, boot1, secret1), a)
		pass(50 * time.Second)
		w.set(func() {
			n := w.nodes["n1"]
			n.BootID, n.ResourceVersion = boot2, w.next()
			w.nodes["n1"] = n
			w.dead["n1"] = false
		})
		pass(time.Minute)
		if r := w.only(); w.failed() > 0 || r.Phase != policy.Cleaned || r.PodsFailed != 0 || r.PodsTotal != 5 {
			t.Errorf("%d pods failed, death %s with %d/%d pods; want none of 5", w.failed(), r.Phase, r.PodsFailed, r.PodsTotal)
		}
		if n := w.node("n1"); n.Name == "" || n.Fenced {
			t.Errorf("node %+v, want it in service", n)
		}
	})
}

// A pod whose deletion was asked for before the replica died waits for its finalizer. Its successor does not ask again, and writes nothing
// while the node is awaited.
func TestTakenOverWhileAPodWaitsForItsFinalizer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.panics(1)
		p := testPolicy()
		p.NodeVerb, p.AwaitTimeout = policy.NodeAwait, time.Hour
		a, stop := run(t, p, w, "a")
		offer(t, w, incident(1, boot1, secret1), a)
		pass(10 * time.Second)
		stop()
		writes := 0
		run(t, p, faulty{world: w, before: func(_ context.Context, call string) error {
			if call == "UpdateDeath" {
				w.set(func() { writes++ })
			}
			return nil
		}}, "b")
		pass(15 * time.Minute)
		if d := w.only(); d.Owner != "b" {
			t.Fatalf("owner %q, want b", d.Owner)
		}
		w.set(func() {
			if writes > 20 {
				t.Errorf("the death was written %d times, want a few", writes)
			}
		})
	})
}

// What the API server refused to have failed keeps the Node, and what its owner has filled does not, whoever has found that out.
func TestDeniedPodsAfterATakeover(t *testing.T) {
	for _, tt := range []struct {
		name   string
		denial error
		named  bool // the pods are on record when the first replica dies
		gone   bool // the Node, in the end
	}{
		{"a denial on record", ErrDenied, true, false},
		{"pods without room on record", ErrFull, true, true},
		{"a denial that is not on record", ErrDenied, false, false},
		{"pods without room that are not on record", ErrFull, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				w.panics(1)
				deny := func(_ context.Context, call string) error {
					if call == "FailPod" {
						return fmt.Errorf("%s: %w", call, tt.denial)
					}
					return nil
				}
				counted := 0
				a, stop := run(t, testPolicy(), faulty{world: w, before: func(ctx context.Context, call string) error {
					if call == "Attachments" {
						counted++ // from the second time on, what became of the pods is on record
					}
					if call == "Attachments" && counted > 1 || call == "AmendDeath" && !tt.named {
						return errors.New("connection refused")
					}
					return deny(ctx, call)
				}}, "a")
				offer(t, w, incident(1, boot1, secret1), a)
				pass(20 * time.Second)
				stop()
				run(t, testPolicy(), faulty{world: w, before: deny}, "b")
				pass(2 * time.Minute)
				d := w.only()
				if d.Owner != "b" || d.Phase != policy.Incomplete {
					t.Errorf("death of %s is %s, want it Incomplete by b", d.Owner, d.Phase)
				}
				if gone := w.node("n1").Name == ""; gone != tt.gone {
					t.Errorf("node gone: %v, want %v; %+v", gone, tt.gone, d.Steps)
				}
			})
		})
	}
}
