package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// annotationUnhealthy on a Node says which boot's kernel our condition calls dead or sick: a condition has no room for it.
const annotationUnhealthy = prefix + "unhealthy-boot"

// SetHealth implements cleanup.Cluster. Kubelets leave conditions alone that are not theirs.
func (c *Cluster) SetHealth(ctx context.Context, n policy.Node, h policy.Health) (policy.Node, error) {
	if err := c.proof.mayWrite(); err != nil {
		return policy.Node{}, fmt.Errorf("set condition of node %s: %w", n.Name, err)
	}
	patch, err := healthPatch(c.condition, n, h, time.Now())
	if err != nil {
		return policy.Node{}, fmt.Errorf("set condition of node %s: %w", n.Name, err)
	}
	out, err := c.core.CoreV1().Nodes().Patch(ctx, n.Name, types.StrategicMergePatchType, patch,
		metav1.PatchOptions{FieldManager: manager}, "status")
	if err != nil {
		return policy.Node{}, explain(err, "set condition of node %s", n.Name)
	}
	return nodeFrom(out), nil
}

// healthPatch is the strategic merge patch of nodes/status that writes h: conditions merge by type. The time of the last
// transition, from which repair controllers count, stays while the same boot is unhealthy.
func healthPatch(condition string, n policy.Node, h policy.Health, now time.Time) ([]byte, error) {
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
	return json.Marshal(map[string]any{
		"metadata": map[string]any{
			"uid": n.UID, "resourceVersion": n.ResourceVersion,
			"annotations": map[string]*string{annotationUnhealthy: orNil(h.Unhealthy)},
		},
		"status": map[string]any{"conditions": []cond{ours}},
	})
}
