package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/lastgasp/lastgasp/listener"
	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/kube"
	"github.com/lastgasp/lastgasp/listener/page"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// servePage serves the page of deaths over TLS, if the config asks for it.
func (p *parts) servePage(cfg listener.PageConfig, cluster *kube.Cluster, log *slog.Logger) error {
	if cfg.Address == "" {
		return nil
	}
	s := &listener.PageServer{Page: p.page, CertFile: cfg.Cert, KeyFile: cfg.Key, Log: log}
	s.Review = func(ctx context.Context, token string) (listener.Access, string) {
		user, err := cluster.Reader(ctx, token)
		switch {
		case err == nil:
			return listener.Reader, user
		case errors.Is(err, kube.ErrNoReader):
			return listener.NoReader, err.Error()
		case errors.Is(err, kube.ErrUnknownToken):
			return listener.Unknown, err.Error()
		}
		log.Warn("token for the page not reviewed", "err", err)
		return listener.NoAnswer, err.Error()
	}
	if err := s.Load(); err != nil {
		log.Error("the page of deaths cannot be served until this is fixed", "err", err) // deaths are heard all the same
	}
	p.run = append(p.run, func(ctx context.Context) error {
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Address)
		if err != nil {
			return fmt.Errorf("serve page: %w", err)
		}
		log.Info("page", "address", ln.Addr().String())
		if err := s.Serve(ctx, ln); err != nil {
			return fmt.Errorf("serve page: %w", err)
		}
		return nil
	})
	return nil
}

// pageSource is what the page of deaths reads.
type pageSource struct {
	cluster  *kube.Cluster
	coverage *listener.Coverage
}

var _ page.Source = pageSource{}

// Deaths implements page.Source.
func (s pageSource) Deaths(ctx context.Context) ([]policy.Death, error) { return s.cluster.Deaths(ctx) }

// Death implements page.Source.
func (s pageSource) Death(ctx context.Context, name string) (policy.Death, error) {
	d, err := s.cluster.Death(ctx, name)
	if errors.Is(err, cleanup.ErrNotFound) {
		return d, page.ErrNotFound
	}
	return d, err
}

// Fleet implements page.Source.
func (s pageSource) Fleet() []page.Node {
	byName := make(map[string]policy.Node)
	for _, n := range s.cluster.Nodes() {
		byName[n.Name] = n
	}
	var out []page.Node
	for _, row := range s.coverage.Report(time.Now(), roster(s.cluster)) {
		n := page.Node{
			Name: row.Node, Cover: string(row.Cover), Why: row.Why, Kernel: row.Kernel, Canary: row.Canary,
		}
		if row.Address.IsValid() {
			n.Address = row.Address.String()
		}
		if node, ok := byName[row.Node]; ok && row.Node != "" {
			info := node.Info()
			n.Kernel, n.Image, n.InstanceType, n.Created = node.Kernel, info.Image, info.InstanceType, node.Created
		}
		out = append(out, n)
	}
	return out
}
