package karpenter

import (
	"context"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	fakeclient "sigs.k8s.io/controller-runtime/pkg/client/fake"

	v1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/cloudprovider/fake"
	"sigs.k8s.io/karpenter/pkg/controllers/node/health"
	"sigs.k8s.io/karpenter/pkg/controllers/node/termination"
	"sigs.k8s.io/karpenter/pkg/controllers/node/termination/terminator"
	"sigs.k8s.io/karpenter/pkg/operator/options"
	"sigs.k8s.io/karpenter/pkg/test"
)

// world is a cluster in memory with one Node of Karpenter's, and a cloud that has its machine.
type world struct {
	client.Client
	ctx   context.Context
	clock *clocktesting.FakeClock
	cloud *fake.CloudProvider
	node  *corev1.Node
	claim *v1.NodeClaim
}

func newWorld(t *testing.T, change func(*corev1.Node)) *world {
	t.Helper()
	w := &world{ctx: options.ToContext(t.Context(), test.Options()), clock: clocktesting.NewFakeClock(time.Now()), cloud: fake.NewCloudProvider()}
	w.claim, w.node = test.NodeClaimAndNode(v1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Finalizers: []string{v1.TerminationFinalizer}}})
	w.node.Finalizers = []string{v1.TerminationFinalizer}
	change(w.node)
	w.cloud.CreatedNodeClaims[w.node.Spec.ProviderID] = w.claim
	pool := test.NodePool()
	w.node.Labels[v1.NodePoolLabelKey], w.claim.Labels[v1.NodePoolLabelKey] = pool.Name, pool.Name
	b := fakeclient.NewClientBuilder().WithScheme(clientgoscheme.Scheme).WithStatusSubresource(&v1.NodeClaim{}, &corev1.Node{})
	b.WithIndex(&v1.NodeClaim{}, "status.providerID", func(o client.Object) []string { return []string{o.(*v1.NodeClaim).Status.ProviderID} })
	b.WithIndex(&corev1.Node{}, "spec.providerID", func(o client.Object) []string { return []string{o.(*corev1.Node).Spec.ProviderID} })
	b.WithIndex(&corev1.Pod{}, "spec.nodeName", func(o client.Object) []string { return []string{o.(*corev1.Pod).Spec.NodeName} })
	b.WithIndex(&storagev1.VolumeAttachment{}, "spec.nodeName", func(o client.Object) []string {
		return []string{o.(*storagev1.VolumeAttachment).Spec.NodeName}
	})
	w.Client = b.WithObjects(pool, w.claim, w.node).Build()
	return w
}

// fenced is a Node as the listener leaves it before it deletes it.
func fenced(n *corev1.Node) {
	n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "lastgasp.dev/dead", Effect: corev1.TaintEffectNoSchedule})
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
}

// TestDelete deletes the Node, as `node: delete` does: Karpenter deletes the NodeClaim, keeps our fence, terminates the machine
// and only then lets the Node go.
func TestDelete(t *testing.T) {
	w := newWorld(t, fenced)
	recorder := test.NewEventRecorder()
	c := termination.NewController(w.clock, w.Client, w.cloud,
		terminator.NewTerminator(w.clock, w.Client, terminator.NewQueue(w.Client, recorder), recorder), recorder)
	if err := w.Delete(w.ctx, w.node); err != nil {
		t.Fatal(err)
	}
	sawFence := false
	for range 50 {
		n := &corev1.Node{}
		if err := w.Get(w.ctx, client.ObjectKeyFromObject(w.node), n); apierrors.IsNotFound(err) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Reconcile(w.ctx, n); err != nil {
			t.Fatal(err)
		}
		sawFence = sawFence || slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == "lastgasp.dev/dead" }) &&
			slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == v1.DisruptedTaintKey })
		w.clock.Step(2 * time.Second)
	}
	if err := w.Get(w.ctx, client.ObjectKeyFromObject(w.node), &corev1.Node{}); !apierrors.IsNotFound(err) {
		t.Errorf("the Node: %v, want it gone", err)
	}
	claim := &v1.NodeClaim{}
	if err := w.Get(w.ctx, client.ObjectKeyFromObject(w.claim), claim); err == nil && claim.DeletionTimestamp.IsZero() {
		t.Error("the NodeClaim is not deleted")
	}
	if len(w.cloud.DeleteCalls) == 0 {
		t.Error("the machine is not terminated")
	}
	if !sawFence {
		t.Error("our fence did not stay beside Karpenter's taint")
	}
}

// TestCondition lets time pass over our condition, under the name that Karpenter on AWS repairs and under our own.
func TestCondition(t *testing.T) {
	for _, tt := range []struct {
		condition corev1.NodeConditionType
		after     time.Duration
		want      bool // the NodeClaim is deleted
	}{
		{"KernelReady", 29 * time.Minute, false},
		{"KernelReady", 31 * time.Minute, true},
		{"lastgasp.dev/KernelHealthy", 24 * time.Hour, false},
	} {
		t.Run(string(tt.condition)+" after "+tt.after.String(), func(t *testing.T) {
			var at metav1.Time
			w := newWorld(t, func(n *corev1.Node) {
				at = metav1.NewTime(time.Now())
				n.Status.Conditions = []corev1.NodeCondition{
					{Type: corev1.NodeReady, Status: corev1.ConditionTrue},
					{Type: tt.condition, Status: corev1.ConditionFalse, Reason: "NetdevRefcountLeak", LastTransitionTime: at},
				}
			})
			// As karpenter-provider-aws has it (pkg/cloudprovider/cloudprovider.go).
			w.cloud.RepairPolicy = []cloudprovider.RepairPolicy{
				{ConditionType: "KernelReady", ConditionStatus: corev1.ConditionFalse, TolerationDuration: 30 * time.Minute},
			}
			w.clock.SetTime(at.Add(tt.after))
			c := health.NewController(w.Client, w.cloud, w.clock, test.NewEventRecorder())
			if _, err := c.Reconcile(w.ctx, w.node); err != nil {
				t.Fatal(err)
			}
			claim := &v1.NodeClaim{}
			err := w.Get(w.ctx, client.ObjectKeyFromObject(w.claim), claim)
			if got := apierrors.IsNotFound(err) || err == nil && !claim.DeletionTimestamp.IsZero(); got != tt.want {
				t.Errorf("the NodeClaim is deleted: %v, want %v (%v)", got, tt.want, err)
			}
		})
	}
}
