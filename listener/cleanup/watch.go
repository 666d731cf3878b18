package cleanup

import (
	"context"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

const (
	scanEvery = time.Second
	// patience is how long an owner may fall silent before its records are taken over. It is counted from the scan that saw
	// the last sign of life, and ends with a scan: 8 s at most, which leaves 2 of the 10 s promised for the cleanup itself.
	patience = 6 * time.Second
	// orphanAfter is how long a fence may name a record that is not there.
	orphanAfter = 10 * time.Second
	// deletedAtOnce bounds the old records deleted in one go.
	deletedAtOnce = 50
)

// watch looks, every few seconds, for what nobody works on: records whose owner fell silent or that are held for no
// reason any more, fences to lift, records that are old.
func (e *Engine) watch(ctx context.Context) {
	tick := time.NewTicker(scanEvery)
	defer tick.Stop()
	var r roster
	for {
		e.scan(ctx, &r)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// scan reads from caches and decides; the work is done by jobs, which read everything again.
func (e *Engine) scan(ctx context.Context, r *roster) {
	reading, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	records, err := e.cluster.Records(reading)
	if err != nil {
		e.log.Debug("records not read", "err", err)
		*r = roster{} // who could not be seen did not fall silent
		return
	}
	marked, err := e.cluster.MarkedNodes(reading)
	if err != nil {
		e.log.Debug("marked nodes not read", "err", err)
		return
	}
	now := e.Now()
	e.learn(now, records)
	if e.policy.DryRun {
		return
	}
	for _, rec := range r.due(now, e.replica, records) {
		e.order(ctx, rec.Name, e.resumption(rec))
	}
	for _, rec := range records {
		if rec.Phase == Held && (rec.Released || e.hasRoom(now)) {
			e.order(ctx, rec.Name, e.resumption(rec))
		}
	}
	for _, n := range marked {
		switch r.fence(now, n, records) {
		case lift:
			e.order(ctx, n.Mark.Record, e.lifting(n))
		case adopt:
			e.order(ctx, n.Mark.Record, e.adoption(n))
		}
	}
	if old := expired(now, e.policy, records, marked); len(old) > 0 {
		e.order(ctx, "old records", e.retention(old))
	}
}

// order gives dispatch a job, unless one of that name is at work.
func (e *Engine) order(ctx context.Context, name string, j *job) {
	if e.begin(name, j) != nil {
		return
	}
	j.name = name
	select {
	case e.orders <- j:
	case <-ctx.Done():
		e.end(name)
	}
}

// learn takes over what other replicas, or this one before it was restarted, found out.
func (e *Engine) learn(now time.Time, records []Record) {
	e.mu.Lock()
	defer e.mu.Unlock()
	dead := map[string]bool{}
	for _, r := range records {
		if r.Node != "" && (r.Phase == Claimed || r.Phase == Cleaned) && now.Sub(r.Time) < e.policy.Window {
			dead[r.Node] = true
			// What is claimed and at work here may yet be held: its job counts it if it is let through.
			if r.Phase == Cleaned || e.busy[r.Name] == nil {
				e.breaker.Count(r.Time, r.Node, r.Name)
			}
		}
	}
	for _, r := range records {
		if r.Phase != Refused {
			continue
		}
		// What is at work here may be a better gasp of the same boot: it is counted until that one is refused, too.
		if !dead[r.Node] && e.busy[r.Name] == nil && now.Sub(r.Time) < e.policy.Window {
			e.breaker.Forget(r.Node, r.Name)
		}
		if done, at := r.stepDone(StepDistrust); done && now.Sub(at) < e.policy.Distrust {
			e.distrust.Add(at, r.Source.Addr(), r.Authority)
		}
	}
}

// forget takes a record's death off the breaker.
func (e *Engine) forget(r Record) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.breaker.Forget(r.Node, r.Name)
}

func (e *Engine) hasRoom(now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.breaker.Room(now, e.cluster.NodeCount())
}

// resumption is the job that goes on with a record where its owner left it, if it did.
func (e *Engine) resumption(seen Record) *job {
	inc := detect.Incident{
		Source: seen.Source, Time: seen.Time, Verdict: detect.Dying, Authority: seen.Authority, Cause: seen.Code,
		Title: seen.Title, Fingerprint: seen.Fingerprint, Remedy: seen.Remedy, Release: seen.Release,
	}
	inc.Identity.Instance = seen.Instance
	if seen.Authority > detect.Kernel {
		inc.Identity.Boot = seen.Boot // else it is what the Node ran, and proves nothing
	}
	j := e.newJob(inc)
	j.log = e.log.With("source", seen.Source.String(), "boot", seen.Boot)
	j.do = func(ctx context.Context) error { return j.resume(ctx, seen) }
	return j
}

// resume claims a record and goes on: with the steps if they had begun, else with the judgement.
func (j *job) resume(ctx context.Context, seen Record) error {
	have, err := j.readRecord(ctx, seen.Name)
	if answered(err) && err != nil {
		return nil
	}
	if err != nil {
		return err
	}
	if have.Owner != seen.Owner || !have.OwnerSeen.Equal(seen.OwnerSeen) || have.Phase != seen.Phase {
		return nil // its owner lives
	}
	j.rec = have
	j.rec.Phase = Claimed
	mine := j.outgoing()
	if err := j.try(ctx, keeping, "take over record", func(ctx context.Context) (err error) {
		j.rec, err = j.e.cluster.UpdateRecord(ctx, mine)
		return err
	}); err != nil {
		if answered(err) {
			return nil // somebody else was faster
		}
		return err
	}
	j.claimed = true
	j.e.hasBeaten(true)
	j.log.Info("taken over", "record", j.rec.Name, "node", j.rec.Node, "from", seen.Owner, "phase", string(seen.Phase))

	j.first = Node{Name: have.Node, UID: have.NodeUID, BootID: have.Boot}
	j.node = j.first
	if err := j.readNode(ctx, keeping); err != nil {
		return err
	}
	begun, err := j.begun(ctx)
	if err != nil {
		return err
	}
	if begun {
		return j.carryOut(ctx, NewPlan(j.e.policy, j.rec))
	}
	// Counted when it was another's claim, it would now be let through on its own account.
	j.e.forget(j.rec)
	d, err := j.secure(ctx)
	if err != nil {
		return err
	}
	if d.Answer != Refuse {
		if d, err = j.weigh(ctx); err != nil {
			return err
		}
	}
	return j.follow(ctx, d)
}

// begun reports whether pods were failed already. Then the decision stands, whatever has become of the node since.
func (j *job) begun(ctx context.Context) (bool, error) {
	if done, _ := j.rec.stepDone(StepFail); done {
		return true, nil
	}
	p := NewPlan(j.e.policy, j.rec)
	if _, err := j.list(ctx, p); err != nil {
		return false, err
	}
	for _, pod := range j.pods {
		if pod.Marked && pod.Record == j.rec.Name {
			return true, nil
		}
	}
	return false, nil
}

// lifting is the job that unfences a Node whose fence has done its work. The record is read again: a gasp that is believed
// may have taken the place of the refused one since, and the fence with it.
func (e *Engine) lifting(n Node) *job {
	j := e.newJob(detect.Incident{})
	j.node = n
	j.do = func(ctx context.Context) error {
		r, err := j.readRecord(ctx, n.Mark.Record)
		if answered(err) && (err != nil || r.unfinished()) {
			return nil
		}
		if err != nil {
			return err
		}
		return j.unfence(ctx)
	}
	return j
}

// adoption is the job for a fence that names no record: whoever put it died before it could claim the incident. What
// the gasp proved is lost with it, so that a second witness is wanted.
func (e *Engine) adoption(n Node) *job {
	j := e.newJob(detect.Incident{
		Time: e.Now(), Verdict: detect.Dying, Authority: detect.Kernel, Cause: "KernelPanic", Title: n.Mark.Reason,
	})
	j.node, j.first = n, n
	j.first.BootID = n.Mark.Boot
	j.do = func(ctx context.Context) error {
		if err := j.readNode(ctx, keeping); err != nil {
			return err
		}
		d, err := j.secure(ctx)
		if err != nil {
			return err
		}
		if d.Answer == Refuse {
			return j.retract(ctx, d)
		}
		return j.claim(ctx, d)
	}
	return j
}

// retention is the job that deletes old records.
func (e *Engine) retention(old []Record) *job {
	j := e.newJob(detect.Incident{})
	j.do = func(ctx context.Context) error {
		_, err := j.each(ctx, tidying, "delete old records", len(old), func(ctx context.Context, i int) error {
			return e.cluster.DeleteRecord(ctx, old[i])
		})
		return err
	}
	return j
}
