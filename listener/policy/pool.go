package policy

import (
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// ExcludeLabel on a Node, with whatever value, leaves the Node out: its deaths are recorded, and nothing is done about them.
const ExcludeLabel = "lastgasp.dev/exclude-from-cleanup"

// Pool is what is different for some nodes (pools). A zero field is as in the Policy around it.
type Pool struct {
	// Selector has the labels, each with its value, that a Node must have to belong to the pool.
	Selector map[string]string

	ActAt        detect.Authority
	Corroborate  *time.Duration
	NodeVerb     NodeVerb
	AwaitTimeout time.Duration
}

// selects reports whether n belongs to the pool.
func (o Pool) selects(n Node) bool {
	for label, value := range o.Selector {
		if have, ok := n.Labels[label]; !ok || have != value {
			return false
		}
	}
	return true
}

// PolicyFor is the policy for n: p as the first pool that selects n changes it.
func (p Policy) PolicyFor(n Node) Policy {
	for _, pool := range p.Pools {
		if pool.selects(n) {
			return p.with(pool)
		}
	}
	p.Pools = nil
	return p
}

// DeletesNodeClaims reports whether p, or one of its pools, deletes NodeClaims.
func (p Policy) DeletesNodeClaims() bool {
	return p.NodeVerb == NodeDeleteClaim ||
		slices.ContainsFunc(p.Pools, func(o Pool) bool { return o.NodeVerb == NodeDeleteClaim })
}

func (p Policy) with(o Pool) Policy {
	p.Pools = nil
	if o.ActAt != 0 {
		p.ActAt = o.ActAt
	}
	if o.Corroborate != nil {
		p.Corroborate = *o.Corroborate
	}
	if o.NodeVerb != "" {
		p.NodeVerb = o.NodeVerb
	}
	if o.AwaitTimeout != 0 {
		p.AwaitTimeout = o.AwaitTimeout
	}
	return p
}

// ActsOn reports whether a death of n may be acted on at all.
func (p Policy) ActsOn(n Node) bool {
	reason, _ := p.leavesOut(n)
	return reason == ""
}

// leavesOut says why nothing follows from a death of n, as Decision.LeftOut and in words. Both are empty for other nodes.
func (p Policy) leavesOut(n Node) (reason, why string) {
	if n.ControlPlane && !p.ControlPlane {
		return ControlPlane, "node " + n.Name + " belongs to the control plane"
	}
	if _, ok := n.Labels[ExcludeLabel]; ok {
		return NodeExcluded, "node " + n.Name + " is left out by its label " + ExcludeLabel
	}
	return "", ""
}
