package cleanup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// record is the Record of this job's incident.
func (j *job) record(phase Phase, d Decision) Record {
	inc := j.inc
	return Record{
		Name:        j.recordName(),
		Node:        j.first.Name,
		NodeUID:     j.first.UID,
		Instance:    cmp.Or(inc.Identity.Instance, j.first.instance()),
		Boot:        j.boot(),
		Source:      inc.Source,
		Time:        inc.Time,
		Code:        inc.Cause,
		Title:       inc.Title,
		Fingerprint: inc.Fingerprint,
		Remedy:      inc.Remedy,
		Release:     inc.Release,
		Authority:   d.Authority,
		Trace:       inc.Trace,
		Phase:       phase,
		Decision:    d.Why,
		Owner:       j.e.replica,
		OwnerSeen:   j.e.Now(),
		Steps:       j.rec.Steps,
	}
}

// claim creates the record of a fenced Node. One replica succeeds and goes on; the others leave it the work.
func (j *job) claim(ctx context.Context, d Decision) error {
	if j.e.policy.DryRun {
		j.rec = j.record(Claimed, d)
		return j.rehearse(ctx)
	}
	j.step(StepRecord, true, "claimed by %s", j.e.replica)
	for {
		have, created, err := j.create(ctx, j.record(Claimed, d))
		switch {
		case errors.Is(err, ErrNotFound): // it was there a moment ago
			if err := j.sleep(ctx, firstPause); err != nil {
				return err
			}
			continue
		case errors.Is(err, ErrDenied):
			// Without a claim nobody may act. It is the one denial that is worth waiting for: people mend rights. But a
			// node that turns out to live does not wait, fenced, with us.
			j.log.Error("cannot claim", "node", j.node.Name, "err", err)
			if err := j.sleep(ctx, longestPause); err != nil {
				return err
			}
			if err := j.readNode(ctx, keeping); err != nil {
				return err
			}
			d, err := j.look(ctx)
			if err != nil {
				return err
			}
			if d.Answer == Refuse {
				return j.retract(ctx, d)
			}
			continue
		case err != nil:
			return err
		case created:
			j.rec, j.claimed = have, true
			d, err := j.weigh(ctx)
			if err != nil {
				return err
			}
			return j.follow(ctx, d)
		case have.Phase == Refused && j.inc.Time.Sub(have.Time) > time.Second: // stored times are rounded
			// A false alarm has the name of this boot. It gives way to a gasp that was not refused at once.
			if err := j.discard(ctx, have); err != nil {
				return err
			}
			continue
		}
		// Another replica's, or done before: a replay cannot repeat it.
		j.rec.Name = have.Name
		j.log.Info("already on record", "record", have.Name, "phase", string(have.Phase), "owner", have.Owner)
		if j.ours && have.Phase == Cleaned {
			return j.unfence(ctx)
		}
		return nil
	}
}

// create creates r or, where it exists, reads it.
func (j *job) create(ctx context.Context, r Record) (have Record, created bool, err error) {
	err = j.try(ctx, keeping, "create record", func(ctx context.Context) (err error) {
		have, err = j.e.cluster.CreateRecord(ctx, r)
		if errors.Is(err, ErrConflict) {
			err = errors.New(err.Error()) // what is not there yet cannot have changed: the API server's own trouble, which passes
		}
		return err
	})
	if !errors.Is(err, ErrExists) {
		j.e.hasBeaten(err == nil)
		return have, err == nil, err
	}
	have, err = j.readRecord(ctx, r.Name)
	return have, false, err
}

func (j *job) readRecord(ctx context.Context, name string) (r Record, err error) {
	err = j.try(ctx, keeping, "read record", func(ctx context.Context) (err error) {
		r, err = j.e.cluster.Record(ctx, name)
		return err
	})
	return r, err
}

func (j *job) discard(ctx context.Context, r Record) error {
	err := j.try(ctx, keeping, "delete refused record", func(ctx context.Context) error {
		return j.e.cluster.DeleteRecord(ctx, r)
	})
	if answered(err) {
		return nil
	}
	return err
}

// retract lifts the fence of an incident that is refused and was never claimed by us. If another replica has claimed it,
// the fence is that one's to lift.
func (j *job) retract(ctx context.Context, d Decision) error {
	have, err := j.readRecord(ctx, j.name)
	switch {
	case err == nil && have.Phase != Refused:
		j.rec.Name = have.Name
		return nil
	case err != nil && !answered(err):
		return err
	}
	if err := j.unfence(ctx); err != nil {
		return err
	}
	return j.turnAway(ctx, d)
}

// turnAway records a gasp that was refused before anything was done. It is no claim, so whoever comes first writes it.
func (j *job) turnAway(ctx context.Context, d Decision) error {
	d.Repeated = d.Repeated || !j.e.roomForRefusal(j.inc)
	j.decided(d)
	if d.Repeated {
		return nil
	}
	j.distrust(d)
	have, created, err := j.create(ctx, j.record(Refused, d))
	if created {
		j.rec = have
		j.finished()
	}
	if answered(err) {
		return nil
	}
	return err
}

// onRecord looks for the record of a death whose Node does not answer any more.
func (j *job) onRecord(ctx context.Context) (bool, error) {
	var records []Record
	err := j.try(ctx, keeping, "read records", func(ctx context.Context) (err error) {
		records, err = j.e.cluster.Records(ctx)
		return err
	})
	if err != nil {
		return false, err
	}
	i := slices.IndexFunc(records, func(r Record) bool {
		same := j.inc.Identity.Boot == r.Boot
		if j.inc.Identity.Boot == "" {
			same = r.Source.Addr() == j.inc.Source.Addr() && j.inc.Time.Sub(r.Time).Abs() < recentFor
		}
		return same && r.Phase != Refused
	})
	if i < 0 {
		return false, nil
	}
	j.rec.Name = records[i].Name
	return true, nil
}

// roomForRefusal bounds the records and events of gasps that are refused at once, one for each source and boot: UDP
// sources and boot ids cost nothing.
func (e *Engine) roomForRefusal(inc detect.Incident) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, first := e.refusals.Admit(e.Now(), fmt.Sprint(inc.Source.Addr(), inc.Identity.Boot), "", 0)
	return first
}

// step notes in the record how far a step is, and says so in the audit log.
func (j *job) step(name string, done bool, format string, args ...any) {
	s := StepStatus{Name: name, Done: done, Time: j.e.Now(), Note: fmt.Sprintf(format, args...)}
	j.log.Info("step", "record", j.name, "node", j.node.Name, "step", name, "done", done, "note", s.Note)
	j.rec.Steps = slices.Clone(j.rec.Steps)
	if i := slices.IndexFunc(j.rec.Steps, func(o StepStatus) bool { return o.Name == name }); i >= 0 {
		j.rec.Steps[i] = s
		return
	}
	j.rec.Steps = append(j.rec.Steps, s)
}

// stepDone reports whether a step is done, and when it was last written about.
func (r Record) stepDone(name string) (done bool, at time.Time) {
	for _, s := range r.Steps {
		if s.Name == name {
			return s.Done, s.Time
		}
	}
	return false, time.Time{}
}
