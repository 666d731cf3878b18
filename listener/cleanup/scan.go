package cleanup

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

const (
	scanEvery = time.Second
	// takeoverAfter is how long the Lease of an owner may stay unchanged before its deaths are taken over. It starts with the
	// scan that saw the last change and ends with a scan: 8 s at most.
	takeoverAfter = 6 * time.Second
	// orphanAfter is how long a fence may name a death that is not there.
	orphanAfter = 10 * time.Second
	// deletedAtOnce bounds the old deaths deleted in one scan.
	deletedAtOnce = 50
	// sweepFor is how long after a death pods that come to its Node are failed.
	sweepFor = 24 * time.Hour
)

// scan looks for what nobody works on: deaths whose owner fell silent, held deaths that the breaker has room for, fences to
// lift, pods on nodes that stay dead, and old deaths. It decides on what caches say, Leases excepted. The work itself reads
// everything again.
func (e *Engine) scan(ctx context.Context, r *roster, start func(func(context.Context))) {
	reading, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	deaths, err := e.cluster.Deaths(reading)
	marked, markedErr := e.cluster.MarkedNodes(reading)
	replicas, replicasErr := e.cluster.Replicas(reading)
	if err := errors.Join(err, markedErr, replicasErr); err != nil {
		e.log.Debug("deaths, nodes or replicas not read", "err", err)
		r.seen = nil // a replica that could not be observed has not fallen silent
		return
	}
	now, nothing := e.Now(), detect.Incident{}
	e.learn(now, deaths)
	if e.policy.DryRun {
		return
	}
	due := r.due(now, e.replica, deaths, replicas)
	e.noteLiving(r.living(now, e.replica, replicas))
	for _, d := range due {
		e.resume(start, d)
	}
	for _, d := range deaths {
		if d.Phase == policy.Held && (d.Released || e.hasRoom(now, d.Node)) {
			e.resume(start, d)
		}
	}
	for _, n := range marked {
		if onNewBoot(n) {
			e.once(start, "condition of "+n.Name, e.newWork(nothing, e.log), func(ctx context.Context, w *work) error { return w.recovered(ctx, n) })
		}
		d, _ := e.cluster.CachedDeath(n.Mark.Death)
		if d.Node != n.Name {
			d = policy.Death{}
		}
		switch r.fence(now, n, d) {
		case liftFence:
			e.once(start, "fence of "+n.Name, e.newWork(nothing, e.log), func(ctx context.Context, w *work) error { return w.lift(ctx, n) })
		case adoptFence:
			e.once(start, "fence of "+n.Name, e.newWork(nothing, e.log), func(ctx context.Context, w *work) error { return w.adopt(ctx, n) })
		case sweepNode:
			if r.sweepDue(now, d, e.replica) {
				e.once(start, d.Name, e.newWork(incidentOf(d), e.log), func(ctx context.Context, w *work) error { return w.sweepOf(ctx, d) })
			}
		}
	}
	if old := expired(now, e.policy, deaths, marked); len(old) > 0 {
		e.once(start, "old deaths", e.newWork(nothing, e.log), func(ctx context.Context, w *work) error {
			_, err := w.each(ctx, tidying, "delete old deaths", len(old), func(ctx context.Context, i int) error {
				return e.cluster.DeleteDeath(ctx, old[i])
			})
			return err
		})
	}
}

// once starts w on what has that name, unless something of that name is in hand.
func (e *Engine) once(start func(func(context.Context)), name string, w *work, do func(context.Context, *work) error) {
	if e.isInHand(name) {
		return
	}
	start(func(ctx context.Context) {
		w.run(ctx, func(ctx context.Context) error {
			if e.reserve(name, w) != nil {
				return nil
			}
			defer e.release(name, w)
			return do(ctx, w)
		})
	})
}

// resume continues a death, unless this replica works on it.
func (e *Engine) resume(start func(func(context.Context)), d policy.Death) {
	w := e.newWork(incidentOf(d), e.log.With("source", d.Source.String(), "boot", d.Boot))
	if h := e.bestOf(d.Name); h != nil && h.authority >= d.Authority {
		w.heard, w.freed, w.inc = h, true, e.incident(h)
	}
	w.name = d.Name
	e.once(start, d.Name, w, func(ctx context.Context, w *work) error { return w.takeOver(ctx, d) })
}

// learn takes over what other replicas, or this one before it was restarted, found out.
func (e *Engine) learn(now time.Time, deaths []policy.Death) {
	e.mu.Lock()
	defer e.mu.Unlock()
	dead := map[string]bool{}
	for _, d := range deaths {
		acted := d.Phase == policy.Cleaning || d.Phase == policy.Cleaned || d.Phase == policy.Incomplete
		if d.Node != "" && acted && now.Sub(d.Time) < e.policy.Window {
			dead[d.Node] = true
			if e.inHand[d.Name] == nil { // otherwise its work counts it
				e.breaker.Count(d.Time, d.Node, d.Name)
			}
		}
	}
	for _, d := range deaths {
		if d.Phase != policy.Refused {
			continue
		}
		// What is in hand here may be a better incident of the same boot: it is counted until that one is refused, too.
		if !dead[d.Node] && e.inHand[d.Name] == nil && now.Sub(d.Time) < e.policy.Window {
			e.breaker.Forget(d.Node, d.Name)
		}
		if s := d.Step(policy.StepDistrust); s.Done && now.Sub(s.Time) < e.policy.Distrust {
			e.distrust.Add(s.Time, d.Source.Addr(), d.Authority)
		}
	}
}

func (e *Engine) noteLiving(replicas map[string]bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.living = replicas
}

func (e *Engine) hasRoom(now time.Time, node string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.breaker.Room(now, node, e.cluster.NodeCount())
}

// lift unfences a Node whose fence has done its work. The death is read again: a more trusted incident may have taken the
// place of a refused one since, and the fence with it.
func (w *work) lift(ctx context.Context, n policy.Node) error {
	d, err := w.readDeath(ctx, n.Mark.Death)
	if err != nil || !d.Phase.Finished() && d.Phase != policy.Held {
		return unanswered(err)
	}
	w.node = n
	if err := w.readNode(ctx, keeping); err != nil {
		return err
	}
	switch {
	case d.Phase == policy.Refused, d.Phase == policy.Recorded:
		w.death = d
		if err := w.takeBackCondition(ctx); err != nil {
			return err
		}
	case w.node.BootID == n.Mark.Boot:
		return nil
	}
	if w.e.isInHand(n.Mark.Death) {
		return nil // a refused death is about to be replaced: the fence is the new one's already
	}
	return w.unfence(ctx, n.Mark)
}

// adopt creates the death that a fence names and that does not exist. Its replica died before it could create it, or
// somebody deleted it. What the incident proved is lost with it, so a witness is required. When the kernel died is lost, too: the
// condition of its Node says whether the death had been acted on, so that a silence which is older than ours is its own.
func (w *work) adopt(ctx context.Context, n policy.Node) error {
	w.node, w.first = n, n
	if err := w.readNode(ctx, keeping); err != nil || w.lookup != policy.Found {
		return err
	}
	if w.node.Mark != n.Mark {
		return nil
	}
	w.inc = detect.Incident{
		Time: w.e.Now(), Verdict: detect.Dying, Authority: detect.Kernel, Cause: "KernelPanic", Title: n.Mark.Reason,
	}
	w.first = w.node
	w.first.BootID = n.Mark.Boot
	w.proved = w.node.Unhealthy != "" && w.node.Unhealthy == n.Mark.Boot
	death := policy.NewDeath(w.inc, detect.Kernel, w.first)
	if death.Name != n.Mark.Death { // the mark was not written by us for this node
		return w.unfence(ctx, n.Mark)
	}
	if w.reserve(death.Name, detect.Text) != nil {
		return nil
	}
	d := w.judge()
	if d.Answer == policy.Refuse {
		return w.retract(ctx, d)
	}
	death.Phase, death.Decision, death.Owner, death.Started = policy.Pending, d.Why, w.e.replica, w.e.Now()
	w.death = death
	have, err := ask(ctx, w.calls, keeping, "create death", w.e.cluster.CreateDeath, death)
	if err != nil {
		return unanswered(err) // another replica adopted it
	}
	w.created(have)
	return w.reconcileAll(ctx)
}

// sweepOf fails the pods that came to a Node which stays dead after the work on its death is done, and those that the API server would
// not let be failed. If none is left of these, what the Node was kept for is over, and the work goes on.
func (w *work) sweepOf(ctx context.Context, seen policy.Death) error {
	d, err := w.readDeath(ctx, seen.Name)
	if err != nil || d.UID != seen.UID || d.Phase != policy.Cleaned && d.Phase != policy.Incomplete {
		return unanswered(err)
	}
	w.name = d.Name
	w.recall(d)
	w.node = policy.Node{Name: d.Node}
	if err := w.readNode(ctx, tidying); err != nil || w.back() != "" || !w.fenced() || !w.node.Silent || !w.e.policy.ActsOn(w.node) {
		return err
	}
	kept := w.holdsNode() > 0
	changed, err := w.failLate(ctx, policy.NewPlan(w.e.policy, d, w.node))
	if err != nil || !changed {
		return err
	}
	if kept && w.holdsNode() == 0 {
		w.death.Phase, w.death.Owner, w.death.Completed = policy.Pending, w.e.replica, time.Time{}
		for _, step := range []string{policy.StepExpire, policy.StepNode} {
			if w.death.Step(step).Done {
				w.step(step, false, "again: no pod is left that could not be failed")
			}
		}
	}
	return w.save(ctx, tidying)
}

// expired lists the finished deaths that are too old or too many, but none that a fence still names. Refused ones are
// counted apart, so that they never push out others. Nor does a single node or address: the one with most deaths gives up its
// oldest first, and addresses without a Node, of which there is no end, before Nodes.
func expired(now time.Time, p policy.Policy, deaths []policy.Death, marked []policy.Node) (old []policy.Death) {
	type owner struct {
		refused, node bool
		name          string
	}
	kept, byOwner := map[bool]int{}, map[owner][]policy.Death{} // oldest first
	deaths = slices.Clone(deaths)
	slices.SortFunc(deaths, func(a, b policy.Death) int { return a.Created.Compare(b.Created) })
	for _, d := range deaths {
		named := slices.ContainsFunc(marked, func(n policy.Node) bool { return n.Mark.Death == d.Name && n.Name == d.Node })
		if !d.Phase.Finished() || named {
			continue
		}
		if now.Sub(d.Created) > p.KeepRecordsFor {
			old = append(old, d)
			continue
		}
		o := owner{d.Phase == policy.Refused, d.Node != "", cmp.Or(d.Node, d.Source.Addr().String())}
		kept[o.refused]++
		byOwner[o] = append(byOwner[o], d)
	}
	for _, refused := range []bool{true, false} {
		for ; kept[refused] > p.KeepRecords && len(old) < deletedAtOnce; kept[refused]-- {
			var most owner
			for o, of := range byOwner {
				n := len(byOwner[most])
				if o.refused != refused || len(of) == 0 || n > 0 && o.node && !most.node {
					continue
				}
				if n == 0 || most.node && !o.node || len(of) > n || len(of) == n && of[0].Created.Before(byOwner[most][0].Created) {
					most = o
				}
			}
			old = append(old, byOwner[most][0])
			byOwner[most] = byOwner[most][1:]
		}
	}
	return old[:min(len(old), deletedAtOnce)]
}
