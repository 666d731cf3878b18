package main

import (
	"context"
	"fmt"

	"github.com/lastgasp/lastgasp/e2e/load"
)

// receiveMemory is what a fleet costs in memory: one that is idle, and one that is chatty.
func receiveMemory(ctx context.Context, r *receivers, report func(Row)) error {
	const idle, goal = 65_536, 300
	idleLoad := func(x *subject) error {
		fleet := load.NewNodes(0, idle, load.Extended)
		for _, next := range []load.Next{fleet.Canary, fleet.Chatter} {
			if o, err := x.bear(ctx, load.Plan{Count: idle, PerSecond: 100_000}, next); err != nil {
				return err
			} else if o.lost > 0 {
				return fmt.Errorf("fill %s with sources: %d datagrams were lost", x.name, o.lost)
			}
		}
		return nil
	}
	row := Row{Name: "resident memory", On: fmt.Sprintf("%s idle sources: a canary and a line each", grouped(idle)), Unit: "MiB"}
	s := new(scope)
	defer s.Run()
	own, err := r.startOurs(ctx, s)
	if err != nil {
		return err
	}
	if err := idleLoad(own.subject); err != nil {
		return err
	}
	m, err := own.metrics()
	if err != nil {
		return err
	}
	if n := m["lastgasp_sources"]; n != idle {
		return fmt.Errorf("fill the table: the listener holds %.0f sources, not %d", n, idle)
	}
	if row.Value, err = memory(own.daemon, "VmRSS"); err != nil {
		return err
	}
	row = row.aim(fmt.Sprintf("≤ %d MiB", goal), row.Value <= goal)
	if r.netconsd != "" {
		c, err := r.startNetconsd(ctx, s)
		if err != nil {
			return err
		}
		// Its buffer is small: what it loses are sources it need not hold.
		if _, err := c.bear(ctx, load.Plan{Count: idle, PerSecond: 50_000}, load.NewNodes(0, idle, load.Extended).Chatter); err != nil {
			return err
		}
		now, err := memory(c.daemon, "VmRSS")
		if err != nil {
			return err
		}
		row = row.against(netconsd, now)
	}
	report(row)

	const chatty, lines = 20_000, 60
	fresh, err := r.startOurs(ctx, s)
	if err != nil {
		return err
	}
	fleet := load.NewNodes(0, chatty, load.Extended)
	if _, err := fresh.bear(ctx, load.Plan{Count: chatty * lines, PerSecond: 200_000}, fleet.Chatter); err != nil {
		return err
	}
	busy := Row{Name: "resident memory", On: fmt.Sprintf("%s sources, %d lines each", grouped(chatty), lines), Unit: "MiB"}
	if busy.Value, err = memory(fresh.daemon, "VmRSS"); err != nil {
		return err
	}
	report(busy)
	return nil
}
