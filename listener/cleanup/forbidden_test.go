package cleanup

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// An API server that has just started forbids everything until it has read its RBAC rules. The lab saw an incident
// refused for good because of that.
func TestForbiddenForAWhile(t *testing.T) {
	for _, c := range []struct {
		name string
		for_ time.Duration
		want Phase
	}{
		{"while the API server starts", 20 * time.Second, Cleaned},
		{"for want of a right", time.Hour, Refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				w.panics(1)
				inc, since := gasp(1, boot1, gaspOf1), time.Now()
				e, _ := run(t, DefaultPolicy(), faulty{world: w, before: func(_ context.Context, call string) error {
					if time.Since(since) < c.for_ && call != "CreateRecord" && call != "UpdateRecord" {
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
