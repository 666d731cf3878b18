package v1alpha1

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// crdSchema is as much of a CustomResourceDefinition as is compared with the Go types.
type crdSchema struct {
	Type       string               `json:"type"`
	Properties map[string]crdSchema `json:"properties"`
	Items      *crdSchema           `json:"items"`
	Required   []string             `json:"required"`
}

type definition struct {
	Spec struct {
		Group string `json:"group"`
		Names struct {
			Kind   string `json:"kind"`
			Plural string `json:"plural"`
		} `json:"names"`
		Versions []struct {
			Name   string `json:"name"`
			Schema struct {
				OpenAPIV3Schema crdSchema `json:"openAPIV3Schema"`
			} `json:"schema"`
		} `json:"versions"`
	} `json:"spec"`
}

func TestCRDSaysWhatTheTypesSay(t *testing.T) {
	text, err := os.ReadFile("../../../packaging/kubernetes/base/crd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var crd definition
	if err := yaml.Unmarshal(text, &crd); err != nil {
		t.Fatal(err)
	}
	if crd.Spec.Group != Group || crd.Spec.Names.Plural != Resource || len(crd.Spec.Versions) != 1 || crd.Spec.Versions[0].Name != Version {
		t.Fatalf("definition of %s.%s, versions %v", crd.Spec.Names.Plural, crd.Spec.Group, crd.Spec.Versions)
	}
	if kind := reflect.TypeFor[NodeDeath]().Name(); crd.Spec.Names.Kind != kind {
		t.Errorf("kind %s, want %s", crd.Spec.Names.Kind, kind)
	}
	root := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	compare(t, "spec", reflect.TypeFor[NodeDeathSpec](), root.Properties["spec"])
	compare(t, "status", reflect.TypeFor[NodeDeathStatus](), root.Properties["status"])
}

func compare(t *testing.T, path string, typ reflect.Type, s crdSchema) {
	t.Helper()
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	switch {
	case typ == reflect.TypeFor[metav1.MicroTime](), typ == reflect.TypeFor[metav1.Time](), typ.Kind() == reflect.String:
		expect(t, path, "string", s.Type)
	case typ.Kind() == reflect.Bool:
		expect(t, path, "boolean", s.Type)
	case typ.Kind() == reflect.Int, typ.Kind() == reflect.Int64:
		expect(t, path, "integer", s.Type)
	case typ.Kind() == reflect.Slice:
		expect(t, path, "array", s.Type)
		if s.Items == nil {
			t.Fatalf("%s: no items", path)
		}
		compare(t, path+"[]", typ.Elem(), *s.Items)
	case typ.Kind() == reflect.Struct:
		expect(t, path, "object", s.Type)
		var fields, required []string
		for i := range typ.NumField() {
			name, options, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			fields = append(fields, name)
			if !strings.Contains(options, "omitempty") {
				required = append(required, name)
			}
			compare(t, path+"."+name, typ.Field(i).Type, s.Properties[name])
		}
		slices.Sort(fields)
		slices.Sort(required)
		slices.Sort(s.Required)
		if diff := cmp.Diff(fields, slices.Sorted(maps.Keys(s.Properties))); diff != "" {
			t.Errorf("%s: fields (-go +crd):\n%s", path, diff)
		}
		if diff := cmp.Diff(required, s.Required); diff != "" {
			t.Errorf("%s: required fields (-go +crd):\n%s", path, diff)
		}
	default:
		t.Errorf("%s: no schema for %s", path, typ)
	}
}

func expect(t *testing.T, path, want, got string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: type %q in the CRD, want %q", path, got, want)
	}
}

func TestDeepCopySharesNothing(t *testing.T) {
	now := metav1.NowMicro()
	original := &NodeDeathList{
		ListMeta: metav1.ListMeta{RemainingItemCount: new(int64)},
		Items: []NodeDeath{{
			ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"a": "b"}},
			Spec: NodeDeathSpec{
				Evidence: []string{"netconsole"},
				Culprit:  &Culprit{Pod: &PodRef{Name: "p"}},
				NodeInfo: &NodeInfo{Zone: "z"},
				Images:   []string{"i"},
				Pods:     []DeadPod{{Name: "p", Owner: &OwnerOf{Name: "o"}, Images: []int{0}}},
				Trace:    []string{"a"},
			},
			Status: NodeDeathStatus{
				StartTime: &now, CompletionTime: &now,
				Conditions: []metav1.Condition{{Type: "Fenced", LastTransitionTime: metav1.Now()}},
				Steps:      []Step{{Name: "fence", Time: &now}},
				Pods:       Pods{Outcomes: []Outcome{{Outcome: "Failed", Pods: []int{0}}}},
			},
		}},
	}
	c := original.DeepCopyObject().(*NodeDeathList)
	if diff := cmp.Diff(original, c); diff != "" {
		t.Errorf("copy (-original +copy):\n%s", diff)
	}
	shared := sharedMemory(reflect.ValueOf(original), reflect.ValueOf(c), "list")
	if len(shared) > 0 {
		t.Errorf("shared: %v", shared)
	}
	if (*NodeDeath)(nil).DeepCopy() != nil || (*NodeDeathList)(nil).DeepCopy() != nil {
		t.Error("a copy of nothing is something")
	}
}

// sharedMemory names the pointers, slices and maps that a and b have in common.
func sharedMemory(a, b reflect.Value, path string) (out []string) {
	switch a.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		if a.IsNil() || a.Type() == reflect.TypeFor[*time.Location]() { // locations are immutable
			return nil
		}
		if a.UnsafePointer() == b.UnsafePointer() {
			out = append(out, path)
		}
	}
	switch a.Kind() {
	case reflect.Pointer:
		out = append(out, sharedMemory(a.Elem(), b.Elem(), path)...)
	case reflect.Slice:
		for i := range a.Len() {
			out = append(out, sharedMemory(a.Index(i), b.Index(i), fmt.Sprintf("%s[%d]", path, i))...)
		}
	case reflect.Struct:
		for i := range a.NumField() {
			out = append(out, sharedMemory(a.Field(i), b.Field(i), path+"."+a.Type().Field(i).Name)...)
		}
	}
	return out
}

func TestAddToScheme(t *testing.T) {
	s := runtime.NewScheme()
	if err := AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	for kind, typ := range map[string]any{"NodeDeath": &NodeDeath{}, "NodeDeathList": &NodeDeathList{}} {
		obj, err := s.New(GroupVersion().WithKind(kind))
		if err != nil || reflect.TypeOf(obj) != reflect.TypeOf(typ) {
			t.Errorf("%s: %T, %v", kind, obj, err)
		}
	}
}
