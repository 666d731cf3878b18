package kube

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// Names of ours on Nodes and pods.
const (
	prefix = "lastgasp.dev/"

	// taintFence keeps the scheduler from putting anything on a dead node.
	taintFence = prefix + "dead"

	annotationPin    = prefix + "pin"    // Node: <boot id>:<sha-256 of the secret>, written by the node itself
	annotationClaim  = prefix + "claim"  // Node: the same, written by us on the word of a canary
	annotationBoot   = prefix + "boot"   // Node: boot id that died
	annotationReason = prefix + "reason" // Node: the incident's title
	// annotationFarewell is on Nodes what policy.Farewell.Annotation makes of a farewell, and on pods its String.
	annotationFarewell = prefix + "farewell"
	// annotationDeath names the NodeDeath on Nodes and pods. It is the mark: nothing without it is ever deleted
	// (packaging/kubernetes/base/policies), and its key is not configurable.
	annotationDeath = prefix + "death"
	// annotationOutOfService says that the out-of-service taint on the Node is ours to remove.
	annotationOutOfService = prefix + "out-of-service"

	// outOfServiceValue distinguishes our out-of-service taint from those that people set by hand.
	outOfServiceValue = "node-death"

	// annotationSize bounds, in bytes, what a kernel wrote when it becomes an annotation.
	annotationSize = 1024
)

// nodePatch is the strategic merge patch that turns n into n with p. It always says UID and resourceVersion, and all
// taints or none: spec.taints is an atomic list, whatever is left out of it is removed
// (k8s.io/api/core/v1/types.go: NodeSpec.Taints, +listType=atomic).
func nodePatch(n *corev1.Node, p cleanup.NodePatch) any {
	type metadata struct {
		UID             types.UID          `json:"uid"`
		ResourceVersion string             `json:"resourceVersion"`
		Annotations     map[string]*string `json:"annotations,omitempty"` // nil removes
	}
	type spec struct {
		Taints []corev1.Taint `json:"taints"`
	}
	patch := struct {
		Metadata metadata `json:"metadata"`
		Spec     *spec    `json:"spec,omitempty"`
	}{Metadata: metadata{UID: n.UID, ResourceVersion: n.ResourceVersion, Annotations: map[string]*string{}}}

	if p.Fence != nil || p.OutOfService != nil {
		patch.Spec = &spec{Taints: taints(n.Spec.Taints, p.Fence, p.OutOfService)}
	}
	if p.Mark != nil {
		outOfService := ""
		if p.Mark.OutOfService {
			outOfService = strconv.FormatBool(true)
		}
		patch.Metadata.Annotations[annotationDeath] = orNil(p.Mark.Death)
		patch.Metadata.Annotations[annotationBoot] = orNil(p.Mark.Boot)
		patch.Metadata.Annotations[annotationReason] = orNil(p.Mark.Reason)
		patch.Metadata.Annotations[annotationOutOfService] = orNil(outOfService)
	}
	if p.Claim != nil {
		patch.Metadata.Annotations[annotationClaim] = orNil(pinValue(*p.Claim))
	}
	if p.Farewell != nil {
		patch.Metadata.Annotations[annotationFarewell] = orNil(p.Farewell.Annotation())
	}
	return patch
}

// mustJSON encodes a patch. It consists of strings, numbers and times, and so can be encoded.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// taints is the complete list after putting (true), removing (false) or leaving alone (nil) each of ours.
func taints(have []corev1.Taint, fence, outOfService *bool) []corev1.Taint {
	out := slices.Clone(have)
	if fence != nil {
		out = slices.DeleteFunc(out, isFence)
		if *fence {
			out = append(out, corev1.Taint{Key: taintFence, Effect: corev1.TaintEffectNoSchedule})
		}
	}
	if outOfService != nil {
		// NoSchedule detaches volumes at once like NoExecute does, but does not evict the Failed pods that are kept for
		// people to read. Somebody else's taint of this key does as well and stays theirs.
		ours := corev1.Taint{Key: corev1.TaintNodeOutOfService, Value: outOfServiceValue, Effect: corev1.TaintEffectNoSchedule}
		switch {
		case !*outOfService:
			out = slices.DeleteFunc(out, func(t corev1.Taint) bool { return t.MatchTaint(&ours) && t.Value == ours.Value })
		case !slices.ContainsFunc(out, func(t corev1.Taint) bool { return t.Key == ours.Key }):
			out = append(out, ours)
		}
	}
	if out == nil {
		out = []corev1.Taint{} // null would mean "leave alone"
	}
	return out
}

// isFence recognizes our fence. A taint of its key with a value or another effect is not ours, and the policy denies that we
// touch it.
func isFence(t corev1.Taint) bool {
	return t.Key == taintFence && t.Value == "" && t.Effect == corev1.TaintEffectNoSchedule
}

func markFrom(annotations map[string]string) policy.Mark {
	return policy.Mark{
		Death:        annotations[annotationDeath],
		Boot:         annotations[annotationBoot],
		Reason:       annotations[annotationReason],
		OutOfService: annotations[annotationOutOfService] != "",
	}
}

func pinValue(p policy.Pin) string {
	if p == (policy.Pin{}) {
		return ""
	}
	return p.Boot + ":" + p.Sum
}

// pinFrom reads a pin or a claim, zero if value is neither.
func pinFrom(value string) policy.Pin {
	boot, sum, ok := strings.Cut(value, ":")
	if !ok || boot == "" || sum == "" {
		return policy.Pin{}
	}
	return policy.Pin{Boot: boot, Sum: sum}
}

// orNil makes an annotation of s; nothing removes the annotation.
func orNil(s string) *string {
	if s == "" {
		return nil
	}
	s = printable(s, annotationSize)
	return &s
}
