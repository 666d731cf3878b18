package main

import (
	"testing"

	"github.com/lastgasp/lastgasp/listener"
)

func TestShippedConfigurations(t *testing.T) {
	cfg, err := listener.LoadConfig("../../packaging/kubernetes/base/listener.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !cfg.Kubernetes || cfg.Admin != ":9666" {
		t.Errorf("in the cluster: kubernetes %v, admin %q; want true and the port that the probes ask", cfg.Kubernetes, cfg.Admin)
	}
	if _, err := listener.LoadConfig("../../packaging/listener.yaml"); err != nil {
		t.Error(err)
	}
}
