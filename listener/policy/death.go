package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// Phase is how far the work on a death is, in one word for people.
type Phase string

const (
	// Pending: accepted; a decision or a witness is awaited.
	Pending Phase = "Pending"
	// Held: the breaker is open; fenced, nothing failed or deleted.
	Held Phase = "Held"
	// Refused: contradicted by a witness, or of no Node; nothing failed or deleted.
	Refused Phase = "Refused"
	// Cleaning: decided, and the steps are under way.
	Cleaning Phase = "Cleaning"
	// Cleaned: every step is done.
	Cleaned Phase = "Cleaned"
	// Incomplete: every step is done, but pods could not be failed.
	Incomplete Phase = "Incomplete"
	// Recorded: true, and nothing to clean up: the node is back on another boot, or is left out, which the reason of the condition
	// Complete says (Decision.LeftOut).
	Recorded Phase = "Recorded"
)

// Finished reports whether nobody needs to work on a death in phase p any more. A Held death waits for a release.
func (p Phase) Finished() bool {
	return p == Refused || p == Cleaned || p == Incomplete || p == Recorded
}

// OrPending is p, or Pending for that of a death whose status was never written.
func (p Phase) OrPending() Phase { return cmp.Or(p, Pending) }

// AtWork reports whether some replica should be working on a death in phase p. The empty phase is that of a death whose
// status was never written.
func (p Phase) AtWork() bool { return p == "" || p == Pending || p == Cleaning }

// Evidence is what a death is known from.
type Evidence string

const (
	ByNetconsole Evidence = "netconsole" // the dying kernel itself
	ByPstore     Evidence = "pstore"     // what it left in pstore
	ByKdump      Evidence = "kdump"      // what kdump saved
	ByWatchdog   Evidence = "watchdog"   // a watchdog's bootstatus
	ByFirmware   Evidence = "firmware"   // what the firmware kept of a reset
	ByConsole    Evidence = "console"    // the cloud's console output
	ByCloud      Evidence = "cloud"      // the cloud's word about the instance
	ByNothing    Evidence = "none"       // nothing: the boot ended without a word
)

// Death is a NodeDeath: one boot of one node ended, and not in good order.
type Death struct {
	Name    string // DeathName of node and boot
	UID     string
	Version string // resourceVersion
	Created time.Time

	// Spec: evidence. Node to Source never change; the rest only grows, see cleanup.Cluster.AmendDeath.
	Node        string
	NodeUID     string
	Instance    string // as the incident says, else as the Node does; for people, never for the cloud
	Boot        string // boot id that ended; empty if neither incident nor Node has it
	Time        time.Time
	Source      netip.AddrPort
	Cause       string // KernelPanic, HardLockup, …
	Reason      string // the headline, one line
	Fingerprint string
	Remedy      string
	Release     string // `uname -r`
	Evidence    []Evidence
	Authority   detect.Authority
	Culprit     *Culprit
	NodeInfo    NodeInfo
	Pods        []DeadPod // at most MaxPods
	Images      []string  // of Pods, each once
	PodsOmitted int
	Packed      PackedPods // Pods and Images of a Death from a list, which has neither
	Trace       []string
	// TraceOmitted is how many lines were left out of Trace.
	TraceOmitted int

	// Status: work.
	Phase      Phase
	Decision   string // one sentence: why it was acted on, held or refused
	Owner      string // replica at work
	Started    time.Time
	Completed  time.Time
	Conditions []Condition
	Steps      []StepStatus // in order; a step not listed has not begun
	PodsTotal  int          // pods to fail
	PodsFailed int
	Outcomes   []Outcome
	Suspects   []Suspect // who may be to blame
	Released   bool      // a human annotated the death to release it from the breaker
}

// MaxPods is how many pods a Death names.
const MaxPods = 300

// Culprit is what ran when the kernel died, where the text tells.
type Culprit struct {
	Comm      string
	PID       int
	CPU       int
	Cgroup    string
	Namespace string // of the pod that Cgroup names, if it is known; likewise Pod and PodUID
	Pod       string
	PodUID    string
	Bystander bool // it only happened to run: the kernel died in interrupt context
}

// NodeInfo is what kind of machine died.
type NodeInfo struct{ InstanceType, Zone, NodePool, Image string }

// DeadPod is a pod that was on the node.
type DeadPod struct {
	Namespace, Name, UID string
	OwnerKind, OwnerName string
	Images               []int // indices into Death.Images
}

// What became of pods, as Outcome.What.
const (
	PodFailed  = "Failed"    // failed by us
	PodDeleted = "Deleted"   // failed by us, then deleted
	PodGone    = "Gone"      // gone before we came
	PodDenied  = "Denied"    // the API server refused to have it failed
	PodFull    = "Full"      // likewise, because its owner has left no room for our annotations
	PodMirror  = "Annotated" // a static pod's mirror: annotated only
	PodLeft    = "LeftAlone" // finished before, or started after
)

// Outcome is what became of some of the pods.
type Outcome struct {
	What string
	Pods []int // indices into Death.Pods
}

// StepStatus is one line of the log of a death's steps.
type StepStatus struct {
	Name string    // one of the Step names
	Done bool      // finished; a step begun and not done is repeated
	Time time.Time // of the last change
	Note string    // one sentence for the reader: "12 failed, 1 mirror annotated"
}

// Step returns the status of a step, zero if it has not begun.
func (d Death) Step(name string) StepStatus {
	for _, s := range d.Steps {
		if s.Name == name {
			return s
		}
	}
	return StepStatus{}
}

// SetStep sets the status of a step. It never writes into a slice that a copy of d may share.
func (d *Death) SetStep(s StepStatus) {
	d.Steps = slices.Clone(d.Steps)
	if i := slices.IndexFunc(d.Steps, func(o StepStatus) bool { return o.Name == s.Name }); i >= 0 {
		d.Steps[i] = s
		return
	}
	d.Steps = append(d.Steps, s)
}

// Types of a Death's conditions.
const (
	Fenced          = "Fenced"          // nothing more is scheduled to the node
	PodsFailed      = "PodsFailed"      // every pod that died is Failed
	VolumesDetached = "VolumesDetached" // nothing is attached to the node any more
	Settled         = "Settled"         // the Node is deleted, kept or back, as planned
	Complete        = "Complete"        // nothing is left to do
)

// Condition is one of a Death's conditions.
type Condition struct {
	Type    string
	Status  Status
	Reason  string // CamelCase
	Message string
	Time    time.Time // of the last change of Status
}

// Status is a condition's status.
type Status string

const (
	True    Status = "True"
	False   Status = "False"
	Unknown Status = "Unknown"
)

// Condition returns d's condition of that type, zero if it has none.
func (d Death) Condition(kind string) Condition {
	for _, c := range d.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return Condition{}
}

// SetCondition sets the condition of c's type. Its time changes with its status only, as the API conventions say.
func (d *Death) SetCondition(c Condition) {
	d.Conditions = slices.Clone(d.Conditions)
	i := slices.IndexFunc(d.Conditions, func(o Condition) bool { return o.Type == c.Type })
	if i < 0 {
		d.Conditions = append(d.Conditions, c)
		return
	}
	if d.Conditions[i].Status == c.Status {
		c.Time = d.Conditions[i].Time
	}
	d.Conditions[i] = c
}
