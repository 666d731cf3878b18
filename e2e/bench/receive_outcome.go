package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lastgasp/lastgasp/e2e/load"
)

// outcome is what one run of load came to.
type outcome struct {
	sent load.Sent
	lost int
	cost time.Duration // processor time of the receiver per datagram received
}

// bear sends load at r and waits until r has dealt with it.
func (r *subject) bear(ctx context.Context, plan load.Plan, next load.Next) (outcome, error) {
	return r.during(ctx, func() (load.Sent, error) { return r.sender.Send(ctx, plan, next) })
}

// workOff sends load at r while r is stopped, and measures the cost of working off what then waits in its sockets. So neither
// wake-ups nor a race with the sender blur the cost.
func (r *subject) workOff(ctx context.Context, count int, next load.Next) (outcome, error) {
	out, err := r.during(ctx, func() (load.Sent, error) {
		if err := unix.Kill(r.daemon.PID(), unix.SIGSTOP); err != nil {
			return load.Sent{}, fmt.Errorf("stop %s: %w", r.name, err)
		}
		sent, err := r.sender.Send(ctx, load.Plan{Count: count}, next)
		return sent, errors.Join(err, unix.Kill(r.daemon.PID(), unix.SIGCONT))
	})
	if err == nil && out.lost > 0 {
		err = fmt.Errorf("the receive buffers of %s hold fewer than %d datagrams", r.name, count)
	}
	return out, err
}

// during measures r while send sends.
func (r *subject) during(ctx context.Context, send func() (load.Sent, error)) (outcome, error) {
	before, err := r.read()
	if err != nil {
		return outcome{}, err
	}
	sent, err := send()
	if err != nil {
		return outcome{}, err
	}
	after, err := r.awaitDrained(ctx)
	if err != nil {
		return outcome{}, err
	}
	lost := after.dropped - before.dropped
	if lost >= sent.Count {
		return outcome{}, fmt.Errorf("nothing arrived at %s", r.name)
	}
	return outcome{sent, lost, (after.cpu - before.cpu) / time.Duration(sent.Count-lost)}, nil
}

// outcomes are several runs of one receiver.
type outcomes []outcome

// cost is the median, in microseconds.
func (all outcomes) cost() float64 {
	var each []float64
	for _, o := range all {
		each = append(each, microseconds(o.cost))
	}
	return quantile(each, 0.5)
}

// lost is the share of sent datagrams that did not get through, in percent.
func (all outcomes) lost() float64 {
	lost, sent := 0, 0
	for _, o := range all {
		lost, sent = lost+o.lost, sent+o.sent.Count
	}
	return 100 * float64(lost) / float64(sent)
}

// perSecond is the median of the rates that were reached.
func (all outcomes) perSecond() float64 {
	var each []float64
	for _, o := range all {
		each = append(each, o.sent.PerSecond())
	}
	return quantile(each, 0.5)
}

// inTurn runs every subject once, then every subject again, and so on, so that other work on the machine affects them alike.
func inTurn(rounds int, subjects []*subject, run func(*subject) (outcome, error)) (map[*subject]outcomes, error) {
	all := make(map[*subject]outcomes)
	for range rounds {
		for _, s := range subjects {
			o, err := run(s)
			if err != nil {
				return nil, err
			}
			all[s] = append(all[s], o)
		}
	}
	return all, nil
}
