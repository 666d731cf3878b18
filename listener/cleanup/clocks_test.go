package cleanup

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// wrongClock has a replica's clock go wrong by as much.
func wrongClock(by time.Duration) func(*Engine) {
	return func(e *Engine) { e.Now = func() time.Time { return time.Now().Add(by) } }
}

// The clock of a replica is ten minutes ahead of the API server's and the nodes', or behind. What died is failed, what started afterwards
// is not.
func TestCleanupByAWrongClock(t *testing.T) {
	for _, by := range []time.Duration{-10 * time.Minute, 10 * time.Minute} {
		t.Run(by.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				pods := w.populate("n1")
				w.panics(1)
				e, _ := runOn(t, testPolicy(), w, nil, "a", wrongClock(by))
				inc := incident(1, boot1, secret1)
				inc.Time = e.Now()
				offer(t, w, inc, e)
				pass(2 * time.Minute)
				w.cleanedOnce(pods)
			})
		})
	}
}

// answersLate is a cluster that creates a death and does not say so for a while.
type answersLate struct {
	*world
	until time.Time
}

func (c answersLate) CreateDeath(ctx context.Context, d policy.Death) (policy.Death, error) {
	out, err := c.world.CreateDeath(ctx, d)
	if errors.Is(err, ErrExists) {
		out, err = c.Death(ctx, d.Name)
	}
	if time.Now().Before(c.until) {
		return policy.Death{}, errors.New("etcdserver: request timed out")
	}
	return out, err
}

// A death that was created a minute before the API server said so was not created by another clock.
func TestALateAnswerIsNoWrongClock(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		w.addPod("n1", "young", "apps/v1 ReplicaSet", func(p *policy.Pod) { p.Created = time.Now(); p.Started = time.Now() })
		pass(time.Second)
		w.panics(1)
		e, _ := runOn(t, testPolicy(), answersLate{w, time.Now().Add(time.Minute)}, nil, "a")
		offer(t, w, incident(1, boot1, secret1), e)
		pass(3 * time.Minute)
		w.cleanedOnce(append(pods, "young"))
	})
}

// A pod that starts after the death lives, though a replica whose clock is ahead calls that before.
func TestRestartedPodByAWrongClock(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.panics(1)
		p := testPolicy()
		p.NodeVerb, p.AwaitTimeout = policy.NodeAwait, 20*time.Minute
		e, _ := runOn(t, p, w, nil, "a", wrongClock(10*time.Minute))
		inc := incident(1, boot1, secret1)
		inc.Time = e.Now()
		offer(t, w, inc, e)
		pass(time.Second)
		w.loses(1)
		w.addPod("n1", "lives", "apps/v1 ReplicaSet", func(p *policy.Pod) { p.Started = time.Now().Add(10 * time.Second) })
		pass(time.Minute)
		if p, err := w.Pod(t.Context(), "default", "lives"); err != nil || p.Phase != "Running" {
			t.Errorf("pod %+v, %v", p, err)
		}
	})
}

// A cleanup by a replica whose clock is wrong is continued after a restart, by the same clock or by one that is right.
func TestRestartByAWrongClock(t *testing.T) {
	for _, by := range []time.Duration{-10 * time.Minute, 10 * time.Minute} {
		for _, next := range []time.Duration{0, by} {
			t.Run(by.String()+", then "+next.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					w.populate("n1")
					w.panics(1)
					p := testPolicy()
					p.NodeVerb, p.AwaitTimeout = policy.NodeAwait, 5*time.Minute
					e, stop := runOn(t, p, w, nil, "a", wrongClock(by))
					inc := incident(1, boot1, secret1)
					inc.Time = e.Now()
					offer(t, w, inc, e)
					pass(40 * time.Second)
					w.loses(1)
					pass(20 * time.Second)
					stop()
					if d := w.only(); d.Phase != policy.Cleaning {
						t.Fatalf("phase %s: %s", d.Phase, d.Decision)
					}
					runOn(t, p, w, nil, "a", wrongClock(next))
					pass(20 * time.Minute)
					if d := w.only(); d.Phase != policy.Cleaned {
						t.Errorf("phase %s: %s", d.Phase, d.Decision)
					}
				})
			})
		}
	}
}

// What a replica whose clock is wrong heard before a restart, and what it held, waits for the witness that comes.
func TestHeardByAWrongClock(t *testing.T) {
	for _, by := range []time.Duration{-10 * time.Minute, 10 * time.Minute} {
		for _, held := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, held %t", by, held), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					w.populate("n1")
					w.unpin()
					w.panics(1)
					dir := t.TempDir()
					state := func(e *Engine) { e.State = dir }
					p := testPolicy()
					if held {
						p.MaxNodes, p.MaxPercent, p.Window = 0, 0, time.Hour
					}
					e, stop := runOn(t, p, w, nil, "a", wrongClock(by), state)
					inc := incident(1, boot1, "")
					inc.Time = e.Now()
					offer(t, w, inc, e)
					pass(20 * time.Second)
					if held {
						pass(20 * time.Second)
						w.loses(1)
						pass(time.Minute)
						if d := w.only(); d.Phase != policy.Held {
							t.Fatalf("phase %s: %s", d.Phase, d.Decision)
						}
						w.set(func() {
							for name, d := range w.deaths {
								d.Released, d.Version = true, w.next()
								w.deaths[name] = d
							}
						})
					} else {
						stop()
						pass(20 * time.Second)
						w.loses(1)
						runOn(t, p, w, nil, "a", wrongClock(by), state)
					}
					pass(5 * time.Minute)
					if d := w.only(); d.Phase != policy.Cleaned {
						t.Errorf("phase %s: %s", d.Phase, d.Decision)
					}
				})
			})
		}
	}
}

// A node that the control plane had lost before anything was heard of it may be alive, also by a clock that is behind.
func TestLostNodeByAWrongClock(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.unpin()
		w.panics(1) // its kubelet reaches nobody
		w.loses(1)
		pass(5 * time.Minute)
		w.set(func() { w.dead["n1"] = false })
		p := testPolicy()
		e, _ := runOn(t, p, w, nil, "a", wrongClock(-10*time.Minute))
		w.set(func() { delete(w.renewed, "n1"); w.renewed["n1"] = time.Now().Add(-5 * time.Minute) })
		inc := incident(1, boot1, "")
		inc.Time = e.Now()
		w.panics(1) // so that the Lease stays
		offer(t, w, inc, e)
		pass(2 * time.Minute)
		if d := w.only(); d.Phase != policy.Refused || w.failed() > 0 {
			t.Errorf("phase %s: %s; %d pods failed", d.Phase, d.Decision, w.failed())
		}
	})
}

// A lie that a replica refused whose clock is ahead keeps no true death off the record that another one hears.
func TestRefusedByAWrongClock(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		w.unpin()
		a, stop := runOn(t, testPolicy(), w, nil, "a", wrongClock(10*time.Minute))
		lie := incident(1, boot1, "")
		lie.Time = a.Now()
		offer(t, w, lie, a)
		pass(time.Minute)
		if d := w.only(); d.Phase != policy.Refused {
			t.Fatalf("phase %s: %s", d.Phase, d.Decision)
		}
		stop()
		b, _ := run(t, testPolicy(), w, "b")
		w.panics(1)
		offer(t, w, incident(1, boot1, ""), b)
		pass(3 * time.Minute)
		if d := w.only(); d.Phase != policy.Cleaned || w.failed() != len(pods) {
			t.Errorf("phase %s: %s; %d pods failed, want %d", d.Phase, d.Decision, w.failed(), len(pods))
		}
	})
}
