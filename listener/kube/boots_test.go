package kube

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

func TestEndedBoots(t *testing.T) {
	node := func(uid, boot, pin, claim string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: types.UID(uid), Annotations: map[string]string{}}}
		n.Status.NodeInfo.BootID = boot
		if pin != "" {
			n.Annotations[annotationPin] = pin + ":sum"
		}
		if claim != "" {
			n.Annotations[annotationClaim] = claim + ":sum"
		}
		return n
	}
	for _, tt := range []struct {
		name  string
		event func(h cache.ResourceEventHandler)
		want  []string // boots
	}{
		{"a Node on the boot that it pinned", func(h cache.ResourceEventHandler) { h.OnAdd(node("u", "a", "a", ""), true) }, nil},
		{"a Node that pinned nothing", func(h cache.ResourceEventHandler) { h.OnAdd(node("u", "a", "", ""), true) }, nil},
		{"a Node whose pin is of the boot before", func(h cache.ResourceEventHandler) { h.OnAdd(node("u", "b", "a", ""), true) }, []string{"a"}},
		{"a Node whose claim is of the boot before", func(h cache.ResourceEventHandler) { h.OnAdd(node("u", "b", "", "a"), true) }, []string{"a"}},
		{"a Node that pinned its boot, and whose claim is of some boot before", func(h cache.ResourceEventHandler) { h.OnAdd(node("u", "b", "b", "a"), true) }, nil},
		{"a Node whose boot is claimed, and whose pin is of some boot before", func(h cache.ResourceEventHandler) { h.OnAdd(node("u", "b", "a", "b"), true) }, nil},
		{"a Node whose pin and claim are of different boots before", func(h cache.ResourceEventHandler) { h.OnAdd(node("u", "c", "b", "a"), true) }, []string{"b"}},
		{"a Node that said farewell of the boot before, long ago", func(h cache.ResourceEventHandler) {
			n := node("u", "b", "a", "")
			n.Annotations[annotationFarewell] = "a: rebooted at 2026-01-01T00:00:00Z, says the node"
			h.OnAdd(n, true)
		}, nil},
		{"a Node that was only soft-rebooted before", func(h cache.ResourceEventHandler) {
			n := node("u", "b", "a", "")
			n.Annotations[annotationFarewell] = "a: soft-rebooted at 2026-01-01T00:00:00Z, says the node"
			h.OnAdd(n, true)
		}, []string{"a"}},
		{"a new boot", func(h cache.ResourceEventHandler) { h.OnUpdate(node("u", "a", "a", ""), node("u", "b", "a", "")) }, []string{"a"}},
		{"a new boot that pins at once", func(h cache.ResourceEventHandler) { h.OnUpdate(node("u", "a", "a", ""), node("u", "b", "b", "")) }, []string{"a"}},
		{"a new boot of a Node that never had lastgasp", func(h cache.ResourceEventHandler) { h.OnUpdate(node("u", "a", "", ""), node("u", "b", "b", "")) }, nil},
		{"a new pin of the same boot", func(h cache.ResourceEventHandler) { h.OnUpdate(node("u", "a", "", ""), node("u", "a", "a", "")) }, nil},
		{"another Node of that name", func(h cache.ResourceEventHandler) { h.OnUpdate(node("u", "a", "a", ""), node("v", "a", "", "")) }, []string{"a"}},
		{"a deletion", func(h cache.ResourceEventHandler) { h.OnDelete(node("u", "a", "a", "")) }, []string{"a"}},
		{"a deletion that the watch missed", func(h cache.ResourceEventHandler) {
			h.OnDelete(cache.DeletedFinalStateUnknown{Obj: node("u", "a", "a", "")})
		}, []string{"a"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b boots
			tt.event(nodeEvents(&b, new(departed)))
			var got []string
			for _, n := range b.take() {
				got = append(got, n.BootID)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("boots (-want +got):\n%s", diff)
			}
			if left := b.take(); len(left) > 0 {
				t.Errorf("%d are left", len(left))
			}
		})
	}
	var b boots
	h := nodeEvents(&b, new(departed))
	for range endedBoots + 10 {
		h.OnDelete(node("u", "a", "a", ""))
	}
	if n := len(b.take()); n != endedBoots {
		t.Errorf("%d wait, want at most %d", n, endedBoots)
	}
}

func TestIsQuarantined(t *testing.T) {
	for name, tt := range map[string]struct {
		spec corev1.NodeSpec
		want bool
	}{
		"a Node":                       {corev1.NodeSpec{}, false},
		"cordoned":                     {corev1.NodeSpec{Unschedulable: true}, true},
		"tainted by people":            {specWith("example.com/quarantine"), true},
		"a taint without a domain":     {specWith("dedicated"), true},
		"beside our fence":             {specWith(taintFence, "dedicated"), true},
		"our fence":                    {specWith(taintFence), false},
		"a dead node":                  {specWith(corev1.TaintNodeUnreachable, corev1.TaintNodeNotReady), false},
		"out of service":               {specWith(corev1.TaintNodeOutOfService), false},
		"not initialized by the cloud": {specWith("node.cloudprovider.kubernetes.io/uninitialized"), false},
		"the autoscaler's":             {specWith("ToBeDeletedByClusterAutoscaler", "DeletionCandidateOfClusterAutoscaler"), false},
		"Karpenter's":                  {specWith("karpenter.sh/disrupted", "karpenter.sh/unregistered"), false},
		"the control plane's own":      {specWith("node-role.kubernetes.io/control-plane"), true},
	} {
		trimmed, err := trim(&corev1.Node{Spec: tt.spec})
		if err != nil {
			t.Fatal(err)
		}
		if got := nodeFrom(trimmed.(*corev1.Node)).Quarantined; got != tt.want {
			t.Errorf("%s: %t, want %t", name, got, tt.want)
		}
	}
}

func specWith(keys ...string) (spec corev1.NodeSpec) {
	for _, key := range keys {
		spec.Taints = append(spec.Taints, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule})
	}
	return spec
}

func TestIsLeaving(t *testing.T) {
	taint := func(key string) *corev1.Node {
		return &corev1.Node{Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: key}}}}
	}
	ready := func(message string) *corev1.Node {
		return &corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Message: message}}}}
	}
	for name, tt := range map[string]struct {
		node *corev1.Node
		want bool
	}{
		"a Node":                  {&corev1.Node{}, false},
		"our fence":               {taint(taintFence), false},
		"unreachable":             {taint(corev1.TaintNodeUnreachable), false},
		"cordoned":                {&corev1.Node{Spec: corev1.NodeSpec{Unschedulable: true}}, false},
		"deleted":                 {&corev1.Node{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &metav1.Time{}}}, true},
		"the autoscaler's":        {taint("ToBeDeletedByClusterAutoscaler"), true},
		"Karpenter's":             {taint("karpenter.sh/disrupted"), true},
		"the termination handler": {taint("aws-node-termination-handler/spot-itn"), true},
		"shutting down":           {ready("[container runtime is down, node is shutting down]"), true},
		"not ready":               {ready("container runtime is down"), false},
	} {
		trimmed, err := trim(tt.node)
		if err != nil {
			t.Fatal(err)
		}
		if got := nodeFrom(trimmed.(*corev1.Node)).Leaving; got != tt.want {
			t.Errorf("%s: %t, want %t", name, got, tt.want)
		}
	}
}
