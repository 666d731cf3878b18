package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ReleaseAnnotation on a KernelPanic, set to "true" by a human, releases it from the breaker:
//
//	kubectl annotate kernelpanic NAME lastgasp.dev/release=true
const ReleaseAnnotation = "lastgasp.dev/release"

// KernelPanic is the death of one boot of one node: the record, the claim on its cleanup, and the log of it.
// It is cluster-scoped and outlives pods, node and events.
type KernelPanic struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   KernelPanicSpec   `json:"spec"`
	Status KernelPanicStatus `json:"status,omitempty"`
}

// KernelPanicSpec is what was heard. Who died, when and where it was heard from never changes; the rest is amended once,
// when the whole trace has arrived.
type KernelPanicSpec struct {
	// Node is the name of the Node and NodeUID its UID at the time, empty where none or more than one answers to Source.
	Node    string `json:"node"`
	NodeUID string `json:"nodeUID,omitempty"`
	// Instance is the EC2 instance id, or the machine id elsewhere.
	Instance string `json:"instance,omitempty"`
	// Boot is the boot id that died, empty if neither gasp nor Node told.
	Boot string `json:"boot,omitempty"`
	// Source is the address and port the gasp came from.
	Source string `json:"source,omitempty"`
	// Time is when the first fatal record arrived.
	Time metav1.MicroTime `json:"time"`
	// Code is a stable word: KernelPanic, HardLockup, …
	Code string `json:"code"`
	// Reason names the crash as a kernel engineer would: "general protection fault in foo".
	Reason string `json:"reason"`
	// Fingerprint is equal for equal bugs.
	Fingerprint string `json:"fingerprint,omitempty"`
	// Remedy is advice for a known bug.
	Remedy string `json:"remedy,omitempty"`
	// Release is the kernel's `uname -r`.
	Release string `json:"release,omitempty"`
	// Authority is how far the gasp can be believed: text, kernel, boot or pinned.
	Authority string `json:"authority"`
	// Trace is the kernel's log around the crash, oldest line first, 128 KiB at most.
	Trace []string `json:"trace,omitempty"`
}

// KernelPanicStatus is what was done.
type KernelPanicStatus struct {
	// Phase is Claimed, Held, Refused or Cleaned.
	Phase string `json:"phase,omitempty"`
	// Decision says in one sentence why it was acted on, held or refused.
	Decision string `json:"decision,omitempty"`
	// Owner is the replica at work, OwnerSeen when it last said so.
	Owner     string            `json:"owner,omitempty"`
	OwnerSeen *metav1.MicroTime `json:"ownerSeen,omitempty"`
	// Steps of the cleanup in order; one that is not listed has not begun.
	Steps []Step `json:"steps,omitempty"`
	// Pods counts the node's pods, PodsSummary says the same for the printer column: "12/12".
	Pods        Pods   `json:"pods,omitempty"`
	PodsSummary string `json:"podsSummary,omitempty"`
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
	// Total is how many are to fail, Done how many have.
	Total int `json:"total"`
	Done  int `json:"done"`
}

// KernelPanicList is a list of KernelPanics.
type KernelPanicList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []KernelPanic `json:"items"`
}
