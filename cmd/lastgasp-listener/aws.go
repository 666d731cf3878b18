package main

import (
	"log/slog"
	"net/http"

	"github.com/lastgasp/lastgasp/listener"
	"github.com/lastgasp/lastgasp/listener/aws"
	"github.com/lastgasp/lastgasp/listener/cleanup"
)

// instances is the cloud below the Nodes, nil where nothing is done to it.
func instances(p cleanup.Policy) cleanup.Instances {
	if p.AfterPanic == cleanup.LeaveInstance {
		return nil
	}
	return aws.Instances{Account: aws.NewAccount(new(http.Client))}
}

// announce adds what tells nodes where the listener is, if the config asks for it. A dry run tells nobody.
func (p *parts) announce(cfg listener.Config, log *slog.Logger) {
	if cfg.Announce.Parameter == "" || cfg.Policy.DryRun {
		return
	}
	a := &aws.Announcer{
		Parameter: cfg.Announce.Parameter, Address: cfg.Announce.Address, Zone: cfg.Announce.Zone,
		Account: aws.NewAccount(new(http.Client)), Log: log,
	}
	p.run = append(p.run, a.Run)
}
