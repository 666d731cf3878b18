package kube

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lastgasp/lastgasp/listener/cleanup"
)

// LeaseRenewed implements cleanup.Cluster. Kubelets renew every 10 s.
func (c *Cluster) LeaseRenewed(ctx context.Context, node string) (time.Time, error) {
	lease, err := c.core.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return time.Time{}, explain(err, "read lease of node %s", node)
	}
	if lease.Spec.RenewTime == nil {
		return time.Time{}, fmt.Errorf("lease of node %s was never renewed: %w", node, cleanup.ErrNotFound)
	}
	return lease.Spec.RenewTime.Time, nil
}
