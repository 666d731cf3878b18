package cleanup

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

const (
	inquireEvery = time.Second
	// inquiries bounds the open ones. When more nodes than that fall silent, the network is what died.
	inquiries       = 4096
	inquiriesAtOnce = 8
	// firstQuestion is how long after a question the cloud is asked again, doubled up to lastQuestion: what EC2 knows of a
	// console is some seconds old.
	firstQuestion = 5 * time.Second
	lastQuestion  = time.Minute
	// wordAfterBoot is how long a node on a new boot has to say itself how the last one ended, wordAfterEnd how long the cloud
	// has to say more about a machine that is gone.
	wordAfterBoot = 5 * time.Minute
	wordAfterEnd  = 2 * time.Minute
	// silentForGood is how long a node must be silent to count as dead without any other sign.
	silentForGood = 30 * time.Minute
	// countedNodes bounds the number of Nodes of which the limit of records is a share.
	countedNodes = 1000
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

// inquireAll finds out, until ctx ends, how boots ended of which nobody has said anything. Which inquiries are open follows from
// the Nodes and their annotations, so a restart loses only boots that ended meanwhile, and invents none.
func (e *Engine) inquireAll(ctx context.Context) {
	if e.policy.DryRun {
		return
	}
	var steps sync.WaitGroup
	defer steps.Wait()
	open := map[string]inquiry{}
	busy := map[string]bool{} // those that are being looked at, and whether the watch says meanwhile that the boot has ended
	results := make(chan inquiry, inquiriesAtOnce)
	tick := time.NewTicker(inquireEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-results:
			if busy[q.name] {
				q.next, q.reported, q.concluded = e.Now(), true, false // it is looked at again
			}
			delete(busy, q.name)
			open[q.name] = q
			if q.concluded {
				delete(open, q.name)
			}
			continue
		case <-tick.C:
		}
		e.openInquiries(ctx, open, busy)
		for name, q := range open {
			if len(busy) == inquiriesAtOnce {
				break
			}
			if _, is := busy[name]; is || q.next.After(e.Now()) {
				continue
			}
			busy[name] = false
			steps.Go(func() { results <- e.inquire(ctx, q) })
		}
	}
}

// openInquiries opens those that the Nodes call for, and closes those that are answered.
func (e *Engine) openInquiries(ctx context.Context, open map[string]inquiry, busy map[string]bool) {
	deaths, err := e.cluster.Deaths(ctx)
	silent, silentErr := e.cluster.SilentNodes(ctx)
	if err := errors.Join(err, silentErr); err != nil {
		e.log.Debug("deaths or nodes not read", "err", err)
		return
	}
	now := e.Now()
	known := make(map[string]bool, len(deaths))
	wordless, theirs := map[string]bool{}, map[string]bool{}
	e.mu.Lock()
	for _, d := range deaths {
		known[d.Name], wordless[d.Name], theirs[d.Name] = d.Phase != policy.Refused, d.Wordless(), e.living[d.Owner]
		if d.Phase == policy.Recorded && d.Cause == netconsole.CauseUnexplained && now.Sub(d.Created) < e.policy.Window {
			e.unexplained.Count(d.Created, d.Node, d.Name) // by another replica, or before a restart
		}
	}
	e.mu.Unlock()
	e.resumeInquiries(deaths, theirs, open, busy)
	begin := func(n policy.Node, ended bool) {
		name := policy.DeathName(n.Name, n.BootID)
		q, is := open[name]
		_, looked := busy[name]
		switch {
		case looked:
			busy[name] = busy[name] || ended
			return
		case known[name] && !(ended && wordless[name]) || e.isInHand(name) || !is && len(open) >= inquiries:
			return
		case !is:
			q = inquiry{name: name, began: now, next: now}
			q.Node, q.Boot = n, n.BootID
		}
		if ended {
			q.next, q.reported = now, true
		}
		open[name] = q
	}
	still := make(map[string]bool, len(silent))
	for _, n := range silent {
		if n.Ours(n.BootID) {
			still[policy.DeathName(n.Name, n.BootID)] = true
			begin(n, false)
		}
	}
	for _, n := range e.cluster.EndedBoots() {
		e.noteLastBoot(n)
		begin(n, true)
	}
	for name, q := range open {
		ended := q.reported || !q.over.IsZero()
		answered := known[name] && !q.recorded && !(ended && wordless[name]) || q.recorded && q.silent && theirs[name]
		if _, looked := busy[name]; (answered || !ended && !still[name]) && !looked {
			delete(open, name)
		}
	}
}

// resumeInquiries reopens what a former run or another replica has put on record without an answer: boots that count as ended only
// because their node was silent, which is wrong if it lives, and boots of which the node has just said that it knows nothing. The
// former may be looked at for months, so only their owner does that while it lives.
func (e *Engine) resumeInquiries(deaths []policy.Death, theirs map[string]bool, open map[string]inquiry, busy map[string]bool) {
	resumed := map[string]bool{}
	for _, d := range deaths {
		resume := inquiry{name: d.Name, began: d.Started, next: e.Now(), looked: true}
		resume.Node, resume.Boot, resume.At = policy.Node{Name: d.Node, UID: d.NodeUID, BootID: d.Boot}, d.Boot, d.Time
		switch over := d.Created.Add(wordAfterBoot); {
		case !d.Wordless() || d.Node == "" || d.Boot == "":
			continue
		case d.Cause == netconsole.CauseUnexplained && d.Authority == detect.Text && theirs[d.Name]:
			continue
		case d.Cause == netconsole.CauseUnexplained && d.Authority == detect.Text:
			resume.over, resume.recorded, resume.silent = d.Started, true, true
		case d.Authority >= detect.Claimed && over.After(e.Now()):
			resume.over, resume.reported, resume.How = over, true, d.Decision
		default:
			continue
		}
		q, is := open[d.Name]
		_, looked := busy[d.Name]
		switch {
		case e.resumed[d.Name] || q.recorded || q.reported:
			resumed[d.Name] = true
			continue
		case looked || !is && len(open) >= inquiries:
			continue // until the next look
		}
		open[d.Name], resumed[d.Name] = resume, true
	}
	e.resumed = resumed
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
	case q.over.IsZero() && now.Sub(cmp.Or(q.Node.SilentSince, q.began)) >= silentForGood:
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

// mayRecord reports whether one more unexplained end may be recorded now. When many nodes fall silent or disappear at once, the cause
// is mostly the network or the control plane, and each record costs an object and events and may have to be withdrawn. The others
// wait until there is room. The log says so once.
func (e *Engine) mayRecord(node string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	now, total := e.Now(), min(e.cluster.NodeCount(), countedNodes)
	if e.unexplained.Room(now, node, total) {
		e.unexplained.Count(now, node, "")
		return true
	}
	if now.Sub(e.overSince) >= e.unexplained.Window {
		e.log.Warn("more boots end without a word than are put on record at once; the others wait: look at the network and the control plane",
			"limit", e.unexplained.Limit(total), "window", e.unexplained.Window)
	}
	e.overSince = now // it is not over yet
	return false
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
	var n policy.Node
	silent := q.silent
	q.silent = false
	err := context.Canceled
	<-e.queue.submit(ctx, tidying, 1, func(ctx context.Context, _ int) { n, err = e.cluster.Node(ctx, q.Node.Name) })
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
	<-e.queue.submit(ctx, tidying, 1, func(ctx context.Context, _ int) {
		if pods, err := e.cluster.Pods(ctx, q.Node.Name); err == nil {
			q.looked, q.drained = true, policy.Drained(pods)
		}
	})
	return q.looked
}

// lookAtLastLease notes when the kubelet of a silent node renewed its Lease last.
func (e *Engine) lookAtLastLease(ctx context.Context, q *inquiry) {
	<-e.queue.submit(ctx, tidying, 1, func(ctx context.Context, _ int) {
		if r, err := e.cluster.LeaseRenewed(ctx, q.Node.Name); err == nil {
			q.LastLease = r.At
		}
	})
}

// noteCanary remembers when a boot was heard last.
func (e *Engine) noteCanary(boot policy.Pin, at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.lastCanaries) >= claimsKnown {
		clear(e.lastCanaries)
	}
	e.lastCanaries[boot] = at
}

// lastCanary is when this replica heard the last canary of n's boot, zero if it heard none with the secret that is known.
func (e *Engine) lastCanary(n policy.Node, boot string) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, known := range []policy.Pin{n.Pin, n.Claim} {
		if at := e.lastCanaries[known]; known.Boot == boot && !at.IsZero() {
			return at
		}
	}
	return time.Time{}
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
	select {
	case e.consoles <- console{q.Node, q.Console}:
		q.handed = e.Now()
	default: // the next look tries again
	}
}

// recordDeath puts on record a death of n from which nothing follows, and reports whether it is there now. Only the replica that
// creates it emits the events. It replaces a refused death, and one that gives way.
func (e *Engine) recordDeath(ctx context.Context, n policy.Node, d policy.Death) bool {
	w := e.newWork(detect.Incident{Time: d.Time, Title: d.Reason}, e.log.With("boot", d.Boot))
	w.name, w.death = d.Name, d
	w.node = n
	w.death.Phase, w.death.Owner, w.death.Started = policy.Recorded, e.replica, e.Now()
	w.noteComplete()
	if err := w.readNode(ctx, tidying); err != nil {
		return false
	}
	pods := w.podsThen(ctx)
	w.death.NamePods(pods)
	for range 2 {
		var out policy.Death
		err := w.try(ctx, tidying, "record death", func(ctx context.Context) (err error) {
			out, err = e.cluster.CreateDeath(ctx, w.death)
			return err
		})
		switch {
		case err == nil:
			w.death.UID, w.death.Version = out.UID, out.Version
			if out.Phase == "" { // else it would be taken over, and judged as what was heard
				if err := w.save(ctx, tidying); err != nil {
					w.log.Warn("death recorded without its status", "death", d.Name, "err", err)
				}
			}
			w.log.Info("recorded", "death", d.Name, "node", d.Node, "cause", d.Cause, "evidence", d.Evidence, "why", d.Decision)
			w.emitRecord(pods)
			w.finished()
			return true
		case !errors.Is(err, ErrExists):
			if answered(err) {
				w.log.Error("death not recorded", "death", d.Name, "node", d.Node, "err", err)
			}
			return false
		}
		have, err := w.readDeath(ctx, d.Name)
		weaker := have.GivesWay(d)
		if err != nil || have.Phase != policy.Refused && !weaker {
			return err == nil // it is on record, perhaps by another replica
		}
		if weaker {
			w.death.Inherit(have)
		}
		if err := w.try(ctx, tidying, "delete refused or weaker death", func(ctx context.Context) error {
			return e.cluster.DeleteDeath(ctx, have)
		}); !answered(err) {
			return false
		}
	}
	return false
}

// podsThen lists the pods that were on the node when it died, and are there still.
func (w *work) podsThen(ctx context.Context) (then []policy.Pod) {
	var pods []policy.Pod
	if err := w.once(ctx, tidying, func(ctx context.Context) (err error) {
		pods, err = w.e.cluster.Pods(ctx, w.death.Node)
		return err
	}); err != nil {
		w.log.Warn("pods not listed", "node", w.death.Node, "err", err)
		return nil
	}
	for _, p := range pods {
		if p.Created.Before(w.death.Time) {
			then = append(then, p)
		}
	}
	return then
}
