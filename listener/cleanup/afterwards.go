package cleanup

import (
	"context"
	"errors"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

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
