package cleanup

import (
	"context"
	"fmt"
	"time"
)

const (
	// volumesEvery and returnEvery are how often attachments and a node that may come back are looked at.
	volumesEvery = 500 * time.Millisecond
	returnEvery  = 3 * time.Second
)

// carryOut does the steps of p in order. A step that a record says is done is not repeated; list is, it changes nothing.
func (j *job) carryOut(ctx context.Context, p Plan) error {
	j.log.Info("plan", "record", p.Record, "node", p.Node, "steps", p)
	for _, s := range p.Steps {
		if done, _ := j.rec.stepDone(s.Name); done && s.Name != StepList {
			continue
		}
		note, err := j.carryOutStep(ctx, p, s.Name)
		if err != nil {
			return err
		}
		if note != "" {
			j.step(s.Name, true, "%s", note)
		}
		// Between these nothing is lost that could not be seen again; a hundred nodes at once are spared the writes.
		if s.Name == StepFail || s.Name == StepDelete || s.Name == StepInstance {
			if err := j.save(ctx, tidying); err != nil {
				return err
			}
		}
	}
	j.rec.Phase = Cleaned
	if err := j.save(ctx, tidying); err != nil {
		return err
	}
	j.finished()
	return nil
}

func (j *job) carryOutStep(ctx context.Context, p Plan, name string) (note string, err error) {
	switch name {
	case StepList:
		return j.list(ctx, p)
	case StepFail:
		return j.failPods(ctx, p)
	case StepTell:
		return j.tell(p), nil
	case StepDetach:
		return j.detach(ctx)
	case StepDelete:
		return j.deletePods(ctx, p, p.KeepTill.IsZero())
	case StepInstance:
		return j.settleInstance(ctx, p)
	case StepExpire:
		return j.expire(ctx, p)
	case StepNode:
		return j.settleNode(ctx, p)
	}
	return "", nil // fence and record: done before there was a plan, or denied for good
}

// list reads the node's pods. Without it nothing that follows would be right, so it does not take a denial for an answer.
func (j *job) list(ctx context.Context, p Plan) (string, error) {
	for {
		err := j.try(ctx, failing, "list pods", func(ctx context.Context) (err error) {
			j.pods, err = j.e.cluster.Pods(ctx, p.Node)
			return err
		})
		if err == nil {
			break
		}
		if !answered(err) {
			return "", err
		}
		j.log.Error("cannot list pods", "node", p.Node, "err", err)
		if err := j.sleep(ctx, longestPause); err != nil {
			return "", err
		}
	}
	count := [...]int{leave: 0, annotate: 0, fail: 0, failed: 0}
	for _, pod := range j.pods {
		count[careFor(pod, p.Record, p.Death.Time)]++
	}
	if done, _ := j.rec.stepDone(StepFail); !done { // else some may be deleted by now
		j.rec.PodsDone, j.rec.PodsTotal = count[failed], count[failed]+count[fail]
	}
	return fmt.Sprintf("%d pods: %d to fail, %d failed before, %d to annotate, %d to leave alone",
		len(j.pods), count[fail], count[failed], count[annotate], count[leave]), nil
}

// tell emits the events. It is done once; events are for people.
func (j *job) tell(p Plan) string {
	j.e.cluster.Tell(Event{
		Node: j.node, Warning: true, Reason: p.Death.Code, Action: "FailPods",
		Note: fmt.Sprintf("%s; %d of %d pods failed over; see kernelpanic %s", p.Death.Reason, j.rec.PodsDone, j.rec.PodsTotal, p.Record),
	})
	told := map[string]bool{}
	for _, pod := range j.pods {
		if pod.Owner == (Owner{}) || told[pod.Owner.UID] || careFor(pod, p.Record, p.Death.Time) != failed {
			continue
		}
		told[pod.Owner.UID] = true
		j.e.cluster.Tell(Event{
			Owner: pod.Owner, Namespace: pod.Namespace, Warning: true, Reason: p.Death.Code, Action: "FailPods",
			Note: fmt.Sprintf("pod %s and others of this owner on the node failed: %s", pod.Name, p.Death.Message),
		})
	}
	return fmt.Sprintf("node and %d owners", len(told))
}

// expire deletes the kept pods when their time is over. A node that comes back meanwhile is not kept waiting.
func (j *job) expire(ctx context.Context, p Plan) (string, error) {
	for now := j.e.Now(); now.Before(p.KeepTill); now = j.e.Now() {
		if err := j.sleep(ctx, min(p.KeepTill.Sub(now), returnEvery)); err != nil {
			return "", err
		}
		if err := j.lookForReturn(ctx); err != nil {
			return "", err
		}
		if j.back == "" {
			continue
		}
		if j.found != nil {
			break // PodGC takes every pod of a Node that is gone
		}
		if _, err := j.welcome(ctx); err != nil {
			return "", err
		}
	}
	return j.deletePods(ctx, p, true)
}

// lookForReturn reads the Node again and notes when it is not the dead one any more.
func (j *job) lookForReturn(ctx context.Context) error {
	if err := j.readNode(ctx, keeping); err != nil {
		return err
	}
	switch {
	case j.found != nil:
		j.back = "the node is gone"
	case j.node.UID != j.rec.NodeUID:
		j.back = "the node was registered anew"
	case j.node.BootID != j.rec.Boot:
		j.back = "the node is back on boot " + j.node.BootID
	default:
		j.back = ""
	}
	return nil
}

// rehearse decides as if in earnest, and records what would have been done.
func (j *job) rehearse(ctx context.Context) error {
	d, err := j.weigh(ctx)
	if err != nil {
		return err
	}
	j.decided(d)
	d.Why = fmt.Sprintf("dry run: would %s: %s", d.Answer, d.Why)
	r := j.record(Refused, d)
	if d.Answer == Act {
		p := NewPlan(j.e.policy, j.rec)
		note, err := j.list(ctx, p)
		if err != nil {
			return err
		}
		for _, s := range p.Steps {
			r.Steps = append(r.Steps, StepStatus{Name: s.Name, Time: j.e.Now(), Note: s.What})
			if s.Name == StepList {
				r.Steps[len(r.Steps)-1].Note += ": " + note
			}
		}
		r.PodsTotal = j.rec.PodsTotal
		j.log.Info("dry run", "plan", p.String())
	}
	have, _, err := j.create(ctx, r)
	if answered(err) {
		j.rec = have
		return nil
	}
	return err
}
