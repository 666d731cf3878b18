//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/kube"
)

// nodeClaimCRD has what we need of Karpenter's, which is not installed: its controllers would want an account.
const nodeClaimCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: nodeclaims.karpenter.sh}
spec:
  group: karpenter.sh
  scope: Cluster
  names: {kind: NodeClaim, listKind: NodeClaimList, plural: nodeclaims, singular: nodeclaim}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

// checkNodeClaims deletes NodeClaims as the listener's account, first without and then with packaging/kubernetes/karpenter.
func (w *kubeWorld) checkNodeClaims(t *testing.T) {
	ctx := t.Context()
	admin := must(w.lab.Kubeconfig("admin", "system:masters"))
	if _, err := w.lab.KubectlAs(ctx, admin, nodeClaimCRD, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	w.kubectl(t, "wait", "--for=condition=Established", "--timeout=5m", "crd/nodeclaims.karpenter.sh")
	claims := schema.GroupVersionResource{Group: "karpenter.sh", Version: "v1", Resource: "nodeclaims"}
	all := must(dynamic.NewForConfig(w.lab.RESTConfig())).Resource(claims)
	newClaim := func(name, node, provider string) *unstructured.Unstructured {
		t.Helper()
		u := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": map[string]any{"name": name},
			"spec": map[string]any{"requirements": []any{}},
		}}
		u, err := all.Create(ctx, u, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = all.Patch(ctx, name, types.MergePatchType,
			[]byte(fmt.Sprintf(`{"status":{"nodeName":%q,"providerID":%q}}`, node, provider)), metav1.PatchOptions{}, "status")
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	const provider = "aws:///use1-az1/i-0eee"
	own, foreign := newClaim("own", "claimant", provider), newClaim("foreign", "somebody", provider)
	owned := func(u *unstructured.Unstructured) func(*corev1.Node) {
		return func(n *corev1.Node) {
			n.Spec.ProviderID = provider
			n.OwnerReferences = []metav1.OwnerReference{{APIVersion: "karpenter.sh/v1", Kind: "NodeClaim", Name: u.GetName(), UID: u.GetUID()}}
		}
	}
	w.newNode(t, "claimant", owned(own))
	w.newNode(t, "liar", owned(foreign))

	c := w.connect(t, kube.Config{REST: w.account, Namespace: w.namespace, Replica: "karpenter", NodeClaims: true})
	eventually(t, "the listener to miss the right", func() error {
		if err := c.Prove(ctx); !errors.Is(err, kube.ErrNotHeld) || !strings.Contains(err.Error(), "its annotation to nodeclaim") {
			return fmt.Errorf("proof without the right: %v", err)
		}
		return nil
	})
	w.kubectl(t, "apply", "-k", overlay(t, "namespace: "+w.namespace+"\ncomponents: [PACKAGING/karpenter]"))
	eventually(t, "the policies to be proved", func() error { return c.Prove(ctx) })
	eventually(t, "the proof to be taken in", func() error {
		err := c.DeleteNodeClaim(ctx, w.readNode(t, "liar"), "d")
		if !errors.Is(err, cleanup.ErrDenied) {
			return fmt.Errorf("delete another node's nodeclaim: %v", err)
		}
		return nil
	})

	t.Run("the policy holds whatever the rights", func(t *testing.T) {
		w.grantAll(t)
		self := w.dynamic.Resource(claims)
		patch := func(text string, subresource ...string) func() error {
			return func() error {
				_, err := self.Patch(ctx, "foreign", types.MergePatchType, []byte(text), metav1.PatchOptions{}, subresource...)
				return err
			}
		}
		remove := func() error { return self.Delete(ctx, "foreign", metav1.DeleteOptions{}) }
		const policy, only = "lastgasp-listener-nodeclaims", "lastgasp.dev/death only"
		for _, a := range []attempt{
			{"unmarked, deleted", remove, policy, "that it has marked"},
			{"its spec", patch(`{"spec":{"requirements":[{"key":"a"}]}}`), policy, only},
			{"its status", patch(`{"status":{"nodeName":"x"}}`, "status"), policy, only},
			{"a label", patch(`{"metadata":{"labels":{"a":"b"}}}`), policy, only},
			{"a finalizer", patch(`{"metadata":{"finalizers":["example.com/hold"]}}`), policy, only},
			{"a foreign annotation", patch(`{"metadata":{"annotations":{"karpenter.sh/do-not-disrupt":"true"}}}`), policy, only},
			{"created", func() error {
				u := own.DeepCopy()
				u.SetName("new")
				u.SetResourceVersion("")
				u.SetUID("")
				_, err := self.Create(ctx, u, metav1.CreateOptions{})
				return err
			}, policy, "Karpenter's to create"},
			{"all deleted", func() error { return self.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}) }, policy, "that it has marked"},
			{"our annotation", patch(`{"metadata":{"annotations":{"lastgasp.dev/death":"d"}}}`), "", ""},
			{"marked, deleted", remove, "", ""},
		} {
			a.check(t)
		}
	})
	if err := c.DeleteNodeClaim(ctx, w.readNode(t, "claimant"), "claimant-0123"); err != nil {
		t.Errorf("delete the node's nodeclaim: %v", err)
	}
	if _, err := all.Get(ctx, "own", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the nodeclaim after that: %v, want it gone", err)
	}
}
