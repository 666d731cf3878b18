package main

import (
	"context"
	"fmt"
	"time"

	"github.com/lastgasp/lastgasp/e2e/load"
)

// receiveLoss finds the rate at which the do-nothing loop starts to lose, or the rate beyond which this machine cannot
// send, and asks for four fifths of it.
func receiveLoss(ctx context.Context, r *receivers, report func(Row)) error {
	s := new(scope)
	defer s.Run()
	own, limit, peers, err := r.startAll(ctx, s)
	if err != nil {
		return err
	}
	const nodes = 1000
	const long = 2 * time.Second
	fleet := load.NewNodes(0, nodes, load.Extended)
	send := func(x *subject, perSecond float64, count int) (outcome, error) {
		return x.bear(ctx, load.Plan{Count: count, PerSecond: perSecond, Within: 10 * long}, fleet.Chatter)
	}
	flat, err := inTurn(3, []*subject{limit}, func(x *subject) (outcome, error) { return send(x, 0, 600_000) })
	if err != nil {
		return err
	}
	most, why := flat[limit].perSecond(), "the most that can be sent"
	for lost := flat[limit].lost(); lost > 0; why = "the most without loss" {
		most *= 0.9
		o, err := send(limit, most, int(most*long.Seconds()))
		if err != nil {
			return err
		}
		lost = float64(o.lost)
	}
	report(Row{Name: "rate, do-nothing recvmmsg", On: why, Value: most, Unit: "records/s"})

	const share = 0.8
	all, err := inTurn(3, append([]*subject{own.subject, limit}, peers...), func(x *subject) (outcome, error) {
		return send(x, share*most, int(share*most*long.Seconds()))
	})
	if err != nil {
		return err
	}
	mine := all[own.subject]
	row := Row{
		Name: fmt.Sprintf("lost at %g × that rate", share), Value: mine.lost(), Unit: "%",
		On: fmt.Sprintf("%s/s for %s, 3 times", grouped(int64(mine.perSecond())), long),
	}
	report(row.against(limitName(), all[limit].lost()).aim("0", mine.lost() == 0))
	for _, p := range peers {
		report(row.against(p.name, all[p].lost()))
	}
	return own.tookAll()
}
