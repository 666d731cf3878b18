package policy

import (
	"fmt"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// NodeVerb is what becomes of the Node once its pods are gone.
type NodeVerb string

const (
	// NodeDelete deletes the Node, for nodes that are replaced. One that is cordoned or tainted by others is awaited instead:
	// it would come back without either.
	NodeDelete NodeVerb = "delete"
	// NodeDeleteClaim deletes the Karpenter NodeClaim of the Node, and Karpenter the machine and the Node; a Node without
	// one is deleted.
	NodeDeleteClaim NodeVerb = "nodeclaim"
	// NodeAwait keeps the Node fenced until it is back on a new boot, and deletes it if it is not back in time.
	NodeAwait NodeVerb = "await"
	// NodeAnnotate leaves the Node alone, fenced until it is back on a new boot.
	NodeAnnotate NodeVerb = "annotate"
)

// AfterPanic is what is done with the machine once its whole trace is on record (ec2.afterPanic). It is for kernels that
// are kept from rebooting after a panic, because they would send nothing before they reboot.
type AfterPanic string

const (
	// LeaveInstance leaves the machine to itself.
	LeaveInstance AfterPanic = "none"
	// RebootInstance reboots it.
	RebootInstance AfterPanic = "reboot"
	// TerminateInstance terminates it, for machines that are replaced.
	TerminateInstance AfterPanic = "terminate"
	// UnhealthyInstance sets it unhealthy in its Auto Scaling group, which then terminates and replaces it.
	UnhealthyInstance AfterPanic = "unhealthy"
)

// Do says what is done with that instance: "reboot i-0123456789abcdef0".
func (a AfterPanic) Do(instance string) string {
	if a == UnhealthyInstance {
		return "set " + instance + " unhealthy"
	}
	return string(a) + " " + instance
}

// Policy is what an operator decides beforehand. Start from DefaultPolicy; a zero field means zero.
type Policy struct {
	// ActAt is the authority from which an incident is acted on at once; Never makes all wait for the witness (act.at).
	ActAt detect.Authority
	// Corroborate is how long a weaker incident may keep its Node fenced without a witness (act.corroborate).
	Corroborate time.Duration
	// Distrust is how long the Node of a source that was contradicted is not fenced early again (act.distrust).
	Distrust time.Duration

	// MaxNodes and MaxPercent of all Nodes, whichever is more, may be cleaned up in Window; what is beyond is held. As many
	// again may be fenced early (limits.nodes, limits.percent, limits.window).
	MaxNodes   int
	MaxPercent int
	Window     time.Duration

	// NodeVerb is what becomes of the Node (node).
	NodeVerb NodeVerb
	// AwaitTimeout is how long after the panic NodeAwait waits before it deletes (nodeTimeout).
	AwaitTimeout time.Duration
	// AfterPanic is what is done with the machine below the Node (ec2.afterPanic).
	AfterPanic AfterPanic
	// KeepPods is how long after the panic Failed pods that nobody owns are kept for people to read (pods.keep). Pods
	// of controllers that are not part of Kubernetes are kept for that time or 30 s, whichever is less.
	KeepPods time.Duration
	// HoldSuspects lets the failure of a suspect's pod count from its third replacement on (suspects.hold).
	HoldSuspects bool
	// ControlPlane allows acting on control-plane nodes (controlPlane).
	ControlPlane bool

	// KeepRecords and KeepRecordsFor bound what is kept of finished deaths, by count and by age (keep.records, keep.for).
	// Refused ones are counted apart.
	KeepRecords    int
	KeepRecordsFor time.Duration

	// Pools say what is different for some nodes; the first that selects a node counts. See PolicyFor.
	Pools []Pool

	// DryRun records what would be done, under names of its own, and writes nothing else.
	DryRun bool
}

// DefaultPolicy is the policy of an empty configuration.
func DefaultPolicy() Policy {
	return Policy{
		ActAt:          detect.Pinned,
		Corroborate:    60 * time.Second,
		Distrust:       10 * time.Minute,
		MaxNodes:       5,
		MaxPercent:     10,
		Window:         10 * time.Minute,
		NodeVerb:       NodeDelete,
		AwaitTimeout:   10 * time.Minute,
		AfterPanic:     LeaveInstance,
		KeepPods:       10 * time.Minute,
		KeepRecords:    1000,
		KeepRecordsFor: 30 * 24 * time.Hour,
	}
}

// Validate says in one sentence what is wrong with the policy.
func (p Policy) Validate() error {
	switch {
	case p.ActAt < detect.Kernel || p.ActAt > Never:
		return fmt.Errorf("act.at: %v proves nothing; use kernel, boot, claimed, pinned or never", p.ActAt)
	case p.Corroborate < 0:
		return fmt.Errorf("act.corroborate: %s is negative", p.Corroborate)
	case p.Distrust < 0:
		return fmt.Errorf("act.distrust: %s is negative", p.Distrust)
	case p.MaxNodes < 0:
		return fmt.Errorf("limits.nodes: %d is negative", p.MaxNodes)
	case p.MaxPercent < 0 || p.MaxPercent > 100:
		return fmt.Errorf("limits.percent: %d is not between 0 and 100", p.MaxPercent)
	case p.Window <= 0:
		return fmt.Errorf("limits.window: %s is not positive; write a time like 10m", p.Window)
	case p.NodeVerb != NodeDelete && p.NodeVerb != NodeDeleteClaim && p.NodeVerb != NodeAwait && p.NodeVerb != NodeAnnotate:
		return fmt.Errorf("node: %q is unknown; write delete, nodeclaim, await or annotate", p.NodeVerb)
	case p.NodeVerb == NodeAwait && p.AwaitTimeout <= 0:
		return fmt.Errorf("nodeTimeout: %s is not positive; write how long node: await may wait, like 10m", p.AwaitTimeout)
	case p.AfterPanic != LeaveInstance && p.AfterPanic != RebootInstance && p.AfterPanic != TerminateInstance && p.AfterPanic != UnhealthyInstance:
		return fmt.Errorf("ec2.afterPanic: %q is unknown; write none, reboot, terminate or unhealthy", p.AfterPanic)
	case (p.AfterPanic == TerminateInstance || p.AfterPanic == UnhealthyInstance) && p.NodeVerb == NodeAwait:
		return fmt.Errorf("ec2.afterPanic: %s contradicts node: await, because a terminated instance does not come back; change one", p.AfterPanic)
	case p.KeepPods < 0:
		return fmt.Errorf("pods.keep: %s is negative", p.KeepPods)
	case p.KeepRecords < 1:
		return fmt.Errorf("keep.records: %d is too few; keep at least 1", p.KeepRecords)
	case p.KeepRecordsFor < p.Window || p.KeepRecordsFor < p.Distrust:
		return fmt.Errorf("keep.for: %s is too short: the breaker and distrust are read from NodeDeaths; keep them for at least %s",
			p.KeepRecordsFor, max(p.Window, p.Distrust))
	}
	for i, pool := range p.Pools {
		if len(pool.Selector) == 0 {
			return fmt.Errorf("pools: pool %d selects every node; name the labels of its nodes in selector", i+1)
		}
		if err := p.with(pool).Validate(); err != nil {
			return fmt.Errorf("pools: pool %d: %w", i+1, err)
		}
	}
	return nil
}
