package kube

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// TestGuards expects every policy that binds everybody, and not the listener alone, to be unbound before Nodes are cleaned.
func TestGuards(t *testing.T) {
	files, err := filepath.Glob("../../packaging/kubernetes/base/policies/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var everybody []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(text), "\n---\n")
		var policy struct {
			Kind     string
			Metadata struct{ Name string }
			Spec     struct {
				MatchConstraints struct {
					ResourceRules []struct{ Resources []string }
				}
				MatchConditions []struct{ Expression string }
			}
		}
		if err := yaml.Unmarshal([]byte(first), &policy); err != nil {
			t.Fatal(err)
		}
		rules := policy.Spec.MatchConstraints.ResourceRules
		if policy.Kind != "ValidatingAdmissionPolicy" || len(rules) == 0 || !slices.Contains(rules[0].Resources, "nodes") {
			continue
		}
		listener := false
		for _, c := range policy.Spec.MatchConditions {
			listener = listener || strings.Contains(c.Expression, "username") || strings.Contains(c.Expression, "userInfo")
		}
		if !listener {
			everybody = append(everybody, policy.Metadata.Name)
		}
	}
	got := guards()
	slices.Sort(got)
	slices.Sort(everybody)
	if diff := cmp.Diff(everybody, got); diff != "" {
		t.Errorf("unbound before uninstalling (-want +got)\n%s", diff)
	}
}

func TestCleanNode(t *testing.T) {
	fence := corev1.Taint{Key: taintFence, Effect: corev1.TaintEffectNoSchedule}
	ours := corev1.Taint{Key: corev1.TaintNodeOutOfService, Value: outOfServiceValue, Effect: corev1.TaintEffectNoSchedule}
	theirs := corev1.Taint{Key: "dedicated", Value: "gpu", Effect: corev1.TaintEffectNoExecute}
	for _, tt := range []struct {
		name        string
		annotations map[string]string
		taints      []corev1.Taint
		want        string
		removed     []string
	}{
		{name: "nothing of ours", annotations: map[string]string{"example.com/a": "b"}, taints: []corev1.Taint{theirs}},
		{
			name: "a living node", annotations: map[string]string{annotationPin: "b:s", "example.com/a": "b"}, taints: []corev1.Taint{theirs},
			want:    `{"metadata":{"annotations":{"lastgasp.dev/pin":null},"resourceVersion":"7","uid":"u"}}`,
			removed: []string{annotationPin},
		},
		{
			name:        "a dead node",
			annotations: map[string]string{annotationDeath: "d", annotationBoot: "b", annotationReason: "r", annotationOutOfService: "true"},
			taints:      []corev1.Taint{fence, theirs, ours},
			want: `{"metadata":{"annotations":{"lastgasp.dev/boot":null,"lastgasp.dev/death":null,"lastgasp.dev/out-of-service":null,"lastgasp.dev/reason":null},` +
				`"resourceVersion":"7","uid":"u"},"spec":{"taints":[{"effect":"NoExecute","key":"dedicated","value":"gpu"}]}}`,
			removed: []string{"the fence", "the out-of-service taint", annotationBoot, annotationDeath, annotationOutOfService, annotationReason},
		},
		{
			name: "somebody else's out-of-service taint stays", annotations: map[string]string{annotationDeath: "d"}, taints: []corev1.Taint{fence, ours},
			want: `{"metadata":{"annotations":{"lastgasp.dev/death":null},"resourceVersion":"7","uid":"u"},` +
				`"spec":{"taints":[{"effect":"NoSchedule","key":"node.kubernetes.io/out-of-service","value":"node-death"}]}}`,
			removed: []string{"the fence", annotationDeath},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			patch, removed := cleanNode(&corev1.Node{
				ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "u", ResourceVersion: "7", Annotations: tt.annotations},
				Spec:       corev1.NodeSpec{Taints: tt.taints},
			})
			if diff := cmp.Diff(tt.removed, removed); diff != "" {
				t.Errorf("removed (-want +got)\n%s", diff)
			}
			if (patch == nil) != (tt.want == "") {
				t.Fatalf("patch %s, want %s", patch, tt.want)
			}
			if patch == nil {
				return
			}
			var got, want any
			if err := json.Unmarshal(patch, &got); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(tt.want), &want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
