package kube

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Indexes of the Node cache.
const (
	byAddress  = "address"
	byInstance = "instance" // last element of spec.providerID
	byMachine  = "machine"  // status.nodeInfo.machineID
	byBoot     = "boot"     // status.nodeInfo.bootID
	byPin      = "pin"      // the boot that the node has pinned, which may be over
	byMark     = "mark"     // one key, marked
	bySilence  = "silence"  // one key, silent
	byKernel   = "kernel"   // one key, foreign
)

// marked is the key of the Nodes that carry our mark or our taint or that we called unhealthy.
const marked = "marked"

// maxAddresses bounds the addresses of a Node that count. A machine has one or two, or one for each network interface. A kubelet can
// report as many as an object has room for, and what comes from a Node's address is served before what strangers send.
const maxAddresses = 64

// silent is the key of the Nodes whose condition Ready is Unknown, foreign that of those without a Linux kernel of their own.
const silent, foreign = "silent", "foreign"

// FindNode implements cleanup.Cluster.
func (c *Cluster) FindNode(ctx context.Context, s cleanup.Sender) (policy.Node, error) {
	if !c.nodes.HasSynced() {
		return policy.Node{}, fmt.Errorf("find node of %s: %w", s.Addr, errNotSynced)
	}
	s.Addr = canonical(s.Addr)
	candidate, err := c.candidate(s, time.Now())
	if err != nil {
		return policy.Node{}, err
	}
	// The cache may be stale: what counts is the live Node.
	live, err := c.liveNode(ctx, candidate.Name)
	if err != nil {
		return policy.Node{}, err
	}
	if err := stillIdentified(candidate, live, s); err != nil {
		return policy.Node{}, err
	}
	return nodeFrom(live), nil
}

// stillIdentified says why s does not identify the live Node, if it identified the cached one of that name. A Node that another machine
// has registered since may have no id of the cloud yet, and the old one's name and address.
func stillIdentified(cached, live *corev1.Node, s cleanup.Sender) error {
	node := nodeFrom(live)
	byInstance := s.Instance != "" && isInstance(nodeFrom(cached), s.Instance)
	if (byInstance || hasID(live, s.Instance)) && !isInstance(node, s.Instance) {
		return fmt.Errorf("node %s is no longer instance %s: %w", live.Name, s.Instance, cleanup.ErrNotFound)
	}
	if !slices.Contains(node.Addresses, s.Addr) {
		return fmt.Errorf("node %s does not own address %s: %w", live.Name, s.Addr, cleanup.ErrNotFound)
	}
	return nil
}

// candidate is the one Node in the cache that s identifies.
func (c *Cluster) candidate(s cleanup.Sender, now time.Time) (*corev1.Node, error) {
	found, byAddr := c.matching(s.Instance, s.Addr)
	what := fmt.Sprintf("instance %s", s.Instance)
	if byAddr {
		what = fmt.Sprintf("address %s", s.Addr)
	}
	d, left := machine{}, false
	if byAddr && len(found) < 2 {
		var m machine
		if len(found) == 1 {
			m = machineOf(found[0])
		}
		d, left = c.departed.other(s.Addr, m, now)
	}
	switch {
	case len(found) == 0 && left:
		return nil, fmt.Errorf("%s was node %s, deleted %s ago: %w", what, d.name, now.Sub(d.left).Round(time.Second), cleanup.ErrNotFound)
	case len(found) == 0:
		return nil, fmt.Errorf("no node has %s: %w", what, cleanup.ErrNotFound)
	case len(found) == 1 && !left:
		return found[0], nil
	}
	// Addresses are reused within minutes, and machine ids are cloned with images. The boot tells the Nodes apart, and the
	// boot's secret does if a Node lies about its boot.
	running := slices.DeleteFunc(slices.Clone(found), func(n *corev1.Node) bool {
		return s.Boot == "" || n.Status.NodeInfo.BootID != s.Boot
	})
	if len(running) > 1 {
		running = slices.DeleteFunc(running, func(n *corev1.Node) bool {
			known := policy.Pin{Boot: s.Boot, Sum: s.Sum}
			return s.Sum == "" || pinFrom(n.Annotations[annotationPin]) != known && pinFrom(n.Annotations[annotationClaim]) != known
		})
	}
	switch {
	case len(running) == 1:
		return running[0], nil
	case left:
		return nil, fmt.Errorf("%s: node %s has it, node %s had it until %s ago: %w",
			what, found[0].Name, d.name, now.Sub(d.left).Round(time.Second), cleanup.ErrAmbiguous)
	}
	return nil, fmt.Errorf("%s: nodes %s: %w", what, names(found), cleanup.ErrAmbiguous)
}

// matching returns the Nodes in the cache that say they are that instance, and those of the address that may be: the kernel names no
// instance, or its Node has no id to compare, as on k3s, RKE2, and kubeadm without a cloud provider. A kubelet that gives its Node any
// id and addresses hides no other Node. byAddr says that only the address speaks for them.
func (c *Cluster) matching(instance string, addr netip.Addr) (found []*corev1.Node, byAddr bool) {
	if instance != "" {
		found = c.cached(indexOf(instance), instance)
	}
	byAddr = len(found) == 0
	for _, n := range c.cached(byAddress, addr.String()) {
		if !hasID(n, instance) && !slices.Contains(found, n) {
			found = append(found, n)
		}
	}
	return found, byAddr && (instance == "" || len(found) > 0)
}

// hasID reports whether the Node has an id of that instance's kind. Nodes call themselves by EC2's id or by their machine id.
func hasID(n *corev1.Node, instance string) bool {
	if indexOf(instance) == byMachine {
		return n.Status.NodeInfo.MachineID != ""
	}
	return instance != "" && policy.IsAWS(n.Spec.ProviderID)
}

// Known implements cleanup.Cluster.
func (c *Cluster) Known(instance string, addr netip.Addr) bool {
	addr = canonical(addr)
	found, _ := c.matching(instance, addr)
	return slices.ContainsFunc(found, func(n *corev1.Node) bool { return slices.Contains(addressesOf(n), addr) })
}

// Node implements cleanup.Cluster.
func (c *Cluster) Node(ctx context.Context, name string) (policy.Node, error) {
	live, err := c.liveNode(ctx, name)
	if err != nil {
		return policy.Node{}, err
	}
	return nodeFrom(live), nil
}

// NodeCount implements cleanup.Cluster.
func (c *Cluster) NodeCount() int {
	return len(c.nodes.GetStore().ListKeys()) - len(c.cached(byKernel, foreign))
}

// MarkedNodes implements cleanup.Cluster.
func (c *Cluster) MarkedNodes(context.Context) ([]policy.Node, error) {
	return c.nodesBy(byMark, marked)
}

func (c *Cluster) nodesBy(index, key string) (out []policy.Node, err error) {
	if !c.nodes.HasSynced() {
		return nil, fmt.Errorf("list nodes: %w", errNotSynced)
	}
	for _, n := range c.cached(index, key) {
		out = append(out, nodeFrom(n))
	}
	return out, nil
}

// PatchNode implements cleanup.Cluster. The patch carries the whole taint list, because the API server replaces it as a
// whole; the resourceVersion in it turns a lost race into ErrConflict.
func (c *Cluster) PatchNode(ctx context.Context, n policy.Node, p cleanup.NodePatch) (policy.Node, error) {
	if err := c.proof.mayWrite(); err != nil {
		return policy.Node{}, fmt.Errorf("patch node %s: %w", n.Name, err)
	}
	asRead, err := c.nodeAsRead(ctx, n)
	if err != nil {
		return policy.Node{}, err
	}
	return c.patchNode(ctx, n, "patch", nodePatch(asRead, p))
}

// patchNode writes a strategic merge patch of a Node, if the policies are proved, and returns the Node afterwards. verb is for errors.
func (c *Cluster) patchNode(ctx context.Context, n policy.Node, verb string, patch any, subresources ...string) (policy.Node, error) {
	if err := c.proof.mayWrite(); err != nil {
		return policy.Node{}, fmt.Errorf("%s node %s: %w", verb, n.Name, err)
	}
	out, err := c.core.CoreV1().Nodes().Patch(ctx, n.Name, types.StrategicMergePatchType, mustJSON(patch),
		metav1.PatchOptions{FieldManager: manager}, subresources...)
	if err != nil {
		return policy.Node{}, explain(err, "%s node %s", verb, n.Name)
	}
	return nodeFrom(out), nil
}

// nodeAsRead returns the Node with the taints that n had when it was read: from the cache if that holds exactly this
// version, which spares a request on the way to the fence, otherwise live.
func (c *Cluster) nodeAsRead(ctx context.Context, n policy.Node) (*corev1.Node, error) {
	if obj, ok, _ := c.nodes.GetStore().GetByKey(n.Name); ok {
		if node, ok := obj.(*corev1.Node); ok && sameNode(node, n) {
			return node, nil
		}
	}
	live, err := c.liveNode(ctx, n.Name)
	if err != nil {
		return nil, err
	}
	if !sameNode(live, n) {
		return nil, fmt.Errorf("patch node %s: %w", n.Name, cleanup.ErrConflict)
	}
	return live, nil
}

func sameNode(node *corev1.Node, n policy.Node) bool {
	return string(node.UID) == n.UID && node.ResourceVersion == n.ResourceVersion
}

// DeleteNode implements cleanup.Cluster.
func (c *Cluster) DeleteNode(ctx context.Context, n policy.Node) error {
	if err := c.proof.mayWrite(); err != nil {
		return fmt.Errorf("delete node %s: %w", n.Name, err)
	}
	uid := types.UID(n.UID)
	err := c.core.CoreV1().Nodes().Delete(ctx, n.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &n.ResourceVersion},
	})
	return explain(err, "delete node %s", n.Name)
}

func (c *Cluster) liveNode(ctx context.Context, name string) (*corev1.Node, error) {
	node, err := c.core.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	return node, explain(err, "read node %s", name)
}

// indexOf is the index in which an instance is looked up. A machine id, which a node can choose, is never taken for an
// instance id of the cloud.
func indexOf(instance string) string {
	if netconsole.IsMachineID(instance) {
		return byMachine
	}
	return byInstance
}

func isInstance(n policy.Node, instance string) bool {
	if indexOf(instance) == byMachine {
		return n.MachineID == instance
	}
	return n.Instance() == instance
}

func (c *Cluster) cached(index, key string) []*corev1.Node {
	objs, err := c.nodes.GetIndexer().ByIndex(index, key)
	if err != nil {
		return nil // only an unknown index can fail
	}
	out := make([]*corev1.Node, 0, len(objs))
	for _, obj := range objs {
		out = append(out, obj.(*corev1.Node))
	}
	return out
}

func names(nodes []*corev1.Node) string {
	var out []string
	for _, n := range nodes {
		out = append(out, n.Name)
	}
	return strings.Join(out, ", ")
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}
