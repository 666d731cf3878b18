package crowd

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// writesInFlight is where the lab's API server does not get any faster.
	writesInFlight = 32
	// leaseDuration is the kubelet's, and renewEvery twice as long as its own: the controllers wait for 50 s.
	leaseDuration = 40 * time.Second
	renewEvery    = 20 * time.Second
)

// Crowd is a set of nodes with consecutive numbers and the same number of pods each.
type Crowd struct {
	First, Nodes, Pods int
}

// Names lists its Nodes.
func (c Crowd) Names() []string {
	names := make([]string, c.Nodes)
	for i := range names {
		names[i] = Name(c.First + i)
	}
	return names
}

// PodNames lists its pods, node by node.
func (c Crowd) PodNames() []string {
	names := make([]string, c.Size())
	for i := range names {
		names[i] = PodName(c.First+i/c.Pods, i%c.Pods)
	}
	return names
}

// Part is some of its nodes, the one at index from first.
func (c Crowd) Part(from, nodes int) Crowd {
	return Crowd{First: c.First + from, Nodes: nodes, Pods: c.Pods}
}

// Size is how many pods it has.
func (c Crowd) Size() int { return c.Nodes * c.Pods }

// Make makes the crowd through the API: every pod bound and Running, every Node Ready, its Lease renewed until it dies.
func (w *World) Make(ctx context.Context, c Crowd) error {
	now := metav1.Now()
	err := each(ctx, c.Nodes, func(ctx context.Context, i int) error {
		n := node(c.First+i, now)
		if _, err := w.Admin.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("make node: %w", err)
		}
		_, err := w.Admin.CoordinationV1().Leases(corev1.NamespaceNodeLease).Create(ctx, lease(n.Name), metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("make lease: %w", err)
		}
		w.living.Store(n.Name, nil)
		return nil
	})
	if err != nil {
		return err
	}
	return each(ctx, c.Size(), func(ctx context.Context, i int) error {
		p := pod(c.First+i/c.Pods, i%c.Pods, now)
		made, err := w.Admin.CoreV1().Pods(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("make pod: %w", err)
		}
		p.Status.QOSClass = made.Status.QOSClass
		made.Status = p.Status
		if _, err := w.Admin.CoreV1().Pods(p.Namespace).UpdateStatus(ctx, made, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("let pod run: %w", err)
		}
		return nil
	})
}

// Silence stops the kubelets of c from renewing their Leases.
func (w *World) Silence(c Crowd) {
	for _, name := range c.Names() {
		w.living.Delete(name)
	}
}

// renew renews the Leases of living nodes until ctx ends: the controllers write all pods of a node whose kubelet falls silent.
// If a renewal fails, the next one makes up for it.
func (w *World) renew(ctx context.Context) {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			patch := fmt.Appendf(nil, `{"spec":{"renewTime":%q}}`, now.UTC().Format(metav1.RFC3339Micro))
			w.living.Range(func(name, _ any) bool {
				_, _ = w.Admin.CoordinationV1().Leases(corev1.NamespaceNodeLease).Patch(ctx, name.(string), types.MergePatchType, patch, metav1.PatchOptions{})
				return ctx.Err() == nil
			})
		}
	}
}

func lease(name string) *coordinationv1.Lease {
	seconds, now := int32(leaseDuration/time.Second), metav1.NowMicro()
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: name},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: &seconds, RenewTime: &now},
	}
}

// each does n things, some at a time, until one fails.
func each(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writesInFlight)
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error { return do(ctx, i) })
	}
	return g.Wait()
}
