package cleanup

import (
	"context"
	"github.com/lastgasp/lastgasp/listener/policy"
	"testing"
	"time"
)

func TestDrain(t *testing.T) {
	for _, tt := range []struct {
		name    string
		latency time.Duration
		offered bool
		phase   policy.Phase // empty: no death
		takes   time.Duration
	}{
		{"with nothing in hand", 0, false, "", 0},
		{"with an incident that was just offered", 0, true, policy.Cleaned, time.Second},
		{"with more than it has time for", time.Second, true, policy.Cleaning, 5 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				w.set(func() { w.latency = tt.latency })
				w.panics(1)
				e := NewEngine(testPolicy(), w, nil, "a", nil)
				e.Drain = 5 * time.Second
				ctx, cancel := context.WithCancel(t.Context())
				if tt.offered {
					offer(t, w, incident(1, boot1, secret1), e)
				}
				cancel() // before Run has taken anything in
				began := time.Now()
				if err := e.Run(ctx); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took > tt.takes+tt.latency {
					t.Errorf("it ended after %v, want %v and a call", took, tt.takes)
				}
				if tt.phase == "" {
					return
				}
				if r := w.only(); r.Phase != tt.phase {
					t.Errorf("phase %s, want %s", r.Phase, tt.phase)
				}
			})
		})
	}
}
