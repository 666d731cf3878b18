package cleanup

import (
	"context"
	"errors"
	"fmt"
	"github.com/lastgasp/lastgasp/listener/policy"
	"sync/atomic"
	"testing"
	"time"
)

// A conflict may be about anything; what was to be done is left undone only if it was seen to be another object.
func TestConflictThatIsNone(t *testing.T) {
	for _, call := range []string{"CreateDeath", "DeletePod", "DeleteNode", "FailPod", "PatchNode", "UpdateDeath"} {
		t.Run(call, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				pods := w.populate("n1")
				w.panics(1)
				var calls atomic.Int32
				a, _ := run(t, testPolicy(), faulty{world: w, before: func(_ context.Context, c string) error {
					if c == call && calls.Add(1) <= 3 {
						return fmt.Errorf("chaos: %w", ErrConflict)
					}
					return nil
				}}, "a")
				offer(t, w, incident(1, boot1, secret1), a)
				pass(30 * time.Second)
				w.cleanedOnce(pods)
				for _, name := range pods {
					if _, err := w.Pod(t.Context(), "default", name); !errors.Is(err, ErrNotFound) && name != "n1-db" { // it waits for its finalizer
						t.Errorf("pod %s: %v, want it deleted", name, err)
					}
				}
			})
		})
	}
}

// alive sees a kubelet that renews its Lease.
type alive struct{ faulty }

func (alive) LeaseRenewed(context.Context, string) (policy.Renewal, error) {
	return policy.Renewal{At: time.Now(), Duration: 40 * time.Second, Version: time.Now().String()}, nil
}

// Who may not claim, and judges otherwise, leaves the fence to who has claimed.
func TestFenceOfAnothersClaim(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.panics(1)
		p := testPolicy()
		p.NodeVerb = policy.NodeAwait
		a, _ := run(t, p, alive{faulty{world: w, before: func(_ context.Context, call string) error {
			if call == "CreateDeath" {
				return fmt.Errorf("too long: %w", ErrDenied)
			}
			return nil
		}}}, "a")
		b, _ := run(t, p, w, "b")
		offer(t, w, incident(1, boot1, secret1), a)
		pass(time.Second)
		offer(t, w, incident(1, boot1, secret1), b)
		pass(20 * time.Second)
		if r, n := w.only(), w.node("n1"); r.Owner != "b" || !n.Fenced || n.Mark.Death != r.Name {
			t.Errorf("death of %s, phase %s; node %+v, want it fenced", r.Owner, r.Phase, n)
		}
	})
}

// The fence was lifted by somebody who did not see the claim yet. world fails a test whose pods fail on an open node.
func TestFenceIsKeptUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		w.panics(1)
		a, _ := run(t, testPolicy(), faulty{world: w, after: func(_ context.Context, call string) error {
			if call == "CreateDeath" {
				change(w, func(n *policy.Node) { n.Fenced, n.Mark = false, policy.Mark{} })
			}
			return nil
		}}, "a")
		offer(t, w, incident(1, boot1, secret1), a)
		pass(5 * time.Second)
		if r := w.only(); r.Phase != policy.Cleaned || w.failed() != len(pods) {
			t.Errorf("phase %s, %d pods failed", r.Phase, w.failed())
		}
	})
}

// UDP sources and boot ids cost nothing; deaths and events do.
func TestRefusalsOfOneNodeAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		change(w, func(n *policy.Node) { n.ControlPlane = true })
		a, _ := run(t, testPolicy(), w, "a")
		for i := range 200 {
			inc := incident(1, fmt.Sprintf("boot %d", i/2), "") // each boot twice
			inc.Identity.Secret = secret1[:1+i%16]
			offer(t, w, inc, a)
			pass(time.Second)
		}
		w.set(func() {
			if len(w.events) != refusalsPerAddress || len(w.deaths) != refusalsPerAddress {
				t.Errorf("%d events and %d deaths, want %d of each", len(w.events), len(w.deaths), refusalsPerAddress)
			}
		})
	})
}
