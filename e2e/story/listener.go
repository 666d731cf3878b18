package story

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

// Build compiles our own two programs as they are in this checkout. The folder with them goes when s ends.
func Build(ctx context.Context, s lab.Scope) (dir string, err error) {
	if dir, err = os.MkdirTemp("", "lastgasp-bin-"); err != nil {
		return "", fmt.Errorf("make a folder for the binaries: %w", err)
	}
	s.Cleanup(func() { os.RemoveAll(dir) })
	s.Logf("building lastgasp-configurator and lastgasp-listener")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w -X main.version=lab", "-o", dir,
		"github.com/lastgasp/lastgasp/cmd/...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build lastgasp: %w\n%s", err, out)
	}
	return dir, nil
}

// buildConfigurator compiles the configurator for a node of another architecture into the folder dir and returns its path.
func buildConfigurator(ctx context.Context, s lab.Scope, dir, arch string) (program string, err error) {
	program = filepath.Join(dir, "lastgasp-configurator-"+arch)
	s.Logf("building lastgasp-configurator for %s", arch)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w -X main.version=lab", "-o", program,
		"github.com/lastgasp/lastgasp/cmd/lastgasp-configurator")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the configurator for %s: %w\n%s", arch, err, out)
	}
	return program, nil
}

// Install applies what we ship for Kubernetes, but for the pods of its Deployment: they would need a container runtime.
func Install(ctx context.Context, c *lab.Cluster) error {
	root, err := lab.CheckoutRoot()
	if err != nil {
		return err
	}
	if _, err := c.Kubectl(ctx, "apply", "--kustomize", filepath.Join(root, "packaging/kubernetes")); err != nil {
		return fmt.Errorf("apply packaging/kubernetes: %w", err)
	}
	if _, err := c.Kubectl(ctx, "--namespace=lastgasp", "scale", "deployment", "--all", "--replicas=0"); err != nil {
		return fmt.Errorf("make room for the listener: %w", err)
	}
	if _, err := c.Kubectl(ctx, "wait", "--for=condition=Established", "crd/nodedeaths.lastgasp.dev", "--timeout=5m"); err != nil {
		return fmt.Errorf("wait for the CRD: %w", err)
	}
	return nil
}

// ListenerSpec says which listener to run, and where.
type ListenerSpec struct {
	Binary  string // path of lastgasp-listener
	NS      *lab.NS
	Cluster *lab.Cluster // where Install was done
	Listen  string       // host:port of its socket
	// Kubeconfig reaches the API server by another way, such as a proxy; empty means directly.
	Kubeconfig string
	// Policy is YAML: the keys of listener.yaml that are not about addresses and the cluster.
	Policy string
	// Records is the directory of its state, empty for a new one that goes when the scope ends.
	Records string
	// Args are flags beside --config.
	Args []string
}

// StartListener runs the listener with the rights that Install gave it. It is a process instead of a pod; nothing else differs.
// It is killed when s ends, and its log is removed.
func StartListener(ctx context.Context, s lab.Scope, spec ListenerSpec) (d *lab.Daemon, log string, err error) {
	kubeconfig := spec.Kubeconfig
	if kubeconfig == "" {
		if kubeconfig, err = spec.Cluster.ServiceAccountKubeconfig(ctx, "lastgasp", "listener"); err != nil {
			return nil, "", err
		}
	}
	dir, err := os.MkdirTemp("", "lastgasp-listener-")
	if err != nil {
		return nil, "", fmt.Errorf("make a folder for the listener: %w", err)
	}
	s.Cleanup(func() { os.RemoveAll(dir) })
	config := fmt.Sprintf("listen: [%q]\nkubernetes: true\nkubeconfig: %s\nrecords: %s\n%s\n",
		spec.Listen, kubeconfig, cmp.Or(spec.Records, dir), spec.Policy)
	if !strings.Contains(spec.Policy, "pods:") {
		config += "pods: {keep: 0s}\n" // the lab's pods have no owner, and nobody reads them
	}
	file := filepath.Join(dir, "listener.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, "", fmt.Errorf("write listener.yaml: %w", err)
	}
	s.Logf("starting lastgasp-listener as system:serviceaccount:lastgasp:listener")
	log = filepath.Join(dir, "listener.log")
	d, err = lab.StartDaemon(s, "lastgasp-listener", log, spec.NS.Command(ctx, spec.Binary, append([]string{"run", "--config", file}, spec.Args...)...))
	return d, log, err
}
