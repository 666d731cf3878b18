package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/lastgasp/lastgasp/listener"
	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/kube"
)

// serve builds the parts and runs them until ctx ends. The sockets are bound first and read at once: whatever else is
// not ready yet, an incident is kept.
func serve(ctx context.Context, cfg listener.Config) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	registry := prometheus.NewRegistry()
	coverage := new(listener.Coverage)
	l := &listener.Listener{
		Addresses: cfg.Listen, Judge: &cfg.Judge, Coverage: coverage,
		Metrics: listener.NewMetrics(registry), Log: log,
	}
	admin := &listener.Admin{Gatherer: registry, Coverage: coverage, Ready: func() error { return nil }}

	g, ctx := errgroup.WithContext(ctx)
	if cfg.Kubernetes {
		replica, err := replicaName()
		if err != nil {
			return err
		}
		cluster, err := connect(cfg, replica, log)
		if err != nil {
			return err
		}
		engine := cleanup.NewEngine(cfg.Policy, cluster, replica, log)
		engine.Observer = l.Metrics.Observe(registry, engine.Observer)
		l.Sink = engine
		admin.Roster = func() []listener.RosterNode { return roster(cluster) }
		admin.Ready = func() error {
			if !cluster.Synced() {
				return errors.New("the Nodes have not been listed yet")
			}
			return nil
		}
		g.Go(func() error { return cluster.Run(ctx) })
		g.Go(func() error { return engine.Run(ctx) })
	} else {
		directory := cleanup.NewDirectory(cfg.Records, log)
		l.Sink = directory
		g.Go(func() error { return directory.Run(ctx) })
	}
	if err := l.Listen(ctx); err != nil {
		return err
	}
	g.Go(func() error { return l.Serve(ctx) })
	if cfg.Admin != "" {
		if err := serveAdmin(ctx, g, cfg.Admin, admin.Handler(), log); err != nil {
			return err
		}
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Warn("tell systemd that we are ready", "err", err)
	}
	return g.Wait()
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
	if errors.Is(err, rest.ErrNotInCluster) {
		return nil, usageError{errors.New("cluster: kubernetes outside a pod needs the key kubeconfig: name the file")}
	}
	if err != nil {
		return nil, usageError{fmt.Errorf("read kubeconfig: %w", err)}
	}
	rc.UserAgent = "lastgasp-listener/" + version
	return kube.New(kube.Config{
		REST: rc, Log: log, Replica: replica, Annotations: kube.Annotations(cfg.Annotations),
	})
}

func roster(cluster *kube.Cluster) []listener.RosterNode {
	var out []listener.RosterNode
	for _, n := range cluster.Nodes() {
		out = append(out, listener.RosterNode{Name: n.Name, Addresses: n.Addresses})
	}
	return out
}

func serveAdmin(ctx context.Context, g *errgroup.Group, address string, h http.Handler, log *slog.Logger) error {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("serve admin: %w", err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	log.Info("admin", "address", ln.Addr().String())
	g.Go(func() error {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve admin: %w", err)
		}
		return nil
	})
	context.AfterFunc(ctx, func() { srv.Close() })
	return nil
}

// withoutTime drops slog's timestamp: journald and the container runtime add their own.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}
