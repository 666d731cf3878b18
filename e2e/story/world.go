// Package story plays the one story for which lastgasp exists, with real parts: a node's kernel panics, and its pods are replaced.
// Tests check it for many kernels and crashes, the demo shows it to people.
package story

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

// Survivor is the node that takes the replacements.
const Survivor = "survivor"

// World is everything but the node that dies: the network, the control plane, the survivor, and the listener with its own service
// account.
type World struct {
	Net     *lab.Net
	Cluster *lab.Cluster
	// Listener is the daemon at work.
	Listener *lab.Daemon
	// ListenerLog is the path of the listener's log.
	ListenerLog string
	// Records is the path of the records that the listener ships: a JSON object for each.
	Records string

	bin   string // folder of our own two binaries
	admin string // kubeconfig

	addresses sync.Mutex
	next      byte // last octet of the next node's address
}

// NewWorld builds it of what this checkout has. The first time on a machine that takes minutes; progress is logged to s.
func NewWorld(ctx context.Context, s lab.Scope) (*World, error) {
	bin, err := Build(ctx, s)
	if err != nil {
		return nil, err
	}
	return NewWorldOf(ctx, s, bin, (*World).startListener)
}

// NewWorldOf builds it with the two programs that are in the folder bin. listen installs the listener, starts it and sets Listener
// and ListenerLog.
func NewWorldOf(ctx context.Context, s lab.Scope, bin string, listen func(*World, context.Context, lab.Scope) error) (*World, error) {
	w := &World{next: 20, bin: bin}
	var err error
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
	return w, listen(w, ctx, s)
}

// startListener installs what we ship, with the survivor kept free of it, and runs the listener.
func (w *World) startListener(ctx context.Context, s lab.Scope) (err error) {
	if err := w.cordon(ctx, Survivor, true); err != nil {
		return err
	}
	if err := Install(ctx, w.Cluster); err != nil {
		return err
	}
	if err := w.cordon(ctx, Survivor, false); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "lastgasp-records-")
	if err != nil {
		return fmt.Errorf("make a folder for what the listener hears: %w", err)
	}
	s.Cleanup(func() { os.RemoveAll(dir) })
	w.Records = filepath.Join(dir, "records.json")
	return w.Listen(ctx, s, "ship: {to: "+w.Records+"}")
}

// Listen starts the listener with a policy (see ListenerSpec), and replaces the running one, if any.
func (w *World) Listen(ctx context.Context, s lab.Scope, policy string) (err error) {
	if w.Listener != nil {
		w.Listener.Kill()
	}
	w.Listener, w.ListenerLog, err = StartListener(ctx, s, ListenerSpec{
		Binary: w.Program("lastgasp-listener"), NS: w.Net.Listener, Cluster: w.Cluster,
		Listen: w.Endpoint(), Policy: "limits: {nodes: 100}\n" + policy,
	})
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
	Kernel    *lab.Kernel
	VM        *lab.VM
	BootID    string
	Verified  string // output of `lastgasp-configurator apply`

	ip         netip.Addr
	providerID string
	kubelet    *lab.HollowNode // nil if the guest itself runs it
}

// NodeSpec says what kind of node to boot.
type NodeSpec struct {
	Name        string // at most 11 bytes
	Kernel      *lab.Kernel
	CrashModule string // path; sysrq does without
	Module      string // path of lastgasp's kernel module, which is loaded first; empty: none
	Panic       int    // kernel.panic, seconds until reboot
	NoEnroll    bool   // the configurator finds no kubelet's credentials, so it cannot pin the Node
	Pstore      bool   // its firmware keeps what the kernel writes when it dies, and it comes back: see Return
	Reboot      bool   // it comes back without that
	Watchdog    bool   // it has a hardware watchdog, which nothing starts

	ProviderID string            // default: no cloud knows it
	Sysctls    map[string]string // more of them
}

// BootNode boots a guest, arms it with our configurator, which must prove that the listener hears it, and makes it a
// Node of the cluster. The configurator then watches, and pins the Node with the kubelet's credentials.
//
// The kubelet runs in the guest, too, but for one of another architecture: compiling a kubelet once more takes minutes. That one
// runs beside its guest, reports what the guest's kernel says of itself, and dies with it in Kill.
func (w *World) BootNode(ctx context.Context, s lab.Scope, spec NodeSpec) (*Node, error) {
	n := &Node{Name: spec.Name, Namespace: spec.Name, Kernel: spec.Kernel}
	files, err := w.Join(ctx, spec.Name)
	if err != nil {
		return nil, err
	}
	addr := w.address()
	foreign := spec.Kernel.Arch != runtime.GOARCH
	configurator := w.Program("lastgasp-configurator")
	if foreign {
		if configurator, err = buildConfigurator(ctx, s, w.bin, spec.Kernel.Arch); err != nil {
			return nil, err
		}
	}
	vm := lab.VMSpec{
		Kernel: spec.Kernel, Net: w.Net, Name: spec.Name,
		Addr: addr, Gateway: lab.NodeGateway.Addr(), MemoryMiB: 1024,
		CrashModule: spec.CrashModule,
		Sysctls:     map[string]string{"kernel.panic": fmt.Sprint(spec.Panic), "kernel.panic_on_oops": "1"},
		Files: map[string]lab.GuestFile{
			"/usr/bin/lastgasp-configurator": {Host: configurator, Mode: 0o755},
			"/etc/lastgasp/configurator.yaml": {
				Data: fmt.Appendf(nil, "endpoint: {static: [%q]}\n", w.Endpoint()), Mode: 0o644},
		},
		Reboot: spec.Reboot,
	}
	maps.Copy(vm.Sysctls, spec.Sysctls)
	if !foreign {
		vm.Files["/usr/bin/kubelet"] = lab.GuestFile{Host: w.Cluster.HollowProgram(), Mode: 0o755}
	}
	const module = "/lib/lastgasp.ko"
	if spec.Module != "" {
		vm.Files[module] = lab.GuestFile{Host: spec.Module}
	}
	if spec.NoEnroll {
		vm.Files["/etc/lastgasp/configurator.d/90-no-enroll.yaml"] = lab.GuestFile{Data: []byte("enroll: {kubeconfig: /none}\n")}
	}
	if spec.Pstore {
		vm.UEFI, vm.Reboot = true, true
		vm.Modules = append(vm.Modules, "efi_pstore")
	}
	if spec.Watchdog {
		vm.Devices = append(vm.Devices, "i6300esb")
		vm.Modules = append(vm.Modules, "i6300esb")
	}
	if vm.Reboot {
		vm.Files["/var/lib/lastgasp/README"] = lab.GuestFile{Data: []byte("This folder is there from each boot on.\n"), Mode: 0o644}
	}
	for path, data := range files {
		vm.Files[path] = lab.GuestFile{Data: data, Mode: 0o600}
	}
	s.Logf("booting %s: Debian's %s in a microVM", spec.Name, spec.Kernel.Release)
	if n.VM, err = lab.BootVM(ctx, s, vm); err != nil {
		return nil, err
	}
	n.BootID = n.VM.BootID()
	if spec.Module != "" {
		loaded, err := n.VM.Run(ctx, "insmod", module)
		if err != nil {
			return nil, err
		}
		if loaded.Exit != 0 {
			return nil, fmt.Errorf("load lastgasp's kernel module on %s: %s", spec.Name, loaded.Stderr)
		}
	}
	applied, err := n.VM.Run(ctx, "/usr/bin/lastgasp-configurator", "apply")
	if err != nil {
		return nil, err
	}
	if applied.Exit != 0 {
		return nil, fmt.Errorf("lastgasp-configurator apply on %s: exit %d: %s", spec.Name, applied.Exit, applied.Stderr)
	}
	n.Verified, n.ip, n.providerID = applied.Stdout, addr.Addr(), spec.ProviderID
	if foreign {
		return n, w.startBeside(ctx, s, n)
	}
	return n, w.start(ctx, n)
}

// address makes an unused address in the node subnet.
func (w *World) address() netip.Prefix {
	w.addresses.Lock()
	defer w.addresses.Unlock()
	subnet := lab.NodeAddr.Masked()
	octets := subnet.Addr().As4()
	octets[3], w.next = w.next, w.next+1
	return netip.PrefixFrom(netip.AddrFrom4(octets), subnet.Bits())
}

// start starts what runs on a node that is armed, and waits until it is a Node.
func (w *World) start(ctx context.Context, n *Node) error {
	if err := n.VM.Start(ctx, "/usr/bin/lastgasp-configurator", "watch"); err != nil {
		return err
	}
	if err := n.VM.Start(ctx, "/usr/bin/kubelet", "--kubeconfig=/etc/kubernetes/kubelet.conf", "--name="+n.Name,
		"--node-ip="+n.ip.String(), "--provider-id="+n.providerID, "--pod-manifest-path=/etc/kubernetes/manifests",
		"--root-dir=/var/lib/kubelet"); err != nil {
		return err
	}
	return w.Cluster.AwaitNode(ctx, n.Name, n.BootID, time.Time{})
}

// startBeside is start for a guest whose kubelet runs on this machine.
func (w *World) startBeside(ctx context.Context, s lab.Scope, n *Node) error {
	if err := n.VM.Start(ctx, "/usr/bin/lastgasp-configurator", "watch"); err != nil {
		return err
	}
	ns, err := w.Net.Twin(s, w.address(), n.ip)
	if err != nil {
		return err
	}
	machineID, err := n.VM.ReadFile(ctx, "/etc/machine-id")
	if err != nil {
		return err
	}
	manifests, err := os.MkdirTemp("", "lastgasp-manifests-")
	if err != nil {
		return fmt.Errorf("make a folder for static pods: %w", err)
	}
	s.Cleanup(func() { os.RemoveAll(manifests) })
	if err := os.WriteFile(filepath.Join(manifests, "static.yaml"), fmt.Appendf(nil, staticPod, n.Name), 0o644); err != nil {
		return fmt.Errorf("write a static pod: %w", err)
	}
	n.kubelet, err = w.Cluster.StartHollowNode(ctx, s, lab.HollowSpec{NS: ns, Name: n.Name, IP: n.ip, BootID: n.BootID,
		MachineID: strings.TrimSpace(string(machineID)), KernelRelease: n.Kernel.Release, ManifestDir: manifests})
	return err
}
