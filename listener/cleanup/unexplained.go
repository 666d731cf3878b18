package cleanup

import (
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
	inquiries = 4096
	// inquiriesOfNode bounds those of one Node, so that a kubelet that reports one boot after the other takes no room of others, nor their
	// questions to the cloud. The first of several boots stay.
	inquiriesOfNode = 5
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

// recordedDeath is what an inquiry needs to know of a death that is on record.
type recordedDeath struct {
	known    bool // it is not a refused one
	wordless bool
	theirs   bool // its owner is another replica, and alive
}

// answers reports whether nothing is left to ask, where it is known whether the boot has ended.
func (r recordedDeath) answers(ended bool) bool { return r.known && !(ended && r.wordless) }

// openInquiries opens those that the Nodes call for, and closes those that are answered.
func (e *Engine) openInquiries(ctx context.Context, open map[string]inquiry, busy map[string]bool) {
	deaths, err := e.cluster.Deaths(ctx)
	silent, silentErr := e.cluster.SilentNodes(ctx)
	if err := errors.Join(err, silentErr); err != nil {
		e.log.Debug("deaths or nodes not read", "err", err)
		return
	}
	now := e.Now()
	records := make(map[string]recordedDeath, len(deaths))
	e.mu.Lock()
	for _, d := range deaths {
		records[d.Name] = recordedDeath{d.Phase != policy.Refused, d.Wordless(), e.living[d.Owner]}
		if d.Phase == policy.Recorded && d.Cause == netconsole.CauseUnexplained && now.Sub(d.Created) < e.policy.Window {
			e.unexplained.Count(d.Created, d.Node, d.Name) // by another replica, or before a restart
		}
	}
	e.mu.Unlock()
	e.resumeInquiries(deaths, records, open, busy)
	ofNode := map[string]int{}
	for _, q := range open {
		ofNode[q.Node.Name]++
	}
	begin := func(n policy.Node, ended bool) {
		name := policy.DeathName(n.Name, n.BootID)
		q, is := open[name]
		_, looked := busy[name]
		switch {
		case looked:
			busy[name] = busy[name] || ended
			return
		case records[name].answers(ended) || e.isInHand(name) ||
			!is && (len(open) >= inquiries || ofNode[n.Name] >= inquiriesOfNode):
			return
		case !is:
			ofNode[n.Name]++
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
		answered := !q.recorded && records[name].answers(ended) || q.recorded && q.silent && records[name].theirs
		if _, looked := busy[name]; (answered || !ended && !still[name]) && !looked {
			delete(open, name)
		}
	}
}

// resumeInquiries reopens what a former run or another replica has put on record without an answer: boots that count as ended only
// because their node was silent, which is wrong if it lives, and boots of which the node has just said that it knows nothing. The
// former may be looked at for months, so only their owner does that while it lives.
func (e *Engine) resumeInquiries(deaths []policy.Death, records map[string]recordedDeath, open map[string]inquiry, busy map[string]bool) {
	resumed := map[string]bool{}
	for _, d := range deaths {
		resume := inquiry{name: d.Name, began: d.Started, next: e.Now(), looked: true}
		resume.Node, resume.Boot, resume.At = policy.Node{Name: d.Node, UID: d.NodeUID, BootID: d.Boot}, d.Boot, d.Time
		switch over := d.Created.Add(wordAfterBoot); {
		case !d.Wordless() || d.Node == "" || d.Boot == "":
			continue
		case d.Cause == netconsole.CauseUnexplained && d.Authority == detect.Text && records[d.Name].theirs:
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

// noteCanary remembers when a boot was heard last.
func (e *Engine) noteCanary(boot policy.Pin, at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	remember(e.lastCanaries, claimsKnown, boot, at)
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
