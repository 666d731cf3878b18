package kube

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// annotationUnhealthy on a Node says which boot's kernel our condition calls dead or sick: a condition has no room for it.
const annotationUnhealthy = prefix + "unhealthy-boot"

// SetHealth implements cleanup.Cluster. Kubelets leave conditions alone that are not theirs.
func (c *Cluster) SetHealth(ctx context.Context, n policy.Node, h policy.Health) (policy.Node, error) {
	return c.patchNode(ctx, n, "set condition of", healthPatch(c.condition, n, h, time.Now()), "status")
}

// healthPatch is the strategic merge patch of nodes/status that writes h: conditions merge by type. The time of the last
// transition, from which repair controllers count, stays while the same boot is unhealthy.
func healthPatch(condition string, n policy.Node, h policy.Health, now time.Time) any {
	type cond struct {
		Type               string                 `json:"type"`
		Status             corev1.ConditionStatus `json:"status"`
		Reason             string                 `json:"reason"`
		Message            string                 `json:"message"`
		LastHeartbeatTime  metav1.Time            `json:"lastHeartbeatTime"`
		LastTransitionTime *metav1.Time           `json:"lastTransitionTime,omitempty"`
	}
	at := metav1.NewTime(now)
	ours := cond{
		Type: condition, Status: corev1.ConditionTrue, Reason: letters(h.Reason, kindSize), Message: printable(h.Message, messageSize),
		LastHeartbeatTime: at, LastTransitionTime: &at,
	}
	if h.Unhealthy != "" {
		ours.Status = corev1.ConditionFalse
		if h.Unhealthy == n.Unhealthy {
			ours.LastTransitionTime = nil
		}
	}
	return map[string]any{
		"metadata": map[string]any{
			"uid": n.UID, "resourceVersion": n.ResourceVersion,
			"annotations": map[string]*string{annotationUnhealthy: orNil(h.Unhealthy)},
		},
		"status": map[string]any{"conditions": []cond{ours}},
	}
}
