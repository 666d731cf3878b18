package cleanup

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// detach lets attach/detach drop the node's volumes at once, if it has any. It comes after the fail-over, because a
// volume is dropped only when no live pod wants it.
func (j *job) detach(ctx context.Context) (string, error) {
	volumes, err := j.attachments(ctx)
	if err != nil || volumes == 0 {
		return "no volumes attached", err
	}
	yes := true
	for {
		if err := j.lookForReturn(ctx); err != nil {
			return "", err
		}
		switch {
		case j.back != "":
			return fmt.Sprintf("%d volumes attached; %s", volumes, j.back), nil
		case j.node.OutOfService:
			return fmt.Sprintf("%d volumes attached; the node is out of service already", volumes), nil
		}
		err := j.patchNode(ctx, tidying, NodePatch{OutOfService: &yes, Mark: j.mark(true)})
		switch {
		case err == nil:
			return fmt.Sprintf("%d volumes attached; node out of service", volumes), nil
		case errors.Is(err, ErrConflict), errors.Is(err, ErrNotFound):
		case answered(err):
			return fmt.Sprintf("%d volumes attached; denied: %v", volumes, err), nil
		default:
			return "", err
		}
	}
}

// settleNode waits for the volumes and then does what the plan has for the Node. The Node is read before each write, and
// the write names what was read: one that is back on a new boot is never deleted.
func (j *job) settleNode(ctx context.Context, p Plan) (string, error) {
	if err := j.awaitVolumes(ctx, p); err != nil {
		return "", err
	}
	switch {
	case j.back != "":
		return j.welcome(ctx)
	case j.rec.PodsDone < j.rec.PodsTotal:
		err := j.inService(ctx)
		return fmt.Sprintf("kept and fenced: %d pods could not be failed", j.rec.PodsTotal-j.rec.PodsDone), err
	case p.Verb == NodeDelete:
		return j.deleteNode(ctx)
	}
	if err := j.inService(ctx); err != nil {
		return "", err
	}
	if p.Verb == NodeAnnotate {
		return "kept, fenced until it is Ready on a new boot", nil
	}
	return j.awaitReturn(ctx, p)
}

// awaitVolumes waits until nothing is attached, the time for it is over or the node is not the dead one any more.
func (j *job) awaitVolumes(ctx context.Context, p Plan) error {
	_, since := j.rec.stepDone(StepDetach)
	for {
		if err := j.lookForReturn(ctx); err != nil || j.back != "" {
			return err
		}
		volumes, err := j.attachments(ctx)
		if err != nil || volumes == 0 {
			return err
		}
		if j.e.Now().Sub(since) >= p.DetachFor {
			j.log.Warn("volumes still attached", "node", p.Node, "volumes", volumes, "after", p.DetachFor)
			return nil
		}
		if err := j.sleep(ctx, volumesEvery); err != nil {
			return err
		}
	}
}

// awaitReturn keeps the node fenced until it is Ready on a new boot, and deletes it when it is not back in time.
func (j *job) awaitReturn(ctx context.Context, p Plan) (string, error) {
	for {
		if err := j.lookForReturn(ctx); err != nil {
			return "", err
		}
		left := p.AwaitTill.Sub(j.e.Now())
		switch {
		case j.back != "" && (j.found != nil || j.node.UID != j.rec.NodeUID || j.node.Ready || left <= 0):
			return j.welcome(ctx)
		case j.back == "" && left <= 0:
			return j.deleteNode(ctx)
		}
		if err := j.sleep(ctx, min(max(left, time.Second), returnEvery)); err != nil {
			return "", err
		}
	}
}

// welcome gives a node that is back to the scheduler: at once if it is Ready, else watch does it when it is.
func (j *job) welcome(ctx context.Context) (string, error) {
	if j.found != nil || j.node.Mark.Record != j.name {
		return j.back, nil
	}
	if j.node.Ready {
		return "unfenced: " + j.back, j.unfence(ctx)
	}
	return "fenced until Ready: " + j.back, j.inService(ctx)
}

func (j *job) deleteNode(ctx context.Context) (string, error) {
	for {
		if err := j.lookForReturn(ctx); err != nil {
			return "", err
		}
		if j.back != "" {
			return j.welcome(ctx)
		}
		dead := j.node
		err := j.try(ctx, tidying, "delete node", func(ctx context.Context) error { return j.e.cluster.DeleteNode(ctx, dead) })
		switch {
		case err == nil:
			return "deleted", nil
		case errors.Is(err, ErrNotFound):
			return "gone already", nil
		case errors.Is(err, ErrConflict): // changed: look again
		case answered(err):
			return fmt.Sprintf("kept and fenced; denied: %v", err), nil
		default:
			return "", err
		}
	}
}

func (j *job) attachments(ctx context.Context) (n int, err error) {
	err = j.try(ctx, tidying, "count attachments", func(ctx context.Context) (err error) {
		n, err = j.e.cluster.Attachments(ctx, j.node.Name)
		return err
	})
	if errors.Is(err, ErrDenied) {
		j.log.Error("attached volumes unknown", "node", j.node.Name, "err", err)
		return 0, nil
	}
	return n, err
}
