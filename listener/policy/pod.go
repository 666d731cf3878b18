package policy

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// care is what a pod on a dead node needs.
type care int

const (
	// leave it alone: it ended before the panic, or came to life after it.
	leave care = iota
	// annotate it: the phase of a static pod's mirror is the kubelet's.
	annotate
	// fail it.
	fail
	// failed by us before.
	failed
)

// careFor is what p needs when its node died at gasp and record is the node's.
func careFor(p Pod, record string, gasp time.Time) care {
	switch {
	case p.Marked && p.Record == record && p.Mirror:
		return leave
	case p.Marked && p.Record == record && p.Phase == "Failed":
		return failed
	case p.Finished():
		return leave // telling it that it died of a panic would be a lie
	case p.Created.After(gasp), p.Started.After(gasp):
		return leave
	case p.Mirror:
		return annotate
	}
	return fail
}

// ofJob reports whether a Job owns the pod. These go first and are never kept: a kubelet that comes back writes exit
// code 137 into Failed pods, and the Job controller judges all of a Job's Failed pods anew at each sync.
func (p Pod) ofJob() bool {
	return p.Owner.Kind == "Job" && strings.HasPrefix(p.Owner.APIVersion, "batch/")
}

// tally counts what became of pods, for a step's note.
type tally struct {
	failed, annotated, deleted, gone, left, denied int
	revived                                        int   // left alone though they were ours to fail: they changed
	denial                                         error // one of the denials
}

// count counts the answers to the writes of pods[which[i]], and returns those that changed since they were read.
func (t *tally) count(answers []error, pods []Pod, which []int) (changed []int) {
	for i, err := range answers {
		switch {
		case err == nil && pods[which[i]].Mirror:
			t.annotated++
		case err == nil:
			t.failed++
		case errors.Is(err, ErrNotFound):
			t.gone++
		case errors.Is(err, ErrConflict):
			changed = append(changed, which[i])
		default:
			t.denied, t.denial = t.denied+1, err
		}
	}
	return changed
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
