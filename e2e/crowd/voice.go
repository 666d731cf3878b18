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
)

const (
	// death is how a 6.12 kernel really died, with the secret that its target was armed with.
	death       = "listener/detect/testdata/captures/6.12-sysrq.ext.jsonl"
	deathSecret = "bGFzdGdhc3AtZml4dHVyZQ"
	// panicLine is in the datagram that says it.
	panicLine = ";Kernel panic - not syncing"
	// armedAtOnce is how many canaries the listener is sure to have room for.
	armedAtOnce = 400
)

// Voice sends what the kernels of nodes say.
type Voice struct {
	world  *World
	sender *load.Sender
	crash  load.Crash
}

// Voice gives the nodes one. It is silent when s has ended.
func (w *World) Voice(s lab.Scope) (*Voice, error) {
	root, err := lab.CheckoutRoot()
	if err != nil {
		return nil, err
	}
	v := &Voice{world: w}
	if v.crash, err = load.ReadCrash(filepath.Join(root, death)); err != nil {
		return nil, err
	}
	if err := w.ns.Do(func() (err error) {
		v.sender, err = load.NewSender(endpoint)
		return err
	}); err != nil {
		return nil, fmt.Errorf("give the nodes a voice: %w", err)
	}
	s.Cleanup(func() { v.sender.Close() })
	return v, nil
}

// Arm has every node of c say that it is armed, and waits until the listener has pinned them all.
func (v *Voice) Arm(ctx context.Context, c Crowd, o *Watcher) error {
	for from := 0; from < c.Nodes; from += armedAtOnce {
		part := c.Part(from, min(armedAtOnce, c.Nodes-from))
		canaries := load.NewFleet(part.First, part.Nodes, load.Extended).Canary
		if _, err := v.sender.Send(ctx, load.Plan{Count: part.Nodes}, canaries); err != nil {
			return err
		}
		if err := o.Pinned(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// Panic has all nodes of c die at the same time, line by line, and tells when each said that it does.
func (v *Voice) Panic(ctx context.Context, c Crowd) (map[string]time.Time, error) {
	said := make(map[string]time.Time, c.Nodes)
	crashes := make([]load.Crash, c.Nodes)
	for i := range crashes {
		var err error
		if crashes[i], err = v.crash.Of(c.First + i); err != nil {
			return nil, err
		}
	}
	v.world.Silence(c)
	turn := 0
	next := func() (netip.Addr, []byte) {
		i := turn % c.Nodes
		n := c.First + i
		payload := bytes.ReplaceAll(crashes[i][turn/c.Nodes], []byte(deathSecret), secret(n))
		if bytes.Contains(payload, []byte(panicLine)) {
			said[Name(n)] = time.Now()
		}
		turn++
		return load.Addr(n), payload
	}
	_, err := v.sender.Send(ctx, load.Plan{Count: c.Nodes * len(v.crash)}, next)
	return said, err
}

// secret is the gasp of node n, as in package load's canaries.
func secret(n int) []byte { return fmt.Appendf(nil, "%022d", n) }
