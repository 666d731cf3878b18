package kube

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// SilentNodes implements cleanup.Cluster.
func (c *Cluster) SilentNodes(context.Context) ([]policy.Node, error) {
	return c.nodesBy(bySilence, silent)
}

// EndedBoots implements cleanup.Cluster.
func (c *Cluster) EndedBoots() []policy.Node { return c.boots.take() }

// endedBoots bounds how many ended boots wait to be asked for. The oldest go first.
const endedBoots = 4096

// boots collects the Nodes whose boot has ended, as they were before. Its zero value is ready.
type boots struct {
	mu    sync.Mutex
	ended []policy.Node
}

// nodeEvents feeds b and d from the Node informer.
func nodeEvents(b *boots, d *departed) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { b.stale(nodeFrom(obj.(*corev1.Node))) },
		UpdateFunc: func(was, is any) {
			before, now := was.(*corev1.Node), is.(*corev1.Node)
			// A deletion and a new registration of the name that fell into a gap of the watch look like an update.
			registered := before.UID != now.UID
			if registered {
				d.remember(before, time.Now())
			}
			if boot := before.Status.NodeInfo.BootID; registered || boot != now.Status.NodeInfo.BootID {
				b.add(nodeFrom(before), boot)
			}
		},
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			if before, ok := obj.(*corev1.Node); ok {
				d.remember(before, time.Now())
				b.add(nodeFrom(before), before.Status.NodeInfo.BootID)
			}
		},
	}
}

// stale notes the boot that a Node has pinned or claimed and does not report: it has ended, unless it has only just begun.
// Where the Node runs the other of the two, nobody knows how long ago that boot was; where it runs neither, the pin is newer,
// because a node that pins does so on each boot. A farewell explains the end of a boot.
func (b *boots) stale(n policy.Node) {
	last := cmp.Or(n.Pin.Boot, n.Claim.Boot)
	if n.Pin.Boot == n.BootID || n.Claim.Boot == n.BootID || n.LeftInOrder(last, n.Farewell.At) != "" {
		return
	}
	b.add(n, last)
}

// add notes that boot of n has ended, if it is one of ours.
func (b *boots) add(n policy.Node, boot string) {
	if !n.Ours(boot) {
		return
	}
	n.BootID = boot
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.ended) == endedBoots {
		b.ended = slices.Delete(b.ended, 0, 1)
	}
	b.ended = append(b.ended, n)
}

func (b *boots) take() []policy.Node {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.ended
	b.ended = nil
	return out
}

// shuttingDown is what a kubelet says of Ready while its node shuts down in good order (kubernetes
// pkg/kubelet/nodeshutdown/nodeshutdown_manager_linux.go), perhaps among other things.
const shuttingDown = "node is shutting down"

// isLeaving reports whether somebody takes the Node away in good order: it is shutting down, being deleted, or tainted
// by what removes nodes (cluster-autoscaler utils/taints/taints.go, karpenter pkg/apis/v1/taints.go, aws-node-termination-handler
// pkg/node/node.go).
func isLeaving(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady && strings.Contains(c.Message, shuttingDown) {
			return true
		}
	}
	return n.DeletionTimestamp != nil || slices.ContainsFunc(n.Spec.Taints, removes)
}

// removes reports whether t is a taint of what removes nodes.
func removes(t corev1.Taint) bool {
	return t.Key == "ToBeDeletedByClusterAutoscaler" || t.Key == "karpenter.sh/disrupted" || t.Key == "karpenter.sh/disruption" ||
		strings.HasPrefix(t.Key, "aws-node-termination-handler/")
}

// isQuarantined reports whether somebody keeps pods away from the Node in a way that its next registration would undo: a cordon,
// or a taint. Taints that the kubelet registers with cannot be told from those that people set later. The control plane and
// autoscalers put theirs back themselves.
func isQuarantined(n *corev1.Node) bool {
	return n.Spec.Unschedulable || slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool {
		domain, _, _ := strings.Cut(t.Key, "/")
		return !isFence(t) && !removes(t) && t.Key != "DeletionCandidateOfClusterAutoscaler" &&
			domain != "node.kubernetes.io" && domain != "node.cloudprovider.kubernetes.io" && domain != "karpenter.sh"
	})
}
