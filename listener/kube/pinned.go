package kube

import "github.com/lastgasp/lastgasp/listener/detect"

// Proves implements cleanup.Cluster.
func (c *Cluster) Proves(boot, sum string) (a detect.Authority, ok bool) {
	if boot == "" || sum == "" {
		return 0, false
	}
	for _, n := range c.cached(byBoot, boot) {
		pin, claim := pinFrom(n.Annotations[annotationPin]), pinFrom(n.Annotations[annotationClaim])
		switch {
		case pin.Boot == boot && pin.Sum == sum:
			return detect.Pinned, true
		case pin.Boot != boot && claim.Boot == boot && claim.Sum == sum:
			a, ok = detect.Claimed, true
		}
	}
	return a, ok
}

// Pinned reports whether a Node that runs the boot has pinned that sum or, where none is pinned, claimed it. Other Nodes
// that say they run the same boot take nothing away from it.
func (c *Cluster) Pinned(boot, sum string) bool {
	_, ok := c.Proves(boot, sum)
	return ok
}
