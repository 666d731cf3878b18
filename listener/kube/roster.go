package kube

import (
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
