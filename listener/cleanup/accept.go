package cleanup

import (
	"cmp"
	"context"
	"errors"
	"fmt"

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
	var err error
	w.node, err = ask(ctx, w.calls, u, "find node", w.e.cluster.FindNode, who)
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
	w.death = policy.NewDeath(w.e.incident(w.heard), d.Authority, w.first)
	if err := w.reserve(w.death.Name, d.Authority); err != nil {
		w.e.located(w.heard, w.death.Name, d.Authority, 0)
		return err
	}
	w.death.Owner, w.death.Started = w.e.replica, w.e.Now()
	lines := len(w.death.Trace)
	d, ours, err := w.create(ctx, d)
	if err != nil || !ours {
		return err
	}
	w.e.located(w.heard, w.name, d.Authority, lines)
	w.inc.Trace = nil // it is on record
	if w.death.Phase == policy.Recorded {
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

// retract lifts the fence of an incident that is refused and has no death of ours. If another replica recorded it, the
// fence is that one's to lift.
func (w *work) retract(ctx context.Context, d policy.Decision) error {
	have, err := w.readDeath(ctx, w.name)
	if !answered(err) || err == nil && have.Phase != policy.Refused {
		return err
	}
	if err := w.unfence(ctx, w.mark(false)); err != nil {
		return err
	}
	return w.recordRefusal(ctx, d)
}

// recordRefusal records an incident that was refused before anything was done, unless its address, or all of them, had many
// refused recently. Then it logs some.
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
	w.death.Phase, w.death.Decision = phaseOf(d.Answer), d.Why
	w.noteDistrust(d)
	err := w.record(ctx, "record refusal")
	if err == nil {
		w.finished()
	}
	return unanswered(err)
}

// record creates w.death, which nothing follows from. One that is there already stays.
func (w *work) record(ctx context.Context, what string) error {
	w.death.Owner, w.death.Started = w.e.replica, w.e.Now()
	w.noteComplete()
	_, err := ask(ctx, w.calls, tidying, what, w.e.cluster.CreateDeath, w.death)
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
	d, err := w.awaitAnswer(ctx)
	if err != nil {
		return err
	}
	w.decidedOnce()
	w.decided(d)
	death := policy.NewDeath(w.e.incident(w.heard), d.Authority, w.first)
	w.name = policy.DryRunName(death.Name, death.Boot)
	death.Name, death.Phase = w.name, policy.Refused
	death.Decision = fmt.Sprintf("dry run: would %s: %s", d.Answer, d.Why)
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
	return unanswered(w.record(ctx, "record rehearsal"))
}
