package main

import (
	"context"
	"time"
)

// watchdog calls notify several times per interval, which is WatchdogSec= of the unit, until ctx ends, but only while every
// socket is read: lastRead is when they last were. Otherwise systemd restarts the process and queues what arrives meanwhile.
func watchdog(ctx context.Context, interval time.Duration, lastRead func() time.Time, notify func()) {
	tick := time.NewTicker(interval / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if now.Sub(lastRead()) < interval/2 {
				notify()
			}
		}
	}
}
