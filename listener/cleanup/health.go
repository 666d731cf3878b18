package cleanup

import (
	"context"
	"fmt"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// setHealth writes the condition that want returns for the Node as it was read last, nil for none. If the Node has changed,
// it is read again and want is called again.
func (w *work) setHealth(ctx context.Context, want func() *policy.Health) (denied, err error) {
	denied, err = w.writeNode(ctx, tidying, "set condition of node", func() func(context.Context) (policy.Node, error) {
		h := want()
		if h == nil {
			return nil
		}
		return func(ctx context.Context) (policy.Node, error) { return w.e.cluster.SetHealth(ctx, w.node, *h) }
	})
	if denied != nil {
		w.log.Error("condition not set", "node", w.node.Name, "err", denied)
	}
	return denied, err
}

// stepCondition says on the Node that its kernel is dead.
func (w *work) stepCondition(ctx context.Context) (note string, err error) {
	h := policy.HealthOf(w.death)
	denied, err := w.setHealth(ctx, func() *policy.Health {
		switch {
		case h.Unhealthy == "":
			note = "left alone: the boot is unknown"
		case w.back() != "":
			note = "left alone: " + w.back()
		default:
			note = "its kernel is not healthy"
			return &h
		}
		return nil
	})
	if denied != nil {
		note = fmt.Sprintf("denied: %v", denied)
	}
	return note, err
}

// takeBackCondition says on the Node that its kernel is healthy, if this death said otherwise and turned out to be false, or the
// Node is left out by now: others drain and replace nodes by the condition. What is said of another boot is recovered's.
func (w *work) takeBackCondition(ctx context.Context) error {
	boot, reason := w.death.Boot, "DeathRefused"
	if w.death.Phase == policy.Recorded {
		reason = w.death.Condition(policy.Complete).Reason
	}
	_, err := w.setHealth(ctx, func() *policy.Health {
		if w.node.Unhealthy == "" || w.node.Unhealthy != boot || onNewBoot(w.node) || w.death.Step(policy.StepCondition).Name == "" {
			return nil
		}
		return &policy.Health{Reason: reason, Message: w.death.Decision}
	})
	return err
}

// recovered says on a Node that its kernel is healthy: it is another one than the one that was not.
func (w *work) recovered(ctx context.Context, n policy.Node) error {
	w.node = n
	_, err := w.setHealth(ctx, func() *policy.Health {
		if !onNewBoot(w.node) {
			return nil
		}
		return &policy.Health{Reason: "NewBoot", Message: "the node runs boot " + w.node.BootID}
	})
	return err
}

// onNewBoot reports whether n was called unhealthy and runs another boot now.
func onNewBoot(n policy.Node) bool {
	return n.Unhealthy != "" && n.BootID != "" && n.BootID != n.Unhealthy
}

// sick writes h on the Node: its kernel is sick.
func (w *work) sick(ctx context.Context, n policy.Node, h policy.Health) error {
	w.node = n
	_, err := w.setHealth(ctx, func() *policy.Health {
		if w.node.UID != n.UID || w.node.BootID != h.Unhealthy || w.node.Unhealthy == h.Unhealthy {
			return nil // another boot, or it is known already
		}
		return &h
	})
	return err
}
