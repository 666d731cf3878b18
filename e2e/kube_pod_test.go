//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/kube"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// kubeNotice is what is written to pods in these tests.
var kubeNotice = policy.Notice{
	Death:   "node-1-boot-1",
	Cause:   "KernelPanic",
	Reason:  "Kernel panic - not syncing: sysrq triggered crash",
	Message: "node-1: Kernel panic - not syncing: sysrq triggered crash (6.12.107, NodeDeath node-1-boot-1)",
	Time:    time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC),
}

func (w *kubeWorld) checkFail(t *testing.T) {
	node := w.newNode(t, "dead", nil).Name
	// Any object will do as owner, but there must be one, or the pod is garbage-collected.
	owner := must(w.admin.CoreV1().ConfigMaps("default").Create(t.Context(),
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "web"}}, metav1.CreateOptions{}))
	pod := w.newPod(t, "running", node, corev1.PodRunning, func(p *corev1.Pod) {
		p.Annotations = map[string]string{"example.com/a": "b"}
		p.Labels = map[string]string{"app": "web"}
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "web", UID: owner.UID, Controller: ptr(true)}}
	})
	before := w.getPod(t, "running")
	pods, err := w.cluster.Pods(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]policy.Pod{pod}, pods); diff != "" {
		t.Errorf("pods of the node (-want +got):\n%s", diff)
	}
	if pod.Owner != (policy.Owner{APIVersion: "v1", Kind: "ConfigMap", Name: "web", UID: string(owner.UID)}) || pod.Started.IsZero() {
		t.Errorf("pod: %+v, want owner and start", pod)
	}

	failed, err := w.cluster.FailPod(t.Context(), pod, kubeNotice)
	if err != nil {
		t.Fatal(err)
	}
	if failed.Phase != "Failed" || !failed.Marked || failed.Death != kubeNotice.Death || failed.ResourceVersion == pod.ResourceVersion {
		t.Errorf("failed pod: %+v", failed)
	}
	after := w.getPod(t, "running")
	at := metav1.NewTime(kubeNotice.Time)
	want := before.DeepCopy()
	want.ResourceVersion = after.ResourceVersion
	want.Annotations = map[string]string{
		"example.com/a":                   "b",
		"lastgasp.dev/death":              kubeNotice.Death,
		"lastgasp.dev/termination-reason": kubeNotice.Reason,
		"lastgasp.dev/termination-code":   "KernelPanic",
		"lastgasp.dev/termination-by":     "lastgasp-listener",
	}
	want.Status.Phase, want.Status.Reason, want.Status.Message = corev1.PodFailed, "KernelPanic", kubeNotice.Message
	scheduled := want.Status.Conditions
	want.Status.Conditions = []corev1.PodCondition{
		{Type: "DisruptionTarget", Status: "True", Reason: "KernelPanic", Message: kubeNotice.Message, LastTransitionTime: at},
		{Type: "lastgasp.dev/NodeDeath", Status: "True", Reason: "KernelPanic", Message: kubeNotice.Message, LastTransitionTime: at},
	}
	for _, c := range scheduled { // what was there stays; Ready and ContainersReady turn
		if c.Type == corev1.PodReady || c.Type == corev1.ContainersReady {
			c.Status, c.Reason, c.LastTransitionTime = corev1.ConditionFalse, "KernelPanic", at
		}
		want.Status.Conditions = append(want.Status.Conditions, c)
	}
	if diff := cmp.Diff(want, after, cmpopts.IgnoreFields(metav1.ObjectMeta{}, "ManagedFields"),
		cmpopts.SortSlices(func(a, b corev1.PodCondition) bool { return a.Type < b.Type })); diff != "" {
		t.Errorf("pod (-want +got):\n%s", diff)
	}
	i := slices.IndexFunc(after.ManagedFields, func(f metav1.ManagedFieldsEntry) bool { return f.Manager == "lastgasp-listener" })
	if i < 0 {
		t.Fatalf("managed fields know no lastgasp-listener: %v", after.ManagedFields)
	}
	m := after.ManagedFields[i]
	if m.Subresource != "status" || m.Operation != metav1.ManagedFieldsOperationUpdate {
		t.Errorf("fields managed by %s of subresource %q, want Update of status", m.Operation, m.Subresource)
	}
	for _, field := range []string{`f:phase`, `DisruptionTarget`, `f:lastgasp.dev/death`} {
		if !strings.Contains(m.FieldsV1.GetRawString(), field) {
			t.Errorf("%s is not ours: %s", field, m.FieldsV1.GetRawString())
		}
	}
	for _, field := range []string{`containerStatuses`, `PodScheduled`, `f:labels`, `example.com/a`} {
		if strings.Contains(m.FieldsV1.GetRawString(), field) {
			t.Errorf("%s became ours: %s", field, m.FieldsV1.GetRawString())
		}
	}
	t.Run("kept", func(t *testing.T) {
		pod := w.newPod(t, "kept", node, corev1.PodRunning, nil)
		if err := w.cluster.UnreadyPod(t.Context(), pod); err != nil || !w.getPod(t, "kept").Status.ContainerStatuses[0].Ready {
			t.Errorf("a running pod: %v, want it left alone", err)
		}
		pod, err := w.cluster.FailPod(t.Context(), pod, kubeNotice)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.admin.CoreV1().Pods("default").Patch(t.Context(), "kept", types.JSONPatchType,
			[]byte(`[{"op":"add","path":"/status/containerStatuses/0/started","value":true}]`), metav1.PatchOptions{FieldManager: "kubelet"}, "status")
		if err != nil {
			t.Fatal(err)
		}
		before := w.getPod(t, "kept").Status.ContainerStatuses[0]
		if err := w.cluster.UnreadyPod(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
		want := before.DeepCopy()
		want.Ready, want.Started = false, ptr(false)
		if diff := cmp.Diff(*want, w.getPod(t, "kept").Status.ContainerStatuses[0]); diff != "" {
			t.Errorf("container status (-want +got):\n%s", diff)
		}
		if got := strings.Fields(w.kubectl(t, "get", "pod", "kept", "--no-headers")); got[1] != "0/1" || got[2] != "KernelPanic" {
			t.Errorf("kubectl shows %q, want 0/1 KernelPanic", got)
		}
		if err := w.cluster.UnreadyPod(t.Context(), pod); err != nil {
			t.Errorf("again: %v", err)
		}
	})
	t.Run("terminating", func(t *testing.T) {
		pod := w.newPod(t, "terminating", node, corev1.PodRunning, nil)
		w.kubectl(t, "delete", "pod", "terminating", "--wait=false")
		pod = w.readPod(t, pod.Name)
		if !pod.Deleting {
			t.Fatalf("pod is not terminating: %+v", pod)
		}
		if got, err := w.cluster.FailPod(t.Context(), pod, kubeNotice); err != nil || got.Phase != "Failed" {
			t.Errorf("fail a terminating pod: %v, %v", got.Phase, err)
		}
	})
	t.Run("pending", func(t *testing.T) {
		pod := w.newPod(t, "pending", node, corev1.PodPending, nil)
		if got, err := w.cluster.FailPod(t.Context(), pod, kubeNotice); err != nil || got.Phase != "Failed" {
			t.Errorf("fail a pending pod: %v, %v", got.Phase, err)
		}
	})
	t.Run("with an overlong message", func(t *testing.T) {
		d := kubeNotice
		d.Reason = strings.Repeat("Käse\xff", 1000)
		d.Message = strings.Repeat("Käse\xff", 1000)
		pod := w.newPod(t, "verbose", node, corev1.PodRunning, nil)
		if _, err := w.cluster.FailPod(t.Context(), pod, d); err != nil {
			t.Fatal(err)
		}
		got := w.getPod(t, "verbose")
		if n, m := len(got.Status.Message), len(got.Annotations["lastgasp.dev/termination-reason"]); n > 1024 || n < 1020 || m > 1024 || m < 1020 {
			t.Errorf("message of %d bytes, reason of %d, want just below 1024", n, m)
		}
	})
}

func (w *kubeWorld) checkFailPreconditions(t *testing.T) {
	node := w.newNode(t, "stale", nil).Name
	for _, tt := range []struct {
		name   string
		change func(*policy.Pod)
		want   error
	}{
		{"another uid", func(p *policy.Pod) { p.UID = "00000000-0000-0000-0000-000000000000" }, cleanup.ErrConflict},
		{"succeeded meanwhile", func(p *policy.Pod) { w.setPhase(t, p.Name, corev1.PodSucceeded) }, cleanup.ErrConflict},
		{"gone meanwhile", func(p *policy.Pod) {
			w.kubectl(t, "delete", "pod", p.Name, "--force", "--grace-period=0")
		}, cleanup.ErrNotFound},
		{"finished before", func(p *policy.Pod) {
			w.setPhase(t, p.Name, corev1.PodSucceeded)
			*p = w.readPod(t, p.Name)
		}, cleanup.ErrDenied},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := w.newPod(t, "stale-"+strings.ReplaceAll(tt.name, " ", "-"), node, corev1.PodRunning, nil)
			tt.change(&pod)
			if _, err := w.cluster.FailPod(t.Context(), pod, kubeNotice); !errors.Is(err, tt.want) {
				t.Errorf("fail: %v, want %v", err, tt.want)
			}
			if now, err := w.cluster.Pod(t.Context(), pod.Namespace, pod.Name); err == nil && now.Phase == "Failed" {
				t.Error("the pod is Failed")
			}
		})
	}
	t.Run("without a resource version the policy saves a succeeded pod", func(t *testing.T) {
		pod := w.newPod(t, "succeeded", node, corev1.PodSucceeded, nil)
		pod.Phase, pod.ResourceVersion = "Running", ""
		if _, err := w.cluster.FailPod(t.Context(), pod, kubeNotice); !errors.Is(err, cleanup.ErrDenied) {
			t.Errorf("fail: %v, want ErrDenied", err)
		}
	})
}

// checkReturningKubelet writes what a kubelet writes into a pod that it finds Failed when it is back: container states
// and its own conditions (kubernetes pkg/kubelet/status).
func (w *kubeWorld) checkReturningKubelet(t *testing.T) {
	node := w.newNode(t, "returning", nil).Name
	pod := w.newPod(t, "returned", node, corev1.PodRunning, nil)
	if _, err := w.cluster.FailPod(t.Context(), pod, kubeNotice); err != nil {
		t.Fatal(err)
	}
	kubelet := `{"metadata":{"uid":"` + pod.UID + `"},"status":{
		"containerStatuses":[{"name":"main","image":"none","imageID":"","ready":false,"restartCount":0,"state":{"terminated":
			{"exitCode":137,"reason":"ContainerStatusUnknown","startedAt":null,"finishedAt":null}}}],
		"conditions":[{"type":"Ready","status":"False","reason":"PodFailed"},{"type":"ContainersReady","status":"False","reason":"PodFailed"}]}}`
	_, err := w.admin.CoreV1().Pods("default").Patch(t.Context(), pod.Name, types.StrategicMergePatchType, []byte(kubelet),
		metav1.PatchOptions{FieldManager: "kubelet"}, "status")
	if err != nil {
		t.Fatal(err)
	}
	got := w.getPod(t, pod.Name)
	if got.Status.Phase != corev1.PodFailed || got.Status.Reason != "KernelPanic" || got.Annotations["lastgasp.dev/death"] == "" {
		t.Errorf("phase %s, reason %s, annotations %v", got.Status.Phase, got.Status.Reason, got.Annotations)
	}
	kept := map[corev1.PodConditionType]string{}
	for _, c := range got.Status.Conditions {
		if c.Status == corev1.ConditionTrue {
			kept[c.Type] = c.Reason
		}
	}
	if kept["DisruptionTarget"] != "KernelPanic" || kept["lastgasp.dev/NodeDeath"] != "KernelPanic" {
		t.Errorf("conditions that are true: %v", kept)
	}
	if read := w.readPod(t, pod.Name); !read.Started.IsZero() {
		t.Errorf("started %v, want never: the kubelet knows of no start", read.Started)
	}
	if err := w.cluster.DeletePod(t.Context(), w.readPod(t, pod.Name)); err != nil {
		t.Errorf("delete after the kubelet's write: %v", err)
	}
}

func (w *kubeWorld) checkMirror(t *testing.T) {
	node := w.newNode(t, "static", nil)
	pod := w.newPod(t, "mirror", node.Name, corev1.PodRunning, func(p *corev1.Pod) {
		p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "hash"}
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID, Controller: ptr(true)}}
	})
	if !pod.Mirror {
		t.Fatalf("pod is no mirror: %+v", pod)
	}
	if _, err := w.cluster.FailPod(t.Context(), pod, kubeNotice); !errors.Is(err, cleanup.ErrDenied) {
		t.Errorf("fail: %v, want ErrDenied", err)
	}
	annotated, err := w.cluster.AnnotatePod(t.Context(), pod, kubeNotice)
	if err != nil {
		t.Fatal(err)
	}
	if annotated.Phase != "Running" || !annotated.Marked {
		t.Errorf("annotated: %+v", annotated)
	}
	if err := w.cluster.DeletePod(t.Context(), annotated); !errors.Is(err, cleanup.ErrDenied) {
		t.Errorf("delete: %v, want ErrDenied", err)
	}
	if _, err := w.cluster.AnnotatePod(t.Context(), pod, kubeNotice); !errors.Is(err, cleanup.ErrConflict) {
		t.Errorf("annotate a pod that changed: %v, want ErrConflict", err)
	}
}

func (w *kubeWorld) checkDeletePod(t *testing.T) {
	node := w.newNode(t, "deleting", nil).Name
	fail := func(t *testing.T, p policy.Pod) policy.Pod {
		t.Helper()
		p, err := w.cluster.FailPod(t.Context(), p, kubeNotice)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	t.Run("unmarked", func(t *testing.T) {
		pod := w.newPod(t, "unmarked", node, corev1.PodRunning, nil)
		if err := w.cluster.DeletePod(t.Context(), pod); !errors.Is(err, cleanup.ErrDenied) {
			t.Errorf("delete: %v, want ErrDenied", err)
		}
	})
	t.Run("failed by us", func(t *testing.T) {
		pod := fail(t, w.newPod(t, "marked", node, corev1.PodRunning, nil))
		other := pod
		other.UID = "00000000-0000-0000-0000-000000000000"
		if err := w.cluster.DeletePod(t.Context(), other); !errors.Is(err, cleanup.ErrConflict) {
			t.Errorf("delete another uid: %v, want ErrConflict", err)
		}
		if err := w.cluster.DeletePod(t.Context(), pod); err != nil {
			t.Errorf("delete: %v", err)
		}
		if _, err := w.cluster.Pod(t.Context(), pod.Namespace, pod.Name); !errors.Is(err, cleanup.ErrNotFound) {
			t.Errorf("read after delete: %v, want ErrNotFound", err)
		}
		if err := w.cluster.DeletePod(t.Context(), pod); !errors.Is(err, cleanup.ErrNotFound) {
			t.Errorf("delete again: %v, want ErrNotFound", err)
		}
	})
	t.Run("with a finalizer", func(t *testing.T) {
		pod := fail(t, w.newPod(t, "finalized", node, corev1.PodRunning, func(p *corev1.Pod) { p.Finalizers = []string{"example.com/hold"} }))
		if err := w.cluster.DeletePod(t.Context(), pod); err != nil {
			t.Errorf("delete: %v", err)
		}
		if got := w.readPod(t, pod.Name); !got.Deleting || !cmp.Equal(got.Finalizers, []string{"example.com/hold"}) {
			t.Errorf("after delete: %+v, want deleting and held", got)
		}
		w.kubectl(t, "patch", "pod", pod.Name, "--type=merge", `--patch={"metadata":{"finalizers":null}}`)
	})
}

func (w *kubeWorld) checkAttachments(t *testing.T) {
	for _, v := range []struct{ name, node string }{{"va-1", "holder"}, {"va-2", "holder"}, {"va-3", "another"}} {
		_, err := w.admin.StorageV1().VolumeAttachments().Create(t.Context(), &storagev1.VolumeAttachment{
			ObjectMeta: metav1.ObjectMeta{Name: v.name},
			Spec: storagev1.VolumeAttachmentSpec{
				Attacher: "csi.example.com", NodeName: v.node,
				Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: ptr("pv-" + v.name)},
			},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	for node, want := range map[string]int{"holder": 2, "another": 1, "free": 0} {
		if got, err := w.cluster.Attachments(t.Context(), node); err != nil || got != want {
			t.Errorf("attachments of %s: %d, %v; want %d", node, got, err, want)
		}
	}
}

// checkAnnotationKeys uses Netflix's key, first against the policy as shipped, then with the key listed in it.
func (w *kubeWorld) checkAnnotationKeys(t *testing.T) {
	const key = "pod.titus.netflix.com/pod-termination-reason"
	c := w.connect(t, kube.Config{REST: w.account, Annotations: kube.Annotations{Reason: key}})
	node := w.newNode(t, "titus", nil).Name
	pod := w.newPod(t, "titus", node, corev1.PodRunning, nil)
	eventually(t, "the listener to notice that the policy does not know the key", func() error {
		if err := c.Ready(); !errors.Is(err, kube.ErrNotHeld) {
			return fmt.Errorf("ready: %v", err)
		}
		return nil
	})
	if _, err := c.FailPod(t.Context(), pod, kubeNotice); err == nil {
		t.Error("a pod is failed with a key that the policy does not know")
	}
	w.kubectl(t, "patch", "validatingadmissionpolicy", "lastgasp-listener-pods", "--type=json",
		`--patch=[{"op":"test","path":"/spec/variables/0/name","value":"alsoOurs"},
		{"op":"replace","path":"/spec/variables/0/expression","value":"['`+key+`']"}]`)
	eventually(t, "the changed policy to be in force", func() error {
		_, err := c.FailPod(t.Context(), w.readPod(t, "titus"), kubeNotice)
		return err
	})
	if got := w.getPod(t, "titus").Annotations[key]; got != kubeNotice.Reason {
		t.Errorf("%s: %q, want %q", key, got, kubeNotice.Reason)
	}
	if err := c.DeletePod(t.Context(), w.readPod(t, "titus")); err != nil {
		t.Errorf("delete: %v", err)
	}
}
