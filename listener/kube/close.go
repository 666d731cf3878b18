package kube

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// CloseNode implements cleanup.Cluster. The scheduler counts pods against status.allocatable whatever they tolerate (kubernetes
// pkg/scheduler/framework/plugins/noderesources/fit.go). A kubelet at work compares the Node with what it would report every 10 s, and
// so gives the room back (pkg/kubelet/kubelet_node_status.go, tryUpdateNodeStatus).
func (c *Cluster) CloseNode(ctx context.Context, n policy.Node) (policy.Node, error) {
	return c.patchNode(ctx, n, "close", map[string]any{
		"metadata": map[string]any{"uid": n.UID, "resourceVersion": n.ResourceVersion},
		"status":   map[string]any{"allocatable": map[corev1.ResourceName]string{corev1.ResourcePods: "0"}},
	}, "status")
}

func isClosed(n *corev1.Node) bool {
	room, ok := n.Status.Allocatable[corev1.ResourcePods]
	return ok && room.IsZero()
}
