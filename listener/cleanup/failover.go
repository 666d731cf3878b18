package cleanup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

const (
	// The calls that all others wait for, as logs and events name them.
	creatingDeath, listingPods, failingPods = "create death and fence", "list pods", "fail pods"
	// jobTracking is the finalizer by which the Job controller counts a pod. That controller removes it at once.
	jobTracking = "batch.kubernetes.io/job-tracking"
	// Pods are listed again as long as a dead node exists: first soon after the fail-over, then ever less often.
	firstSweep   = time.Second
	longestSweep = time.Minute
)

// failPods is the fail-over: all pods of the node in parallel, those that changed meanwhile read and judged again, and all
// of them left alone as soon as the node turns out to be back.
func (w *work) failPods(ctx context.Context, p policy.Plan) (note string, again time.Duration, err error) {
	all := make([]int, len(w.pods))
	for i := range all {
		all[i] = i
	}
	// The list may have taken minutes.
	if err := w.readNode(ctx, failing); err != nil {
		return "", 0, err
	}
	if w.back() == "" {
		// Whoever judged the incident otherwise may have lifted the fence before it saw the death.
		if ok, err := w.fence(ctx, fencing); err != nil || !ok {
			return "", time.Second, err
		}
	}
	var t tally
	if err := w.failAll(ctx, p, &t, all); err != nil {
		return "", 0, err
	}
	w.death.PodsFailed = t.failed + t.gone
	w.death.PodsTotal = w.death.PodsFailed + t.denied + t.revived
	w.notePods(t)
	if why := w.back(); why != "" {
		return t.String() + "; " + why, 0, nil
	}
	return t.String(), 0, nil
}

// failAll fails those of the pods that are to be failed, annotates those that are to be annotated, and counts them in t.
func (w *work) failAll(ctx context.Context, p policy.Plan, t *tally, which []int) error {
	revived := t.revived
	todo := w.triage(p, t, which)
	t.revived = revived // the others started after the panic: never ours to fail
	for again := pauses(0); len(todo) > 0; {
		if w.back() != "" && w.lookup == policy.Found {
			t.revived += w.toFail(todo)
			return nil
		}
		answers, err := w.each(ctx, failing, failingPods, len(todo), func(ctx context.Context, i int) error {
			return w.failPod(ctx, p, &w.pods[todo[i]])
		})
		if err != nil {
			return err
		}
		changed := w.count(t, answers, todo)
		if len(changed) == 0 {
			return nil
		}
		if err := w.readAgain(ctx, failing, &again); err != nil {
			return err
		}
		if todo = changed; w.back() == "" || w.lookup != policy.Found {
			if err := w.readPods(ctx, changed); err != nil {
				return err
			}
			todo = w.triage(p, t, changed)
		}
	}
	return nil
}

// emitWaiting says on the Node, at once and once, what keeps its pods from being failed: a right, a policy, a webhook.
func (w *work) emitWaiting(what string, err error) {
	awaited := what == creatingDeath || what == listingPods || what == failingPods
	if !awaited || w.waited || w.lookup != policy.Found {
		return
	}
	w.waited = true
	w.e.cluster.Emit(Event{
		Node: w.node, Warning: true, Reason: "CleanupWaits", Action: "FailPods",
		Note: fmt.Sprintf("cannot %s yet, trying again: %v", what, err),
	})
}

// triage counts those of the pods that need nothing and returns the others; which and the answer are indices.
func (w *work) triage(p policy.Plan, t *tally, which []int) (todo []int) {
	for _, i := range which {
		pod := w.pods[i]
		if pod.UID == "" {
			t.gone++
			continue
		}
		switch policy.CareFor(pod, p.Death, p.Notice.Time) {
		case policy.Fail, policy.Annotate:
			todo = append(todo, i)
		case policy.Failed:
			t.failed++
			w.fate(pod.UID).became = policy.PodFailed
		case policy.Leave:
			t.left++
			w.fate(pod.UID).became = policy.PodLeft
			if !pod.Finished() && !pod.Mirror {
				t.revived++
			}
		}
	}
	return todo
}

// toFail counts the pods that are to be failed and not merely annotated.
func (w *work) toFail(which []int) (n int) {
	for _, i := range which {
		if !w.pods[i].Mirror {
			n++
		}
	}
	return n
}

// failPod fails or, where the phase is the kubelet's, annotates one pod. It runs in the queue and owns *pod meanwhile.
func (w *work) failPod(ctx context.Context, p policy.Plan, pod *policy.Pod) error {
	do := w.e.cluster.FailPod
	if pod.Mirror {
		do = w.e.cluster.AnnotatePod
	}
	out, err := do(ctx, *pod, w.noticeFor(*pod, p))
	if err != nil {
		return err
	}
	*pod = out
	if !out.Mirror && out.Phase != "Failed" {
		return fmt.Errorf("fail pod %s/%s: the API server lets it pass and keeps phase %s; look for a mutating webhook or policy: %w",
			out.Namespace, out.Name, out.Phase, ErrDenied)
	}
	if !out.Mirror {
		w.e.Observer.PodFailed(w.e.Now().Sub(w.death.Time))
	}
	return nil
}

// count counts the answers to the writes of the pods, and returns those that changed since they were read.
func (w *work) count(t *tally, answers []error, which []int) (changed []int) {
	for i, err := range answers {
		pod := w.pods[which[i]]
		switch {
		case err == nil && pod.Mirror:
			t.annotated++
			w.fate(pod.UID).became = policy.PodMirror
		case err == nil:
			t.failed++
			w.fate(pod.UID).became = policy.PodFailed
		case errors.Is(err, ErrNotFound):
			t.gone++
			w.fate(pod.UID).became = policy.PodGone
		case errors.Is(err, ErrConflict):
			changed = append(changed, which[i])
		default:
			t.denied, t.denial = t.denied+1, err
			w.fate(pod.UID).became = policy.PodDenied
			if errors.Is(err, ErrFull) {
				w.fate(pod.UID).became = policy.PodFull
			}
		}
	}
	return changed
}

// holdsNode is how many pods keep the Node, because the API server denied the write that fails them. Pods that their owners have
// filled so that no write fits do not count, or whoever may create pods could keep any Node. They go with the Node.
func (w *work) holdsNode() int { return w.became(policy.PodDenied) }

// denied is how many pods the API server refused to have failed.
func (w *work) denied() int { return w.became(policy.PodDenied) + w.became(policy.PodFull) }

// became is how many pods became what is given.
func (w *work) became(what string) (n int) {
	for _, f := range w.fates {
		if f.became == what {
			n++
		}
	}
	return n
}

// noteOutcomes notes in the status what became of each pod.
func (w *work) noteOutcomes() {
	became := make(map[string]string, len(w.fates))
	for uid, f := range w.fates {
		became[uid] = f.became
	}
	w.death.SetOutcome(became)
}

// notePods notes in the status how the fail-over went.
func (w *work) notePods(t tally) {
	switch {
	case w.denied() > 0:
		w.condition(policy.PodsFailed, policy.False, "Denied", t.String())
	case w.death.PodsFailed < w.death.PodsTotal:
		w.condition(policy.PodsFailed, policy.False, "NodeIsBack", t.String())
	default:
		w.condition(policy.PodsFailed, policy.True, "Failed", t.String())
	}
	w.noteOutcomes()
}

// readPods reads some pods again. One that is gone, or whose name another pod has now, becomes a zero Pod.
func (w *work) readPods(ctx context.Context, which []int) error {
	_, err := w.each(ctx, failing, "read pods", len(which), func(ctx context.Context, i int) error {
		pod := &w.pods[which[i]]
		now, err := w.e.cluster.Pod(ctx, pod.Namespace, pod.Name)
		switch {
		case errors.Is(err, ErrNotFound), err == nil && now.UID != pod.UID:
			*pod = policy.Pod{}
		case err == nil:
			*pod = now
		}
		return err
	})
	return err
}

// sweep lists the pods again, ever less often, and fails those that have come to the dead node since: they tolerate every
// taint, or were bound late. It does so as long as the dead node exists.
func (w *work) sweep(ctx context.Context, p policy.Plan) error {
	if w.back() != "" || !w.death.Step(policy.StepFail).Done || !w.sweeps.due(w.e.Now()) {
		return nil
	}
	changed, err := w.failLate(ctx, p)
	if err != nil || !changed {
		return err
	}
	return w.save(ctx, tidying)
}

// failLate fails the pods that came to the dead node after its fail-over, and deletes those that somebody replaces. Those that the API
// server refused to have failed are tried again: people mend rights, and webhooks start up. changed says that the status has to be written.
func (w *work) failLate(ctx context.Context, p policy.Plan) (changed bool, err error) {
	if err := w.readPodsOf(ctx, p.Node); err != nil {
		return false, err
	}
	var which, denied []int
	listed := map[string]bool{}
	for i, pod := range w.pods {
		listed[pod.UID] = true
		switch became := w.fate(pod.UID).became; {
		case became == policy.PodDenied:
			denied = append(denied, i)
		case became == "" && policy.CareFor(pod, p.Death, p.Notice.Time) == policy.Fail:
			which = append(which, i)
		}
	}
	held := w.holdsNode()
	if len(which)+held == 0 {
		return false, nil
	}
	// If the Node still reads as the dead one, or is gone, then the pods listed before were bound to the dead one.
	if err := w.readNode(ctx, failing); err != nil || (w.back() != "" && w.lookup == policy.Found) {
		return false, err
	}
	var t tally
	if len(which) > 0 {
		// What replaces them would come here again: an empty node is the scheduler's first choice.
		if err := w.closeNode(ctx); err != nil {
			return false, err
		}
		if err := w.failAll(ctx, p, &t, which); err != nil {
			return false, err
		}
		w.death.PodsTotal += t.failed + t.gone + t.denied + t.revived
	}
	first := min(len(denied), 1) // if it is denied again, so are the others
	for _, some := range [][]int{denied[:first], denied[first:]} {
		before := t.denied
		if err := w.failAll(ctx, p, &t, some); err != nil {
			return false, err
		}
		if t.denied > before {
			break
		}
	}
	for uid, f := range w.fates {
		if f.became == policy.PodDenied && !listed[uid] {
			f.became = policy.PodGone
			t.gone++
		}
	}
	if len(which) == 0 && w.holdsNode() == held {
		return false, nil
	}
	w.death.PodsFailed += t.failed + t.gone
	w.notePods(t)
	w.log.Info("late pods", "death", w.name, "node", p.Node, "note", t.String())
	for _, i := range slices.Concat(which, denied) {
		if pod := w.pods[i]; policy.CareFor(pod, p.Death, p.Notice.Time) == policy.Failed {
			w.emitFor(pod, p)
		}
	}
	_, err = w.deletePods(ctx, p)
	return true, err
}

// tally counts what became of pods, for a step's note.
type tally struct {
	failed, annotated, deleted, gone, left, denied int
	revived                                        int   // left alone though they were ours to fail: they changed
	denial                                         error // one of the denials
}

// countDeleted counts the answers to deletions. A conflict means that another pod has the name by now.
func (t *tally) countDeleted(answers []error) {
	for _, err := range answers {
		switch {
		case err == nil:
			t.deleted++
		case errors.Is(err, ErrNotFound), errors.Is(err, ErrConflict):
			t.gone++
		default:
			t.denied, t.denial = t.denied+1, err
		}
	}
}

// String is the tally as a step's note.
func (t tally) String() string {
	var parts []string
	for _, c := range []struct {
		n    int
		what string
	}{
		{t.failed, "failed"}, {t.deleted, "deleted"}, {t.gone, "gone already"}, {t.annotated, "annotated"},
		{t.left, "left alone"}, {t.denied, "denied"},
	} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	if len(parts) == 0 {
		return "no pods"
	}
	if t.denial != nil {
		parts = append(parts, "last: "+t.denial.Error())
	}
	return strings.Join(parts, ", ")
}
