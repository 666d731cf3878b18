package lab

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Binaries are the paths of the lab's Kubernetes programs.
type Binaries struct {
	// ControlPlane is etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kubectl in one file; its first
	// argument says which.
	ControlPlane string
	// Hollow is the hollow kubelet, statically linked: it runs in a guest that has nothing else.
	Hollow string
}

// kubernetesVersion is the version that the programs report. It is k8s.io/kubernetes' in controlplane/go.mod. Without the stamp
// they would report v0.0.0-master, and clients compare versions.
const kubernetesVersion = "v1.36.3"

// BuildControlPlane compiles the nested module e2e/controlplane, unless CacheDir has the programs of just these
// sources already. The first build on a machine takes minutes and says so on s; two builds at a time take turns.
func BuildControlPlane(ctx context.Context, s Scope) (Binaries, error) {
	root, err := CheckoutRoot()
	if err != nil {
		return Binaries{}, err
	}
	source := filepath.Join(root, "e2e", "controlplane")
	other, err := otherVersion()
	if err != nil {
		return Binaries{}, err
	}
	if other != "" {
		return buildOther(ctx, s, source, other)
	}
	key, err := sourceKey(source)
	if err != nil {
		return Binaries{}, fmt.Errorf("read sources of control plane: %w", err)
	}
	dir, err := CachedDownload(ctx, s, filepath.Join("controlplane", key), func(dir string) error {
		return compile(ctx, s, source, dir, kubernetesVersion, ".", "./hollow")
	})
	if err != nil {
		return Binaries{}, fmt.Errorf("build control plane: %w", err)
	}
	return Binaries{
		ControlPlane: filepath.Join(dir, "controlplane"),
		Hollow:       filepath.Join(dir, "hollow"),
	}, nil
}

// BuildKubelet compiles e2e/controlplane/kubelet, unless CacheDir has it, and returns its path.
func BuildKubelet(ctx context.Context, s Scope) (string, error) {
	root, err := CheckoutRoot()
	if err != nil {
		return "", err
	}
	source := filepath.Join(root, "e2e", "controlplane")
	key, err := sourceKey(source)
	if err != nil {
		return "", fmt.Errorf("read sources of the kubelet: %w", err)
	}
	dir, err := CachedDownload(ctx, s, filepath.Join("kubelet", key), func(dir string) error {
		return compile(ctx, s, source, dir, kubernetesVersion, "./kubelet")
	})
	if err != nil {
		return "", fmt.Errorf("build the kubelet: %w", err)
	}
	return filepath.Join(dir, "kubelet"), nil
}

// buildOther compiles the control plane of another version, without the hollow kubelet.
func buildOther(ctx context.Context, s Scope, source, version string) (Binaries, error) {
	main, err := os.ReadFile(filepath.Join(source, "main.go"))
	if err != nil {
		return Binaries{}, fmt.Errorf("read sources of control plane: %w", err)
	}
	sum := sha256.Sum256(append(main, linkerFlags(version)...))
	key := version + "-" + hex.EncodeToString(sum[:])[:16]
	dir, err := CachedDownload(ctx, s, filepath.Join("controlplane", key), func(dir string) error {
		module, err := os.MkdirTemp("", "lastgasp-controlplane-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(module)
		if err := writeOtherModule(ctx, source, module, version); err != nil {
			return err
		}
		return compile(ctx, s, module, dir, version, ".")
	})
	if err != nil {
		return Binaries{}, fmt.Errorf("build control plane %s: %w", version, err)
	}
	return Binaries{ControlPlane: filepath.Join(dir, "controlplane")}, nil
}

// CheckoutRoot finds the folder of our go.mod above the working directory: the lab is always run from a checkout.
func CheckoutRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find checkout: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && slices.Contains(strings.Split(string(text), "\n"), "module github.com/lastgasp/lastgasp") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find checkout: no go.mod of github.com/lastgasp/lastgasp in %s or above", start)
		}
	}
}

// sourceKey is a hash of everything in the module that decides what its programs are.
func sourceKey(module string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, linkerFlags(kubernetesVersion))
	err := filepath.WalkDir(module, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(module, path)
		if err != nil {
			return err
		}
		switch {
		case strings.HasSuffix(name, "_test.go"):
			return nil
		case name == "go.mod", name == "go.sum", filepath.Ext(name) == ".go":
		default:
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %d\n", name, len(text))
		h.Write(text)
		return nil
	})
	return hex.EncodeToString(h.Sum(nil))[:16], err
}

// linkerFlags leaves symbols out, which halves the files, and stamps the version.
func linkerFlags(version string) string {
	const stamp = " -X k8s.io/component-base/version."
	major, minor, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	return "-s -w" +
		stamp + "gitVersion=" + version +
		stamp + "gitMajor=" + major +
		stamp + "gitMinor=" + minor +
		stamp + "gitTreeState=clean" +
		stamp + "gitCommit=module"
}

// compile builds the programs in one go, so that they share the compiler's work, into the folder out.
func compile(ctx context.Context, s Scope, module, out, version string, programs ...string) error {
	s.Logf("control plane: compiling Kubernetes %s, some minutes the first time", version)
	start := time.Now()
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-v", "-trimpath", "-buildvcs=false",
		"-ldflags=" + linkerFlags(version), "-o", out + string(filepath.Separator)}, programs...)...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	output, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(output); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	last := logBuild(s, start, lines)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w:\n%s", err, strings.Join(last, "\n"))
	}
	s.Logf("control plane: compiled in %s", time.Since(start).Round(time.Second))
	return nil
}

// logBuild logs every ten seconds how far `go build -v` is, which names each package when it starts with it, and returns the
// last lines, where the errors are. Linking, at the end, takes some time and prints nothing.
func logBuild(s Scope, start time.Time, lines <-chan string) (last []string) {
	const every, keep = 10 * time.Second, 20
	tick := time.NewTicker(every)
	defer tick.Stop()
	packages := 0
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				return last
			}
			packages++
			last = append(last, line)
			last = last[max(0, len(last)-keep):]
		case now := <-tick.C:
			at := ""
			if packages > 0 {
				at = ", at " + last[len(last)-1]
			}
			s.Logf("control plane: %d s, %d packages%s", int(now.Sub(start).Seconds()), packages, at)
		}
	}
}
