package kube

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// CloseNode implements cleanup.Cluster. The scheduler counts pods against status.allocatable whatever they tolerate (kubernetes
// pkg/scheduler/framework/plugins/noderesources/fit.go). A kubelet at work compares the Node with what it would report every 10 s, and
// so gives the room back (pkg/kubelet/kubelet_node_status.go, tryUpdateNodeStatus).
func (c *Cluster) CloseNode(ctx context.Context, n policy.Node) (policy.Node, error) {
	if err := c.proof.mayWrite(); err != nil {
		return policy.Node{}, fmt.Errorf("close node %s: %w", n.Name, err)
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": n.UID, "resourceVersion": n.ResourceVersion},
		"status":   map[string]any{"allocatable": map[corev1.ResourceName]string{corev1.ResourcePods: "0"}},
	})
	if err != nil {
		return policy.Node{}, fmt.Errorf("close node %s: %w", n.Name, err)
	}
	out, err := c.core.CoreV1().Nodes().Patch(ctx, n.Name, types.StrategicMergePatchType, patch,
		metav1.PatchOptions{FieldManager: manager}, "status")
	if err != nil {
		return policy.Node{}, explain(err, "close node %s", n.Name)
	}
	return nodeFrom(out), nil
}

// isClosed reports whether the Node says that it has no room for pods.
func isClosed(n *corev1.Node) bool {
	room, ok := n.Status.Allocatable[corev1.ResourcePods]
	return ok && room.IsZero()
}
