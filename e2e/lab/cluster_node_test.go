package lab

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestReady(t *testing.T) {
	const here, before = "9c0f1d6e-0000-4000-8000-000000000002", "9c0f1d6e-0000-4000-8000-000000000001"
	yes := []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	for _, test := range []struct {
		name       string
		boot       string
		conditions []corev1.NodeCondition
		taints     []corev1.Taint
		want       bool
	}{
		{name: "just registered", boot: here},
		{name: "ready", boot: here, conditions: yes, want: true},
		{name: "ready on any boot", conditions: yes, want: true},
		{name: "ready on the boot before", boot: before, conditions: yes},
		{name: "not ready", boot: here, conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionUnknown}}},
		{name: "ready but not yet so for the controllers", boot: here, conditions: yes,
			taints: []corev1.Taint{{Key: corev1.TaintNodeNotReady}}},
		{name: "ready and tainted by others", boot: here, conditions: yes, want: true,
			taints: []corev1.Taint{{Key: "lastgasp.dev/dead"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			node := &corev1.Node{}
			node.Spec.Taints = test.taints
			node.Status.Conditions = test.conditions
			node.Status.NodeInfo.BootID = here
			if got := ready(node, test.boot); got != test.want {
				t.Errorf("ready: %t, want %t", got, test.want)
			}
		})
	}
}
