package cleanup

import (
	"context"
	"errors"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// save writes the record and with it the sign of life of its owner. A record that another replica owns by now ends the
// job. How far a cleanup is comes behind the pods of other nodes; a decision does not.
func (j *job) save(ctx context.Context, u urgency) error {
	if j.e.policy.DryRun {
		return nil
	}
	j.writing = true
	defer func() { j.writing = false }()
	for {
		r, out := j.outgoing(), Record{}
		long := j.dirty
		j.dirty = false // more of the trace may arrive meanwhile
		err := j.try(ctx, u, "update record", func(ctx context.Context) (err error) {
			out, err = j.e.cluster.UpdateRecord(ctx, r)
			return err
		})
		j.dirty = j.dirty || (long && err != nil)
		switch {
		case err == nil:
			j.written(out)
			return nil
		case errors.Is(err, ErrConflict):
			have, err := j.readRecord(ctx, r.Name)
			if err == nil {
				err = j.keep(have)
			}
			if err != nil {
				return err
			}
		case errors.Is(err, ErrNotFound):
			return errLost
		case answered(err):
			j.log.Error("record not written", "record", r.Name, "err", err)
			return nil
		default:
			return err
		}
	}
}

// beat shows that the owner lives, if no other job of this replica did so lately, and writes down the rest of the trace.
// That can wait for the pods: a hundred nodes' traces would hold up the fail-over. It makes no more than one attempt, and
// one more if the record changed: the next beat comes soon.
func (j *job) beat(ctx context.Context) {
	amend := j.dirty && !j.failing
	if !j.claimed || j.writing || j.e.policy.DryRun || !(amend || j.e.mustBeat()) {
		return
	}
	j.writing = true
	defer func() { j.writing = false }()
	var out Record
	update := func(ctx context.Context) (err error) {
		out, err = j.e.cluster.UpdateRecord(ctx, j.outgoing())
		return err
	}
	read := func(ctx context.Context) (err error) {
		out, err = j.e.cluster.Record(ctx, j.rec.Name)
		return err
	}
	err := j.once(ctx, keeping, update)
	if errors.Is(err, ErrConflict) {
		if err = j.once(ctx, keeping, read); err == nil {
			err = j.keep(out)
		}
		if err == nil {
			err = j.once(ctx, keeping, update)
		}
	}
	switch {
	case err == nil:
		j.dirty = false
		j.written(out)
	case errors.Is(err, ErrNotFound), errors.Is(err, errLost):
		j.cancel(errLost)
	default:
		j.e.hasBeaten(false)
	}
}

// outgoing is the record as it should read.
func (j *job) outgoing() Record {
	r := j.rec
	r.Owner, r.OwnerSeen = j.e.replica, j.e.Now()
	if j.dirty {
		lengthen(&r, j.inc)
	}
	return r
}

// written takes over what the API server made of a write.
func (j *job) written(out Record) {
	j.rec = out
	j.e.hasBeaten(true)
}

// keep goes on from a record that changed under us, unless it is another's by now.
func (j *job) keep(have Record) error {
	if have.Owner != "" && have.Owner != j.e.replica {
		return errLost
	}
	mine := j.rec
	j.rec = have // a longer trace, a release
	j.rec.Phase, j.rec.Decision, j.rec.Steps = mine.Phase, mine.Decision, mine.Steps
	j.rec.PodsTotal, j.rec.PodsDone = mine.PodsTotal, mine.PodsDone
	return nil
}

// lengthen adds to r what inc, the same incident seen longer, knows better, and reports whether that is anything.
func lengthen(r *Record, inc detect.Incident) bool {
	if len(inc.Trace) <= len(r.Trace) {
		return false
	}
	r.Code, r.Title, r.Fingerprint = inc.Cause, inc.Title, inc.Fingerprint
	r.Remedy, r.Release, r.Trace = inc.Remedy, inc.Release, inc.Trace
	return true
}

// amendment is the job that adds the whole trace to a record after its own job has ended. Every replica that heard it
// does so; the second finds nothing to add. Who is believed less than the record may not add to it.
func (e *Engine) amendment(p past, inc detect.Incident) *job {
	j := e.newJob(inc)
	j.do = func(ctx context.Context) error {
		for {
			r, err := j.readRecord(ctx, p.record)
			if err != nil || p.authority < r.Authority || !lengthen(&r, inc) {
				return err
			}
			err = j.try(ctx, keeping, "amend record", func(ctx context.Context) error {
				_, err := e.cluster.UpdateRecord(ctx, r)
				return err
			})
			if !errors.Is(err, ErrConflict) {
				return err
			}
		}
	}
	return j
}

// mustBeat reports whether this replica has not shown for a while that it lives, and assumes that the caller does so now.
func (e *Engine) mustBeat() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.Now().Sub(e.lastBeat) < heartbeat/2 {
		return false
	}
	e.lastBeat = e.Now()
	return true
}

// hasBeaten notes whether a record was written; if not, the next job has to.
func (e *Engine) hasBeaten(ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if ok {
		e.lastBeat = e.Now()
	} else {
		e.lastBeat = time.Time{}
	}
}
