package cleanup

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
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
	weaker, found := w.weaker(ctx, d.Authority)
	var have policy.Death
	for again := pauses(0); ; {
		death := w.death
		if death.Phase == policy.Recorded {
			death = w.completed() // whoever reads the phase reads why
		}
		answers, err := w.each(ctx, fencing, creatingDeath, creating+1, func(ctx context.Context, i int) error {
			if i < creating {
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
				w.compareClocks(out.Created)
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
		replaced := false
		if ours = err == nil; ours {
			w.created(have)
		} else if errors.Is(err, ErrExists) {
			replaced, ours, err = w.replaceOrLeave(ctx, d)
		}
		switch {
		case replaced:
			if err := again.wait(ctx); err != nil {
				return d, false, err
			}
		case err == nil || !answered(err):
			return d, ours, err
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
// one that is there is ours. That it may not be deleted is an error.
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
		if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrConflict) {
			return false, false, err
		}
		return true, false, nil
	}
	if have.Owner == w.e.replica && have.Phase.AtWork() { // created, and the answer was lost
		w.ahead = w.aheadOf(have)
		w.created(have)
		return false, true, nil
	}
	w.log.Info("already on record", "death", have.Name, "phase", string(have.Phase), "owner", have.Owner)
	w.e.located(w.heard, have.Name, d.Authority, len(have.Trace))
	// A node that is dead and kept was fenced before this was heard, and stays so, whoever speaks of its death again.
	kept := w.first.Fenced && w.first.Mark.Death == have.Name && w.first.UID == have.NodeUID
	if have.Phase.Finished() && !kept {
		return false, false, w.unfence(ctx, w.mark(false))
	}
	return false, false, nil
}

// givesWay reports whether a death that has our name is less trusted than ours and decided on nothing, or a false alarm.
func (w *work) givesWay(have policy.Death, a detect.Authority) bool {
	undecided := have.Phase == "" || have.Phase == policy.Pending || have.Phase == policy.Held
	weaker := have.Authority < a && (undecided || have.Phase == policy.Recorded)
	// Stored times are rounded. What was refused at once is what we heard, too, if it was heard at the same time. The clock of who
	// refused it may be ahead of ours.
	falseAlarm := have.Phase == policy.Refused && (w.inc.Time.Sub(have.Time).Abs() > time.Second || have.Authority < a)
	return weaker || falseAlarm
}

// weaker is the death in the cache that has our name and gives way. Deleting it before ours is created saves a verified node
// two calls: a creation in vain, and a look at what is there. Anybody may say that a node dies just before it does. What is Recorded is
// no such lie: it stays until the API server has shown that it lets ours be created.
func (w *work) weaker(ctx context.Context, a detect.Authority) (d policy.Death, found bool) {
	if w.heard.lane != verified {
		return d, false
	}
	deaths, err := w.e.cluster.Deaths(ctx)
	if err != nil {
		return d, false // only the cache is not filled yet
	}
	i := slices.IndexFunc(deaths, func(d policy.Death) bool { return d.Name == w.name })
	if i < 0 || deaths[i].Phase == policy.Recorded || !w.givesWay(deaths[i], a) {
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
