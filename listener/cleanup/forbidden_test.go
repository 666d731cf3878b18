package cleanup

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// Whoever looks at the Node learns at once what the fail-over waits for, and not at the end.
func TestWhatTheFailOverWaitsFor(t *testing.T) {
	for _, tt := range []struct {
		name string
		call string
		err  error
		want []string
	}{
		{"a right to fail pods", "FailPod", ErrForbidden, []string{"cannot fail pods yet, trying again: FailPod: " + ErrForbidden.Error()}},
		{"a webhook that fails", "FailPod", errors.New("timeout"), []string{"cannot fail pods yet, trying again: FailPod: timeout"}},
		{"a right to list pods", "Pods", ErrForbidden, []string{"cannot list pods yet, trying again: Pods: " + ErrForbidden.Error()}},
		{
			"a right to create the death", "CreateDeath", ErrForbidden,
			[]string{"cannot create death and fence yet, trying again: CreateDeath: " + ErrForbidden.Error()},
		},
		{
			"a policy that denies the death", "CreateDeath", ErrDenied,
			[]string{"cannot create death and fence yet, trying again: CreateDeath: " + ErrDenied.Error()},
		},
		{"nothing: it is no part of the fail-over", "DeletePod", ErrForbidden, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				pods := w.populate("n1")
				w.panics(1)
				until := time.Now().Add(20 * time.Second)
				e, _ := run(t, testPolicy(), faulty{world: w, before: func(_ context.Context, call string) error {
					if call == tt.call && time.Now().Before(until) {
						return fmt.Errorf("%s: %w", call, tt.err)
					}
					return nil
				}}, "a")
				told := func() (notes []string) {
					w.set(func() {
						for _, ev := range w.events {
							if ev.Reason == "CleanupWaits" && ev.Node.Name == "n1" && ev.Warning {
								notes = append(notes, ev.Note)
							}
						}
					})
					return notes
				}
				offer(t, w, incident(1, boot1, secret1), e)
				pass(time.Second)
				if diff := cmp.Diff(tt.want, told()); diff != "" {
					t.Errorf("events after a second (-want +got):\n%s", diff)
				}
				pass(time.Minute)
				w.cleanedOnce(pods)
				if diff := cmp.Diff(tt.want, told()); diff != "" {
					t.Errorf("events in the end (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// An API server that has just started forbids everything until it has read its RBAC rules. The lab saw an incident
// refused for good because of that.
func TestForbiddenForAWhile(t *testing.T) {
	for _, c := range []struct {
		name       string
		away, for_ time.Duration // no answer first, and then none but this
		want       policy.Phase
	}{
		{"while the API server starts", 0, 20 * time.Second, policy.Cleaned},
		{"while the API server starts, after a long outage", 40 * time.Second, 20 * time.Second, policy.Cleaned},
		{"for want of a right", 0, time.Hour, policy.Refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				w.panics(1)
				inc, since := incident(1, boot1, secret1), time.Now()
				e, _ := run(t, testPolicy(), faulty{world: w, before: func(_ context.Context, call string) error {
					if time.Since(since) < c.away {
						return errors.New("connection refused")
					}
					if time.Since(since) < c.away+c.for_ && call != "CreateDeath" && call != "UpdateDeath" {
						return fmt.Errorf("%s: %w", call, ErrForbidden)
					}
					return nil
				}}, "a")
				offer(t, w, inc, e)
				pass(2 * time.Minute)
				if r := w.only(); r.Phase != c.want {
					t.Errorf("phase %s: %s, want %s", r.Phase, r.Decision, c.want)
				}
			})
		})
	}
}
