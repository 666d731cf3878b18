package cleanup

import (
	"context"
	"fmt"
	"github.com/lastgasp/lastgasp/listener/policy"
	"testing"
	"time"
)

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
