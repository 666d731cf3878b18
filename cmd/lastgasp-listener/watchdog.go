package main

import (
	"context"
	"time"
)

// watchdog calls notify several times per interval, which is WatchdogSec= of the unit, until ctx ends, but only while every
// socket is being read, as turned tells. Otherwise systemd starts us anew, and has kept what arrived meanwhile.
func watchdog(ctx context.Context, interval time.Duration, turned func() time.Time, notify func()) {
	tick := time.NewTicker(interval / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if now.Sub(turned()) < interval/2 {
				notify()
			}
		}
	}
}
