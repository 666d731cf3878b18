package kube

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/policy"
)

func TestNodePatch(t *testing.T) {
	yes, no := true, false
	dedicated := corev1.Taint{Key: "dedicated", Value: "db", Effect: corev1.TaintEffectNoSchedule}
	fence := corev1.Taint{Key: taintFence, Effect: corev1.TaintEffectNoSchedule}
	ours := corev1.Taint{Key: corev1.TaintNodeOutOfService, Value: outOfServiceValue, Effect: corev1.TaintEffectNoSchedule}
	evicting := corev1.Taint{Key: taintFence, Effect: corev1.TaintEffectNoExecute}
	theirs := corev1.Taint{Key: corev1.TaintNodeOutOfService, Value: "nodeshutdown", Effect: corev1.TaintEffectNoExecute}
	mark := policy.Mark{Death: "r", Boot: "b", Reason: "x", OutOfService: true}
	farewell := policy.Farewell{Boot: "b", Text: "rebooted by alice", At: time.Date(2026, 11, 26, 18, 50, 0, 0, time.UTC)}
	const head = `{"metadata":{"uid":"a83d2f7a-e972-4087-a809-b102a6207619","resourceVersion":"341"`
	for _, tt := range []struct {
		name       string
		have       []corev1.Taint
		marked     bool
		patch      cleanup.NodePatch
		want       string // the patch, once as it goes over the wire
		wantTaints []corev1.Taint
		wantMark   policy.Mark
	}{
		{name: "nothing", have: []corev1.Taint{dedicated}, want: head + `}}`, wantTaints: []corev1.Taint{dedicated}},
		{name: "fence with mark", have: []corev1.Taint{dedicated},
			patch: cleanup.NodePatch{Fence: &yes, Mark: &mark},
			want: head + `,"annotations":{"lastgasp.dev/boot":"b","lastgasp.dev/death":"r","lastgasp.dev/out-of-service":"true","lastgasp.dev/reason":"x"}},` +
				`"spec":{"taints":[{"key":"dedicated","value":"db","effect":"NoSchedule"},{"key":"lastgasp.dev/dead","effect":"NoSchedule"}]}}`,
			wantTaints: []corev1.Taint{dedicated, fence}, wantMark: mark},
		{name: "fence that is there", have: []corev1.Taint{fence, dedicated}, patch: cleanup.NodePatch{Fence: &yes},
			wantTaints: []corev1.Taint{dedicated, fence}},
		{name: "fence off a node with no other taint", have: []corev1.Taint{fence}, marked: true,
			patch:      cleanup.NodePatch{Fence: &no, Mark: &policy.Mark{}},
			want:       head + `,"annotations":{"lastgasp.dev/boot":null,"lastgasp.dev/death":null,"lastgasp.dev/out-of-service":null,"lastgasp.dev/reason":null}},"spec":{"taints":[]}}`,
			wantTaints: []corev1.Taint{}},
		{name: "a fence of another effect is somebody else's", have: []corev1.Taint{evicting}, patch: cleanup.NodePatch{Fence: &no},
			wantTaints: []corev1.Taint{evicting}},
		{name: "out of service", have: []corev1.Taint{fence}, patch: cleanup.NodePatch{OutOfService: &yes}, wantTaints: []corev1.Taint{fence, ours}},
		{name: "out of service by hand already", have: []corev1.Taint{theirs}, patch: cleanup.NodePatch{OutOfService: &yes}, wantTaints: []corev1.Taint{theirs}},
		{name: "back in service", have: []corev1.Taint{dedicated, ours}, patch: cleanup.NodePatch{OutOfService: &no}, wantTaints: []corev1.Taint{dedicated}},
		{name: "back in service, out of it by hand", have: []corev1.Taint{theirs}, patch: cleanup.NodePatch{OutOfService: &no}, wantTaints: []corev1.Taint{theirs}},
		{name: "a claim leaves mark and taints alone", have: []corev1.Taint{fence}, marked: true,
			patch:      cleanup.NodePatch{Claim: &policy.Pin{Boot: "b", Sum: "s"}},
			want:       head + `,"annotations":{"lastgasp.dev/claim":"b:s"}}}`,
			wantTaints: []corev1.Taint{fence}, wantMark: mark},
		{name: "a farewell leaves mark and taints alone", have: []corev1.Taint{fence}, marked: true,
			patch:      cleanup.NodePatch{Farewell: &farewell},
			want:       head + `,"annotations":{"lastgasp.dev/farewell":"b: rebooted by alice at 2026-11-26T18:50:00Z, says the node"}}}`,
			wantTaints: []corev1.Taint{fence}, wantMark: mark},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := load(t, "node-kubelet-1.36.json")
			n.Spec.Taints = tt.have
			if tt.marked {
				n.Annotations[annotationDeath], n.Annotations[annotationBoot], n.Annotations[annotationReason] = "r", "b", "x"
				n.Annotations[annotationOutOfService] = "true"
			}
			patch := mustJSON(nodePatch(n, tt.patch))
			if tt.want != "" {
				if diff := cmp.Diff(tt.want, string(patch)); diff != "" {
					t.Errorf("patch (-want +got):\n%s", diff)
				}
			}
			// What the API server does with it.
			before, err := json.Marshal(n)
			if err != nil {
				t.Fatal(err)
			}
			merged, err := strategicpatch.StrategicMergePatch(before, patch, corev1.Node{})
			if err != nil {
				t.Fatal(err)
			}
			after := &corev1.Node{}
			if err := json.Unmarshal(merged, after); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.wantTaints, after.Spec.Taints); diff != "" {
				t.Errorf("taints (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.wantMark, markFrom(after.Annotations)); diff != "" {
				t.Errorf("mark (-want +got):\n%s", diff)
			}
			if tt.patch.Claim != nil && pinFrom(after.Annotations[annotationClaim]) != *tt.patch.Claim {
				t.Errorf("claim %q, want %+v", after.Annotations[annotationClaim], *tt.patch.Claim)
			}
			if tt.patch.Farewell != nil && nodeFrom(after).Farewell != *tt.patch.Farewell {
				t.Errorf("farewell %+v, want %+v", nodeFrom(after).Farewell, *tt.patch.Farewell)
			}
			if after.Annotations["node.alpha.kubernetes.io/ttl"] != "0" || !cmp.Equal(n.Labels, after.Labels) {
				t.Error("foreign annotations or labels changed")
			}
		})
	}
}
