package main

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/lastgasp/lastgasp/cmd/logger"
	"github.com/lastgasp/lastgasp/listener"
	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/kube"
	"github.com/lastgasp/lastgasp/listener/page"
	"github.com/lastgasp/lastgasp/listener/policy"
	"github.com/lastgasp/lastgasp/listener/receive"
)

// finishFor bounds how long cleanup goes on after the sockets are no longer read. With receive's own bound the time from
// SIGTERM to the end is ten seconds.
const finishFor = 5 * time.Second

// gcPercent lets the heap grow by half, instead of to twice its size, before it is collected: a listener keeps much and
// allocates little, so memory is worth more to it than processor time. GOMEMLIMIT bounds it, too (packaging/kubernetes).
const gcPercent = 50

// serve builds the parts and runs them until ctx ends. The sockets are bound first and closed last, so that no incident is
// lost because another part is not ready yet, or no longer.
func serve(ctx context.Context, cfg listener.Config) error {
	log := logger.New(os.Stderr, os.Getenv)
	klog.SetSlogLogger(log) // what client-go has to say
	log.Info("starting", "version", version, "commit", commit, "cluster", cfg.Cluster, "mode", mode(cfg), "node", string(cfg.Policy.NodeVerb),
		"act.at", cfg.Policy.ActAt)
	if cfg.Key != nil {
		log.Info("acknowledgements are signed", "endpoint.key", base64.StdEncoding.EncodeToString(cfg.Key.Public().(ed25519.PublicKey)))
	}
	debug.SetGCPercent(gcPercent)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics, coverage := listener.NewMetrics(registry, &cfg.Judge), new(listener.Coverage)
	r := &receive.Receiver{
		Addresses: cfg.Listen, Log: log,
		Config: receive.Config{
			Judge: &cfg.Judge, Metrics: &metrics.Receive, Canaries: coverage, Cluster: cfg.Cluster, Key: cfg.Key,
		},
	}
	if err := r.Listen(ctx); err != nil {
		return err
	}
	defer r.Close()
	if have := runtime.GOMAXPROCS(0); processors(have, len(r.State())) != have {
		runtime.GOMAXPROCS(processors(have, len(r.State())))
	}

	cfg.Judge.Rehearse() // the kernel queues what arrives meanwhile

	// reading ends with the signal or with the first part that fails, acting when reading is over, and working, which acting
	// needs, when acting is over.
	g, reading := errgroup.WithContext(ctx)
	acting, wasRead := context.WithCancel(context.WithoutCancel(ctx))
	defer wasRead()
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	p, err := newParts(cfg, &r.Config, coverage, metrics, registry, log)
	if err != nil {
		return err
	}
	ready := func() error {
		if reading.Err() != nil {
			return errors.New("about to end")
		}
		return p.ready()
	}
	metrics.Describe(registry, version, commit, ready)
	registry.MustRegister(listener.CoverMetric{Coverage: coverage, Roster: p.roster})
	if cfg.Admin != "" {
		err := serveAdmin(working, g, cfg.Admin, log, &listener.Admin{
			Gatherer: registry, Coverage: coverage, Roster: p.roster, Ready: ready, Sockets: r.State, LastRead: r.LastRead,
			Page: p.page, Version: version, Started: time.Now(),
		})
		if err != nil {
			return fmt.Errorf("serve admin: %w", err)
		}
	}
	for _, run := range p.run {
		g.Go(func() error { return run(working) })
	}
	g.Go(func() error {
		defer stop()
		return p.act(acting)
	})
	g.Go(func() error {
		defer wasRead()
		return r.Serve(reading)
	})
	notifySystemd(reading, r, log)
	return g.Wait()
}

// serveAdmin binds the admin address, and has g serve it until ctx ends.
func serveAdmin(ctx context.Context, g *errgroup.Group, address string, log *slog.Logger, admin *listener.Admin) error {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	log.Info("admin", "address", ln.Addr().String())
	g.Go(func() error {
		if err := admin.Serve(ctx, ln); err != nil {
			return fmt.Errorf("serve admin: %w", err)
		}
		return nil
	})
	return nil
}

// notifySystemd says that the listener is ready, serves systemd's watchdog while it reads, and says when reading ends.
func notifySystemd(reading context.Context, r *receive.Receiver, log *slog.Logger) {
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Warn("systemd not notified of readiness", "err", err)
	}
	if interval, err := daemon.SdWatchdogEnabled(false); err != nil {
		log.Warn("systemd's watchdog not served", "err", err)
	} else if interval > 0 {
		go watchdog(reading, interval, r.LastRead, func() { _, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog) })
	}
	context.AfterFunc(reading, func() {
		log.Info("ending", "cause", context.Cause(reading))
		_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
	})
}

// processors is how many of Go's processors (GOMAXPROCS) the listener needs: more than it has sockets. A flooded socket
// always has something to read, and while every processor is busy Go looks for answers of the API server only now and then
// (sysmon in runtime/proc.go). Each call of a cleanup would wait for tens of milliseconds.
func processors(have, sockets int) int { return max(have, sockets+1) }

// parts are what works on incidents, with a cluster or without as the config says.
type parts struct {
	act    func(context.Context) error   // works on incidents, and for a while after ctx has ended on those in hand
	run    []func(context.Context) error // what act needs meanwhile
	ready  func() error
	roster func() []listener.RosterNode // nil without a cluster
	page   http.Handler                 // nil without a cluster
	board  listener.Board               // the same
}

func newParts(cfg listener.Config, to *receive.Config, coverage *listener.Coverage, m *listener.Metrics, r prometheus.Registerer, log *slog.Logger) (*parts, error) {
	p := &parts{ready: func() error { return nil }}
	if cfg.Kubernetes {
		if err := p.cluster(cfg, to, coverage, m, r, log); err != nil {
			return nil, err
		}
		p.run = append(p.run, func(ctx context.Context) error { return coverage.KeepShared(ctx, p.board, p.roster, log) })
	} else {
		directory := listener.NewDirectory(cfg.Records, listener.Keep{Records: cfg.Policy.KeepRecords, For: cfg.Policy.KeepRecordsFor}, log)
		r.MustRegister(directory)
		to.Sink, to.Farewells = directory, directory
		p.act, p.ready = directory.Run, directory.Ready
	}
	p.announce(cfg, log)
	if cfg.Ship != "" {
		out := os.Stdout
		if cfg.Ship != listener.Stdout {
			var err error
			if out, err = os.OpenFile(cfg.Ship, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640); err != nil {
				return nil, fmt.Errorf("ship records: %w", err)
			}
		}
		ship := listener.NewShipper(out, m, log)
		to.Records = ship
		p.run = append(p.run, ship.Run)
	}
	return p, nil
}

func (p *parts) cluster(cfg listener.Config, to *receive.Config, coverage *listener.Coverage, m *listener.Metrics, r prometheus.Registerer, log *slog.Logger) error {
	replica, err := replicaName()
	if err != nil {
		return err
	}
	cluster, err := connect(cfg, replica, log)
	if err != nil {
		return err
	}
	engine := cleanup.NewEngine(cfg.Policy, cluster, instances(cfg.Policy), replica, log)
	engine.Drain, engine.Fates, engine.Judge = finishFor, fates(cfg), &cfg.Judge
	engine.State = filepath.Join(cfg.Records, "in-hand")
	engine.Observer = m.Observe(r, engine.Observer)
	r.MustRegister(listener.DeathMetric{Deaths: func() ([]policy.Death, error) { return cluster.Deaths(context.Background()) }})
	to.Sink, to.Obituaries, to.Farewells = engine, engine, engine
	to.Pins, to.Nodes = cluster, cluster
	p.act = engine.Run
	p.run = append(p.run, cluster.Run)
	p.roster = func() []listener.RosterNode { return roster(cluster) }
	p.board = cluster
	p.ready = cluster.Ready
	p.webhook(cfg, replica, cluster.Deaths, r, log)
	p.page = (&page.Page{Source: pageSource{cluster, coverage}, Cluster: cfg.Cluster, Version: version}).Handler()
	return p.servePage(cfg.Page, cluster, log)
}

// replicaName is this process's name among the listeners of the cluster: no two may share one.
func replicaName() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("name this replica: %w", err)
	}
	return fmt.Sprintf("%s-%d", host, os.Getpid()), nil
}

func connect(cfg listener.Config, replica string, log *slog.Logger) (*kube.Cluster, error) {
	rc, err := clientcmd.BuildConfigFromFlags("", cfg.Kubeconfig)
	if clientcmd.IsEmptyConfig(err) && cfg.Kubeconfig != "" {
		return nil, usageError{fmt.Errorf("kubeconfig %s is empty; write a cluster, a user and a context into it", cfg.Kubeconfig)}
	}
	if clientcmd.IsEmptyConfig(err) {
		return nil, usageError{errors.New("kubernetes: true outside a pod needs the key kubeconfig; name the file")}
	}
	if err != nil {
		return nil, usageError{fmt.Errorf("read kubeconfig: %w", err)}
	}
	rc.UserAgent = "lastgasp-listener/" + version
	return kube.New(kube.Config{
		REST: rc, Log: log, Replica: replica, Annotations: kube.Annotations(cfg.Annotations), Condition: cfg.Condition,
		NodeClaims: cfg.Policy.DeletesNodeClaims(), ControlPlane: cfg.Policy.ControlPlane,
		Namespace: cmp.Or(os.Getenv("POD_NAMESPACE"), namespaceOfPod()), Pod: os.Getenv("POD_NAME"),
	})
}

// namespaceOfPod is the namespace that the kubelet writes beside a pod's token, empty outside a pod.
func namespaceOfPod() string {
	text, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func roster(cluster *kube.Cluster) []listener.RosterNode {
	var out []listener.RosterNode
	for _, n := range cluster.Nodes() {
		out = append(out, listener.RosterNode{
			Name: n.Name, Addresses: n.Addresses, Pin: n.PinOnWire(), Pinned: n.Pin.Boot != "" && n.Pin.Boot == n.BootID,
		})
	}
	return out
}

// mode says in a word or two what becomes of deaths.
func mode(cfg listener.Config) string {
	switch {
	case !cfg.Kubernetes:
		return "records in " + cfg.Records
	case cfg.Policy.DryRun:
		return "dry run"
	}
	return "kubernetes"
}
