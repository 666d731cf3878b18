package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// HollowSpec describes a node to start: a real kubelet with fake containers.
type HollowSpec struct {
	// NS is the namespace of the kubelet, from where it must reach the API server.
	NS *NS
	// Name is the Node's name.
	Name string
	// IP is the Node's InternalIP, which must be on an interface in NS. Nodes that share a namespace each need their own.
	IP netip.Addr
	// BootID is what the Node reports as its boot id; this machine's when empty.
	BootID string
	// MachineID is what the Node reports as its machine id; this machine's when empty.
	MachineID string
	// ProviderID is the Node's spec.providerID; hollow://<name> when empty.
	ProviderID string
	// KernelRelease is what the Node reports as its kernel's; this machine's when empty.
	KernelRelease string
	// ManifestDir is a folder of static pods; none when empty.
	ManifestDir string
}

// HollowNode is a running hollow kubelet.
type HollowNode struct {
	cluster *Cluster
	process *process
}

// HollowProgram returns the path of the hollow kubelet, statically linked, with which a guest becomes a node.
func (c *Cluster) HollowProgram() string { return c.binaries.Hollow }

// StartHollowNode starts a node on this machine and waits until pods may come. It ends with s or by Kill. A second one
// of the same name, after the first has ended, is that node started again: with the boot id of the first its kubelet
// was restarted, with another the machine was.
func (c *Cluster) StartHollowNode(ctx context.Context, s Scope, spec HollowSpec) (*HollowNode, error) {
	kubeconfig, err := c.NodeKubeconfig(spec.Name)
	if err != nil {
		return nil, err
	}
	if spec.BootID == "" {
		if spec.BootID, err = bootID(); err != nil {
			return nil, err
		}
	}
	before, err := c.Heartbeat(ctx, spec.Name)
	if err != nil {
		return nil, err
	}
	p, err := c.startIn(spec.NS, spec.Name, c.binaries.Hollow,
		"--kubeconfig="+kubeconfig,
		"--name="+spec.Name,
		"--node-ip="+spec.IP.String(),
		"--boot-id="+spec.BootID,
		"--machine-id="+spec.MachineID,
		"--kernel-release="+spec.KernelRelease,
		"--provider-id="+spec.ProviderID,
		"--pod-manifest-path="+spec.ManifestDir,
		"--root-dir="+c.path("nodes", spec.Name),
	)
	if err != nil {
		return nil, err
	}
	n := &HollowNode{cluster: c, process: p}
	s.Cleanup(n.Kill)
	if err := c.AwaitNode(ctx, spec.Name, spec.BootID, before); err != nil {
		return nil, err
	}
	return n, nil
}

// Kill ends the kubelet as a power cut would, without a farewell. Killing it twice is harmless.
func (n *HollowNode) Kill() { n.cluster.stop(n.process) }

// Heartbeat returns when the node's kubelet last renewed its Lease, by the node's clock; zero while there is no Lease, as in the
// first ten seconds of a Node.
func (c *Cluster) Heartbeat(ctx context.Context, name string) (time.Time, error) {
	lease, err := c.client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read lease of node %s: %w", name, err)
	}
	return renewed(lease), nil
}

// AwaitNode waits until the named node accepts pods. A node that has just died looks ready for most of a minute, so the heartbeat
// must be later than last, if there was one (see Heartbeat), and the boot id must be the given one; an empty one means any.
func (c *Cluster) AwaitNode(ctx context.Context, name, boot string, before time.Time) error {
	return c.await(ctx, "node "+name+" to be ready", func(ctx context.Context) (bool, error) {
		if !before.IsZero() {
			heartbeat, err := c.Heartbeat(ctx, name)
			if err != nil || heartbeat.Equal(before) {
				return false, err
			}
		}
		node, err := c.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		return err == nil && ready(node, boot), err
	})
}

func renewed(lease *coordinationv1.Lease) time.Time {
	if lease.Spec.RenewTime == nil {
		return time.Time{}
	}
	return lease.Spec.RenewTime.Time
}

// ready reports whether the node is ready, on the given boot if any, and the controllers have noticed.
func ready(node *corev1.Node, boot string) bool {
	if boot != "" && node.Status.NodeInfo.BootID != boot {
		return false
	}
	for _, taint := range node.Spec.Taints {
		if taint.Key == corev1.TaintNodeNotReady || taint.Key == corev1.TaintNodeUnreachable {
			return false
		}
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// bootID is this machine's own.
func bootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
