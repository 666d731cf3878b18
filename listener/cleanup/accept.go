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

// What ends the work on a death early.
var (
	errLost       = errors.New("another replica owns the death now, or it was deleted")
	errElsewhere  = errors.New("this replica already works on the death")
	errSuperseded = errors.New("a more trusted incident of the same boot was heard")
)

// accept is the only way from an incident to a NodeDeath: it finds the Node, creates the death and fences. Everything after
// that is reconcile.
func (e *Engine) accept(ctx context.Context, h *heard) {
	inc := e.incident(h)
	w := e.newWork(inc, e.log.With("source", inc.Source.String(), "boot", inc.Identity.Boot))
	w.heard = h
	w.run(ctx, func(ctx context.Context) error {
		if err := w.find(ctx); err != nil {
			return err
		}
		if e.policy.DryRun {
			return w.rehearse(ctx)
		}
		return w.accept(ctx)
	})
	w.decidedOnce()
	if ctx.Err() != nil {
		return // interrupted, not done
	}
	e.mu.Lock()
	h.over = true
	later, refused := h.later, w.answer == policy.Refuse
	h.later = nil
	e.account(h)
	e.mu.Unlock()
	e.forgetState(h)
	if later != nil && refused && !e.intake.put(&heard{key: h.key, lane: h.lane, inc: *later}) {
		w.log.Error("no room for a later alarm of an incident that was refused", "node", w.node.Name)
	}
}

// find looks the Node up.
func (w *work) find(ctx context.Context) error {
	inc, u := w.inc, fencing
	if w.heard.lane != verified {
		u = w.urgency()
	}
	who := Sender{Instance: inc.Identity.Instance, Boot: w.heard.key.boot, Sum: w.heard.key.sum, Addr: inc.Source.Addr()}
	err := w.try(ctx, u, "find node", func(ctx context.Context) (err error) {
		w.node, err = w.e.cluster.FindNode(ctx, who)
		return err
	})
	if w.lookup = lookup(err); err != nil && !answered(err) {
		return err
	}
	if w.e.policy.DryRun {
		w.node.Claim = w.e.rehearsedClaim(inc.Source.Addr(), w.node.Claim)
	}
	w.first = w.node
	return nil
}

// lookup is what an answer to the look-up of a Node means.
func lookup(err error) policy.Lookup {
	switch {
	case err == nil:
		return policy.Found
	case errors.Is(err, ErrAmbiguous):
		return policy.Ambiguous
	case errors.Is(err, ErrDenied):
		return policy.Denied
	}
	return policy.NoNode
}

// accept judges for the first time, creates the death, and fences where the decision allows it.
func (w *work) accept(ctx context.Context) error {
	if w.lookup == policy.NoNode {
		// The Node may be gone because another replica has cleaned up already.
		if name, a := w.onRecord(ctx); name != "" {
			w.e.located(w.heard, name, a, len(w.inc.Trace))
			return nil
		}
	}
	d := w.judge()
	if d.Answer == policy.Refuse {
		return w.recordRefusal(ctx, d)
	}
	death := policy.NewDeath(w.e.incident(w.heard), d.Authority, w.first)
	if err := w.reserve(death.Name, d.Authority); err != nil {
		w.e.located(w.heard, death.Name, d.Authority, 0)
		return err
	}
	death.Phase, death.Decision = firstPhase(d.Answer), d.Why
	death.Owner, death.Started = w.e.replica, w.e.Now()
	w.death = death
	if w.leftOut = d.LeftOut; death.Phase == policy.Recorded {
		w.noteComplete() // nothing is left to do, and whoever reads the phase reads why
	}
	ours, err := w.create(ctx, d)
	if err != nil || !ours {
		return err
	}
	w.e.located(w.heard, death.Name, d.Authority, len(death.Trace))
	w.inc.Trace = nil // it is on record
	if death.Phase == policy.Recorded {
		w.decided(d)
		if err := w.noteRecorded(ctx, d); err != nil {
			return err
		}
		return w.complete(ctx, keeping)
	}
	return w.reconcileAll(ctx)
}

// phaseOf is the phase that an answer leads to.
func phaseOf(a policy.Answer) policy.Phase {
	return [...]policy.Phase{
		policy.Refuse: policy.Refused, policy.Wait: policy.Pending, policy.Record: policy.Recorded,
		policy.Hold: policy.Held, policy.Act: policy.Cleaning,
	}[a]
}

// firstPhase is the phase that a death is created in. It is not Held before the fence is up.
func firstPhase(a policy.Answer) policy.Phase {
	if a == policy.Hold {
		return policy.Pending
	}
	return phaseOf(a)
}

// reserve takes the death in hand. Work on a less trusted incident gives way, unless it has decided to act.
func (w *work) reserve(name string, a detect.Authority) error {
	for {
		other := w.e.reserve(name, w)
		if other == nil {
			w.name = name
			return nil
		}
		if !other.giveWay(a) {
			return errElsewhere
		}
		<-other.over
	}
}

// create creates the death and, where that may be, fences at the same time. It reports whether the death is
// ours: another replica's is left alone, and one that is believed less gives way.
func (w *work) create(ctx context.Context, d policy.Decision) (ours bool, err error) {
	creating := 0 // which of the calls it is
	if d.Fence {
		creating = 1 // the fence goes out first: it is the smaller and the more urgent one
	}
	weaker, found := w.weaker(ctx, d.Authority)
	var have policy.Death
	for {
		answers, err := w.each(ctx, fencing, creatingDeath, creating+1, func(ctx context.Context, i int) error {
			if i < creating {
				_ = w.fenceOnce(ctx)
				return nil
			}
			if found {
				_ = w.e.cluster.DeleteDeath(ctx, weaker) // if it has changed, creating ours finds it there
				found = false
			}
			out, err := w.e.cluster.CreateDeath(ctx, w.death)
			switch {
			case err == nil:
				have = out
			case errors.Is(err, ErrConflict):
				err = errors.New(err.Error()) // a new object cannot have changed: this is a fault of the API server
			case !answered(err):
				w.e.saveState(w.heard)
			}
			return err
		})
		if err != nil {
			return false, err
		}
		err, creating = answers[creating], 0 // reconcile fences again if need be
		switch {
		case err == nil:
			w.created(have)
			return true, nil
		case errors.Is(err, ErrExists):
			if again, ours, err := w.replaceOrLeave(ctx, d); err != nil || !again {
				return ours, err
			}
		default:
			// Nobody may act without a death on record. This is the one denial that is worth waiting for, because people
			// correct rights. A node that turns out to be alive must not stay fenced meanwhile.
			w.log.Error("death not recorded", "death", w.name, "node", w.node.Name, "err", err)
			w.emitWaiting(creatingDeath, err)
			w.e.saveState(w.heard)
			if d, err = w.awaitRights(ctx); err != nil {
				return false, err
			}
			if d.Answer == policy.Refuse || d.Answer == policy.Record {
				return false, w.retract(ctx, d)
			}
			w.death.Phase, w.death.Decision, w.death.Authority = firstPhase(d.Answer), d.Why, d.Authority
		}
	}
}

// created goes on from the death as it is on record, also where its status did not get through.
func (w *work) created(have policy.Death) {
	mine := w.death
	w.death = have
	w.death.Trace = nil // it is on record
	w.death.Phase, w.death.Decision, w.death.Owner, w.death.Started = mine.Phase, mine.Decision, mine.Owner, mine.Started
	w.noteFence()
}

// awaitRights waits, judges again, and fences if that decision allows it.
func (w *work) awaitRights(ctx context.Context) (d policy.Decision, err error) {
	if err := sleep(ctx, longestPause); err != nil {
		return d, err
	}
	if err := w.readNode(ctx, keeping); err != nil {
		return d, err
	}
	if d, err = w.look(ctx); err != nil || d.Answer == policy.Refuse || d.Answer == policy.Record {
		return d, err
	}
	if d.Fence {
		_, err = w.fence(ctx, w.urgency())
	}
	return d, err
}

// replaceOrLeave decides about the death that has our name already. It says whether to create ours again, else whether the
// one that is there is ours.
func (w *work) replaceOrLeave(ctx context.Context, d policy.Decision) (again, ours bool, err error) {
	have, err := w.readDeath(ctx, w.name)
	switch {
	case errors.Is(err, ErrNotFound):
		return true, false, sleep(ctx, firstPause) // it was there a moment ago
	case err != nil && answered(err):
		return true, false, sleep(ctx, longestPause)
	case err != nil:
		return false, false, err
	}
	givesWay, outlived := w.givesWay(have, d.Authority), false
	if !givesWay && have.NodeUID != "" && have.NodeUID != w.first.UID && w.first.BootID == w.boot() {
		if outlived, err = w.diesAfterAll(ctx); err != nil {
			return false, false, err
		}
	}
	if givesWay || outlived {
		err := w.try(ctx, keeping, "delete weaker death", func(ctx context.Context) error {
			return w.e.cluster.DeleteDeath(ctx, have)
		})
		if err != nil && !answered(err) {
			return false, false, err
		}
		return true, false, nil
	}
	if have.Owner == w.e.replica && have.Phase.AtWork() { // created, and the answer was lost
		w.created(have)
		return false, true, nil
	}
	w.log.Info("already on record", "death", have.Name, "phase", string(have.Phase), "owner", have.Owner)
	w.e.located(w.heard, have.Name, d.Authority, len(have.Trace))
	if have.Phase.Finished() {
		return false, false, w.unfence(ctx, w.mark(false))
	}
	return false, false, nil
}

// givesWay reports whether a death that has our name is less trusted than ours and decided on nothing, or a false alarm.
func (w *work) givesWay(have policy.Death, a detect.Authority) bool {
	undecided := have.Phase == "" || have.Phase == policy.Pending || have.Phase == policy.Held
	weaker := have.Authority < a && (undecided || have.Phase == policy.Recorded)
	// Stored times are rounded. What was refused at once is what we heard, too, if it was heard at the same time.
	falseAlarm := have.Phase == policy.Refused && (w.inc.Time.Sub(have.Time) > time.Second || have.Authority < a)
	return weaker || falseAlarm
}

// weaker is the death in the cache that has our name and gives way. Deleting it before ours is created saves a verified node
// two calls: a creation in vain, and a look at what is there. Anybody may say that a node dies just before it does.
func (w *work) weaker(ctx context.Context, a detect.Authority) (d policy.Death, found bool) {
	if w.heard.lane != verified {
		return d, false
	}
	deaths, err := w.e.cluster.Deaths(ctx)
	if err != nil {
		return d, false // only the cache is not filled yet
	}
	i := slices.IndexFunc(deaths, func(d policy.Death) bool { return d.Name == w.name })
	if i < 0 || !w.givesWay(deaths[i], a) {
		return d, false
	}
	return deaths[i], true
}

// diesAfterAll waits for a witness where the boot has a death on record already, of a former Node of that name. That death
// was false, so what proved it proves nothing, but it must not keep a true one off the record either.
func (w *work) diesAfterAll(ctx context.Context) (bool, error) {
	w.outlived = true
	if err := w.unfence(ctx, w.mark(false)); err != nil {
		return false, err
	}
	for {
		if err := w.readNode(ctx, w.urgency()); err != nil {
			return false, err
		}
		d, err := w.look(ctx)
		switch {
		case err != nil:
			return false, err
		case d.Answer == policy.Act || d.Answer == policy.Hold:
			w.death.Phase, w.death.Decision, w.death.Authority = firstPhase(d.Answer), d.Why, d.Authority
			return true, nil
		case d.Answer != policy.Wait:
			return false, nil
		}
		if err := sleep(ctx, lookEvery); err != nil {
			return false, err
		}
	}
}

// retract lifts the fence of an incident that is refused and has no death of ours. If another replica recorded it, the
// fence is that one's to lift.
func (w *work) retract(ctx context.Context, d policy.Decision) error {
	have, err := w.readDeath(ctx, w.name)
	switch {
	case err == nil && have.Phase != policy.Refused:
		return nil
	case err != nil && !answered(err):
		return err
	}
	if err := w.unfence(ctx, w.mark(false)); err != nil {
		return err
	}
	return w.recordRefusal(ctx, d)
}

// recordRefusal records an incident that was refused before anything was done, unless its address, or all of them, had many
// refused lately. Then it logs some.
func (w *work) recordRefusal(ctx context.Context, d policy.Decision) error {
	e, lane := w.e, strangers // that of a fence, which nobody has heard
	if w.heard != nil {
		lane = w.heard.lane
	}
	e.mu.Lock()
	allowed := e.refusals[lane].Allow(e.Now(), w.inc.Source.Addr())
	logged := !allowed && e.refusalLines.Allow(e.Now(), w.inc.Source.Addr())
	e.mu.Unlock()
	if logged {
		w.log.Info("decided", "node", w.node.Name, "answer", d.Answer.String(), "why", d.Why, "recorded", false)
	}
	if !allowed {
		return nil
	}
	w.decided(d)
	w.death = policy.NewDeath(w.inc, d.Authority, w.first)
	w.death.Phase, w.death.Decision, w.death.Owner, w.death.Started = phaseOf(d.Answer), d.Why, e.replica, e.Now()
	w.noteDistrust(d)
	w.noteComplete()
	err := w.try(ctx, tidying, "record refusal", func(ctx context.Context) error {
		_, err := e.cluster.CreateDeath(ctx, w.death)
		return err
	})
	if err == nil {
		w.finished()
	}
	if answered(err) {
		return nil
	}
	return err
}

// onRecord returns the name of the death of a Node that is gone, from the cache, and how far the incident is believed about
// it. From another address it could be anybody's, because boot ids are not secret.
func (w *work) onRecord(ctx context.Context) (name string, a detect.Authority) {
	deaths, err := w.e.cluster.Deaths(ctx)
	if err != nil {
		return "", detect.Text
	}
	for _, d := range deaths {
		sameAddr := d.Source.Addr() == w.inc.Source.Addr()
		same := w.inc.Identity.Boot == d.Boot
		if w.inc.Identity.Boot == "" {
			same = sameAddr && w.inc.Time.Sub(d.Time).Abs() < heardFor
		}
		switch {
		case !same || d.Phase == policy.Refused:
		case sameAddr:
			return d.Name, w.inc.Authority
		default:
			return d.Name, detect.Text
		}
	}
	return "", detect.Text
}

// mark returns the annotations that go with the taints.
func (w *work) mark(outOfService bool) policy.Mark {
	return policy.Mark{
		Death: w.name, Boot: w.boot(), Reason: cmp.Or(policy.FirstLine(w.inc.Title), w.inc.Cause), OutOfService: outOfService,
	}
}

// boot is the boot that died: the incident's word or, from kernels before 6.9, what the Node ran when it was heard.
func (w *work) boot() string { return cmp.Or(w.inc.Identity.Boot, w.first.BootID) }

// rehearse is the dry run. It decides as usual and writes what would have been done to a NodeDeath under a name of its own:
// the usual name is for replicas that act.
func (w *work) rehearse(ctx context.Context) error {
	d, err := w.look(ctx)
	for ; err == nil && d.Answer == policy.Wait; d, err = w.look(ctx) {
		if err = sleep(ctx, lookEvery); err == nil {
			err = w.readNode(ctx, keeping)
		}
		if err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	w.decidedOnce()
	w.decided(d)
	inc := w.e.incident(w.heard)
	death := policy.NewDeath(inc, d.Authority, w.first)
	w.name = policy.DryRunName(death.Name, death.Boot)
	death.Name, death.Phase, death.Owner = w.name, policy.Refused, w.e.replica
	death.Decision = fmt.Sprintf("dry run: would %s: %s", d.Answer, d.Why)
	death.Started = w.e.Now()
	w.death = death
	if d.Answer == policy.Act {
		p := policy.NewPlan(w.e.policy, death, w.node)
		note, err := w.list(ctx, p)
		if err != nil {
			return err
		}
		for _, s := range p.Steps {
			if s.Name == policy.StepList {
				s.What += ": " + note
			}
			w.death.SetStep(policy.StepStatus{Name: s.Name, Time: w.e.Now(), Note: s.What})
		}
		w.log.Info("dry run", "plan", p.String())
	}
	w.noteComplete()
	err = w.try(ctx, tidying, "record rehearsal", func(ctx context.Context) error {
		_, err := w.e.cluster.CreateDeath(ctx, w.death)
		return err
	})
	if answered(err) {
		return nil
	}
	return err
}
