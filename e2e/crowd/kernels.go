package crowd

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/load"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	// death is how a 6.12 kernel really died, with the secret that its target was armed with.
	death       = "listener/detect/testdata/captures/6.12-sysrq.ext.jsonl"
	deathSecret = "bGFzdGdhc3AtZml4dHVyZQ"
	// panicLine is in the datagram with the panic.
	panicLine = ";Kernel panic - not syncing"
	// armedAtOnce is how many canaries the listener certainly has room for.
	armedAtOnce = 400
)

// Kernels sends what the nodes' kernels send.
type Kernels struct {
	world  *World
	sender *load.Sender
	crash  load.Crash
}

// Kernels opens the socket that all kernels send from. It closes when s ends.
func (w *World) Kernels(s lab.Scope) (*Kernels, error) {
	root, err := lab.CheckoutRoot()
	if err != nil {
		return nil, err
	}
	k := &Kernels{world: w}
	if k.crash, err = load.ReadCrash(filepath.Join(root, death)); err != nil {
		return nil, err
	}
	if err := w.ns.Do(func() (err error) {
		k.sender, err = load.NewSender(endpoint)
		return err
	}); err != nil {
		return nil, fmt.Errorf("open the kernels' socket: %w", err)
	}
	s.Cleanup(func() { k.sender.Close() })
	return k, nil
}

// Arm enrols every node of c, sends its canary, and waits until all of them are pinned.
func (k *Kernels) Arm(ctx context.Context, c Crowd, o *Watcher) error {
	for from := 0; from < c.Nodes; from += armedAtOnce {
		part := c.Part(from, min(armedAtOnce, c.Nodes-from))
		if err := each(ctx, part.Nodes, func(ctx context.Context, i int) error {
			n := part.First + i
			return k.world.Cluster.Enroll(ctx, Name(n), load.Boot(n), netconsole.Secret(load.Secret(n)).Sum())
		}); err != nil {
			return err
		}
		canaries := load.NewNodes(part.First, part.Nodes, load.Extended).Canary
		if _, err := k.sender.Send(ctx, load.Plan{Count: part.Nodes}, canaries); err != nil {
			return err
		}
		if err := o.Pinned(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// Panic makes all nodes of c die at the same time, line by line. It returns when each one's panic line was sent.
func (k *Kernels) Panic(ctx context.Context, c Crowd) (map[string]time.Time, error) {
	sent := make(map[string]time.Time, c.Nodes)
	crashes := make([]load.Crash, c.Nodes)
	for i := range crashes {
		var err error
		if crashes[i], err = k.crash.Of(c.First + i); err != nil {
			return nil, err
		}
	}
	k.world.Silence(c)
	turn := 0
	next := func() (netip.Addr, []byte) {
		i := turn % c.Nodes
		n := c.First + i
		payload := bytes.ReplaceAll(crashes[i][turn/c.Nodes], []byte(deathSecret), []byte(load.Secret(n)))
		if bytes.Contains(payload, []byte(panicLine)) {
			sent[Name(n)] = time.Now()
		}
		turn++
		return load.Addr(n), payload
	}
	_, err := k.sender.Send(ctx, load.Plan{Count: c.Nodes * len(k.crash)}, next)
	return sent, err
}
