package cleanup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// What a Cluster answers when it cannot do as asked. Everything else is a fault that may pass and is worth repeating.
var (
	// ErrNotFound: the object is not there (any more).
	ErrNotFound = errors.New("not found")
	// ErrAmbiguous: more than one Node answers to the address or instance; acting would be a guess.
	ErrAmbiguous = errors.New("more than one node matches")
	// ErrExists: another replica created the object first.
	ErrExists = errors.New("already exists")
	// ErrConflict: the object changed since it was read (409, or 422 for another UID); read again and decide again.
	ErrConflict = errors.New("changed since it was read")
	// ErrDenied: the API server refuses on principle; repeating does not help.
	ErrDenied = errors.New("denied")
	// ErrForbidden is an ErrDenied for want of a right (403). An API server that has just started says so of everything
	// until it has read its RBAC rules, so it is believed only when it has said so for a while.
	ErrForbidden = fmt.Errorf("%w: no right to", ErrDenied)
)

// Cluster is all that cleanup needs of Kubernetes, at cleanup's own verbs. Reads are live and consistent unless their
// comment says otherwise. Every write carries what it was decided on: UID and resourceVersion of the value passed in.
type Cluster interface {
	// FindNode returns the one Node that is instance (matched against the last element of spec.providerID, then the
	// Node's machine id) or, where instance is empty, has addr among its addresses. The candidate comes from a cache,
	// the answer is read live. A Node found by instance must also own addr, else ErrNotFound: the gasp is not its own.
	FindNode(ctx context.Context, instance string, addr netip.Addr) (Node, error)
	// Node reads one Node.
	Node(ctx context.Context, name string) (Node, error)
	// NodeCount is how many Nodes there are, from the cache, for the breaker.
	NodeCount() int
	// LeaseRenewed is when the Node's kubelet last renewed its Lease and how long it holds the Lease for, zero if it does
	// not say. ErrNotFound if there is none.
	LeaseRenewed(ctx context.Context, node string) (renewed time.Time, duration time.Duration, err error)
	// MarkedNodes lists the Nodes that carry our mark or our taint, from the cache.
	MarkedNodes(ctx context.Context) ([]Node, error)
	// PatchNode applies p to the Node as it was read and returns it as it is now.
	PatchNode(ctx context.Context, n Node, p NodePatch) (Node, error)
	// DeleteNode deletes exactly the Node that was read (UID and resourceVersion preconditions).
	DeleteNode(ctx context.Context, n Node) error

	// CreateRecord writes the KernelPanic that claims the incident; ErrExists means another replica owns it.
	CreateRecord(ctx context.Context, r Record) (Record, error)
	// Record reads one KernelPanic by name.
	Record(ctx context.Context, name string) (Record, error)
	// Records lists every KernelPanic, from a cache and without Trace: it is asked every few seconds, and whoever acts on
	// the answer reads the record again.
	Records(ctx context.Context) ([]Record, error)
	// UpdateRecord writes r's status and whatever r adds to the spec (title, fingerprint, trace, …; nothing is taken away),
	// ErrConflict if the record changed since it was read.
	UpdateRecord(ctx context.Context, r Record) (Record, error)
	// DeleteRecord removes an old KernelPanic.
	DeleteRecord(ctx context.Context, r Record) error

	// Pods lists the pods bound to a Node, consistently, without a cache.
	Pods(ctx context.Context, node string) ([]Pod, error)
	// Pod reads one pod.
	Pod(ctx context.Context, namespace, name string) (Pod, error)
	// FailPod is the fail-over: one PATCH of pods/status with phase Failed, reason, conditions and annotations.
	FailPod(ctx context.Context, p Pod, d Death) (Pod, error)
	// AnnotatePod writes d's annotations only, for pods whose phase is not ours to set (mirror and finished pods).
	AnnotatePod(ctx context.Context, p Pod, d Death) (Pod, error)
	// DeletePod deletes with grace 0 and UID precondition. A pod with finalizers stays, marked; that is not an error.
	DeletePod(ctx context.Context, p Pod) error
	// Attachments counts the VolumeAttachments that name the Node.
	Attachments(ctx context.Context, node string) (int, error)

	// Tell emits an event. It never blocks and never fails: events are for people.
	Tell(e Event)
}

// Node is a Kubernetes Node as it was read.
type Node struct {
	Name            string
	UID             string
	ResourceVersion string
	ProviderID      string
	Addresses       []netip.Addr
	BootID          string // status.nodeInfo.bootID: the boot whose kubelet reported last
	Kernel          string // status.nodeInfo.kernelVersion of that boot: `uname -r`
	Ready           bool   // condition Ready is True
	Silent          bool   // condition Ready is Unknown: the control plane has not heard from the kubelet
	Created         time.Time
	ControlPlane    bool
	Pin             Pin  // annotation lastgasp.dev/pin
	Mark            Mark // our annotations, zero if the Node carries none
	Fenced          bool // our taint is on the Node
	OutOfService    bool // the out-of-service taint is on the Node
}

// Pin ties the gasp of one boot to a Node.
type Pin struct {
	Boot string // boot id
	Sum  string // netconsole.Gasp.Sum
}

// Mark is what the fence writes on the Node beside the taint, and what a restarted listener goes on from.
type Mark struct {
	Record string // name of the KernelPanic
	Boot   string // boot id that panicked; empty if unknown
	Reason string // the incident's title
	// OutOfService tells that the out-of-service taint is ours, so that we remove it and nobody else's.
	OutOfService bool
}

// NodePatch is one change to a Node; nil and zero fields are left alone.
type NodePatch struct {
	Fence        *bool // put or remove the taint lastgasp.dev/kernel-panic:NoSchedule
	OutOfService *bool // put or remove the taint node.kubernetes.io/out-of-service:NoSchedule
	Mark         *Mark // write our annotations; a zero Mark removes them
	Pin          *Pin  // write the pin annotation
}

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
	// the same pod objects again: a start after the gasp means that this pod lives.
	Started time.Time
	Owner   Owner // controlling owner, zero if none
	// Marked tells that the pod carries our termination-reason annotation, Record which KernelPanic's.
	Marked bool
	Record string
}

// Finished reports whether the pod's phase is final.
func (p Pod) Finished() bool { return p.Phase == "Succeeded" || p.Phase == "Failed" }

// Owner is the controlling owner of a pod.
type Owner struct{ APIVersion, Kind, Name, UID string }

// Death is what a pod of a dead node is told.
type Death struct {
	Record  string    // name of the KernelPanic
	Code    string    // incident code: KernelPanic, …
	Reason  string    // one line: the panic's headline
	Message string    // ≤ 1 KiB: headline, node, kernel, record
	Time    time.Time // of the gasp: when the pod stopped being ready
}

// Event is something worth telling people.
type Event struct {
	Node      Node   // set for events on a Node
	Owner     Owner  // set for events on a pods' owner
	Namespace string // of Owner
	Warning   bool
	Reason    string // CamelCase: KernelPanic, KernelPanicRefused, KernelOops, …
	Action    string // CamelCase verb: Fence, FailPods, DeleteNode, Report, …
	Note      string // ≤ 1 KiB
}
