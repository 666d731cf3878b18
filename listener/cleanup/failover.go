package cleanup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// jobTracking is the finalizer by which the Job controller counts a pod. It is its to remove, and it does so at once.
const jobTracking = "batch.kubernetes.io/job-tracking"

// failPods is the fail-over: all pods of the node in parallel, those that changed meanwhile read and judged again, and
// all of them left alone as soon as the node turns out to be back.
func (j *job) failPods(ctx context.Context, p Plan) (string, error) {
	j.failing = true
	defer func() { j.failing = false }()
	var t tally
	all := make([]int, len(j.pods))
	for i := range all {
		all[i] = i
	}
	todo := j.triage(p, &t, all)
	t.revived = 0 // came to life after the gasp: never ours to fail
	// The list may have taken minutes, or the decision may be another replica's.
	if err := j.lookForReturn(ctx); err != nil {
		return "", err
	}
	switch {
	case j.back != "" && j.found == nil:
		t.revived, todo = j.toFail(todo), nil
	case j.found == nil:
		// Whoever judged the gasp otherwise may have lifted the fence before it saw that we had claimed the record.
		if err := j.keepFence(ctx); err != nil {
			return "", err
		}
	}
	for len(todo) > 0 {
		answers, err := j.each(ctx, failing, "fail pods", len(todo), func(ctx context.Context, i int) error {
			return j.failPod(ctx, p, &j.pods[todo[i]])
		})
		if err != nil {
			return "", err
		}
		changed := t.count(answers, j.pods, todo)
		if len(changed) == 0 {
			break
		}
		if err := j.lookForReturn(ctx); err != nil {
			return "", err
		}
		if j.back != "" && j.found == nil {
			t.revived += j.toFail(changed)
			break
		}
		if err := j.readPods(ctx, changed); err != nil {
			return "", err
		}
		todo = j.triage(p, &t, changed)
	}
	j.rec.PodsDone = t.failed + t.gone
	j.rec.PodsTotal = j.rec.PodsDone + t.denied + t.revived
	if j.back != "" {
		return t.String() + "; " + j.back, nil
	}
	return t.String(), nil
}

// triage counts those of the pods that need nothing and returns the others; which and the answer are indices.
func (j *job) triage(p Plan, t *tally, which []int) (todo []int) {
	for _, i := range which {
		pod := j.pods[i]
		if pod.UID == "" {
			t.gone++
			continue
		}
		switch careFor(pod, p.Record, p.Death.Time) {
		case fail, annotate:
			todo = append(todo, i)
		case failed:
			t.failed++
		case leave:
			t.left++
			if !pod.Finished() && !pod.Mirror {
				t.revived++
			}
		}
	}
	return todo
}

// toFail counts those of the pods that are to fail and not only to be annotated.
func (j *job) toFail(which []int) (n int) {
	for _, i := range which {
		if !j.pods[i].Mirror {
			n++
		}
	}
	return n
}

// failPod fails or, where the phase is the kubelet's, annotates one pod. It runs in the queue and owns *pod meanwhile.
func (j *job) failPod(ctx context.Context, p Plan, pod *Pod) error {
	do := j.e.cluster.FailPod
	if pod.Mirror {
		do = j.e.cluster.AnnotatePod
	}
	out, err := do(ctx, *pod, p.Death)
	if err != nil {
		return err
	}
	*pod = out
	if !out.Mirror {
		j.e.Observer.PodFailed(j.e.Now().Sub(p.Death.Time))
	}
	return nil
}

// readPods reads some pods again. One that is gone, or of whose name there is another by now, becomes a zero Pod.
func (j *job) readPods(ctx context.Context, which []int) error {
	_, err := j.each(ctx, failing, "read pods", len(which), func(ctx context.Context, i int) error {
		pod := &j.pods[which[i]]
		now, err := j.e.cluster.Pod(ctx, pod.Namespace, pod.Name)
		switch {
		case errors.Is(err, ErrNotFound), err == nil && now.UID != pod.UID:
			*pod = Pod{}
		case err == nil:
			*pod = now
		}
		return err
	})
	return err
}

// deletePods deletes the pods that were failed: those of Jobs and then, if all is true, the others.
func (j *job) deletePods(ctx context.Context, p Plan, all bool) (string, error) {
	var jobs, others []Pod
	for _, pod := range j.pods {
		switch {
		case careFor(pod, p.Record, p.Death.Time) != failed:
		case pod.ofJob():
			jobs = append(jobs, pod)
		default:
			others = append(others, pod)
		}
	}
	groups := [][]Pod{jobs}
	if all {
		groups = append(groups, others)
	}
	var t tally
	for _, pods := range groups {
		answers, err := j.each(ctx, tidying, "delete pods", len(pods), func(ctx context.Context, i int) error {
			return j.deletePod(ctx, pods[i])
		})
		if err != nil {
			return "", err
		}
		t.countDeleted(answers)
	}
	notes := []string{t.String()}
	if !all && len(others) > 0 {
		notes = append(notes, fmt.Sprintf("%d kept until %s", len(others), p.KeepTill.UTC().Format("15:04:05 UTC")))
	}
	return strings.Join(append(notes, finalized(slices.Concat(jobs, others))...), "; "), nil
}

// deletePod deletes one pod and believes that it is another one by now only if it has seen it: a conflict may be about
// anything. It runs in the queue.
func (j *job) deletePod(ctx context.Context, pod Pod) error {
	err := j.e.cluster.DeletePod(ctx, pod)
	if !errors.Is(err, ErrConflict) {
		return err
	}
	now, readErr := j.e.cluster.Pod(ctx, pod.Namespace, pod.Name)
	switch {
	case readErr != nil:
		return readErr
	case now.UID != pod.UID:
		return err
	}
	return errors.New("the pod is still there") // a fault: again
}

// finalized says which pods wait for finalizers that are others' to remove. They are never stripped.
func finalized(pods []Pod) []string {
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
