package kube

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/policy"
)

const (
	// leasePrefix begins the names of the replicas' Leases. The policy denies all others (packaging/kubernetes/base/policies).
	leasePrefix = "lastgasp-listener-"
	// renewEvery is how often a replica renews its Lease, renewTimeout how long one attempt may take.
	renewEvery   = 2 * time.Second
	renewTimeout = 5 * time.Second
	// leaseDuration is what the Lease says, for people: who takes over, and when, is cleanup's decision.
	leaseDuration = 6 // seconds
	// forgottenAfter is how old the last renewal of a Lease must be for it to be deleted: its replica is gone.
	forgottenAfter = time.Hour
)

// labelLease selects the Leases of replicas among others of the namespace.
const labelLease = prefix + "replica"

// LeaseRenewed implements cleanup.Cluster.
func (c *Cluster) LeaseRenewed(ctx context.Context, node string) (policy.Renewal, error) {
	lease, err := c.core.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return policy.Renewal{}, explain(err, "read lease of node %s", node)
	}
	if lease.Spec.RenewTime == nil {
		return policy.Renewal{}, fmt.Errorf("lease of node %s was never renewed: %w", node, cleanup.ErrNotFound)
	}
	r := policy.Renewal{At: lease.Spec.RenewTime.Time, Version: lease.ResourceVersion}
	if s := lease.Spec.LeaseDurationSeconds; s != nil {
		r.Duration = time.Duration(*s) * time.Second
	}
	return r, nil
}

// Replicas implements cleanup.Cluster. Others may write Leases in the namespace, and label them, but none of a replica's name.
func (c *Cluster) Replicas(ctx context.Context) ([]cleanup.Replica, error) {
	list, err := c.core.CoordinationV1().Leases(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: labelLease})
	if err != nil {
		return nil, explain(err, "list leases of replicas")
	}
	var out []cleanup.Replica
	for i := range list.Items {
		spec := list.Items[i].Spec
		if spec.HolderIdentity != nil && spec.RenewTime != nil && list.Items[i].Name == leaseName(*spec.HolderIdentity) {
			out = append(out, cleanup.Replica{Name: *spec.HolderIdentity, Renewed: spec.RenewTime.Time})
		}
	}
	return out, nil
}

// renewLease renews the Lease of this replica until ctx ends, and then deletes it, so that others need not wait.
func (c *Cluster) renewLease(ctx context.Context) {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	var lease *coordinationv1.Lease // as the API server last had it
	failing := false
	for {
		var err error
		lease, err = c.renew(ctx, lease, time.Now())
		if err != nil && ctx.Err() == nil && !failing {
			c.log.Warn("lease of this replica not renewed; another replica may take over its work", "err", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewTimeout)
			defer cancel()
			c.dropLease(ctx, lease)
			return
		case <-tick.C:
		}
	}
}

// renew writes the Lease once: it updates what it wrote last or, if that is unknown, creates the Lease.
func (c *Cluster) renew(ctx context.Context, last *coordinationv1.Lease, now time.Time) (*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	leases := c.core.CoordinationV1().Leases(c.namespace)
	if last == nil {
		c.dropForgotten(ctx, now)
		seconds, at := int32(leaseDuration), metav1.NewMicroTime(now)
		lease, err := leases.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: leaseName(c.replica), Labels: map[string]string{labelLease: ""}},
			Spec: coordinationv1.LeaseSpec{
				HolderIdentity: &c.replica, LeaseDurationSeconds: &seconds, AcquireTime: &at, RenewTime: &at,
			},
		}, metav1.CreateOptions{FieldManager: manager})
		if errors.Is(sentinel(err), cleanup.ErrExists) { // an earlier attempt got through, its answer did not
			lease, err = leases.Get(ctx, leaseName(c.replica), metav1.GetOptions{})
		}
		if err != nil {
			return nil, explain(err, "create lease of replica %s", c.replica)
		}
		return lease, nil
	}
	next := last.DeepCopy()
	at := metav1.NewMicroTime(now)
	next.Spec.RenewTime = &at
	lease, err := leases.Update(ctx, next, metav1.UpdateOptions{FieldManager: manager})
	switch {
	case err == nil:
		return lease, nil
	case sentinel(err) != nil: // gone or changed
		return nil, explain(err, "renew lease of replica %s", c.replica)
	}
	return last, explain(err, "renew lease of replica %s", c.replica)
}

func (c *Cluster) dropLease(ctx context.Context, lease *coordinationv1.Lease) {
	if lease == nil {
		return
	}
	if err := c.deleteLease(ctx, lease); err != nil {
		c.log.Warn("lease not deleted", "err", err)
	}
}

// dropForgotten deletes the Leases of replicas that ended before they could delete their own.
func (c *Cluster) dropForgotten(ctx context.Context, now time.Time) {
	list, err := c.core.CoordinationV1().Leases(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: labelLease})
	if err != nil {
		return // the Leases stay until the next replica starts
	}
	for i := range list.Items {
		if lease := &list.Items[i]; forgotten(lease, now) {
			c.dropLease(ctx, lease)
		}
	}
}

// leaseName is the name of a replica's Lease: a DNS subdomain, whatever the host is called.
func leaseName(replica string) string {
	name := policy.Hyphenate(replica)
	return leasePrefix + strings.Trim(name[:min(len(name), 200)], "-")
}
