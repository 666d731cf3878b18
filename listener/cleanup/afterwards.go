package cleanup

import (
	"context"
	"errors"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// recordDeath puts on record a death of n from which nothing follows, and reports whether it, or one that does not give way to it, is
// there now. Only the replica that creates it emits the events.
func (e *Engine) recordDeath(ctx context.Context, n policy.Node, d policy.Death) bool {
	w := e.newWork(detect.Incident{Time: d.Time, Title: d.Reason}, e.log.With("boot", d.Boot))
	w.name, w.death, w.node = d.Name, d, n
	w.death.Phase, w.death.Owner, w.death.Started = policy.Recorded, e.replica, e.Now()
	if err := w.readNode(ctx, tidying); err != nil {
		return false
	}
	pods := w.podsThen(ctx)
	w.death.NamePods(pods)
	have, ours, err := w.put(ctx, tidying, "record death", false)
	if err != nil && answered(err) {
		w.log.Error("death not recorded", "death", d.Name, "node", d.Node, "err", err)
	}
	if err != nil || !ours {
		return err == nil
	}
	if have.Phase == "" { // its status was not written: it would be taken over, and judged as what was heard
		w.noteComplete()
		if err := w.save(ctx, tidying); errors.Is(err, errLost) {
			return true // another replica created it at the same moment
		} else if err != nil {
			w.log.Warn("death recorded without its status", "death", d.Name, "err", err)
		}
	}
	w.log.Info("recorded", "death", d.Name, "node", d.Node, "cause", d.Cause, "evidence", w.death.Evidence, "why", d.Decision)
	w.emitRecord(pods)
	w.finished()
	return true
}

// podsThen lists the pods that were on the node when it died, and are there still.
func (w *work) podsThen(ctx context.Context) (then []policy.Pod) {
	pods, err := askOnce(ctx, w.calls, tidying, w.e.cluster.Pods, w.death.Node)
	if err != nil {
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
