//go:build e2e

package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	reviewv1 "k8s.io/api/admission/v1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/lastgasp/lastgasp/e2e/story"
	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// TestKubeKinds makes nodes die that carry pods, or are Nodes, of the kinds that are rare and are in every large cluster.
func TestKubeKinds(t *testing.T) {
	w := newReplicaWorld(t)
	bin, err := story.Build(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	r := w.startReplica(t, bin, "", anyNumber)
	for i, tt := range podKinds() {
		t.Run(tt.name, func(t *testing.T) {
			d := newDoomed(fmt.Sprintf("kind-%d", i), 500+i)
			w.join(t, d)
			pod := w.newPod(t, d.name+"-odd", d.name, cmp.Or(tt.phase, corev1.PodRunning), tt.spec)
			if tt.status != "" {
				w.patchPod(t, pod.Name, tt.status)
			}
			if tt.also != nil {
				tt.also(t, w, d)
			}
			eventually(t, "the listener to know the node", func() error { return r.knows(w, d.name) })
			if err := d.panics(w, r); err != nil {
				t.Fatal(err)
			}
			record := w.awaitPhase(t, d, r, cmp.Or(tt.ends, policy.Cleaned))
			if tt.ends == "" && record.PodsFailed != record.PodsTotal || record.PodsFailed < len(d.pods) {
				t.Errorf("%d of %d pods failed, want all of at least %d", record.PodsFailed, record.PodsTotal, len(d.pods))
			}
			if tt.check != nil {
				tt.check(t, w, d, record)
			} else if err := w.gone(t.Context(), &doomed{name: d.name, pods: append(slices.Clone(d.pods), pod.Name)}); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("a namespace that is being deleted", func(t *testing.T) { w.checkLeavingNamespace(t, r) })
	t.Run("a Job that is suspended meanwhile", func(t *testing.T) { w.checkSuspendedJob(t, r) })
	t.Run("more pods than a death names", func(t *testing.T) { w.checkManyPods(t, r) })
	t.Run("names of every length", func(t *testing.T) { w.checkLongNames(t, r) })
	t.Run("a Node that was being deleted", func(t *testing.T) { w.checkDeletedNode(t, r) })
	t.Run("two Nodes of one instance", func(t *testing.T) { w.checkTwins(t, r) })
	t.Run("a Node without an instance", func(t *testing.T) { w.checkMachine(t, r) })
	t.Run("a Windows node that was restarted", func(t *testing.T) { w.checkWindows(t, r) })
	t.Run("a virtual node with the address of the machine that it runs on", func(t *testing.T) { w.checkVirtualNode(t, r) })
	t.Run("a webhook that fails", func(t *testing.T) { w.checkFailingWebhook(t, r) })
	t.Run("webhooks that undo the fence, and deny a pod by a 404", func(t *testing.T) { w.checkWebhooks(t, r) })
	t.Run("a definition that is missing for a while", func(t *testing.T) { w.checkMissingDefinition(t, r) })
}

// podKind is a pod on a node that dies. Unless check says otherwise, nothing of it is left.
type podKind struct {
	name   string
	phase  corev1.PodPhase
	spec   func(*corev1.Pod)
	status string // a patch, as its kubelet or the scheduler wrote it
	also   func(*testing.T, *kubeWorld, *doomed)
	ends   policy.Phase // Cleaned if empty
	check  func(*testing.T, *kubeWorld, *doomed, policy.Death)
}

func podKinds() []podKind {
	finalizer := func(p *corev1.Pod) { p.Finalizers = []string{"example.com/held"} }
	return []podKind{
		{
			name: "a pod that initializes", phase: corev1.PodPending,
			spec: func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "none"}} },
			status: `{"initContainerStatuses":[{"name":"init","image":"none","imageID":"","ready":false,"restartCount":2,"started":true,
				"state":{"running":{"startedAt":"2026-11-21T09:00:00Z"}},"lastState":{"terminated":{"exitCode":1,"startedAt":null,"finishedAt":null}}}],
				"containerStatuses":[{"name":"main","image":"none","imageID":"","ready":false,"restartCount":0,"state":{"waiting":{"reason":"PodInitializing"}}}]}`,
		},
		{
			name: "a native sidecar",
			spec: func(p *corev1.Pod) {
				p.Spec.InitContainers = []corev1.Container{{Name: "proxy", Image: "none", RestartPolicy: ptr(corev1.ContainerRestartPolicyAlways)}}
			},
			status: `{"initContainerStatuses":[{"name":"proxy","image":"none","imageID":"","ready":true,"restartCount":0,"started":true,
				"resources":{},"user":{"linux":{"uid":0,"gid":0}},"state":{"running":{"startedAt":"2026-11-21T09:00:00Z"}}}]}`,
		},
		{
			name: "an ephemeral container",
			also: func(t *testing.T, w *kubeWorld, d *doomed) {
				p := w.getPod(t, d.name+"-odd")
				p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
					Name: "debug", Image: "none", TerminationMessagePolicy: corev1.TerminationMessageReadFile,
				}}}
				must(w.admin.CoreV1().Pods("default").UpdateEphemeralContainers(t.Context(), p.Name, p, metav1.UpdateOptions{}))
				w.patchPod(t, p.Name, `{"ephemeralContainerStatuses":[{"name":"debug","image":"none","imageID":"","ready":false,"restartCount":0,
					"state":{"running":{"startedAt":"2026-11-21T09:00:00Z"}}}]}`)
			},
		},
		{
			name: "a pod that was deleted and waits for a finalizer", spec: finalizer,
			also: func(t *testing.T, w *kubeWorld, d *doomed) {
				if err := w.admin.CoreV1().Pods("default").Delete(t.Context(), d.name+"-odd", metav1.DeleteOptions{GracePeriodSeconds: ptr(int64(600))}); err != nil {
					t.Fatal(err)
				}
			},
			check: func(t *testing.T, w *kubeWorld, d *doomed, record policy.Death) {
				p := w.getPod(t, d.name+"-odd")
				if p.Status.Phase != corev1.PodFailed || p.Status.Reason != "KernelPanic" || p.DeletionTimestamp == nil {
					t.Errorf("phase %s, reason %s, deleted %v", p.Status.Phase, p.Status.Reason, p.DeletionTimestamp)
				}
				if note := record.Step(policy.StepDelete).Note; !strings.Contains(note, d.name+"-odd waits for finalizer example.com/held") {
					t.Errorf("the step says %q", note)
				}
				w.kubectl(t, "patch", "pod", p.Name, "--type=merge", `--patch={"metadata":{"finalizers":null}}`)
			},
		},
		{
			name: "a pod behind a disruption budget that allows none",
			spec: func(p *corev1.Pod) { p.Labels = map[string]string{"app": "budget"} },
			also: func(t *testing.T, w *kubeWorld, _ *doomed) {
				must(w.admin.PolicyV1().PodDisruptionBudgets("default").Create(t.Context(), &policyv1.PodDisruptionBudget{
					ObjectMeta: metav1.ObjectMeta{Name: "none"},
					Spec: policyv1.PodDisruptionBudgetSpec{
						MaxUnavailable: ptr(intstr.FromInt32(0)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "budget"}},
					},
				}, metav1.CreateOptions{}))
			},
		},
		{
			name: "a pod in the host's network",
			spec: func(p *corev1.Pod) {
				p.Spec.HostNetwork = true
				p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 9100, HostPort: 9100}}
			},
			status: `{"hostIP":"127.1.1.1","hostIPs":[{"ip":"127.1.1.1"}],"podIP":"127.1.1.1","podIPs":[{"ip":"127.1.1.1"}]}`,
		},
		{
			name: "a readiness gate",
			spec: func(p *corev1.Pod) {
				p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "target-health.elbv2.k8s.aws/x"}}
			},
			status: `{"conditions":[{"type":"target-health.elbv2.k8s.aws/x","status":"True"}]}`,
		},
		{
			name: "a pod that is being preempted",
			also: func(t *testing.T, w *kubeWorld, d *doomed) {
				w.patchPod(t, d.name+"-odd", `{"conditions":[{"type":"DisruptionTarget","status":"True","reason":"PreemptionByScheduler","message":"x"}]}`)
				if err := w.admin.CoreV1().Pods("default").Delete(t.Context(), d.name+"-odd", metav1.DeleteOptions{GracePeriodSeconds: ptr(int64(600))}); err != nil {
					t.Fatal(err)
				}
			},
		},
		{
			name: "a pod that is to come in place of another",
			also: func(t *testing.T, w *kubeWorld, d *doomed) {
				w.newPod(t, d.name+"-nominated", "", corev1.PodPending, func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"nowhere": "true"} })
				w.patchPod(t, d.name+"-nominated", fmt.Sprintf(`{"nominatedNodeName":%q}`, d.name))
			},
			check: func(t *testing.T, w *kubeWorld, d *doomed, _ policy.Death) {
				if p := w.getPod(t, d.name+"-nominated"); p.Status.Phase != corev1.PodPending || len(p.Annotations) > 0 || p.DeletionTimestamp != nil {
					t.Errorf("a pod that is not bound: %s, annotations %v", p.Status.Phase, p.Annotations)
				}
			},
		},
		{name: "a pod that its kubelet has lost", phase: corev1.PodUnknown},
		{
			name: "a container started just now, on a node whose clock is ahead",
			also: func(t *testing.T, w *kubeWorld, d *doomed) {
				w.patchPod(t, d.name+"-odd", fmt.Sprintf(`{"containerStatuses":[{"name":"main","image":"none","imageID":"","ready":true,"restartCount":0,
					"started":true,"state":{"running":{"startedAt":%q}}}]}`, time.Now().Add(4*time.Second).UTC().Format(time.RFC3339)))
			},
		},
		{
			name:   "a pod that is resized, with devices",
			status: `{"conditions":[{"type":"PodResizePending","status":"True","reason":"Deferred"}],"qosClass":"BestEffort","observedGeneration":1}`,
		},
		{
			name: "a pod whose annotations leave no room for ours",
			spec: func(p *corev1.Pod) {
				p.Annotations = map[string]string{"example.com/a": strings.Repeat("x", 256<<10-20)}
			},
			ends: policy.Incomplete,
			check: func(t *testing.T, w *kubeWorld, d *doomed, record policy.Death) {
				c := record.Condition(policy.PodsFailed)
				if c.Status != policy.False || !strings.Contains(c.Message, "1 denied") || !strings.Contains(c.Message, "262144 bytes") {
					t.Errorf("the condition says %+v", c)
				}
				if err := wantErr(cleanup.ErrNotFound)(w.cluster.Node(t.Context(), d.name)); err != nil {
					t.Errorf("a pod that its owner has filled keeps the node of all others: %v", err)
				}
			},
		},
		{
			name: "a pod of a controller that Kubernetes does not bring",
			spec: func(p *corev1.Pod) {
				p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "argoproj.io/v1alpha1", Kind: "Workflow", Name: "wf", UID: "0", Controller: ptr(true)}}
			},
		},
	}
}

// patchPod patches the status of a pod in namespace default.
func (w *kubeWorld) patchPod(t *testing.T, name, status string) {
	t.Helper()
	_, err := w.admin.CoreV1().Pods("default").Patch(t.Context(), name, types.StrategicMergePatchType, []byte(`{"status":`+status+`}`),
		metav1.PatchOptions{FieldManager: "kubelet"}, "status")
	if err != nil {
		t.Fatal(err)
	}
}

// dies makes d die in front of r and waits until it is cleaned up.
func (w *kubeWorld) dies(t *testing.T, d *doomed, r *replica) policy.Death {
	t.Helper()
	eventually(t, "the listener to know the node", func() error { return r.knows(w, d.name) })
	if err := d.panics(w, r); err != nil {
		t.Fatal(err)
	}
	return w.awaitPhase(t, d, r, policy.Cleaned)
}

// checkLeavingNamespace also keeps events out of the namespace by a quota.
func (w *kubeWorld) checkLeavingNamespace(t *testing.T, r *replica) {
	d := newDoomed("leaving", 540)
	w.join(t, d)
	namespaces := w.admin.CoreV1().Namespaces()
	must(namespaces.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "leaving"}}, metav1.CreateOptions{}))
	must(w.admin.CoreV1().ResourceQuotas("leaving").Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "no-events"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/events": resource.MustParse("0"), "count/events.events.k8s.io": resource.MustParse("0")}},
	}, metav1.CreateOptions{}))
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "pod"},
		Spec: corev1.PodSpec{
			NodeName: d.name, AutomountServiceAccountToken: ptr(false), TerminationGracePeriodSeconds: ptr(int64(20)), // the namespace is looked at again after half of it
			Containers: []corev1.Container{{Name: "main", Image: "none"}},
		},
	}
	must(w.admin.CoreV1().Pods("leaving").Create(t.Context(), pod, metav1.CreateOptions{}))
	must(w.admin.CoreV1().Pods("leaving").Patch(t.Context(), "pod", types.StrategicMergePatchType, []byte(`{"status":{"phase":"Running"}}`), metav1.PatchOptions{}, "status"))
	if err := namespaces.Delete(t.Context(), "leaving", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its pod to be deleted", func() error {
		p, err := w.admin.CoreV1().Pods("leaving").Get(t.Context(), "pod", metav1.GetOptions{})
		if err == nil && p.DeletionTimestamp == nil {
			err = errors.New("not yet")
		}
		return err
	})
	if record := w.dies(t, d, r); record.PodsFailed != len(d.pods)+1 {
		t.Errorf("%d pods failed", record.PodsFailed)
	}
	eventually(t, "the namespace to be gone", func() error {
		if _, err := namespaces.Get(t.Context(), "leaving", metav1.GetOptions{}); err == nil {
			return errors.New("it is there")
		}
		return nil
	})
}

func (w *kubeWorld) checkSuspendedJob(t *testing.T, r *replica) {
	d := newDoomed("suspended", 541)
	w.join(t, d)
	pause := func(on bool) {
		w.kubectl(t, "patch", "job", "paused", "--type=merge", fmt.Sprintf(`--patch={"spec":{"suspend":%t}}`, on))
	}
	must(w.admin.BatchV1().Jobs("default").Create(t.Context(), &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "paused"},
		Spec: batchv1.JobSpec{
			BackoffLimit: ptr(int32(0)),
			PodFailurePolicy: &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
				Action:          batchv1.PodFailurePolicyActionIgnore,
				OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}},
			}}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "paused"}},
				Spec: corev1.PodSpec{
					RestartPolicy: corev1.RestartPolicyNever, AutomountServiceAccountToken: ptr(false), TerminationGracePeriodSeconds: ptr(int64(3600)),
					Containers: []corev1.Container{{Name: "main", Image: "none"}}, Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
				},
			},
		},
	}, metav1.CreateOptions{}))
	t.Cleanup(func() {
		w.admin.BatchV1().Jobs("default").Delete(context.Background(), "paused", metav1.DeleteOptions{PropagationPolicy: ptr(metav1.DeletePropagationBackground)})
	})
	var pod corev1.Pod
	eventually(t, "the Job's pod", func() error {
		list, err := w.admin.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=paused"})
		if err != nil || len(list.Items) != 1 {
			return fmt.Errorf("%d pods, %v", len(list.Items), err)
		}
		pod = list.Items[0]
		return nil
	})
	if pod.Spec.NodeName != d.name {
		must(0, w.admin.CoreV1().Pods("default").Bind(t.Context(), &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Name: pod.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: d.name},
		}, metav1.CreateOptions{}))
	}
	w.setPhase(t, pod.Name, corev1.PodRunning)
	pause(true)
	eventually(t, "the Job's pod to be deleted", func() error {
		if w.getPod(t, pod.Name).DeletionTimestamp == nil {
			return errors.New("not yet")
		}
		return nil
	})
	w.dies(t, d, r)
	eventually(t, "the pod to be gone", func() error { return wantErr(cleanup.ErrNotFound)(w.cluster.Pod(t.Context(), "default", pod.Name)) })
	pause(false)
	eventually(t, "the Job to go on", func() error {
		j, err := w.admin.BatchV1().Jobs("default").Get(t.Context(), "paused", metav1.GetOptions{})
		if err == nil && (j.Status.Active != 1 || j.Status.Failed != 0 || finishedJob(j)) {
			err = fmt.Errorf("status %+v", j.Status)
		}
		return err
	})
}

func (w *kubeWorld) checkManyPods(t *testing.T, r *replica) {
	d := newDoomed("crowded", 542)
	w.join(t, d)
	const more = policy.MaxPods + 5
	for i := range more {
		must(w.admin.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("crowd-%d", i)},
			Spec: corev1.PodSpec{
				NodeName: d.name, AutomountServiceAccountToken: ptr(false), Containers: []corev1.Container{{Name: "main", Image: "none"}},
			},
		}, metav1.CreateOptions{}))
	}
	record := w.dies(t, d, r)
	if want := more + len(d.pods); record.PodsFailed != want || len(record.Pods) != policy.MaxPods || record.PodsOmitted != want-policy.MaxPods {
		t.Errorf("%d failed, %d named, %d omitted", record.PodsFailed, len(record.Pods), record.PodsOmitted)
	}
	if left := w.podsOn(t, d.name); len(left) > 0 {
		t.Errorf("%d pods are left", len(left))
	}
}

func (w *kubeWorld) checkLongNames(t *testing.T, r *replica) {
	long := strings.Repeat("a.", 126) + "n"
	d := newDoomed(long, 543)
	w.newNode(t, d.name, func(n *corev1.Node) { d.register(n, d.boot) })
	if err := w.lab.Enroll(t.Context(), d.name, d.boot, d.secret.Sum()); err != nil {
		t.Fatal(err)
	}
	w.newPod(t, strings.Repeat("p", 253), d.name, corev1.PodRunning, nil)
	if record := w.dies(t, d, r); record.PodsFailed != 1 || record.Node != long {
		t.Errorf("node %s, %d pods failed", record.Node, record.PodsFailed)
	}
}

// checkDeletedNode makes a Node die that somebody has deleted and that waits for a finalizer.
func (w *kubeWorld) checkDeletedNode(t *testing.T, r *replica) {
	d := newDoomed("departing", 544)
	w.join(t, d)
	finalizers := func(value string) {
		w.kubectl(t, "patch", "node", d.name, "--type=merge", `--patch={"metadata":{"finalizers":`+value+`}}`)
	}
	finalizers(`["karpenter.sh/termination"]`)
	w.mustDeleteNode(t, d.name)
	eventually(t, "the listener to know the node", func() error { return r.knows(w, d.name) })
	if err := d.panics(w, r); err != nil {
		t.Fatal(err)
	}
	for _, pod := range d.pods {
		eventually(t, pod+" to be gone", func() error { return wantErr(cleanup.ErrNotFound)(w.cluster.Pod(t.Context(), "default", pod)) })
	}
	finalizers("null")
	w.awaitPhase(t, d, r, policy.Cleaned)
}

// checkTwins has a second Node, ready, that says it is the same machine: one that was registered anew under another name.
func (w *kubeWorld) checkTwins(t *testing.T, r *replica) {
	d := newDoomed("twin", 545)
	w.join(t, d)
	other := w.newNode(t, "former-twin", func(n *corev1.Node) { d.register(n, "00000000-0000-4000-8000-000000000009") })
	eventually(t, "the listener to know it", func() error { return r.knows(w, other.Name) })
	w.dies(t, d, r)
	if n := w.readNode(t, other.Name); n.Fenced || n.Mark != (policy.Mark{}) {
		t.Errorf("the other Node: %+v", n)
	}
}

func (w *kubeWorld) checkMachine(t *testing.T, r *replica) {
	d := newDoomed("metal", 546)
	d.instance = "0123456789abcdef0123456789abcdef"
	w.newNode(t, d.name, func(n *corev1.Node) {
		d.register(n, d.boot)
		n.Spec.ProviderID = ""
		n.Status.NodeInfo.MachineID = d.instance
	})
	if err := w.lab.Enroll(t.Context(), d.name, d.boot, d.secret.Sum()); err != nil {
		t.Fatal(err)
	}
	w.dies(t, d, r)
	if err := w.gone(t.Context(), d); err != nil {
		t.Error(err)
	}
}

// checkWindows restarts a node that has no kernel of ours: its boot id is a counter.
func (w *kubeWorld) checkWindows(t *testing.T, r *replica) {
	w.newNode(t, "windows", func(n *corev1.Node) {
		n.Labels = map[string]string{"kubernetes.io/os": "windows"}
		n.Status.NodeInfo = corev1.NodeSystemInfo{BootID: "12", OperatingSystem: "windows", KernelVersion: "10.0.20348.2527"}
		setAddresses(n, "127.1.2.200")
	})
	d := newDoomed("after-windows", 547) // which the listener sees later, and which is recorded later
	w.join(t, d)
	eventually(t, "the listener to know both", func() error { return r.knows(w, d.name) })
	w.setBoot(t, "windows", "13")
	w.dies(t, d, r)
	list := must(w.cluster.Deaths(t.Context()))
	if slices.ContainsFunc(list, func(d policy.Death) bool { return d.Node == "windows" }) {
		t.Errorf("a death of the Windows node is on record")
	}
	if n := w.readNode(t, "windows"); n.Fenced || n.Mark != (policy.Mark{}) || n.Unhealthy != "" {
		t.Errorf("the Windows node: %+v", n)
	}
}

// checkVirtualNode makes the machine die that a virtual kubelet runs on, in the host's network: both Nodes have its address. An
// old kernel says nothing but its address.
func (w *kubeWorld) checkVirtualNode(t *testing.T, r *replica) {
	d := newDoomed("host-of-virtual", 548)
	w.newNode(t, "virtual", func(n *corev1.Node) {
		n.Labels = map[string]string{"type": "virtual-kubelet", "kubernetes.io/role": "agent"}
		n.Spec.Taints = []corev1.Taint{{Key: "virtual-kubelet.io/provider", Value: "x", Effect: corev1.TaintEffectNoSchedule}}
		n.Status.NodeInfo = corev1.NodeSystemInfo{OperatingSystem: "linux", KubeletVersion: "v1.19.10-vk-azure-aci-1.6.2"}
		setAddresses(n, d.addr.String())
	})
	w.join(t, d)
	eventually(t, "the listener to know both", func() error { return r.knows(w, d.name) })
	if err := d.panicsAs(w, r, "6.1.0-28-cloud-amd64,0,100,7000000,-;Kernel panic - not syncing: sysrq triggered crash\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the machine to be fenced, until a witness comes", func() error {
		if n := w.readNode(t, d.name); !n.Fenced {
			return fmt.Errorf("node %+v; the listener says:\n%s", n, r.says())
		}
		return nil
	})
	if n := w.readNode(t, "virtual"); n.Fenced || n.Mark != (policy.Mark{}) {
		t.Errorf("the virtual node: %+v", n)
	}
	if err := w.comesBack(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the machine to be in service", func() error { return w.untouched(t.Context(), d) })
}

// panicsAs sends datagrams from d's own address.
func (d *doomed) panicsAs(w *kubeWorld, r *replica, datagrams ...string) error {
	return w.ns.Do(func() error {
		dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(d.addr, 6665))}
		conn, err := dialer.Dial("udp", r.listen.String())
		if err != nil {
			return err
		}
		defer conn.Close()
		for _, text := range datagrams {
			if _, err := conn.Write([]byte(text)); err != nil {
				return err
			}
		}
		return nil
	})
}

// checkFailingWebhook has an admission webhook that nobody answers in the way of each thing that is written, for a while.
func (w *kubeWorld) checkFailingWebhook(t *testing.T, r *replica) {
	d := newDoomed("webhooked", 549)
	w.join(t, d)
	eventually(t, "the listener to know the node", func() error { return r.knows(w, d.name) })
	hook := &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "broken"}}
	for _, rule := range []admissionv1.Rule{
		{APIGroups: []string{"lastgasp.dev"}, APIVersions: []string{"*"}, Resources: []string{"*"}},
		{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"nodes", "nodes/status", "pods/status"}},
	} {
		hook.Webhooks = append(hook.Webhooks, admissionv1.ValidatingWebhook{
			Name:         fmt.Sprintf("broken-%d.example.com", len(hook.Webhooks)),
			ClientConfig: admissionv1.WebhookClientConfig{URL: ptr("https://127.0.0.1:1/")},
			Rules: []admissionv1.RuleWithOperations{{
				Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update, admissionv1.Delete}, Rule: rule,
			}},
			FailurePolicy: ptr(admissionv1.Fail), SideEffects: ptr(admissionv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
			TimeoutSeconds: ptr(int32(1)),
		})
	}
	hooks := w.admin.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	must(hooks.Create(t.Context(), hook, metav1.CreateOptions{}))
	remove := func() error { return hooks.Delete(context.Background(), "broken", metav1.DeleteOptions{}) }
	t.Cleanup(func() { remove() })
	eventually(t, "the webhook to be in the way", func() error {
		_, err := w.admin.CoreV1().Nodes().Patch(t.Context(), d.name, types.MergePatchType, []byte(`{"metadata":{"labels":{"x":"y"}}}`), metav1.PatchOptions{})
		if err == nil {
			return errors.New("a write passed")
		}
		return nil
	})
	if err := d.panics(w, r); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the listener to be refused", func() error {
		if !strings.Contains(r.says(), "broken-0.example.com") {
			return errors.New("it does not say so")
		}
		return nil
	})
	eventually(t, "the Node to say so", func() error {
		if text := w.kubectl(t, "describe", "node", d.name); !strings.Contains(text, "CleanupWaits") || !strings.Contains(text, "broken-0.example.com") {
			return fmt.Errorf("kubectl describe node shows:\n%s", text)
		}
		return nil
	})
	if err := remove(); err != nil {
		t.Fatal(err)
	}
	w.awaitPhase(t, d, r, policy.Cleaned)
	if err := w.gone(t.Context(), d); err != nil {
		t.Error(err)
	}
}

// checkWebhooks has one webhook take the fence off a node again, and another one deny that a pod is failed, with the code of a pod that
// is gone. Neither is taken for what it is not.
func (w *kubeWorld) checkWebhooks(t *testing.T, r *replica) {
	const label = "example.com/webhook"
	var server *httptest.Server
	must(0, w.ns.Do(func() error {
		server = httptest.NewTLSServer(http.HandlerFunc(review))
		return nil
	}))
	t.Cleanup(server.Close)
	hook := func(path, resource string) (admissionv1.WebhookClientConfig, *metav1.LabelSelector, []admissionv1.RuleWithOperations) {
		ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
		return admissionv1.WebhookClientConfig{URL: ptr(server.URL + path), CABundle: ca}, &metav1.LabelSelector{MatchLabels: map[string]string{label: "odd"}},
			[]admissionv1.RuleWithOperations{{
				Operations: []admissionv1.OperationType{admissionv1.Update},
				Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{resource}},
			}}
	}
	undo := admissionv1.MutatingWebhook{
		Name: "undo.example.com", SideEffects: ptr(admissionv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
	}
	undo.ClientConfig, undo.ObjectSelector, undo.Rules = hook("/undo", "nodes")
	deny := admissionv1.ValidatingWebhook{
		Name: "deny.example.com", SideEffects: ptr(admissionv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
	}
	deny.ClientConfig, deny.ObjectSelector, deny.Rules = hook("/deny", "pods/status")
	mutating, validating := w.admin.AdmissionregistrationV1().MutatingWebhookConfigurations(), w.admin.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	must(mutating.Create(t.Context(), &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "undo"}, Webhooks: []admissionv1.MutatingWebhook{undo},
	}, metav1.CreateOptions{}))
	t.Cleanup(func() { _ = mutating.Delete(context.Background(), "undo", metav1.DeleteOptions{}) })
	must(validating.Create(t.Context(), &admissionv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "deny"}, Webhooks: []admissionv1.ValidatingWebhook{deny},
	}, metav1.CreateOptions{}))
	t.Cleanup(func() { _ = validating.Delete(context.Background(), "deny", metav1.DeleteOptions{}) })

	open, denied := newDoomed("unfenced", 551), newDoomed("denied", 552)
	w.join(t, open)
	w.kubectl(t, "label", "node", open.name, label+"=odd")
	w.join(t, denied)
	pod := w.newPod(t, "denied-odd", denied.name, corev1.PodRunning, nil)
	w.kubectl(t, "label", "pod", pod.Name, label+"=odd")
	eventually(t, "both webhooks to be asked", func() error {
		w.kubectl(t, "taint", "node", open.name, "lastgasp.dev/dead:NoSchedule", "--overwrite")
		if len(w.ownTaints(t, open.name)) > 0 {
			w.kubectl(t, "taint", "node", open.name, "lastgasp.dev/dead-")
			return errors.New("the fence stays")
		}
		_, err := w.admin.CoreV1().Pods("default").Patch(t.Context(), pod.Name, types.StrategicMergePatchType, []byte(`{"status":{"message":"x"}}`), metav1.PatchOptions{}, "status")
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("a write of the pod: %v", err)
		}
		return nil
	})
	for _, d := range []*doomed{open, denied} {
		eventually(t, "the listener to know the node", func() error { return r.knows(w, d.name) })
		if err := d.panics(w, r); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the pods of the node without a fence to be failed", func() error {
		d, err := w.cluster.Death(t.Context(), open.deathName())
		c := d.Condition(policy.Fenced)
		if err == nil && (d.PodsFailed != len(open.pods) || c.Status != policy.False || !strings.Contains(c.Message, "look for a mutating webhook")) {
			err = fmt.Errorf("%d pods failed, the condition says %+v", d.PodsFailed, c)
		}
		return err
	})
	record := w.awaitPhase(t, denied, r, policy.Incomplete)
	if c := record.Condition(policy.PodsFailed); record.PodsFailed != len(denied.pods) || c.Status != policy.False || !strings.Contains(c.Message, "1 denied") {
		t.Errorf("%d pods failed, the condition says %+v", record.PodsFailed, c)
	}
	if n, p := w.readNode(t, denied.name), w.readPod(t, pod.Name); !n.Fenced || p.Phase != "Running" {
		t.Errorf("node %+v, pod %+v; want the node kept, and the pod as it was", n, p)
	}
	for _, d := range []*doomed{open, denied} {
		if err := w.admin.CoreV1().Nodes().Delete(t.Context(), d.name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}
}

// review is a webhook for admission: /undo takes our fence off a Node, /deny calls its object gone.
func review(w http.ResponseWriter, r *http.Request) {
	var in, out reviewv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Request == nil {
		http.Error(w, "no review", http.StatusBadRequest)
		return
	}
	out.TypeMeta, out.Response = in.TypeMeta, &reviewv1.AdmissionResponse{UID: in.Request.UID, Allowed: r.URL.Path != "/deny"}
	if !out.Response.Allowed {
		out.Response.Result = &metav1.Status{Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound, Message: "there is no such tenant"}
	}
	var n corev1.Node
	if r.URL.Path == "/undo" && json.Unmarshal(in.Request.Object.Raw, &n) == nil {
		for i, t := range n.Spec.Taints {
			if t.Key == "lastgasp.dev/dead" {
				out.Response.PatchType = ptr(reviewv1.PatchTypeJSONPatch)
				out.Response.Patch = fmt.Appendf(nil, `[{"op":"remove","path":"/spec/taints/%d"}]`, i)
			}
		}
	}
	_ = json.NewEncoder(w).Encode(out) // an error means that the API server is gone
}

// checkMissingDefinition deletes the CRD under a listener at work, and applies it again after a death.
func (w *kubeWorld) checkMissingDefinition(t *testing.T, r *replica) {
	d := newDoomed("undefined", 550)
	w.join(t, d)
	eventually(t, "the listener to know the node", func() error { return r.knows(w, d.name) })
	w.kubectl(t, "delete", "crd", "nodedeaths.lastgasp.dev")
	if err := d.panics(w, r); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the listener to miss it", func() error {
		if !strings.Contains(r.says(), "create death") {
			return errors.New("it does not say so")
		}
		return nil
	})
	for _, pod := range d.pods {
		if p := w.readPod(t, pod); p.Marked {
			t.Errorf("pod %+v was failed without a record", p)
		}
	}
	w.kubectl(t, "apply", "-k", w.installed)
	w.kubectl(t, "--namespace=lastgasp", "scale", "deployment", "listener", "--replicas=0")
	w.awaitPhase(t, d, r, policy.Cleaned)
	if err := w.gone(t.Context(), d); err != nil {
		t.Error(err)
	}
}
