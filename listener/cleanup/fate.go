package cleanup

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// Fates is what cleanup asks the cloud about the machine below a Node, by the id in the Node's spec.providerID and by nothing
// else. Errors are those of Instances.
type Fates interface {
	// Fate is the state of the machine, and why.
	Fate(ctx context.Context, instanceID string) (policy.Fate, error)
	// Console is the end of what the machine has written to its serial console.
	Console(ctx context.Context, instanceID string) (policy.Console, error)
}

const (
	// fatesPerMinute bounds the questions of this replica, each of which is up to three calls. EC2 answers far more calls a
	// second, but the account has other users (https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html).
	fatesPerMinute = 120
	// inquiriesPerMinute of them may be about boots of which nothing was heard: the rest is for deaths that wait for a witness.
	inquiriesPerMinute = fatesPerMinute / 2
	// fateEvery is how often the cloud is asked about a Node whose death waits for a witness.
	fateEvery = 10 * time.Second
	// fateTimeout bounds one question: the other witnesses must not wait for it.
	fateTimeout = 5 * time.Second
)

// mayAskFate reports whether the cloud may be asked once more now, and counts it. Inquiries about boots of which nothing was heard
// leave room for deaths that need a witness.
func (e *Engine) mayAskFate(inquires bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if inquires && !e.inquired.Allow(e.Now(), netip.Addr{}) {
		return false
	}
	return e.questions.Allow(e.Now(), netip.Addr{})
}

// askFate asks the cloud whether the machine of a death that waits for a witness still runs. No answer is no witness.
func (w *work) askFate(ctx context.Context) error {
	e, id := w.e, w.node.Instance()
	if e.Fates == nil || id == "" || w.lookup != policy.Found || !w.node.Silent && !w.lease.Overdue(e.Now()) ||
		e.Now().Sub(w.askedAt) < fateEvery || !e.mayAskFate(false) {
		return nil
	}
	w.askedAt = e.Now()
	if only, err := w.isOnly(ctx, id); err != nil || !only {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, fateTimeout)
	defer cancel()
	f, err := e.Fates.Fate(asking, id)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		w.log.Info("the cloud did not answer", "instance", id, "err", err)
		return nil
	}
	w.ended = f.Ended(id)
	return nil
}

// console is a death that a machine's console shows while its Node is silent.
type console struct {
	node policy.Node
	inc  detect.Incident
}

// acceptConsole accepts a death by the text of a console. It is judged like one that was heard, below every authority that
// is acted on at once. It is not kept for a restart, after which the console is asked again.
func (e *Engine) acceptConsole(ctx context.Context, c console) {
	h := &heard{key: key{boot: c.inc.Identity.Boot}, inc: c.inc, saved: true}
	w := e.newWork(c.inc, e.log.With("instance", c.inc.Identity.Instance, "boot", c.inc.Identity.Boot))
	w.heard, w.freed = h, true // it did not come by the intake
	w.run(ctx, func(ctx context.Context) error {
		w.node = c.node
		if err := w.readNode(ctx, keeping); err != nil {
			return err
		}
		if w.lookup != policy.Found || w.node.UID != c.node.UID || w.node.BootID != c.inc.Identity.Boot || !w.node.Silent {
			return errors.New("the node is back, or gone")
		}
		w.first = w.node
		return w.accept(ctx)
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	h.over, h.later = true, nil
	if !h.amending {
		h.inc.Trace = nil // nobody emits it again
	}
	e.account(h)
}
