package main

import (
	"context"
	"errors"
	"os"
)

// receive measures the way from the socket to the verdict.
func receive(ctx context.Context, report func(Row)) error {
	if os.Geteuid() != 0 {
		return errors.New("large receive buffers want CAP_NET_ADMIN: run it as root")
	}
	s := new(scope)
	defer s.Run()
	r, err := newReceivers(ctx, s)
	if err != nil {
		return err
	}
	for _, measure := range []func(context.Context, *receivers, func(Row)) error{
		receiveCost, receiveVerified, receiveBacklog, receiveLoss, receiveGrowth, receiveVerdict, receiveMemory, receiveDeaths,
	} {
		if err := measure(ctx, r, report); err != nil {
			return err
		}
	}
	return nil
}
