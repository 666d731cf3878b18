package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/policy"
)

const (
	// reasonPanic is status.reason of a failed pod, which kubectl shows as its STATUS, and the reason of its conditions.
	// The annotations say which kind of panic it was.
	reasonPanic = "KernelPanic"
	// conditionDeath lets a podFailurePolicy tell a dead node from a drain: DisruptionTarget alone can mean either.
	conditionDeath corev1.PodConditionType = prefix + "NodeDeath"
	// messageSize bounds status.message and a condition's message, in bytes.
	messageSize = 1024
)

// Pods implements cleanup.Cluster. The resourceVersion is left unset on purpose: the list is then consistent, and the
// API server answers it from its index of spec.nodeName. One that is too large to be read at once is read pod by pod, which is
// slower.
func (c *Cluster) Pods(ctx context.Context, node string) ([]policy.Pod, error) {
	selector := fields.OneTermEqualSelector("spec.nodeName", node).String()
	body, err := readAtOnce(ctx, c.core.CoreV1().RESTClient().Get().Resource("pods").Param("fieldSelector", selector))
	pods := []policy.Pod{}
	switch {
	case errors.Is(err, errTooLarge):
		err = eachItem(ctx, c.deaths.Get().AbsPath("/api/v1/pods").Param("fieldSelector", selector), func(p *corev1.Pod) {
			pods = append(pods, podFrom(p))
		})
	case err == nil:
		var list corev1.PodList
		if _, _, err = scheme.Codecs.UniversalDeserializer().Decode(body, nil, &list); err == nil {
			for i := range list.Items {
				pods = append(pods, podFrom(&list.Items[i]))
			}
		}
	}
	if err != nil {
		return nil, explain(err, "list pods of node %s", node)
	}
	return pods, nil
}

// Pod implements cleanup.Cluster.
func (c *Cluster) Pod(ctx context.Context, namespace, name string) (policy.Pod, error) {
	pod, err := c.core.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return policy.Pod{}, explain(err, "read pod %s/%s", namespace, name)
	}
	return podFrom(pod), nil
}

// FailPod implements cleanup.Cluster. It refuses pods that must never be failed, whatever was decided: finished pods and
// mirrors of static pods.
func (c *Cluster) FailPod(ctx context.Context, p policy.Pod, n policy.Notice) (policy.Pod, error) {
	if p.Finished() {
		return policy.Pod{}, fmt.Errorf("fail pod %s/%s: phase %s is final: %w", p.Namespace, p.Name, p.Phase, cleanup.ErrDenied)
	}
	if p.Mirror {
		return policy.Pod{}, fmt.Errorf("fail pod %s/%s: it mirrors a static pod: %w", p.Namespace, p.Name, cleanup.ErrDenied)
	}
	return c.patchPodStatus(ctx, "fail", p, podPatch{Metadata: c.keys.metadata(p, n), Status: failed(n)})
}

// AnnotatePod implements cleanup.Cluster. It goes through pods/status too, so that the listener needs no right to patch
// pods themselves.
func (c *Cluster) AnnotatePod(ctx context.Context, p policy.Pod, n policy.Notice) (policy.Pod, error) {
	return c.patchPodStatus(ctx, "annotate", p, podPatch{Metadata: c.keys.metadata(p, n)})
}

// AnnotateFarewell implements cleanup.Cluster.
func (c *Cluster) AnnotateFarewell(ctx context.Context, p policy.Pod, f policy.Farewell) error {
	_, err := c.patchPodStatus(ctx, "annotate", p, podPatch{Metadata: podMetadata{
		UID: p.UID, Annotations: map[string]string{annotationFarewell: printable(f.String(), annotationSize)},
	}})
	return err
}

// UnreadyPod implements cleanup.Cluster. The lists of container statuses are replaced as a whole by other kinds of patch
// (listType=atomic), and a client that is older than the server would lose fields that it does not know.
func (c *Cluster) UnreadyPod(ctx context.Context, p policy.Pod) error {
	if err := c.proof.mayWrite(); err != nil {
		return fmt.Errorf("mark pod %s/%s not ready: %w", p.Namespace, p.Name, err)
	}
	pod, err := c.core.CoreV1().Pods(p.Namespace).Get(ctx, p.Name, metav1.GetOptions{})
	if err != nil {
		return explain(err, "read pod %s/%s", p.Namespace, p.Name)
	}
	if string(pod.UID) != p.UID || pod.Status.Phase != corev1.PodFailed {
		return nil
	}
	patch := unready(pod)
	if patch == nil {
		return nil
	}
	_, err = c.core.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: manager}, "status")
	return explain(err, "mark pod %s/%s not ready", p.Namespace, p.Name)
}

// unready is the JSON patch after which no container of the pod is ready, nil if none is. Replacing uid and resourceVersion
// makes them preconditions.
func unready(pod *corev1.Pod) []byte {
	type op struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	ops := []op{
		{"replace", "/metadata/uid", pod.UID},
		{"replace", "/metadata/resourceVersion", pod.ResourceVersion},
	}
	none := len(ops)
	for _, list := range []struct {
		field    string
		statuses []corev1.ContainerStatus
	}{{"initContainerStatuses", pod.Status.InitContainerStatuses}, {"containerStatuses", pod.Status.ContainerStatuses}} {
		for i, s := range list.statuses {
			at := fmt.Sprintf("/status/%s/%d/", list.field, i)
			if s.Ready {
				ops = append(ops, op{"replace", at + "ready", false})
			}
			if s.Started != nil && *s.Started {
				ops = append(ops, op{"replace", at + "started", false})
			}
		}
	}
	if len(ops) == none {
		return nil
	}
	return mustJSON(ops)
}

// DeletePod implements cleanup.Cluster.
func (c *Cluster) DeletePod(ctx context.Context, p policy.Pod) error {
	if err := c.proof.mayWrite(); err != nil {
		return fmt.Errorf("delete pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	grace, uid := int64(0), types.UID(p.UID)
	err := c.core.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &grace,
		Preconditions:      &metav1.Preconditions{UID: &uid},
	})
	return explain(err, "delete pod %s/%s", p.Namespace, p.Name)
}

func (c *Cluster) patchPodStatus(ctx context.Context, verb string, p policy.Pod, patch podPatch) (policy.Pod, error) {
	if err := c.proof.mayWrite(); err != nil {
		return policy.Pod{}, fmt.Errorf("%s pod %s/%s: %w", verb, p.Namespace, p.Name, err)
	}
	out, err := c.core.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, mustJSON(patch),
		metav1.PatchOptions{FieldManager: manager}, "status")
	if err != nil {
		return policy.Pod{}, explain(err, "%s pod %s/%s", verb, p.Namespace, p.Name)
	}
	return podFrom(out), nil
}

// podPatch is a strategic merge patch of pods/status.
type podPatch struct {
	Metadata podMetadata `json:"metadata"`
	Status   *podStatus  `json:"status,omitempty"`
}

// podMetadata names the pod that was decided on. The UID alone is too weak: without the resourceVersion the API server would
// turn Succeeded into Failed, and finished work would run again.
type podMetadata struct {
	UID             string            `json:"uid"`
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Annotations     map[string]string `json:"annotations"`
}

// podStatus is the part of corev1.PodStatus that we write. It has no container states: an invented exit code could match
// somebody's podFailurePolicy.
type podStatus struct {
	Phase      corev1.PodPhase `json:"phase"`
	Reason     string          `json:"reason"`
	Message    string          `json:"message"`
	Conditions []podCondition  `json:"conditions"` // merged by type
}

type podCondition struct {
	Type    corev1.PodConditionType `json:"type"`
	Status  corev1.ConditionStatus  `json:"status"`
	Reason  string                  `json:"reason"`
	Message string                  `json:"message,omitempty"`
	// LastTransitionTime is the time of the panic: the Job controller counts its back-off from Ready's
	// (kubernetes pkg/controller/job/backoff_utils.go, getFinishedTime).
	LastTransitionTime metav1.Time `json:"lastTransitionTime"`
}

// failed is the status of a pod of a dead node.
func failed(n policy.Notice) *podStatus {
	message, at := printable(n.Message, messageSize), metav1.NewTime(n.Time)
	status := &podStatus{
		Phase:   corev1.PodFailed,
		Reason:  reasonPanic,
		Message: message,
		Conditions: []podCondition{
			{conditionDeath, corev1.ConditionTrue, reasonPanic, message, at},
			{corev1.PodReady, corev1.ConditionFalse, reasonPanic, "", at},
			{corev1.ContainersReady, corev1.ConditionFalse, reasonPanic, "", at},
		},
	}
	if !n.Counts {
		disrupted := podCondition{corev1.DisruptionTarget, corev1.ConditionTrue, reasonPanic, message, at}
		status.Conditions = append([]podCondition{disrupted}, status.Conditions...)
	}
	return status
}

func (k Annotations) metadata(p policy.Pod, n policy.Notice) podMetadata {
	return podMetadata{
		UID:             p.UID,
		ResourceVersion: p.ResourceVersion,
		Annotations: map[string]string{
			k.Reason:        printable(n.Reason, annotationSize),
			k.Code:          printable(n.Cause, annotationSize),
			k.By:            manager,
			annotationDeath: n.Death,
		},
	}
}

func podFrom(p *corev1.Pod) policy.Pod {
	pod := policy.Pod{
		Namespace:       p.Namespace,
		Name:            p.Name,
		UID:             string(p.UID),
		ResourceVersion: p.ResourceVersion,
		Node:            p.Spec.NodeName,
		Phase:           string(p.Status.Phase),
		Deleting:        p.DeletionTimestamp != nil,
		Finalizers:      finalizers(p.Finalizers),
		Created:         p.CreationTimestamp.Time,
		Started:         started(p.Status),
		Lost:            lost(p.Status),
		Images:          images(p.Spec),
		Death:           clip(p.Annotations[annotationDeath], 2*nameSize), // what is longer is not ours
	}
	_, pod.Mirror = p.Annotations[corev1.MirrorPodAnnotationKey]
	_, pod.Marked = p.Annotations[annotationDeath]
	// Whoever creates a pod chooses its owners, and must not get events written on Nodes by naming one.
	if o := metav1.GetControllerOf(p); o != nil && (pod.Mirror || o.Kind != "Node") {
		pod.Owner = policy.Owner{
			APIVersion: clip(o.APIVersion, nameSize), Kind: clip(o.Kind, nameSize), Name: clip(o.Name, nameSize), UID: clip(string(o.UID), nameSize),
		}
	}
	return pod
}

// maxFinalizers of a pod are kept.
const maxFinalizers = 16

// clip is s, or a copy of its beginning. The API server bounds the length of names, and of nothing else.
func clip(s string, size int) string {
	if len(s) <= size {
		return s
	}
	return strings.Clone(s[:size])
}

func finalizers(all []string) []string {
	var out []string
	for _, f := range all[:min(len(all), maxFinalizers)] {
		out = append(out, clip(f, nameSize))
	}
	return out
}

func images(spec corev1.PodSpec) []string {
	var out []string
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for _, c := range containers {
			if image := clip(c.Image, imageSize); len(out) < maxImagesOfPod && !slices.Contains(out, image) {
				out = append(out, image)
			}
		}
	}
	return out
}

// lost reports whether a container's last end is unknown to the kubelet, as after a boot that ended under it: the runtime
// then gives exit code 255 and the reason Unknown (containerd internal/cri/server/restart.go), the kubelet 137 and
// ContainerStatusUnknown (kubernetes pkg/kubelet/kubelet_pods.go).
func lost(s corev1.PodStatus) bool {
	for _, statuses := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses} {
		for _, cs := range statuses {
			t := cs.LastTerminationState.Terminated
			if t != nil && (t.ExitCode == 255 || t.Reason == "Unknown" || t.Reason == "ContainerStatusUnknown") {
				return true
			}
		}
	}
	return false
}

// started is the latest start of any container, also of one that has ended since.
func started(s corev1.PodStatus) time.Time {
	var latest time.Time
	for _, statuses := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses} {
		for _, cs := range statuses {
			for _, state := range []corev1.ContainerState{cs.State, cs.LastTerminationState} {
				if r := state.Running; r != nil && r.StartedAt.After(latest) {
					latest = r.StartedAt.Time
				}
				if t := state.Terminated; t != nil && t.StartedAt.After(latest) {
					latest = t.StartedAt.Time
				}
			}
		}
	}
	return latest
}
