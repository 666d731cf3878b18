package cleanup

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// work is what this replica knows of one death it works on. Its fields belong to its goroutine, except those that Engine.mu
// guards.
type work struct {
	calls
	e     *Engine
	inc   detect.Incident // as heard, or as read from the death
	heard *heard          // nil if this replica did not hear it
	name  string          // of the death; reserved

	lookup      policy.Lookup // what the last look-up of the Node came to
	node        policy.Node   // as read last
	first       policy.Node   // as read when the incident was first judged
	lease       policy.Lease
	judged      time.Time           // when it was first judged
	death       policy.Death        // as read or written last
	leftOut     string              // why nothing follows, as policy.Decision.LeftOut
	outlived    bool                // the Node has outlived a death of the same boot: nothing is acted on at once
	proved      bool                // the death was on record as a true one before this replica took it over, or adopted its fence
	listed      bool                // pods were listed by this replica
	pods        []policy.Pod        // on the node
	fates       map[string]*podFate // of pods that are or were on the node, by UID; see fate
	forbiddenAt time.Time           // when the fence was forbidden first
	waited      bool                // an event has said what the fail-over waits for
	askedAt     time.Time           // when the cloud was asked last whether the machine runs
	ended       string              // what it said, if it does not
	sweeps      sweeps              // of the node, while the work goes on
	ahead       time.Duration       // by how much the API server's clock is ahead of ours, zero unless one of them is wrong

	cancel context.CancelCauseFunc
	over   chan struct{} // closed when the work has ended

	// Guarded by Engine.mu.
	authority detect.Authority // on which the death was judged last
	answer    policy.Answer    // what it was judged last
	decisive  bool             // this replica has decided to act; its own goroutine reads that without mu
	freed     bool             // the intake knows that the incident is decided
}

// podFate is what this replica knows of one pod.
type podFate struct {
	became   string    // one of the Pod… words of policy, empty for none yet
	failedAt time.Time // when it was seen to have failed; zero unless it is kept
	asked    bool      // its deletion was asked for
}

func (e *Engine) newWork(inc detect.Incident, log *slog.Logger) *work {
	w := &work{calls: e.calls(log), e: e, inc: inc, over: make(chan struct{}), fates: map[string]*podFate{}}
	w.waits = w.emitWaiting
	return w
}

// fate is what is known of the pod with that UID.
func (w *work) fate(uid string) *podFate {
	f := w.fates[uid]
	if f == nil {
		f = new(podFate)
		w.fates[uid] = f
	}
	return f
}

// run does the work and logs how it ended, unless it is only interrupted.
func (w *work) run(ctx context.Context, do func(context.Context) error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w.e.mu.Lock()
	w.cancel = cancel
	w.e.mu.Unlock()
	err := do(ctx)
	w.e.release(w.name, w)
	close(w.over)
	if err != nil && !errors.Is(err, context.Canceled) {
		w.log.Info("work ended", "death", w.name, "why", err)
	}
}

// giveWay ends the work for a more trusted incident of the same boot, unless it has already decided to act.
func (w *work) giveWay(a detect.Authority) bool {
	w.e.mu.Lock()
	defer w.e.mu.Unlock()
	if w.decisive || a <= w.authority {
		return false
	}
	w.cancel(errSuperseded)
	return true
}

// decidedOnce lets the intake go on with the incident's address.
func (w *work) decidedOnce() {
	w.e.mu.Lock()
	freed := w.freed
	w.freed = true
	w.e.mu.Unlock()
	if w.heard != nil && !freed {
		w.e.intake.done(w.e.Now(), w.heard, w.death.UID == "" || w.death.Phase == policy.Refused)
	}
}

// clocksApart is by how much our clock and the API server's differ if one of them is wrong, and not only an answer late.
const clocksApart = 30 * time.Second

// compareClocks compares our clock with the API server's, which created something since we asked for it first: an earlier attempt may
// have got through, and its answer not. What nodes and control plane say of times is by other clocks than ours, and these go with the
// API server's.
func (w *work) compareClocks(asked, created time.Time) {
	ahead := max(created.Sub(w.e.Now()), min(0, created.Sub(asked)))
	if ahead.Abs() > clocksApart {
		w.ahead = ahead
		w.log.Error("the clocks of this replica and of the API server differ; set them by NTP, deaths are acted on late meanwhile",
			"server", created, "replica", w.e.Now())
	}
}

// aheadOf is by how much the API server's clock was ahead of that of the replica that created d: a negative time if that clock was
// wrong and the incident has its time from it, else zero. A clock that was behind cannot be told from a creation that took long.
func (w *work) aheadOf(d policy.Death) time.Duration {
	if ahead := d.Created.Sub(d.Started); ahead < -clocksApart && w.inc.Time.Sub(d.Time).Abs() < clocksApart {
		return ahead
	}
	return 0
}

// plan says what follows from the death. Its notice has the time of the API server's clock: pods are judged by it.
func (w *work) plan() policy.Plan {
	p := policy.NewPlan(w.e.policy, w.death, w.node)
	p.Notice.Time = w.inc.Time.Add(w.ahead)
	return p
}

// readNode reads the Node again. That it is gone is an answer. A denial is not: it leaves open whether the node is back.
func (w *work) readNode(ctx context.Context, u urgency) error {
	n, err := insist(ctx, w.calls, u, "read node", w.e.cluster.Node, w.node.Name)
	if err == nil {
		w.node = n
	}
	if answered(err) {
		w.lookup = lookup(err)
	}
	return unanswered(err)
}

// readAgain reads the Node again because a write found it changed.
func (w *work) readAgain(ctx context.Context, u urgency, again *pauses) error {
	if err := again.wait(ctx); err != nil {
		return err
	}
	return w.readNode(ctx, u)
}

func (w *work) readDeath(ctx context.Context, name string) (policy.Death, error) {
	return ask(ctx, w.calls, keeping, "read death", w.e.cluster.Death, name)
}

// look looks at the Lease of the Node as it was read last, and judges.
func (w *work) look(ctx context.Context) (policy.Decision, error) {
	if err := w.lookAtLease(ctx); err != nil {
		return policy.Decision{}, err
	}
	return w.judge(), nil
}

// lookAtLease makes one attempt. A missing answer is not a witness, and not worth waiting for.
func (w *work) lookAtLease(ctx context.Context) error {
	if w.lookup != policy.Found {
		return nil
	}
	r, err := askOnce(ctx, w.calls, w.urgency(), w.e.cluster.LeaseRenewed, w.node.Name)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.Missing = errors.Is(err, ErrNotFound)
	w.lease.Look(w.e.Now(), w.inc.Time, r, err)
	return nil
}

// judge decides on what is known now, and applies what the decision means for breaker and distrust.
func (w *work) judge() policy.Decision {
	e := w.e
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.Now()
	if w.judged.IsZero() {
		w.judged = now
	}
	v := policy.View{
		Now: now, Lookup: w.lookup, Node: w.node, First: w.first, Lease: w.lease, Judged: w.judged,
		Heard: w.heard != nil && !w.outlived, Released: w.death.Released, Proved: w.proved, Ended: w.ended,
	}
	if w.heard != nil {
		v.Sum = w.heard.key.sum
	}
	v.Node.SilentSince = v.Node.SilentSince.Add(-w.ahead) // by our clock
	src, node, death := w.inc.Source.Addr(), w.node.Name, policy.NewDeath(w.inc, 0, w.first).Name
	v.Distrusted = e.distrust.Has(now, src, policy.Authority(w.inc, v.Sum, w.first))
	if w.lookup == policy.Found {
		total := e.cluster.NodeCount()
		v.Room, v.Early = e.breaker.Room(now, node, total), e.early.Room(now, node, total)
	}
	d := e.policy.Decide(w.inc, v)
	w.authority, w.answer = d.Authority, d.Answer
	if w.lookup != policy.Found {
		return d
	}
	switch d.Answer {
	case policy.Act:
		e.breaker.Count(now, node, death)
	case policy.Wait, policy.Refuse, policy.Record:
		e.breaker.Forget(node, death)
	}
	if d.Answer == policy.Wait && d.Fence {
		e.early.Count(now, node, death)
	}
	if d.Distrust {
		e.distrust.Add(now, src, d.Authority)
	}
	return d
}

// decided logs a decision and emits its event. It is a warning: a node has died, or somebody says so.
func (w *work) decided(d policy.Decision) {
	w.log.Warn("decided", "death", w.name, "node", w.node.Name, "answer", d.Answer.String(), "authority", d.Authority,
		"why", d.Why, "reason", policy.FirstLine(w.inc.Title))
	if w.lookup != policy.Found || w.e.policy.DryRun {
		return
	}
	switch d.Answer {
	case policy.Refuse:
		w.e.cluster.Emit(Event{Node: w.node, Warning: true, Reason: "KernelPanicRefused", Action: "Refuse", Note: d.Why})
	case policy.Hold:
		w.e.cluster.Emit(Event{Node: w.node, Warning: true, Reason: "KernelPanicHeld", Action: "Hold", Note: d.Why})
	case policy.Record:
		n := policy.NoticeOf(w.death)
		w.e.cluster.Emit(Event{Node: w.node, Warning: true, Reason: n.Cause, Action: "Record", Note: n.Message + "; " + d.Why})
	}
}

// finished logs the end of the work on a death and how long it took.
func (w *work) finished() {
	after := w.e.Now().Sub(w.death.Time)
	w.log.Info("finished", "death", w.death.Name, "node", w.death.Node, "phase", string(w.death.Phase), "after", after)
	w.e.Observer.Finished(w.death.Phase, after)
}
