package kube

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/lastgasp/lastgasp/listener/policy"
)

func loadPod(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{}
	if err := json.Unmarshal(read(t, name), p); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPodFrom(t *testing.T) {
	web := loadPod(t, "pod-deployment-1.36.json")
	want := policy.Pod{
		Namespace: "default", Name: "web-5b7df8b546-4xrp2", UID: "e0f4757b-6d84-44b4-8ec8-53cb915d094a", ResourceVersion: web.ResourceVersion,
		Node: "ip-10-77-2-10.ec2.internal", Phase: "Running",
		Created: web.CreationTimestamp.Time, Started: web.Status.ContainerStatuses[0].State.Running.StartedAt.Time,
		Images: []string{web.Spec.Containers[0].Image},
		Owner:  policy.Owner{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-5b7df8b546", UID: "3fa6b8df-62a5-4679-9135-5eb4551c632a"},
	}
	if diff := cmp.Diff(want, podFrom(web)); diff != "" {
		t.Errorf("deployment's pod (-want +got):\n%s", diff)
	}
	web.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	web.Finalizers = []string{"batch.kubernetes.io/job-tracking"}
	web.Annotations = map[string]string{annotationDeath: "r"}
	want.Deleting, want.Finalizers, want.Marked, want.Death = true, web.Finalizers, true, "r"
	if diff := cmp.Diff(want, podFrom(web)); diff != "" {
		t.Errorf("pod on its way (-want +got):\n%s", diff)
	}
	web.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "healthy", UID: "u", Controller: new(bool)}}
	*web.OwnerReferences[0].Controller = true
	if got := podFrom(web).Owner; got != (policy.Owner{}) {
		t.Errorf("the owner of a pod that calls itself a Node's is %+v", got)
	}
	mirror := podFrom(loadPod(t, "pod-mirror-1.36.json"))
	if !mirror.Mirror || mirror.Owner.Kind != "Node" {
		t.Errorf("mirror pod: %+v", mirror)
	}
}

func TestStarted(t *testing.T) {
	at := func(min int) metav1.Time { return metav1.Date(2026, 11, 21, 10, min, 0, 0, time.UTC) }
	running := func(min int) corev1.ContainerStatus {
		return corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at(min)}}}
	}
	ended := func(min int) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{StartedAt: at(min), FinishedAt: at(59)}}
	}
	for _, tt := range []struct {
		name string
		s    corev1.PodStatus
		want int // minute, -1 for never
	}{
		{"never ran", corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}}}}, -1},
		{"latest of several", corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{running(1), running(3), running(2)}}, 3},
		{"init container of a restart", corev1.PodStatus{
			InitContainerStatuses: []corev1.ContainerStatus{running(5)}, ContainerStatuses: []corev1.ContainerStatus{running(1)}}, 5},
		{"crashed since", corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}, LastTerminationState: ended(4)}}}, 4},
		{"ended", corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{State: ended(2)}}}, 2},
		{"status unknown after a reboot", corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
			State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "ContainerStatusUnknown"}}}}}, -1},
	} {
		got := started(tt.s)
		if tt.want < 0 != got.IsZero() || tt.want >= 0 && !got.Equal(at(tt.want).Time) {
			t.Errorf("%s: started %v, want minute %d", tt.name, got, tt.want)
		}
	}
}

func TestFailed(t *testing.T) {
	pod := loadPod(t, "pod-deployment-1.36.json")
	keys, err := Annotations{Reason: "pod.titus.netflix.com/pod-termination-reason"}.complete()
	if err != nil {
		t.Fatal(err)
	}
	death := policy.Notice{
		Death: "r", Cause: "HardLockup", Reason: "watchdog: hard lockup", Message: "n: watchdog: hard lockup",
		Time: time.Date(2026, 11, 21, 22, 30, 0, 999, time.UTC),
	}
	patch, err := json.MarshalIndent(podPatch{Metadata: keys.metadata(podFrom(pod), death), Status: failed(death)}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
 "metadata": {
  "uid": "e0f4757b-6d84-44b4-8ec8-53cb915d094a",
  "resourceVersion": "378",
  "annotations": {
   "lastgasp.dev/death": "r",
   "lastgasp.dev/termination-by": "lastgasp-listener",
   "lastgasp.dev/termination-code": "HardLockup",
   "pod.titus.netflix.com/pod-termination-reason": "watchdog: hard lockup"
  }
 },
 "status": {
  "phase": "Failed",
  "reason": "KernelPanic",
  "message": "n: watchdog: hard lockup",
  "conditions": [
   {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "KernelPanic",
    "message": "n: watchdog: hard lockup",
    "lastTransitionTime": "2026-11-21T22:30:00Z"
   },
   {
    "type": "lastgasp.dev/NodeDeath",
    "status": "True",
    "reason": "KernelPanic",
    "message": "n: watchdog: hard lockup",
    "lastTransitionTime": "2026-11-21T22:30:00Z"
   },
   {
    "type": "Ready",
    "status": "False",
    "reason": "KernelPanic",
    "lastTransitionTime": "2026-11-21T22:30:00Z"
   },
   {
    "type": "ContainersReady",
    "status": "False",
    "reason": "KernelPanic",
    "lastTransitionTime": "2026-11-21T22:30:00Z"
   }
  ]
 }
}`
	if diff := cmp.Diff(want, string(patch)); diff != "" {
		t.Errorf("patch (-want +got):\n%s", diff)
	}

	before, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	merged, err := strategicpatch.StrategicMergePatch(before, patch, corev1.Pod{})
	if err != nil {
		t.Fatal(err)
	}
	after := &corev1.Pod{}
	if err := json.Unmarshal(merged, after); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(pod.Status.ContainerStatuses, after.Status.ContainerStatuses); diff != "" {
		t.Errorf("container states (-want +got):\n%s", diff)
	}
	status := map[corev1.PodConditionType]corev1.ConditionStatus{}
	for _, c := range after.Status.Conditions {
		status[c.Type] = c.Status
	}
	if diff := cmp.Diff(map[corev1.PodConditionType]corev1.ConditionStatus{
		"DisruptionTarget": "True", "lastgasp.dev/NodeDeath": "True", "Ready": "False", "ContainersReady": "False",
		"PodScheduled": "True", "Initialized": "True", "PodReadyToStartContainers": "True",
	}, status); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
}

func TestUnready(t *testing.T) {
	yes, no := true, false
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u", ResourceVersion: "7"}}
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "setup"}, {Name: "proxy", Ready: true, Started: &yes}}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", Ready: true}, {Name: "beside", Started: &no}}
	got := unready(p)
	want := `[{"op":"replace","path":"/metadata/uid","value":"u"},{"op":"replace","path":"/metadata/resourceVersion","value":"7"},` +
		`{"op":"replace","path":"/status/initContainerStatuses/1/ready","value":false},` +
		`{"op":"replace","path":"/status/initContainerStatuses/1/started","value":false},` +
		`{"op":"replace","path":"/status/containerStatuses/0/ready","value":false}]`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("patch (-want +got):\n%s", diff)
	}
	p.Status.InitContainerStatuses, p.Status.ContainerStatuses = nil, p.Status.ContainerStatuses[1:]
	if got := unready(p); got != nil {
		t.Errorf("patch of a pod that is not ready: %s; want none", got)
	}
}
