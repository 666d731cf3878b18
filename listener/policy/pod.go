package policy

import (
	"strings"
	"time"
)

// Pod is a Kubernetes Pod as it was read.
type Pod struct {
	Namespace       string
	Name            string
	UID             string
	ResourceVersion string
	Node            string
	Phase           string // Pending, Running, Succeeded, Failed, Unknown
	Mirror          bool   // static pod's mirror: the kubelet owns it
	Deleting        bool   // has a deletionTimestamp
	Finalizers      []string
	Created         time.Time
	// Started is the latest start of any of its containers, zero if none ever ran. The kubelet of a rebooted node runs
	// the same pod objects again: a start after the panic means that this pod lives.
	Started time.Time
	// Lost says that a container of it ended without the kubelet knowing how, as when the kernel below it dies.
	Lost   bool
	Owner  Owner // controlling owner, zero if none
	Images []string
	// Marked says that the pod carries our termination-reason annotation; Death names the NodeDeath that failed it.
	Marked bool
	Death  string
}

// Owner is the controlling owner of a pod.
type Owner struct{ APIVersion, Kind, Name, UID string }

// Finished reports whether the pod's phase is final.
func (p Pod) Finished() bool { return p.Phase == "Succeeded" || p.Phase == "Failed" }

// OfJob reports whether a Job owns the pod. These are deleted first and never kept: a kubelet that comes back writes exit
// code 137 into Failed pods, and the Job controller judges all of a Job's Failed pods anew at each sync.
func (p Pod) OfJob() bool {
	return p.Owner.Kind == "Job" && strings.HasPrefix(p.Owner.APIVersion, "batch/")
}

// Owned reports whether some controller owns the pod.
func (p Pod) Owned() bool { return p.Owner != Owner{} }

// Replaced reports whether one of Kubernetes' own controllers makes another pod in p's place, as soon as p has failed. Of other
// controllers nothing is known.
func (p Pod) Replaced() bool {
	group, _, grouped := strings.Cut(p.Owner.APIVersion, "/")
	switch p.Owner.Kind {
	case "ReplicaSet", "StatefulSet", "DaemonSet":
		return grouped && group == "apps"
	case "Job":
		return p.OfJob()
	case "ReplicationController":
		return !grouped
	}
	return false
}

// Care is what a pod on a dead node needs.
type Care int

const (
	// Leave it alone: it ended before the panic, or came to life after it.
	Leave Care = iota
	// Annotate it: the phase of a static pod's mirror is the kubelet's.
	Annotate
	// Fail it.
	Fail
	// Failed by us before.
	Failed
)

// CareFor is what p needs when its node died at the time given and death is the name of its NodeDeath. The node's clock may be
// ahead of ours: a container that started a few seconds after the death, by that clock, ran on the boot that died.
func CareFor(p Pod, death string, at time.Time) Care {
	late := p.Created.After(at)
	switch {
	case p.Marked && p.Death == death && p.Mirror:
		return Leave
	case p.Marked && p.Death == death && p.Phase == "Failed":
		return Failed
	case p.Finished():
		return Leave // it did not die of the panic
	case p.Started.After(at.Add(skew)), late && p.Mirror:
		return Leave
	case p.Mirror:
		return Annotate
	case late && p.Owner.Kind == "DaemonSet":
		return Leave // it belongs to this node only, and waits for its kubelet; a replacement would come here again
	}
	return Fail // also what was bound to the node after its death: nobody will ever start it there
}
