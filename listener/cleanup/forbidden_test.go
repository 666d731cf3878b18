package cleanup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// Whoever looks at the Node learns at once what the fail-over waits for, and not at the end.
func TestWhatTheFailOverWaitsFor(t *testing.T) {
	for _, tt := range []struct {
		name string
		call string
		err  error
		want bool
	}{
		{"a right to fail pods", "FailPod", ErrForbidden, true},
		{"a webhook that fails", "FailPod", errors.New("failed calling webhook"), true},
		{"a right to list pods", "Pods", ErrForbidden, true},
		{"nothing: it is no part of the fail-over", "DeletePod", ErrForbidden, false},
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
				want := fmt.Sprintf("pods have not failed yet, trying again: %s: %v; see nodedeath %s", tt.call, tt.err, w.only().Name)
				if got := told(); tt.want && !slices.Equal(got, []string{want}) || !tt.want && len(got) > 0 {
					t.Errorf("after a second the events say %q, want %q: %v", got, want, tt.want)
				}
				pass(time.Minute)
				w.cleanedOnce(pods)
				if got := told(); len(got) > 1 {
					t.Errorf("it is said %d times", len(got))
				}
			})
		})
	}
}

// An API server that has just started forbids everything until it has read its RBAC rules. The lab saw an incident
// refused for good because of that.
func TestForbiddenForAWhile(t *testing.T) {
	for _, c := range []struct {
		name string
		for_ time.Duration
		want policy.Phase
	}{
		{"while the API server starts", 20 * time.Second, policy.Cleaned},
		{"for want of a right", time.Hour, policy.Refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				w.panics(1)
				inc, since := incident(1, boot1, secret1), time.Now()
				e, _ := run(t, testPolicy(), faulty{world: w, before: func(_ context.Context, call string) error {
					if time.Since(since) < c.for_ && call != "CreateDeath" && call != "UpdateDeath" {
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
