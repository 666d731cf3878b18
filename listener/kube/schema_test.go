package kube

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/lastgasp/lastgasp/listener/kube/v1alpha1"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// TestSpecFitsTheSchema feeds fields that are too long, as a forged gasp may have them. A death that the schema denies
// would not be on record, and its node would stay fenced.
func TestSpecFitsTheSchema(t *testing.T) {
	text, err := os.ReadFile("../../packaging/kubernetes/base/crd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	type property struct {
		MaxLength  int                 `json:"maxLength"`
		Pattern    string              `json:"pattern"`
		Properties map[string]property `json:"properties"`
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					Root property `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &crd); err != nil {
		t.Fatal(err)
	}

	for name, long := range map[string]string{
		"ascii": strings.Repeat("x", 5000), "unicode": strings.Repeat("é", 5000), "bytes": strings.Repeat("\xff", 5000),
	} {
		spec, err := json.Marshal(specFrom(policy.Death{
			Node: long, NodeUID: long, Instance: long, Boot: long, Time: time.Now(), Cause: "Kernel" + long, Reason: long,
			Fingerprint: long, Remedy: long, Release: long,
			Source: netip.AddrPortFrom(netip.MustParseAddr("fe80::1").WithZone(long), 6665),
		}))
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal(spec, &fields); err != nil {
			t.Fatal(err)
		}
		bounded := 0
		for field, p := range crd.Spec.Versions[0].Schema.Root.Properties["spec"].Properties {
			if p.MaxLength == 0 || field == "authority" {
				continue
			}
			bounded++
			value, _ := fields[field].(string)
			if n := utf8.RuneCountInString(value); n == 0 || n > p.MaxLength {
				t.Errorf("%s %s: %d characters, want 1 to %d", name, field, n, p.MaxLength)
			}
			if !regexp.MustCompile(p.Pattern).MatchString(value) {
				t.Errorf("%s %s: %q does not match %s", name, field, value, p.Pattern)
			}
		}
		if bounded != 10 {
			t.Errorf("the schema bounds %d fields, the test knows of 10", bounded)
		}
	}
}

// Pods with as many long images as one may have take no other pod's place on record.
func TestPodsOfManyImages(t *testing.T) {
	var pods []policy.Pod
	for i := range 50 {
		pod := policy.Pod{Name: fmt.Sprint("greedy", i)}
		for j := range maxImagesOfPod {
			pod.Images = append(pod.Images, fmt.Sprint(i, "/", j, strings.Repeat("<", imageSize)))
		}
		pods = append(pods, pod)
	}
	pods = append(pods, policy.Pod{Name: "modest", Images: []string{"app"}})
	d := policy.Death{Name: "d"}
	d.NamePods(pods)
	spec := specFrom(d)
	last := spec.Pods[len(spec.Pods)-1]
	if len(spec.Pods) != len(pods) || spec.PodsOmitted != 0 || last.Name != "modest" || len(last.Images) != 1 || spec.Images[last.Images[0]] != "app" {
		t.Errorf("%d of %d pods, the last is %+v", len(spec.Pods), len(pods), last)
	}
	nd := v1alpha1.NodeDeath{Spec: spec}
	if again := specFrom(deathFrom(&nd)); !cmp.Equal(spec.Pods, again.Pods) || !cmp.Equal(spec.Images, again.Images) {
		t.Error("the pods change when the death is written again")
	}
}
