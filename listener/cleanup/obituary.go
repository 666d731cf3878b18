package cleanup

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

const (
	obituariesWaiting = 64
	obituariesAtOnce  = 2
	// obituariesOfAddress are put on record, or added to what is, within policy.Policy.Window. A node has one for each of its boots,
	// but only its own word for which boot it runs.
	obituariesOfAddress = 5
	obituariesInAll     = 1000
	// obituariesKnown bounds what is remembered of those that are dealt with, to spare the API server repetitions.
	obituariesKnown = 1 << 14
	// obituaryRetry is how long one that cannot be dealt with yet is left alone.
	obituaryRetry = 5 * time.Second
	// obituariesOfBoot are dealt with that name different former boots: those that died young left theirs to the next. One of them
	// at most is put on record.
	obituariesOfBoot = 4
)

// endings is what an Engine keeps of how boots ended. Engine.mu guards all but the channels.
type endings struct {
	consoles      chan console
	questions     policy.Limiter  // to the cloud
	inquired      policy.Limiter  // those of inquiries among them
	unexplained   policy.Breaker  // nodes whose boots were recorded without the kernel's words
	resumed       map[string]bool // deaths on record that were looked at again, by name; inquireAll's alone
	overSince     time.Time       // when they were too many last
	obituaries    chan obituary
	obituaryLimit policy.Limiter
	said          map[policy.Pin]obituaryState // by the boot and secret that spoke, the last of each
	spokenOf      map[speech]string            // the boot that was spoken of
	lastBoots     map[string]string            // by UID of the Node
	lastCanaries  map[policy.Pin]time.Time
	restarting    map[string]restarting // by name of the death
}

func newEndings(p policy.Policy) endings {
	return endings{
		consoles:      make(chan console, inquiriesAtOnce),
		questions:     policy.Limiter{PerAddress: fatesPerMinute, Total: fatesPerMinute, Window: time.Minute},
		inquired:      policy.Limiter{PerAddress: inquiriesPerMinute, Total: inquiriesPerMinute, Window: time.Minute},
		unexplained:   policy.Breaker{Nodes: max(p.MaxNodes, 1), Percent: p.MaxPercent, Window: p.Window},
		obituaries:    make(chan obituary, obituariesWaiting),
		obituaryLimit: policy.Limiter{PerAddress: obituariesOfAddress, Total: obituariesInAll, Window: p.Window},
		said:          map[policy.Pin]obituaryState{},
		spokenOf:      map[speech]string{},
		lastBoots:     map[string]string{},
		lastCanaries:  map[policy.Pin]time.Time{},
		restarting:    map[string]restarting{},
	}
}

// obituary is what a node says, on a new boot, about how its last one ended.
type obituary struct {
	src netip.Addr
	id  netconsole.Identity
	netconsole.Obituary
	at time.Time
}

// speaker is the boot that an obituary comes from.
func (o obituary) speaker() policy.Pin { return policy.Pin{Boot: o.id.Boot, Sum: o.id.Secret.Sum()} }

// speech is what may name one former boot: a boot of a Node, by its UID, on one authority.
type speech struct {
	uid       string
	authority detect.Authority
	boot      string
}

// obituaryState is what has become of the obituary of a boot.
type obituaryState struct {
	old   string // the boot that it speaks of
	count int    // former boots that were spoken of, with that
	done  bool
	after time.Time // not before then again; zero while it is in hand
}

// Obituary hands over what a node that src belongs to says about how a former boot ended, and reports whether that has been dealt
// with. It never blocks; the node repeats it until it is dealt with, and only then says the next.
func (e *Engine) Obituary(src netip.Addr, id netconsole.Identity, text netconsole.Obituary, at time.Time) (done bool) {
	o := obituary{src, id, text, at}
	e.mu.Lock()
	defer e.mu.Unlock()
	s, known := e.said[o.speaker()]
	another := known && s.old != o.Boot
	switch {
	case known && s.done && (!another || s.count >= obituariesOfBoot):
		return true
	case known && !s.done && (s.after.IsZero() || e.Now().Before(s.after)):
		return false
	case another || !known:
		s = obituaryState{old: o.Boot, count: s.count + 1}
	}
	s.done, s.after = false, time.Time{}
	if hand(e.obituaries, o) {
		remember(e.said, obituariesKnown, o.speaker(), s)
	}
	return false
}

// recordObituaries deals with obituaries until ctx ends.
func (e *Engine) recordObituaries(ctx context.Context) {
	handle(ctx, e.obituaries, func(o obituary) {
		done := e.recordObituary(ctx, o)
		e.mu.Lock()
		defer e.mu.Unlock()
		s := e.said[o.speaker()]
		s.done, s.after = done, e.Now().Add(obituaryRetry)
		remember(e.said, obituariesKnown, o.speaker(), s)
	})
}

// recordObituary puts an obituary on record, and reports whether nothing is left to do about it. It fails no pod, and fences
// and deletes nothing.
func (e *Engine) recordObituary(ctx context.Context, o obituary) (done bool) {
	log := e.log.With("source", o.src, "boot", o.id.Boot, "old", o.Boot)
	c := e.calls(log)
	who := Sender{Instance: o.id.Instance, Boot: o.id.Boot, Sum: o.speaker().Sum, Addr: o.src}
	n, err := askOnce(ctx, c, tidying, e.cluster.FindNode, who)
	if err != nil || n.BootID != o.id.Boot {
		log.Debug("obituary waits for its Node", "err", err)
		return false
	}
	a, err := policy.ObituaryBy(n, o.id.Boot, o.speaker().Sum, o.Boot, e.lastBoot(n.UID))
	switch {
	case err != nil:
		log.Warn("obituary refused", "node", n.Name, "err", err)
		return true
	case e.spoken(n.UID, a, o.id.Boot, o.Boot):
		log.Warn("obituary refused: this boot has spoken of another one before", "node", n.Name)
		return true
	case e.policy.DryRun:
		log.Info("dry run: obituary", "node", n.Name, "cause", o.Cause, "evidence", o.Evidence)
		return true
	case o.Cause == netconsole.CauseOrderly && a < detect.Pinned:
		log.Warn("obituary refused: only a node that has pinned its secret may say that its boot ended in good order", "node", n.Name)
		return true
	case o.Cause == netconsole.CauseOrderly:
		log.Info("boot ended in good order, says the node", "node", n.Name)
		return e.noteOrderly(ctx, c, n, o)
	case policy.KnowsNothing(o.Obituary) && n.LeftInOrder(o.Boot, o.at) != "":
		log.Info("boot ended in good order", "node", n.Name, "why", n.LeftInOrder(o.Boot, o.at))
		return true // its shutdown was not noted in the ledger, as when it was forced
	}
	d := policy.ObituaryOf(n, o.Obituary, detect.ReadBootLogs(e.Judge, string(o.Text), policy.LastWords(o.Obituary)), a, o.at)
	have, err := askOnce(ctx, c, tidying, e.cluster.Death, d.Name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false
	}
	e.mu.Lock()
	allowed, full := e.obituaryLimit.Allow(e.Now(), o.src), e.obituaryLimit.Full(e.Now())
	e.mu.Unlock()
	switch {
	case !allowed && full:
		log.Debug("obituary waits: too many arrive at once", "node", n.Name)
		return false
	case !allowed:
		log.Warn("obituary not recorded: the node has too many", "node", n.Name)
		return true
	case err != nil:
		return e.recordDeath(ctx, n, d)
	case have.GivesWay(d):
		log.Info("what the node says takes the place of what is on record", "death", have.Name, "phase", string(have.Phase),
			"authority", have.Authority, "reason", have.Reason)
		return e.recordDeath(ctx, n, d)
	case d.Authority < have.Authority:
		log.Warn("obituary adds nothing: the death is known on more authority", "death", have.Name, "node", have.Node,
			"authority", d.Authority, "known", have.Authority)
		return true
	}
	return e.complete(ctx, c, have, d)
}

// complete adds to the death that is on record what only d knows, and emits the events if that is a better reason. It reports
// whether nothing is left to do.
func (e *Engine) complete(ctx context.Context, c calls, have, d policy.Death) (done bool) {
	was := have.Reason + have.Cause
	if !have.Learn(d) {
		return true
	}
	if have.Phase.Finished() && have.Owner != e.replica {
		// The owner of a death sends the webhook and the events, and a former owner may be gone.
		owned := have
		owned.Owner = e.replica
		_, _ = askOnce(ctx, c, tidying, e.cluster.UpdateDeath, owned)
	}
	_, err := ask(ctx, c, tidying, "amend death", e.cluster.AmendDeath, have)
	if err != nil {
		c.log.Warn("death not amended", "death", have.Name, "err", err)
		return answered(err)
	}
	c.log.Info("amended", "death", have.Name, "node", have.Node, "cause", have.Cause, "evidence", have.Evidence)
	if have.Reason+have.Cause != was {
		w := e.newWork(detect.Incident{}, c.log)
		w.name, w.death, w.node = have.Name, have, policy.Node{Name: have.Node}
		if err := w.readNode(ctx, tidying); err != nil {
			return true
		}
		w.emitRecord(w.podsThen(ctx))
	}
	return true
}

// lastBoot is the boot that the Node with that UID ran before, as the watch has seen it, empty if that is unknown.
func (e *Engine) lastBoot(uid string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lastBoots[uid]
}

// noteLastBoot remembers that boot of n has ended.
func (e *Engine) noteLastBoot(n policy.Node) {
	e.mu.Lock()
	defer e.mu.Unlock()
	remember(e.lastBoots, claimsKnown, n.UID, n.BootID)
}

// spoken notes that boot of the Node with that UID speaks of old, and reports whether it has spoken of another boot before: only
// one boot came before it. Each authority counts apart, so that whoever claims a boot cannot silence the node that pins it.
func (e *Engine) spoken(uid string, a detect.Authority, boot, old string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	k := speech{uid, a, boot}
	if before, ok := e.spokenOf[k]; ok {
		return before != old
	}
	remember(e.spokenOf, obituariesKnown, k, old)
	return false
}

// noteOrderly writes on the Node that its last boot ended in good order, as a farewell does: then no replica records it as
// unexplained. A farewell that said more stays, and so does that of the boot which runs: it ends next.
func (e *Engine) noteOrderly(ctx context.Context, c calls, n policy.Node, o obituary) (done bool) {
	w := e.newWork(detect.Incident{}, c.log)
	w.node = n
	speaks := func() bool { return w.lookup == policy.Found && w.node.BootID == o.id.Boot }
	f := policy.FarewellAfterwards(o.Obituary, o.id.Boot, o.at)
	denied, err := w.patchNode(ctx, tidying, func() *NodePatch {
		if known := w.node.Farewell.Boot; !speaks() || known == o.Boot || known == o.id.Boot {
			return nil
		}
		return &NodePatch{Farewell: &f}
	})
	if denied != nil {
		w.log.Warn("farewell not written", "node", n.Name, "err", denied)
	}
	return err == nil && speaks() // else the node repeats it
}
