package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/lastgasp/lastgasp/e2e/story"
)

var (
	//go:embed compare.yaml
	compareWorkloads string
	//go:embed compare_tenants.yaml
	compareTenants string
)

// Pods of compare.yaml on the node that dies, and of compare_tenants.yaml on the other. The DaemonSet's second is there,
// too.
const (
	pairPods   = 9
	tenantPods = 9
)

// order is one procedure after a node's death, with the pair of nodes it is tried on. Its name is also that of the pair's group
// and of its workloads' namespace.
type order struct {
	name           string
	carryOut       func(ctx context.Context, dead *story.Hollow) error
	dies, survives *story.Hollow
	after          map[string]time.Duration // by milestone; what is missing never came
}

func (o *order) makeNodes(f *story.Fleet) (err error) {
	if o.dies, err = f.NewHollow(o.name + "-1"); err != nil {
		return err
	}
	o.survives, err = f.NewHollow(o.name + "-2")
	return err
}

// prepare starts the pair and fills it: the survivor with pods of its own, the other with the workloads that have to move.
func (o *order) prepare(ctx context.Context, f *story.Fleet) error {
	client := f.Cluster.Client()
	for _, n := range []*story.Hollow{o.dies, o.survives} {
		if err := n.Start(ctx); err != nil {
			return err
		}
		if err := patchNode(ctx, client, n.Name, `{"metadata":{"labels":{"group":%q}}}`, o.name); err != nil {
			return err
		}
	}
	if _, err := f.Cluster.Kubectl(ctx, "create", "namespace", o.name); err != nil {
		return err
	}
	if err := o.fill(ctx, f, strings.ReplaceAll(compareTenants, "SURVIVOR", o.survives.Name), o.survives, tenantPods); err != nil {
		return err
	}
	if err := patchNode(ctx, client, o.survives.Name, `{"spec":{"unschedulable":true}}`); err != nil {
		return err
	}
	if err := patchNode(ctx, client, o.dies.Name, `{"metadata":{"labels":{"tolerant":%q}}}`, o.name); err != nil { // a cordon does not keep it away
		return err
	}
	if err := o.fill(ctx, f, strings.ReplaceAll(compareWorkloads, "GROUP", o.name), o.dies, pairPods); err != nil {
		return err
	}
	return patchNode(ctx, client, o.survives.Name, `{"metadata":{"labels":{"tolerant":%q}},"spec":{"unschedulable":false}}`, o.name)
}

// fill applies manifests and waits until so many pods run on the node.
func (o *order) fill(ctx context.Context, f *story.Fleet, manifests string, n *story.Hollow, want int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("not within two minutes"))
	defer cancel()
	if err := f.Apply(ctx, o.name, manifests); err != nil {
		return err
	}
	watcher, err := story.Watch(ctx, f.Cluster.RESTConfig(), o.name)
	if err != nil {
		return err
	}
	_, err = watcher.Await(ctx, fmt.Sprintf("%d pods to run on %s", want, n.Name), func(seen []story.Sighting) bool {
		return story.Running(seen, n.Name) == want
	})
	return err
}

func patchNode(ctx context.Context, client kubernetes.Interface, name, format string, args ...any) error {
	_, err := client.CoreV1().Nodes().Patch(ctx, name, types.StrategicMergePatchType, fmt.Appendf(nil, format, args...), metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("patch node %s: %w", name, err)
	}
	return nil
}

// annotateAndDelete is the procedure of Netflix's article on kernel panics of October 2023: it annotates and deletes the pods,
// one after the other, then the node.
func annotateAndDelete(ctx context.Context, client kubernetes.Interface, node string) error {
	const annotate = `{"metadata":{"annotations":{"pod.titus.netflix.com/pod-termination-reason":"the node's kernel panicked"}}}`
	pods, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
	if err != nil {
		return fmt.Errorf("list pods of %s: %w", node, err)
	}
	for _, p := range pods.Items {
		if err := annotateAndDeletePod(ctx, client.CoreV1().Pods(p.Namespace), p, annotate); err != nil {
			return fmt.Errorf("pod %s of %s: %w", p.Name, node, err)
		}
	}
	if err := patchNode(ctx, client, node, annotate); err != nil {
		return err
	}
	return client.CoreV1().Nodes().Delete(ctx, node, metav1.DeleteOptions{})
}

func annotateAndDeletePod(ctx context.Context, pods typedcorev1.PodInterface, p corev1.Pod, annotate string) error {
	now := int64(0)
	_, err := pods.Patch(ctx, p.Name, types.StrategicMergePatchType, []byte(annotate), metav1.PatchOptions{})
	if err == nil {
		err = pods.Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	}
	if apierrors.IsNotFound(err) { // a controller was faster
		return nil
	}
	return err
}
