package cleanup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// What a Cluster answers when it cannot do as asked. Everything else is a fault that may pass and is worth repeating.
var (
	// ErrNotFound: the object is not there (any more).
	ErrNotFound = errors.New("not found")
	// ErrAmbiguous: more than one Node answers to the sender; acting would be a guess.
	ErrAmbiguous = errors.New("more than one node matches")
	// ErrExists: the object was created before.
	ErrExists = errors.New("already exists")
	// ErrConflict: the object changed since it was read (409, or 422 for another UID); read again and decide again.
	ErrConflict = errors.New("changed since it was read")
	// ErrDenied: the API server refuses on principle; repeating does not help.
	ErrDenied = errors.New("denied")
	// ErrForbidden is an ErrDenied for want of a right (403). An API server that has just started says so of everything
	// until it has read its RBAC rules, so it is believed only when it has said so for a while.
	ErrForbidden = fmt.Errorf("%w: no right to", ErrDenied)
	// ErrFull is an ErrDenied because the object has as many annotations as it may have, or is as large as it may be: its owner can see to that.
	ErrFull = fmt.Errorf("%w: it has no room for annotations", ErrDenied)
)

// Sender is who sent an incident or a canary, as far as it says so. Sum is the SHA-256 of its secret; all but Addr may be
// empty.
type Sender struct {
	Instance, Boot, Sum string
	Addr                netip.Addr
}

// Cluster is all that cleanup needs of Kubernetes, in cleanup's own verbs. Reads are live and consistent unless their
// comment says otherwise. Every write carries what it was decided on: UID and resourceVersion of the value passed in.
type Cluster interface {
	// FindNode returns the one Node that s identifies: the Node with that instance (the last element of spec.providerID,
	// else the machine id) or that address, which counts only where instance is empty or the Node has no id of its kind.
	// Several are told apart by the boot they run, then by a pin or claim of boot and sum, before they are ErrAmbiguous. The
	// candidate comes from a cache, the answer is read live. A Node found by instance must also own the address, else
	// ErrNotFound: the datagram came from elsewhere.
	FindNode(ctx context.Context, s Sender) (policy.Node, error)
	// Node reads one Node.
	Node(ctx context.Context, name string) (policy.Node, error)
	// NodeCount is how many Nodes with a Linux kernel of their own there are, from the cache, for the breaker.
	NodeCount() int
	// Unnamed is the name of a Node whose spec.providerID does not say which machine it is, so that it may be any instance of EC2; empty
	// if there is none. It is from the cache, and never blocks.
	Unnamed() string
	// Proves returns the authority of a secret, by its sum, that some Node has pinned for the boot, which may be over, or that
	// was claimed where a Node runs the boot and has pinned none, from the cache; other Nodes may say the same. It never blocks.
	Proves(boot, sum string) (a detect.Authority, ok bool)
	// Known reports whether a Node answers to that instance and address, or to the address alone where FindNode goes by it,
	// from the cache. It never blocks.
	Known(instance string, addr netip.Addr) bool
	// LeaseRenewed reads the Lease of the Node's kubelet. ErrNotFound if there is none, or it was never renewed.
	LeaseRenewed(ctx context.Context, node string) (policy.Renewal, error)
	// MarkedNodes lists the Nodes that carry our mark or our taint or that we called unhealthy, from the cache.
	MarkedNodes(ctx context.Context) ([]policy.Node, error)
	// SilentNodes lists the Nodes that the control plane does not hear from (condition Ready is Unknown), from the cache.
	SilentNodes(ctx context.Context) ([]policy.Node, error)
	// EndedBoots returns the Nodes whose boot has ended since the last call, as they were read last before: they report
	// another boot, or are gone. Only boots that were pinned or claimed are among them. A Node that reports neither the boot
	// that it pinned nor the one that was claimed when it is read first is returned with the newer of them, which may also
	// have just begun, unless it said farewell of that. It never blocks.
	EndedBoots() []policy.Node
	// PatchNode applies p to the Node as it was read and returns it as it is now.
	PatchNode(ctx context.Context, n policy.Node, p NodePatch) (policy.Node, error)
	// SetHealth writes our condition to the Node as it was read, and returns the Node as it is now.
	SetHealth(ctx context.Context, n policy.Node, h policy.Health) (policy.Node, error)
	// CloseNode says of the Node as it was read that it has no room for pods, and returns it as it is now. The scheduler then
	// binds nothing to it any more, not even what tolerates every taint. Its kubelet gives the room back if it lives.
	CloseNode(ctx context.Context, n policy.Node) (policy.Node, error)
	// DeleteNode deletes exactly the Node that was read (UID and resourceVersion preconditions).
	DeleteNode(ctx context.Context, n policy.Node) error

	// DeleteNodeClaim marks and deletes the NodeClaim that the Node names, if it says itself that this Node and its machine
	// are its own; else ErrDenied. One that is being deleted already is left alone. ErrConflict: the Node is gone, another one, or on
	// another boot.
	DeleteNodeClaim(ctx context.Context, n policy.Node, death string) error

	// CreateDeath writes a NodeDeath, spec and status. ErrExists: there is one of that name already. Where the spec got
	// through and the status did not, it succeeds and the status it returns is empty; UpdateDeath writes it.
	CreateDeath(ctx context.Context, d policy.Death) (policy.Death, error)
	// Death reads one NodeDeath.
	Death(ctx context.Context, name string) (policy.Death, error)
	// Deaths lists every NodeDeath, from a cache, without Trace and with its pods Packed: it is asked every second, and whoever acts on
	// the answer reads the death again.
	Deaths(ctx context.Context) ([]policy.Death, error)
	// CachedDeath is the one of that name among them. It never blocks.
	CachedDeath(name string) (d policy.Death, ok bool)
	// UpdateDeath writes d's status only, ErrConflict if the death changed since it was read.
	UpdateDeath(ctx context.Context, d policy.Death) (policy.Death, error)
	// AmendDeath adds to the spec of the death with d's UID what only d has. A longer trace replaces the shorter one and,
	// with it, cause, reason, fingerprint, remedy, release and culprit; evidence that is new is added; pods and images are
	// set if there are none. Nothing else changes, and a death without anything to add is not written. It needs no
	// version and so cannot conflict. It returns the death as it is now, which has another version if it was written.
	AmendDeath(ctx context.Context, d policy.Death) (policy.Death, error)
	// DeleteDeath removes the NodeDeath exactly as it was read, ErrConflict if it changed since.
	DeleteDeath(ctx context.Context, d policy.Death) error
	// Replicas lists the listeners' Leases. The Lease of this replica is renewed, every 2 s or more often, by the Cluster.
	Replicas(ctx context.Context) ([]Replica, error)

	// Pods lists the pods bound to a Node, consistently, without a cache.
	Pods(ctx context.Context, node string) ([]policy.Pod, error)
	// Pod reads one pod.
	Pod(ctx context.Context, namespace, name string) (policy.Pod, error)
	// FailPod is the fail-over: one PATCH of pods/status with phase Failed, reason, conditions and annotations.
	FailPod(ctx context.Context, p policy.Pod, n policy.Notice) (policy.Pod, error)
	// AnnotatePod writes n's annotations only, for pods whose phase is not ours to set (mirror pods).
	AnnotatePod(ctx context.Context, p policy.Pod, n policy.Notice) (policy.Pod, error)
	// AnnotateFarewell writes f on the pod, and nothing else. The pod may have changed since it was read.
	AnnotateFarewell(ctx context.Context, p policy.Pod, f policy.Farewell) error
	// UnreadyPod says of the containers of a pod that was failed that they are not ready. Their states stay as they are. A pod
	// whose containers are not ready, or that has changed, is left alone.
	UnreadyPod(ctx context.Context, p policy.Pod) error
	// DeletePod deletes with grace 0 and UID precondition. A pod with finalizers stays, marked; that is not an error.
	DeletePod(ctx context.Context, p policy.Pod) error
	// Attachments counts the VolumeAttachments that name the Node.
	Attachments(ctx context.Context, node string) (int, error)

	// Emit emits an event. It never blocks and never fails: events are for people.
	Emit(e Event)
}

// Replica is the Lease of one listener of the cluster.
type Replica struct {
	Name    string    // as in Death.Owner
	Renewed time.Time // by its own clock: only ever compared with itself
}

// NodePatch is one change to a Node; nil fields are left alone.
type NodePatch struct {
	Fence        *bool            // put or remove the taint lastgasp.dev/dead:NoSchedule
	OutOfService *bool            // put or remove the taint node.kubernetes.io/out-of-service:NoSchedule
	Mark         *policy.Mark     // write our annotations; a zero Mark removes them
	Claim        *policy.Pin      // write the claim annotation
	Farewell     *policy.Farewell // write the farewell annotation
}

// Event is a Kubernetes event. It is about exactly one of Node, Pod and Owner.
type Event struct {
	Node      policy.Node
	Pod       policy.Pod
	Owner     policy.Owner // of pods
	Namespace string       // of Owner
	Warning   bool
	Reason    string // CamelCase: KernelPanic, KernelPanicRefused, KernelOops, …
	Action    string // CamelCase verb: Fence, FailPods, DeleteNode, Report, …
	Note      string // ≤ 1 KiB
}
