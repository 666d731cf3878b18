package kube

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lastgasp/lastgasp/listener/cleanup"
)

// LeaseRenewed implements cleanup.Cluster.
func (c *Cluster) LeaseRenewed(ctx context.Context, node string) (renewed time.Time, duration time.Duration, err error) {
	lease, err := c.core.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return time.Time{}, 0, explain(err, "read lease of node %s", node)
	}
	if lease.Spec.RenewTime == nil {
		return time.Time{}, 0, fmt.Errorf("lease of node %s was never renewed: %w", node, cleanup.ErrNotFound)
	}
	if s := lease.Spec.LeaseDurationSeconds; s != nil {
		duration = time.Duration(*s) * time.Second
	}
	return lease.Spec.RenewTime.Time, duration, nil
}
