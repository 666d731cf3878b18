//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lastgasp/lastgasp/listener/cleanup"
)

// checkRights asks the API server about RBAC alone.
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
		{true, attributes{Verb: "get", Group: "coordination.k8s.io", Resource: "leases", Namespace: "kube-node-lease"}},
		{true, attributes{Verb: "update", Group: "lastgasp.dev", Resource: "kernelpanics", Subresource: "status"}},

		{false, attributes{Verb: "create", Resource: "nodes"}},
		{false, attributes{Verb: "update", Resource: "nodes"}},
		{false, attributes{Verb: "patch", Resource: "nodes", Subresource: "status"}},
		{false, attributes{Verb: "deletecollection", Resource: "nodes"}},
		{false, attributes{Verb: "patch", Resource: "pods"}},
		{false, attributes{Verb: "watch", Resource: "pods"}},
		{false, attributes{Verb: "create", Resource: "pods", Namespace: "default"}},
		{false, attributes{Verb: "create", Resource: "pods", Subresource: "eviction", Namespace: "default"}},
		{false, attributes{Verb: "create", Resource: "pods", Subresource: "exec", Namespace: "default"}},
		{false, attributes{Verb: "deletecollection", Resource: "pods", Namespace: "default"}},
		{false, attributes{Verb: "get", Resource: "secrets", Namespace: "lastgasp"}},
		{false, attributes{Verb: "get", Group: "coordination.k8s.io", Resource: "leases", Namespace: "lastgasp"}},
		{false, attributes{Verb: "update", Group: "coordination.k8s.io", Resource: "leases", Namespace: "kube-node-lease"}},
		{false, attributes{Verb: "deletecollection", Group: "lastgasp.dev", Resource: "kernelpanics"}},
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

// checkPoliciesBeyondRights gives the service account every right there is: what is denied now, the policies deny.
func (w *kubeWorld) checkPoliciesBeyondRights(t *testing.T) {
	ctx := t.Context()
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "listener-is-admin"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: "listener", Namespace: "lastgasp"}},
	}
	if _, err := w.admin.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	defer w.admin.RbacV1().ClusterRoleBindings().Delete(context.Background(), binding.Name, metav1.DeleteOptions{})
	eventually(t, "the rights to be granted", func() error {
		_, err := w.raw.CoreV1().Secrets("lastgasp").List(ctx, metav1.ListOptions{})
		return err
	})

	node := w.newNode(t, "subject", func(n *corev1.Node) {
		n.Annotations = map[string]string{"example.com/a": "b"}
		n.Spec.Taints = []corev1.Taint{{Key: "dedicated", Effect: corev1.TaintEffectNoSchedule}}
	}).Name
	w.patchNode(t, node, cleanup.NodePatch{Fence: ptr(true), Mark: &cleanup.Mark{Record: "r"}})
	for name, phase := range map[string]corev1.PodPhase{"p-running": corev1.PodRunning, "p-succeeded": corev1.PodSucceeded} {
		w.newPod(t, name, node, phase, func(p *corev1.Pod) {
			p.Annotations = map[string]string{"example.com/a": "b"}
			p.Finalizers = []string{"example.com/hold"}
		})
		defer w.kubectl(t, "patch", "pod", name, "--type=merge", `--patch={"metadata":{"finalizers":null}}`)
	}
	failed := w.newPod(t, "p-failed", node, corev1.PodRunning, nil)
	if _, err := w.cluster.FailPod(ctx, failed, kubeDeath); err != nil {
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

	pod := func(name, patch, subresource string) func() error {
		return func() error {
			_, err := w.raw.CoreV1().Pods("default").Patch(ctx, name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, subresource)
			return err
		}
	}
	onNode := func(patch, subresource string) func() error {
		return func() error {
			_, err := w.raw.CoreV1().Nodes().Patch(ctx, node, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, subresource)
			return err
		}
	}
	const notReady = `{"key":"node.kubernetes.io/not-ready","effect":"NoSchedule"}`
	for _, tt := range []struct {
		name   string
		do     func() error
		denied string // what the policy says, empty if allowed
	}{
		{"pod: a label", pod("p-running", `{"metadata":{"labels":{"a":"b"}}}`, "status"), "labels and finalizers"},
		{"pod: a finalizer taken away", pod("p-running", `{"metadata":{"finalizers":null}}`, "status"), "labels and finalizers"},
		{"pod: a foreign annotation", pod("p-running", `{"metadata":{"annotations":{"example.com/x":"y"}}}`, "status"), "own annotations only"},
		{"pod: a foreign annotation changed", pod("p-running", `{"metadata":{"annotations":{"example.com/a":"y"}}}`, "status"), "own annotations only"},
		{"pod: a foreign annotation taken away", pod("p-running", `{"metadata":{"annotations":{"example.com/a":null}}}`, "status"), "own annotations only"},
		{"pod: running to succeeded", pod("p-running", `{"status":{"phase":"Succeeded"}}`, "status"), "only phase"},
		{"pod: succeeded to failed", pod("p-succeeded", `{"status":{"phase":"Failed"}}`, "status"), "phase is final"},
		{"pod: failed to running", pod("p-failed", `{"status":{"phase":"Running"}}`, "status"), "only phase"},
		{"pod: an exit code", pod("p-running", `{"status":{"containerStatuses":[{"name":"main","state":{"running":null,"terminated":{"exitCode":137}}}]}}`, "status"), "exit codes"},
		{"pod: a foreign condition", pod("p-running", `{"status":{"conditions":[{"type":"example.com/gate","status":"True"}]}}`, "status"), "conditions"},
		{"pod: through the pod itself", pod("p-running", `{"metadata":{"annotations":{"lastgasp.dev/record":"r"}}}`, ""), "only the pod's status"},
		{"pod: bound to no node", pod("p-unbound", `{"status":{"phase":"Failed"}}`, "status"), "not bound to a node"},
		{"pod: unmarked, deleted", func() error {
			return w.raw.CoreV1().Pods("default").Delete(ctx, "p-running", metav1.DeleteOptions{})
		}, "carry its mark"},
		{"pod: all deleted", func() error {
			return w.raw.CoreV1().Pods("default").DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "metadata.name=p-running"})
		}, "carry its mark"},
		{"pod: our annotation and condition", pod("p-running", `{"metadata":{"annotations":{"lastgasp.dev/record":"r"}},"status":{"conditions":[{"type":"DisruptionTarget","status":"True"}]}}`, "status"), ""},

		{"node: a label", onNode(`{"metadata":{"labels":{"a":"b"}}}`, ""), "labels, finalizers and owners"},
		{"node: a finalizer", onNode(`{"metadata":{"finalizers":["example.com/hold"]}}`, ""), "labels, finalizers and owners"},
		{"node: a foreign annotation", onNode(`{"metadata":{"annotations":{"example.com/x":"y"}}}`, ""), "own annotations only"},
		{"node: a foreign annotation taken away", onNode(`{"metadata":{"annotations":{"example.com/a":null}}}`, ""), "own annotations only"},
		{"node: cordoned", onNode(`{"spec":{"unschedulable":true}}`, ""), "taints only"},
		{"node: a provider id", onNode(`{"spec":{"providerID":"aws:///x/i-0"}}`, ""), "taints only"},
		{"node: the foreign taint forgotten", onNode(`{"spec":{"taints":[{"key":"lastgasp.dev/kernel-panic","effect":"NoSchedule"}]}}`, ""), "own taints only"},
		{"node: a foreign taint", onNode(`{"spec":{"taints":[{"key":"dedicated","effect":"NoSchedule"},{"key":"x","effect":"NoExecute"},`+notReady+`]}}`, ""), "own taints only"},
		{"node: its status", onNode(`{"status":{"conditions":[{"type":"Ready","status":"False"}]}}`, "status"), "the node's status is its kubelet's"},
		{"node: our annotation", onNode(`{"metadata":{"annotations":{"lastgasp.dev/reason":"x"}}}`, ""), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.do()
			if tt.denied == "" {
				if err != nil {
					t.Errorf("denied: %v", err)
				}
				return
			}
			if !apierrors.IsForbidden(err) || !strings.Contains(fmt.Sprint(err), "ValidatingAdmissionPolicy") || !strings.Contains(err.Error(), tt.denied) {
				t.Errorf("%v, want Forbidden by a policy that says %q", err, tt.denied)
			}
		})
	}
}
