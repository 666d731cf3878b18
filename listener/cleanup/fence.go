package cleanup

import (
	"cmp"
	"context"
	"errors"
)

// fence taints the Node as it was judged. Again tells that it changed meanwhile and was read anew.
func (j *job) fence(ctx context.Context) (again bool, err error) {
	if j.e.policy.DryRun || (j.node.Fenced && j.node.Mark.Record == j.name) {
		return false, nil
	}
	yes := true
	// An out-of-service taint of an earlier death is still ours to remove.
	err = j.patchNode(ctx, fencing, NodePatch{Fence: &yes, Mark: j.mark(j.node.Mark.OutOfService)})
	switch {
	case err == nil:
		j.ours = true
		j.e.Observer.Fenced(j.e.Now().Sub(j.inc.Time))
		j.step(StepFence, true, "node %s fenced", j.node.Name)
	case errors.Is(err, ErrConflict), errors.Is(err, ErrNotFound):
		return true, j.readNode(ctx, fencing)
	case answered(err):
		j.step(StepFence, false, "denied: %v", err)
	default:
		return false, err
	}
	return false, nil
}

// keepFence puts the fence up again if it is not there any more.
func (j *job) keepFence(ctx context.Context) error {
	for again := true; again && j.found == nil && j.node.BootID == j.rec.Boot; {
		var err error
		if again, err = j.fence(ctx); err != nil {
			return err
		}
	}
	return nil
}

// mark is what the Node is to carry beside the taints.
func (j *job) mark(outOfService bool) *Mark {
	reason := cmp.Or(firstLine(j.inc.Title), j.inc.Cause)
	return &Mark{Record: j.name, Boot: j.boot(), Reason: reason, OutOfService: outOfService}
}

// patchNode patches the Node as it was read.
func (j *job) patchNode(ctx context.Context, u urgency, p NodePatch) error {
	was, is := j.node, Node{}
	err := j.try(ctx, u, "patch node", func(ctx context.Context) (err error) {
		is, err = j.e.cluster.PatchNode(ctx, was, p)
		return err
	})
	if err == nil {
		j.node = is
	}
	return err
}

// unfence takes our taints and our mark off the Node, if the mark is still this job's.
func (j *job) unfence(ctx context.Context) error {
	no := false
	for {
		if err := j.readNode(ctx, keeping); err != nil {
			return err
		}
		if j.found != nil || j.node.Mark.Record != j.name {
			return nil
		}
		patch := NodePatch{Fence: &no, Mark: &Mark{}}
		if j.node.Mark.OutOfService {
			patch.OutOfService = &no
		}
		err := j.patchNode(ctx, keeping, patch)
		switch {
		case err == nil:
			j.log.Info("unfenced", "record", j.name, "node", j.node.Name)
			return nil
		case errors.Is(err, ErrConflict), errors.Is(err, ErrNotFound): // changed or gone: look again
		case answered(err):
			j.log.Error("node not unfenced", "node", j.node.Name, "err", err)
			return nil
		default:
			return err
		}
	}
}

// inService takes our out-of-service taint away. Nobody else ever would, and a node that comes back with it loses the
// volumes of its new pods.
func (j *job) inService(ctx context.Context) error {
	no := false
	for j.found == nil && j.node.Mark.Record == j.name && j.node.Mark.OutOfService {
		err := j.patchNode(ctx, tidying, NodePatch{OutOfService: &no, Mark: j.mark(false)})
		switch {
		case err == nil:
			return nil
		case errors.Is(err, ErrConflict), errors.Is(err, ErrNotFound):
			if err := j.readNode(ctx, keeping); err != nil {
				return err
			}
		case answered(err):
			j.log.Error("node left out of service", "node", j.node.Name, "err", err)
			return nil
		default:
			return err
		}
	}
	return nil
}
