package story

import (
	"context"
	"fmt"
	"time"

	"github.com/lastgasp/lastgasp/configurator/lastboot"
	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/listener/kube/v1alpha1"
)

// Return crashes a node whose kernel reboots before it sends anything, waits until it is back, and returns when that was and what
// the node then says of its former boot (`lastgasp-configurator last-boot`). NodeSpec.Pstore must be set.
func (w *World) Return(ctx context.Context, n *Node, crash lab.Crash) (back time.Time, says string, err error) {
	ledger := "/" + lastboot.LedgerFile
	kept, err := n.VM.ReadFile(ctx, ledger)
	if err != nil {
		return back, "", fmt.Errorf("read the boot ledger of %s: %w", n.Name, err)
	}
	if err := n.VM.Crash(ctx, crash); err != nil {
		return back, "", fmt.Errorf("crash %s: %w", n.Name, err)
	}
	if err := n.VM.WaitReady(ctx); err != nil {
		return back, "", fmt.Errorf("wait for %s to boot again: %w", n.Name, err)
	}
	back, n.BootID = time.Now(), n.VM.BootID()
	if err := n.VM.WriteFile(ctx, ledger, kept, 0o600); err != nil { // the guest has no disk that could keep it
		return back, "", err
	}
	lastBoot, err := n.VM.Run(ctx, "/usr/bin/lastgasp-configurator", "last-boot")
	if err != nil || lastBoot.Exit != 0 {
		return back, "", fmt.Errorf("lastgasp-configurator last-boot on %s: exit %d: %s: %w", n.Name, lastBoot.Exit, lastBoot.Stderr, err)
	}
	if armed, err := n.VM.Run(ctx, "/usr/bin/lastgasp-configurator", "apply"); err != nil || armed.Exit != 0 {
		return back, "", fmt.Errorf("lastgasp-configurator apply on %s: exit %d: %s: %w", n.Name, armed.Exit, armed.Stderr, err)
	}
	return back, lastBoot.Stdout, w.start(ctx, n)
}

// AwaitRecorded waits for the NodeDeath of a boot of a node that nobody heard die.
func (w *World) AwaitRecorded(ctx context.Context, node, boot string) (d v1alpha1.NodeDeath, err error) {
	watcher, err := Watch(ctx, w.Cluster.RESTConfig(), node)
	if err != nil {
		return d, err
	}
	_, err = watcher.Await(ctx, "the NodeDeath of the former boot of "+node, func(seen []Sighting) bool {
		last := nodeDeath(seen, node)
		if last == nil || last.Spec.Boot != boot || last.Status.Phase != "Recorded" {
			return false
		}
		d = *last
		return true
	})
	return d, err
}
