package cleanup

import (
	"context"
	"errors"
	"fmt"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// fenced reports whether the Node carries the fence of this death.
func (w *work) fenced() bool { return w.node.Fenced && w.node.Mark.Death == w.name }

// fenceOnce puts the fence on the Node as it was read last.
func (w *work) fenceOnce(ctx context.Context) error {
	if w.fenced() {
		return nil
	}
	// An out-of-service taint of an earlier death is still ours to remove.
	yes, mark := true, w.mark(w.node.Mark.OutOfService)
	n, err := w.e.cluster.PatchNode(ctx, w.node, NodePatch{Fence: &yes, Mark: &mark})
	if err != nil {
		return err
	}
	if w.node = n; !w.fenced() {
		return fmt.Errorf("fence node %s: the API server lets it pass and keeps no fence; look for a mutating webhook or policy: %w", n.Name, ErrDenied)
	}
	w.e.Observer.Fenced(w.e.Now().Sub(w.inc.Time))
	return nil
}

// fence fences the Node as long as it is the one that was judged. It is not ok if the API server did not answer: the Node
// must then be read again before the next attempt. A denial becomes a condition, and is ok.
func (w *work) fence(ctx context.Context, u urgency) (ok bool, err error) {
	for again := pauses(0); w.lookup == policy.Found && w.node.UID == w.first.UID && w.node.BootID == w.first.BootID && !w.fenced(); {
		err := w.once(ctx, u, w.fenceOnce)
		switch {
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case errors.Is(err, ErrConflict), errors.Is(err, ErrNotFound): // changed or gone: look again
			if err := w.readAgain(ctx, u, &again); err != nil {
				return false, err
			}
		case errors.Is(err, ErrDenied) && !errors.Is(err, ErrForbidden), w.forbidden(err):
			w.step(policy.StepFence, false, "denied: %v", err)
			w.condition(policy.Fenced, policy.False, "Denied", err.Error())
			return true, nil
		case err != nil:
			w.repeats("fence node", err, firstPause)
			return false, nil
		}
	}
	w.noteFence()
	return true, nil
}

// forbidden reports whether the API server has forbidden the fence for long enough to be believed.
func (w *work) forbidden(err error) bool {
	if !errors.Is(err, ErrForbidden) {
		return false
	}
	if w.forbiddenAt.IsZero() {
		w.forbiddenAt = w.e.Now()
	}
	return w.e.Now().Sub(w.forbiddenAt) >= forbiddenFor
}

// noteFence sets step and condition of the fence, if it is up.
func (w *work) noteFence() {
	if w.fenced() && !w.death.Step(policy.StepFence).Done {
		w.step(policy.StepFence, true, "node %s fenced", w.node.Name)
		w.condition(policy.Fenced, policy.True, "Tainted", "nothing more is scheduled to node "+w.node.Name)
	}
}

// noteUnfenced sets the condition of a fence that is about to be lifted.
func (w *work) noteUnfenced() {
	if w.death.Step(policy.StepFence).Done {
		w.condition(policy.Fenced, policy.False, "Lifted", "the fence is lifted from node "+w.node.Name)
	}
}

// unfence takes our taints and our mark off the Node, if its mark is that of the same death.
func (w *work) unfence(ctx context.Context, mark policy.Mark) error {
	no, lifted := false, false
	denied, err := w.patchNode(ctx, keeping, func() *NodePatch {
		if mark.Death == "" || w.node.Mark.Death != mark.Death {
			return nil
		}
		lifted = true
		patch := &NodePatch{Fence: &no, Mark: &policy.Mark{}}
		if w.node.Mark.OutOfService {
			patch.OutOfService = &no
		}
		return patch
	})
	switch {
	case denied != nil:
		w.log.Error("fence not lifted", "node", w.node.Name, "err", denied)
	case lifted && err == nil:
		w.log.Info("unfenced", "death", mark.Death, "node", w.node.Name)
	}
	return err
}

// closeNode keeps what tolerates every taint away from a node that is fenced. Only its kubelet opens it again.
func (w *work) closeNode(ctx context.Context) error {
	denied, err := w.writeNode(ctx, failing, "close node", func() func(context.Context) (policy.Node, error) {
		if w.back() != "" || !w.fenced() || w.node.Closed {
			return nil
		}
		return func(ctx context.Context) (policy.Node, error) {
			n, err := w.e.cluster.CloseNode(ctx, w.node)
			if errors.Is(err, ErrForbidden) {
				err = fmt.Errorf("%w: %v", ErrDenied, err) // pods do not wait until that is believed; the next late pod tries again
			}
			return n, err
		}
	})
	if denied != nil {
		w.log.Warn("pods that tolerate every taint may come to the dead node again", "node", w.node.Name, "err", denied)
	}
	return err
}

// inService removes our out-of-service taint. Nobody else ever would, and a node that comes back with it loses the volumes
// of its new pods.
func (w *work) inService(ctx context.Context) error {
	no, mark := false, w.mark(false)
	denied, err := w.patchNode(ctx, tidying, func() *NodePatch {
		if w.node.Mark.Death != w.name || !w.node.Mark.OutOfService {
			return nil
		}
		return &NodePatch{OutOfService: &no, Mark: &mark}
	})
	if denied != nil {
		w.log.Error("node left out of service", "node", w.node.Name, "err", denied)
	}
	return err
}

// patchNode applies the patch that want returns for the Node as it was read last, nil for none. If the Node has changed, it
// is read again and want is called again.
func (w *work) patchNode(ctx context.Context, u urgency, want func() *NodePatch) (denied, err error) {
	return w.writeNode(ctx, u, "patch node", func() func(context.Context) (policy.Node, error) {
		patch := want()
		if patch == nil {
			return nil
		}
		return func(ctx context.Context) (policy.Node, error) { return w.e.cluster.PatchNode(ctx, w.node, *patch) }
	})
}

// writeNode makes the write that want returns for the Node as it was read last, nil for none. If the Node has changed, it is
// read again and want is called again.
func (w *work) writeNode(ctx context.Context, u urgency, what string, want func() func(context.Context) (policy.Node, error)) (denied, err error) {
	for again := pauses(0); ; {
		write := want()
		if w.lookup != policy.Found || write == nil {
			return nil, nil
		}
		err := w.try(ctx, u, what, func(ctx context.Context) error {
			n, err := write(ctx)
			if err == nil {
				w.node = n
			}
			return err
		})
		switch {
		case err == nil:
			return nil, nil
		case errors.Is(err, ErrConflict), errors.Is(err, ErrNotFound):
			if err := w.readAgain(ctx, keeping, &again); err != nil {
				return nil, err
			}
		case answered(err):
			return err, nil
		default:
			return nil, err
		}
	}
}
