package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lastgasp/lastgasp/e2e/load"
	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	shard "github.com/lastgasp/lastgasp/listener/receive"
)

// receiveVerified measures the cost of verifying senders: the processor time of a datagram after the socket, in this process,
// from nodes whose secrets are known, beside the same datagrams when no secret is known. Kernel and socket are the same for
// both and left out, so the ratio is the worst case.
func receiveVerified(ctx context.Context, _ *receivers, report func(Row)) error {
	const nodes, rounds, perRound = 1000, 9, 200_000
	known := make(pinned, nodes)
	for n := range nodes {
		known[load.Boot(n)] = netconsole.Secret(load.Secret(n)).Sum()
	}
	var costs [2][]float64 // strangers, verified; µs
	sides := [2]*side{newSide(nil, nodes), newSide(known, nodes)}
	for range rounds {
		for i, s := range sides {
			if err := ctx.Err(); err != nil {
				return err
			}
			cost, err := s.run(perRound)
			if err != nil {
				return err
			}
			costs[i] = append(costs[i], cost)
		}
	}
	row := Row{
		Name: "CPU per datagram behind the socket, verified", On: fmt.Sprintf("%s sources, extended", grouped(nodes)),
		Value: slices.Min(costs[1]), Unit: "µs",
	}
	report(within(row.against("nobody is verified", slices.Min(costs[0])), 1.1))
	if n := sides[1].metrics.Verified.Load(); n != rounds*perRound {
		return fmt.Errorf("verify datagrams: %d of %d were", n, rounds*perRound)
	}
	return nil
}

// pinned are the sums of the secrets by boot.
type pinned map[string]string

func (p pinned) Pinned(boot, sum string) bool { return p[boot] == sum }

// side is a shard and the nodes that send to it.
type side struct {
	shard   *shard.Shard
	metrics *shard.Metrics
	nodes   *load.Nodes
	now     time.Time
}

func newSide(p pinned, nodes int) *side {
	s := &side{metrics: new(shard.Metrics), nodes: load.NewNodes(0, nodes, load.Extended), now: time.Unix(1e9, 0)}
	cfg := &shard.Config{Judge: new(detect.Config), Sink: forgetful{}, Metrics: s.metrics}
	if p != nil {
		cfg.Pins = p
	}
	s.shard = shard.NewShard(cfg)
	return s
}

// run has the shard receive so many datagrams and returns the microseconds that each took.
func (s *side) run(datagrams int) (cost float64, err error) {
	before, err := processorTime()
	if err != nil {
		return 0, err
	}
	for range datagrams {
		s.now = s.now.Add(10 * time.Microsecond)
		from, payload := s.nodes.Chatter()
		s.shard.Receive(s.now, netip.AddrPortFrom(from, 6665), payload)
	}
	s.shard.Tick(s.now)
	after, err := processorTime()
	return float64((after - before).Nanoseconds()) / 1000 / float64(datagrams), err
}

// processorTime is the processor time that this process has used so far.
func processorTime() (time.Duration, error) {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()), nil
}

// forgetful is a Sink that discards everything.
type forgetful struct{}

func (forgetful) Offer(detect.Incident) bool { return true }

func (forgetful) Canary(netip.Addr, netconsole.Identity, time.Time) bool { return true }
