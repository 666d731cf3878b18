package cleanup

import (
	"context"
	"fmt"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// suspect finds out who may be to blame for the death, once its pods are listed and before they are failed. Nobody has to be:
// deaths that cannot be listed delay no fail-over.
func (w *work) suspect(ctx context.Context) {
	if len(w.death.Suspects) > 0 || w.death.Step(policy.StepFail).Done {
		return
	}
	deaths, err := w.e.cluster.Deaths(ctx)
	if err != nil {
		w.log.Info("suspects not looked for", "death", w.name, "err", err)
		return
	}
	w.death.Suspects = policy.Suspects(w.death, w.pods, deaths)
	for _, s := range w.death.Suspects {
		w.log.Warn("suspect", "death", w.name, "node", w.node.Name, "suspect", s.String(), "why", s.Why())
	}
}

// noticeFor is what is written to a pod when it is failed.
func (w *work) noticeFor(pod policy.Pod, p policy.Plan) policy.Notice {
	n := p.Notice
	n.Counts = policy.Holds(w.e.policy, w.death.Suspects, pod)
	return n
}

// accuse emits an event on each suspect that owns pods.
func (w *work) accuse(p policy.Plan) {
	for _, s := range w.death.Suspects {
		for _, pod := range w.pods {
			if s.Rule != policy.ByReplacement || pod.Owner.Kind != s.Kind || pod.Owner.Name != s.Name || pod.Namespace != s.Namespace {
				continue
			}
			note := fmt.Sprintf("%s; see nodedeath %s", s.Why(), p.Death)
			if policy.Holds(w.e.policy, w.death.Suspects, pod) {
				note = "its failures count from now on: " + note
			}
			w.e.cluster.Emit(Event{
				Owner: pod.Owner, Namespace: pod.Namespace, Warning: true, Reason: "NodeDeathSuspect", Action: "Suspect", Note: note,
			})
			break
		}
	}
}
