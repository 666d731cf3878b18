package kube

import (
	"os"
	"reflect"
	"regexp"
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
		policy, will, was string
		of                reflect.Type
		ours              []string // what the listener writes; other expressions say how
	}{
		{"pods", "object.status", "oldObject.status", reflect.TypeFor[corev1.PodStatus](),
			[]string{"phase", "conditions", "containerStatuses", "initContainerStatuses"}},
		{"pods", "n", "o", reflect.TypeFor[corev1.ContainerStatus](), []string{"name", "ready", "started"}},
		{"nodes", "object.status", "oldObject.status", reflect.TypeFor[corev1.NodeStatus](), []string{"conditions"}},
		{"nodes", "object.spec", "oldObject.spec", reflect.TypeFor[corev1.NodeSpec](), []string{"taints"}},
	} {
		t.Run(tt.policy+" "+tt.of.Name(), func(t *testing.T) {
			validations := validationsOf(t, "../../packaging/kubernetes/base/policies/"+tt.policy+".yaml")
			for field := range tt.of.Fields() {
				name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
				if slices.Contains(tt.ours, name) {
					continue
				}
				plain := tt.will + ".?" + name + " == " + tt.was + ".?" + name
				if !strings.Contains(validations, plain) && !strings.Contains(validations, dynamic(plain)) {
					t.Errorf("the listener may write %s.%s", tt.will, name)
				}
			}
		})
	}
}

// dynamic is the comparison as it is written for fields that not every supported version of Kubernetes has.
func dynamic(comparison string) string {
	return regexp.MustCompile(`\b(object|oldObject|n|o)\.`).ReplaceAllString(comparison, "dyn($1).")
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
