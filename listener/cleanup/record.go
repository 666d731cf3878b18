package cleanup

import (
	"net/netip"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// Phase is how far an incident's cleanup is.
type Phase string

const (
	// Claimed: recorded and fenced; cleanup is under way or waits for a second witness.
	Claimed Phase = "Claimed"
	// Held: the breaker is open; fenced and recorded, nothing deleted.
	Held Phase = "Held"
	// Refused: contradicted by a witness, or not ours to act on; nothing deleted.
	Refused Phase = "Refused"
	// Cleaned: every step is done.
	Cleaned Phase = "Cleaned"
)

// Record is a KernelPanic object: the record of an incident, the claim on its cleanup and the write-ahead log in one.
type Record struct {
	// Spec, written once. Trace and what the complete record adds may be amended.
	Name        string // derived from node and boot, see RecordName
	UID         string
	Version     string // resourceVersion
	Created     time.Time
	Node        string
	NodeUID     string
	Instance    string // as the gasp says, else as the Node does; empty if neither told
	Boot        string // boot id that panicked; empty if neither gasp nor Node told
	Source      netip.AddrPort
	Time        time.Time // arrival of the first fatal record
	Code        string
	Title       string
	Fingerprint string
	Remedy      string
	Release     string
	Authority   detect.Authority
	Trace       []string

	// Status.
	Phase     Phase
	Decision  string // one sentence: why it was acted on, held or refused
	Owner     string // replica at work
	OwnerSeen time.Time
	Steps     []StepStatus // in order; a step not listed has not begun
	PodsTotal int          // pods to fail
	PodsDone  int          // pods failed
	Released  bool         // a human annotated the record to release it from the breaker
}

// StepStatus is one line of the write-ahead log.
type StepStatus struct {
	Name string    // one of the Step names
	Done bool      // finished; a step begun and not done is repeated
	Time time.Time // of the last change
	Note string    // one sentence for the reader: "12 failed, 1 mirror annotated"
}
