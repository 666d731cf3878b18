package cleanup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// detach lets attach/detach drop the node's volumes at once, if it has any. It comes after the fail-over, because a volume
// is dropped only when no live pod wants it.
func (w *work) detach(ctx context.Context) (string, error) {
	volumes, err := w.attachments(ctx)
	if err != nil || volumes == 0 {
		return "no volumes attached", err
	}
	if err := w.readNode(ctx, tidying); err != nil {
		return "", err
	}
	yes, note := true, "node out of service"
	denied, err := w.patchNode(ctx, tidying, func() *NodePatch {
		switch {
		case w.back() != "":
			note = w.back()
		case w.node.OutOfService && !w.node.Mark.OutOfService:
			note = "the node is out of service already"
		case !w.node.OutOfService:
			mark := w.mark(true)
			return &NodePatch{OutOfService: &yes, Mark: &mark}
		}
		return nil
	})
	if denied != nil {
		note = fmt.Sprintf("denied: %v", denied)
	}
	return fmt.Sprintf("%d volumes attached; %s", volumes, note), err
}

// stepNode waits for the volumes and then deletes, awaits or leaves the Node, as planned. Each write names the Node that was
// read: one that is back on a new boot is never deleted.
func (w *work) stepNode(ctx context.Context, p policy.Plan) (note string, again time.Duration, err error) {
	if err := w.readNode(ctx, keeping); err != nil {
		return "", 0, err
	}
	if why := w.back(); why != "" {
		return w.noteSettled(ctx, p, why)
	}
	if !w.e.policy.ActsOn(w.node) {
		w.condition(policy.Settled, policy.True, "Kept", "the node was left out meanwhile")
		return w.kept() + ": the node was left out meanwhile", 0, w.inService(ctx)
	}
	waits, err := w.volumesLeft(ctx, p)
	if err != nil || waits {
		return "", volumesEvery, err
	}
	switch {
	case w.holdsNode() > 0:
		return w.keepNode(ctx)
	case p.Verb == policy.NodeDelete || p.Verb == policy.NodeDeleteClaim:
		return w.deleteNode(ctx, p)
	}
	if err := w.inService(ctx); err != nil {
		return "", 0, err
	}
	if p.Verb == policy.NodeAnnotate {
		w.condition(policy.Settled, policy.True, "Kept", "fenced until it is back on a new boot")
		return "kept, fenced until it is back on a new boot", 0, nil
	}
	left := p.AwaitTill.Sub(w.e.Now())
	if left > 0 {
		return "", min(left, returnEvery), nil
	}
	return w.deleteNode(ctx, p)
}

// keepNode leaves the Node as it is, because of pods that could not be failed.
func (w *work) keepNode(ctx context.Context) (string, time.Duration, error) {
	w.condition(policy.Settled, policy.False, "Kept", "pods could not be failed")
	return fmt.Sprintf("%s: %d pods could not be failed", w.kept(), w.holdsNode()), 0, w.inService(ctx)
}

// noteSettled sets the condition Settled: the Node is gone or back.
func (w *work) noteSettled(ctx context.Context, p policy.Plan, why string) (string, time.Duration, error) {
	w.condition(policy.Settled, policy.True, "Settled", why)
	if w.lookup != policy.Found {
		return why, 0, w.failLeftBehind(ctx, p)
	}
	if w.node.Mark.Death == w.name {
		return "unfenced: " + why, 0, w.welcome(ctx)
	}
	if w.death.Step(policy.StepFence).Done {
		return "unfenced: " + why, 0, nil
	}
	return why, 0, nil
}

// volumesLeft reports whether volumes are attached and there is still time to wait for them.
func (w *work) volumesLeft(ctx context.Context, p policy.Plan) (bool, error) {
	volumes, err := w.attachments(ctx)
	if err != nil {
		return false, err
	}
	since := w.e.Now().Sub(w.death.Step(policy.StepDetach).Time)
	switch {
	case volumes == 0:
		w.condition(policy.VolumesDetached, policy.True, "Detached", "no volumes attached")
		return false, nil
	case since < p.DetachFor:
		return true, nil
	}
	w.log.Warn("volumes still attached", "node", p.Node, "volumes", volumes, "after", p.DetachFor)
	w.condition(policy.VolumesDetached, policy.False, "StillAttached", fmt.Sprintf("%d volumes after %s", volumes, p.DetachFor))
	return false, nil
}

// deleteNode fails the pods that came late, deletes the Node, and fails the pods that were bound to it in between.
func (w *work) deleteNode(ctx context.Context, p policy.Plan) (string, time.Duration, error) {
	if _, err := w.failLate(ctx, p); err != nil {
		return "", 0, err
	}
	if w.holdsNode() > 0 && w.back() == "" {
		return w.keepNode(ctx)
	}
	for again := pauses(0); ; {
		if why := w.back(); why != "" {
			return w.noteSettled(ctx, p, why)
		}
		if w.node.Deleting {
			return w.awaitFinalizers(ctx, w.node)
		}
		dead := w.node
		if p.Verb == policy.NodeDeleteClaim && dead.NodeClaim.Name != "" {
			later, err := w.deleteNodeClaim(ctx, dead)
			if err != nil || later > 0 {
				return "", later, err
			}
			if w.death.Condition(policy.Settled).Status == policy.False {
				return w.kept() + ": " + w.death.Condition(policy.Settled).Message, 0, nil
			}
		}
		err := w.try(ctx, tidying, "delete node", func(ctx context.Context) error { return w.e.cluster.DeleteNode(ctx, dead) })
		switch {
		case err == nil && len(dead.Finalizers) > 0:
			return w.awaitFinalizers(ctx, dead)
		case err == nil:
			w.lookup = policy.NoNode
			w.condition(policy.Settled, policy.True, "Deleted", "the node is deleted")
			return "deleted", 0, w.failLeftBehind(ctx, p)
		case errors.Is(err, ErrNotFound), errors.Is(err, ErrConflict): // changed or gone: look again
			if err := w.readAgain(ctx, keeping, &again); err != nil {
				return "", 0, err
			}
		case answered(err):
			w.condition(policy.Settled, policy.False, "Denied", err.Error())
			return fmt.Sprintf("%s; denied: %v", w.kept(), err), 0, nil
		default:
			return "", 0, err
		}
	}
}

// kept says in what state the Node stays.
func (w *work) kept() string {
	if w.fenced() {
		return "kept and fenced"
	}
	return "kept, and not fenced"
}

// deleteNodeClaim deletes the NodeClaim of a dead Node and waits for the Node to be gone, for a bounded time. If there is no
// such NodeClaim any more, the Node itself is to be deleted: then it returns neither a time nor sets Settled.
func (w *work) deleteNodeClaim(ctx context.Context, dead policy.Node) (again time.Duration, err error) {
	const reason = "NodeClaimDeleted"
	claim := dead.NodeClaim.Name
	if was := w.death.Condition(policy.Settled); was.Reason == reason {
		if w.e.Now().Sub(was.Time) < finalizersFor {
			return returnEvery, nil
		}
		return 0, nil
	}
	if only, err := w.isOnly(ctx, dead.Instance()); err != nil {
		return 0, err
	} else if !only {
		w.condition(policy.Settled, policy.False, "Denied", "not only node "+dead.Name+" says that it is "+dead.Instance())
		return 0, nil
	}
	err = w.try(ctx, tidying, "delete nodeclaim", func(ctx context.Context) error {
		return w.e.cluster.DeleteNodeClaim(ctx, dead, w.name)
	})
	switch {
	case err == nil:
		w.condition(policy.Settled, policy.False, reason, "deletion of nodeclaim "+claim+" asked for; Karpenter deletes the node")
		return returnEvery, w.save(ctx, tidying)
	case errors.Is(err, ErrConflict):
		return volumesEvery, nil
	case errors.Is(err, ErrNotFound):
		return 0, nil
	case answered(err):
		w.condition(policy.Settled, policy.False, "Denied", err.Error())
		return 0, nil
	}
	return 0, err
}

// awaitFinalizers says whose finalizers a Node that is being deleted waits for, and looks again until it is gone, for a
// bounded time. Karpenter, for one, terminates the machine first.
func (w *work) awaitFinalizers(ctx context.Context, n policy.Node) (string, time.Duration, error) {
	const reason = "DeletionAskedFor"
	note := "deletion asked for; the node waits for finalizer " + strings.Join(n.Finalizers, ", ")
	was := w.death.Condition(policy.Settled)
	w.condition(policy.Settled, policy.False, reason, note)
	switch {
	case was.Reason != reason || was.Message != note:
		return "", returnEvery, w.save(ctx, tidying)
	case w.e.Now().Sub(was.Time) < finalizersFor:
		return "", returnEvery, nil
	}
	return note, 0, nil
}

// failLeftBehind fails the pods that were bound to the Node before it was gone. No more can come, and nobody else would fail
// these for a minute.
func (w *work) failLeftBehind(ctx context.Context, p policy.Plan) error {
	for range 5 {
		changed, err := w.failLate(ctx, p)
		if err != nil || !changed || w.lookup == policy.Found {
			return err
		}
		if err := sleep(ctx, volumesEvery); err != nil {
			return err
		}
	}
	return nil
}

func (w *work) attachments(ctx context.Context) (int, error) {
	n, err := ask(ctx, w.calls, tidying, "count attachments", w.e.cluster.Attachments, w.node.Name)
	if errors.Is(err, ErrDenied) {
		w.log.Error("attached volumes unknown", "node", w.node.Name, "err", err)
		return 0, nil
	}
	return n, err
}
