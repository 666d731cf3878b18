package story

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lastgasp/lastgasp/configurator/lastboot"
	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/listener/kube/v1alpha1"
)

// Return ends the boot of a node, waits until the node is back, and returns when that was and what the node then says of its
// former boot (`lastgasp-configurator last-boot`). NodeSpec.Pstore or NodeSpec.Reboot must be set.
func (w *World) Return(ctx context.Context, n *Node, end func(context.Context, *lab.VM) error) (back time.Time, says string, err error) {
	ledger := "/" + lastboot.LedgerFile
	kept, err := n.VM.ReadFile(ctx, ledger)
	if err != nil {
		return back, "", fmt.Errorf("read the boot ledger of %s: %w", n.Name, err)
	}
	if err := end(ctx, n.VM); err != nil {
		return back, "", fmt.Errorf("end the boot of %s: %w", n.Name, err)
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
	_, d, err = w.AwaitDeath(ctx, node, boot, func(d v1alpha1.NodeDeath) error {
		if d.Status.Phase != "Recorded" {
			return fmt.Errorf("it is in phase %s: %s", d.Status.Phase, d.Status.Decision)
		}
		return nil
	})
	return d, err
}

// AwaitDeath waits until check accepts the NodeDeath of a boot of a node, and returns when it was first seen so.
func (w *World) AwaitDeath(ctx context.Context, node, boot string, check func(v1alpha1.NodeDeath) error) (at time.Time, d v1alpha1.NodeDeath, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watcher, err := Watch(ctx, w.Cluster.RESTConfig(), node)
	if err != nil {
		return at, d, err
	}
	why := errors.New("there is none")
	at, err = watcher.Await(ctx, "the NodeDeath of boot "+boot+" of "+node, func(seen []Sighting) bool {
		last := seen[len(seen)-1].NodeDeath
		if last == nil || last.Spec.Node != node || last.Spec.Boot != boot {
			return false
		}
		d = *last
		why = check(d)
		return why == nil
	})
	if err != nil {
		err = fmt.Errorf("%w: %w", err, why)
	}
	return at, d, err
}
