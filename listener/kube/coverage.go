package kube

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lastgasp/lastgasp/listener/cleanup"
)

const (
	// labelCoverage selects the Leases in which replicas leave their coverage, annotationCoverage holds it. Leases need no
	// right, and no policy, that the listener does not have already.
	labelCoverage      = prefix + "coverage"
	annotationCoverage = prefix + "coverage"
)

// coverageLease is the name of a Lease with the coverage of a replica.
func coverageLease(replica string, part int) string {
	return fmt.Sprintf("%s.coverage.%d", leaseName(replica), part)
}

// ShareCoverage implements listener.Board: each part goes into a Lease of its own, and what is left of more parts is deleted.
func (c *Cluster) ShareCoverage(ctx context.Context, parts [][]byte) error {
	list, err := c.coverageLeases(ctx)
	if err != nil {
		return err
	}
	have := map[string]*coordinationv1.Lease{}
	for i := range list {
		have[list[i].Name] = &list[i]
	}
	var errs []error
	now := metav1.NewMicroTime(time.Now())
	leases := c.core.CoordinationV1().Leases(c.namespace)
	for i, part := range parts {
		name := coverageLease(c.replica, i)
		text := base64.StdEncoding.EncodeToString(part)
		lease := have[name]
		delete(have, name)
		switch {
		case lease == nil:
			_, err = leases.Create(ctx, &coordinationv1.Lease{
				ObjectMeta: metav1.ObjectMeta{
					Name: name, Labels: map[string]string{labelCoverage: ""}, Annotations: map[string]string{annotationCoverage: text},
				},
				Spec: coordinationv1.LeaseSpec{HolderIdentity: &c.replica, RenewTime: &now},
			}, metav1.CreateOptions{FieldManager: manager})
		case lease.Annotations[annotationCoverage] == text && !forgotten(lease, now.Time.Add(forgottenAfter/2)):
			err = nil // nothing new was heard
		default:
			metav1.SetMetaDataAnnotation(&lease.ObjectMeta, annotationCoverage, text)
			lease.Spec.RenewTime = &now
			_, err = leases.Update(ctx, lease, metav1.UpdateOptions{FieldManager: manager})
		}
		errs = append(errs, explain(err, "write lease %s", name))
	}
	for name, lease := range have {
		if strings.HasPrefix(name, leaseName(c.replica)+".coverage.") || forgotten(lease, now.Time) {
			errs = append(errs, c.deleteLease(ctx, lease))
		}
	}
	return errors.Join(errs...)
}

// SharedCoverage implements listener.Board.
func (c *Cluster) SharedCoverage(ctx context.Context) (parts [][]byte, err error) {
	list, err := c.coverageLeases(ctx)
	if err != nil {
		return nil, err
	}
	for _, lease := range list {
		part, err := base64.StdEncoding.DecodeString(lease.Annotations[annotationCoverage])
		if err != nil {
			c.log.Warn("coverage not read", "lease", lease.Name, "err", err)
			continue
		}
		parts = append(parts, part)
	}
	return parts, nil
}

// coverageLeases lists them. Others may write Leases in the namespace, and label them, but none with the prefix of ours.
func (c *Cluster) coverageLeases(ctx context.Context) ([]coordinationv1.Lease, error) {
	list, err := c.core.CoordinationV1().Leases(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: labelCoverage})
	if err != nil {
		return nil, explain(err, "list coverage of replicas")
	}
	return slices.DeleteFunc(list.Items, func(l coordinationv1.Lease) bool { return !strings.HasPrefix(l.Name, leasePrefix) }), nil
}

// forgotten reports whether a Lease was not renewed for so long that its replica is gone.
func forgotten(lease *coordinationv1.Lease, now time.Time) bool {
	t := lease.Spec.RenewTime
	return t != nil && now.Sub(t.Time) > forgottenAfter && strings.HasPrefix(lease.Name, leasePrefix)
}

func (c *Cluster) deleteLease(ctx context.Context, lease *coordinationv1.Lease) error {
	err := c.core.CoordinationV1().Leases(c.namespace).Delete(ctx, lease.Name,
		metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(lease.UID))})
	if errors.Is(sentinel(err), cleanup.ErrNotFound) {
		return nil
	}
	return explain(err, "delete lease %s", lease.Name)
}
