package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Ports of the control plane. They are fixed because its namespace is its own.
const (
	apiServerPort  = 6443
	etcdPort       = "2379"
	etcdPeerPort   = "2380"
	controllerPort = "10257"
	schedulerPort  = "10259"
)

// ClusterSpec says where a control plane runs, and its options.
type ClusterSpec struct {
	// NS is the namespace of all its processes.
	NS *NS
	// Addr is the API server's address, which must be on an interface in NS.
	Addr netip.Addr
	// Audit makes the API server write an audit log: see Cluster.AuditLog.
	Audit bool
	// SlowController leaves the controller manager at the 20 requests a second that it has in most clusters. Otherwise
	// it may do 1000, which starts faster and makes waiting on its work short.
	SlowController bool
	// NoControllers leaves out controller manager and scheduler, for clusters so large that these would take all memory. Pods
	// cannot be made through the API then, because it requires their service account: see Cluster.Store.
	NoControllers bool
	// NodeGrace is for how long the control plane waits for a silent kubelet before it calls its Node's readiness Unknown; zero means
	// its default, 50 s.
	NodeGrace time.Duration
}

// Cluster is a running Kubernetes control plane with TLS, client certificates, RBAC and the usual admission: etcd, API
// server, controller manager and scheduler. It has no nodes until StartHollowNode.
type Cluster struct {
	spec      ClusterSpec
	scope     Scope
	binaries  Binaries
	dir       string
	ca        *authority
	config    *rest.Config
	client    *kubernetes.Clientset
	admin     string // path of the admin's kubeconfig
	apiServer *process
	etcd      *process

	mu      sync.Mutex
	running []*process
}

// StartCluster builds the control plane if need be and starts it. It returns when the controllers are at work, and
// the cluster ends with s; ctx is for the start only.
func StartCluster(ctx context.Context, s Scope, spec ClusterSpec) (*Cluster, error) {
	if err := InstallPackages(ctx, s, "iproute2"); err != nil { // NS.Command is ip netns exec
		return nil, err
	}
	binaries, err := BuildControlPlane(ctx, s)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "lastgasp-cluster-")
	if err != nil {
		return nil, fmt.Errorf("make folder of cluster: %w", err)
	}
	c := &Cluster{spec: spec, scope: s, binaries: binaries, dir: dir}
	s.Cleanup(c.remove)
	steps := []func(context.Context) error{c.makeCredentials, c.startEtcd, c.StartAPIServer}
	if !spec.NoControllers {
		steps = append(steps, c.startControllers, c.awaitControllers)
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("start cluster: %w", err)
		}
	}
	return c, nil
}

// Client returns the administrator's clientset. It works from any namespace.
func (c *Cluster) Client() kubernetes.Interface { return c.client }

// RESTConfig is the administrator's client configuration, without a rate limit, a copy for the caller. It works from
// any namespace.
func (c *Cluster) RESTConfig() *rest.Config { return rest.CopyConfig(c.config) }

// AuditLog is the path of the API server's audit log: one JSON object (audit.k8s.io/v1, level Metadata, of pods' deletions Request) per answered
// request. It is empty without ClusterSpec.Audit.
func (c *Cluster) AuditLog() string {
	if !c.spec.Audit {
		return ""
	}
	return c.path("logs", "audit.log")
}

// StopAPIServer kills the API server as a power cut would; everything else keeps running.
func (c *Cluster) StopAPIServer() {
	if c.apiServer != nil {
		c.stop(c.apiServer)
		c.apiServer = nil
	}
}

// StartAPIServer starts the API server again, with the address, certificates and data it had, and returns when it is
// ready.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	if c.apiServer != nil {
		return nil
	}
	args := []string{
		"--bind-address=" + c.spec.Addr.String(), // 0.0.0.0 is refused where there is no default route
		fmt.Sprintf("--secure-port=%d", apiServerPort),
		"--tls-cert-file=" + c.path("apiserver.crt"),
		"--tls-private-key-file=" + c.path("apiserver.key"),
		"--client-ca-file=" + c.path("ca.crt"),
		"--anonymous-auth=false",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--etcd-servers=https://127.0.0.1:" + etcdPort,
		"--etcd-cafile=" + c.path("ca.crt"),
		"--etcd-certfile=" + c.path("apiserver-etcd.crt"),
		"--etcd-keyfile=" + c.path("apiserver-etcd.key"),
		"--endpoint-reconciler-type=none",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file=" + c.path("sa.key"),
		"--service-account-key-file=" + c.path("sa.key"),
		"--service-cluster-ip-range=10.96.0.0/16",
		"--profiling=false",
	}
	if c.spec.Audit {
		args = append(args, "--audit-policy-file="+c.path("audit.yaml"), "--audit-log-path="+c.AuditLog())
	}
	p, err := c.start("kube-apiserver", args...)
	if err != nil {
		return err
	}
	c.apiServer = p
	return c.await(ctx, "the API server to be ready", func(ctx context.Context) (bool, error) {
		err := c.client.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
		return err == nil, err
	})
}

// StopEtcd kills etcd as a power cut would, below an API server that goes on.
func (c *Cluster) StopEtcd() {
	if c.etcd != nil {
		c.stop(c.etcd)
		c.etcd = nil
	}
}

// StartEtcd starts etcd again, with the data it had. The API server finds it by itself.
func (c *Cluster) StartEtcd(ctx context.Context) error {
	if c.etcd != nil {
		return nil
	}
	return c.startEtcd(ctx)
}

func (c *Cluster) startEtcd(context.Context) error {
	client, peer := "https://127.0.0.1:"+etcdPort, "http://127.0.0.1:"+etcdPeerPort
	p, err := c.start("etcd",
		"--name=lab",
		"--data-dir="+c.path("etcd"),
		"--listen-client-urls="+client,
		"--advertise-client-urls="+client,
		"--listen-peer-urls="+peer,
		"--initial-advertise-peer-urls="+peer,
		"--initial-cluster=lab="+peer,
		"--client-cert-auth",
		"--trusted-ca-file="+c.path("ca.crt"),
		"--cert-file="+c.path("etcd.crt"),
		"--key-file="+c.path("etcd.key"),
		"--quota-backend-bytes=4294967296",
		"--unsafe-no-fsync", // what a power cut would cost is thrown away anyhow
		"--log-level=warn",
	)
	c.etcd = p
	return err
}

// startControllers starts the controller manager and the scheduler.
func (c *Cluster) startControllers(context.Context) error {
	common := func(user, port string) ([]string, error) {
		kubeconfig, err := c.Kubeconfig(user)
		return []string{
			"--kubeconfig=" + kubeconfig,
			"--authentication-kubeconfig=" + kubeconfig,
			"--authorization-kubeconfig=" + kubeconfig,
			"--bind-address=127.0.0.1",
			"--secure-port=" + port,
			"--leader-elect=false", // there is nobody to contend with, and the lease costs seconds
			"--profiling=false",
		}, err
	}
	args, err := common("system:kube-controller-manager", controllerPort)
	if err != nil {
		return err
	}
	args = append(args,
		"--use-service-account-credentials",
		"--service-account-private-key-file="+c.path("sa.key"),
		"--root-ca-file="+c.path("ca.crt"),
	)
	if !c.spec.SlowController {
		args = append(args, "--kube-api-qps=1000", "--kube-api-burst=2000")
	}
	if c.spec.NodeGrace > 0 {
		args = append(args, "--node-monitor-grace-period="+c.spec.NodeGrace.String())
	}
	if err := c.startKept("kube-controller-manager", args...); err != nil {
		return err
	}
	if args, err = common("system:kube-scheduler", schedulerPort); err != nil {
		return err
	}
	return c.startKept("kube-scheduler", args...)
}

// awaitControllers waits for a thing that only a controller at work makes, and without which no pod is admitted.
func (c *Cluster) awaitControllers(ctx context.Context) error {
	return c.await(ctx, "the controllers to be at work", func(ctx context.Context) (bool, error) {
		_, err := c.client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	})
}

// start runs one of the control plane's programs in the namespace until stop, or until the cluster ends.
func (c *Cluster) start(program string, args ...string) (*process, error) {
	return c.startIn(c.spec.NS, program, c.binaries.ControlPlane, append([]string{program}, args...)...)
}

// startKept is start for a program that is restarted when it ends by itself, as a control plane's kubelet would do. The
// scheduler exits when its cache disagrees with the API, which may happen after an API server's outage (kubernetes
// pkg/scheduler/backend/cache).
func (c *Cluster) startKept(program string, args ...string) error {
	p, err := c.start(program, args...)
	if err != nil {
		return err
	}
	go func() {
		for range maxRevivals {
			<-p.done
			if p = c.revive(p, program, args); p == nil {
				return
			}
		}
	}()
	return nil
}

// maxRevivals bounds how often a program is restarted, so that one that always fails counts as dead.
const maxRevivals = 5

// revive restarts a program unless we have ended it. It returns nil if there is nothing more to do.
func (c *Cluster) revive(was *process, program string, args []string) *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.running, was)
	if i < 0 {
		return nil
	}
	p, err := startProcess(program, was.log, c.spec.NS.Command(context.Background(), c.binaries.ControlPlane,
		append([]string{program}, args...)...))
	if err != nil {
		return nil
	}
	c.running[i] = p
	return p
}

func (c *Cluster) startIn(ns *NS, name, binary string, args ...string) (*process, error) {
	// The context is not the caller's: the process lives as long as the cluster.
	p, err := startProcess(name, c.path("logs", name+".log"), ns.Command(context.Background(), binary, args...))
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = append(c.running, p)
	return p, nil
}

func (c *Cluster) stop(p *process) {
	c.mu.Lock()
	c.running = slices.DeleteFunc(c.running, func(r *process) bool { return r == p })
	c.mu.Unlock()
	p.kill()
}

// died returns an error about the first process that ended without us ending it.
func (c *Cluster) died() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.running {
		if err := p.died(); err != nil {
			return err
		}
	}
	return nil
}

// await asks ready again and again until it says yes. It gives up when ctx ends, when a process of the cluster dies,
// and after five minutes, which is many times what a busy machine needs.
func (c *Cluster) await(ctx context.Context, what string, ready func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		try, cancelTry := context.WithTimeout(ctx, 15*time.Second)
		ok, err := ready(try)
		cancelTry()
		if ok {
			return nil
		}
		if err := c.died(); err != nil {
			return err
		}
		if ctx.Err() == nil {
			last = err // not an error that only says that ctx has ended
		}
		select {
		case <-ctx.Done():
			if last != nil {
				return fmt.Errorf("wait for %s: %w: %w", what, context.Cause(ctx), last)
			}
			return fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// remove ends all processes and removes all files; after a failure the logs stay.
func (c *Cluster) remove() {
	if err := c.died(); err != nil {
		c.scope.Logf("%v", err)
	}
	c.mu.Lock()
	running := c.running
	c.running = nil // so that nothing is restarted
	c.mu.Unlock()
	for _, p := range slices.Backward(running) {
		p.kill()
	}
	if !c.scope.Failed() {
		os.RemoveAll(c.dir)
		return
	}
	entries, _ := os.ReadDir(c.dir)
	for _, entry := range entries {
		if entry.Name() != "logs" {
			os.RemoveAll(c.path(entry.Name()))
		}
	}
	c.scope.Logf("logs of the control plane are in %s", c.path("logs"))
}

func (c *Cluster) path(elem ...string) string {
	return filepath.Join(append([]string{c.dir}, elem...)...)
}
