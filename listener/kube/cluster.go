// Package kube is cleanup.Cluster on client-go, and the only code of lastgasp that speaks Kubernetes.
//
// Nodes are watched, trimmed to what is needed to find one by its boot or address, and NodeDeaths without their traces and
// pods; everything else is read when it is needed. There is no pod informer: the pods of one node are a look-up in the API
// server's index, all pods of a large cluster are gigabytes. Decisions are not made here. Every write names the UID and
// resourceVersion it was decided on. Nothing that a kernel or a datagram says is written as it came (printable.go).
//
// That the admission policies restrict the listener is proved, not assumed. Until it is proved, pods and Nodes are not
// written. See Prove.
package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/kube/v1alpha1"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// manager names this program in managedFields and in a pod's termination-by annotation.
const manager = "lastgasp-listener"

// Config says which cluster and under which name.
type Config struct {
	// REST reaches the API server. Rate limits and content type are set here, on a copy.
	REST *rest.Config
	// Annotations are the keys under which a pod says how it died. Keys other than the default ones must also be allowed in
	// packaging/kubernetes/base/policies/pods.yaml, or the API server denies the writes.
	Annotations Annotations
	// Condition is the type of the condition on Nodes; empty means policy.KernelHealthy. Another one must also be named in
	// packaging/kubernetes/base/policies/nodes.yaml, or the API server denies the writes.
	Condition string
	// NodeClaims says that NodeClaims are deleted, which takes packaging/kubernetes/karpenter.
	NodeClaims bool
	// ControlPlane says that nodes of the control plane are fenced, which packaging/kubernetes/base/policies/nodes.yaml denies as shipped.
	ControlPlane bool
	// Replica is this listener's name in events and of its Lease; empty means lastgasp-listener.
	Replica string
	// Namespace is where the replicas' Leases are; empty means lastgasp.
	Namespace string
	// Pod is this listener's own pod in Namespace, on which Prove tries its writes; empty means any pod that is bound.
	Pod string
	// Log is for what no method returns as an error. Nil discards.
	Log *slog.Logger
}

// Annotations are keys of pod annotations; an empty one means the default.
type Annotations struct {
	Reason string // the headline; lastgasp.dev/termination-reason
	Code   string // the cause; lastgasp.dev/termination-code
	By     string // who says so; lastgasp.dev/termination-by
}

// Cluster is one Kubernetes cluster as the listener's service account may see and change it.
type Cluster struct {
	core         kubernetes.Interface // protobuf
	deaths       rest.Interface       // NodeDeaths, JSON: custom resources have no protobuf
	keys         Annotations
	condition    string
	nodeClaims   bool
	controlPlane bool
	replica      string
	namespace    string
	pod          string
	log          *slog.Logger

	nodes         cache.SharedIndexInformer
	deathCache    cache.SharedIndexInformer
	unlisted      sync.Map // Nodes or NodeDeaths → why the last attempt to list or watch them failed
	departed      departed
	boots         boots
	attachments   attachments
	proof         proof
	events        chan *eventsv1.Event
	eventsDropped atomic.Int64
}

var _ cleanup.Cluster = (*Cluster)(nil)

// New returns a Cluster that answers once Run has filled its caches. It sends nothing.
func New(cfg Config) (*Cluster, error) {
	if cfg.REST == nil {
		return nil, errors.New("connect to cluster: no client configuration; set Config.REST")
	}
	keys, err := cfg.Annotations.complete()
	if err != nil {
		return nil, err
	}
	core, deaths, err := clients(cfg.REST)
	if err != nil {
		return nil, fmt.Errorf("connect to cluster: %w", err)
	}
	c := &Cluster{
		core:         core,
		deaths:       deaths,
		keys:         keys,
		nodeClaims:   cfg.NodeClaims,
		controlPlane: cfg.ControlPlane,
		condition:    cmp.Or(cfg.Condition, policy.KernelHealthy),
		replica:      cmp.Or(cfg.Replica, manager),
		namespace:    cmp.Or(cfg.Namespace, "lastgasp"),
		pod:          cfg.Pod,
		log:          cfg.Log,
		events:       make(chan *eventsv1.Event, eventsQueued),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.attachments.list = func(ctx context.Context) (map[string]int, error) { return listAttachments(ctx, deaths) }
	if c.nodes, err = newNodeInformer(core); err != nil {
		return nil, fmt.Errorf("watch nodes: %w", err)
	}
	if c.deathCache, err = newDeathInformer(deaths); err != nil {
		return nil, fmt.Errorf("watch deaths: %w", err)
	}
	return c, nil
}

// clients returns the client of the built-in types and that of NodeDeaths, on one connection. client-go's own rate
// limit is off: fairness is the API server's, concurrency is bounded by cleanup.
func clients(given *rest.Config) (*kubernetes.Clientset, *rest.RESTClient, error) {
	cfg := rest.CopyConfig(given)
	cfg.QPS = -1
	if cfg.UserAgent == "" {
		cfg.UserAgent = manager
	}
	cfg.WarningHandler = rest.NoWarnings{}
	cfg.ContentType = runtime.ContentTypeProtobuf
	cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	cfg.Wrap(func(server http.RoundTripper) http.RoundTripper { return obeying{server} })
	conn, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, nil, err
	}
	core, err := kubernetes.NewForConfigAndClient(cfg, conn)
	if err != nil {
		return nil, nil, err
	}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, nil, err
	}
	gv := v1alpha1.GroupVersion()
	cfg.APIPath = "/apis"
	cfg.GroupVersion = &gv
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	cfg.ContentType = runtime.ContentTypeJSON
	cfg.AcceptContentTypes = runtime.ContentTypeJSON
	deaths, err := rest.RESTClientForConfigAndClient(cfg, conn)
	return core, deaths, err
}

// Run watches Nodes and NodeDeaths, renews the replica's Lease, proves the admission policies and writes events until ctx
// ends. It must be called once.
func (c *Cluster) Run(ctx context.Context) error {
	for _, l := range c.listings() {
		err := l.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
			if l.of == nodeDeaths && apierrors.IsNotFound(err) {
				err = fmt.Errorf("apply packaging/kubernetes/base/crd.yaml: %w", err)
			}
			if !errors.Is(err, io.EOF) && !apierrors.IsResourceExpired(err) { // every watch ends like that now and then
				c.log.Warn("watch interrupted", "of", l.of, "err", err)
				c.unlisted.Store(l.of, err)
			}
		})
		if err != nil {
			return fmt.Errorf("watch %s: %w", l.of, err)
		}
	}
	if _, err := c.nodes.AddEventHandler(nodeEvents(&c.boots, &c.departed)); err != nil {
		return fmt.Errorf("watch nodes: %w", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { c.nodes.RunWithContext(ctx) })
	wg.Go(func() { c.deathCache.RunWithContext(ctx) })
	wg.Go(func() { c.renewLease(ctx) })
	wg.Go(func() { c.proof.keep(ctx, c.Prove, c.log) })
	wg.Go(func() { c.writeEvents(ctx) })
	wg.Wait()
	return nil
}

// Synced reports whether both caches have been filled once. Before that no node is found and no death is listed.
func (c *Cluster) Synced() bool { return c.nodes.HasSynced() && c.deathCache.HasSynced() }

// Ready says why deaths cannot be acted on. It is nil if they can, or if the policies are not yet found missing.
func (c *Cluster) Ready() error {
	for _, l := range c.listings() {
		err, failed := c.unlisted.Load(l.of)
		switch {
		case l.HasSynced():
		case failed:
			return fmt.Errorf("the %s cannot be listed: %w", l.of, err.(error))
		default:
			return fmt.Errorf("the %s have not been listed yet", l.of)
		}
	}
	return c.proof.notHeld()
}

// listing is a cache that has to be filled before anything can be done.
type listing struct {
	of string
	cache.SharedIndexInformer
}

const nodeDeaths = "NodeDeaths"

func (c *Cluster) listings() []listing {
	return []listing{{"Nodes", c.nodes}, {nodeDeaths, c.deathCache}}
}

// complete fills in the default keys and refuses what the API server would not take.
func (k Annotations) complete() (Annotations, error) {
	for _, key := range []struct {
		value    *string
		fallback string
	}{
		{&k.Reason, prefix + "termination-reason"},
		{&k.Code, prefix + "termination-code"},
		{&k.By, prefix + "termination-by"},
	} {
		if *key.value == "" {
			*key.value = key.fallback
		}
		// The API server lower-cases keys before it looks at them (apimachinery pkg/api/validation/objectmeta.go).
		if problems := validation.IsQualifiedName(strings.ToLower(*key.value)); len(problems) > 0 {
			return k, fmt.Errorf("annotation key %q: %s", *key.value, strings.Join(problems, "; "))
		}
	}
	return k, nil
}
