package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// stormRounds is how often each kind of machine dies.
const stormRounds = 3

// stormTook is how many records of a storm each listener has heard before the kernel panics.
const stormTook = 2000

// storm counts the panics that are heard whole though they happen amid a log storm: on kernels whose netconsole differs, with one
// CPU and with several, with the room that we give the card's queue and without, for two targets beside one. All targets of a
// device share one backlog of netpoll's, which nobody drains in a panic.
//
// What it cannot show: emulated CPUs take turns on one host thread, so no two really send at once.
func storm(ctx context.Context, report func(Row)) error {
	s := new(scope)
	defer s.Run()
	binary, err := build(ctx, s, "lastgasp-configurator", "amd64")
	if err != nil {
		return err
	}
	for _, cpus := range []int{1, 4, 2} {
		for _, kernel := range []string{"6.12", "7"} {
			for _, queues := range []bool{true, false} {
				var whole [2]float64 // by targets
				var release string
				for range stormRounds {
					for i := range whole {
						k, err := lab.FetchKernel(ctx, s, kernel)
						if err != nil {
							return err
						}
						release = k.Release
						w := stormWorld{binary: binary, kernel: k, cpus: cpus, targets: i + 1, queues: queues}
						heard, err := w.die(ctx)
						if err != nil {
							return fmt.Errorf("%s, %d CPUs, %d targets: %w", release, cpus, w.targets, err)
						}
						if heard {
							whole[i]++
						}
					}
				}
				limit := map[bool]string{true: "256 KiB", false: "as it was"}[queues]
				report(Row{
					Name: "panics heard whole amid a log storm", On: fmt.Sprintf("%s, %d CPUs, 2 targets, limit_min %s", release, cpus, limit),
					Value: whole[1], Unit: fmt.Sprintf("of %d", stormRounds),
				}.against("1 target", whole[0]).aim("all", whole[1] == stormRounds))
			}
		}
	}
	return nil
}

// stormWorld is one machine that dies amid a storm.
type stormWorld struct {
	binary  string
	kernel  *lab.Kernel
	cpus    int
	targets int
	queues  bool // apply gives the card's queue room
}

// die boots the machine and lets it die. It reports whether a listener heard the end of the panic.
func (w stormWorld) die(ctx context.Context) (whole bool, err error) {
	s := new(scope)
	defer s.Run()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	network, err := lab.NewNet(s)
	if err != nil {
		return false, err
	}
	var listeners []string
	var records [2]atomic.Int64
	var ended atomic.Bool
	for i, addr := range []netip.Addr{lab.ListenerAddr.Addr(), lab.APIServerAddr.Addr()}[:w.targets] {
		at := netip.AddrPortFrom(addr, 6666)
		listeners = append(listeners, fmt.Sprintf("%q", at))
		if err := answerCanaries(s, network.Listener, at, func(r *netconsole.Record) {
			records[i].Add(1)
			if strings.HasPrefix(string(r.Text), "---[ end Kernel panic") {
				ended.Store(true)
			}
		}); err != nil {
			return false, err
		}
	}
	vm, err := lab.BootVM(ctx, s, lab.VMSpec{
		Kernel: w.kernel, Net: network, CPUs: w.cpus,
		Sysctls: map[string]string{"kernel.panic": "0"},
		Append:  []string{"printk.devkmsg=on", "log_buf_len=32M"},
		Files: map[string]lab.GuestFile{
			configuratorPath: {Host: w.binary, Mode: 0o755},
			"/etc/lastgasp/configurator.yaml": {Data: fmt.Appendf(nil, "endpoint: {static: [%s]}\nqueues: %t\ncanary: {timeout: 20s}\n",
				strings.Join(listeners, ", "), w.queues)},
		},
	})
	if err != nil {
		return false, err
	}
	// The emulated serial port would slow the storm down, and give the card time.
	if err := vm.WriteFile(ctx, "/sys/class/tty/ttyS0/console", []byte("N"), 0o644); err != nil {
		return false, err
	}
	if r, err := vm.Run(ctx, "modprobe", "netconsole"); err != nil || r.Exit != 0 {
		return false, fmt.Errorf("load netconsole: %v%s", err, r.Stderr)
	}
	if r, err := vm.Run(ctx, configuratorPath, "apply"); err != nil || r.Exit != 0 {
		return false, fmt.Errorf("arm: %v%s", err, r.Stderr)
	}
	if err := vm.Start(ctx, "load", "1000000", "/run/never"); err != nil {
		return false, err
	}
	heard := func() (fewest, all int64) {
		fewest = records[0].Load()
		for i := range w.targets {
			fewest, all = min(fewest, records[i].Load()), all+records[i].Load()
		}
		return fewest, all
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for fewest, _ := heard(); fewest < stormTook; fewest, _ = heard() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false, errors.New("wait for the storm: it does not arrive")
		}
	}
	if err := vm.Crash(ctx, lab.CrashSysrq); err != nil {
		return false, err
	}
	quiet := time.NewTicker(10 * time.Second)
	defer quiet.Stop()
	for _, before := heard(); !ended.Load(); {
		select {
		case <-tick.C:
		case <-quiet.C:
			_, now := heard()
			if now == before {
				return false, nil // and nothing more will arrive
			}
			before = now
		case <-ctx.Done():
			return false, errors.New("wait for the panic: records never stop arriving")
		}
	}
	return true, nil
}
