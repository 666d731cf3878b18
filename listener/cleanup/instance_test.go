package cleanup

import (
	"context"
	"errors"
	"fmt"
	"github.com/lastgasp/lastgasp/listener/policy"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// cloud is EC2 in memory. It fails the test when it is asked to hit what lives, or what has not said all it had to say.
type cloud struct {
	w      *world
	answer func(ctx context.Context, nth int) error // nil: always yes

	mu    sync.Mutex
	asked []string
}

func (c *cloud) ask(ctx context.Context, verb, id string) error {
	c.mu.Lock()
	c.asked = append(c.asked, verb+" "+id)
	nth := len(c.asked)
	c.mu.Unlock()
	c.w.set(func() {
		node := "n" + strings.TrimPrefix(id, "i-")
		if !c.w.dead[node] {
			c.w.t.Errorf("asked to %s living %s", verb, id)
		}
		for _, p := range c.w.pods {
			if p.Node == node && p.Phase == "Running" && !p.Mirror {
				c.w.t.Errorf("asked to %s %s before pod %s was failed", verb, id, p.Name)
			}
		}
	})
	if c.answer == nil {
		return nil
	}
	return c.answer(ctx, nth)
}

func (c *cloud) Reboot(ctx context.Context, id string) error    { return c.ask(ctx, "reboot", id) }
func (c *cloud) Terminate(ctx context.Context, id string) error { return c.ask(ctx, "terminate", id) }
func (c *cloud) SetUnhealthy(ctx context.Context, id string) error {
	return c.ask(ctx, "unhealthy", id)
}

func (c *cloud) log() []string { c.mu.Lock(); defer c.mu.Unlock(); return slices.Clone(c.asked) }

// whole is inc as it is emitted again when its source has fallen silent.
func whole(inc detect.Incident) detect.Incident {
	inc.Complete = true
	inc.Trace = append(slices.Clone(inc.Trace), "Call Trace:", "---[ end Kernel panic - not syncing ]---")
	return inc
}

func TestInstanceAfterItsWholeTrace(t *testing.T) {
	for _, tt := range []struct {
		after policy.AfterPanic
		verb  policy.NodeVerb
	}{
		{policy.RebootInstance, policy.NodeDelete}, {policy.RebootInstance, policy.NodeAwait}, {policy.RebootInstance, policy.NodeAnnotate},
		{policy.TerminateInstance, policy.NodeDelete}, {policy.TerminateInstance, policy.NodeAnnotate},
		{policy.UnhealthyInstance, policy.NodeDelete},
	} {
		t.Run(fmt.Sprintf("%s, node %s", tt.after, tt.verb), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				w.panics(1)
				p := testPolicy()
				p.AfterPanic, p.NodeVerb = tt.after, tt.verb
				c := &cloud{w: w}
				a, _ := runOn(t, p, w, c, "a")
				b, _ := runOn(t, p, w, c, "b")
				inc := incident(1, boot1, secret1)
				offer(t, w, inc, a, b)
				pass(5 * time.Second)
				if asked := c.log(); len(asked) > 0 {
					t.Fatalf("%v before the trace was whole", asked)
				}
				offer(t, w, whole(inc), a, b)
				pass(2 * time.Second)
				want := []string{string(tt.after) + " i-1"}
				if diff := cmp.Diff(want, c.log()); diff != "" {
					t.Errorf("asked (-want +got):\n%s", diff)
				}
				r := w.only()
				if got := r.Step(policy.StepInstance).Note; got != "asked to "+tt.after.Do("i-1") || len(r.Trace) != 4 {
					t.Errorf("step %q with %d lines on record", got, len(r.Trace))
				}
				w.reboots(1, boot2)
				pass(time.Minute)
				if r := w.only(); r.Phase != policy.Cleaned || len(c.log()) != 1 {
					t.Errorf("phase %s, asked %v; want it once", r.Phase, c.log())
				}
			})
		})
	}
}

func TestInstanceOfAKernelThatNamesNone(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.panics(1)
		w.unpin() // no userdata, no pin
		p, c, inc := testPolicy(), &cloud{w: w}, incident(1, "", "")
		p.AfterPanic, inc.Identity.Instance = policy.RebootInstance, ""
		a, _ := runOn(t, p, w, c, "a")
		offer(t, w, inc, a)
		pass(time.Minute)
		if diff := cmp.Diff([]string{"reboot i-1"}, c.log()); diff != "" || w.only().Instance != "i-1" {
			t.Errorf("death of %s; asked (-want +got):\n%s", w.only().Instance, diff)
		}
	})
}

func TestInstanceIsLeftAlone(t *testing.T) {
	for _, tt := range []struct {
		name  string
		story func(w *world, p *policy.Policy, inc *detect.Incident)
		phase policy.Phase
	}{
		{"where the kubelet contradicts", func(w *world, _ *policy.Policy, inc *detect.Incident) {
			w.dead["n1"], inc.Identity.Secret = false, "guessed"
		}, policy.Refused},
		{"in a dry run", func(_ *world, p *policy.Policy, _ *detect.Incident) { p.DryRun = true }, policy.Refused},
		{"while the breaker is open", func(_ *world, p *policy.Policy, _ *detect.Incident) { p.MaxNodes, p.MaxPercent = 0, 0 }, policy.Held},
		{"when it is back by itself", func(w *world, p *policy.Policy, _ *detect.Incident) {
			p.NodeVerb = policy.NodeAwait
			time.AfterFunc(5*time.Second, func() { w.reboots(1, boot2) })
		}, policy.Cleaned},
		{"when nobody knows which it is", func(w *world, _ *policy.Policy, inc *detect.Incident) {
			n := w.nodes["n1"]
			n.ProviderID, inc.Identity.Instance = "", ""
			w.nodes["n1"] = n
		}, policy.Cleaned},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.panics(1)
				p, c, inc := testPolicy(), &cloud{w: w}, incident(1, boot1, secret1)
				p.AfterPanic = policy.TerminateInstance
				w.set(func() { tt.story(w, &p, &inc) })
				if p.NodeVerb == policy.NodeAwait {
					p.AfterPanic = policy.RebootInstance
				}
				a, _ := runOn(t, p, w, c, "a")
				offer(t, w, inc, a)
				pass(time.Minute)
				if r := w.only(); r.Phase != tt.phase || len(c.log()) > 0 {
					t.Errorf("phase %s (%s), asked %v; want %s and nothing asked", r.Phase, r.Decision, c.log(), tt.phase)
				}
			})
		})
	}
}

func TestCloudThatDoesNotAgree(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func(ctx context.Context, nth int) error
		asked  int // 0: as often as fits
		note   string
	}{
		{"after faults", func(_ context.Context, nth int) error {
			if nth < 4 {
				return errors.New("request limit exceeded")
			}
			return nil
		}, 4, "asked to reboot i-1"},
		{"for want of rights", func(context.Context, int) error { return fmt.Errorf("reboot i-1: %w", ErrDenied) }, 1,
			"left alone: reboot i-1: reboot i-1: denied"},
		{"in time", func(ctx context.Context, _ int) error { <-ctx.Done(); return errors.New("no answer") }, 0,
			"left alone: reboot i-1: no answer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				pods := w.populate("n1")
				w.panics(1)
				p, c := testPolicy(), &cloud{w: w, answer: tt.answer}
				p.AfterPanic = policy.RebootInstance
				a, _ := runOn(t, p, w, c, "a")
				runOn(t, p, w, c, "b")
				offer(t, w, incident(1, boot1, secret1), a)
				pass(3 * time.Minute)
				w.cleanedOnce(pods) // the Node is deleted in any case, and by a: the wait is no silence
				r := w.only()
				if got := r.Step(policy.StepInstance).Note; got != tt.note || r.Owner != "a" || tt.asked > 0 && len(c.log()) != tt.asked {
					t.Errorf("asked %v, note %q, owner %s; want %d times and %q", c.log(), got, r.Owner, tt.asked, tt.note)
				}
			})
		})
	}
}

// The owner dies before or while it asks, or before it could write down that it did.
func TestInstanceAfterATakeover(t *testing.T) {
	for _, tt := range []struct {
		name string
		dies time.Duration // after the panic
		want int
	}{
		{"while the trace is awaited", 5 * time.Second, 1},
		{"while the cloud is asked", 16 * time.Second, 2},
		{"after it was written down", 40 * time.Second, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				pods := w.populate("n1")
				w.panics(1)
				p := testPolicy()
				p.AfterPanic, p.KeepPods = policy.RebootInstance, time.Minute // so that something is left to do after it
				c := &cloud{w: w, answer: func(ctx context.Context, nth int) error {
					if nth == 1 {
						select {
						case <-ctx.Done():
						case <-time.After(5 * time.Second):
						}
					}
					return ctx.Err()
				}}
				a, kill := runOn(t, p, w, c, "a")
				offer(t, w, incident(1, boot1, secret1), a)
				pass(tt.dies)
				kill()
				runOn(t, p, w, c, "b")
				pass(5 * time.Minute)
				if r := w.only(); r.Phase != policy.Cleaned || r.Owner != "b" || w.failed() != len(pods) || len(c.log()) != tt.want {
					t.Errorf("phase %s by %s, %d pods failed, asked %v; want %d times", r.Phase, r.Owner, w.failed(), c.log(), tt.want)
				}
			})
		})
	}
}
