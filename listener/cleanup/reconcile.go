package cleanup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// lookEvery is how often the witness is looked at while one is awaited.
const lookEvery = 2 * time.Second

// takeOver continues a death where its owner left off, if the owner is gone. What this replica did not hear itself waits for
// the witness, whatever the death says.
func (w *work) takeOver(ctx context.Context, seen policy.Death) error {
	have, err := w.readDeath(ctx, seen.Name)
	if err != nil || have.UID != seen.UID || have.Owner != seen.Owner || have.Phase != seen.Phase { // its owner is alive
		return unanswered(err)
	}
	w.recall(have)
	w.proved = have.Phase == policy.Held || have.Phase == policy.Cleaning || have.Step(policy.StepFail).Done
	w.death.Owner = w.e.replica
	switch {
	case w.death.Phase == policy.Held:
		w.death.Phase = policy.Pending
	case w.death.Phase == "" && w.death.OnlyRecorded():
		w.death.Phase, w.death.Decision = policy.Recorded, "the replica that recorded it died before it could say why"
		w.noteComplete()
	}
	if w.ahead = w.aheadOf(have); w.heard == nil {
		w.inc.Time, w.ahead = w.inc.Time.Add(w.ahead), 0
	}
	if now := w.e.Now(); w.heard == nil && w.inc.Time.After(now) {
		w.inc.Time = now // a time in the future must not put off the witness
	}
	if err := w.saveOnce(ctx, keeping); err != nil {
		return unanswered(err) // another replica was faster
	}
	w.log.Info("taken over", "death", have.Name, "node", have.Node, "from", seen.Owner, "phase", string(have.Phase))
	w.first = policy.Node{Name: have.Node, UID: have.NodeUID, BootID: have.Boot}
	w.node = w.first
	if err := w.readNode(ctx, keeping); err != nil {
		return err
	}
	if w.death.Phase == policy.Recorded {
		w.emitRecord(w.podsThen(ctx))
		w.finished()
		return nil
	}
	w.first.Pin, w.first.Claim, w.first.ProviderID, w.first.Silent = w.node.Pin, w.node.Claim, w.node.ProviderID, w.node.Silent
	return w.reconcileAll(ctx)
}

// recall takes over a death as it is on record, and what it says became of its pods.
func (w *work) recall(d policy.Death) {
	w.death = d
	w.death.Trace = nil // it is on record
	for _, o := range d.Outcomes {
		for _, i := range o.Pods {
			if i >= 0 && i < len(d.Pods) {
				w.fates[d.Pods[i].UID] = &podFate{became: o.What, asked: o.What == policy.PodDeleted}
			}
		}
	}
}

// incidentOf makes an incident of a death. It carries no secret, and proves no more than Kernel by itself.
func incidentOf(d policy.Death) detect.Incident {
	inc := detect.Incident{
		Source: d.Source, Time: d.Time, Verdict: detect.Dying, Authority: min(d.Authority, detect.Kernel), Cause: d.Cause,
		Title: d.Reason, Fingerprint: d.Fingerprint, Remedy: d.Remedy, Release: d.Release,
	}
	inc.Identity.Instance = d.Instance
	if d.Authority > detect.Kernel {
		inc.Identity.Boot = d.Boot // else it is what the Node ran, and proves nothing
	}
	return inc
}

// reconcileAll reconciles until nothing is left for this replica to do.
func (w *work) reconcileAll(ctx context.Context) error {
	for {
		again, err := w.reconcile(ctx)
		if err != nil || again == 0 {
			return err
		}
		if err := sleep(ctx, again); err != nil {
			return err
		}
		if err := w.read(ctx); err != nil {
			return err
		}
	}
}

// read reads death and Node again.
func (w *work) read(ctx context.Context) error {
	have, err := w.readDeath(ctx, w.death.Name)
	switch {
	case errors.Is(err, ErrNotFound):
		return errLost
	case err != nil && !answered(err):
		return err
	case err == nil:
		if err := w.rebase(have); err != nil {
			return err
		}
	}
	return w.readNode(ctx, w.urgency())
}

// urgency is that of reads while something is awaited: strangers do not delay the fail-over of others.
func (w *work) urgency() urgency {
	if w.heard != nil && w.heard.lane != verified {
		return failing
	}
	return keeping
}

// reconcile does the next step that the death and the Node call for, as they were read last, writes it down, and returns
// when to look again: 0 for never.
func (w *work) reconcile(ctx context.Context) (again time.Duration, err error) {
	if err := w.lookAtLease(ctx); err != nil {
		return 0, err
	}
	// A decision stands, but a Lease that is renewed after the panic stops what has not been done.
	if w.decisive && !(w.lease.Alive() && w.back() == "") {
		return w.execute(ctx)
	}
	d := w.judge()
	if w.back() != "" {
		// What was started is finished, and nothing on a node that is back is touched.
		if started, err := w.startedBefore(ctx); err != nil {
			return 0, err
		} else if started {
			d.Answer, d.Why, d.Authority = policy.Act, w.death.Decision, w.death.Authority
		}
	}
	switch d.Answer {
	case policy.Wait:
		return lookEvery, w.await(ctx, d)
	case policy.Act:
		if err := w.begin(ctx, d); err != nil {
			return 0, err
		}
		return w.execute(ctx)
	}
	w.decided(d)
	w.death.Phase, w.death.Decision, w.death.Authority = phaseOf(d.Answer), d.Why, d.Authority
	if d.Answer == policy.Hold {
		if ok, err := w.fence(ctx, fencing); err != nil || !ok {
			return lookEvery, err
		}
		// No condition: others drain and replace nodes by it, which is what the breaker is there to prevent.
		if err := w.save(ctx, keeping); err != nil {
			return 0, err
		}
		w.finished()
		return 0, nil
	}
	w.noteDistrust(d)
	w.noteUnfenced()
	if d.Answer == policy.Record {
		if err := w.noteRecorded(ctx, d); err != nil {
			return 0, err
		}
	}
	if err := w.complete(ctx, keeping); err != nil {
		return 0, err
	}
	// If this replica dies first, scan does both.
	if err := w.takeBackCondition(ctx); err != nil {
		return 0, err
	}
	return 0, w.unfence(ctx, w.mark(false))
}

// startedBefore reports whether pods were already failed for this death.
func (w *work) startedBefore(ctx context.Context) (bool, error) {
	if w.death.Step(policy.StepFail).Name != "" {
		return true, nil
	}
	err := w.readPodsOf(ctx, w.death.Node)
	return slices.ContainsFunc(w.pods, func(p policy.Pod) bool { return p.Marked && p.Death == w.name }), err
}

// await fences or unfences while a witness is awaited.
func (w *work) await(ctx context.Context, d policy.Decision) error {
	if err := w.askFate(ctx); err != nil {
		return err
	}
	was := w.death.Phase
	if w.death.Step(policy.StepFail).Name == "" {
		w.death.Phase = policy.Pending
	}
	if w.death.Decision != d.Why || w.death.Phase != was {
		w.log.Info("decided", "death", w.name, "node", w.node.Name, "answer", d.Answer.String(), "authority", d.Authority, "why", d.Why)
		w.death.Decision = d.Why
		if err := w.save(ctx, w.urgency()); err != nil {
			return err
		}
	}
	if d.Fence {
		_, err := w.fence(ctx, w.urgency())
		return err
	}
	return w.unfence(ctx, w.mark(false))
}

// begin writes down the decision to act.
func (w *work) begin(ctx context.Context, d policy.Decision) error {
	w.e.mu.Lock()
	w.decisive = true
	w.e.mu.Unlock()
	if ctx.Err() != nil { // superseded just before
		return context.Cause(ctx)
	}
	w.decided(d)
	written := w.death.Phase == policy.Cleaning
	w.death.Phase, w.death.Decision = policy.Cleaning, d.Why
	if w.heard != nil {
		w.death.Authority = d.Authority
	}
	w.decidedOnce()
	if !written {
		if err := w.save(ctx, keeping); err != nil {
			return err
		}
	}
	w.log.Info("plan", "death", w.name, "node", w.death.Node, "steps", policy.NewPlan(w.e.policy, w.death, w.node))
	return nil
}

// save writes the death's status. A death that another replica owns by now ends the work. Progress is written after other
// nodes' pods; decisions are not.
func (w *work) save(ctx context.Context, u urgency) error {
	for again := pauses(0); ; {
		err := w.saveOnce(ctx, u)
		switch {
		case errors.Is(err, ErrConflict):
			if err := again.wait(ctx); err != nil {
				return err
			}
			have, err := w.readDeath(ctx, w.death.Name)
			if errors.Is(err, ErrNotFound) {
				return errLost
			}
			if err == nil {
				err = w.rebase(have)
			}
			if err != nil {
				return err
			}
		case errors.Is(err, ErrNotFound):
			return errLost
		case err != nil && answered(err):
			w.log.Error("death not updated", "death", w.death.Name, "err", err)
			return nil
		default:
			return err
		}
	}
}

func (w *work) saveOnce(ctx context.Context, u urgency) error {
	out, err := ask(ctx, w.calls, u, "update death", w.e.cluster.UpdateDeath, w.death)
	if err == nil {
		w.death.Version, w.death.Released = out.Version, out.Released
	}
	return err
}

// rebase adopts the version of a death that has changed, unless another replica owns it now.
func (w *work) rebase(have policy.Death) error {
	if have.UID != w.death.UID || (have.Owner != "" && have.Owner != w.e.replica) {
		return errLost
	}
	w.death.Version, w.death.Released = have.Version, have.Released
	return nil
}

// complete writes a death's last status.
func (w *work) complete(ctx context.Context, u urgency) error {
	w.noteComplete()
	if err := w.save(ctx, u); err != nil {
		return err
	}
	w.finished()
	return nil
}

// step sets the status of a step and writes it to the audit log.
func (w *work) step(name string, done bool, format string, args ...any) {
	s := policy.StepStatus{Name: name, Done: done, Time: w.e.Now(), Note: fmt.Sprintf(format, args...)}
	w.log.Info("step", "death", w.name, "node", w.node.Name, "step", name, "done", done, "note", s.Note)
	w.death.SetStep(s)
}

// condition sets a condition of the death.
func (w *work) condition(kind string, s policy.Status, reason, message string) {
	w.death.SetCondition(policy.Condition{Type: kind, Status: s, Reason: reason, Message: message, Time: w.e.Now()})
}

// completed is the death when nothing is left to do.
func (w *work) completed() policy.Death {
	d := w.death
	d.Completed = w.e.Now()
	c := policy.Condition{Type: policy.Complete, Status: policy.True, Message: d.Decision, Time: d.Completed}
	if c.Reason = cmp.Or(w.leftOut, string(d.Phase)); d.Phase == policy.Incomplete {
		c.Status = policy.False
	}
	d.SetCondition(c)
	return d
}

func (w *work) noteComplete() { w.death = w.completed() }

// noteRecorded notes why nothing follows, and names the pods that were on the node: nothing else will be known of them.
func (w *work) noteRecorded(ctx context.Context, d policy.Decision) error {
	w.leftOut = d.LeftOut
	w.pods = w.podsThen(ctx)
	w.emitLosses(w.pods, map[string]bool{})
	return w.namePods(ctx)
}

// noteDistrust puts it on record that the source was contradicted.
func (w *work) noteDistrust(d policy.Decision) {
	if d.Distrust && w.e.policy.Distrust > 0 {
		w.step(policy.StepDistrust, true, "nothing from %s on %v authority fences early for %s",
			w.inc.Source.Addr(), d.Authority, w.e.policy.Distrust)
	}
}
