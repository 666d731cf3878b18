package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lastgasp/lastgasp/e2e/crowd"
)

// loopName is the loop's name in rows.
func (d *deaths) loopName() string { return fmt.Sprintf("plain loop, %d in flight", d.inFlight) }

// chooseInFlight finds the concurrency at which the loop is fastest, with patches that do not change the pods of c.
func (d *deaths) chooseInFlight(ctx context.Context, c crowd.Crowd) error {
	pods, err := d.podsOf(ctx, c)
	if err != nil {
		return err
	}
	best := time.Duration(math.MaxInt64)
	for inFlight := 8; inFlight <= 128; inFlight *= 2 {
		start := time.Now()
		if err := d.write(ctx, pods, inFlight, corev1.PodRunning); err != nil {
			return err
		}
		if took := time.Since(start); took < best {
			best, d.inFlight = took, inFlight
		}
	}
	return nil
}

// loop fails all pods of c by writes alone: it has listed them before, and nothing has to be decided. It ends when the last
// of them was seen Failed.
func (d *deaths) loop(ctx context.Context, c crowd.Crowd) (time.Duration, error) {
	pods, err := d.podsOf(ctx, c)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := d.write(ctx, pods, d.inFlight, corev1.PodFailed); err != nil {
		return 0, err
	}
	last, err := d.watch.Failed(ctx, c)
	d.Silence(c)
	return last.Sub(start), err
}

func (d *deaths) podsOf(ctx context.Context, c crowd.Crowd) (pods []corev1.Pod, err error) {
	for _, node := range c.Names() {
		list, err := d.Admin.CoreV1().Pods(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
		if err != nil {
			return nil, fmt.Errorf("list pods: %w", err)
		}
		pods = append(pods, list.Items...)
	}
	if len(pods) != c.Size() {
		return nil, fmt.Errorf("list pods: there are %d, want %d", len(pods), c.Size())
	}
	return pods, nil
}

// write patches the status of every pod as the listener does, with its account, and updates pods with the results.
func (d *deaths) write(ctx context.Context, pods []corev1.Pod, inFlight int, phase corev1.PodPhase) error {
	g, ctx := errgroup.WithContext(ctx)
	todo := make(chan *corev1.Pod)
	for range inFlight {
		g.Go(func() error {
			for p := range todo {
				patch, err := statusPatch(p, phase)
				if err != nil {
					return err
				}
				out, err := d.Listener.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, patch,
					metav1.PatchOptions{FieldManager: "bench"}, "status")
				if err != nil {
					return fmt.Errorf("patch pod: %w", err)
				}
				*p = *out
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(todo)
		for i := range pods {
			select {
			case todo <- &pods[i]:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	return g.Wait()
}

// statusPatch is as large as the listener's patch of a dead node's pod.
func statusPatch(p *corev1.Pod, phase corev1.PodPhase) ([]byte, error) {
	const reason = "Kernel panic - not syncing: sysrq triggered crash"
	message := reason + " on node " + p.Spec.NodeName + ", kernel 6.12.117+deb13-cloud-amd64; see nodedeath " + p.Spec.NodeName + "-0123456789ab"
	now := metav1.Now()
	condition := func(kind string, status corev1.ConditionStatus, message string) map[string]any {
		c := map[string]any{"type": kind, "status": status, "reason": "KernelPanic", "lastTransitionTime": now}
		if message != "" {
			c["message"] = message
		}
		return c
	}
	annotations := map[string]string{
		"lastgasp.dev/termination-reason": reason, "lastgasp.dev/termination-code": "KernelPanic",
		"lastgasp.dev/termination-by": "bench", "lastgasp.dev/death": p.Spec.NodeName + "-0123456789ab",
	}
	status := map[string]any{
		"phase": phase, "reason": "KernelPanic", "message": message,
		"conditions": []any{
			condition("DisruptionTarget", corev1.ConditionTrue, message), condition("lastgasp.dev/NodeDeath", corev1.ConditionTrue, message),
			condition("Ready", corev1.ConditionFalse, ""), condition("ContainersReady", corev1.ConditionFalse, ""),
		},
	}
	if phase != corev1.PodFailed {
		// The policies let the listener write nothing but its annotations as long as it does not fail the pod.
		text, err := json.Marshal(status)
		if err != nil {
			return nil, err
		}
		annotations["lastgasp.dev/bench"], status = string(text), nil
	}
	patch := map[string]any{"metadata": map[string]any{"uid": p.UID, "resourceVersion": p.ResourceVersion, "annotations": annotations}}
	if status != nil {
		patch["status"] = status
	}
	return json.Marshal(patch)
}
