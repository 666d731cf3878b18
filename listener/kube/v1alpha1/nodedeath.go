package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ReleaseAnnotation on a NodeDeath, set to "true" by a person, releases it from the breaker:
//
//	kubectl annotate nodedeath NAME lastgasp.dev/release=true
const ReleaseAnnotation = "lastgasp.dev/release"

// Labels of a NodeDeath, so that deaths can be selected. LabelNode is left out where the Node's name is no label value.
const (
	LabelCause     = "lastgasp.dev/cause"
	LabelAuthority = "lastgasp.dev/authority"
	LabelNode      = "lastgasp.dev/node"
)

// NodeDeath says that one boot of one node ended, and not in good order: the evidence, and the work that followed.
// It is cluster-scoped and outlives pods, Node and events.
type NodeDeath struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   NodeDeathSpec   `json:"spec"`
	Status NodeDeathStatus `json:"status,omitempty"`
}

// NodeDeathSpec is the evidence. Node, NodeUID, Instance, Boot, Time and Source never change; the authority only rises;
// the rest is amended when more of the evidence has arrived.
type NodeDeathSpec struct {
	// Node is the name of the Node and NodeUID its UID at the time, empty where none or more than one answers to Source.
	Node    string `json:"node"`
	NodeUID string `json:"nodeUID,omitempty"`
	// Instance is the EC2 instance id, or the machine id elsewhere.
	Instance string `json:"instance,omitempty"`
	// Boot is the boot id of the boot that ended, empty if neither the evidence nor the Node names it.
	Boot string `json:"boot,omitempty"`
	// Time is when the first fatal record arrived or, without netconsole, when the boot was found to have ended.
	Time metav1.MicroTime `json:"time"`
	// Source is the address and port that the datagrams came from.
	Source string `json:"source,omitempty"`

	// Cause is a stable word: KernelPanic, HardLockup, PowerLoss, Unexplained, …
	Cause string `json:"cause"`
	// Reason is the headline, as a kernel engineer would write it: "general protection fault in foo".
	Reason string `json:"reason"`
	// Fingerprint is equal for equal bugs.
	Fingerprint string `json:"fingerprint,omitempty"`
	// Remedy is advice for a known bug.
	Remedy string `json:"remedy,omitempty"`
	// Release is the kernel's `uname -r`.
	Release string `json:"release,omitempty"`

	// Evidence lists what the death is known from: netconsole, pstore, kdump, console, cloud or none.
	Evidence []string `json:"evidence,omitempty"`
	// Authority is how far the evidence can be believed: text, cloud, kernel, boot, claimed or pinned.
	Authority string `json:"authority"`
	// Culprit is the task on the CPU that crashed, where the evidence names it.
	Culprit *Culprit `json:"culprit,omitempty"`
	// NodeInfo is what kind of machine it was.
	NodeInfo *NodeInfo `json:"nodeInfo,omitempty"`

	// Images are the images of Pods, each once; DeadPod.Images are indices into it.
	Images []string `json:"images,omitempty"`
	// Pods were on the node, 300 at most; PodsOmitted counts the rest.
	Pods        []DeadPod `json:"pods,omitempty"`
	PodsOmitted int       `json:"podsOmitted,omitempty"`

	// Trace is the kernel's log around the crash, oldest line first; TraceOmitted counts the lines left out.
	Trace        []string `json:"trace,omitempty"`
	TraceOmitted int      `json:"traceOmitted,omitempty"`
}

// Culprit is the task that ran where the kernel crashed.
type Culprit struct {
	// Comm is the name of the task, PID its id, CPU the processor it ran on.
	Comm string `json:"comm,omitempty"`
	PID  int    `json:"pid"`
	CPU  int    `json:"cpu"`
	// Cgroup is the task's control group, Pod the pod that it belongs to.
	Cgroup string  `json:"cgroup,omitempty"`
	Pod    *PodRef `json:"pod,omitempty"`
	// Bystander tells that the crash happened in interrupt context: the task was there by chance.
	Bystander bool `json:"bystander,omitempty"`
}

// PodRef names one pod.
type PodRef struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	UID       string `json:"uid,omitempty"`
}

// NodeInfo is what the Node's labels say of the machine.
type NodeInfo struct {
	InstanceType string `json:"instanceType,omitempty"`
	Zone         string `json:"zone,omitempty"`
	NodePool     string `json:"nodePool,omitempty"`
	Image        string `json:"image,omitempty"`
}

// DeadPod is a pod that was on the node when it died.
type DeadPod struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	UID       string   `json:"uid"`
	Owner     *OwnerOf `json:"owner,omitempty"`
	Images    []int    `json:"images,omitempty"`
}

// OwnerOf is the controlling owner of a pod.
type OwnerOf struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// NodeDeathStatus is the work.
type NodeDeathStatus struct {
	// Phase sums the work up in one word: Pending, Held, Refused, Cleaning, Cleaned, Incomplete or Recorded.
	Phase string `json:"phase,omitempty"`
	// Decision says in one sentence why it was acted on, held or refused.
	Decision string `json:"decision,omitempty"`
	// Owner is the replica at work.
	Owner string `json:"owner,omitempty"`
	// StartTime and CompletionTime enclose the work.
	StartTime      *metav1.MicroTime `json:"startTime,omitempty"`
	CompletionTime *metav1.MicroTime `json:"completionTime,omitempty"`
	// Conditions are Fenced, PodsFailed, VolumesDetached, Settled and Complete. Complete has the phase as its reason or, of a node that
	// is left out, NodeExcluded or ControlPlane.
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Steps of the cleanup in order; one that is not listed has not begun.
	Steps []Step `json:"steps,omitempty"`
	// Pods says what became of the node's pods.
	Pods Pods `json:"pods,omitempty"`
	// Suspects may be to blame: a reason to look, and no proof.
	Suspects []Suspect `json:"suspects,omitempty"`
}

// Suspect is a workload or an image that may be what kills nodes.
type Suspect struct {
	// Rule is why: Replacement (a pod that replaced one of a dead node died with its own node, of the same bug) or Image (the
	// nodes that died of the bug have it, and few of those that died of others).
	Rule string `json:"rule"`
	// Namespace and Owner say whose pods these are, Pod is what their names have in common.
	Namespace string   `json:"namespace,omitempty"`
	Owner     *OwnerOf `json:"owner,omitempty"`
	Pod       string   `json:"pod,omitempty"`
	Image     string   `json:"image,omitempty"`
	// Deaths are the NodeDeaths it had a part in, oldest first, this one last.
	Deaths []string `json:"deaths"`
	// Why says so in one sentence.
	Why string `json:"why"`
}

// Step is one line of the cleanup's log. A step that is listed but not done has begun and is repeated after a crash.
type Step struct {
	Name string            `json:"name"`
	Done bool              `json:"done"`
	Time *metav1.MicroTime `json:"time,omitempty"`
	Note string            `json:"note,omitempty"`
}

// Pods counts the pods of a dead node.
type Pods struct {
	// Total is how many are to fail, Failed how many have.
	Total  int `json:"total"`
	Failed int `json:"failed"`
	// Summary says the same for the printer column: "12/12".
	Summary string `json:"summary,omitempty"`
	// Outcomes say what became of whom.
	Outcomes []Outcome `json:"outcomes,omitempty"`
}

// Outcome is one thing that became of some of spec.pods.
type Outcome struct {
	// Outcome is a word: Failed, Deleted, Gone, Denied, Full, Annotated or LeftAlone.
	Outcome string `json:"outcome"`
	// Pods are indices into spec.pods.
	Pods []int `json:"pods,omitempty"`
}

// NodeDeathList is a list of NodeDeaths.
type NodeDeathList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []NodeDeath `json:"items"`
}
