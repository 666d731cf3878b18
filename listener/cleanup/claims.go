package cleanup

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

const (
	// claimDeadline is how long a canary waits for its Node to be registered and to report the canary's boot.
	claimDeadline = 15 * time.Minute
	claimRetry    = 5 * time.Second
	claimsWaiting = 4096
	// claimsOfAddress bounds the waiting canaries of one address, each of which is looked up again and again. A node has one
	// boot; a pod that shares its address can make up any number.
	claimsOfAddress = 4
	// claimsPerMinute of one address are looked up and, if they are refused, logged.
	claimsPerMinute = 10
	claimsAtOnce    = 64
	claimsKnown     = 1 << 16 // remembered, to spare the API server the canary of every node every ten minutes
)

// canary is a canary that a node sent through its netconsole.
type canary struct {
	src netip.Addr
	id  netconsole.Identity
	at  time.Time
}

// sender identifies the canaries of one boot from one address. The first of them counts.
type sender struct {
	src  netip.Addr
	boot string
}

// claimAll claims, until ctx ends, the boots whose canaries arrive and whose nodes have not pinned them. Canaries whose Node is
// not known yet wait, a bounded number of them for a bounded time.
func (e *Engine) claimAll(ctx context.Context) {
	waiting, byAddr := map[sender]canary{}, map[netip.Addr]int{} // byAddr counts those that wait
	known := map[netip.Addr]policy.Pin{}
	retry := time.NewTicker(claimRetry)
	defer retry.Stop()
	for {
		var batch []canary
		select {
		case <-ctx.Done():
			return
		case c := <-e.canaries:
			batch = e.gather(c, waiting, byAddr, known)
		case <-retry.C:
			batch = slices.Collect(maps.Values(waiting))
		}
		results := make([]policy.Claiming, len(batch))
		<-e.queue.submit(ctx, tidying, len(batch), func(ctx context.Context, i int) {
			results[i] = e.claim(ctx, batch[i])
		})
		for i, c := range batch {
			k, result := sender{src: c.src, boot: c.id.Boot}, results[i]
			_, waits := waiting[k]
			forget := func() {
				if delete(waiting, k); waits {
					if byAddr[c.src]--; byAddr[c.src] == 0 {
						delete(byAddr, c.src)
					}
				}
			}
			switch {
			case result == "": // ctx ended
				return
			case result == policy.ClaimWaits && (e.Now().Sub(c.at) >= claimDeadline || (!waits && len(waiting) >= claimsWaiting)):
				result = policy.ClaimGivenUp
				forget()
			case result == policy.ClaimWaits && waits:
				continue
			case result == policy.ClaimWaits:
				waiting[k] = c
				byAddr[c.src]++
			default:
				forget()
			}
			if result == policy.ClaimWrite || result == policy.ClaimKnown {
				remember(known, claimsKnown, c.src, policy.Pin{Boot: c.id.Boot, Sum: c.id.Secret.Sum()})
			}
			e.Observer.Claimed(result)
		}
	}
}

// gather takes the canaries that are queued, without repeats, those that are already known, and those beyond what an address
// may have looked up or waiting.
func (e *Engine) gather(c canary, waiting map[sender]canary, byAddr map[netip.Addr]int, known map[netip.Addr]policy.Pin) (batch []canary) {
	taken, of := map[sender]bool{}, map[netip.Addr]int{}
	for {
		k := sender{src: c.src, boot: c.id.Boot}
		_, waits := waiting[k]
		isKnown := known[c.src] == policy.Pin{Boot: c.id.Boot, Sum: c.id.Secret.Sum()}
		if !waits && !taken[k] && !isKnown && byAddr[c.src]+of[c.src] < claimsOfAddress && e.lookups.Allow(e.Now(), c.src) {
			taken[k] = true
			of[c.src]++
			batch = append(batch, c)
		}
		if len(batch) == claimsAtOnce {
			return batch
		}
		select {
		case c = <-e.canaries:
		default:
			return batch
		}
	}
}

// claim claims the boot of one canary, if its Node lets it.
func (e *Engine) claim(ctx context.Context, c canary) policy.Claiming {
	claim := policy.Pin{Boot: c.id.Boot, Sum: c.id.Secret.Sum()}
	for range promptly {
		n, err := e.cluster.FindNode(ctx, Sender{Instance: c.id.Instance, Boot: claim.Boot, Sum: claim.Sum, Addr: c.src})
		if err != nil {
			return policy.ClaimWaits
		}
		result := policy.ClaimFor(n, c.id)
		switch {
		case result == policy.ClaimRefused:
			e.log.Warn("canary refused: the boot has another secret, or its kernel cannot have one",
				"node", n.Name, "source", c.src, "boot", c.id.Boot, "kernel", n.Kernel)
			return result
		case result != policy.ClaimWrite:
			return result
		}
		if e.policy.DryRun {
			e.rehearseClaim(c.src, claim)
			return result
		}
		_, err = e.cluster.PatchNode(ctx, n, NodePatch{Claim: &claim})
		switch {
		case err == nil:
			e.log.Info("boot claimed", "node", n.Name, "source", c.src, "boot", c.id.Boot)
			return result
		case !errors.Is(err, ErrConflict):
			return policy.ClaimWaits
		}
	}
	return policy.ClaimWaits // the Node changes all the time
}

// rehearseClaim remembers a claim that a dry run must not write; the first of a boot stays.
func (e *Engine) rehearseClaim(src netip.Addr, claim policy.Pin) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.rehearsed[src].Boot != claim.Boot && (e.rehearsed[src] != (policy.Pin{}) || len(e.rehearsed) < claimsKnown) {
		e.rehearsed[src] = claim
	}
}

func (e *Engine) rehearsedClaim(src netip.Addr, have policy.Pin) policy.Pin {
	e.mu.Lock()
	defer e.mu.Unlock()
	if claim, ok := e.rehearsed[src]; ok {
		return claim
	}
	return have
}
