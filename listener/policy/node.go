package policy

import (
	"net/netip"
	"strings"
	"time"
)

// Node is a Kubernetes Node as it was read.
type Node struct {
	Name            string
	UID             string
	ResourceVersion string
	Created         time.Time
	ProviderID      string
	Addresses       []netip.Addr
	BootID          string    // status.nodeInfo.bootID: the boot whose kubelet reported last
	Kernel          string    // status.nodeInfo.kernelVersion of that boot: `uname -r`
	OSImage         string    // status.nodeInfo.osImage
	MachineID       string    // status.nodeInfo.machineID; only ever compared with machine ids
	Ready           bool      // condition Ready is True
	Silent          bool      // condition Ready is Unknown: the control plane has not heard from the kubelet
	SilentSince     time.Time // lastTransitionTime of that condition; zero unless Silent
	ControlPlane    bool
	Labels          map[string]string // those that NodeInfo and selection need
	Unschedulable   bool              // cordoned
	Quarantined     bool              // cordoned, or with taints of others that no controller would put back
	Leaving         bool              // being taken away by an autoscaler or a deletion, or shutting down
	Finalizers      []string
	NodeClaim       Owner    // of Karpenter's that the Node names, zero if none
	Deleting        bool     // has a deletionTimestamp: its finalizers are waited for
	Pin             Pin      // annotation lastgasp.dev/pin, written by the node itself
	Claim           Pin      // annotation lastgasp.dev/claim, written by the listener from a canary
	Farewell        Farewell // annotation lastgasp.dev/farewell: the node's own word about its last orderly end
	Mark            Mark     // our annotations, zero if the Node carries none
	Unhealthy       string   // boot whose kernel our condition calls dead or sick, empty if none
	Fenced          bool     // our taint is on the Node
	OutOfService    bool     // the out-of-service taint is on the Node
	Closed          bool     // status.allocatable has no room for a pod, whatever it tolerates
}

// Pin ties the secret of one boot to a Node.
type Pin struct {
	Boot string // boot id
	Sum  string // netconsole.Secret.Sum
}

// Mark is what the fence writes on the Node in addition to the taint.
type Mark struct {
	Death  string // name of the NodeDeath
	Boot   string // boot id that died; empty if unknown
	Reason string // the incident's title
	// OutOfService says that the out-of-service taint is ours: we remove it, and no other.
	OutOfService bool
}

// KernelHealthy is the type of our condition on Nodes by default.
const KernelHealthy = "lastgasp.dev/KernelHealthy"

// Health is what our condition on a Node says of its kernel (`condition` in listener.yaml).
type Health struct {
	Unhealthy string // boot id of the kernel that is dead or sick; empty if the kernel is healthy
	Reason    string // CamelCase: the cause, or why it is healthy
	Message   string // one sentence, with the remedy
}

// Instance is the id of n in the cloud: the last element of its providerID, as in aws:///us-east-1a/i-0123456789abcdef0.
func (n Node) Instance() string {
	return n.ProviderID[strings.LastIndexByte(n.ProviderID, '/')+1:]
}

// IsAWS reports whether a spec.providerID names an instance of EC2.
func IsAWS(providerID string) bool { return strings.HasPrefix(providerID, "aws://") }

// PinOnWire is the pin whose secret is in everything that n's kernel sends. It is zero if that kernel cannot send one: nodes
// pin their secret on any kernel.
func (n Node) PinOnWire() Pin {
	if n.Pin.Boot == "" || n.Pin.Boot != n.BootID || !hasUserdata(n.Kernel) {
		return Pin{}
	}
	return n.Pin
}

// knows reports whether sum is the secret that n's pin or claim names for boot.
func (n Node) knows(boot, sum string) bool {
	return boot != "" && sum != "" && (n.Pin == Pin{boot, sum} || n.Claim == Pin{boot, sum})
}
