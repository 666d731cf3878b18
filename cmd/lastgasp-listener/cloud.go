package main

import (
	"log/slog"

	"github.com/lastgasp/lastgasp/listener"
	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/cloud"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// instances are the machines below the Nodes, nil if the policy leaves them alone.
func instances(p policy.Policy) cleanup.Instances {
	if p.AfterPanic == policy.LeaveInstance {
		return nil
	}
	return cloud.Instances{Account: cloud.NewAccount(nil)}
}

// fates is what the cloud says of the machines below the Nodes, nil if the config does not ask.
func fates(cfg listener.Config) cleanup.Fates {
	if !cfg.Fate {
		return nil
	}
	return cloud.Instances{Account: cloud.NewAccount(nil)}
}

// announce adds the Announcer, if the config asks for it. A dry run announces nothing.
func (p *parts) announce(cfg listener.Config, log *slog.Logger) {
	if cfg.Announce.Parameter == "" || cfg.Policy.DryRun {
		return
	}
	a := &cloud.Announcer{
		Parameter: cfg.Announce.Parameter, Cluster: cfg.Cluster, Address: cfg.Announce.Address, Zone: cfg.Announce.Zone,
		Account: cloud.NewAccount(nil), Log: log,
	}
	p.run = append(p.run, a.Run)
}
