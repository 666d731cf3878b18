package configurator

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/lastgasp/lastgasp/configurator/canary"
	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/ec2"
	"github.com/lastgasp/lastgasp/configurator/endpoint"
	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/configurator/nexthop"
)

// How long to wait for answers.
const (
	// optionalTimeout is for answers that a pass can do without.
	optionalTimeout = 3 * time.Second
	// bootTimeout is for answers that it needs: while an instance boots, its metadata and its role's credentials may be late.
	bootTimeout = 60 * time.Second
	// goodTimeout is for the same answers if the last known good listeners can be used without. At boot a pass has 16 s.
	goodTimeout = 6 * time.Second
)

// New wires a Configurator to this machine's kernel and network.
func New(cfg Config, version string, log *slog.Logger) *Configurator {
	metadata := sync.OnceValue(func() *ec2.Client { return ec2.New("") })
	const root = machine.Root("/")
	prover := canary.Prover{
		Root: root, Timeout: cfg.Canary.Timeout, Interval: cfg.Canary.Interval, Cluster: cfg.Cluster, Key: cfg.Endpoint.Key,
	}
	c := &Configurator{
		Config:     cfg,
		Root:       root,
		Version:    version,
		Log:        log,
		Netconsole: configfs.DefaultDir,
		Load:       configfs.Load,
		Resolve:    nexthop.Resolve,
		Instance:   func(ctx context.Context) (ec2.Instance, error) { return metadata().Instance(ctx) },
		Prove:      prover.Prove,
		Deliver:    prover.Deliver,
		Uptime:     machine.Uptime,
	}
	c.Lookup = endpoint.Resolver{LookupNetIP: net.DefaultResolver.LookupNetIP, Zone: c.zoneOf}.Lookup
	e := cfg.Endpoint
	if len(e.Static) > 0 {
		c.Sources = append(c.Sources, endpoint.Static{Endpoints: e.Static, Origin: e.StaticOrigin})
	}
	if len(e.SSM) > 0 {
		c.Sources = append(c.Sources, endpoint.SSM{Names: e.SSM, Place: c.place, Get: endpoint.GetParameters(metadata)})
	}
	if e.DNS != "" {
		c.Sources = append(c.Sources, endpoint.SRV{Name: e.DNS, LookupSRV: net.DefaultResolver.LookupSRV})
	}
	return c
}
