package cleanup

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// Whatever the API server answers to a write, and however long, it is not asked over and over without a pause: a webhook may answer
// so, or somebody who writes the object all the time.
func TestNoWriteIsRepeatedWithoutAPause(t *testing.T) {
	const most = 150 // calls in half a minute; those of a whole cleanup and of its waits are some 100
	for _, call := range []string{
		"CreateDeath", "DeleteDeath", "DeleteNode", "DeletePod", "FailPod", "PatchNode", "CloseNode", "SetHealth", "UpdateDeath", "AmendDeath",
	} {
		for _, answer := range []error{ErrConflict, ErrNotFound, ErrExists, ErrDenied, ErrForbidden} {
			t.Run(call+" "+answer.Error(), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					w.latency = time.Millisecond
					w.open = call == "PatchNode"
					w.populate("n1")
					var calls atomic.Int32
					e, _ := run(t, testPolicy(), faulty{world: w, before: func(_ context.Context, c string) error {
						if c != "Renew" {
							calls.Add(1)
						}
						if c == call {
							return fmt.Errorf("%s: %w", call, answer)
						}
						return nil
					}}, "a")
					offer(t, w, incident(1, boot1, "guessed"), e) // it is refused, and gives way to the truth
					pass(time.Minute)
					w.panics(1)
					offer(t, w, incident(1, boot1, secret1), e)
					pass(time.Second)
					w.addPod("n1", "late", "apps/v1 ReplicaSet", nil)
					calls.Store(0)
					pass(30 * time.Second)
					if n := calls.Load(); n > most {
						t.Errorf("%d calls in 30 s, want %d at most", n, most)
					}
				})
			})
		}
	}
}

// A mutating webhook or policy undoes what the API server lets pass. It is taken for the denial that it is: nothing is repeated without
// end, and nothing is called done that is not.
func TestWritesThatAreUndone(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.latency = time.Millisecond
		pods := w.populate("n1")
		w.panics(1)
		w.open = true
		p := testPolicy()
		p.NodeVerb = policy.NodeAnnotate
		e, _ := run(t, p, w, "a")
		offer(t, w, incident(1, boot1, secret1), e)
		pass(time.Minute)
		d := w.only()
		if c := d.Condition(policy.Fenced); c.Status != policy.False || !strings.Contains(c.Message, "keeps no fence; look for a mutating webhook") {
			t.Errorf("the condition says %+v", c)
		}
		if d.Phase != policy.Cleaned || w.failed() != len(pods) {
			t.Errorf("phase %s, %d pods failed, want %d", d.Phase, w.failed(), len(pods))
		}
		fences := 0
		for _, c := range w.log() {
			if c == "fence n1" {
				fences++
			}
		}
		if fences > 10 {
			t.Errorf("the fence was tried %d times", fences)
		}
	})
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.panics(1)
		w.revived = "n1-web"
		e, _ := run(t, testPolicy(), w, "a")
		offer(t, w, incident(1, boot1, secret1), e)
		pass(time.Minute)
		d, n := w.only(), w.node("n1")
		if c := d.Condition(policy.PodsFailed); d.Phase != policy.Incomplete || c.Status != policy.False || !strings.Contains(c.Message, "keeps phase Running") {
			t.Errorf("phase %s, the condition says %+v", d.Phase, c)
		}
		if n.Name == "" || !n.Fenced {
			t.Errorf("node %+v, want it kept and fenced", n)
		}
	})
}
