package cleanup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	// pinDeadline is how long a canary waits for its Node to be registered and to report the canary's boot.
	pinDeadline = 15 * time.Minute
	pinRetry    = 5 * time.Second
	pinsWaiting = 4096
	pinsAtOnce  = 64
	pinsKnown   = 1 << 16 // remembered, to spare the API server the canary of every node every ten minutes
)

// canary is a sign of life from a node that armed its gasp.
type canary struct {
	src netip.Addr
	id  netconsole.Identity
	at  time.Time
}

// pinning is what to do about a canary.
type pinning string

const (
	pinWrite   pinning = "pinned"
	pinKnown   pinning = "known"
	pinWaits   pinning = "waiting"
	pinRefused pinning = "refused"
	pinGivenUp pinning = "given up"
)

// pinFor judges the canary id of Node n. The first canary of a boot pins it, and that boot has to be the one that the
// Node's kubelet reports: else whoever invents a boot could replace the pin of the real one. Where a kernel can have no
// secret, the first to claim one would always be somebody else.
func pinFor(n Node, id netconsole.Identity) pinning {
	switch {
	case id.Boot == "" || id.Secret == "":
		return pinRefused
	case n.Pin.Boot == id.Boot && n.Pin.Sum == id.Secret.Sum():
		return pinKnown
	case n.Pin.Boot == id.Boot:
		return pinRefused
	case n.BootID != id.Boot:
		return pinWaits
	case !hasUserdata(n.Kernel):
		return pinRefused
	}
	return pinWrite
}

// hasUserdata reports whether netconsole of that release can carry a secret, which it can since Linux 6.9
// (Documentation/networking/netconsole.rst). A release that is not known may. Where a distribution has brought it to an
// older kernel, gasps go on waiting for a second witness.
func hasUserdata(release string) bool {
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n < 2 {
		return true
	}
	return major > 6 || major == 6 && minor >= 9
}

// pinAll pins canaries until ctx ends. Those whose Node cannot answer yet wait, a bounded number for a bounded time.
func (e *Engine) pinAll(ctx context.Context) {
	waiting := map[key]canary{}
	known := map[netip.Addr]Pin{}
	retry := time.NewTicker(pinRetry)
	defer retry.Stop()
	for {
		var batch []canary
		select {
		case <-ctx.Done():
			return
		case c := <-e.canaries:
			batch = e.gather(c, waiting, known)
		case <-retry.C:
			batch = slices.Collect(maps.Values(waiting))
		}
		results := make([]pinning, len(batch))
		<-e.calls.submit(ctx, tidying, len(batch), func(ctx context.Context, i int) {
			results[i] = e.pin(ctx, batch[i])
		})
		for i, c := range batch {
			k, result := key{src: c.src, boot: c.id.Boot}, results[i]
			_, waits := waiting[k]
			switch {
			case result == "": // ctx ended
				return
			case result == pinWaits && (e.Now().Sub(c.at) >= pinDeadline || (!waits && len(waiting) >= pinsWaiting)):
				result = pinGivenUp
				delete(waiting, k)
			case result == pinWaits && waits:
				continue
			case result == pinWaits:
				waiting[k] = c
			default:
				delete(waiting, k)
			}
			if result == pinWrite || result == pinKnown {
				if len(known) >= pinsKnown {
					clear(known)
				}
				known[c.src] = Pin{c.id.Boot, c.id.Secret.Sum()}
			}
			e.Observer.Pinned(string(result))
		}
	}
}

// gather takes what canaries there are, without those that are pinned already or come second.
func (e *Engine) gather(c canary, waiting map[key]canary, known map[netip.Addr]Pin) (batch []canary) {
	taken := map[key]bool{}
	for {
		k := key{src: c.src, boot: c.id.Boot}
		if _, waits := waiting[k]; !waits && !taken[k] && known[c.src] != (Pin{c.id.Boot, c.id.Secret.Sum()}) {
			taken[k] = true
			batch = append(batch, c)
		}
		if len(batch) == pinsAtOnce {
			return batch
		}
		select {
		case c = <-e.canaries:
		default:
			return batch
		}
	}
}

// pin pins one canary, if its Node lets it.
func (e *Engine) pin(ctx context.Context, c canary) pinning {
	for {
		n, err := e.cluster.FindNode(ctx, c.id.Instance, c.src)
		if err != nil {
			return pinWaits
		}
		result := pinFor(n, c.id)
		switch {
		case result == pinRefused:
			e.log.Warn("canary refused: the boot is pinned to another gasp, or its kernel can have none",
				"node", n.Name, "source", c.src, "boot", c.id.Boot, "kernel", n.Kernel)
			return result
		case result != pinWrite:
			return result
		}
		pin := Pin{Boot: c.id.Boot, Sum: c.id.Secret.Sum()}
		if e.policy.DryRun {
			e.rehearsePin(c.src, pin)
			return result
		}
		_, err = e.cluster.PatchNode(ctx, n, NodePatch{Pin: &pin})
		switch {
		case err == nil:
			e.log.Info("pinned", "node", n.Name, "source", c.src, "boot", c.id.Boot)
			return result
		case !errors.Is(err, ErrConflict):
			return pinWaits
		}
	}
}

// rehearsePin remembers a pin that a dry run must not write; the first of a boot stays.
func (e *Engine) rehearsePin(src netip.Addr, pin Pin) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.rehearsed[src].Boot != pin.Boot && (e.rehearsed[src] != (Pin{}) || len(e.rehearsed) < pinsKnown) {
		e.rehearsed[src] = pin
	}
}

func (e *Engine) rehearsedPin(src netip.Addr, have Pin) Pin {
	e.mu.Lock()
	defer e.mu.Unlock()
	if pin, ok := e.rehearsed[src]; ok {
		return pin
	}
	return have
}
