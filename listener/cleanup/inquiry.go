package cleanup

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// inquiry is the question how one boot of a node ended, or whether it has.
type inquiry struct {
	policy.Ending
	name      string    // of the death
	began     time.Time // when this replica saw the silence, or the end
	over      time.Time // until when a word may come; zero while it is not known whether the boot has ended
	next      time.Time // look again
	pause     time.Duration
	handed    time.Time // when its death was handed over to be accepted, zero if it was not
	reported  bool      // the watch says that the boot has ended
	silent    bool      // silence is all that says that the boot has ended
	looked    bool      // the pods of a cordoned node were listed
	drained   bool      // they were only those that a drain leaves
	waits     bool      // for room: too many were put on record recently
	recorded  bool      // on silence alone: if the node speaks again, the record was wrong
	yielded   bool      // the replica that owns the death was left to add to it
	concluded bool      // nothing is left to ask
}

// inquire looks once more at how the boot ended, and returns what is known now.
func (e *Engine) inquire(ctx context.Context, q inquiry) inquiry {
	q.pause = min(max(2*q.pause, firstQuestion), lastQuestion)
	q.next = e.Now().Add(q.pause)
	if !e.lookAtPods(ctx, &q) {
		return q
	}
	back, ok := e.whereabouts(ctx, &q)
	switch {
	case !ok:
		return q
	case q.recorded && q.concluded:
		q.concluded = e.withdraw(ctx, q)
		return q
	case q.recorded:
		q.concluded = !q.silent // it is over now, and on record
		return q
	case q.concluded:
		return q
	}
	if !q.waits {
		e.ask(ctx, &q, back)
	}
	now := e.Now()
	switch {
	case ctx.Err() != nil:
	case q.over.IsZero() && q.Console.Verdict == detect.Dying && q.Named && e.policy.ActsOn(q.Node):
		e.handOver(&q)
	case !q.over.IsZero() && (q.Named && q.Console.Verdict == detect.Dying || !now.Before(q.over)):
		done := e.conclude(ctx, &q)
		q.recorded, q.concluded = done && q.silent, done && !q.silent
	case !q.over.IsZero() && q.over.Before(q.next):
		q.next = q.over
	case q.over.IsZero() && now.Sub(cmp.Or(q.Node.SilentSince, q.began)) >= silentForGood && !q.Fate.Hibernated():
		q.end(now, "node "+q.Node.Name+" has been silent since "+q.Node.SilentSince.UTC().Format(time.RFC3339), 0)
		q.silent = true
	}
	return q
}

// conclude puts on record what is known now, and reports whether it is there. It completes a record without the kernel's words.
func (e *Engine) conclude(ctx context.Context, q *inquiry) bool {
	w := e.newWork(detect.Incident{}, e.log.With("boot", q.Boot))
	have, err := w.readDeath(ctx, q.name)
	switch dying := q.Console.Verdict == detect.Dying; {
	case err != nil && !errors.Is(err, ErrNotFound):
		return false
	case err == nil && have.Wordless():
		if have.Cause != netconsole.CauseUnexplained && !(dying && q.Named) {
			return true // it has a cause, and this text may be of another boot
		}
		if have.Owner != e.replica && !q.yielded {
			q.yielded = true // the owner adds to it; if it is gone, the next look does
			return false
		}
		return e.complete(ctx, w.calls, have, q.Death())
	case err == nil && have.Phase != policy.Refused:
		return true
	default:
		if q.waits = !dying && !e.mayRecord(q.Node.Name); q.waits {
			return false
		}
	}
	q.LastCanary = e.lastCanary(q.Node, q.Boot)
	return e.recordDeath(ctx, q.Node, q.Death())
}

// withdraw refuses the death of a node that was silent for good, and is back on the same boot. It reports whether that is on
// record.
func (e *Engine) withdraw(ctx context.Context, q inquiry) bool {
	w := e.newWork(detect.Incident{}, e.log)
	have, err := w.readDeath(ctx, q.name)
	if err != nil || have.Phase != policy.Recorded {
		return answered(err)
	}
	w.name, w.death = have.Name, have
	w.death.Owner = e.replica // which sends the webhook; a former owner may be gone
	w.death.Phase, w.death.Decision = policy.Refused, "node "+have.Node+" is back on the same boot"
	w.noteComplete()
	if err := w.saveOnce(ctx, tidying); err != nil {
		return errors.Is(err, ErrNotFound)
	}
	w.finished()
	return true
}

// end notes that the boot has ended.
func (q *inquiry) end(now time.Time, how string, wait time.Duration) {
	if q.over.IsZero() {
		q.At, q.How, q.over, q.pause, q.next = now, how, now.Add(wait), 0, now
		if since := q.Node.SilentSince; !since.IsZero() && since.Before(now) {
			q.At = since
		}
	}
}

// whereabouts reads the Node again. It returns the boot that the Node runs now instead, empty if it is gone or the same, and
// false if there was no answer.
func (e *Engine) whereabouts(ctx context.Context, q *inquiry) (back string, ok bool) {
	silent := q.silent
	q.silent = false
	n, err := askOnce(ctx, e.calls(e.log), tidying, e.cluster.Node, q.Node.Name)
	now := e.Now()
	switch {
	case errors.Is(err, ErrNotFound):
		q.end(now, "node "+q.Node.Name+" is gone", wordAfterEnd)
	case err != nil:
		q.silent = silent
		return "", false
	case n.BootID == q.Boot && !n.Silent:
		q.concluded = true // it lives
		return "", true
	case n.BootID == q.Boot && !q.over.IsZero() && q.leftInOrder(n) != "":
		return "", false // it is switched off: no questions until it is on again, or its Node gone
	case n.BootID == q.Boot:
		q.Node, q.silent = n, silent
		e.lookAtLastLease(ctx, q)
		return "", true
	case n.UID == q.Node.UID:
		q.Node.Farewell, q.Node.ProviderID = n.Farewell, cmp.Or(q.Node.ProviderID, n.ProviderID)
		q.end(now, "node "+n.Name+" is back on boot "+n.BootID, wordAfterBoot)
		back = n.BootID
	default:
		q.end(now, "node "+n.Name+" was registered again on boot "+n.BootID, wordAfterBoot)
		back = n.BootID
	}
	if why := q.leftInOrder(q.Node); why != "" {
		e.log.Info("boot ended in good order", "node", q.Node.Name, "boot", q.Boot, "why", why)
		q.concluded = true
	}
	return back, true
}

// leftInOrder is n.LeftInOrder, where a drain is an end in good order, too.
func (q *inquiry) leftInOrder(n policy.Node) string {
	if why := n.LeftInOrder(q.Boot, q.At); why != "" || !q.drained {
		return why
	}
	return "it was cordoned and drained"
}

// lookAtPods notes whether the node was drained before its boot ended: once, and at first, because the control plane deletes the
// pods of a node that it does not hear from. It reports false if there was no answer.
func (e *Engine) lookAtPods(ctx context.Context, q *inquiry) bool {
	if q.looked || !q.Node.Unschedulable {
		q.looked = true
		return true
	}
	pods, err := askOnce(ctx, e.calls(e.log), tidying, e.cluster.Pods, q.Node.Name)
	q.looked, q.drained = err == nil, err == nil && policy.Drained(pods)
	return q.looked
}

// lookAtLastLease notes when the kubelet of a silent node renewed its Lease last.
func (e *Engine) lookAtLastLease(ctx context.Context, q *inquiry) {
	if r, err := askOnce(ctx, e.calls(e.log), tidying, e.cluster.LeaseRenewed, q.Node.Name); err == nil {
		q.LastLease = r.At
	}
}

// ask asks the cloud about the machine: its state, and the death that its console shows.
func (e *Engine) ask(ctx context.Context, q *inquiry, back string) {
	id := q.Node.Instance()
	if e.Fates == nil || id == "" || !e.mayAskFate(true) {
		return
	}
	w := e.newWork(detect.Incident{}, e.log)
	w.node = q.Node
	if only, err := w.isOnly(ctx, id); err != nil || !only {
		return
	}
	asking, cancel := context.WithTimeout(ctx, 2*fateTimeout)
	defer cancel()
	f, err := e.Fates.Fate(asking, id)
	if err == nil {
		q.Fate = f
	}
	c, consoleErr := e.Fates.Console(asking, id)
	if err := errors.Join(err, consoleErr); err != nil {
		e.log.Info("the cloud did not answer", "node", q.Node.Name, "instance", id, "err", err)
	}
	now := e.Now()
	if said := q.Fate.Ended(id); said != "" && back == "" {
		q.end(now, said, wordAfterEnd)
	}
	if consoleErr != nil || q.over.IsZero() && !c.Within(q.Node, q.Fate, now) {
		return
	}
	if inc, named, ok := policy.DeathIn(detect.ReadBootLogs(e.Judge, c.Text, false), q.Boot, back); ok {
		inc.Authority, inc.Identity.Boot, inc.Identity.Instance = detect.Text, q.Boot, id
		if named {
			inc.Authority = detect.Cloud
		}
		inc.Time = cmp.Or(q.At, q.Node.SilentSince, now)
		if !c.At.IsZero() && c.At.Before(inc.Time) {
			inc.Time = c.At
		}
		q.Console, q.Named = inc, named
	}
}

// handOver hands the death of a silent node over to be accepted.
func (e *Engine) handOver(q *inquiry) {
	if !q.handed.IsZero() && e.Now().Sub(q.handed) < lastQuestion {
		return
	}
	if hand(e.consoles, console{q.Node, q.Console}) { // else the next look tries again
		q.handed = e.Now()
	}
}
