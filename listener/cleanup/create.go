package cleanup

import (
	"context"
	"errors"
	"fmt"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// putTries is how often a death may turn out to have been created by somebody else, and to give way, before that is an answer.
const putTries = 10

// put creates w.death. Another death of its name that gives way is deleted first. It returns the death that was created or, if that is
// not ours, the one that stays. With fence, it fences at the same time. An error is a denial, or says that ctx has ended.
func (w *work) put(ctx context.Context, u urgency, what string, fence bool) (have policy.Death, ours bool, err error) {
	weaker, found := w.weaker()
	for again := pauses(0); again <= putTries; {
		death, n, asked := w.death, 1, w.e.Now()
		if death.Phase == policy.Recorded {
			death = w.completed() // whoever reads the phase reads why
		}
		if fence {
			n = 2
		}
		answers, err := w.each(ctx, u, what, n, func(ctx context.Context, i int) error {
			if i < n-1 { // the fence goes out first: it is the smaller and the more urgent one
				_ = w.fenceOnce(ctx)
				return nil
			}
			if found {
				_ = w.e.cluster.DeleteDeath(ctx, weaker) // if it has changed, creating ours finds it there
				found = false
			}
			out, err := w.e.cluster.CreateDeath(ctx, death)
			switch {
			case err == nil:
				have = out
				w.compareClocks(asked, out.Created)
			case errors.Is(err, ErrConflict):
				err = errors.New(err.Error()) // a new object cannot have changed: this is a fault of the API server
			case !answered(err):
				w.e.saveState(w.heard)
			}
			return err
		})
		if err != nil {
			return have, false, err
		}
		if err = answers[n-1]; err == nil {
			w.created(have)
			return have, true, nil
		}
		if !errors.Is(err, ErrExists) {
			return have, false, err
		}
		fence = false
		switch have, err = w.readDeath(ctx, w.name); {
		case err != nil && !answered(err):
			return have, false, err
		case err != nil: // it was there a moment ago
		case !have.GivesWay(w.death):
			return have, false, nil
		default:
			w.death.Inherit(have)
			if err := w.deleteDeath(ctx, have); err != nil {
				return have, false, err
			}
		}
		if err := again.wait(ctx); err != nil {
			return have, false, err
		}
	}
	return have, false, fmt.Errorf("create death %s: %w, again and again", w.name, ErrConflict)
}

// weaker is the death in the cache that has our name and gives way. Deleting it before ours is created saves a verified node
// two calls: a creation in vain, and a look at what is there. Anybody may say that a node dies just before it does. What is Recorded is
// no such lie: it stays until the API server has shown that it lets ours be created.
func (w *work) weaker() (d policy.Death, found bool) {
	if w.heard == nil || w.heard.lane != verified {
		return d, false
	}
	d, found = w.e.cluster.CachedDeath(w.name)
	return d, found && d.Phase != policy.Recorded && d.GivesWay(w.death)
}

// deleteDeath deletes a death exactly as it was read. If it has changed, or is gone, the next look finds out.
func (w *work) deleteDeath(ctx context.Context, d policy.Death) error {
	err := w.try(ctx, keeping, "delete weaker death", func(ctx context.Context) error { return w.e.cluster.DeleteDeath(ctx, d) })
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrConflict) {
		return nil
	}
	return err
}

// create puts the death on record and, where that may be, fences. It returns the last decision, which may be another one if that took
// long, and whether the death is ours.
func (w *work) create(ctx context.Context, d policy.Decision) (last policy.Decision, ours bool, err error) {
	fence := d.Fence
	for again := pauses(0); ; fence = false { // reconcile fences again if need be
		w.note(d)
		have, ours, err := w.put(ctx, fencing, creatingDeath, fence)
		if err == nil && !ours && have.Owner == w.e.replica && have.NodeUID == w.first.UID && have.Phase.AtWork() { // created, and the answer was lost
			w.ahead, ours = w.aheadOf(have), true
			w.created(have)
		}
		switch {
		case ours:
			return d, true, nil
		case err == nil && have.NodeUID != "" && have.NodeUID != w.first.UID && w.first.BootID == w.boot():
			var dies policy.Decision
			if dies, err = w.diesAfterAll(ctx); err == nil && dies.Answer != policy.Act && dies.Answer != policy.Hold {
				return d, false, w.leave(ctx, d, have)
			}
			if err == nil {
				d, err = dies, w.deleteDeath(ctx, have)
			}
			if err == nil {
				err = again.wait(ctx)
			}
			if err == nil {
				continue
			}
		case err == nil:
			return d, false, w.leave(ctx, d, have)
		}
		if !answered(err) {
			return d, false, err
		}
		// Nobody may act without a death on record. This is the one denial that is worth waiting for, because people
		// correct rights. A node that turns out to be alive must not stay fenced meanwhile.
		w.log.Error("death not recorded", "death", w.name, "node", w.node.Name, "err", err)
		w.emitWaiting(creatingDeath, err)
		w.e.saveState(w.heard)
		if d, err = w.awaitRights(ctx); err != nil {
			return d, false, err
		}
		switch d.Answer {
		case policy.Refuse:
			return d, false, w.retract(ctx, d)
		case policy.Record: // it is true all the same
			if err := w.unfence(ctx, w.mark(false)); err != nil {
				return d, false, err
			}
		}
	}
}

// note notes the decision in the death that is to be created.
func (w *work) note(d policy.Decision) {
	w.death.Phase, w.death.Decision, w.death.Authority, w.leftOut = firstPhase(d.Answer), d.Why, d.Authority, d.LeftOut
}

// created continues with the death that is on record, whose status may never have been written.
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

// leave leaves the incident to the death that is on record.
func (w *work) leave(ctx context.Context, d policy.Decision, have policy.Death) error {
	w.log.Info("already on record", "death", have.Name, "phase", string(have.Phase), "owner", have.Owner)
	w.e.located(w.heard, have.Name, d.Authority, len(have.Trace))
	// A node that is dead and kept was fenced before this was heard, and stays so, whoever speaks of its death again.
	kept := w.first.Fenced && w.first.Mark.Death == have.Name && w.first.UID == have.NodeUID
	if have.Phase.Finished() && !kept {
		return w.unfence(ctx, w.mark(false))
	}
	return nil
}

// diesAfterAll waits for a witness where the boot has a death on record already, of a former Node of that name. That death
// was false, so what proved it proves nothing, but it must not keep a true one off the record either.
func (w *work) diesAfterAll(ctx context.Context) (d policy.Decision, err error) {
	w.outlived = true
	if err := w.unfence(ctx, w.mark(false)); err != nil {
		return d, err
	}
	if err := w.readNode(ctx, w.urgency()); err != nil {
		return d, err
	}
	return w.awaitAnswer(ctx)
}

// awaitAnswer looks until the answer is not to wait any more.
func (w *work) awaitAnswer(ctx context.Context) (d policy.Decision, err error) {
	for {
		if d, err = w.look(ctx); err != nil || d.Answer != policy.Wait {
			return d, err
		}
		if err := sleep(ctx, lookEvery); err != nil {
			return d, err
		}
		if err := w.readNode(ctx, w.urgency()); err != nil {
			return d, err
		}
	}
}
