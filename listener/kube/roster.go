package kube

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// Nodes lists the Nodes that could be heard, from the cache: those with a Linux kernel of their own.
func (c *Cluster) Nodes() []policy.Node {
	list := c.nodes.GetStore().List()
	out := make([]policy.Node, 0, len(list))
	for _, obj := range list {
		if n := obj.(*corev1.Node); hasLinux(n) {
			out = append(out, nodeFrom(n))
		}
	}
	return out
}

// Unnamed implements cleanup.Cluster. k3s, RKE2 and kind write the Node's own name into spec.providerID, kubeadm alone writes nothing. Hybrid
// nodes of EKS are outside of EC2.
func (c *Cluster) Unnamed() string {
	for _, obj := range c.nodes.GetStore().List() {
		n := obj.(*corev1.Node)
		id := n.Spec.ProviderID
		if !isVirtual(n) && !policy.IsAWS(id) && !strings.HasPrefix(id, "eks-hybrid://") {
			return n.Name
		}
	}
	return ""
}
