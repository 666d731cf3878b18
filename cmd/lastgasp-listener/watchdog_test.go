package main

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestWatchdogIsFedWhileSocketsAreRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = time.Minute
		ctx, cancel := context.WithCancel(t.Context())
		var stuck, fed atomic.Int64 // since when, Unix nanoseconds; and how often
		lastRead := func() time.Time {
			if at := stuck.Load(); at != 0 {
				return time.Unix(0, at)
			}
			return time.Now()
		}
		go watchdog(ctx, interval, lastRead, func() { fed.Add(1) })

		time.Sleep(10*interval + time.Second)
		if n := fed.Load(); n != 40 {
			t.Errorf("fed %d times in ten intervals, want 40", n)
		}
		stuck.Store(time.Now().UnixNano())
		time.Sleep(interval / 2)
		fed.Store(0)
		time.Sleep(interval)
		if n := fed.Load(); n != 0 {
			t.Errorf("fed %d times although a socket is stuck", n)
		}
		stuck.Store(0)
		time.Sleep(interval)
		if fed.Load() == 0 {
			t.Error("not fed although the socket goes on")
		}
		cancel()
		synctest.Wait()
	})
}
