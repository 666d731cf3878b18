package cleanup

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

const (
	// lookEvery is how often the witnesses are looked at while a second one is wanted.
	lookEvery = time.Second
	// maxRefusals bounds the records of gasps that were refused at once, per replica and Policy.Window.
	maxRefusals = 20
)

// hearing is the job for an incident that was just heard.
func (e *Engine) hearing(inc detect.Incident) *job {
	j := e.newJob(inc)
	j.do = j.hear
	j.log = e.log.With("source", inc.Source.String(), "boot", inc.Identity.Boot)
	return j
}

// hear finds the Node, fences it if the gasp deserves it, and claims the incident. What reads the Node judges it anew.
func (j *job) hear(ctx context.Context) error {
	if err := j.find(ctx); err != nil {
		return err
	}
	if errors.Is(j.found, ErrNotFound) {
		// The Node may be gone because another replica has cleaned it up already.
		if done, err := j.onRecord(ctx); done || err != nil {
			return err
		}
	}
	d, err := j.secure(ctx)
	switch {
	case err != nil:
		return err
	case d.Answer == Refuse:
		return j.turnAway(ctx, d)
	}
	return j.claim(ctx, d)
}

// secure fences the Node if what is known so far deserves it. Whatever changes the Node meanwhile leads to a new judgement.
func (j *job) secure(ctx context.Context) (Decision, error) {
	for {
		d := j.judge()
		if d.Answer == Refuse {
			return d, nil
		}
		if j.name == "" {
			name := j.recordName()
			if other := j.e.begin(name, j); other != nil {
				j.rec.Name = name // where the rest of the trace goes
				other.hearMore(j.inc)
				return d, errElsewhere
			}
			j.name = name
		}
		again, err := j.fence(ctx)
		if err != nil || !again {
			return d, err
		}
	}
}

// find looks the Node up.
func (j *job) find(ctx context.Context) error {
	src := j.inc.Source.Addr()
	j.found = j.try(ctx, fencing, "find node", func(ctx context.Context) (err error) {
		j.node, err = j.e.cluster.FindNode(ctx, j.inc.Identity.Instance, src)
		return err
	})
	if j.found != nil && !answered(j.found) {
		return j.found
	}
	if j.e.policy.DryRun {
		j.node.Pin = j.e.rehearsedPin(src, j.node.Pin)
	}
	j.first = j.node
	return nil
}

// readNode reads the Node again. One that is gone is an answer, too.
func (j *job) readNode(ctx context.Context, u urgency) error {
	var n Node
	err := j.try(ctx, u, "read node", func(ctx context.Context) (err error) {
		n, err = j.e.cluster.Node(ctx, j.node.Name)
		return err
	})
	if err != nil && !answered(err) {
		return err
	}
	if j.found = err; err == nil {
		j.node = n
	}
	return nil
}

// judge decides on what is known now, and counts on the breaker what it does not refuse.
func (j *job) judge() Decision {
	e := j.e
	e.mu.Lock()
	defer e.mu.Unlock()
	v := View{
		Now:      e.Now(),
		Found:    j.found,
		Node:     j.node,
		First:    j.first,
		Lease:    j.lease,
		Released: j.rec.Released,
	}
	v.Distrusted = !j.claimed && e.distrust.Has(v.Now, j.inc.Source.Addr(), Authority(j.inc, j.first))
	if j.found == nil {
		var counted bool
		v.Room, counted = e.breaker.Admit(v.Now, j.node.Name, j.recordName(), e.cluster.NodeCount())
		j.counted = j.counted || counted
	}
	d := e.policy.Decide(j.inc, v)
	switch {
	case d.Answer == Refuse && j.found == nil && j.counted: // what another gasp of the node counted stays
		e.breaker.Forget(j.node.Name, j.recordName())
		j.counted = false
	case d.Answer == Act && v.Released:
		e.breaker.Count(v.Now, j.node.Name, j.recordName())
	}
	if d.Distrust {
		e.distrust.Add(v.Now, j.inc.Source.Addr(), d.Authority)
	}
	return d
}

// weigh looks at the witnesses until the decision is final.
func (j *job) weigh(ctx context.Context) (Decision, error) {
	for looks := 0; ; looks++ {
		if looks > 0 {
			if err := j.sleep(ctx, lookEvery); err != nil {
				return Decision{}, err
			}
			if err := j.readNode(ctx, keeping); err != nil {
				return Decision{}, err
			}
		}
		d, err := j.look(ctx)
		if err != nil || d.Answer != Wait {
			return d, err
		}
		if looks == 0 {
			j.log.Info("decided", "node", j.node.Name, "answer", d.Answer.String(), "authority", d.Authority, "why", d.Why)
		}
	}
}

// look takes a look at the Lease of the Node as it was read last, and judges.
func (j *job) look(ctx context.Context) (Decision, error) {
	if j.found == nil {
		var renewed time.Time
		var duration time.Duration
		err := j.once(ctx, keeping, func(ctx context.Context) (err error) {
			renewed, duration, err = j.e.cluster.LeaseRenewed(ctx, j.node.Name)
			return err
		})
		if ctx.Err() != nil {
			return Decision{}, context.Cause(ctx)
		}
		j.lease.Look(j.e.Now(), j.inc.Time, renewed, duration, err)
	}
	return j.judge(), nil
}

// follow does what a final decision on a claimed incident asks for.
func (j *job) follow(ctx context.Context, d Decision) error {
	j.decided(d)
	j.rec.Decision, j.rec.Authority = d.Why, d.Authority
	j.distrust(d)
	switch d.Answer {
	case Refuse:
		j.rec.Phase = Refused
		if err := j.save(ctx, keeping); err != nil {
			return err
		}
		if err := j.unfence(ctx); err != nil { // if this is the last we do, watch lifts the fence
			return err
		}
	case Hold:
		j.rec.Phase = Held
		if err := j.save(ctx, keeping); err != nil {
			return err
		}
	case Act:
		return j.carryOut(ctx, NewPlan(j.e.policy, j.rec))
	}
	j.finished()
	return nil
}

// decided tells log, metrics and people of a final decision.
func (j *job) decided(d Decision) {
	j.log.Info("decided", "node", j.node.Name, "answer", d.Answer.String(), "authority", d.Authority, "why", d.Why,
		"reason", firstLine(j.inc.Title), "lines", len(j.inc.Trace))
	j.e.Observer.Decided(d)
	if j.found != nil || d.Repeated || j.e.policy.DryRun {
		return
	}
	switch d.Answer {
	case Refuse:
		j.e.cluster.Tell(Event{Node: j.node, Warning: true, Reason: "KernelPanicRefused", Action: "Refuse", Note: d.Why})
	case Hold:
		j.e.cluster.Tell(Event{Node: j.node, Warning: true, Reason: "KernelPanicHeld", Action: "Hold", Note: d.Why})
	}
}

// distrust puts it on record that the source was contradicted.
func (j *job) distrust(d Decision) {
	if d.Distrust && j.e.policy.Distrust > 0 {
		j.step(StepDistrust, true, "source %s is not believed on %v authority for %s", j.inc.Source.Addr(), d.Authority, j.e.policy.Distrust)
	}
}

// finished tells how long it all took.
func (j *job) finished() {
	after := j.e.Now().Sub(j.rec.Time)
	j.log.Info("finished", "record", j.rec.Name, "node", j.rec.Node, "phase", string(j.rec.Phase), "after", after)
	j.e.Observer.Finished(j.rec.Phase, after)
}

// boot is the boot that panicked: the gasp's word or, from kernels before 6.9, what the Node ran when it was heard.
func (j *job) boot() string { return cmp.Or(j.inc.Identity.Boot, j.first.BootID) }

// recordName falls back on the Node's UID where nobody knows a boot id.
func (j *job) recordName() string {
	node := j.first.Name
	if node == "" {
		node = j.inc.Source.Addr().String()
	}
	return RecordName(node, cmp.Or(j.boot(), j.first.UID))
}
