package main

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lastgasp/lastgasp/listener"
	"github.com/lastgasp/lastgasp/listener/policy"
	"github.com/lastgasp/lastgasp/listener/webhook"
)

// webhook adds the Sender, if the config asks for it. A dry run sends nothing.
func (p *parts) webhook(cfg listener.Config, replica string, deaths func(context.Context) ([]policy.Death, error), r prometheus.Registerer, log *slog.Logger) {
	if cfg.Webhook.URL == "" || cfg.Policy.DryRun {
		return
	}
	s := &webhook.Sender{
		URL: cfg.Webhook.URL, SecretFile: cfg.Webhook.SecretFile, Cluster: cfg.Cluster, Replica: replica, Log: log,
		Deaths: func() ([]policy.Death, error) { return deaths(context.Background()) },
	}
	for i, result := range []string{"delivered", "refused", "dropped"} {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "lastgasp_webhook_events_total", ConstLabels: prometheus.Labels{"result": result},
			Help: "Events about NodeDeaths by result: delivered, refused by the receiver, or dropped because it could not be reached.",
		}, func() float64 {
			delivered, refused, dropped := s.Counts()
			return float64([]int64{delivered, refused, dropped}[i])
		}))
	}
	p.run = append(p.run, s.Run)
}
