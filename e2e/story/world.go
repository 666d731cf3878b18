// Package story tells the one story lastgasp exists for, on real parts: a node's kernel panics, and what follows. The
// tests check it for many kernels and crashes, the demo shows it to people.
package story

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

// Survivor is the node that takes the replacements.
const Survivor = "survivor"

// World is everything but the node that dies: the network, the control plane, the survivor and the listener under its
// own service account.
type World struct {
	Net     *lab.Net
	Cluster *lab.Cluster
	// Listener is the daemon at work.
	Listener *lab.Daemon
	// ListenerLog is the path of what the listener says.
	ListenerLog string

	bin   string // folder of our own two binaries
	admin string // kubeconfig
	next  byte   // last octet of the next node's address
}

// NewWorld builds it. The first time on a machine that takes minutes; s hears of the progress.
func NewWorld(ctx context.Context, s lab.Scope) (*World, error) {
	w := &World{next: 20}
	var err error
	if w.bin, err = build(ctx, s); err != nil {
		return nil, err
	}
	if w.Net, err = lab.NewNet(s); err != nil {
		return nil, err
	}
	s.Logf("starting etcd, kube-apiserver, kube-controller-manager and kube-scheduler")
	w.Cluster, err = lab.StartCluster(ctx, s, lab.ClusterSpec{NS: w.Net.Listener, Addr: lab.APIServerAddr.Addr(), Audit: true})
	if err != nil {
		return nil, err
	}
	if w.admin, err = w.Cluster.Kubeconfig("admin", "system:masters"); err != nil {
		return nil, err
	}
	if _, err := w.Cluster.StartHollowNode(ctx, s, lab.HollowSpec{NS: w.Net.Node, Name: Survivor, IP: lab.NodeAddr.Addr()}); err != nil {
		return nil, err
	}
	return w, w.startListener(ctx, s)
}

// build compiles our own two programs as they are in this checkout.
func build(ctx context.Context, s lab.Scope) (string, error) {
	dir, err := os.MkdirTemp("", "lastgasp-bin-")
	if err != nil {
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

// startListener applies what we ship for Kubernetes and runs the listener under the rights it gets there. Its
// Deployment would need a container runtime: the process stands in for its pod, nothing else is different.
func (w *World) startListener(ctx context.Context, s lab.Scope) error {
	root, err := lab.CheckoutRoot()
	if err != nil {
		return err
	}
	if err := w.cordon(ctx, Survivor, true); err != nil {
		return err
	}
	if _, err := w.Cluster.Kubectl(ctx, "apply", "--kustomize", filepath.Join(root, "packaging/kubernetes")); err != nil {
		return fmt.Errorf("apply packaging/kubernetes: %w", err)
	}
	if _, err := w.Cluster.Kubectl(ctx, "--namespace=lastgasp", "scale", "deployment", "--all", "--replicas=0"); err != nil {
		return fmt.Errorf("make room for the listener: %w", err)
	}
	if _, err := w.Cluster.Kubectl(ctx, "wait", "--for=condition=Established", "crd/kernelpanics.lastgasp.dev", "--timeout=30s"); err != nil {
		return fmt.Errorf("wait for the CRD: %w", err)
	}
	if err := w.cordon(ctx, Survivor, false); err != nil {
		return err
	}
	kubeconfig, err := w.Cluster.ServiceAccountKubeconfig(ctx, "lastgasp", "listener")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "lastgasp-listener-")
	if err != nil {
		return fmt.Errorf("make a folder for the listener: %w", err)
	}
	s.Cleanup(func() { os.RemoveAll(dir) })
	config := fmt.Sprintf("listen: [%q]\ncluster: kubernetes\nkubeconfig: %s\nlimits: {nodes: 100}\n",
		w.Endpoint(), kubeconfig)
	file := filepath.Join(dir, "listener.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return fmt.Errorf("write listener.yaml: %w", err)
	}
	w.ListenerLog = filepath.Join(dir, "listener.log")
	s.Logf("starting lastgasp-listener as system:serviceaccount:lastgasp:listener")
	w.Listener, err = lab.StartDaemon(s, "lastgasp-listener", w.ListenerLog,
		w.Net.Listener.Command(ctx, filepath.Join(w.bin, "lastgasp-listener"), "run", "--config", file))
	return err
}

// Endpoint is where the listener hears.
func (w *World) Endpoint() string {
	return netip.AddrPortFrom(lab.ListenerAddr.Addr(), 6666).String()
}

// Node is a microVM with Debian's kernel, our configurator and a kubelet: the one that is going to die.
type Node struct {
	Name      string
	Namespace string // of its workloads
	VM        *lab.VM
	BootID    string
	Verified  string // what `lastgasp-configurator apply` said
}

// NodeSpec says what kind of node to boot.
type NodeSpec struct {
	Name        string // at most 11 bytes
	Kernel      *lab.Kernel
	CrashModule string // path; sysrq does without
	Panic       int    // kernel.panic, seconds until reboot
}

// BootNode boots a guest, arms it with our configurator, which must prove that the listener hears it, and makes it a
// Node of the cluster.
func (w *World) BootNode(ctx context.Context, s lab.Scope, spec NodeSpec) (*Node, error) {
	n := &Node{Name: spec.Name, Namespace: spec.Name}
	hollow, err := w.Cluster.HollowFiles(spec.Name)
	if err != nil {
		return nil, err
	}
	if _, err := w.Cluster.Kubectl(ctx, "create", "namespace", n.Namespace); err != nil {
		return nil, fmt.Errorf("make namespace: %w", err)
	}
	subnet := lab.NodeAddr.Masked()
	octets := subnet.Addr().As4()
	octets[3], w.next = w.next, w.next+1
	ip := netip.AddrFrom4(octets)
	vm := lab.VMSpec{
		Kernel: spec.Kernel, Net: w.Net, Name: spec.Name,
		Addr: netip.PrefixFrom(ip, subnet.Bits()), Gateway: lab.NodeGateway.Addr(), MemoryMiB: 1024,
		CrashModule: spec.CrashModule,
		Sysctls:     map[string]string{"kernel.panic": fmt.Sprint(spec.Panic), "kernel.panic_on_oops": "1"},
		Files: map[string]lab.GuestFile{
			"/usr/bin/lastgasp-configurator": {Host: filepath.Join(w.bin, "lastgasp-configurator"), Mode: 0o755},
			"/usr/bin/kubelet":               {Host: hollow.Binary, Mode: 0o755},
			"/etc/kubernetes/kubelet.conf":   {Data: hollow.Kubeconfig, Mode: 0o600},
			"/etc/kubernetes/manifests/static.yaml": {
				Data: fmt.Appendf(nil, staticPod, n.Namespace), Mode: 0o644},
			"/etc/lastgasp/configurator.yaml": {
				Data: fmt.Appendf(nil, "endpoint: {static: [%q]}\n", w.Endpoint()), Mode: 0o644},
		},
	}
	s.Logf("booting %s: Debian's %s in a microVM", spec.Name, spec.Kernel.Release)
	if n.VM, err = lab.BootVM(ctx, s, vm); err != nil {
		return nil, err
	}
	n.BootID = n.VM.BootID()
	applied, err := n.VM.Run(ctx, "/usr/bin/lastgasp-configurator", "apply")
	if err != nil {
		return nil, err
	}
	if applied.Exit != 0 {
		return nil, fmt.Errorf("lastgasp-configurator apply on %s: exit %d: %s", spec.Name, applied.Exit, applied.Stderr)
	}
	n.Verified = applied.Stdout
	if err := n.VM.Start(ctx, "/usr/bin/kubelet", "--kubeconfig=/etc/kubernetes/kubelet.conf", "--name="+spec.Name,
		"--node-ip="+ip.String(), "--pod-manifest-path=/etc/kubernetes/manifests", "--root-dir=/var/lib/kubelet"); err != nil {
		return nil, err
	}
	return n, w.Cluster.AwaitNode(ctx, spec.Name, n.BootID, time.Time{})
}
