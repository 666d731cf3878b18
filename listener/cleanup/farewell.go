package cleanup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

const (
	farewellsWaiting = 512
	farewellsAtOnce  = 8
	// farewellFor bounds the work on one farewell: pods that are annotated an hour late help nobody.
	farewellFor = 2 * time.Minute
	// farewellsOfAddress are taken within farewellWindow. A boot has one or two: a notice of EC2 and its shutdown.
	farewellsOfAddress = 4
	farewellWindow     = 10 * time.Minute
	// strangersLogged are logged within farewellWindow.
	strangersLogged = 100
	// farewellPods bounds the pods that one farewell annotates.
	farewellPods = 300
)

// FarewellResult is what became of a farewell, for metrics.
type FarewellResult string

const (
	FarewellWritten  FarewellResult = "written"
	FarewellRepeated FarewellResult = "repeated" // another listener wrote it, or this one did
	FarewellRefused  FarewellResult = "refused"  // the node has not pinned the secret that came with it, or sends too many
	FarewellFailed   FarewellResult = "failed"   // the API server did not take it in time
)

// FarewellResults lists all of them.
func FarewellResults() []FarewellResult {
	return []FarewellResult{FarewellWritten, FarewellRepeated, FarewellRefused, FarewellFailed}
}

// farewell is a farewell that arrived.
type farewell struct {
	src netip.Addr
	bye netconsole.Bye
	at  time.Time
}

// Farewell hands over a farewell and never blocks. Verified says that it carried the secret of a Node that runs its boot; any
// other is logged and counted only. False means that there is no room, and that the node has to repeat it.
func (e *Engine) Farewell(src netip.Addr, y netconsole.Bye, at time.Time, verified bool) bool {
	if verified && len(e.farewells) == cap(e.farewells) {
		return false // it must not use up what the node may say
	}
	limit := &e.farewellsFrom // of nodes: whoever shares a node's address must not use up what the node may say
	if !verified {
		limit = &e.strangersFrom
	}
	e.mu.Lock()
	allowed := limit.Allow(at, src)
	e.mu.Unlock()
	if !allowed || !verified {
		if allowed {
			e.log.Warn("farewell not written: it carries no secret that a Node of this boot has pinned",
				"source", src, "boot", y.Boot, "cause", y.Cause, "by", y.By)
		}
		e.Observer.Farewell(FarewellRefused)
		return true
	}
	return hand(e.farewells, farewell{src, y, at})
}

// writeFarewells writes farewells until ctx ends, one at a time.
func (e *Engine) writeFarewells(ctx context.Context) {
	handle(ctx, e.farewells, func(f farewell) {
		within, cancel := context.WithTimeout(ctx, farewellFor)
		defer cancel()
		e.Observer.Farewell(e.writeFarewell(within, f))
	})
}

// writeFarewell annotates the sender's Node and its pods, and emits events on them. The Node comes first: a replica that finds
// the farewell there leaves the rest to the one that wrote it. Nothing is deleted, fenced or failed, and no death is recorded.
func (e *Engine) writeFarewell(ctx context.Context, f farewell) FarewellResult {
	w, said := e.newWork(detect.Incident{}, e.log.With("source", f.src, "boot", f.bye.Boot)), policy.FarewellOf(f.bye, f.at)
	switch result, err := w.annotateNode(ctx, f, said); {
	case err != nil:
		w.log.Warn("farewell not written", "farewell", said.Text, "node", w.node.Name, "err", err)
		return result
	case result == FarewellRepeated:
		return result
	case e.policy.DryRun:
		w.log.Info("dry run: farewell not written", "farewell", said.Text, "node", w.node.Name)
		return result
	}
	note := "this node was " + said.Text + farewellSource
	e.cluster.Emit(Event{Node: w.node, Reason: "Farewell", Action: "Annotate", Note: note})
	pods, err := e.annotatePods(ctx, w.calls, w.node, said)
	if err != nil {
		w.log.Warn("farewell not written on every pod", "farewell", said.Text, "node", w.node.Name, "pods", pods, "err", err)
		return FarewellFailed
	}
	w.log.Info("farewell", "farewell", said.Text, "node", w.node.Name, "pods", pods)
	return FarewellWritten
}

// farewellSource ends the notes of events: nobody but the node vouches for it.
const farewellSource = ", says the node"

// annotateNode finds the sender's Node and writes the farewell there. An error says why it is not there.
func (w *work) annotateNode(ctx context.Context, f farewell, said policy.Farewell) (result FarewellResult, err error) {
	who := Sender{Instance: f.bye.Instance, Boot: f.bye.Boot, Sum: f.bye.Secret.Sum(), Addr: f.src}
	w.node, err = ask(ctx, w.calls, tidying, "find node of a farewell", w.e.cluster.FindNode, who)
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrAmbiguous):
		return FarewellRefused, err
	case err != nil:
		return FarewellFailed, err
	}
	var refusal error
	denied, err := w.patchNode(ctx, tidying, func() *NodePatch {
		result, refusal = FarewellWritten, policy.FarewellBy(w.node, f.bye)
		switch {
		case refusal != nil:
			result = FarewellRefused
		case said.Repeats(w.node.Farewell):
			result = FarewellRepeated
		case !w.e.policy.DryRun:
			return &NodePatch{Farewell: &said}
		}
		return nil
	})
	switch {
	case err != nil || denied != nil:
		return FarewellFailed, cmp.Or(err, denied)
	case w.lookup != policy.Found:
		return FarewellRefused, ErrNotFound
	}
	return result, refusal
}

// annotatePods writes the farewell on the pods that run on the Node, and emits an event on each. It returns how many.
func (e *Engine) annotatePods(ctx context.Context, c calls, n policy.Node, said policy.Farewell) (count int, err error) {
	pods, err := ask(ctx, c, tidying, "list pods for a farewell", e.cluster.Pods, n.Name)
	if err != nil {
		return 0, err
	}
	pods = slices.DeleteFunc(pods, policy.Pod.Finished)
	pods = pods[:min(len(pods), farewellPods)]
	answers, err := c.each(ctx, tidying, "annotate pod", len(pods), func(ctx context.Context, i int) error {
		return e.cluster.AnnotateFarewell(ctx, pods[i], said)
	})
	if err != nil {
		return 0, err
	}
	for i, answer := range answers {
		switch {
		case answer == nil:
			count++
			e.cluster.Emit(Event{Pod: pods[i], Reason: "Farewell", Action: "Annotate", Note: "node " + n.Name + " was " + said.Text + farewellSource})
		case errors.Is(answer, ErrNotFound), errors.Is(answer, ErrConflict): // it is gone, or another one of its name is there
		default:
			err = fmt.Errorf("annotate pod %s/%s: %w", pods[i].Namespace, pods[i].Name, answer)
		}
	}
	return count, err
}
