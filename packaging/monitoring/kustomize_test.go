package monitoring

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// render is `kubectl kustomize`, as objects by kind.
func render(t *testing.T, dir string) map[string][]map[string]any {
	t.Helper()
	all, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]map[string]any{}
	for _, r := range all.Resources() {
		m, err := r.Map()
		if err != nil {
			t.Fatal(err)
		}
		out[r.GetKind()] = append(out[r.GetKind()], m)
	}
	return out
}

func TestKustomization(t *testing.T) {
	objects := render(t, ".")
	for kind, want := range map[string]int{"PodMonitor": 1, "PrometheusRule": 1, "ConfigMap": 1} {
		if len(objects[kind]) != want {
			t.Errorf("%d objects of kind %s, want %d", len(objects[kind]), kind, want)
		}
	}
	want, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range objects["ConfigMap"] {
		if m["data"].(map[string]any)["lastgasp.json"] != string(want) {
			t.Error("the ConfigMap does not hold the dashboard")
		}
	}
}

// The image is named in one place, which `images:` of a kustomization replaces.
func TestImageIsNamedOnce(t *testing.T) {
	const ours = "registry.example/lastgasp-listener:v1.2.3"
	for _, variant := range []string{".", "host-network", "base"} {
		base, err := filepath.Abs(filepath.Join("../kubernetes", variant))
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		relative, err := filepath.Rel(dir, base)
		if err != nil {
			t.Fatal(err)
		}
		overlay, err := yaml.Marshal(map[string]any{
			"resources": []string{relative},
			"images":    []map[string]string{{"name": "lastgasp-listener", "newName": "registry.example/lastgasp-listener", "newTag": "v1.2.3"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), overlay, 0o644); err != nil {
			t.Fatal(err)
		}
		objects := render(t, dir)
		text, err := yaml.Marshal(objects)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), "image: "+ours+"\n"); n != 1 {
			t.Errorf("%s names the replaced image %d times, want once", variant, n)
		}
		if strings.Contains(string(text), "image: lastgasp-listener") {
			t.Errorf("%s still names the image as shipped", variant)
		}
	}
}
