package kube

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Pinned reports whether a Node that runs the boot has pinned that sum or, where none is pinned, claimed it. Other Nodes
// that say they run the same boot take nothing away from it.
func (c *Cluster) Pinned(boot, sum string) bool {
	return boot != "" && slices.ContainsFunc(c.cached(byBoot, boot), func(n *corev1.Node) bool {
		known := pinFrom(n.Annotations[annotationPin])
		if known.Boot != boot {
			known = pinFrom(n.Annotations[annotationClaim])
		}
		return known.Boot == boot && known.Sum == sum
	})
}
