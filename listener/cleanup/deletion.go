package cleanup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// deletePods deletes the pods that were failed and are not kept, those of Jobs first.
func (w *work) deletePods(ctx context.Context, p policy.Plan) (string, error) {
	now := w.e.Now()
	var groups [3][]policy.Pod
	for _, pod := range w.pods {
		switch {
		case policy.CareFor(pod, p.Death, p.Notice.Time) != policy.Failed || w.fate(pod.UID).became == policy.PodDeleted:
		case pod.OfJob():
			groups[0] = append(groups[0], pod)
		case !w.keptTill(pod, p).After(now):
			groups[1] = append(groups[1], pod)
		default:
			groups[2] = append(groups[2], pod)
		}
	}
	var t tally
	for _, pods := range groups[:2] {
		answers, err := w.each(ctx, tidying, "delete pods", len(pods), func(ctx context.Context, i int) error {
			return w.deletePod(ctx, pods[i])
		})
		if err != nil {
			return "", err
		}
		t.countDeleted(answers)
		for i, err := range answers {
			w.fate(pods[i].UID).asked = true
			if err == nil {
				w.fate(pods[i].UID).became = policy.PodDeleted
			}
		}
	}
	w.noteOutcomes()
	if err := w.unready(ctx, groups[2]); err != nil {
		return "", err
	}
	notes := []string{t.String()}
	if kept := keptNotes(p, groups[2]); len(kept) > 0 {
		if notes = append(notes, kept...); t == (tally{}) {
			notes = notes[1:]
		}
	}
	return strings.Join(append(notes, finalized(slices.Concat(groups[:]...))...), "; "), nil
}

// keptNotes says how many pods are kept, and how long.
func keptNotes(p policy.Plan, kept []policy.Pod) (notes []string) {
	owned := 0
	for _, pod := range kept {
		if pod.Owned() {
			owned++
		}
	}
	if owned > 0 {
		notes = append(notes, fmt.Sprintf("%d kept for %s, so that their controllers see why they failed", owned, p.LearnFor))
	}
	if n := len(kept) - owned; n > 0 {
		notes = append(notes, fmt.Sprintf("%d kept until %s", n, p.KeepTill.UTC().Format("15:04:05 UTC")))
	}
	return notes
}

// unready makes pods that are kept look as dead as they are: kubectl and kube-state-metrics count ready containers.
func (w *work) unready(ctx context.Context, kept []policy.Pod) error {
	answers, err := w.each(ctx, tidying, "mark kept pods not ready", len(kept), func(ctx context.Context, i int) error {
		return w.e.cluster.UnreadyPod(ctx, kept[i])
	})
	for i, err := range answers {
		if errors.Is(err, ErrDenied) {
			w.log.Warn("kept pod still shows ready containers", "pod", kept[i].Namespace+"/"+kept[i].Name, "err", err)
		}
	}
	return err
}

// deletePod deletes one pod. A conflict may be about anything, so it reads the pod before it believes that another one has
// the name. It runs in the queue.
func (w *work) deletePod(ctx context.Context, pod policy.Pod) error {
	err := w.e.cluster.DeletePod(ctx, pod)
	if !errors.Is(err, ErrConflict) {
		return err
	}
	now, readErr := w.e.cluster.Pod(ctx, pod.Namespace, pod.Name)
	switch {
	case readErr != nil:
		return readErr
	case now.UID != pod.UID:
		return err
	}
	return errors.New("the pod is still there") // a fault: again
}

// finalized names the pods that wait for the finalizers of other controllers, which are never stripped.
func finalized(pods []policy.Pod) []string {
	const most = 5
	var held []string
	for _, pod := range pods {
		for _, f := range pod.Finalizers {
			if f != jobTracking {
				held = append(held, fmt.Sprintf("%s/%s waits for finalizer %s", pod.Namespace, pod.Name, f))
			}
		}
	}
	if len(held) > most {
		held = append(held[:most], fmt.Sprintf("%d more", len(held)-most))
	}
	return held
}
