package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lastgasp/lastgasp/e2e/guest/control"
	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	configuratorPath = "/usr/bin/lastgasp-configurator"
	debianSetup      = "Debian's netconsole-setup"
	rounds           = 5 // of each program, in turns; the median counts
)

// configurator measures what the configurator costs a node: in one guest beside Debian's netconsole-setup, which also arms a
// target but neither proves nor watches it; and the size of the binary.
func configurator(ctx context.Context, report func(Row)) error {
	s := new(scope)
	defer s.Run()
	if err := configuratorSize(ctx, s, report); err != nil {
		return err
	}
	n, err := bootNode(ctx, s)
	if err != nil {
		return err
	}
	if err := n.compareSetup(ctx, report); err != nil {
		return err
	}
	if err := n.watchIdle(ctx, report); err != nil {
		return err
	}
	return n.watchChurn(ctx, report)
}

// configuratorSize reports the binaries as they are packaged.
func configuratorSize(ctx context.Context, s *scope, report func(Row)) error {
	for _, arch := range []string{"amd64", "arm64"} {
		file, err := build(ctx, s, "lastgasp-configurator", arch)
		if err != nil {
			return err
		}
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		mib := float64(info.Size()) / (1 << 20)
		report(Row{Name: "binary, stripped", On: arch, Value: mib, Unit: "MiB"}.aim("≤ 12 MiB", mib <= 12))
	}
	return nil
}

// benchNode is a guest with both programs on it.
type benchNode struct {
	vm       *lab.VM
	kernel   string
	listener netip.AddrPort
	canaries atomic.Int64 // that have reached the listener
}

func bootNode(ctx context.Context, s *scope) (*benchNode, error) {
	binary, err := build(ctx, s, "lastgasp-configurator", "amd64")
	if err != nil {
		return nil, err
	}
	files, err := debianSetupFiles(ctx, s)
	if err != nil {
		return nil, err
	}
	kernel, err := lab.FetchKernel(ctx, s, "6.12")
	if err != nil {
		return nil, err
	}
	network, err := lab.NewNet(s)
	if err != nil {
		return nil, err
	}
	n := &benchNode{kernel: kernel.Release, listener: netip.AddrPortFrom(lab.ListenerAddr.Addr(), 6666)}
	if err := answerCanaries(s, network.Listener, n.listener, func(r *netconsole.Record) {
		if _, ok := netconsole.ParseCanary(string(r.Text)); ok {
			n.canaries.Add(1)
		}
	}); err != nil {
		return nil, err
	}
	files[configuratorPath] = lab.GuestFile{Host: binary, Mode: 0o755}
	files["/etc/lastgasp/configurator.yaml"] = lab.GuestFile{Data: fmt.Appendf(nil, "endpoint: {static: [%q]}\n", n.listener)}
	n.vm, err = lab.BootVM(ctx, s, lab.VMSpec{Kernel: kernel, Net: network, Files: files, MemoryMiB: 1024, Modules: []string{"veth"}})
	if err != nil {
		return nil, err
	}
	if r, err := n.vm.Run(ctx, "modprobe", "netconsole"); err != nil || r.Exit != 0 {
		return nil, fmt.Errorf("load netconsole: %v%s", err, r.Stderr)
	}
	return n, nil
}

// answerCanaries runs a listener until s ends. It only acknowledges canaries; heard is called for every record.
func answerCanaries(s *scope, ns *lab.NS, addr netip.AddrPort, heard func(*netconsole.Record)) error {
	conn, err := lab.Listen(ns, addr)
	if err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		acknowledge(conn, heard)
	}()
	s.Cleanup(func() {
		conn.Close()
		<-done
	})
	return nil
}

func acknowledge(conn *net.UDPConn, heard func(*netconsole.Record)) {
	var stream netconsole.Stream
	buf := make([]byte, 2048)
	for {
		size, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return // closed
		}
		stream.Push(time.Now(), buf[:size], func(r *netconsole.Record) {
			heard(r)
			if canary, ok := netconsole.ParseCanary(string(r.Text)); ok {
				conn.WriteToUDPAddrPort([]byte(netconsole.Ack{Nonce: canary.Nonce, Seq: r.Seq, Known: true}.Line()), from)
			}
		})
	}
}

// compareSetup arms the same target with both programs in turns, first from nothing, then when it is armed already.
func (n *benchNode) compareSetup(ctx context.Context, report func(Row)) error {
	programs := [2][]string{
		{configuratorPath, "apply"},
		{"/usr/bin/bash", "/usr/sbin/netconsole-setup", fmt.Sprintf("+%d@%s", n.listener.Port(), n.listener.Addr())},
	}
	for _, c := range []struct {
		on    string
		again bool
	}{{"nothing armed before", false}, {"all armed before", true}} {
		var wall, cpu [2][]float64 // ms
		for range rounds {
			for i, argv := range programs {
				if err := n.disarm(ctx); err != nil {
					return err
				}
				cost, err := n.measure(ctx, argv...)
				if err == nil && c.again {
					cost, err = n.measure(ctx, argv...)
				}
				if err != nil {
					return err
				}
				wall[i], cpu[i] = append(wall[i], milliseconds(cost.Wall)), append(cpu[i], milliseconds(cost.CPU))
			}
		}
		for _, m := range []struct {
			name  string
			costs [2][]float64
		}{{"apply, wall time", wall}, {"apply, CPU time", cpu}} {
			ours, theirs := quantile(m.costs[0], 0.5), quantile(m.costs[1], 0.5)
			report(Row{Name: m.name, On: fmt.Sprintf("%s, %s", n.kernel, c.on), Value: ours, Unit: "ms"}.
				against(debianSetup, theirs).aim("≤ 0.1 ×", ours <= theirs/10))
		}
	}
	return n.disarm(ctx)
}

// disarm removes what either program has armed.
func (n *benchNode) disarm(ctx context.Context) error {
	if r, err := n.vm.Run(ctx, configuratorPath, "disarm"); err != nil || r.Exit != 0 {
		return fmt.Errorf("disarm: %v%s", err, r.Stderr)
	}
	target := "/sys/kernel/config/netconsole/" + n.listener.Addr().String()
	if _, err := n.vm.ReadFile(ctx, target+"/enabled"); err != nil {
		return nil // there is none
	}
	return n.vm.Remove(ctx, target)
}

// watchIdle reports what watch costs while nothing changes.
func (n *benchNode) watchIdle(ctx context.Context, report func(Row)) error {
	const window = 30 * time.Second
	cost, err := n.measure(ctx, "10s", window.String(), configuratorPath, "watch")
	if err != nil {
		return err
	}
	mib := float64(cost.RSS) / (1 << 20)
	report(Row{Name: "watch, resident memory", On: n.kernel, Value: mib, Unit: "MiB"}.aim("≤ 15 MiB", mib <= 15))
	perSecond := func(n int64) float64 { return float64(n) / cost.Wall.Seconds() }
	// Each wake-up ends with a thread that goes to sleep again, the Go runtime's monitor not counted. A small file takes two
	// reads, the second for its end.
	report(Row{Name: "watch, wake-ups while idle", On: n.kernel, Value: perSecond(cost.Sleeps), Unit: "/s"}.aim("≤ 1 /s", perSecond(cost.Sleeps) <= 1))
	report(Row{Name: "watch, file reads while idle", On: n.kernel, Value: perSecond(cost.Reads) / 2, Unit: "/s"}.aim("≤ 5 /s", perSecond(cost.Reads)/2 <= 5))
	percent := 100 * cost.CPU.Seconds() / cost.Wall.Seconds()
	// Of an emulated CPU, where what watch does, a system call after the other, takes at least twenty times as long.
	report(Row{Name: "watch, CPU while idle", On: fmt.Sprintf("%s, emulated, %s", n.kernel, window), Value: percent, Unit: "%"}.
		aim("≤ 2 %", percent <= 2))
	return nil
}

// watchChurn reports what watch does while pods come and go, none of which is on the way to the listener. It leaves it running.
func (n *benchNode) watchChurn(ctx context.Context, report func(Row)) error {
	before := n.canaries.Load()
	if err := n.vm.Start(ctx, configuratorPath, "watch"); err != nil {
		return err
	}
	// Everything about the node is settled once the watch has proved it. The first pass of a process that finds a target armed has its
	// canary, too.
	proved := func() bool { return n.canaries.Load() > before }
	for deadline := time.Now().Add(time.Minute); !proved(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("wait for the watch's first canary: none has arrived for a minute")
		}
	}
	passes := func() (int, error) {
		log, err := n.vm.ReadFile(ctx, lab.LogPath(configuratorPath))
		return strings.Count(string(log), "running a pass"), err
	}
	passesBefore, err := passes()
	if err != nil {
		return err
	}
	before = n.canaries.Load()
	const pods = 100
	if r, err := n.vm.Run(ctx, "pods", strconv.Itoa(pods), "600ms"); err != nil || r.Exit != 0 {
		return fmt.Errorf("start and stop pods: %v%s", err, r.Stderr)
	}
	after, err := passes()
	if err != nil {
		return err
	}
	on := fmt.Sprintf("%s, %d pods in a minute", n.kernel, pods)
	canaries := float64(n.canaries.Load() - before)
	report(Row{Name: "watch, canaries under churn", On: on, Value: canaries}.aim("none", canaries == 0))
	report(Row{Name: "watch, passes under churn", On: on, Value: float64(after - passesBefore)}.aim("none", after == passesBefore))
	return nil
}

// measure runs the guest's program of this name.
func (n *benchNode) measure(ctx context.Context, args ...string) (control.Cost, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var cost control.Cost
	r, err := n.vm.RunProgram(ctx, lab.Program{
		Argv: append([]string{"/sbin/measure"}, args...),
		Env:  []string{"PATH=/usr/sbin:/usr/bin"}, // Debian's programs, not the guest's own of the same names
	})
	if err == nil && r.Exit != 0 {
		err = fmt.Errorf("exit code %d: %s", r.Exit, r.Stderr)
	}
	if err == nil {
		err = json.Unmarshal([]byte(r.Stdout), &cost)
	}
	if err != nil {
		return cost, fmt.Errorf("measure %q: %w", args, err)
	}
	return cost, nil
}
