package cleanup

import (
	"context"
	"errors"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// create creates the death and, where that may be, fences at the same time. It returns the last decision, which may be another one
// if that took long, and whether the death is ours: another replica's is left alone, and one that is believed less gives way.
func (w *work) create(ctx context.Context, d policy.Decision) (last policy.Decision, ours bool, err error) {
	creating := 0 // which of the calls it is
	if d.Fence {
		creating = 1 // the fence goes out first: it is the smaller and the more urgent one
	}
	w.note(d)
	var have policy.Death
	for {
		death := w.death
		if death.Phase == policy.Recorded {
			death = w.completed() // whoever reads the phase reads why
		}
		answers, err := w.each(ctx, fencing, creatingDeath, creating+1, func(ctx context.Context, i int) error {
			if i < creating {
				_ = w.fenceOnce(ctx)
				return nil
			}
			out, err := w.e.cluster.CreateDeath(ctx, death)
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
			return d, false, err
		}
		err, creating = answers[creating], 0 // reconcile fences again if need be
		switch {
		case err == nil:
			w.created(have)
			return d, true, nil
		case errors.Is(err, ErrExists):
			if again, ours, err := w.replaceOrLeave(ctx, d); err != nil || !again {
				return d, ours, err
			}
		default:
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
			w.note(d)
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
	undecided := have.Phase == "" || have.Phase == policy.Pending || have.Phase == policy.Held
	weaker := have.Authority < d.Authority && (undecided || have.Phase == policy.Recorded)
	// Stored times are rounded. What was refused at once is what we heard, too, if it was heard at the same time.
	falseAlarm := have.Phase == policy.Refused && (w.inc.Time.Sub(have.Time) > time.Second || have.Authority < d.Authority)
	outlived := false
	if !weaker && !falseAlarm && have.NodeUID != "" && have.NodeUID != w.first.UID && w.first.BootID == w.boot() {
		if outlived, err = w.diesAfterAll(ctx); err != nil {
			return false, false, err
		}
	}
	if weaker || falseAlarm || outlived {
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
			w.note(d)
			return true, nil
		case d.Answer != policy.Wait:
			return false, nil
		}
		if err := sleep(ctx, lookEvery); err != nil {
			return false, err
		}
	}
}
