package kube

import "github.com/lastgasp/lastgasp/listener/detect"

// Proves implements cleanup.Cluster. The pin of a boot that is over still says whose last word comes first: the node may be
// back before that is heard. What it proves is policy.Authority's to say.
func (c *Cluster) Proves(boot, sum string) (a detect.Authority, ok bool) {
	if boot == "" || sum == "" {
		return 0, false
	}
	for _, n := range c.cached(byPin, boot) {
		if pinFrom(n.Annotations[annotationPin]).Sum == sum {
			return detect.Pinned, true
		}
	}
	for _, n := range c.cached(byBoot, boot) {
		pin, claim := pinFrom(n.Annotations[annotationPin]), pinFrom(n.Annotations[annotationClaim])
		if pin.Boot != boot && claim.Boot == boot && claim.Sum == sum {
			a, ok = detect.Claimed, true
		}
	}
	return a, ok
}

// Pinned reports whether a Node has pinned that sum for the boot or, where it has pinned none for the boot it runs, claimed it. Other Nodes
// that claim to run the same boot change nothing.
func (c *Cluster) Pinned(boot, sum string) bool {
	_, ok := c.Proves(boot, sum)
	return ok
}
