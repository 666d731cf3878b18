// Package crowd makes hundreds or tens of thousands of nodes that exist only in the API, and makes them die by sending the
// datagrams of a real kernel's death. It is for what needs many nodes; a node that really dies is in package story.
package crowd

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/story"
)

// endpoint is the listener's address: nodes send from addresses of 127.0.0.0/8 in its own network namespace.
var endpoint = netip.MustParseAddrPort("127.0.0.1:6666")

// World is a control plane with what we ship installed, and no nodes yet.
type World struct {
	Cluster *lab.Cluster
	// Admin may do everything and speaks protobuf.
	Admin *kubernetes.Clientset
	// Listener is Admin for system:serviceaccount:lastgasp:listener.
	Listener *kubernetes.Clientset

	ns     *lab.NS
	living sync.Map // names of Nodes whose Leases are renewed
}

// NewWorld starts it as spec says, in a network of its own.
func NewWorld(ctx context.Context, s lab.Scope, spec lab.ClusterSpec) (*World, error) {
	net, err := lab.NewNet(s)
	if err != nil {
		return nil, err
	}
	w := &World{ns: net.Listener}
	spec.NS, spec.Addr = net.Listener, lab.APIServerAddr.Addr()
	if w.Cluster, err = lab.StartCluster(ctx, s, spec); err != nil {
		return nil, err
	}
	if err := story.Install(ctx, w.Cluster); err != nil {
		return nil, err
	}
	token, err := w.Cluster.Client().CoreV1().ServiceAccounts("lastgasp").CreateToken(ctx, "listener",
		&authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("ask for the listener's token: %w", err)
	}
	if w.Admin, err = newClient(w.Cluster.RESTConfig()); err != nil {
		return nil, err
	}
	account := rest.AnonymousClientConfig(w.Cluster.RESTConfig())
	account.BearerToken = token.Status.Token
	if w.Listener, err = newClient(account); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	s.Cleanup(cancel)
	go w.renew(ctx)
	return w, nil
}

// newClient returns a client with the transport settings of our listener.
func newClient(cfg *rest.Config) (*kubernetes.Clientset, error) {
	cfg.QPS = -1
	cfg.ContentType = runtime.ContentTypeProtobuf
	cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return client, nil
}

// StartListener runs the listener, whose program is binary, under the rights it has in a cluster. Policy is YAML: the keys
// of listener.yaml that are about policy. It returns when the listener has seen the Nodes and has proved the admission
// policies, which the API server enforces some moments after it has them.
func (w *World) StartListener(ctx context.Context, s lab.Scope, binary, policy string) (d *lab.Daemon, log string, err error) {
	d, log, err = story.StartListener(ctx, s, story.ListenerSpec{
		Binary: binary, NS: w.ns, Cluster: w.Cluster, Listen: endpoint.String(), Policy: policy,
	})
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, waitTimeout, fmt.Errorf("the listener was not ready within %s", waitTimeout))
	defer cancel()
	for tick := time.Tick(20 * time.Millisecond); ; {
		if err := d.Died(); err != nil {
			return nil, "", err
		}
		if w.ready(ctx) {
			said, err := os.ReadFile(log)
			if err != nil {
				return nil, "", fmt.Errorf("read the listener's log: %w", err)
			}
			if bytes.Contains(said, []byte("the admission policies are in force")) {
				return d, log, nil
			}
		}
		select {
		case <-tick:
		case <-ctx.Done():
			return nil, "", context.Cause(ctx)
		}
	}
}
