package cleanup

import (
	"errors"
	"fmt"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// NodeVerb is what becomes of the Node once its pods are gone.
type NodeVerb string

const (
	// NodeDelete deletes the Node, for nodes that are replaced.
	NodeDelete NodeVerb = "delete"
	// NodeAwait keeps the Node fenced until it is Ready on a new boot, and deletes it if it is not back in time.
	NodeAwait NodeVerb = "await"
	// NodeAnnotate leaves the Node alone, fenced until it is Ready on a new boot.
	NodeAnnotate NodeVerb = "annotate"
)

// Policy is what an operator decides beforehand. Start from DefaultPolicy; a zero field means zero.
type Policy struct {
	// ActAt is the authority from which a gasp is acted on at once (act.at).
	ActAt detect.Authority
	// Corroborate is how long a weaker gasp waits for a second witness (act.corroborate).
	Corroborate time.Duration
	// Distrust is how long a source that was contradicted is not believed on the same authority (act.distrust).
	Distrust time.Duration

	// MaxNodes and MaxPercent of all Nodes, whichever is more, may be cleaned up in Window; what is beyond is held
	// (limits.nodes, limits.percent, limits.window).
	MaxNodes   int
	MaxPercent int
	Window     time.Duration

	// NodeVerb is what becomes of the Node (node).
	NodeVerb NodeVerb
	// AwaitTimeout is how long after the gasp NodeAwait waits before it deletes.
	AwaitTimeout time.Duration
	// AfterPanic is what is done with the machine below the Node (ec2.afterPanic).
	AfterPanic AfterPanic
	// KeepPods is how long after the gasp Failed pods are kept for people to read. A Job's are never kept (pods.keep).
	KeepPods time.Duration
	// ControlPlane allows acting on control-plane nodes (controlPlane).
	ControlPlane bool

	// KeepRecords and KeepRecordsFor bound what is kept of finished records, by count and by age (keep.records, keep.for).
	KeepRecords    int
	KeepRecordsFor time.Duration

	// DryRun records what would be done and writes nothing else.
	DryRun bool
}

// DefaultPolicy is the policy of an empty configuration.
func DefaultPolicy() Policy {
	return Policy{
		ActAt:          detect.Pinned,
		Corroborate:    15 * time.Second,
		Distrust:       10 * time.Minute,
		MaxNodes:       5,
		MaxPercent:     10,
		Window:         10 * time.Minute,
		NodeVerb:       NodeDelete,
		AwaitTimeout:   10 * time.Minute,
		AfterPanic:     LeaveInstance,
		KeepRecords:    1000,
		KeepRecordsFor: 30 * 24 * time.Hour,
	}
}

// Validate says in one sentence what is wrong with the policy.
func (p Policy) Validate() error {
	switch {
	case p.ActAt < detect.Kernel || p.ActAt > detect.Pinned+1:
		return fmt.Errorf("act.at: %v proves nothing; use kernel, boot, claimed, pinned or never", p.ActAt)
	case p.Corroborate < settle+renewal(defaultLease):
		return fmt.Errorf("act.corroborate: %s is too short: kubelets renew their Lease every 10s, so silence proves something after %s only",
			p.Corroborate, settle+renewal(defaultLease))
	case p.Distrust < 0:
		return fmt.Errorf("act.distrust: %s is negative", p.Distrust)
	case p.MaxNodes < 0:
		return fmt.Errorf("limits.nodes: %d is negative", p.MaxNodes)
	case p.MaxPercent < 0 || p.MaxPercent > 100:
		return fmt.Errorf("limits.percent: %d is not between 0 and 100", p.MaxPercent)
	case p.Window <= 0:
		return fmt.Errorf("limits.window: %s is no time", p.Window)
	case p.NodeVerb != NodeDelete && p.NodeVerb != NodeAwait && p.NodeVerb != NodeAnnotate:
		return fmt.Errorf("node: %q is none of delete, await, annotate", p.NodeVerb)
	case p.NodeVerb == NodeAwait && p.AwaitTimeout <= 0:
		return fmt.Errorf("await for %s: no node comes back in that time", p.AwaitTimeout)
	case p.AfterPanic != LeaveInstance && p.AfterPanic != RebootInstance && p.AfterPanic != TerminateInstance:
		return fmt.Errorf("ec2.afterPanic: %q is none of none, reboot, terminate", p.AfterPanic)
	case p.AfterPanic == TerminateInstance && p.NodeVerb == NodeAwait:
		return errors.New("ec2.afterPanic: terminate and node: await contradict each other: what is terminated does not come back")
	case p.KeepPods < 0:
		return fmt.Errorf("pods.keep: %s is negative", p.KeepPods)
	case p.KeepRecords < 1:
		return fmt.Errorf("keep.records: %d is too few; keep 1 at least", p.KeepRecords)
	case p.KeepRecordsFor < p.Window || p.KeepRecordsFor < p.Distrust:
		return fmt.Errorf("keep.for: %s is too short: the breaker and distrust live on records, keep them longer than %s",
			p.KeepRecordsFor, max(p.Window, p.Distrust))
	}
	return nil
}
