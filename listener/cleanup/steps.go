package cleanup

import (
	"context"
	"fmt"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

const (
	// volumesEvery and returnEvery are how often attachments and a node that may come back, or is about to go, are looked at.
	volumesEvery = 500 * time.Millisecond
	returnEvery  = 3 * time.Second
	// finalizersFor is how long a Node whose deletion was asked for may wait for finalizers before the work on its death ends.
	finalizersFor = 10 * time.Minute
)

// back says why the Node, as it was read last, is not the dead one any more: a sentence, empty while it is.
func (w *work) back() string {
	switch {
	case w.lookup != policy.Found:
		return "the node is gone"
	case w.node.UID != w.death.NodeUID:
		return "the node was registered again"
	case w.node.BootID != w.death.Boot:
		return "the node is back on boot " + w.node.BootID
	}
	return ""
}

// execute does the steps of the plan that are not done, in order, up to one that has to wait: then it says how long.
func (w *work) execute(ctx context.Context) (again time.Duration, err error) {
	p := w.plan()
	if err := w.welcome(ctx); err != nil {
		return 0, err
	}
	for _, s := range p.Steps {
		done := w.death.Step(s.Name).Done
		if s.Name == policy.StepList {
			done = w.listed
		}
		if done {
			continue
		}
		note, again, err := w.doStep(ctx, p, s.Name)
		if err != nil {
			return 0, err
		}
		if again > 0 {
			return again, w.meanwhile(ctx, p, s.Name)
		}
		if note == "" {
			continue // fence: done before, or denied for good
		}
		w.step(s.Name, true, "%s", note)
		// After a crash the other steps can be seen again in the cluster. A hundred nodes at once are spared these writes.
		if s.Name == policy.StepFail || s.Name == policy.StepDelete || s.Name == policy.StepInstance {
			if err := w.save(ctx, tidying); err != nil {
				return 0, err
			}
		}
		if s.Name == policy.StepFail {
			if err := w.namePods(ctx); err != nil {
				return 0, err
			}
		}
	}
	if w.death.Phase = policy.Cleaned; w.denied() > 0 {
		w.death.Phase = policy.Incomplete
	}
	return 0, w.complete(ctx, tidying)
}

func (w *work) doStep(ctx context.Context, p policy.Plan, name string) (note string, again time.Duration, err error) {
	switch name {
	case policy.StepFence:
		if ok, err := w.fence(ctx, fencing); err != nil || !ok {
			return "", time.Second, err
		}
	case policy.StepList:
		note, err = w.list(ctx, p)
	case policy.StepFail:
		w.suspect(ctx)
		return w.failPods(ctx, p)
	case policy.StepEvents:
		note = w.emit(p)
	case policy.StepCondition:
		note, err = w.stepCondition(ctx)
	case policy.StepDetach:
		note, err = w.detach(ctx)
	case policy.StepDelete:
		note, err = w.deletePods(ctx, p)
	case policy.StepInstance:
		return w.stepInstance(ctx, p)
	case policy.StepExpire:
		return w.stepExpire(ctx, p)
	case policy.StepNode:
		return w.stepNode(ctx, p)
	}
	return note, 0, err
}

// meanwhile does what must go on while a step waits: it fails pods that come to the dead node late, deletes those that were kept
// long enough, and removes the out-of-service taint as soon as the volumes are detached. The node's own step waits for the volumes
// itself.
func (w *work) meanwhile(ctx context.Context, p policy.Plan, step string) error {
	if step != policy.StepNode && w.back() == "" && w.node.Mark.Death == w.name && w.node.Mark.OutOfService {
		if left, err := w.volumesLeft(ctx, p); err != nil {
			return err
		} else if !left {
			if err := w.inService(ctx); err != nil {
				return err
			}
		}
	}
	if err := w.sweep(ctx, p); err != nil {
		return err
	}
	return w.expire(ctx, p)
}

// welcome lifts the fence of a node that is back on another boot at once, but not before its pods are failed: the new
// kubelet would start them.
func (w *work) welcome(ctx context.Context) error {
	if w.lookup != policy.Found || w.back() == "" || !w.death.Step(policy.StepFail).Done {
		return nil
	}
	if w.node.Mark.Death == w.name {
		w.condition(policy.Fenced, policy.False, "Back", w.back())
	}
	return w.unfence(ctx, w.mark(false))
}

// list reads the node's pods. Nothing after it would be right without them, so a denial is retried.
func (w *work) list(ctx context.Context, p policy.Plan) (string, error) {
	if err := w.readPodsOf(ctx, p.Node); err != nil {
		return "", err
	}
	w.listed = true
	var count [policy.Failed + 1]int
	for _, pod := range w.pods {
		count[policy.CareFor(pod, p.Death, p.Notice.Time)]++
	}
	if !w.death.Step(policy.StepFail).Done { // else some may be deleted by now
		w.death.PodsFailed, w.death.PodsTotal = count[policy.Failed], count[policy.Failed]+count[policy.Fail]
	}
	return fmt.Sprintf("%d pods: %d to fail, %d failed before, %d to annotate, %d to leave alone",
		len(w.pods), count[policy.Fail], count[policy.Failed], count[policy.Annotate], count[policy.Leave]), nil
}

func (w *work) readPodsOf(ctx context.Context, node string) (err error) {
	w.pods, err = insist(ctx, w.calls, failing, listingPods, w.e.cluster.Pods, node)
	return err
}

// namePods writes into the death which pods were on the node.
func (w *work) namePods(ctx context.Context) error {
	if len(w.death.Pods) > 0 || len(w.pods) == 0 {
		return nil
	}
	w.death.NamePods(w.pods)
	out, err := ask(ctx, w.calls, tidying, "name pods", w.e.cluster.AmendDeath, w.death)
	if err == nil && out.UID == w.death.UID && out.Owner == w.death.Owner { // else the next write of the status conflicts, and stops us
		w.death.Version = out.Version
	}
	return unanswered(err)
}

// emit emits the events. It is done once; events are for people.
func (w *work) emit(p policy.Plan) string {
	e := w.e.cluster
	e.Emit(Event{
		Node: w.node, Warning: true, Reason: p.Notice.Cause, Action: "FailPods",
		Note: fmt.Sprintf("%s; %d of %d pods failed over; see nodedeath %s", p.Notice.Reason, w.death.PodsFailed, w.death.PodsTotal, p.Death),
	})
	w.accuse(p)
	failed, owners := map[string]bool{}, map[string]bool{} // by UID
	for _, pod := range w.pods {
		if policy.CareFor(pod, p.Death, p.Notice.Time) != policy.Failed {
			continue
		}
		failed[pod.UID] = true
		w.emitFor(pod, p)
		if !pod.Owned() || owners[pod.Owner.UID] {
			continue
		}
		owners[pod.Owner.UID] = true
		e.Emit(Event{
			Owner: pod.Owner, Namespace: pod.Namespace, Warning: true, Reason: p.Notice.Cause, Action: "FailPods",
			Note: fmt.Sprintf("pod %s and others of this owner on the node failed: %s", pod.Name, p.Notice.Message),
		})
	}
	note := fmt.Sprintf("node, %d pods and %d owners", len(failed), len(owners))
	if w.back() != "" { // the others were not failed, but they may be restarted
		w.emitLosses(w.pods, failed) // from here on, failed belongs to whoever looks at them again
	}
	return note
}

func (w *work) emitFor(pod policy.Pod, p policy.Plan) {
	w.e.cluster.Emit(Event{Pod: pod, Warning: true, Reason: p.Notice.Cause, Action: "FailPods", Note: p.Notice.Message})
}

// stepExpire deletes the kept pods when their time is over.
func (w *work) stepExpire(ctx context.Context, p policy.Plan) (string, time.Duration, error) {
	if left, _ := w.keptFor(p); left > 0 {
		return "", min(left, returnEvery), nil
	}
	note, err := w.deletePods(ctx, p)
	return note, 0, err
}

// expire deletes the pods whose time is over while others are kept, or the node is awaited.
func (w *work) expire(ctx context.Context, p policy.Plan) error {
	if _, over := w.keptFor(p); !over || !w.death.Step(policy.StepDelete).Done {
		return nil
	}
	if _, err := w.deletePods(ctx, p); err != nil {
		return err
	}
	return w.save(ctx, tidying)
}

// keptFor is how long the last of the pods that we have failed is still kept, and whether the time of any is over.
func (w *work) keptFor(p policy.Plan) (last time.Duration, over bool) {
	for _, pod := range w.pods {
		if policy.CareFor(pod, p.Death, p.Notice.Time) == policy.Failed && !w.fate(pod.UID).asked {
			left := w.keptTill(pod, p).Sub(w.e.Now())
			last, over = max(last, left), over || left <= 0
		}
	}
	return last, over
}

// keptTill is until when a pod that we have failed is kept, zero if it is not. PodGC deletes the pods of a Node that is gone, so
// pods that are kept for people only are not kept then.
func (w *work) keptTill(pod policy.Pod, p policy.Plan) time.Time {
	if !pod.Owned() && w.lookup != policy.Found {
		return time.Time{}
	}
	f := w.fate(pod.UID)
	if f.failedAt.IsZero() {
		f.failedAt = w.e.Now()
	}
	return p.KeptTill(pod, f.failedAt)
}
