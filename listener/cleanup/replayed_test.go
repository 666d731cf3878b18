package cleanup

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// A node that is dead and stays is fenced until it is back, whatever is still said of it: by its own kernel, which goes on
// complaining, by whoever recorded its last words and sends them again, or by a stranger.
func TestFenceOfADeadNodeStays(t *testing.T) {
	for _, tt := range []struct {
		name   string
		verb   policy.NodeVerb
		secret netconsole.Secret
		change func(*detect.Incident)
		deny   string // a call that the API server denies
	}{
		{name: "the kernel again", verb: policy.NodeAnnotate, secret: secret1},
		{name: "a stranger", verb: policy.NodeAnnotate, secret: "guessed"},
		{name: "a stranger that names no boot", verb: policy.NodeAnnotate, change: func(inc *detect.Incident) { inc.Identity = netconsole.Identity{} }},
		{name: "the kernel again, of a node that may not be deleted", verb: policy.NodeDelete, secret: secret1, deny: "DeleteNode"},
		{name: "the kernel again, of a node whose pods may not be failed", verb: policy.NodeDelete, secret: secret1, deny: "FailPod"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				w.panics(1)
				p := testPolicy()
				p.NodeVerb = tt.verb
				e, _ := run(t, p, faulty{world: w, before: func(_ context.Context, call string) error {
					if call == tt.deny {
						return fmt.Errorf("%s: %w", call, ErrDenied)
					}
					return nil
				}}, "a")
				offer(t, w, incident(1, boot1, secret1), e)
				pass(time.Minute)
				before := w.only()
				if n := w.node("n1"); !before.Phase.Finished() || !n.Fenced || n.Mark.Death != before.Name {
					t.Fatalf("phase %s, node %+v", before.Phase, n)
				}
				again := incident(1, boot1, tt.secret)
				if tt.change != nil {
					tt.change(&again)
				}
				for range 3 {
					offer(t, w, again, e)
					pass(2 * time.Minute)
					again.Time = time.Now()
				}
				if d, n := w.only(), w.node("n1"); d.Phase != before.Phase || !n.Fenced || n.Mark.Death != d.Name {
					t.Errorf("phase %s, node %+v; want %s, and the node fenced", d.Phase, n, before.Phase)
				}
			})
		})
	}
}
