//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/lastgasp/lastgasp/e2e/story"
	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/kube"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// checkRights asks the API server about RBAC only.
func (w *kubeWorld) checkRights(t *testing.T) {
	type attributes = authorizationv1.ResourceAttributes
	for _, tt := range []struct {
		want bool
		attributes
	}{
		{true, attributes{Verb: "watch", Resource: "nodes"}},
		{true, attributes{Verb: "patch", Resource: "nodes"}},
		{true, attributes{Verb: "delete", Resource: "nodes"}},
		{true, attributes{Verb: "list", Resource: "pods"}},
		{true, attributes{Verb: "patch", Resource: "pods", Subresource: "status"}},
		{true, attributes{Verb: "patch", Resource: "nodes", Subresource: "status"}},
		{true, attributes{Verb: "get", Group: "coordination.k8s.io", Resource: "leases", Namespace: "kube-node-lease"}},
		{true, attributes{Verb: "create", Group: "coordination.k8s.io", Resource: "leases", Namespace: "lastgasp"}},
		{true, attributes{Verb: "patch", Group: "lastgasp.dev", Resource: "nodedeaths"}},
		{true, attributes{Verb: "update", Group: "lastgasp.dev", Resource: "nodedeaths", Subresource: "status"}},
		{true, attributes{Verb: "get", Group: "apps", Resource: "replicasets"}},
		{true, attributes{Verb: "get", Group: "batch", Resource: "jobs"}},

		{false, attributes{Verb: "list", Group: "apps", Resource: "replicasets"}},
		{false, attributes{Verb: "patch", Group: "apps", Resource: "replicasets"}},
		{false, attributes{Verb: "get", Group: "apps", Resource: "deployments"}},
		{false, attributes{Verb: "list", Group: "batch", Resource: "jobs"}},
		{false, attributes{Verb: "patch", Group: "batch", Resource: "jobs", Subresource: "status"}},
		{false, attributes{Verb: "create", Resource: "nodes"}},
		{false, attributes{Verb: "update", Resource: "nodes"}},
		{false, attributes{Verb: "update", Resource: "nodes", Subresource: "status"}},
		{true, attributes{Verb: "create", Group: "authentication.k8s.io", Resource: "tokenreviews"}},
		{true, attributes{Verb: "create", Group: "authorization.k8s.io", Resource: "subjectaccessreviews"}},
		{false, attributes{Verb: "create", Resource: "serviceaccounts", Subresource: "token", Namespace: "default"}},
		{false, attributes{Verb: "impersonate", Resource: "users"}},
		{false, attributes{Verb: "deletecollection", Resource: "nodes"}},
		{false, attributes{Verb: "patch", Resource: "pods"}},
		{false, attributes{Verb: "update", Resource: "pods", Subresource: "status"}},
		{false, attributes{Verb: "watch", Resource: "pods"}},
		{false, attributes{Verb: "create", Resource: "pods", Namespace: "default"}},
		{false, attributes{Verb: "create", Resource: "pods", Subresource: "eviction", Namespace: "default"}},
		{false, attributes{Verb: "create", Resource: "pods", Subresource: "exec", Namespace: "default"}},
		{false, attributes{Verb: "deletecollection", Resource: "pods", Namespace: "default"}},
		{false, attributes{Verb: "get", Resource: "secrets", Namespace: "lastgasp"}},
		{false, attributes{Verb: "update", Group: "coordination.k8s.io", Resource: "leases", Namespace: "kube-node-lease"}},
		{false, attributes{Verb: "update", Group: "coordination.k8s.io", Resource: "leases", Namespace: "kube-system"}},
		{false, attributes{Verb: "list", Group: "coordination.k8s.io", Resource: "leases", Namespace: "kube-system"}},
		{false, attributes{Verb: "update", Group: "lastgasp.dev", Resource: "nodedeaths"}},
		{false, attributes{Verb: "deletecollection", Group: "lastgasp.dev", Resource: "nodedeaths"}},
		{false, attributes{Verb: "delete", Group: "storage.k8s.io", Resource: "volumeattachments"}},
	} {
		a := tt.attributes
		t.Run(strings.Join(strings.Fields(strings.Join([]string{a.Verb, a.Group, a.Resource, a.Subresource, a.Namespace}, " ")), " "), func(t *testing.T) {
			review, err := w.raw.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), &authorizationv1.SelfSubjectAccessReview{
				Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &a},
			}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if review.Status.Allowed != tt.want {
				t.Errorf("allowed %v, want %v (%s)", review.Status.Allowed, tt.want, review.Status.Reason)
			}
		})
	}
}

// grantAll gives the listener's account every right until the test ends, so that every denial is a policy's.
func (w *kubeWorld) grantAll(t *testing.T) {
	t.Helper()
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "listener-is-admin"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: "listener", Namespace: w.namespace}},
	}
	if _, err := w.admin.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	secrets := func() error {
		_, err := w.raw.CoreV1().Secrets("default").List(context.Background(), metav1.ListOptions{})
		return err
	}
	t.Cleanup(func() { // and wait: a removal that takes effect late would take the rights from the next test, which grants them again
		w.admin.RbacV1().ClusterRoleBindings().Delete(context.Background(), binding.Name, metav1.DeleteOptions{})
		eventually(t, "the rights to be taken away", func() error {
			if err := secrets(); !apierrors.IsForbidden(err) {
				return fmt.Errorf("read secrets: %v, want Forbidden", err)
			}
			return nil
		})
	})
	eventually(t, "the rights to be granted", secrets)
}

// attempt is one write and who denies it.
type attempt struct {
	name   string
	do     func() error
	policy string // empty if it is allowed
	says   string
}

func (a attempt) check(t *testing.T) {
	t.Run(a.name, func(t *testing.T) {
		err := a.do()
		if a.policy == "" {
			if err != nil {
				t.Errorf("denied: %v", err)
			}
			return
		}
		if !apierrors.IsForbidden(err) || !strings.Contains(fmt.Sprint(err), "ValidatingAdmissionPolicy '"+a.policy+"'") ||
			!strings.Contains(err.Error(), a.says) {
			t.Errorf("%v, want Forbidden by %s, which says %q", err, a.policy, a.says)
		}
	})
}

func patchNode(ctx context.Context, c kubernetes.Interface, node, patch string, subresource ...string) func() error {
	return func() error {
		_, err := c.CoreV1().Nodes().Patch(ctx, node, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, subresource...)
		return err
	}
}

func patchPod(ctx context.Context, c kubernetes.Interface, name, patch string, subresource ...string) func() error {
	return func() error {
		_, err := c.CoreV1().Pods("default").Patch(ctx, name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, subresource...)
		return err
	}
}

func deletePod(ctx context.Context, c kubernetes.Interface, name string) func() error {
	return func() error { return c.CoreV1().Pods("default").Delete(ctx, name, metav1.DeleteOptions{}) }
}

// checkPoliciesBeyondRights tries what a stolen token could be used for.
func (w *kubeWorld) checkPoliciesBeyondRights(t *testing.T) {
	ctx := t.Context()
	w.grantAll(t)
	annotated := func(p *corev1.Pod) {
		p.Annotations = map[string]string{"example.com/a": "b"}
		p.Finalizers = []string{"example.com/hold"}
	}
	node := w.newNode(t, "subject", func(n *corev1.Node) {
		n.Annotations = map[string]string{"example.com/a": "b"}
		n.Spec.Taints = []corev1.Taint{{Key: "dedicated", Effect: corev1.TaintEffectNoSchedule}}
		setAddresses(n, "10.9.7.1")
	}).Name
	w.newNode(t, "master", func(n *corev1.Node) {
		n.Labels = map[string]string{"node-role.kubernetes.io/control-plane": ""}
	})
	for name, phase := range map[string]corev1.PodPhase{"p-running": corev1.PodRunning, "p-succeeded": corev1.PodSucceeded} {
		w.newPod(t, name, node, phase, annotated)
		defer w.kubectl(t, "patch", "pod", name, "--type=merge", `--patch={"metadata":{"finalizers":null}}`)
	}
	ready := w.newPod(t, "p-ready", node, corev1.PodRunning, nil)
	if err := patchPod(ctx, w.admin, ready.Name, `{"status":{"podIP":"10.1.1.1","podIPs":[{"ip":"10.1.1.1"}],"hostIP":"10.9.7.1","hostIPs":[{"ip":"10.9.7.1"}]}}`, "status")(); err != nil {
		t.Fatal(err)
	}
	w.newPod(t, "p-evicted", node, corev1.PodRunning, nil)
	if err := patchPod(ctx, w.admin, "p-evicted", `{"status":{"phase":"Failed","reason":"Evicted"}}`, "status")(); err != nil {
		t.Fatal(err)
	}
	failed := w.newPod(t, "p-failed", node, corev1.PodRunning, nil)
	if _, err := w.cluster.FailPod(ctx, failed, kubeNotice); err != nil {
		t.Fatal(err)
	}
	unbound := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p-unbound"},
		Spec: corev1.PodSpec{
			SchedulerName: "nobody", AutomountServiceAccountToken: ptr(false),
			Containers: []corev1.Container{{Name: "main", Image: "none"}},
		},
	}
	if _, err := w.admin.CoreV1().Pods("default").Create(ctx, unbound, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	defer w.admin.CoreV1().Pods("default").Delete(context.Background(), "p-unbound", metav1.DeleteOptions{GracePeriodSeconds: ptr(int64(0))})

	const pods = "lastgasp-listener-pods"
	pod := func(name, patch string) func() error { return patchPod(ctx, w.raw, name, patch, "status") }
	rawPod := func(name, patch string) func() error {
		return func() error {
			_, err := w.raw.CoreV1().Pods("default").Patch(ctx, name, types.JSONPatchType, []byte(patch), metav1.PatchOptions{}, "status")
			return err
		}
	}
	const mark = `"metadata":{"annotations":{"lastgasp.dev/death":"r"}}`
	for _, a := range []attempt{
		{"pod: a label", pod("p-running", `{"metadata":{"labels":{"a":"b"}}}`), pods, "labels, owners and finalizers"},
		{"pod: a finalizer taken away", pod("p-running", `{"metadata":{"finalizers":null}}`), pods, "labels, owners and finalizers"},
		{"pod: a foreign annotation", pod("p-running", `{"metadata":{"annotations":{"example.com/x":"y"}}}`), pods, "own annotations only"},
		{"pod: a foreign annotation changed", pod("p-running", `{"metadata":{"annotations":{"example.com/a":"y"}}}`), pods, "own annotations only"},
		{"pod: a foreign annotation taken away", pod("p-running", `{"metadata":{"annotations":{"example.com/a":null}}}`), pods, "own annotations only"},
		{"pod: running to succeeded", pod("p-running", `{"status":{"phase":"Succeeded"}}`), pods, "only phase"},
		{"pod: succeeded to failed", pod("p-succeeded", `{`+mark+`,"status":{"phase":"Failed"}}`), pods, "phase is final"},
		{"pod: failed to running", pod("p-failed", `{"status":{"phase":"Running"}}`), pods, "only phase"},
		{"pod: failed for no death", pod("p-running", `{"status":{"phase":"Failed"}}`), pods, "with the NodeDeath"},
		{"pod: an exit code", pod("p-running", `{"status":{"containerStatuses":[{"name":"main","state":{"running":null,"terminated":{"exitCode":137}}}]}}`), pods, "exit codes"},
		{"pod: a running container that is not ready", rawPod("p-ready", `[{"op":"replace","path":"/status/containerStatuses/0/ready","value":false}]`), pods, "exit codes"},
		{"pod: a failed one's container not ready", rawPod("p-failed", `[{"op":"replace","path":"/status/containerStatuses/0/ready","value":false}]`), "", ""},
		{"pod: a failed one's container ready", rawPod("p-failed", `[{"op":"replace","path":"/status/containerStatuses/0/ready","value":true}]`), pods, "exit codes"},
		{"pod: a failed one's container started", rawPod("p-failed", `[{"op":"add","path":"/status/containerStatuses/0/started","value":true}]`), pods, "exit codes"},
		{"pod: a failed one's exit code", rawPod("p-failed", `[{"op":"replace","path":"/status/containerStatuses/0/state","value":{"terminated":{"exitCode":0}}}]`), pods, "exit codes"},
		{"pod: a failed one's restarts", rawPod("p-failed", `[{"op":"replace","path":"/status/containerStatuses/0/restartCount","value":3}]`), pods, "exit codes"},
		{"pod: a failed one's image", rawPod("p-failed", `[{"op":"replace","path":"/status/containerStatuses/0/image","value":"evil"}]`), pods, "exit codes"},
		{"pod: a failed one's resources", rawPod("p-failed", `[{"op":"add","path":"/status/containerStatuses/0/allocatedResources","value":{"cpu":"1"}}]`), pods, "exit codes"},
		{"pod: a failed one's user", rawPod("p-failed", `[{"op":"add","path":"/status/containerStatuses/0/user","value":{"linux":{"uid":0,"gid":0}}}]`), pods, "exit codes"},
		{"pod: a failed one's container forgotten", rawPod("p-failed", `[{"op":"remove","path":"/status/containerStatuses"}]`), pods, "exit codes"},
		{"pod: its address", pod("p-ready", `{"status":{"podIP":"10.1.1.9","podIPs":[{"$patch":"replace"},{"ip":"10.1.1.9"}]}}`), pods, "addresses"},
		{"pod: a second address", pod("p-ready", `{"status":{"podIPs":[{"ip":"10.1.1.1"},{"ip":"fd00::9"}]}}`), pods, "addresses"},
		{"pod: its host's address", pod("p-ready", `{"status":{"hostIP":"10.9.7.9","hostIPs":[{"$patch":"replace"},{"ip":"10.9.7.9"}]}}`), pods, "addresses"},
		{"pod: its address while it is failed", pod("p-ready", `{`+mark+`,"status":{"phase":"Failed","podIP":"10.1.1.9","podIPs":[{"$patch":"replace"},{"ip":"10.1.1.9"}]}}`), pods, "addresses"},
		{"pod: an address for one that has none", pod("p-running", `{"status":{"podIP":"10.1.1.9","podIPs":[{"ip":"10.1.1.9"}]}}`), pods, "addresses"},
		{"pod: not ready, still running", pod("p-ready", `{"status":{"conditions":[{"type":"Ready","status":"False"}]}}`), pods, "only when it fails the pod"},
		{"pod: disrupted, still running", pod("p-ready", `{`+mark+`,"status":{"conditions":[{"type":"DisruptionTarget","status":"True"}]}}`), pods, "only when it fails the pod"},
		{"pod: ready again after it has failed", pod("p-failed", `{"status":{"conditions":[{"type":"Ready","status":"True"}]}}`), pods, "only when it fails the pod"},
		{"pod: failed and ready", pod("p-ready", `{`+mark+`,"status":{"phase":"Failed","conditions":[{"type":"Ready","status":"True"}]}}`), pods, "is not ready"},
		{"pod: a foreign condition", pod("p-running", `{`+mark+`,"status":{"phase":"Failed","conditions":[{"type":"example.com/gate","status":"True"}]}}`), pods, "conditions that tell of a death"},
		{"pod: its message", pod("p-ready", `{"status":{"message":"x"}}`), pods, "phase, reason, message and conditions only"},
		{"pod: started at another time", pod("p-ready", `{"status":{"startTime":"2026-01-01T00:00:00Z"}}`), pods, "phase, reason, message and conditions only"},
		{"pod: through the pod itself", patchPod(ctx, w.raw, "p-running", `{"metadata":{"annotations":{"lastgasp.dev/death":"r"}}}`), pods, "only the pod's status"},
		{"pod: another image", patchPod(ctx, w.raw, "p-running", `{"spec":{"containers":[{"name":"main","image":"evil"}]}}`), pods, "only the pod's status"},
		{"pod: an ephemeral container", patchPod(ctx, w.raw, "p-running", `{"spec":{"ephemeralContainers":[{"name":"e","image":"evil"}]}}`, "ephemeralcontainers"), pods, "only the pod's status"},
		{"pod: bound to no node", pod("p-unbound", `{`+mark+`,"status":{"phase":"Failed"}}`), pods, "not bound to a node"},
		{"pod: running, deleted", deletePod(ctx, w.raw, "p-running"), pods, "that it has failed"},
		{"pod: all deleted", func() error {
			return w.raw.CoreV1().Pods("default").DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "metadata.name=p-running"})
		}, pods, "that it has failed"},
		{"pod: our annotation", pod("p-running", `{`+mark+`}`), "", ""},
		{"pod: running and marked, deleted", deletePod(ctx, w.raw, "p-running"), pods, "that it has failed"},
		{"pod: our annotation on what others failed", pod("p-evicted", `{`+mark+`}`), "", ""},
		{"pod: failed by others and marked, deleted", deletePod(ctx, w.raw, "p-evicted"), pods, "that it has failed"},
	} {
		a.check(t)
	}

	// Kubernetes before 1.34 drops this field before any policy sees it.
	t.Run("pod: its generation", func(t *testing.T) {
		err := pod("p-ready", `{"status":{"observedGeneration":77}}`)()
		if got := w.getPod(t, "p-ready").Status.ObservedGeneration; got == 77 || err != nil && !strings.Contains(err.Error(), "phase, reason, message and conditions only") {
			t.Errorf("%v, and observedGeneration is %d", err, got)
		}
	})

	const nodes = "lastgasp-listener-nodes"
	onNode := func(patch string, subresource ...string) func() error {
		return patchNode(ctx, w.raw, node, patch, subresource...)
	}
	// The lifecycle controller may have put up its own by now: the list is what stands on the Node, and more.
	taints := func(name, more string) func() error {
		return func() error {
			n, err := w.admin.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			have := strings.TrimSuffix(string(must(json.Marshal(n.Spec.Taints))), "]")
			if have == "null" {
				have = "["
			} else {
				have += ","
			}
			return patchNode(ctx, w.raw, name, fmt.Sprintf(`{"metadata":{"resourceVersion":%q},"spec":{"taints":%s%s]}}`, n.ResourceVersion, have, more))()
		}
	}
	for _, a := range []attempt{
		{"node: a label", onNode(`{"metadata":{"labels":{"a":"b"}}}`), nodes, "labels, finalizers and owners"},
		{"node: a finalizer", onNode(`{"metadata":{"finalizers":["example.com/hold"]}}`), nodes, "labels, finalizers and owners"},
		{"node: a foreign annotation", onNode(`{"metadata":{"annotations":{"example.com/x":"y"}}}`), nodes, "own annotations only"},
		{"node: a foreign annotation taken away", onNode(`{"metadata":{"annotations":{"example.com/a":null}}}`), nodes, "own annotations only"},
		{"node: an annotation of ours that is none", onNode(`{"metadata":{"annotations":{"lastgasp.dev/other":"y"}}}`), nodes, "own annotations only"},
		{"node: a foreign annotation through the status", onNode(`{"metadata":{"annotations":{"example.com/x":"y"}}}`, "status"), nodes, "own annotations only"},
		{"node: cordoned", onNode(`{"spec":{"unschedulable":true}}`), nodes, "taints only"},
		{"node: a provider id", onNode(`{"spec":{"providerID":"aws:///x/i-0"}}`), nodes, "taints only"},
		{"node: the foreign taint forgotten", onNode(`{"spec":{"taints":[{"key":"lastgasp.dev/dead","effect":"NoSchedule"}]}}`), nodes, "own taints only"},
		{"node: a foreign taint", taints(node, `{"key":"x","effect":"NoSchedule"}`), nodes, "own taints only"},
		{"node: our taint that evicts", taints(node, `{"key":"lastgasp.dev/dead","effect":"NoExecute"}`), nodes, "own taints only"},
		{"node: our taint with a value", taints(node, `{"key":"lastgasp.dev/dead","value":"x","effect":"NoSchedule"}`), nodes, "own taints only"},
		{"node: out of service that evicts", taints(node, `{"key":"node.kubernetes.io/out-of-service","value":"node-death","effect":"NoExecute"}`), nodes, "own taints only"},
		{"node: out of service by others' word", taints(node, `{"key":"node.kubernetes.io/out-of-service","value":"nodeshutdown","effect":"NoSchedule"}`), nodes, "own taints only"},
		{"node: the control plane fenced", taints("master", `{"key":"lastgasp.dev/dead","effect":"NoSchedule"}`), nodes, "never the listener's to fence"},
		{"node: the control plane out of service", taints("master", `{"key":"node.kubernetes.io/out-of-service","value":"node-death","effect":"NoSchedule"}`), nodes, "never the listener's to fence"},
		{"node: its readiness", onNode(`{"status":{"conditions":[{"type":"Ready","status":"False"}]}}`, "status"), nodes, "its own only"},
		{"node: a foreign condition", onNode(`{"status":{"conditions":[{"type":"MemoryPressure","status":"True"}]}}`, "status"), nodes, "its own only"},
		{"node: its addresses", onNode(`{"status":{"addresses":[{"type":"InternalIP","address":"10.9.7.9"}]}}`, "status"), nodes, "its own condition only"},
		{"node: its boot", onNode(`{"status":{"nodeInfo":{"bootID":"other"}}}`, "status"), nodes, "its own condition only"},
		{"node: its capacity", onNode(`{"status":{"capacity":{"example.com/gpu":"8"}}}`, "status"), nodes, "its own condition only"},
		{"node: its room for pods", onNode(`{"status":{"allocatable":{"pods":"0"}}}`, "status"), nodes, "its own condition only"},
		{"node: its volumes", onNode(`{"status":{"volumesInUse":["x"]}}`, "status"), nodes, "its own condition only"},
		{"node: its volumes attached", onNode(`{"status":{"volumesAttached":[{"name":"x","devicePath":"y"}]}}`, "status"), nodes, "its own condition only"},
		{"node: our condition", onNode(`{"status":{"conditions":[{"type":"lastgasp.dev/KernelHealthy","status":"False","reason":"KernelPanic"}]}}`, "status"), "", ""},
		{"node: our condition and a foreign one", onNode(`{"status":{"conditions":[{"type":"lastgasp.dev/KernelHealthy","status":"True"},{"type":"DiskPressure","status":"True"}]}}`, "status"), nodes, "its own only"},
		{"node: our condition and a foreign annotation", onNode(`{"metadata":{"annotations":{"example.com/x":"y"}},"status":{"conditions":[{"type":"lastgasp.dev/KernelHealthy","status":"True"}]}}`, "status"), nodes, "own annotations only"},
		{"node: the boot of our condition", onNode(`{"metadata":{"annotations":{"lastgasp.dev/unhealthy-boot":"boot-1"}}}`, "status"), "", ""},
		{"node: our annotation", onNode(`{"metadata":{"annotations":{"lastgasp.dev/reason":"x"}}}`), "", ""},
		{"node: fenced", taints(node, `{"key":"lastgasp.dev/dead","effect":"NoSchedule"}`), "", ""},
		{"node: fenced and not marked, deleted", func() error { return w.raw.CoreV1().Nodes().Delete(ctx, node, metav1.DeleteOptions{}) }, nodes, "marked"},
		{"node: the control plane marked", patchNode(ctx, w.raw, "master", `{"metadata":{"annotations":{"lastgasp.dev/death":"r"}}}`), "", ""},
		{"node: the control plane deleted", func() error { return w.raw.CoreV1().Nodes().Delete(ctx, "master", metav1.DeleteOptions{}) }, nodes, ""},
		{"node: all deleted", func() error {
			return w.raw.CoreV1().Nodes().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "metadata.name=" + node})
		}, nodes, "marked"},
		{"node: fenced, its room for pods", onNode(`{"status":{"allocatable":{"pods":"0"}}}`, "status"), nodes, "its own condition only"},
		{"node: marked", onNode(`{"metadata":{"annotations":{"lastgasp.dev/death":"r"}}}`), "", ""},
		{"node: marked and fenced, more room for pods", onNode(`{"status":{"allocatable":{"pods":"500"}}}`, "status"), nodes, "its own condition only"},
		{"node: marked and fenced, its memory", onNode(`{"status":{"allocatable":{"memory":"0"}}}`, "status"), nodes, "its own condition only"},
		{"node: marked and fenced, its room and its boot", onNode(`{"status":{"allocatable":{"pods":"0"},"nodeInfo":{"bootID":"other"}}}`, "status"), nodes, "its own condition only"},
		{"node: marked and fenced, no room for pods", onNode(`{"status":{"allocatable":{"pods":"0"}}}`, "status"), "", ""},
	} {
		a.check(t)
	}

	const leases = "lastgasp-listener-leases"
	lease := func(name string) *coordinationv1.Lease {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}
	}
	own := w.raw.CoordinationV1().Leases(w.namespace)
	if _, err := w.admin.CoordinationV1().Leases(w.namespace).Create(ctx, lease("prometheus"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, a := range []attempt{
		{"lease: another's created", func() error { _, err := own.Create(ctx, lease("other"), metav1.CreateOptions{}); return err }, leases, "its own leases"},
		{"lease: another's taken over", func() error {
			l := must(own.Get(ctx, "prometheus", metav1.GetOptions{}))
			l.Spec.HolderIdentity = ptr("me")
			_, err := own.Update(ctx, l, metav1.UpdateOptions{})
			return err
		}, leases, "its own leases"},
		{"lease: another's deleted", func() error { return own.Delete(ctx, "prometheus", metav1.DeleteOptions{}) }, leases, "its own leases"},
		{"lease: its own", func() error {
			_, err := own.Create(ctx, lease("lastgasp-listener-x"), metav1.CreateOptions{})
			return err
		}, "", ""},
		{"lease: a replica's, made by others", func() error {
			_, err := w.admin.CoordinationV1().Leases(w.namespace).Create(ctx, lease("lastgasp-listener-y"), metav1.CreateOptions{})
			return err
		}, leases, "only the listener"},
		{"lease: a replica's, with a generated name", func() error {
			l := lease("")
			l.GenerateName = "lastgasp-listener-"
			_, err := w.admin.CoordinationV1().Leases(w.namespace).Create(ctx, l, metav1.CreateOptions{})
			return err
		}, leases, "only the listener"},
		{"lease: a replica's, renewed by others", func() error {
			renewed := fmt.Appendf(nil, `{"spec":{"renewTime":%q}}`, "2036-01-01T00:00:00.000000Z")
			_, err := w.admin.CoordinationV1().Leases(w.namespace).Patch(ctx, "lastgasp-listener-x", types.MergePatchType, renewed, metav1.PatchOptions{})
			return err
		}, leases, "only the listener"},
		{"lease: another's, by others", func() error {
			_, err := w.admin.CoordinationV1().Leases(w.namespace).Create(ctx, lease("leader"), metav1.CreateOptions{})
			return err
		}, "", ""},
		{"lease: a replica's, deleted by others", func() error {
			return w.admin.CoordinationV1().Leases(w.namespace).Delete(ctx, "lastgasp-listener-x", metav1.DeleteOptions{})
		}, "", ""},
	} {
		a.check(t)
	}
}

// kubelet is a client with a node's own credentials.
func (w *kubeWorld) kubelet(t *testing.T, node string) kubernetes.Interface {
	t.Helper()
	path, err := w.lab.NodeKubeconfig(node)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Dial = w.ns.Dial
	return must(kubernetes.NewForConfig(cfg))
}

// checkPins tries everybody who may write Nodes for some other reason.
func (w *kubeWorld) checkPins(t *testing.T) {
	ctx := t.Context()
	w.grantAll(t)
	for _, name := range []string{"pinned", "neighbour"} {
		w.newNode(t, name, nil)
	}
	self, other := w.kubelet(t, "pinned"), w.kubelet(t, "neighbour")
	impostor := must(kubernetes.NewForConfig(w.impersonate("system:node:pinned", "system:authenticated")))
	const pin, policy, says = `{"metadata":{"annotations":{"lastgasp.dev/pin":"boot-1:aaaa"}}}`, "lastgasp-pin", "only the node itself"
	const another, none = `{"metadata":{"annotations":{"lastgasp.dev/pin":"boot-1:bbbb"}}}`, `{"metadata":{"annotations":{"lastgasp.dev/pin":null}}}`
	create := func(c kubernetes.Interface, name string) func() error {
		return func() error {
			_, err := c.CoreV1().Nodes().Create(ctx, &corev1.Node{
				ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"lastgasp.dev/pin": "boot-1:aaaa"}},
			}, metav1.CreateOptions{})
			return err
		}
	}
	for _, a := range []attempt{
		{"the administrator", patchNode(ctx, w.admin, "pinned", pin), policy, says},
		{"the administrator through the status", patchNode(ctx, w.admin, "pinned", pin, "status"), policy, says},
		{"the administrator with a new Node", create(w.admin, "new"), policy, says},
		{"the listener", patchNode(ctx, w.raw, "pinned", pin), policy, says},
		{"the listener through the status", patchNode(ctx, w.raw, "pinned", pin, "status"), policy, says},
		{"a user with a node's name who is none", patchNode(ctx, impostor, "pinned", pin), policy, says},
		{"the node itself", patchNode(ctx, self, "pinned", pin), "", ""},
		{"the node itself, the next installation's", patchNode(ctx, self, "pinned", another), "", ""},
		{"the node itself through the status", patchNode(ctx, self, "pinned", pin, "status"), "", ""},
		{"the listener replaces it", patchNode(ctx, w.raw, "pinned", another), policy, says},
		{"the listener takes it away", patchNode(ctx, w.raw, "pinned", none), policy, says},
		{"the administrator takes it away", patchNode(ctx, w.admin, "pinned", none), policy, says},
		{"the administrator takes it away through the status", patchNode(ctx, w.admin, "pinned", none, "status"), policy, says},
		{"others write other things", patchNode(ctx, w.admin, "pinned", `{"metadata":{"annotations":{"example.com/a":"b"}}}`), "", ""},
		{"the node itself takes it away", patchNode(ctx, self, "pinned", none), "", ""},
		{"the administrator puts it back", patchNode(ctx, w.admin, "pinned", pin), policy, says},
	} {
		a.check(t)
	}
	// NodeRestriction keeps kubelets apart.
	if err := patchNode(ctx, other, "pinned", pin)(); !apierrors.IsForbidden(err) {
		t.Errorf("another node's kubelet: %v, want Forbidden", err)
	}
	if err := create(other, "new")(); !apierrors.IsForbidden(err) {
		t.Errorf("another node's kubelet with a new Node: %v, want Forbidden", err)
	}
	if err := create(w.kubelet(t, "fresh"), "fresh")(); err != nil {
		t.Errorf("a node registers with its pin: %v", err)
	}
	w.mustDeleteNode(t, "fresh")
}

// impersonate is the administrator in another's name.
func (w *kubeWorld) impersonate(user string, groups ...string) *rest.Config {
	cfg := w.lab.RESTConfig()
	cfg.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: append(groups, "system:masters")}
	return cfg
}

func (w *kubeWorld) checkClaims(t *testing.T) {
	ctx := t.Context()
	w.grantAll(t)
	w.newNode(t, "claimed", nil)
	w.newNode(t, "bootless", func(n *corev1.Node) { n.Status.NodeInfo.BootID = "" })
	self := w.kubelet(t, "claimed")
	const policy = "lastgasp-claim"
	claim := func(value string) string {
		return fmt.Sprintf(`{"metadata":{"annotations":{"lastgasp.dev/claim":%s}}}`, value)
	}
	for _, a := range []attempt{
		{"the administrator", patchNode(ctx, w.admin, "claimed", claim(`"boot-1:aaaa"`)), policy, "only the listener"},
		{"the administrator through the status", patchNode(ctx, w.admin, "claimed", claim(`"boot-1:aaaa"`), "status"), policy, "only the listener"},
		{"the node itself", patchNode(ctx, self, "claimed", claim(`"boot-1:aaaa"`)), policy, "only the listener"},
		{"a new Node with a claim", func() error {
			_, err := w.admin.CoreV1().Nodes().Create(ctx, &corev1.Node{
				ObjectMeta: metav1.ObjectMeta{Name: "new", Annotations: map[string]string{"lastgasp.dev/claim": "boot-1:aaaa"}},
			}, metav1.CreateOptions{})
			return err
		}, policy, ""},
		{"the listener, for another boot", patchNode(ctx, w.raw, "claimed", claim(`"boot-2:aaaa"`)), policy, "current boot"},
		{"the listener, for a boot that only begins the same", patchNode(ctx, w.raw, "claimed", claim(`"boot-11:aaaa"`)), policy, "current boot"},
		{"the listener, for no boot", patchNode(ctx, w.raw, "bootless", claim(`":aaaa"`)), policy, "current boot"},
		{"the listener", patchNode(ctx, w.raw, "claimed", claim(`"boot-1:aaaa"`)), "", ""},
		{"the listener replaces it", patchNode(ctx, w.raw, "claimed", claim(`"boot-1:bbbb"`)), policy, "while its boot lasts"},
		{"the listener replaces it through the status", patchNode(ctx, w.raw, "claimed", claim(`"boot-1:bbbb"`), "status"), policy, "while its boot lasts"},
		{"the listener takes it away", patchNode(ctx, w.raw, "claimed", claim("null")), policy, "while its boot lasts"},
		{"the node takes it away", patchNode(ctx, self, "claimed", claim("null")), policy, ""},
		{"the listener with another boot in the same write", patchNode(ctx, w.raw, "claimed",
			`{"metadata":{"annotations":{"lastgasp.dev/claim":"boot-2:bbbb"}},"status":{"nodeInfo":{"bootID":"boot-2"}}}`, "status"), "", ""},
	} {
		if a.name == "the listener with another boot in the same write" {
			// Both policies deny it; which is named is chance.
			if err := a.do(); !apierrors.IsForbidden(err) {
				t.Errorf("%s: %v, want Forbidden", a.name, err)
			}
			continue
		}
		a.check(t)
	}
	w.setBoot(t, "claimed", "boot-2")
	for _, a := range []attempt{
		{"the listener, for the boot before", patchNode(ctx, w.raw, "claimed", claim(`"boot-1:bbbb"`)), policy, "current boot"},
		{"the listener, for the new boot", patchNode(ctx, w.raw, "claimed", claim(`"boot-2:bbbb"`)), "", ""},
	} {
		a.check(t)
	}
}

func (w *kubeWorld) checkFarewells(t *testing.T) {
	ctx := t.Context()
	w.grantAll(t)
	w.newNode(t, "leaving", nil)
	w.newNode(t, "bootless-leaving", func(n *corev1.Node) { n.Status.NodeInfo.BootID = "" })
	self := w.kubelet(t, "leaving")
	const policy = "lastgasp-farewell"
	farewell := func(value string) string {
		return fmt.Sprintf(`{"metadata":{"annotations":{"lastgasp.dev/farewell":%s}}}`, value)
	}
	for _, a := range []attempt{
		{"the administrator", patchNode(ctx, w.admin, "leaving", farewell(`"boot-1: x"`)), policy, "only the listener"},
		{"the administrator through the status", patchNode(ctx, w.admin, "leaving", farewell(`"boot-1: x"`), "status"), policy, "only the listener"},
		{"the node itself", patchNode(ctx, self, "leaving", farewell(`"boot-1: x"`)), policy, "only the listener"},
		{"a new Node with a farewell", func() error {
			_, err := w.admin.CoreV1().Nodes().Create(ctx, &corev1.Node{
				ObjectMeta: metav1.ObjectMeta{Name: "new-leaving", Annotations: map[string]string{"lastgasp.dev/farewell": "boot-1: x"}},
			}, metav1.CreateOptions{})
			return err
		}, policy, ""},
		{"the listener, for another boot", patchNode(ctx, w.raw, "leaving", farewell(`"boot-2: x"`)), policy, "current boot"},
		{"the listener, for a boot that only begins the same", patchNode(ctx, w.raw, "leaving", farewell(`"boot-11: x"`)), policy, "current boot"},
		{"the listener, for another boot on a boot that the Node does not run",
			patchNode(ctx, w.raw, "leaving", farewell(`"boot-0: x, says the node on boot boot-2"`)), policy, "current boot"},
		{"the listener, for no boot", patchNode(ctx, w.raw, "bootless-leaving", farewell(`": x"`)), policy, "current boot"},
		{"the listener", patchNode(ctx, w.raw, "leaving", farewell(`"boot-1: x"`)), "", ""},
		{"the listener, of an earlier boot", patchNode(ctx, w.raw, "leaving", farewell(`"boot-0: x, says the node on boot boot-1"`)), "", ""},
		{"the listener says more", patchNode(ctx, w.raw, "leaving", farewell(`"boot-1: y"`)), "", ""},
		{"the node takes it away", patchNode(ctx, self, "leaving", farewell("null")), policy, "only the listener"},
		{"the listener takes it away", patchNode(ctx, w.raw, "leaving", farewell("null")), "", ""},
	} {
		a.check(t)
	}
}

// checkDeathWriters tries writes by somebody else who has every right on NodeDeaths.
func (w *kubeWorld) checkDeathWriters(t *testing.T) {
	ctx := t.Context()
	d := kubeDeath("genuine")
	if _, err := w.cluster.CreateDeath(ctx, d); err != nil {
		t.Fatal(err)
	}
	writer := must(dynamic.NewForConfig(w.lab.RESTConfig())).Resource(deaths) // the administrator's: nobody has more rights
	self := w.dynamic.Resource(deaths)
	object := func(name, more string) *unstructured.Unstructured {
		u := &unstructured.Unstructured{}
		text := fmt.Sprintf(`{"apiVersion":"lastgasp.dev/v1alpha1","kind":"NodeDeath","metadata":{"name":%q%s},
			"spec":{"node":"node-1","nodeUID":"uid-1","boot":"boot-1","time":"2036-01-01T00:00:00.000000Z","cause":"KernelPanic","reason":"x","authority":"pinned"}}`, name, more)
		if err := u.UnmarshalJSON([]byte(text)); err != nil {
			t.Fatal(err)
		}
		return u
	}
	create := func(c dynamic.NamespaceableResourceInterface, u *unstructured.Unstructured) func() error {
		return func() error { _, err := c.Create(ctx, u, metav1.CreateOptions{}); return err }
	}
	patch := func(c dynamic.NamespaceableResourceInterface, text string, subresource ...string) func() error {
		return func() error {
			_, err := c.Patch(ctx, d.Name, types.MergePatchType, []byte(text), metav1.PatchOptions{}, subresource...)
			return err
		}
	}
	const policy, only, people = "lastgasp-nodedeaths", "only the listener writes", "lastgasp.dev/release only"
	for _, a := range []attempt{
		{"others create one", create(writer, object("forged", "")), policy, only},
		{"others apply one", func() error {
			_, err := writer.Apply(ctx, "forged", object("forged", ""), metav1.ApplyOptions{FieldManager: "x"})
			return err
		}, policy, only},
		{"others raise the authority", patch(writer, `{"spec":{"authority":"pinned"}}`), policy, only},
		{"others lengthen the trace", patch(writer, `{"spec":{"trace":["a","b","c","d"]}}`), policy, only},
		{"others write the status", patch(writer, `{"status":{"phase":"Cleaned"}}`, "status"), policy, only},
		{"others release it by the status", patch(writer, `{"metadata":{"annotations":{"lastgasp.dev/release":"true"}}}`, "status"), policy, only},
		{"others change a label", patch(writer, `{"metadata":{"labels":{"lastgasp.dev/authority":"pinned"}}}`), policy, people},
		{"others write another annotation of ours", patch(writer, `{"metadata":{"annotations":{"lastgasp.dev/x":"y"}}}`), policy, people},
		{"others write an annotation of theirs", patch(writer, `{"metadata":{"annotations":{"example.com/ticket":"42"}}}`), "", ""},
		{"others give it a finalizer", patch(writer, `{"metadata":{"finalizers":["example.com/hold"]}}`), policy, "no finalizers"},
		{"others give it an owner", patch(writer,
			`{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n","uid":"00000000-0000-0000-0000-000000000000"}]}}`), policy, "no owners"},
		{"others raise the authority by applying it", func() error {
			raised := &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "lastgasp.dev/v1alpha1", "kind": "NodeDeath", "metadata": map[string]any{"name": d.Name},
				"spec": map[string]any{"authority": "pinned"},
			}}
			_, err := writer.Apply(ctx, d.Name, raised, metav1.ApplyOptions{FieldManager: "x", Force: true})
			return err
		}, policy, only},
		{"others take the labels away", patch(writer, `{"metadata":{"labels":null}}`), policy, people},
		{"the listener gives it a finalizer", patch(self, `{"metadata":{"finalizers":["example.com/hold"]}}`), policy, "no finalizers"},
		{"the listener gives it an owner", patch(self,
			`{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n","uid":"00000000-0000-0000-0000-000000000000"}]}}`), policy, "no owners"},
		{"the listener releases it", patch(self, `{"metadata":{"annotations":{"lastgasp.dev/release":"true"}}}`), policy, "released by people"},
		{"the listener creates one that is released", create(self, object("released", `,"annotations":{"lastgasp.dev/release":"true"}`)), policy, "released by people"},
		{"the listener creates one with a finalizer", create(self, object("held", `,"finalizers":["example.com/hold"]`)), policy, "no finalizers"},
		{"the listener creates one with an owner", create(self, object("owned",
			`,"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n","uid":"u"}]`)), policy, "no owners"},
		{"people release it", patch(writer, `{"metadata":{"annotations":{"lastgasp.dev/release":"true"}}}`), "", ""},
		{"the listener takes the release away", patch(self, `{"metadata":{"annotations":{"lastgasp.dev/release":null}}}`), policy, "released by people"},
		{"people take the release away", patch(writer, `{"metadata":{"annotations":{"lastgasp.dev/release":null}}}`), "", ""},
		{"people delete it, and what it owns", func() error {
			return writer.Delete(ctx, d.Name, metav1.DeleteOptions{PropagationPolicy: ptr(metav1.DeletePropagationForeground)})
		}, "", ""},
	} {
		a.check(t)
	}
	eventually(t, "the garbage collector to take its finalizer away", func() error {
		_, err := w.cluster.Death(ctx, d.Name)
		if !errors.Is(err, cleanup.ErrNotFound) {
			return fmt.Errorf("it is there, %v", err)
		}
		return nil
	})
}

// checkProof disables one policy after the other, in the ways in which that happens, and expects the listener to notice.
func (w *kubeWorld) checkProof(t *testing.T) {
	ctx := t.Context()
	node := w.newNode(t, "proof", nil).Name
	w.newPod(t, "proof", node, corev1.PodRunning, nil)
	eventually(t, "the node to be in the cache", func() error {
		if w.cluster.NodeCount() == 0 {
			return errors.New("no nodes")
		}
		return nil
	})
	proved := func() error { return w.cluster.Prove(ctx) }
	eventually(t, "the policies to be proved", proved)
	missing := func(policy string) func() error {
		return func() error {
			if err := proved(); !errors.Is(err, kube.ErrNotHeld) || !strings.Contains(err.Error(), policy) {
				return fmt.Errorf("proof without %s: %v", policy, err)
			}
			return nil
		}
	}
	for _, policy := range kubePolicies {
		t.Run("without the binding of "+policy, func(t *testing.T) {
			w.kubectl(t, "delete", "validatingadmissionpolicybinding", policy)
			eventually(t, "the listener to notice", missing(policy))
			w.kubectl(t, "apply", "-k", w.installed)
			eventually(t, "the policies to be proved again", proved)
		})
	}
	t.Run("a binding that only warns", func(t *testing.T) {
		w.kubectl(t, "patch", "validatingadmissionpolicybinding", "lastgasp-listener-pods", "--type=merge", `--patch={"spec":{"validationActions":["Warn"]}}`)
		eventually(t, "the listener to notice", missing("lastgasp-listener-pods"))
	})
	w.kubectl(t, "apply", "-k", w.installed)
	eventually(t, "the policies to be proved again", proved)
	t.Run("a policy that takes somebody else for the listener", func(t *testing.T) {
		w.kubectl(t, "patch", "validatingadmissionpolicybinding", "lastgasp-nodedeaths", "--type=merge", `--patch={"spec":{"paramRef":{"name":"system:kube-dns"}}}`)
		eventually(t, "the listener to notice", func() error {
			if err := proved(); !errors.Is(err, kube.ErrNotHeld) || !strings.Contains(err.Error(), "does not let the listener write a NodeDeath") {
				return fmt.Errorf("proof: %v", err)
			}
			return nil
		})
	})
	w.kubectl(t, "apply", "-k", w.installed)
	eventually(t, "the policies to be proved again", proved)
	t.Run("a policy that denies the listener its work", func(t *testing.T) {
		c := w.connect(t, kube.Config{REST: w.account, Namespace: w.namespace, Replica: "titus",
			Annotations: kube.Annotations{Reason: "pod.titus.netflix.com/pod-termination-reason"}})
		eventually(t, "the listener to notice", func() error {
			if err := c.Prove(ctx); !errors.Is(err, kube.ErrNotHeld) || !strings.Contains(err.Error(), "its annotations to pod") {
				return fmt.Errorf("proof with an annotation key that the policy does not know: %v", err)
			}
			return nil
		})
	})
	t.Run("a control plane that the policy does not let it fence", func(t *testing.T) {
		w.newNode(t, "guarded", func(n *corev1.Node) { n.Labels = map[string]string{"node-role.kubernetes.io/control-plane": ""} })
		c := w.connect(t, kube.Config{REST: w.account, Namespace: w.namespace, Replica: "control-plane", ControlPlane: true})
		eventually(t, "the listener to notice", func() error {
			if err := c.Prove(ctx); !errors.Is(err, kube.ErrNotHeld) || !strings.Contains(err.Error(), "its fence to node guarded") {
				return fmt.Errorf("proof with a control plane that the policy protects: %v", err)
			}
			return nil
		})
	})
	t.Run("a condition that the policy does not know", func(t *testing.T) {
		c := w.connect(t, kube.Config{REST: w.account, Namespace: w.namespace, Replica: "eks", Condition: "KernelReady"})
		eventually(t, "the listener to notice", func() error {
			if err := c.Prove(ctx); !errors.Is(err, kube.ErrNotHeld) || !strings.Contains(err.Error(), "its condition KernelReady to node") {
				return fmt.Errorf("proof with a condition that the policy does not know: %v", err)
			}
			return nil
		})
	})
	if got := w.getPod(t, "proof"); got.Status.Phase != corev1.PodRunning || len(got.Annotations) > 0 || len(got.Labels) > 0 {
		t.Errorf("the proof changed its pod: %+v", got.ObjectMeta)
	}
	if got := w.getNode(t, "proof"); len(w.ownTaints(t, "proof")) > 0 || got.Annotations["lastgasp.dev/pin"] != "" || got.Annotations["lastgasp.dev/claim"] != "" {
		t.Errorf("the proof changed its node: %+v", got.ObjectMeta)
	}
}

// TestKubeNamespace installs into an existing namespace, as kustomize users do: the policies must work there, too.
func TestKubeNamespace(t *testing.T) {
	w := newKubeWorldIn(t, "monitoring")
	ctx := t.Context()
	w.newNode(t, "worker", nil)
	w.newPod(t, "web", "worker", corev1.PodRunning, nil)
	eventually(t, "the policies to be proved", func() error { return w.cluster.Prove(ctx) })
	if _, err := w.cluster.LeaseRenewed(ctx, "nobody"); !errors.Is(err, cleanup.ErrNotFound) {
		t.Errorf("read the lease of a node: %v, want ErrNotFound: the witness can be asked", err)
	}
	if replicas, err := w.cluster.Replicas(ctx); err != nil || len(replicas) != 1 {
		t.Errorf("replicas %v, %v", replicas, err)
	}
	labels := must(w.admin.CoreV1().Namespaces().Get(ctx, "monitoring", metav1.GetOptions{})).Labels
	if _, changed := labels["pod-security.kubernetes.io/enforce"]; changed {
		t.Error("the namespace, which is others' too, got another pod security level")
	}
	t.Run("requests are served by the shipped flow schema", w.checkFlowSchema)
	w.checkPoliciesBeyondRights(t)
}

// TestKubeUnproved runs a listener while a policy is missing: it records, touches nothing, and says why it is not ready. Once
// the policy is there it does the rest.
func TestKubeUnproved(t *testing.T) {
	bin, err := story.Build(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	w := newReplicaWorld(t)
	d := newDoomed("unproved", 1)
	w.join(t, d)
	w.kubectl(t, "delete", "validatingadmissionpolicybinding", "lastgasp-listener-nodes")
	eventually(t, "the policy to be out of force", func() error {
		if err := w.cluster.Prove(t.Context()); !errors.Is(err, kube.ErrNotHeld) {
			return fmt.Errorf("proof: %v", err)
		}
		return nil
	})
	r := w.startReplica(t, bin, "", anyNumber)
	eventually(t, "the listener to know the node", func() error { return r.knows(w, d.name) })
	ready := func() string {
		code, body, err := r.get(w, "/readyz")
		return fmt.Sprint(code, " ", body, err)
	}
	eventually(t, "the listener to say that it is not ready", func() error {
		if got := ready(); !strings.HasPrefix(got, "503") || !strings.Contains(got, "lastgasp-listener-nodes is not in force") {
			return fmt.Errorf("readyz: %s", got)
		}
		return nil
	})
	if err := d.panics(w, r); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the death to be on record", func() error { _, err := w.cluster.Death(t.Context(), d.deathName()); return err })
	// A second one is on record as well: whatever the first was to have written has been tried.
	second := newDoomed("unproved-too", 2)
	w.join(t, second)
	eventually(t, "the listener to know the node", func() error { return r.knows(w, second.name) })
	if err := second.panics(w, r); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second death to be on record", func() error { _, err := w.cluster.Death(t.Context(), second.deathName()); return err })
	for _, name := range []string{d.name, second.name} {
		if n := w.readNode(t, name); n.Fenced || n.Mark != (policy.Mark{}) {
			t.Errorf("node %s is fenced without its policy: %+v", name, n)
		}
	}
	for _, pod := range append(d.pods, second.pods...) {
		if p := w.readPod(t, pod); p.Phase != "Running" || p.Marked {
			t.Errorf("pod %s: %+v, want it untouched", pod, p)
		}
	}
	w.kubectl(t, "apply", "-k", w.installed)
	w.kubectl(t, "--namespace=lastgasp", "scale", "deployment", "listener", "--replicas=0")
	eventually(t, "both to be cleaned up", func() error {
		return errors.Join(w.gone(t.Context(), d), w.gone(t.Context(), second))
	})
	eventually(t, "the listener to be ready", func() error {
		if got := ready(); !strings.HasPrefix(got, "200") {
			return fmt.Errorf("readyz: %s", got)
		}
		return nil
	})
}
