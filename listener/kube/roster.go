package kube

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// Nodes lists the Nodes there are, from the cache.
func (c *Cluster) Nodes() []policy.Node {
	list := c.nodes.GetStore().List()
	out := make([]policy.Node, 0, len(list))
	for _, obj := range list {
		out = append(out, nodeFrom(obj.(*corev1.Node)))
	}
	return out
}
