package kube

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestPoliciesFreezeEveryField expects the admission policies to compare each field that a stolen token could write. A field
// that Kubernetes adds is nobody's until it is listed here or compared there.
func TestPoliciesFreezeEveryField(t *testing.T) {
	for _, tt := range []struct {
		policy, path string
		of           reflect.Type
		ours         []string // what the listener writes; other expressions say how
	}{
		{"pods", "status", reflect.TypeFor[corev1.PodStatus](), []string{"phase", "conditions"}},
		{"nodes", "status", reflect.TypeFor[corev1.NodeStatus](), []string{"conditions"}},
		{"nodes", "spec", reflect.TypeFor[corev1.NodeSpec](), []string{"taints"}},
	} {
		t.Run(tt.policy+" "+tt.path, func(t *testing.T) {
			validations := validationsOf(t, "../../packaging/kubernetes/base/policies/"+tt.policy+".yaml")
			for field := range tt.of.Fields() {
				name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
				if slices.Contains(tt.ours, name) {
					continue
				}
				at := tt.path + ".?" + name
				plain := "object." + at + " == oldObject." + at
				dynamic := "dyn(object)." + at + " == dyn(oldObject)." + at
				if !strings.Contains(validations, plain) && !strings.Contains(validations, dynamic) {
					t.Errorf("the listener may write %s.%s", tt.path, name)
				}
			}
		})
	}
}

// validationsOf returns the expressions of the policy in a file.
func validationsOf(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n---\n")
	var policy struct {
		Spec struct {
			Validations []struct{ Expression string }
		}
	}
	if err := yaml.Unmarshal([]byte(first), &policy); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, v := range policy.Spec.Validations {
		all = append(all, v.Expression)
	}
	if len(all) == 0 {
		t.Fatalf("%s has no validations", file)
	}
	return strings.Join(all, "\n")
}
