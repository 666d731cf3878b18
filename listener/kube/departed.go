package kube

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// departedFor is how long a deleted Node's addresses are remembered: a panic may arrive after the Node was deleted, and
// cloud networks hand addresses out again within minutes.
const departedFor = 5 * time.Minute

// machine is what stays the same when a Node object is deleted and registered again. A name does not: EC2 nodes are
// named after their address.
type machine struct {
	name                  string // of the Node, for people
	providerID, machineID string
	left                  time.Time
}

func machineOf(n *corev1.Node) machine {
	return machine{name: n.Name, providerID: n.Spec.ProviderID, machineID: n.Status.NodeInfo.MachineID}
}

// is reports whether both are certainly the same machine. Machine ids count only without a providerID: images are cloned.
func (m machine) is(o machine) bool {
	if m.providerID != "" || o.providerID != "" {
		return m.providerID == o.providerID
	}
	return m.machineID != "" && m.machineID == o.machineID
}

// departed remembers the former owners of addresses for a while. Its zero value is ready.
type departed struct {
	mu     sync.Mutex
	owners map[netip.Addr][]machine
}

// remember notes that n was deleted at now, and forgets what is too old.
func (d *departed) remember(n *corev1.Node, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for addr, owners := range d.owners {
		owners = slices.DeleteFunc(owners, func(m machine) bool { return now.Sub(m.left) >= departedFor })
		if len(owners) == 0 {
			delete(d.owners, addr)
			continue
		}
		d.owners[addr] = owners
	}
	if d.owners == nil {
		d.owners = map[netip.Addr][]machine{}
	}
	m := machineOf(n)
	m.left = now
	for _, addr := range addressesOf(n) {
		d.owners[addr] = append(d.owners[addr], m)
	}
}

// other returns the machine that owned addr last, unless it is m or too long ago.
func (d *departed) other(addr netip.Addr, m machine, now time.Time) (machine, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, o := range slices.Backward(d.owners[addr]) {
		if now.Sub(o.left) < departedFor && !o.is(m) {
			return o, true
		}
	}
	return machine{}, false
}
