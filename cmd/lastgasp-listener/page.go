package main

import (
	"context"
	"errors"
	"time"

	"github.com/lastgasp/lastgasp/listener"
	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/kube"
	"github.com/lastgasp/lastgasp/listener/page"
	"github.com/lastgasp/lastgasp/listener/policy"
)

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
