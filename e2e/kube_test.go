//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/kube"
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
	t.Run("a boot is pinned once", w.checkPin)
	t.Run("a kubelet's lease is read", w.checkLease)
	t.Run("a pod is failed in one write", w.checkFail)
	t.Run("a pod that changed is not failed", w.checkFailPreconditions)
	t.Run("a kubelet that comes back leaves the verdict alone", w.checkReturningKubelet)
	t.Run("a mirror pod is annotated only", w.checkMirror)
	t.Run("a pod is deleted once it is marked", w.checkDeletePod)
	t.Run("volume attachments are counted", w.checkAttachments)
	t.Run("a record is claimed, kept, amended and dropped", w.checkRecords)
	t.Run("a record may name no node", w.checkRecordWithoutNode)
	t.Run("a trace fits", w.checkTrace)
	t.Run("kubectl shows records", w.checkKubectl)
	t.Run("a node is deleted once it is marked and fenced", w.checkDeleteNode)
	t.Run("events are told", w.checkEvents)
	t.Run("annotation keys are configurable", w.checkAnnotationKeys)
	t.Run("the service account may do this and no more", w.checkRights)
	t.Run("the policies hold whatever the rights", w.checkPoliciesBeyondRights)
	t.Run("the host-network variant applies", w.checkHostNetwork)
	t.Run("an API server that was away is found again", w.checkAway)
}

// kubeWorld is a control plane with packaging/kubernetes applied.
type kubeWorld struct {
	lab     *lab.Cluster
	admin   kubernetes.Interface
	account *rest.Config          // of system:serviceaccount:lastgasp:listener
	raw     *kubernetes.Clientset // the same, for what our own client would never send
	cluster *kube.Cluster
}

func newKubeWorld(t *testing.T) *kubeWorld {
	net, err := lab.NewNet(t)
	if err != nil {
		t.Fatal(err)
	}
	c, err := lab.StartCluster(t.Context(), t, lab.ClusterSpec{NS: net.Listener, Addr: lab.APIServerAddr.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	w := &kubeWorld{lab: c, admin: c.Client()}
	w.kubectl(t, "apply", "-k", "../packaging/kubernetes")
	w.kubectl(t, "wait", "--for=condition=Established", "--timeout=30s", "crd/kernelpanics.lastgasp.dev")

	token, err := w.admin.CoreV1().ServiceAccounts("lastgasp").CreateToken(t.Context(), "listener",
		&authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.account = rest.AnonymousClientConfig(c.RESTConfig())
	w.account.BearerToken = token.Status.Token
	if w.raw, err = kubernetes.NewForConfig(w.account); err != nil {
		t.Fatal(err)
	}
	w.cluster = w.connect(t, kube.Config{REST: w.account, Replica: "listener-0"})
	w.awaitPolicies(t)
	return w
}

// connect returns a running Cluster that has seen the nodes there are.
func (w *kubeWorld) connect(t *testing.T, cfg kube.Config) *kube.Cluster {
	t.Helper()
	c, err := kube.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if c.Synced() {
		t.Fatal("synced before Run")
	}
	if _, err := c.FindNode(t.Context(), "", netip.MustParseAddr("10.0.0.1")); err == nil || errors.Is(err, cleanup.ErrNotFound) {
		t.Fatalf("find a node before the cache is filled: %v, want an error that may pass", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	eventually(t, "the caches to fill", func() error {
		if !c.Synced() {
			return errors.New("not synced")
		}
		return nil
	})
	return c
}

// awaitPolicies waits until the API server enforces the policies, which it does some moments after it has them.
func (w *kubeWorld) awaitPolicies(t *testing.T) {
	pod := w.newPod(t, "canary", w.newNode(t, "canary", nil).Name, corev1.PodRunning, nil)
	node := w.readNode(t, "canary")
	eventually(t, "the policies to be in force", func() error {
		if err := w.cluster.DeletePod(t.Context(), pod); !errors.Is(err, cleanup.ErrDenied) {
			// It is gone now; another one will tell.
			pod = w.newPod(t, fmt.Sprintf("canary-%d", time.Now().UnixNano()), "canary", corev1.PodRunning, nil)
			return fmt.Errorf("delete an unmarked pod: %v", err)
		}
		err := w.cluster.DeleteNode(t.Context(), node)
		if errors.Is(err, cleanup.ErrDenied) {
			return nil
		}
		if err == nil {
			w.newNode(t, "canary", nil)
		}
		node = w.readNode(t, "canary")
		return fmt.Errorf("delete an unmarked node: %v", err)
	})
}

func (w *kubeWorld) checkPolicies(t *testing.T) {
	for _, name := range []string{"lastgasp-listener-pods", "lastgasp-listener-nodes"} {
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

func (w *kubeWorld) checkFind(t *testing.T) {
	ctx := t.Context()
	w.newNode(t, "ec2", func(n *corev1.Node) {
		n.Spec.ProviderID = "aws:///us-east-1a/i-0aaa"
		setAddresses(n, "10.9.0.1", "fd00::1", "10.9.1.1")
	})
	w.newNode(t, "metal", func(n *corev1.Node) {
		n.Status.NodeInfo.MachineID = "5f4dcc3b5aa765d61d8327deb882cf99"
		setAddresses(n, "10.9.0.2")
	})
	for _, name := range []string{"twin-a", "twin-b"} {
		w.newNode(t, name, func(n *corev1.Node) {
			n.Status.NodeInfo.MachineID = "cloned"
			setAddresses(n, "10.9.0.3")
		})
	}
	for _, tt := range []struct {
		name, instance, addr, want string
		err                        error
	}{
		{name: "by instance", instance: "i-0aaa", addr: "10.9.0.1", want: "ec2"},
		{name: "by instance and its second address", instance: "i-0aaa", addr: "10.9.1.1", want: "ec2"},
		{name: "by machine id", instance: "5f4dcc3b5aa765d61d8327deb882cf99", addr: "10.9.0.2", want: "metal"},
		{name: "by address", addr: "10.9.0.2", want: "metal"},
		{name: "by ipv6 address", addr: "fd00::1", want: "ec2"},
		{name: "by address as a dual-stack socket reports it", addr: "::ffff:10.9.0.1", want: "ec2"},
		{name: "instance from an address not its own", instance: "i-0aaa", addr: "10.9.0.2", err: cleanup.ErrNotFound},
		{name: "unknown instance from a node's address", instance: "i-0bbb", addr: "10.9.0.1", err: cleanup.ErrNotFound},
		{name: "unknown address", addr: "10.9.0.99", err: cleanup.ErrNotFound},
		{name: "address of two nodes", addr: "10.9.0.3", err: cleanup.ErrAmbiguous},
		{name: "machine id of two nodes", instance: "cloned", addr: "10.9.0.3", err: cleanup.ErrAmbiguous},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eventually(t, "the cache to follow", func() error {
				got, err := w.cluster.FindNode(ctx, tt.instance, netip.MustParseAddr(tt.addr))
				if !errors.Is(err, tt.err) || got.Name != tt.want {
					return fmt.Errorf("node %q, error %v; want %q, %v", got.Name, err, tt.want, tt.err)
				}
				return nil
			})
		})
	}
	t.Run("address of a node deleted just now", func(t *testing.T) {
		addr := netip.MustParseAddr("10.9.0.1")
		w.mustDeleteNode(t, "ec2")
		eventually(t, "the cache to forget", func() error { return wantErr(cleanup.ErrNotFound)(w.cluster.FindNode(ctx, "", addr)) })

		// The name of an EC2 node is made of its address, so another machine comes by both.
		w.newNode(t, "ec2", func(n *corev1.Node) { n.Spec.ProviderID = "aws:///us-east-1a/i-0ccc"; setAddresses(n, "10.9.0.1") })
		eventually(t, "the cache to follow", func() error { return wantErr(cleanup.ErrAmbiguous)(w.cluster.FindNode(ctx, "", addr)) })
		eventually(t, "the instance to tell", func() error { return wantErr(nil)(w.cluster.FindNode(ctx, "i-0ccc", addr)) })
		w.mustDeleteNode(t, "ec2")
	})
	t.Run("address of a machine that registered again", func(t *testing.T) {
		again := func(n *corev1.Node) { n.Spec.ProviderID = "aws:///us-east-1a/i-0ddd"; setAddresses(n, "10.9.0.4") }
		w.newNode(t, "again", again)
		addr := netip.MustParseAddr("10.9.0.4")
		eventually(t, "the cache to follow", func() error { return wantErr(nil)(w.cluster.FindNode(ctx, "", addr)) })
		w.mustDeleteNode(t, "again")
		uid := w.newNode(t, "again", again).UID
		eventually(t, "the cache to follow", func() error {
			n, err := w.cluster.FindNode(ctx, "", addr)
			if err == nil && n.UID != string(uid) {
				err = errors.New("still the old one")
			}
			return err
		})
	})
}

func (w *kubeWorld) checkFence(t *testing.T) {
	ctx := t.Context()
	before := w.newNode(t, "fence", func(n *corev1.Node) {
		n.Labels = map[string]string{"team": "db"}
		n.Annotations = map[string]string{"example.com/a": "b"}
		n.Spec.Taints = []corev1.Taint{{Key: "dedicated", Value: "db", Effect: corev1.TaintEffectNoSchedule}}
	})
	mark := cleanup.Mark{Record: "fence-1", Boot: "11111111-2222", Reason: "sysrq triggered crash", OutOfService: true}
	on := w.patchNode(t, "fence", cleanup.NodePatch{Fence: ptr(true), OutOfService: ptr(true), Mark: &mark})
	if !on.Fenced || !on.OutOfService || on.Mark != mark {
		t.Errorf("fenced node: %+v", on)
	}
	if diff := cmp.Diff([]string{
		"dedicated=db:NoSchedule", "lastgasp.dev/kernel-panic=:NoSchedule", "node.kubernetes.io/out-of-service=kernel-panic:NoSchedule",
	}, w.ownTaints(t, "fence")); diff != "" {
		t.Errorf("taints (-want +got):\n%s", diff)
	}
	eventually(t, "the node to be listed as marked", func() error {
		return w.isMarked(ctx, "fence", true)
	})

	t.Run("again", func(t *testing.T) {
		again := w.patchNode(t, "fence", cleanup.NodePatch{Fence: ptr(true), OutOfService: ptr(true), Mark: &mark})
		if !again.Fenced || !again.OutOfService || again.Mark != mark {
			t.Errorf("fenced again: %+v", again)
		}
		if got := w.ownTaints(t, "fence"); len(got) != 3 {
			t.Errorf("taints: %v, want the three of before", got)
		}
	})
	t.Run("stale", func(t *testing.T) {
		stale := w.readNode(t, "fence")
		stale.ResourceVersion = before.ResourceVersion
		_, err := w.cluster.PatchNode(ctx, stale, cleanup.NodePatch{Fence: ptr(false)})
		if !errors.Is(err, cleanup.ErrConflict) {
			t.Errorf("patch a node that changed: %v, want ErrConflict", err)
		}
		stale = w.readNode(t, "fence")
		stale.UID = "00000000-0000-0000-0000-000000000000"
		if _, err = w.cluster.PatchNode(ctx, stale, cleanup.NodePatch{Fence: ptr(false)}); !errors.Is(err, cleanup.ErrConflict) {
			t.Errorf("patch a node of another uid: %v, want ErrConflict", err)
		}
		stale.Name = "nobody"
		if _, err = w.cluster.PatchNode(ctx, stale, cleanup.NodePatch{Fence: ptr(false)}); !errors.Is(err, cleanup.ErrNotFound) {
			t.Errorf("patch a node that is gone: %v, want ErrNotFound", err)
		}
	})
	t.Run("change between decision and write", func(t *testing.T) {
		// The cache still holds the version decided on, so only the API server can tell.
		n := w.readNode(t, "fence")
		w.kubectl(t, "annotate", "node", "fence", "example.com/race=1")
		_, err := w.cluster.PatchNode(ctx, n, cleanup.NodePatch{Fence: ptr(false)})
		if !errors.Is(err, cleanup.ErrConflict) {
			t.Errorf("patch a node that changed: %v, want ErrConflict", err)
		}
	})

	off := w.patchNode(t, "fence", cleanup.NodePatch{Fence: ptr(false), OutOfService: ptr(false), Mark: &cleanup.Mark{}})
	if off.Fenced || off.OutOfService || off.Mark != (cleanup.Mark{}) {
		t.Errorf("unfenced node: %+v", off)
	}
	eventually(t, "the node to be listed no more", func() error { return w.isMarked(ctx, "fence", false) })
	after := w.getNode(t, "fence")
	if diff := cmp.Diff([]string{"dedicated=db:NoSchedule"}, w.ownTaints(t, "fence")); diff != "" {
		t.Errorf("taints (-want +got):\n%s", diff)
	}
	delete(after.Annotations, "node.alpha.kubernetes.io/ttl") // the TTL controller's
	if diff := cmp.Diff(map[string]string{"example.com/a": "b", "example.com/race": "1"}, after.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before.Labels, after.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}

func (w *kubeWorld) checkPin(t *testing.T) {
	w.newNode(t, "pin", nil)
	first := cleanup.Pin{Boot: "boot-1", Sum: "aaaa"}
	if got := w.patchNode(t, "pin", cleanup.NodePatch{Pin: &first}).Pin; got != first {
		t.Errorf("pin: %+v, want %+v", got, first)
	}
	_, err := w.cluster.PatchNode(t.Context(), w.readNode(t, "pin"), cleanup.NodePatch{Pin: &cleanup.Pin{Boot: "boot-1", Sum: "bbbb"}})
	if !errors.Is(err, cleanup.ErrDenied) {
		t.Errorf("replace the pin of a boot: %v, want ErrDenied", err)
	}
	next := cleanup.Pin{Boot: "boot-2", Sum: "bbbb"}
	if got := w.patchNode(t, "pin", cleanup.NodePatch{Pin: &next}).Pin; got != next {
		t.Errorf("pin of the next boot: %+v, want %+v", got, next)
	}
}

func (w *kubeWorld) checkLease(t *testing.T) {
	want := time.Now().Add(-5 * time.Second).Truncate(time.Microsecond)
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "leased"},
		Spec:       coordinationv1.LeaseSpec{RenewTime: &metav1.MicroTime{Time: want}},
	}
	if _, err := w.admin.CoordinationV1().Leases("kube-node-lease").Create(t.Context(), lease, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := w.cluster.LeaseRenewed(t.Context(), "leased")
	if err != nil || !got.Equal(want) {
		t.Errorf("lease renewed: %v, %v; want %v", got, err, want)
	}
	if _, err := w.cluster.LeaseRenewed(t.Context(), "unleased"); !errors.Is(err, cleanup.ErrNotFound) {
		t.Errorf("lease of a node without: %v, want ErrNotFound", err)
	}
}

// kubeDeath is what pods are told in these tests.
var kubeDeath = cleanup.Death{
	Record:  "node-1-boot-1",
	Code:    "KernelPanic",
	Reason:  "Kernel panic - not syncing: sysrq triggered crash",
	Message: "node-1: Kernel panic - not syncing: sysrq triggered crash (6.12.107, record node-1-boot-1)",
	Time:    time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC),
}

func (w *kubeWorld) checkFail(t *testing.T) {
	node := w.newNode(t, "dead", nil).Name
	// Any object will do as owner, but there must be one: else the pod is garbage.
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
	if diff := cmp.Diff([]cleanup.Pod{pod}, pods); diff != "" {
		t.Errorf("pods of the node (-want +got):\n%s", diff)
	}
	if pod.Owner != (cleanup.Owner{APIVersion: "v1", Kind: "ConfigMap", Name: "web", UID: string(owner.UID)}) || pod.Started.IsZero() {
		t.Errorf("pod: %+v, want owner and start", pod)
	}

	failed, err := w.cluster.FailPod(t.Context(), pod, kubeDeath)
	if err != nil {
		t.Fatal(err)
	}
	if failed.Phase != "Failed" || !failed.Marked || failed.Record != kubeDeath.Record || failed.ResourceVersion == pod.ResourceVersion {
		t.Errorf("failed pod: %+v", failed)
	}
	after := w.getPod(t, "running")
	at := metav1.NewTime(kubeDeath.Time)
	want := before.DeepCopy()
	want.ResourceVersion = after.ResourceVersion
	want.Annotations = map[string]string{
		"example.com/a":                   "b",
		"lastgasp.dev/record":             kubeDeath.Record,
		"lastgasp.dev/termination-reason": kubeDeath.Reason,
		"lastgasp.dev/termination-code":   "KernelPanic",
		"lastgasp.dev/termination-by":     "lastgasp-listener",
	}
	want.Status.Phase, want.Status.Reason, want.Status.Message = corev1.PodFailed, "KernelPanic", kubeDeath.Message
	scheduled := want.Status.Conditions
	want.Status.Conditions = []corev1.PodCondition{
		{Type: "DisruptionTarget", Status: "True", Reason: "KernelPanic", Message: kubeDeath.Message, LastTransitionTime: at},
		{Type: "lastgasp.dev/KernelPanic", Status: "True", Reason: "KernelPanic", Message: kubeDeath.Message, LastTransitionTime: at},
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
	i := slicesIndexManager(after.ManagedFields)
	if i < 0 {
		t.Fatalf("managed fields know no lastgasp-listener: %v", after.ManagedFields)
	}
	m := after.ManagedFields[i]
	if m.Subresource != "status" || m.Operation != metav1.ManagedFieldsOperationUpdate {
		t.Errorf("fields managed by %s of subresource %q, want Update of status", m.Operation, m.Subresource)
	}
	for _, field := range []string{`f:phase`, `DisruptionTarget`, `f:lastgasp.dev/record`} {
		if !strings.Contains(string(m.FieldsV1.Raw), field) {
			t.Errorf("%s is not ours: %s", field, m.FieldsV1.Raw)
		}
	}
	for _, field := range []string{`containerStatuses`, `PodScheduled`, `f:labels`, `example.com/a`} {
		if strings.Contains(string(m.FieldsV1.Raw), field) {
			t.Errorf("%s became ours: %s", field, m.FieldsV1.Raw)
		}
	}
	t.Run("terminating", func(t *testing.T) {
		pod := w.newPod(t, "terminating", node, corev1.PodRunning, nil)
		w.kubectl(t, "delete", "pod", "terminating", "--wait=false")
		pod = w.readPod(t, pod.Name)
		if !pod.Deleting {
			t.Fatalf("pod is not terminating: %+v", pod)
		}
		if got, err := w.cluster.FailPod(t.Context(), pod, kubeDeath); err != nil || got.Phase != "Failed" {
			t.Errorf("fail a terminating pod: %v, %v", got.Phase, err)
		}
	})
	t.Run("pending", func(t *testing.T) {
		pod := w.newPod(t, "pending", node, corev1.PodPending, nil)
		if got, err := w.cluster.FailPod(t.Context(), pod, kubeDeath); err != nil || got.Phase != "Failed" {
			t.Errorf("fail a pending pod: %v, %v", got.Phase, err)
		}
	})
	t.Run("with an overlong message", func(t *testing.T) {
		d := kubeDeath
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

func slicesIndexManager(fields []metav1.ManagedFieldsEntry) int {
	for i, f := range fields {
		if f.Manager == "lastgasp-listener" {
			return i
		}
	}
	return -1
}

func (w *kubeWorld) checkFailPreconditions(t *testing.T) {
	node := w.newNode(t, "stale", nil).Name
	for _, tt := range []struct {
		name   string
		change func(*cleanup.Pod)
		want   error
	}{
		{"another uid", func(p *cleanup.Pod) { p.UID = "00000000-0000-0000-0000-000000000000" }, cleanup.ErrConflict},
		{"succeeded meanwhile", func(p *cleanup.Pod) { w.setPhase(t, p.Name, corev1.PodSucceeded) }, cleanup.ErrConflict},
		{"gone meanwhile", func(p *cleanup.Pod) {
			w.kubectl(t, "delete", "pod", p.Name, "--force", "--grace-period=0")
		}, cleanup.ErrNotFound},
		{"finished before", func(p *cleanup.Pod) {
			w.setPhase(t, p.Name, corev1.PodSucceeded)
			*p = w.readPod(t, p.Name)
		}, cleanup.ErrDenied},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := w.newPod(t, "stale-"+strings.ReplaceAll(tt.name, " ", "-"), node, corev1.PodRunning, nil)
			tt.change(&pod)
			if _, err := w.cluster.FailPod(t.Context(), pod, kubeDeath); !errors.Is(err, tt.want) {
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
		if _, err := w.cluster.FailPod(t.Context(), pod, kubeDeath); !errors.Is(err, cleanup.ErrDenied) {
			t.Errorf("fail: %v, want ErrDenied", err)
		}
	})
}

// checkReturningKubelet writes what a kubelet writes into a pod that it finds Failed when it is back: container states
// and its own conditions (kubernetes pkg/kubelet/status).
func (w *kubeWorld) checkReturningKubelet(t *testing.T) {
	node := w.newNode(t, "returning", nil).Name
	pod := w.newPod(t, "returned", node, corev1.PodRunning, nil)
	if _, err := w.cluster.FailPod(t.Context(), pod, kubeDeath); err != nil {
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
	if got.Status.Phase != corev1.PodFailed || got.Status.Reason != "KernelPanic" || got.Annotations["lastgasp.dev/record"] == "" {
		t.Errorf("phase %s, reason %s, annotations %v", got.Status.Phase, got.Status.Reason, got.Annotations)
	}
	kept := map[corev1.PodConditionType]string{}
	for _, c := range got.Status.Conditions {
		if c.Status == corev1.ConditionTrue {
			kept[c.Type] = c.Reason
		}
	}
	if kept["DisruptionTarget"] != "KernelPanic" || kept["lastgasp.dev/KernelPanic"] != "KernelPanic" {
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
	if _, err := w.cluster.FailPod(t.Context(), pod, kubeDeath); !errors.Is(err, cleanup.ErrDenied) {
		t.Errorf("fail: %v, want ErrDenied", err)
	}
	annotated, err := w.cluster.AnnotatePod(t.Context(), pod, kubeDeath)
	if err != nil {
		t.Fatal(err)
	}
	if annotated.Phase != "Running" || !annotated.Marked {
		t.Errorf("annotated: %+v", annotated)
	}
	if err := w.cluster.DeletePod(t.Context(), annotated); !errors.Is(err, cleanup.ErrDenied) {
		t.Errorf("delete: %v, want ErrDenied", err)
	}
	if _, err := w.cluster.AnnotatePod(t.Context(), pod, kubeDeath); !errors.Is(err, cleanup.ErrConflict) {
		t.Errorf("annotate a pod that changed: %v, want ErrConflict", err)
	}
}

func (w *kubeWorld) checkDeletePod(t *testing.T) {
	node := w.newNode(t, "deleting", nil).Name
	fail := func(t *testing.T, p cleanup.Pod) cleanup.Pod {
		t.Helper()
		p, err := w.cluster.FailPod(t.Context(), p, kubeDeath)
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

// kubeRecord is a record as cleanup would write it.
func kubeRecord(name string) cleanup.Record {
	at := time.Date(2026, 11, 21, 10, 0, 0, 123456000, time.UTC)
	return cleanup.Record{
		Name: name, Node: "node-1", NodeUID: "uid-1", Instance: "i-0aaa", Boot: "boot-1",
		Source: netip.MustParseAddrPort("10.0.1.5:6665"), Time: at,
		Code: "KernelPanic", Title: "sysrq triggered crash", Fingerprint: "9f31c2d07a64", Remedy: "none", Release: "6.12.107",
		Authority: detect.Pinned, Trace: []string{"sysrq: Trigger a crash", "Kernel panic - not syncing: sysrq triggered crash"},
		Phase: cleanup.Claimed, Decision: "pinned gasp", Owner: "listener-0", OwnerSeen: at,
		Steps: []cleanup.StepStatus{{Name: "fence", Done: true, Time: at, Note: "fenced"}}, PodsTotal: 12, PodsDone: 3,
	}
}

var ignoreServerFields = cmpopts.IgnoreFields(cleanup.Record{}, "UID", "Version", "Created")

func (w *kubeWorld) checkRecords(t *testing.T) {
	ctx := t.Context()
	want := kubeRecord("ip-10-0-1-5-boot-1")
	created, err := w.cluster.CreateRecord(ctx, want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, created, sameRecord, ignoreServerFields); diff != "" {
		t.Errorf("created (-want +got):\n%s", diff)
	}
	read, err := w.cluster.Record(ctx, want.Name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(created, read, sameRecord); diff != "" {
		t.Errorf("read (-created +read):\n%s", diff)
	}
	if _, err := w.cluster.CreateRecord(ctx, want); !errors.Is(err, cleanup.ErrExists) {
		t.Errorf("claim it again: %v, want ErrExists", err)
	}
	if _, err := w.cluster.Record(ctx, "nobody"); !errors.Is(err, cleanup.ErrNotFound) {
		t.Errorf("read a record that is not: %v, want ErrNotFound", err)
	}

	update := read
	update.Phase, update.PodsDone, update.Steps = cleanup.Cleaned, 12, append(update.Steps, cleanup.StepStatus{Name: "fail"})
	updated, err := w.cluster.UpdateRecord(ctx, update)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(update, updated, sameRecord, ignoreServerFields); diff != "" {
		t.Errorf("updated (-want +got):\n%s", diff)
	}
	if g := w.generation(t, want.Name); g != 1 {
		t.Errorf("generation %d after a change of status, want 1: the spec was written again", g)
	}
	if _, err := w.cluster.UpdateRecord(ctx, update); !errors.Is(err, cleanup.ErrConflict) {
		t.Errorf("update from a stale version: %v, want ErrConflict", err)
	}

	// Whoever has it without its trace must not take the trace away; who, when and whence is written once.
	amend := updated
	amend.Title, amend.Fingerprint, amend.Trace, amend.Node = "null pointer dereference in foo", "000000000000", nil, "node-2"
	amended, err := w.cluster.UpdateRecord(ctx, amend)
	if err != nil {
		t.Fatal(err)
	}
	amend.Trace, amend.Node = want.Trace, want.Node
	if diff := cmp.Diff(amend, amended, sameRecord, ignoreServerFields); diff != "" {
		t.Errorf("amended (-want +got):\n%s", diff)
	}
	amend = amended
	amend.Trace = append(amend.Trace, "Call Trace:", " <TASK>")
	if amended, err = w.cluster.UpdateRecord(ctx, amend); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(amend, amended, sameRecord, ignoreServerFields); diff != "" {
		t.Errorf("with more trace (-want +got):\n%s", diff)
	}

	t.Run("released by a human", func(t *testing.T) {
		w.kubectl(t, "annotate", "kernelpanic", want.Name, "lastgasp.dev/release=true")
		if _, err := w.cluster.UpdateRecord(ctx, amended); !errors.Is(err, cleanup.ErrConflict) {
			t.Errorf("update over the human's word: %v, want ErrConflict", err)
		}
		if amended, err = w.cluster.Record(ctx, want.Name); err != nil || !amended.Released {
			t.Errorf("released: %v, %v", amended.Released, err)
		}
		if amended, err = w.cluster.UpdateRecord(ctx, amended); err != nil || !amended.Released {
			t.Errorf("released after an update: %v, %v", amended.Released, err)
		}
	})
	t.Run("history is not rewritten", func(t *testing.T) {
		for _, field := range []string{"node", "nodeUID", "instance", "boot", "source"} {
			_, err := w.lab.Kubectl(ctx, "patch", "kp", want.Name, "--type=merge", fmt.Sprintf(`--patch={"spec":{%q:"other"}}`, field))
			if err == nil || !strings.Contains(err.Error(), "is written once") {
				t.Errorf("change spec.%s: %v", field, err)
			}
		}
	})
	eventually(t, "the cache to follow", func() error {
		records, err := w.cluster.Records(ctx)
		if err != nil {
			return err
		}
		want := amended
		want.Trace = nil
		if diff := cmp.Diff([]cleanup.Record{want}, records, sameRecord); diff != "" {
			return fmt.Errorf("records (-want +got):\n%s", diff)
		}
		return nil
	})

	other := amended
	other.UID = "00000000-0000-0000-0000-000000000000"
	if err := w.cluster.DeleteRecord(ctx, other); !errors.Is(err, cleanup.ErrConflict) {
		t.Errorf("delete another uid: %v, want ErrConflict", err)
	}
	if err := w.cluster.DeleteRecord(ctx, amended); err != nil {
		t.Errorf("delete: %v", err)
	}
	if err := w.cluster.DeleteRecord(ctx, amended); !errors.Is(err, cleanup.ErrNotFound) {
		t.Errorf("delete again: %v, want ErrNotFound", err)
	}
	if _, err := w.cluster.UpdateRecord(ctx, amended); !errors.Is(err, cleanup.ErrNotFound) {
		t.Errorf("update a deleted record: %v, want ErrNotFound", err)
	}
}

// sameRecord compares times as instants, not as they are written.
var sameRecord = cmp.Options{
	cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

func (w *kubeWorld) checkRecordWithoutNode(t *testing.T) {
	want := cleanup.Record{
		Name: "refused-1", Source: netip.MustParseAddrPort("10.0.1.5:6665"), Time: time.Now(), Code: "KernelPanic", Title: "x",
		Phase: cleanup.Refused, Decision: "no node has address 10.0.1.5",
	}
	got, err := w.cluster.CreateRecord(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	if got.Phase != cleanup.Refused || got.Node != "" || got.Authority != detect.Text {
		t.Errorf("record: %+v", got)
	}
	if err := w.cluster.DeleteRecord(t.Context(), got); err != nil {
		t.Error(err)
	}
}

func (w *kubeWorld) checkTrace(t *testing.T) {
	line := strings.Repeat("ä", 500) + "\xff\x00"
	r := kubeRecord("long-trace")
	r.Trace = nil
	for range 5000 {
		r.Trace = append(r.Trace, line)
	}
	r.Trace[7] = strings.Repeat("x", 100_000)
	created, err := w.cluster.CreateRecord(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	for _, l := range created.Trace {
		size += len(l)
	}
	if size > 128<<10 || size < 120<<10 {
		t.Errorf("trace of %d bytes, want just below 128 KiB", size)
	}
	created.Trace = r.Trace
	if _, err := w.cluster.UpdateRecord(t.Context(), created); err != nil {
		t.Fatal(err)
	}
	if g := w.generation(t, r.Name); g != 1 {
		t.Errorf("generation %d: a trace that is there was written again", g)
	}
	long := make([]string, 0, 2049)
	for range 2049 {
		long = append(long, "a")
	}
	created, err = w.cluster.Record(t.Context(), r.Name)
	if err != nil {
		t.Fatal(err)
	}
	created.Trace = long
	if _, err := w.cluster.UpdateRecord(t.Context(), created); err != nil {
		t.Errorf("a trace of many short lines: %v", err)
	}
}

func (w *kubeWorld) checkKubectl(t *testing.T) {
	r := kubeRecord("ip-10-0-1-5-9f31")
	if _, err := w.cluster.CreateRecord(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(w.kubectl(t, "get", "kp", r.Name), "\n")
	if got, want := strings.Fields(lines[0]), []string{"NAME", "NODE", "REASON", "FINGERPRINT", "PODS", "PHASE", "AGE"}; !cmp.Equal(got, want) {
		t.Errorf("columns %v, want %v", got, want)
	}
	if want := []string{"ip-10-0-1-5-9f31", "node-1", "sysrq", "triggered", "crash", "9f31c2d07a64", "3/12", "Claimed"}; !cmp.Equal(strings.Fields(lines[1])[:8], want) {
		t.Errorf("row %q, want %v", lines[1], want)
	}
	t.Logf("kubectl get kp:\n%s", strings.Join(lines, "\n"))
	if got, want := w.kubectl(t, "get", "kp", r.Name, "-o", `jsonpath={range .spec.trace[*]}{@}{"\n"}{end}`), strings.Join(r.Trace, "\n")+"\n"; got != want {
		t.Errorf("trace %q, want %q", got, want)
	}
	for selector, want := range map[string]string{
		"spec.fingerprint=9f31c2d07a64,spec.node=node-1": "kernelpanic.lastgasp.dev/ip-10-0-1-5-9f31",
		"status.phase=Held": "",
	} {
		if got := w.kubectl(t, "get", "kp", "-o", "name", "--field-selector", selector); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("records with %s: %q, want %q", selector, got, want)
		}
	}
}

func (w *kubeWorld) checkDeleteNode(t *testing.T) {
	ctx := t.Context()
	mark := &cleanup.Mark{Record: "r", Boot: "b", Reason: "x"}
	for _, tt := range []struct {
		name  string
		patch cleanup.NodePatch
		label string
		want  error
	}{
		{"unmarked", cleanup.NodePatch{}, "", cleanup.ErrDenied},
		{"marked and not fenced", cleanup.NodePatch{Mark: mark}, "", cleanup.ErrDenied},
		{"fenced and not marked", cleanup.NodePatch{Fence: ptr(true)}, "", cleanup.ErrDenied},
		{"control plane", cleanup.NodePatch{Fence: ptr(true), Mark: mark}, "node-role.kubernetes.io/control-plane", cleanup.ErrDenied},
		{"marked and fenced", cleanup.NodePatch{Fence: ptr(true), Mark: mark}, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := "delete-" + strings.ReplaceAll(tt.name, " ", "-")
			w.newNode(t, name, func(n *corev1.Node) {
				if tt.label != "" {
					n.Labels = map[string]string{tt.label: ""}
				}
			})
			n := w.patchNode(t, name, tt.patch)
			if n.ControlPlane != (tt.label != "") {
				t.Errorf("control plane: %v", n.ControlPlane)
			}
			err := w.deleteNode(ctx, n)
			if !errors.Is(err, tt.want) {
				t.Errorf("delete: %v, want %v", err, tt.want)
			}
			_, err = w.cluster.Node(ctx, name)
			if gone := errors.Is(err, cleanup.ErrNotFound); gone != (tt.want == nil) {
				t.Errorf("read after delete: %v", err)
			}
		})
	}
	t.Run("changed since it was read", func(t *testing.T) {
		w.newNode(t, "delete-stale", nil)
		n := w.patchNode(t, "delete-stale", cleanup.NodePatch{Fence: ptr(true), Mark: mark})
		w.kubectl(t, "label", "node", "delete-stale", "x=y")
		if err := w.cluster.DeleteNode(ctx, n); !errors.Is(err, cleanup.ErrConflict) {
			t.Errorf("delete: %v, want ErrConflict", err)
		}
		n = w.readNode(t, "delete-stale")
		n.UID = "00000000-0000-0000-0000-000000000000"
		if err := w.cluster.DeleteNode(ctx, n); !errors.Is(err, cleanup.ErrConflict) {
			t.Errorf("delete another uid: %v, want ErrConflict", err)
		}
	})
	count := len(must(w.admin.CoreV1().Nodes().List(ctx, metav1.ListOptions{})).Items)
	eventually(t, "the count to follow", func() error {
		if got := w.cluster.NodeCount(); got != count {
			return fmt.Errorf("%d nodes, want %d", got, count)
		}
		return nil
	})
}

func (w *kubeWorld) checkEvents(t *testing.T) {
	node := w.newNode(t, "told", nil)
	w.cluster.Tell(cleanup.Event{
		Node: w.readNode(t, "told"), Warning: true, Reason: "KernelPanic", Action: "Fence", Note: strings.Repeat("ä", 2000),
	})
	w.cluster.Tell(cleanup.Event{
		Owner: cleanup.Owner{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "u"}, Namespace: "default",
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

// checkAnnotationKeys uses Netflix's key, first against the policy as shipped, then with the key listed in it.
func (w *kubeWorld) checkAnnotationKeys(t *testing.T) {
	const key = "pod.titus.netflix.com/pod-termination-reason"
	c := w.connect(t, kube.Config{REST: w.account, Annotations: kube.Annotations{Reason: key}})
	node := w.newNode(t, "titus", nil).Name
	pod := w.newPod(t, "titus", node, corev1.PodRunning, nil)
	if _, err := c.FailPod(t.Context(), pod, kubeDeath); !errors.Is(err, cleanup.ErrDenied) {
		t.Errorf("fail with a key that the policy does not know: %v, want ErrDenied", err)
	}
	w.kubectl(t, "patch", "validatingadmissionpolicy", "lastgasp-listener-pods", "--type=json",
		`--patch=[{"op":"test","path":"/spec/variables/0/name","value":"alsoOurs"},
		{"op":"replace","path":"/spec/variables/0/expression","value":"['`+key+`']"}]`)
	eventually(t, "the changed policy to be in force", func() error {
		_, err := c.FailPod(t.Context(), w.readPod(t, "titus"), kubeDeath)
		return err
	})
	if got := w.getPod(t, "titus").Annotations[key]; got != kubeDeath.Reason {
		t.Errorf("%s: %q, want %q", key, got, kubeDeath.Reason)
	}
	if err := c.DeletePod(t.Context(), w.readPod(t, "titus")); err != nil {
		t.Errorf("delete: %v", err)
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
	eventually(t, "the cache to follow", func() error { return wantErr(nil)(w.cluster.FindNode(t.Context(), "", addr)) })
	patient := w.readNode(t, "patient")

	w.lab.StopAPIServer()
	_, err := w.cluster.FindNode(t.Context(), "", addr)
	for _, s := range []error{nil, cleanup.ErrNotFound, cleanup.ErrDenied, cleanup.ErrConflict} {
		if errors.Is(err, s) {
			t.Errorf("find a node while the API server is away: %v, want an error that may pass", err)
		}
	}
	w.cluster.Tell(cleanup.Event{Node: patient, Reason: "KernelPanic", Action: "Fence", Note: "told while nobody listened"})
	if err := w.lab.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.newNode(t, "late", func(n *corev1.Node) { setAddresses(n, "10.9.0.8") })
	eventually(t, "the cache to follow again", func() error {
		return wantErr(nil)(w.cluster.FindNode(t.Context(), "", netip.MustParseAddr("10.9.0.8")))
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

func (w *kubeWorld) newNode(t *testing.T, name string, change func(*corev1.Node)) *corev1.Node {
	t.Helper()
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			NodeInfo:   corev1.NodeSystemInfo{BootID: "boot-1"},
		},
	}
	if change != nil {
		change(n)
	}
	out, err := w.admin.CoreV1().Nodes().Create(t.Context(), n, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.admin.CoreV1().Nodes().Delete(context.Background(), name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(out.UID))})
	})
	return out
}

func setAddresses(n *corev1.Node, addrs ...string) {
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: n.Name}}
	for _, a := range addrs {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
}

func (w *kubeWorld) newPod(t *testing.T, name, node string, phase corev1.PodPhase, change func(*corev1.Pod)) cleanup.Pod {
	t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			NodeName:                     node,
			AutomountServiceAccountToken: ptr(false),
			Containers:                   []corev1.Container{{Name: "main", Image: "none"}},
		},
	}
	if change != nil {
		change(p)
	}
	if _, err := w.admin.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.admin.CoreV1().Pods("default").Delete(context.Background(), name, metav1.DeleteOptions{GracePeriodSeconds: ptr(int64(0))})
	})
	w.setPhase(t, name, phase)
	return w.readPod(t, name)
}

// setPhase writes the status that a kubelet would.
func (w *kubeWorld) setPhase(t *testing.T, name string, phase corev1.PodPhase) {
	t.Helper()
	status := map[string]any{"phase": phase, "conditions": []map[string]string{
		{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}, {"type": "ContainersReady", "status": "True"},
	}}
	if phase == corev1.PodRunning {
		status["containerStatuses"] = []map[string]any{{
			"name": "main", "image": "none", "imageID": "", "ready": true, "restartCount": 0,
			"state": map[string]any{"running": map[string]any{"startedAt": "2026-11-21T09:00:00Z"}},
		}}
	}
	patch := must(json.Marshal(map[string]any{"status": status}))
	_, err := w.admin.CoreV1().Pods("default").Patch(t.Context(), name, types.StrategicMergePatchType, patch,
		metav1.PatchOptions{FieldManager: "kubelet"}, "status")
	if err != nil {
		t.Fatal(err)
	}
}

// patchNode patches a node as our client, again when somebody else (the node lifecycle controller) was faster.
func (w *kubeWorld) patchNode(t *testing.T, name string, p cleanup.NodePatch) cleanup.Node {
	t.Helper()
	for range 20 {
		n, err := w.cluster.PatchNode(t.Context(), w.readNode(t, name), p)
		if errors.Is(err, cleanup.ErrConflict) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	t.Fatalf("node %s changes all the time", name)
	return cleanup.Node{}
}

func (w *kubeWorld) deleteNode(ctx context.Context, n cleanup.Node) error {
	err := w.cluster.DeleteNode(ctx, n)
	for range 20 {
		if !errors.Is(err, cleanup.ErrConflict) {
			break
		}
		if n, err = w.cluster.Node(ctx, n.Name); err == nil {
			err = w.cluster.DeleteNode(ctx, n)
		}
	}
	return err
}

func (w *kubeWorld) readNode(t *testing.T, name string) cleanup.Node {
	t.Helper()
	n, err := w.cluster.Node(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (w *kubeWorld) readPod(t *testing.T, name string) cleanup.Pod {
	t.Helper()
	p, err := w.cluster.Pod(t.Context(), "default", name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (w *kubeWorld) getNode(t *testing.T, name string) *corev1.Node {
	t.Helper()
	n, err := w.admin.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (w *kubeWorld) getPod(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	p, err := w.admin.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ownTaints are a node's taints without those that node lifecycle puts up and takes down as it likes.
func (w *kubeWorld) ownTaints(t *testing.T, name string) []string {
	t.Helper()
	var out []string
	for _, taint := range w.getNode(t, name).Spec.Taints {
		if taint.Key != corev1.TaintNodeNotReady && taint.Key != corev1.TaintNodeUnreachable {
			out = append(out, fmt.Sprintf("%s=%s:%s", taint.Key, taint.Value, taint.Effect))
		}
	}
	return out
}

func (w *kubeWorld) isMarked(ctx context.Context, name string, want bool) error {
	nodes, err := w.cluster.MarkedNodes(ctx)
	if err != nil {
		return err
	}
	got := false
	for _, n := range nodes {
		got = got || n.Name == name
	}
	if got != want {
		return fmt.Errorf("marked: %v, want %v", got, want)
	}
	return nil
}

func (w *kubeWorld) mustDeleteNode(t *testing.T, name string) {
	t.Helper()
	if err := w.admin.CoreV1().Nodes().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (w *kubeWorld) generation(t *testing.T, record string) int {
	t.Helper()
	var g int
	if _, err := fmt.Sscan(w.kubectl(t, "get", "kp", record, "-o", "jsonpath={.metadata.generation}"), &g); err != nil {
		t.Fatal(err)
	}
	return g
}

func (w *kubeWorld) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := w.lab.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// eventually asks until the answer is nil, a minute at most: things in a cluster follow each other, and how fast is
// not what these tests are about.
func eventually(t *testing.T, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("wait for %s: %v", what, err)
		}
		<-tick.C
	}
}

// wantErr turns a look-up's answer into an error unless it is want.
func wantErr(want error) func(cleanup.Node, error) error {
	return func(n cleanup.Node, err error) error {
		if !errors.Is(err, want) {
			return fmt.Errorf("node %q, error %v; want %v", n.Name, err, want)
		}
		return nil
	}
}

func ptr[T any](v T) *T { return &v }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
