package story

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/listener/kube/v1alpha1"
)

// Death is what happened after a kernel panicked, in the order in which it is meant to happen. A zero time means that
// it did not.
type Death struct {
	Panic      time.Time // the crash was asked for
	Heard      time.Time // the listener received the first fatal record
	Fenced     time.Time // our taint was on the Node
	Recorded   time.Time // the NodeDeath was there
	PodsFailed time.Time // the last pod of the node was Failed with the reason
	Replaced   time.Time // every service pod ran on another node
	PodsGone   time.Time // the last of the dead pods was deleted
	JobRetried time.Time // the Job with a policy had a new pod running
	NodeGone   time.Time // the Node was deleted

	NodeDeath v1alpha1.NodeDeath // as it is at the end
	FailedPod corev1.Pod         // one pod as it was when it failed
	Policy    batchv1.JobStatus  // of the Job with podFailurePolicy, at the end
	Plain     batchv1.JobStatus  // of the Job without
	Victims   int                // pods on the node when it died
}

// fullTrace is fewer lines than the trace of any panic has, and more than its first part.
const fullTrace = 20

// panicLine begins the headline of every panic.
const panicLine = "Kernel panic - not syncing"

const (
	fenceTaint = "lastgasp.dev/dead"
	reasonKey  = "lastgasp.dev/termination-reason"
)

// Kill crashes the node and watches until everything that should happen has happened, or timeout ends.
func (w *World) Kill(ctx context.Context, n *Node, crash lab.Crash, victims []corev1.Pod, timeout time.Duration) (Death, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("it had not happened %s after the panic", timeout))
	defer cancel()
	d := Death{Victims: len(victims)}
	watcher, err := Watch(ctx, w.Cluster.RESTConfig(), n.Namespace)
	if err != nil {
		return d, err
	}
	if n.kubelet != nil {
		n.kubelet.Kill()
	}
	d.Panic = time.Now()
	if err := n.VM.Crash(ctx, crash); err != nil {
		return d, fmt.Errorf("crash %s: %w", n.Name, err)
	}
	dead := map[string]bool{}
	for _, p := range victims {
		dead[string(p.UID)] = true
	}
	for _, milestone := range []struct {
		what string
		at   *time.Time
		done func([]Sighting) bool
	}{
		{"the node to be fenced", &d.Fenced, func(seen []Sighting) bool {
			node := node(seen, n.Name)
			return node != nil && tainted(node)
		}},
		{"its KernelPanic", &d.Recorded, func(seen []Sighting) bool { return nodeDeath(seen, n.Name) != nil }},
		{"its pods to be Failed", &d.PodsFailed, func(seen []Sighting) bool {
			failed := map[string]bool{}
			for _, s := range seen {
				if s.Pod != nil && dead[string(s.Pod.UID)] && s.Pod.Annotations[reasonKey] != "" &&
					(s.Pod.Status.Phase == corev1.PodFailed || mirror(s.Pod)) {
					failed[string(s.Pod.UID)] = true
					if s.Pod.Labels["app"] == "batch-policy" {
						d.FailedPod = *s.Pod
					}
				}
			}
			return len(failed) == len(dead)
		}},
		{"its services to run elsewhere", &d.Replaced, func(seen []Sighting) bool {
			return Elsewhere(seen, n.Name, "web") == 3 && Elsewhere(seen, n.Name, "db") == 1
		}},
		{"its pods to be gone", &d.PodsGone, func(seen []Sighting) bool {
			return deleted(seen, dead) >= len(dead)-1 // the static pod's mirror goes with the Node
		}},
		{"the Job's retry to run", &d.JobRetried, func(seen []Sighting) bool {
			return Elsewhere(seen, n.Name, "batch-policy") == 1 && Elsewhere(seen, n.Name, "batch-plain") == 1
		}},
		{"the Node to be gone", &d.NodeGone, func(seen []Sighting) bool { return nodeGone(seen, n.Name) }},
		{"its record to be complete", new(time.Time), func(seen []Sighting) bool {
			r := nodeDeath(seen, n.Name)
			if !complete(r) {
				return false
			}
			d.NodeDeath = *r
			return true
		}},
	} {
		if *milestone.at, err = watcher.Await(ctx, milestone.what, milestone.done); err != nil {
			return d, err
		}
	}
	d.Heard = d.NodeDeath.Spec.Time.Time
	jobs := w.Cluster.Client().BatchV1().Jobs(n.Namespace)
	// The retry of the Job without a policy may run before the controller has written down why.
	err = await(ctx, "the failure to be counted", func(ctx context.Context) error {
		for name, status := range map[string]*batchv1.JobStatus{"batch-policy": &d.Policy, "batch-plain": &d.Plain} {
			job, err := jobs.Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return fmt.Errorf("read job %s: %w", name, err)
			}
			*status = job.Status
		}
		if d.Plain.Failed == 0 {
			return errors.New("no failure is counted")
		}
		return nil
	})
	return d, err
}

// AwaitCleaned waits until the node's NodeDeath is Cleaned and whole, the Node gone and its services run elsewhere.
func (w *World) AwaitCleaned(ctx context.Context, n *Node) (v1alpha1.NodeDeath, error) {
	watcher, err := Watch(ctx, w.Cluster.RESTConfig(), n.Namespace)
	if err != nil {
		return v1alpha1.NodeDeath{}, err
	}
	var done v1alpha1.NodeDeath
	_, err = watcher.Await(ctx, n.Name+" to be cleaned up", func(seen []Sighting) bool {
		r := nodeDeath(seen, n.Name)
		if !complete(r) || node(seen, n.Name) != nil || Elsewhere(seen, n.Name, "web") != 3 {
			return false
		}
		done = *r
		return true
	})
	return done, err
}

// complete reports whether cleanup is over and the whole trace is stored. Its first part ends with the first fatal record, which
// of a sysrq crash comes before the panic line, and begins with whatever the kernel had logged before.
func complete(r *v1alpha1.NodeDeath) bool {
	return r != nil && r.Status.Phase == "Cleaned" && len(r.Spec.Trace) >= fullTrace &&
		strings.Contains(strings.Join(r.Spec.Trace, "\n"), panicLine)
}

// Elsewhere counts the running pods of an app that are not on the dead node.
func Elsewhere(seen []Sighting, dead, app string) int {
	n := 0
	for _, p := range pods(seen) {
		if p.Labels["app"] == app && p.Spec.NodeName != dead && p.Status.Phase == corev1.PodRunning {
			n++
		}
	}
	return n
}

// Failed reports whether a pod of an app has failed, now or before, for a reason that it stated.
func Failed(seen []Sighting, app string) bool {
	return slices.ContainsFunc(seen, func(s Sighting) bool {
		return s.Pod != nil && s.Pod.Labels["app"] == app && s.Pod.Status.Phase == corev1.PodFailed && s.Pod.Status.Reason != ""
	})
}

// Running counts the running pods on a node.
func Running(seen []Sighting, node string) int {
	n := 0
	for _, p := range pods(seen) {
		if p.Spec.NodeName == node && p.Status.Phase == corev1.PodRunning {
			n++
		}
	}
	return n
}

func tainted(n *corev1.Node) bool {
	for _, t := range n.Spec.Taints {
		if t.Key == fenceTaint {
			return true
		}
	}
	return false
}

func mirror(p *corev1.Pod) bool { return p.Annotations[corev1.MirrorPodAnnotationKey] != "" }

// steps of a cleanup, in order.
var steps = []string{"fence", "list", "fail", "events", "condition", "detach", "delete", "node"}

// Check returns which parts of the promise were broken, nil if none.
func (d Death) Check() error {
	var done []string
	for _, step := range d.NodeDeath.Status.Steps {
		if step.Done && step.Name != "expire" { // which a listener has that keeps pods for their readers
			done = append(done, step.Name)
		}
	}
	for _, promise := range []struct {
		kept bool
		what string
	}{
		// The NodeDeath shows the order; events of separate watches may overtake each other.
		{slices.Equal(done, steps), fmt.Sprintf("its steps were %v, want %v", done, steps)},
		{!d.PodsFailed.After(d.PodsGone), "pods were deleted before all had failed"},
		{d.FailedPod.Status.Phase == corev1.PodFailed && d.FailedPod.Status.Reason == "KernelPanic", "the pod's status does not say KernelPanic"},
		{d.Policy.Failed == 0, "the Job with a podFailurePolicy paid for the death"},
		{d.Plain.Failed == 1, "the Job without a podFailurePolicy did not count the death once"},
		{strings.Contains(strings.Join(d.NodeDeath.Spec.Trace, "\n"), panicLine), "the kept trace has no panic in it"},
	} {
		if !promise.kept {
			return errors.New(promise.what)
		}
	}
	return nil
}
