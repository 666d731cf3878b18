package story

import (
	"context"
	_ "embed"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

//go:embed workloads.yaml
var workloads string

// staticPod is what the guest's kubelet runs by itself and mirrors into the API.
const staticPod = `apiVersion: v1
kind: Pod
metadata: {name: static, namespace: %s, labels: {app: static}}
spec: {containers: [{name: main, image: pause}]}
`

// expected is how many pods the workloads put on the guest: web×3, db, agent, batch-policy, batch-plain, static.
const expected = 8

// Deploy runs every kind of workload on the node called name, and only there, by cordoning the survivor meanwhile. It returns the
// pods when all are Running there, without the agent's second pod, which is on the survivor.
func (w *World) Deploy(ctx context.Context, namespace, name string) ([]corev1.Pod, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, busy, fmt.Errorf("the workloads did not run on %s within %s", name, busy))
	defer cancel()
	if err := w.cordon(ctx, Survivor, true); err != nil {
		return nil, err
	}
	if _, err := w.Cluster.KubectlAs(ctx, w.admin, workloads, "apply", "--namespace", namespace, "--filename", "-"); err != nil {
		return nil, fmt.Errorf("apply workloads: %w", err)
	}
	watcher, err := Watch(ctx, w.Cluster.RESTConfig(), namespace)
	if err != nil {
		return nil, err
	}
	var running []corev1.Pod
	_, err = watcher.Await(ctx, "the workloads to run", func(seen []Sighting) bool {
		running = running[:0]
		for _, p := range pods(seen) {
			if p.Spec.NodeName == name && p.Status.Phase == corev1.PodRunning {
				running = append(running, *p)
			}
		}
		return len(running) == expected
	})
	if err != nil {
		return nil, err
	}
	return running, w.cordon(ctx, Survivor, false)
}

func (w *World) cordon(ctx context.Context, name string, yes bool) error {
	patch := fmt.Sprintf(`{"spec":{"unschedulable":%t}}`, yes)
	_, err := w.Cluster.Client().CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("cordon %s: %w", name, err)
	}
	return nil
}
