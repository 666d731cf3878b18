package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// otherVersion is the version of Kubernetes that LAB_KUBERNETES asks for, as in v1.35.4. It is empty for that of
// controlplane/go.mod.
func otherVersion() (string, error) {
	v := os.Getenv("LAB_KUBERNETES")
	switch {
	case v == "" || v == kubernetesVersion:
		return "", nil
	case !regexp.MustCompile(`^v1\.\d+\.\d+$`).MatchString(v):
		return "", fmt.Errorf("LAB_KUBERNETES: %q is not a release of Kubernetes; write one like %s", v, kubernetesVersion)
	}
	return v, nil
}

// writeOtherModule makes in dir the module of controlplane at another version of Kubernetes. Everything that Kubernetes requires
// is required at the version that it was released with, and its staging modules at the matching one. The hollow kubelet is left
// out: what it is made of changes with each version.
func writeOtherModule(ctx context.Context, source, dir, version string) error {
	download := exec.CommandContext(ctx, "go", "mod", "download", "-json", "k8s.io/kubernetes@"+version)
	download.Dir = source
	download.Env = append(os.Environ(), "GOWORK=off")
	text, err := download.Output()
	var module struct{ GoMod, Error string }
	if decodeErr := json.Unmarshal(text, &module); decodeErr != nil || module.GoMod == "" {
		return fmt.Errorf("download k8s.io/kubernetes %s: %w", version, cmp.Or(err, decodeErr, fmt.Errorf("%s", module.Error)))
	}
	theirs, err := os.ReadFile(module.GoMod)
	if err != nil {
		return err
	}
	for name, text := range map[string]string{"go.mod": otherModule(string(theirs), version), "main.go": ""} {
		if text == "" {
			b, err := os.ReadFile(filepath.Join(source, name))
			if err != nil {
				return err
			}
			text = string(b)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	tidy := exec.CommandContext(ctx, "go", "mod", "tidy", "-e")
	tidy.Dir = dir
	tidy.Env = append(os.Environ(), "GOWORK=off")
	if out, err := tidy.CombinedOutput(); err != nil {
		return fmt.Errorf("complete go.mod for Kubernetes %s: %w:\n%s", version, err, out)
	}
	return nil
}

// otherModule is a go.mod that requires that version of Kubernetes and all that its own go.mod requires.
func otherModule(theirs, version string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "module github.com/lastgasp/lastgasp/e2e/controlplane\n\ngo 1.26.0\n\nrequire (\n\tk8s.io/kubernetes %s\n", version)
	staging := "v0" + strings.TrimPrefix(version, "v1")
	for line := range strings.Lines(theirs) {
		f := strings.Fields(line)
		if len(f) >= 3 && f[0] == "require" && f[1] != "(" {
			f = f[1:]
		}
		if len(f) < 2 || !strings.Contains(f[0], ".") || !strings.HasPrefix(f[1], "v") {
			continue
		}
		if f[1] == "v0.0.0" && strings.HasPrefix(f[0], "k8s.io/") {
			f[1] = staging
		}
		fmt.Fprintf(&b, "\t%s %s\n", f[0], f[1])
	}
	b.WriteString(")\n")
	return b.String()
}
