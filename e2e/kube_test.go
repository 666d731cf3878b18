//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// TestKube tries every verb of cleanup.Cluster on a real API server, under the service account, the rights and the
// admission policies that packaging/kubernetes ships. Nodes and pods are API objects only: no kubelet interferes.
func TestKube(t *testing.T) {
	w := newKubeWorld(t)
	t.Run("the policies pass the API server's type check", w.checkPolicies)
	t.Run("the listener's pods are admitted", w.checkPods)
	t.Run("requests are served by the shipped flow schema", w.checkFlowSchema)
	t.Run("a node is found by instance and by address", w.checkFind)
	t.Run("a node is fenced and unfenced, and foreign taints stay", w.checkFence)
	t.Run("a node's condition is written", w.checkHealth)
	t.Run("a boot is claimed once", w.checkClaim)
	t.Run("a kubelet's lease is read", w.checkLease)
	t.Run("a pod is failed in one write", w.checkFail)
	t.Run("a pod that changed is not failed", w.checkFailPreconditions)
	t.Run("a kubelet that comes back leaves the verdict alone", w.checkReturningKubelet)
	t.Run("a mirror pod is annotated only", w.checkMirror)
	t.Run("a pod is deleted once it is marked", w.checkDeletePod)
	t.Run("volume attachments are counted", w.checkAttachments)
	t.Run("a death is created, updated, amended and dropped", w.checkDeaths)
	t.Run("a death may name no node", w.checkDeathWithoutNode)
	t.Run("the largest death fits", w.checkLargestDeath)
	t.Run("kubectl shows deaths", w.checkKubectl)
	t.Run("replicas see each other", w.checkReplicas)
	t.Run("replicas exchange what they have heard", w.checkSharedCoverage)
	t.Run("a node is deleted once it is marked and fenced", w.checkDeleteNode)
	t.Run("events are told", w.checkEvents)
	t.Run("annotation keys are configurable", w.checkAnnotationKeys)
	t.Run("the service account may do this and no more", w.checkRights)
	t.Run("and nothing else that the API server serves", w.checkEveryRight)
	t.Run("a kubelet reaches nothing that decides about others", w.checkKubelets)
	t.Run("the policies hold whatever the rights", w.checkPoliciesBeyondRights)
	t.Run("a pin is the node's own", w.checkPins)
	t.Run("a claim is the listener's, for the boot that runs", w.checkClaims)
	t.Run("a farewell is the listener's, for the boot that runs", w.checkFarewells)
	t.Run("a farewell is on the Node and its pods", w.checkFarewell)
	t.Run("only the listener writes deaths", w.checkDeathWriters)
	t.Run("the page is for who may read deaths", w.checkReaders)
	t.Run("the policies are proved", w.checkProof)
	t.Run("the policies are proved whatever others make of Nodes and pods", w.checkProofOfOthers)
	t.Run("nodeclaims are deleted where that is granted", w.checkNodeClaims)
	t.Run("the host-network variant applies", w.checkHostNetwork)
	t.Run("an API server that was away is found again", w.checkAway)
}

// kubePolicies are all admission policies that are shipped.
var kubePolicies = []string{
	"lastgasp-listener-pods", "lastgasp-listener-nodes", "lastgasp-listener-leases", "lastgasp-nodedeaths", "lastgasp-pin", "lastgasp-claim",
	"lastgasp-farewell",
}

func (w *kubeWorld) checkPolicies(t *testing.T) {
	for _, name := range kubePolicies {
		eventually(t, "the type check of "+name, func() error {
			p, err := w.admin.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if p.Status.TypeChecking == nil || p.Status.ObservedGeneration != p.Generation {
				return errors.New("not checked yet")
			}
			for _, warning := range p.Status.TypeChecking.ExpressionWarnings {
				t.Errorf("%s: %s: %s", name, warning.FieldRef, warning.Warning)
			}
			return nil
		})
	}
}

// checkPods expects the Deployment's pods to be there, if only pending: pod security and quota let them pass.
func (w *kubeWorld) checkPods(t *testing.T) {
	eventually(t, "both pods to be admitted", func() error {
		list, err := w.admin.CoreV1().Pods("lastgasp").List(t.Context(), metav1.ListOptions{})
		if err == nil && len(list.Items) != 2 {
			err = fmt.Errorf("%d pods", len(list.Items))
		}
		return err
	})
}

func (w *kubeWorld) checkFlowSchema(t *testing.T) {
	want, err := w.admin.FlowcontrolV1().FlowSchemas().Get(t.Context(), "lastgasp-listener", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	client, err := rest.HTTPClientFor(w.account)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the flow schema to be in force", func() error {
		resp, err := client.Get(w.account.Host + "/api/v1/nodes?limit=1")
		if err != nil {
			return err
		}
		resp.Body.Close()
		if got := resp.Header.Get("X-Kubernetes-Pf-Flowschema-Uid"); resp.StatusCode != 200 || got != string(want.UID) {
			return fmt.Errorf("%s, flow schema %s, want %s", resp.Status, got, want.UID)
		}
		return nil
	})
}

func (w *kubeWorld) checkEvents(t *testing.T) {
	node := w.newNode(t, "told", nil)
	w.cluster.Emit(cleanup.Event{
		Node: w.readNode(t, "told"), Warning: true, Reason: "KernelPanic", Action: "Fence", Note: strings.Repeat("ä", 2000),
	})
	w.cluster.Emit(cleanup.Event{
		Owner: policy.Owner{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "u"}, Namespace: "default",
		Reason: "KernelPanic", Action: "FailPods", Note: "3 pods failed",
	})
	for _, tt := range []struct{ object, kind string }{{"told", "Warning"}, {"web", "Normal"}} {
		eventually(t, "the event on "+tt.object, func() error {
			list, err := w.admin.EventsV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "regarding.name=" + tt.object})
			if err != nil {
				return err
			}
			for _, e := range list.Items {
				if e.Reason == "KernelPanic" && e.Type == tt.kind && e.ReportingInstance == "listener-0" {
					return nil
				}
			}
			return fmt.Errorf("%d events", len(list.Items))
		})
	}
	if got := w.kubectl(t, "describe", "node", node.Name); !strings.Contains(got, "KernelPanic") {
		t.Errorf("kubectl describe node does not show the event:\n%s", got)
	}
}

func (w *kubeWorld) checkHostNetwork(t *testing.T) {
	w.kubectl(t, "delete", "service", "listener", "--namespace=lastgasp")
	w.kubectl(t, "apply", "-k", "../packaging/kubernetes/host-network")
	deployment := must(w.admin.AppsV1().Deployments("lastgasp").Get(t.Context(), "listener", metav1.GetOptions{}))
	if !deployment.Spec.Template.Spec.HostNetwork {
		t.Error("the listener is not on the host network")
	}
	services := must(w.admin.CoreV1().Services("lastgasp").List(t.Context(), metav1.ListOptions{}))
	if len(services.Items) != 0 {
		t.Errorf("%d services, want none", len(services.Items))
	}
	// Pod security must let the pods in: the Deployment's controller is refused one if it does not.
	eventually(t, "the pods to be admitted", func() error {
		list, err := w.admin.CoreV1().Pods("lastgasp").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, p := range list.Items {
			if p.Spec.HostNetwork {
				return nil
			}
		}
		return fmt.Errorf("none of %d pods is on the host network", len(list.Items))
	})
}

func (w *kubeWorld) checkAway(t *testing.T) {
	w.newNode(t, "patient", func(n *corev1.Node) { setAddresses(n, "10.9.0.7") })
	addr := netip.MustParseAddr("10.9.0.7")
	eventually(t, "the cache to follow", func() error { return wantErr(nil)(w.cluster.FindNode(t.Context(), cleanup.Sender{Addr: addr})) })
	patient := w.readNode(t, "patient")

	w.lab.StopAPIServer()
	_, err := w.cluster.FindNode(t.Context(), cleanup.Sender{Addr: addr})
	for _, s := range []error{nil, cleanup.ErrNotFound, cleanup.ErrDenied, cleanup.ErrConflict} {
		if errors.Is(err, s) {
			t.Errorf("find a node while the API server is away: %v, want an error that may pass", err)
		}
	}
	w.cluster.Emit(cleanup.Event{Node: patient, Reason: "KernelPanic", Action: "Fence", Note: "told while nobody listened"})
	if err := w.lab.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.newNode(t, "late", func(n *corev1.Node) { setAddresses(n, "10.9.0.8") })
	eventually(t, "the cache to follow again", func() error {
		return wantErr(nil)(w.cluster.FindNode(t.Context(), cleanup.Sender{Addr: netip.MustParseAddr("10.9.0.8")}))
	})
	eventually(t, "the event of that time", func() error {
		list, err := w.admin.EventsV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "regarding.name=patient"})
		if err == nil && len(list.Items) == 0 {
			err = errors.New("no event")
		}
		return err
	})
}

// The rest makes and reads objects as the administrator.
