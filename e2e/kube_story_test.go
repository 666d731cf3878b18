//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/story"
	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// TestKubeStory tests what packaging/kubernetes/README.md promises to users and operators.
func TestKubeStory(t *testing.T) {
	w := newReplicaWorld(t)
	bin, err := story.Build(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("each kind of workload", func(t *testing.T) { w.checkWorkloads(t, bin) })
	for i, verb := range []policy.NodeVerb{policy.NodeAwait, policy.NodeAnnotate} {
		t.Run("node "+string(verb)+", and the listener is restarted", func(t *testing.T) { w.checkReturn(t, bin, verb, 10+i) })
	}
	t.Run("what tolerates every taint leaves a node that is awaited", func(t *testing.T) { w.checkTolerant(t, bin) })
	t.Run("a kernel that is sick", func(t *testing.T) { w.checkSick(t, bin) })
	t.Run("nodes of a pool, and nodes left out", func(t *testing.T) { w.checkPools(t, bin) })
	t.Run("a node in quarantine", func(t *testing.T) { w.checkQuarantine(t, bin) })
	t.Run("a node with a finalizer", func(t *testing.T) { w.checkNodeFinalizer(t, bin) })
	t.Run("a bare pod is kept", func(t *testing.T) { w.checkBarePod(t, bin) })
	t.Run("held, and released by a human", func(t *testing.T) { w.checkHeld(t, bin) })
	t.Run("the listener is asked to end in the middle", func(t *testing.T) { w.checkDrain(t, bin) })
	t.Run("a dry run", func(t *testing.T) { w.checkDryRun(t, bin) })
}

// kinds are the workloads on which a node's death has different effects.
const kinds = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {automountServiceAccountToken: false, containers: [{name: main, image: none}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: tolerant}
spec:
  selector: {matchLabels: {app: tolerant}}
  template:
    metadata: {labels: {app: tolerant}}
    spec:
      automountServiceAccountToken: false
      tolerations: [{operator: Exists}]
      containers: [{name: main, image: none}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {automountServiceAccountToken: false, containers: [{name: main, image: none}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {automountServiceAccountToken: false, containers: [{name: main, image: none}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: policy}
spec:
  backoffLimit: 0
  podFailurePolicy:
    rules:
    - action: Ignore
      onPodConditions: [{type: DisruptionTarget, status: "True"}]
  template:
    metadata: {labels: {app: policy}}
    spec: {restartPolicy: Never, automountServiceAccountToken: false, containers: [{name: main, image: none}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: plain}
spec:
  backoffLimit: 1
  template:
    metadata: {labels: {app: plain}}
    spec: {restartPolicy: Never, automountServiceAccountToken: false, containers: [{name: main, image: none}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "0 0 1 1 *"
  jobTemplate:
    spec:
      backoffLimit: 1
      template:
        metadata: {labels: {app: nightly}}
        spec: {restartPolicy: Never, automountServiceAccountToken: false, containers: [{name: main, image: none}]}
---
apiVersion: v1
kind: Pod
metadata: {name: bare, labels: {app: bare}}
spec: {automountServiceAccountToken: false, containers: [{name: main, image: none}]}
`

// checkWorkloads makes a node die that runs one workload of each kind. A real kubelet runs the replacements.
func (w *kubeWorld) checkWorkloads(t *testing.T, bin string) {
	ctx := t.Context()
	d := newDoomed("everything", 1)
	node := w.newNode(t, d.name, func(n *corev1.Node) {
		d.register(n, d.boot)
		n.Status.Capacity = corev1.ResourceList{corev1.ResourcePods: resource.MustParse("110")}
	})
	if err := w.lab.Enroll(ctx, d.name, d.boot, d.secret.Sum()); err != nil {
		t.Fatal(err)
	}
	silence := w.keepLease(t, d.name, leaseSeconds, renewEvery) // the scheduler avoids a node whose kubelet is silent
	if _, err := w.lab.KubectlAs(ctx, must(w.lab.Kubeconfig("admin", "system:masters")), kinds, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	w.kubectl(t, "create", "job", "nightly-1", "--from=cronjob/nightly")
	w.newPod(t, "static", d.name, corev1.PodRunning, func(p *corev1.Pod) {
		p.Labels = map[string]string{"app": "static"}
		p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
		p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(node, corev1.SchemeGroupVersion.WithKind("Node"))}
	})
	want := map[string]int{"web": 2, "db": 1, "agent": 1, "policy": 1, "plain": 1, "nightly": 1, "bare": 1, "static": 1, "tolerant": 1}
	eventually(t, "the workloads to be on the node", func() error {
		have := map[string]int{}
		for _, p := range w.podsOn(t, d.name) {
			have[p.Labels["app"]]++
			if p.Status.Phase == corev1.PodPending {
				w.setPhase(t, p.Name, corev1.PodRunning)
			}
		}
		if fmt.Sprint(have) != fmt.Sprint(want) {
			return fmt.Errorf("%v, want %v", have, want)
		}
		return nil
	})
	was := map[string]string{}
	for _, p := range w.podsOn(t, d.name) {
		was[p.Name] = string(p.UID)
	}
	if _, err := w.lab.StartHollowNode(ctx, t, lab.HollowSpec{NS: w.net.Node, Name: "survivor", IP: lab.NodeAddr.Addr()}); err != nil {
		t.Fatal(err)
	}
	r := w.startReplica(t, bin, "", anyNumber)
	eventually(t, "the listener to know the node", func() error { return r.knows(w, d.name) })
	failed := w.watchFailures(t, d)
	silence()
	began := time.Now()
	if err := d.panics(w, r); err != nil {
		t.Fatal(err)
	}
	record := w.awaitPhase(t, d, r, policy.Cleaned)
	// The replacements of what tolerates every taint may have come to the dead node, and are failed as well.
	if record.PodsFailed < len(was)-1 || record.PodsTotal != record.PodsFailed {
		t.Errorf("%d of %d pods failed, want all of the %d but the static one", record.PodsFailed, record.PodsTotal, len(was)-1)
	}
	for name, p := range failed() {
		states := p.Status.ContainerStatuses
		_, ran := was[p.Name] // others came after the death
		if p.Status.Reason != "KernelPanic" || p.Annotations["lastgasp.dev/death"] != record.Name || ran && (len(states) == 0 ||
			states[0].State.Terminated != nil) {
			t.Errorf("pod %s failed for reason %q with container states %+v", name, p.Status.Reason, p.Status.ContainerStatuses)
		}
	}
	for _, app := range []string{"web", "tolerant", "db", "agent", "policy", "plain", "nightly"} {
		eventually(t, app+" to run elsewhere", func() error {
			running := 0
			for _, p := range w.podsOn(t, "survivor") {
				if p.Labels["app"] == app && p.Status.Phase == corev1.PodRunning && was[p.Name] != string(p.UID) {
					running++
				}
			}
			if running != want[app] {
				return fmt.Errorf("%d run, want %d", running, want[app])
			}
			return nil
		})
		t.Logf("%s runs elsewhere %v after the panic", app, time.Since(began).Round(100*time.Millisecond))
	}
	for job, paid := range map[string]int32{"policy": 0, "plain": 1, "nightly-1": 1} {
		eventually(t, "the failures of job "+job+" to be counted", func() error { // the pod in place of a failed one may run before that
			j, err := w.admin.BatchV1().Jobs("default").Get(ctx, job, metav1.GetOptions{})
			if err == nil && (j.Status.Failed != paid || finishedJob(j)) {
				err = fmt.Errorf("%d failures and the conditions %+v, want %d and a Job that goes on", j.Status.Failed, j.Status.Conditions, paid)
			}
			return err
		})
	}
	for _, object := range []string{"deployment/web", "statefulset/db", "cronjob/nightly", "job/nightly-1"} {
		eventually(t, "the event on "+object, func() error {
			if text := w.kubectl(t, "describe", object); !strings.Contains(text, "KernelPanic") || !strings.Contains(text, record.Name) {
				return fmt.Errorf("kubectl describe %s shows no event of it:\n%s", object, text)
			}
			return nil
		})
	}
	for _, p := range w.podsOn(t, d.name) { // the garbage collector and PodGC remove the mirror later
		if p.Name != "static" || p.Status.Phase != corev1.PodRunning || p.Annotations["lastgasp.dev/death"] != record.Name {
			t.Errorf("pod %s is left on the node, %s, with annotations %v", p.Name, p.Status.Phase, p.Annotations)
		}
	}
}

// checkTolerant makes a node die that is awaited and has a Deployment's pods on it which no taint keeps away.
func (w *kubeWorld) checkTolerant(t *testing.T, bin string) {
	d := newDoomed("awaited", 47)
	w.newNode(t, d.name, func(n *corev1.Node) {
		d.register(n, d.boot)
		n.Status.Capacity = corev1.ResourceList{
			corev1.ResourcePods: resource.MustParse("110"), corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("32Gi"),
		}
	})
	if err := w.lab.Enroll(t.Context(), d.name, d.boot, d.secret.Sum()); err != nil {
		t.Fatal(err)
	}
	silence := w.keepLease(t, d.name, leaseSeconds, renewEvery)
	if _, err := w.lab.KubectlAs(t.Context(), must(w.lab.Kubeconfig("admin", "system:masters")), tolerant, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.admin.AppsV1().Deployments("default").Delete(context.Background(), "operator", metav1.DeleteOptions{})
	})
	running := func(node string) (n int) {
		for _, p := range w.podsOn(t, node) {
			if p.Labels["app"] == "operator" && p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil {
				n++
			}
		}
		return n
	}
	eventually(t, "the pods to be on the node", func() error {
		for _, p := range w.podsOn(t, d.name) {
			if p.Status.Phase == corev1.PodPending {
				w.setPhase(t, p.Name, corev1.PodRunning)
			}
		}
		if n := running(d.name); n != 3 {
			return fmt.Errorf("%d run there", n)
		}
		return nil
	})
	if _, err := w.lab.StartHollowNode(t.Context(), t, lab.HollowSpec{NS: w.net.Node, Name: "other", IP: lab.NodeAddr.Addr()}); err != nil {
		t.Fatal(err)
	}
	r := w.startReplica(t, bin, "", anyNumber+"\nnode: await")
	eventually(t, "the listener to know the node", func() error { return r.knows(w, d.name) })
	silence()
	began := time.Now()
	if err := d.panics(w, r); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pods to run elsewhere", func() error {
		if n := running("other"); n != 3 {
			return fmt.Errorf("%d run there; the listener says:\n%s", n, r.says())
		}
		return nil
	})
	t.Logf("they run elsewhere %v after the panic", time.Since(began).Round(100*time.Millisecond))
	if n := w.readNode(t, d.name); !n.Fenced {
		t.Errorf("node %+v, want it kept and fenced", n)
	}
}

// tolerant is an operator that is to run whatever happens to nodes. It names its two, because a node of the cases before may seem
// to live for another 40 s.
const tolerant = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: operator}
spec:
  replicas: 3
  selector: {matchLabels: {app: operator}}
  template:
    metadata: {labels: {app: operator}}
    spec:
      automountServiceAccountToken: false
      tolerations: [{operator: Exists}]
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
            - matchFields: [{key: metadata.name, operator: In, values: [awaited]}]
            - matchFields: [{key: metadata.name, operator: In, values: [other]}]
      containers: [{name: main, image: none}]
`

// watchFailures collects the node's pods as they looked when they had failed.
func (w *kubeWorld) watchFailures(t *testing.T, d *doomed) (failed func() map[string]*corev1.Pod) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	pods, err := w.admin.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + d.name})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan map[string]*corev1.Pod, 1)
	go func() {
		failed := map[string]*corev1.Pod{}
		for ev := range pods.ResultChan() {
			if p, ok := ev.Object.(*corev1.Pod); ok && p.Status.Phase == corev1.PodFailed {
				failed[p.Name] = p
			}
		}
		seen <- failed
	}()
	return func() map[string]*corev1.Pod { cancel(); return <-seen }
}

func finishedJob(j *batchv1.Job) bool {
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobFailed || c.Type == batchv1.JobComplete) && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}

// checkReturn makes the node come back after the listener that fenced it is gone: another one lifts the fence.
func (w *kubeWorld) checkReturn(t *testing.T, bin string, verb policy.NodeVerb, i int) {
	d := newDoomed(string(verb), i)
	w.join(t, d)
	settings := anyNumber + "\nnode: " + string(verb)
	r := w.startReplica(t, bin, "", settings)
	eventually(t, "the listener to know the node", func() error { return r.knows(w, d.name) })
	if err := d.panics(w, r); err != nil {
		t.Fatal(err)
	}
	for _, pod := range d.pods {
		eventually(t, pod+" to be gone", func() error {
			if _, err := w.cluster.Pod(t.Context(), "default", pod); !errors.Is(err, cleanup.ErrNotFound) {
				return fmt.Errorf("it is there, %v", err)
			}
			return nil
		})
	}
	eventually(t, "the volumes to be in service again", func() error {
		if n := w.readNode(t, d.name); !n.Fenced || n.OutOfService {
			return fmt.Errorf("node %+v, want it fenced and no more", n)
		}
		return nil
	})
	if got := kernelHealth(w.getNode(t, d.name)); !strings.HasPrefix(got, "False KernelPanic: sysrq triggered crash on node "+d.name) {
		t.Errorf("condition of the dead node: %q", got)
	}
	r.Kill()
	r = w.startReplica(t, bin, "", settings)
	if err := w.comesBack(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	w.awaitPhase(t, d, r, policy.Cleaned)
	eventually(t, "the node to be in service", func() error { return w.untouched(t.Context(), d) })
	eventually(t, "its kernel to be healthy", func() error {
		if got := kernelHealth(w.getNode(t, d.name)); !strings.HasPrefix(got, "True NewBoot: ") {
			return fmt.Errorf("condition %q", got)
		}
		return nil
	})
}

// checkQuarantine makes two nodes die that an administrator has tainted, and one of them cordoned. With node: delete, as with any
// reboot, they come back as they were.
func (w *kubeWorld) checkQuarantine(t *testing.T, bin string) {
	cordoned, tainted := newDoomed("quarantined", 43), newDoomed("tainted", 46)
	both := []*doomed{cordoned, tainted}
	r := w.startReplica(t, bin, "", anyNumber)
	for _, d := range both {
		w.join(t, d)
		w.kubectl(t, "taint", "node", d.name, "example.com/quarantine=disk:NoSchedule")
	}
	w.kubectl(t, "cordon", cordoned.name)
	for _, d := range both {
		eventually(t, "the listener to know the node", func() error { return r.knows(w, d.name) })
		if err := d.panics(w, r); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range both {
		for _, pod := range d.pods {
			eventually(t, pod+" to be gone", func() error {
				return wantErr(cleanup.ErrNotFound)(w.cluster.Pod(t.Context(), "default", pod))
			})
		}
		if err := w.comesBack(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		w.awaitPhase(t, d, r, policy.Cleaned)
		eventually(t, "the node to be in service", func() error { return w.untouched(t.Context(), d) })
		taints := w.ownTaints(t, d.name)
		if n := w.getNode(t, d.name); n.Spec.Unschedulable != (d == cordoned) || !slices.Contains(taints, "example.com/quarantine=disk:NoSchedule") {
			t.Errorf("%s: unschedulable %v, taints %v; want it as it was before", d.name, n.Spec.Unschedulable, taints)
		}
	}
}

// checkNodeFinalizer makes a node die that another controller has put a finalizer on, as Karpenter does.
func (w *kubeWorld) checkNodeFinalizer(t *testing.T, bin string) {
	const finalizer = "karpenter.sh/termination"
	d := newDoomed("finalized", 44)
	w.join(t, d)
	finalizers := func(value string) {
		w.kubectl(t, "patch", "node", d.name, "--type=merge", `--patch={"metadata":{"finalizers":`+value+`}}`)
	}
	finalizers(`["` + finalizer + `"]`)
	r := w.startReplica(t, bin, "", anyNumber)
	eventually(t, "the listener to know the node", func() error { return r.knows(w, d.name) })
	if err := d.panics(w, r); err != nil {
		t.Fatal(err)
	}
	settled := func() string {
		return w.kubectl(t, "get", "nodedeath", d.deathName(), "-o", `jsonpath={.status.phase} {.status.conditions[?(@.type=="Settled")].status}: {.status.conditions[?(@.type=="Settled")].message}`)
	}
	eventually(t, "the deletion to be asked for", func() error {
		if n, err := w.cluster.Node(t.Context(), d.name); err != nil || !n.Deleting {
			return fmt.Errorf("node %+v, %v", n, err)
		}
		if got, want := settled(), "Cleaning False: deletion asked for; the node waits for finalizer "+finalizer; got != want {
			return fmt.Errorf("%q, want %q", got, want)
		}
		return nil
	})
	w.kubectl(t, "wait", "nodedeath", d.deathName(), "--for=condition=PodsFailed", "--timeout=5m")
	finalizers("null")
	w.awaitPhase(t, d, r, policy.Cleaned)
	if got, want := settled(), "Cleaned True: the node is gone"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// checkBarePod looks for everything that a person can learn of a pod that nobody replaces, and that a controller which Kubernetes does
// not bring can learn of its own.
func (w *kubeWorld) checkBarePod(t *testing.T, bin string) {
	d := newDoomed("barren", 45)
	w.join(t, d)
	owner := must(w.admin.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "workflow"}}, metav1.CreateOptions{}))
	step := w.newPod(t, "step", d.name, corev1.PodRunning, func(p *corev1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(owner, corev1.SchemeGroupVersion.WithKind("ConfigMap"))}
	})
	r := w.startReplica(t, bin, "", anyNumber+"\nnode: annotate\npods: {keep: 30s}")
	eventually(t, "the listener to know the node", func() error { return r.knows(w, d.name) })
	if err := d.panics(w, r); err != nil {
		t.Fatal(err)
	}
	pod := d.pods[0]
	eventually(t, "the pods to show what they died of", func() error {
		for line := range strings.Lines(w.kubectl(t, "get", "pod", pod, step.Name, "--no-headers")) { // one read, while both are kept
			if got := strings.Fields(line); got[1] != "0/1" || got[2] != "KernelPanic" {
				return fmt.Errorf("kubectl shows %q; the listener says:\n%s", got, r.says())
			}
		}
		return nil
	})
	eventually(t, "the event in its namespace", func() error {
		list, err := w.admin.EventsV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "regarding.name=" + pod})
		if err != nil {
			return err
		}
		for _, e := range list.Items {
			if e.Reason == "KernelPanic" && strings.Contains(e.Note, d.name) && strings.Contains(e.Note, d.deathName()) {
				return nil
			}
		}
		return fmt.Errorf("none of %d events tells of it", len(list.Items))
	})
	record := w.awaitPhase(t, d, r, policy.Cleaned) // once the pods are no longer kept
	if !slices.ContainsFunc(record.Pods, func(p policy.DeadPod) bool { return p.Namespace == "default" && p.Name == pod }) {
		t.Errorf("the record names %+v, want %s among them", record.Pods, pod)
	}
	for _, name := range []string{pod, step.Name} {
		if err := wantErr(cleanup.ErrNotFound)(w.cluster.Pod(t.Context(), "default", name)); err != nil {
			t.Errorf("%s after its time: %v", name, err)
		}
	}
}

// checkHeld tests deaths while the breaker lets none through.
func (w *kubeWorld) checkHeld(t *testing.T, bin string) {
	d := newDoomed("held", 2)
	w.join(t, d)
	r := w.startReplica(t, bin, "", "limits: {nodes: 0, percent: 0}")
	eventually(t, "the listener to know the node", func() error { return r.knows(w, d.name) })
	if err := d.panics(w, r); err != nil {
		t.Fatal(err)
	}
	w.awaitPhase(t, d, r, policy.Held)
	if n := w.readNode(t, d.name); !n.Fenced || n.Mark.Death != d.deathName() {
		t.Errorf("node %+v, want it fenced", n)
	}
	for _, pod := range d.pods {
		if p := w.readPod(t, pod); p.Phase != "Running" || p.Marked {
			t.Errorf("pod %+v, want it untouched", p)
		}
	}
	w.kubectl(t, "annotate", "nodedeath", d.deathName(), "lastgasp.dev/release=true")
	w.awaitPhase(t, d, r, policy.Cleaned)
	if err := d.cleanedOnce(w.audit(t)); err != nil {
		t.Error(err)
	}
}

// finishFor is for how long a listener goes on with the work in hand when it is asked to end (cmd/lastgasp-listener/serve.go).
const finishFor = 5 * time.Second

// checkDrain stops a listener when there is no other to continue its work.
func (w *kubeWorld) checkDrain(t *testing.T, bin string) {
	d := newDoomed("drained", 4)
	w.join(t, d)
	owned := make(chan struct{})
	own := sync.OnceFunc(func() { close(owned) })
	r := w.startReplica(t, bin, w.proxy(t, func(rw http.ResponseWriter, r *http.Request, pass http.Handler) {
		pass.ServeHTTP(rw, r)
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/nodedeaths") {
			own()
		}
	}), anyNumber)
	eventually(t, "the listener to know the node", func() error { return r.knows(w, d.name) })
	if err := d.panics(w, r); err != nil {
		t.Fatal(err)
	}
	select {
	case <-owned:
	case <-time.After(busy):
		t.Fatalf("no record was created; the listener says:\n%s", r.says())
	}
	asked := time.Now()
	r.terminate(t)
	took := time.Since(asked)
	if left := ask(t, func() (policy.Death, error) { return w.cluster.Death(t.Context(), d.deathName()) }); left.Phase.AtWork() {
		if took < finishFor {
			t.Errorf("the listener ended %v after it was asked to, with work in hand: %s after %+v; it says:\n%s", took, left.Phase, left.Steps, r.says())
		}
		t.Logf("another listener goes on: this machine was too busy for all of the work within %v", finishFor)
		r = w.startReplica(t, bin, "", anyNumber)
	}
	w.awaitPhase(t, d, r, policy.Cleaned)
	if err := d.cleanedOnce(w.audit(t)); err != nil {
		t.Error(err)
	}
}

// checkDryRun looks for the plan, and for writes to anything else.
func (w *kubeWorld) checkDryRun(t *testing.T, bin string) {
	d := newDoomed("rehearsed", 3)
	w.join(t, d)
	r := w.startReplica(t, bin, "", anyNumber, "--dry-run")
	eventually(t, "the listener to know the node", func() error { return r.knows(w, d.name) })
	if err := d.panics(w, r); err != nil {
		t.Fatal(err)
	}
	rehearsed := *d
	rehearsed.death = policy.DryRunName(d.deathName(), d.boot)
	record := w.awaitPhase(t, &rehearsed, r, policy.Refused)
	var steps []string
	for _, s := range record.Steps {
		steps = append(steps, s.Name)
		if s.Done {
			t.Errorf("step %s is done", s.Name)
		}
	}
	if got, want := strings.Join(steps, " "), "fence list fail events condition detach delete node"; got != want || record.PodsTotal != len(d.pods) {
		t.Errorf("plan %q for %d pods, want %q for %d", got, record.PodsTotal, want, len(d.pods))
	}
	for _, e := range w.audit(t) {
		if strings.HasPrefix(e.name, d.name) && !strings.Contains(e.what, "nodedeaths") {
			t.Errorf("%s %s in a dry run", e.what, e.name)
		}
	}
}

func (w *kubeWorld) podsOn(t *testing.T, node string) []corev1.Pod {
	t.Helper()
	return ask(t, func() (*corev1.PodList, error) {
		return w.admin.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
	}).Items
}

// awaitPhase waits until d's cleanup has come to this end.
func (w *kubeWorld) awaitPhase(t *testing.T, d *doomed, r *replica, phase policy.Phase) (record policy.Death) {
	t.Helper()
	err := within(t.Context(), busy, func() (err error) {
		if record, err = w.ended(t.Context(), d); err == nil && record.Phase != phase {
			err = errors.New("phase " + string(record.Phase))
		}
		return err
	})
	if err != nil {
		t.Fatalf("wait for %s: %v; the listener says:\n%s", phase, err, r.says())
	}
	return record
}

// checkPools makes three nodes die of which one belongs to a pool and one is left out.
func (w *kubeWorld) checkPools(t *testing.T, bin string) {
	pooled, excluded, other := newDoomed("pooled", 40), newDoomed("left-out", 41), newDoomed("unpooled", 42)
	r := w.startReplica(t, bin, "", anyNumber+"\npools: [{selector: {example.com/pool: db}, node: annotate}]")
	for d, label := range map[*doomed]string{
		pooled: "example.com/pool=db", excluded: policy.ExcludeLabel + "=", other: "example.com/pool=web",
	} {
		w.join(t, d)
		w.kubectl(t, "label", "node", d.name, label)
		eventually(t, "the listener to know the node", func() error { return r.knows(w, d.name) })
		if err := d.panics(w, r); err != nil {
			t.Fatal(err)
		}
	}
	w.awaitPhase(t, other, r, policy.Cleaned)
	w.awaitPhase(t, pooled, r, policy.Cleaned)
	record := w.awaitPhase(t, excluded, r, policy.Recorded)
	if _, err := w.cluster.Node(t.Context(), other.name); !errors.Is(err, cleanup.ErrNotFound) {
		t.Errorf("the node of no pool: %v, want it deleted", err)
	}
	if n := w.readNode(t, pooled.name); !n.Fenced {
		t.Errorf("the node of the pool: %+v, want it kept and fenced", n)
	}
	const why = "node left-out is left out by its label lastgasp.dev/exclude-from-cleanup, so nothing follows"
	if reason := record.Condition(policy.Complete).Reason; !strings.HasSuffix(record.Decision, why) || reason != policy.NodeExcluded {
		t.Errorf("decision %q, reason %s; want …%s, and NodeExcluded", record.Decision, reason, why)
	}
	if n := w.readNode(t, excluded.name); n.Fenced || n.Mark != (policy.Mark{}) || n.Unhealthy != "" {
		t.Errorf("the node left out: %+v, want it untouched", n)
	}
	for _, pod := range excluded.pods {
		if p := w.readPod(t, pod); p.Phase != "Running" || p.Marked {
			t.Errorf("pod %+v, want it untouched", p)
		}
	}
}
