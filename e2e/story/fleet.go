package story

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

// Fleet is a world of nodes without kernels: hollow kubelets, whose kernels' datagrams we send. It is for tests of authority and
// decisions; World is for the deaths of real kernels.
type Fleet struct {
	Net     *lab.Net
	Cluster *lab.Cluster
	// Listener is the running daemon, ListenerLog the path of its log; see Listen.
	Listener    *lab.Daemon
	ListenerLog string

	scope  lab.Scope
	binary string // of the listener
	admin  string // kubeconfig
	next   byte   // last octet of the next node's address
}

// NewFleet builds it with nobody listening yet. What spec leaves open about where the control plane runs is filled in.
func NewFleet(ctx context.Context, s lab.Scope, spec lab.ClusterSpec) (*Fleet, error) {
	f := &Fleet{scope: s, next: 20}
	bin, err := Build(ctx, s)
	if err != nil {
		return nil, err
	}
	f.binary = filepath.Join(bin, "lastgasp-listener")
	if f.Net, err = lab.NewNet(s); err != nil {
		return nil, err
	}
	s.Logf("starting etcd, kube-apiserver, kube-controller-manager and kube-scheduler")
	spec.NS, spec.Addr = f.Net.Listener, lab.APIServerAddr.Addr()
	if f.Cluster, err = lab.StartCluster(ctx, s, spec); err != nil {
		return nil, err
	}
	if f.admin, err = f.Cluster.Kubeconfig("admin", "system:masters"); err != nil {
		return nil, err
	}
	return f, Install(ctx, f.Cluster)
}

// Listen starts the listener with a policy (see ListenerSpec), and replaces the running one, if any.
func (f *Fleet) Listen(ctx context.Context, policy string) (err error) {
	if f.Listener != nil {
		f.Listener.Kill()
	}
	f.Listener, f.ListenerLog, err = StartListener(ctx, f.scope, ListenerSpec{
		Binary: f.binary, NS: f.Net.Listener, Cluster: f.Cluster, Listen: f.Endpoint().String(), Policy: policy,
	})
	return err
}

// Endpoint is where the listener hears.
func (f *Fleet) Endpoint() netip.AddrPort { return netip.AddrPortFrom(lab.ListenerAddr.Addr(), 6666) }

// Address makes an unused address in the node subnet.
func (f *Fleet) Address() (netip.Addr, error) {
	octets := lab.NodeAddr.Masked().Addr().As4()
	octets[3] = f.next
	f.next++
	addr := netip.AddrFrom4(octets)
	return addr, f.Net.NodeAddress(netip.PrefixFrom(addr, lab.NodeAddr.Bits()))
}

// NewHollow makes a node that is not started yet.
func (f *Fleet) NewHollow(name string) (*Hollow, error) {
	addr, err := f.Address()
	if err != nil {
		return nil, err
	}
	voice, err := f.Voice(f.Net.Node, addr)
	if err != nil {
		return nil, err
	}
	return &Hollow{Name: name, Addr: addr, Identity: newBoot("i-" + name), fleet: f, voice: voice}, nil
}

// Apply applies manifests to a namespace.
func (f *Fleet) Apply(ctx context.Context, namespace, manifests string) error {
	_, err := f.Cluster.KubectlAs(ctx, f.admin, manifests, "apply", "--namespace", namespace, "--filename", "-")
	return err
}

// busy is several times what a busy machine needs for anything that is awaited.
const busy = 5 * time.Minute

// await asks until the answer is nil, for as long as a busy machine may need.
func await(ctx context.Context, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, busy, fmt.Errorf("not within %s", busy))
	defer cancel()
	for tick := time.Tick(50 * time.Millisecond); ; {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", what, context.Cause(ctx), err)
		}
	}
}
