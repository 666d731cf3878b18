package kube

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/lastgasp/lastgasp/listener/cleanup"
)

// labelControlPlane is the well-known label of control-plane nodes
// (https://kubernetes.io/docs/reference/labels-annotations-taints/#node-role-kubernetes-io-control-plane).
const labelControlPlane = "node-role.kubernetes.io/control-plane"

// Indexes of the Node cache.
const (
	byAddress  = "address"
	byInstance = "instance" // last element of spec.providerID
	byMachine  = "machine"  // status.nodeInfo.machineID
	byMark     = "mark"     // one key, marked
)

// marked is the key of the Nodes that carry our mark or our taint.
const marked = "marked"

// FindNode implements cleanup.Cluster.
func (c *Cluster) FindNode(ctx context.Context, instance string, addr netip.Addr) (cleanup.Node, error) {
	if !c.nodes.HasSynced() {
		return cleanup.Node{}, fmt.Errorf("find node of %s: %w", addr, errNotSynced)
	}
	addr = canonical(addr)
	candidate, err := c.candidate(instance, addr, time.Now())
	if err != nil {
		return cleanup.Node{}, err
	}
	// The cache may be behind: what counts is what the Node says now.
	live, err := c.liveNode(ctx, candidate)
	if err != nil {
		return cleanup.Node{}, err
	}
	if instance != "" && !isInstance(live, instance) {
		return cleanup.Node{}, fmt.Errorf("node %s is not instance %s any more: %w", live.Name, instance, cleanup.ErrNotFound)
	}
	node := nodeFrom(live)
	if !contains(node.Addresses, addr) {
		return cleanup.Node{}, fmt.Errorf("node %s does not own address %s: %w", live.Name, addr, cleanup.ErrNotFound)
	}
	return node, nil
}

// candidate names the one Node in the cache that instance or, without one, addr belongs to.
func (c *Cluster) candidate(instance string, addr netip.Addr, now time.Time) (string, error) {
	if instance != "" {
		found := c.cached(byInstance, instance)
		if len(found) == 0 {
			found = c.cached(byMachine, instance)
		}
		switch len(found) {
		case 0:
			return "", fmt.Errorf("no node is instance %s: %w", instance, cleanup.ErrNotFound)
		case 1:
			return found[0].Name, nil
		}
		return "", fmt.Errorf("instance %s: nodes %s: %w", instance, names(found), cleanup.ErrAmbiguous)
	}
	found := c.cached(byAddress, addr.String())
	switch len(found) {
	case 0:
		if d, ok := c.departed.other(addr, machine{}, now); ok {
			return "", fmt.Errorf("address %s was node %s, deleted %s ago: %w",
				addr, d.name, now.Sub(d.left).Round(time.Second), cleanup.ErrNotFound)
		}
		return "", fmt.Errorf("no node has address %s: %w", addr, cleanup.ErrNotFound)
	case 1:
		// Addresses are reused within minutes. While the former owner may still be gasping, an address alone tells nothing.
		if d, ok := c.departed.other(addr, machineOf(found[0]), now); ok {
			return "", fmt.Errorf("address %s: node %s has it, node %s had it until %s ago: %w",
				addr, found[0].Name, d.name, now.Sub(d.left).Round(time.Second), cleanup.ErrAmbiguous)
		}
		return found[0].Name, nil
	}
	return "", fmt.Errorf("address %s: nodes %s: %w", addr, names(found), cleanup.ErrAmbiguous)
}

// Node implements cleanup.Cluster.
func (c *Cluster) Node(ctx context.Context, name string) (cleanup.Node, error) {
	live, err := c.liveNode(ctx, name)
	if err != nil {
		return cleanup.Node{}, err
	}
	return nodeFrom(live), nil
}

// NodeCount implements cleanup.Cluster.
func (c *Cluster) NodeCount() int { return len(c.nodes.GetStore().ListKeys()) }

// MarkedNodes implements cleanup.Cluster.
func (c *Cluster) MarkedNodes(context.Context) ([]cleanup.Node, error) {
	if !c.nodes.HasSynced() {
		return nil, fmt.Errorf("find marked nodes: %w", errNotSynced)
	}
	var out []cleanup.Node
	for _, n := range c.cached(byMark, marked) {
		out = append(out, nodeFrom(n))
	}
	return out, nil
}

// PatchNode implements cleanup.Cluster. The patch carries the whole taint list, because the API server replaces it as a
// whole; the resourceVersion in it turns a lost race into ErrConflict.
func (c *Cluster) PatchNode(ctx context.Context, n cleanup.Node, p cleanup.NodePatch) (cleanup.Node, error) {
	asRead, err := c.nodeAsRead(ctx, n)
	if err != nil {
		return cleanup.Node{}, err
	}
	patch, err := nodePatch(asRead, p)
	if err != nil {
		return cleanup.Node{}, fmt.Errorf("patch node %s: %w", n.Name, err)
	}
	out, err := c.core.CoreV1().Nodes().Patch(ctx, n.Name, types.StrategicMergePatchType, patch,
		metav1.PatchOptions{FieldManager: manager})
	if err != nil {
		return cleanup.Node{}, explain(err, "patch node %s", n.Name)
	}
	return nodeFrom(out), nil
}

// nodeAsRead finds the taints n had when it was read: in the cache if that holds exactly this version, which spares a
// request on the way to the fence, else live.
func (c *Cluster) nodeAsRead(ctx context.Context, n cleanup.Node) (*corev1.Node, error) {
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

func sameNode(node *corev1.Node, n cleanup.Node) bool {
	return string(node.UID) == n.UID && node.ResourceVersion == n.ResourceVersion
}

// DeleteNode implements cleanup.Cluster.
func (c *Cluster) DeleteNode(ctx context.Context, n cleanup.Node) error {
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

// newNodeInformer watches all Nodes and keeps of each what trim leaves.
func newNodeInformer(client kubernetes.Interface) (cache.SharedIndexInformer, error) {
	inf := coreinformers.NewNodeInformer(client, 0, cache.Indexers{
		byAddress: func(obj any) ([]string, error) {
			var keys []string
			for _, a := range addressesOf(obj.(*corev1.Node)) {
				keys = append(keys, a.String())
			}
			return keys, nil
		},
		byInstance: func(obj any) ([]string, error) { return nonEmpty(instanceOf(obj.(*corev1.Node))), nil },
		byMachine:  func(obj any) ([]string, error) { return nonEmpty(obj.(*corev1.Node).Status.NodeInfo.MachineID), nil },
		byMark: func(obj any) ([]string, error) {
			if n := nodeFrom(obj.(*corev1.Node)); n.Fenced || n.Mark.Record != "" {
				return []string{marked}, nil
			}
			return nil, nil
		},
	})
	return inf, inf.SetTransform(trim)
}

// trim keeps what find, fence and breaker need: a Node as the API serves it is some 20 KiB, mostly the names of images.
func trim(obj any) (any, error) {
	n, ok := obj.(*corev1.Node)
	if !ok {
		return obj, nil // cache.DeletedFinalStateUnknown around what was trimmed before
	}
	t := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:              n.Name,
			UID:               n.UID,
			ResourceVersion:   n.ResourceVersion,
			CreationTimestamp: n.CreationTimestamp,
		},
		Spec: corev1.NodeSpec{ProviderID: n.Spec.ProviderID, Taints: n.Spec.Taints},
		Status: corev1.NodeStatus{
			Addresses: n.Status.Addresses,
			NodeInfo: corev1.NodeSystemInfo{
				MachineID: n.Status.NodeInfo.MachineID, BootID: n.Status.NodeInfo.BootID, KernelVersion: n.Status.NodeInfo.KernelVersion,
			},
		},
	}
	if v, ok := n.Labels[labelControlPlane]; ok {
		t.Labels = map[string]string{labelControlPlane: v}
	}
	for k, v := range n.Annotations {
		if strings.HasPrefix(k, prefix) {
			metav1.SetMetaDataAnnotation(&t.ObjectMeta, k, v)
		}
	}
	for _, cond := range n.Status.Conditions {
		if cond.Type == corev1.NodeReady {
			t.Status.Conditions = []corev1.NodeCondition{{Type: cond.Type, Status: cond.Status}}
		}
	}
	return t, nil
}

// nodeFrom reads a Node, trimmed or whole.
func nodeFrom(n *corev1.Node) cleanup.Node {
	node := cleanup.Node{
		Name:            n.Name,
		UID:             string(n.UID),
		ResourceVersion: n.ResourceVersion,
		ProviderID:      n.Spec.ProviderID,
		Addresses:       addressesOf(n),
		BootID:          n.Status.NodeInfo.BootID,
		Kernel:          n.Status.NodeInfo.KernelVersion,
		Created:         n.CreationTimestamp.Time,
		Pin:             pinFrom(n.Annotations[annotationPin]),
		Mark:            markFrom(n.Annotations),
	}
	_, node.ControlPlane = n.Labels[labelControlPlane]
	for _, cond := range n.Status.Conditions {
		if cond.Type == corev1.NodeReady {
			node.Ready = cond.Status == corev1.ConditionTrue
			node.Silent = cond.Status == corev1.ConditionUnknown
		}
	}
	for _, t := range n.Spec.Taints {
		node.Fenced = node.Fenced || t.Key == taintFence
		node.OutOfService = node.OutOfService || t.Key == corev1.TaintNodeOutOfService
	}
	return node
}

// addressesOf lists what of status.addresses is an address and not a name, in canonical form, each once.
func addressesOf(n *corev1.Node) []netip.Addr {
	var out []netip.Addr
	for _, a := range n.Status.Addresses {
		if addr, err := netip.ParseAddr(a.Address); err == nil && !contains(out, canonical(addr)) {
			out = append(out, canonical(addr))
		}
	}
	return out
}

// canonical is the one form in which addresses are compared: a socket for both families reports ::ffff:10.0.0.1.
func canonical(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// instanceOf is the last element of spec.providerID: aws:///us-east-1a/i-0123456789abcdef0.
func instanceOf(n *corev1.Node) string {
	return n.Spec.ProviderID[strings.LastIndexByte(n.Spec.ProviderID, '/')+1:]
}

func isInstance(n *corev1.Node, instance string) bool {
	return instanceOf(n) == instance || n.Status.NodeInfo.MachineID == instance
}

func (c *Cluster) cached(index, key string) []*corev1.Node {
	objs, err := c.nodes.GetIndexer().ByIndex(index, key)
	if err != nil {
		return nil // only an index of another name can fail
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

func contains(addrs []netip.Addr, a netip.Addr) bool {
	for _, x := range addrs {
		if x == a {
			return true
		}
	}
	return false
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}
