package main

import (
	"context"
	"fmt"

	"github.com/lastgasp/lastgasp/e2e/load"
)

const (
	costGoal = 1.3    // times the do-nothing loop
	backlog  = 60_000 // datagrams that the receive buffers hold
)

// receiveCost is the processor time of a datagram at a rate that leaves time to sleep in between.
func receiveCost(ctx context.Context, r *receivers, report func(Row)) error {
	s := new(scope)
	defer s.Run()
	own, limit, peers, err := r.startAll(ctx, s)
	if err != nil {
		return err
	}
	const rate, nodes = 100_000, 1000
	for _, format := range []load.Format{load.Extended, load.Basic, load.Fragmented} {
		subjects, rounds := []*subject{limit, own.subject}, 3
		if format == load.Extended {
			subjects, rounds = append(subjects, peers...), 7
		}
		fleet := load.NewNodes(0, nodes, format)
		all, err := inTurn(rounds, subjects, func(x *subject) (outcome, error) {
			return x.bear(ctx, load.Plan{Count: rate / 2, PerSecond: rate}, fleet.Chatter)
		})
		if err != nil {
			return err
		}
		row := Row{
			Name: "CPU per datagram", Value: all[own.subject].cost(), Unit: "µs",
			On: fmt.Sprintf("%s/s, %s sources, %s", grouped(rate), grouped(nodes), format),
		}
		report(within(row.against(limitName(), all[limit].cost()), costGoal))
		if format != load.Extended {
			continue
		}
		for _, p := range peers {
			row = row.against(p.name, all[p].cost())
			if p.name == netconsd {
				row = row.aim("below", row.Ratio < 1)
			}
			report(row)
		}
	}
	return own.tookAll()
}

// receiveBacklog is the processor time of a datagram that waits in the socket: the work itself.
func receiveBacklog(ctx context.Context, r *receivers, report func(Row)) error {
	s := new(scope)
	defer s.Run()
	own, limit, _, err := r.startAll(ctx, s)
	if err != nil {
		return err
	}
	const nodes = 1000
	fleet := load.NewNodes(0, nodes, load.Extended)
	all, err := inTurn(9, []*subject{limit, own.subject}, func(x *subject) (outcome, error) {
		return x.workOff(ctx, backlog, fleet.Chatter)
	})
	if err != nil {
		return err
	}
	row := Row{
		Name: "CPU per datagram, queue full", Value: all[own.subject].cost(), Unit: "µs",
		On: fmt.Sprintf("%s waiting, %s sources, extended", grouped(backlog), grouped(nodes)),
	}
	report(within(row.against(limitName(), all[limit].cost()), costGoal))
	return own.tookAll()
}

// receiveGrowth is the same for few to very many sources, each in its turn, after the memory for each source has been filled.
func receiveGrowth(ctx context.Context, r *receivers, report func(Row)) error {
	s := new(scope)
	defer s.Run()
	sizes := []int{10, 100, 1000, 10_000, 65_536}
	fleets := map[*subject]*load.Nodes{}
	var daemons []*ours
	var subjects []*subject
	for _, n := range sizes {
		own, err := r.startOurs(ctx, s)
		if err != nil {
			return err
		}
		fleet := load.NewNodes(0, n, load.Extended)
		fleets[own.subject] = fleet
		daemons, subjects = append(daemons, own), append(subjects, own.subject)
		if _, err := own.bear(ctx, load.Plan{Count: min(200*n, 1_000_000), PerSecond: 200_000}, fleet.Chatter); err != nil {
			return err
		}
	}
	all, err := inTurn(5, subjects, func(x *subject) (outcome, error) {
		return x.workOff(ctx, backlog/2, fleets[x].Chatter) // five times that of ten sources is below their quota
	})
	if err != nil {
		return err
	}
	few := all[subjects[0]].cost()
	for i, n := range sizes {
		row := Row{
			Name: "CPU per datagram by fleet, queue full", On: fmt.Sprintf("%s sources, extended", grouped(int64(n))),
			Value: all[subjects[i]].cost(), Unit: "µs",
		}
		report(row.against(fmt.Sprintf("%d sources", sizes[0]), few))
		if err := daemons[i].tookAll(); err != nil {
			return err
		}
	}
	return nil
}

// limitName describes the do-nothing loop.
func limitName() string { return fmt.Sprintf("do-nothing recvmmsg, %d sockets", sockets()) }

// within is the row with an upper bound for its ratio.
func within(r Row, times float64) Row {
	return r.aim(fmt.Sprintf("≤ %.2g ×", times), r.Ratio <= times)
}
