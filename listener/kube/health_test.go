package kube

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/policy"
)

func TestHealthPatch(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	n := policy.Node{Name: "n1", UID: "u", ResourceVersion: "7", BootID: "b1"}
	sick := n
	sick.Unhealthy = "b1"
	for _, tt := range []struct {
		name string
		node policy.Node
		h    policy.Health
		want string
	}{
		{"dead", n, policy.Health{Unhealthy: "b1", Reason: "KernelPanic", Message: "a\x1bb"},
			`{"metadata":{"annotations":{"lastgasp.dev/unhealthy-boot":"b1"},"resourceVersion":"7","uid":"u"},"status":{"conditions":[` +
				`{"type":"x/y","status":"False","reason":"KernelPanic","message":"a\\x1bb","lastHeartbeatTime":"2026-03-01T12:00:00Z","lastTransitionTime":"2026-03-01T12:00:00Z"}]}}`},
		{"sick, and then dead", sick, policy.Health{Unhealthy: "b1", Reason: "KernelPanic"},
			`{"metadata":{"annotations":{"lastgasp.dev/unhealthy-boot":"b1"},"resourceVersion":"7","uid":"u"},"status":{"conditions":[` +
				`{"type":"x/y","status":"False","reason":"KernelPanic","message":"","lastHeartbeatTime":"2026-03-01T12:00:00Z"}]}}`},
		{"back", sick, policy.Health{Reason: "NewBoot"},
			`{"metadata":{"annotations":{"lastgasp.dev/unhealthy-boot":null},"resourceVersion":"7","uid":"u"},"status":{"conditions":[` +
				`{"type":"x/y","status":"True","reason":"NewBoot","message":"","lastHeartbeatTime":"2026-03-01T12:00:00Z","lastTransitionTime":"2026-03-01T12:00:00Z"}]}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, string(mustJSON(healthPatch("x/y", tt.node, tt.h, now)))); diff != "" {
				t.Errorf("patch (-want +got):\n%s", diff)
			}
		})
	}
}
