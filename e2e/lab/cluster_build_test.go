package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSourceKeyFollowsWhatIsCompiled(t *testing.T) {
	base := map[string]string{"go.mod": "module m", "go.sum": "", "main.go": "package main", "hollow/main.go": "package main"}
	key := keyOf(t, base)
	for _, test := range []struct {
		name, file, content string
		same                bool
	}{
		{"a requirement changes", "go.mod", "module m\ngo 1.26", false},
		{"a checksum changes", "go.sum", "x", false},
		{"a program changes", "hollow/main.go", "package main // changed", false},
		{"a file is added", "hollow/flags.go", "package main", false},
		{"a test is added", "main_test.go", "package main", true},
		{"a note is added", "README.md", "read me", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			files := map[string]string{test.file: test.content}
			for name, content := range base {
				if name != test.file {
					files[name] = content
				}
			}
			if same := keyOf(t, files) == key; same != test.same {
				t.Errorf("key is the same: %t, want %t", same, test.same)
			}
		})
	}
}

func keyOf(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	key, err := sourceKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestStampedVersionIsTheOneRequired(t *testing.T) {
	root, err := CheckoutRoot()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "e2e", "controlplane", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "\tk8s.io/kubernetes " + kubernetesVersion + "\n"; !strings.Contains(string(text), want) {
		t.Errorf("go.mod of the control plane does not require %q, which the programs are stamped with", want)
	}
}

func TestReportBuildKeepsTheLastLines(t *testing.T) {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for range 30 {
			lines <- "k8s.io/api/core/v1"
		}
		lines <- "./main.go:7:2: undefined: x"
	}()
	last := logBuild(t, time.Now(), lines)
	if len(last) != 20 {
		t.Errorf("%d lines are kept, want 20", len(last))
	}
	if diff := cmp.Diff("./main.go:7:2: undefined: x", last[len(last)-1]); diff != "" {
		t.Errorf("last line (-want +got):\n%s", diff)
	}
}
