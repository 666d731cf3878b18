package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/lastgasp/lastgasp/e2e/crowd"
	"github.com/lastgasp/lastgasp/e2e/lab"
)

// cleanupMemory measures the listener's memory in a large cluster: with all Nodes in the cache, with all of them heard and
// pinned, and at its peak, a death included. There are no controllers, because they cache all pods.
func cleanupMemory(ctx context.Context, binary string, report func(Row)) error {
	s := new(scope)
	defer s.Run()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := crowd.NewWorld(ctx, s, lab.ClusterSpec{NoControllers: true})
	if err != nil {
		return err
	}
	w.Cluster.StopAPIServer() // it lists faster than it watches
	s.Logf("storing %d nodes and %d pods", fleet.Nodes, fleet.Size())
	if err := w.Store(ctx, fleet); err != nil {
		return err
	}
	s.Logf("starting the API server on them")
	if err := w.Cluster.StartAPIServer(ctx); err != nil {
		return err
	}
	kernels, err := w.Kernels(s)
	if err != nil {
		return err
	}
	watch, err := w.Watch(ctx)
	if err != nil {
		return err
	}
	listener, _, err := w.StartListener(ctx, s, binary, "")
	if err != nil {
		return err
	}
	on := fmt.Sprintf("%d nodes, %d pods in the API", fleet.Nodes, fleet.Size())
	row := func(name, field string) (Row, error) {
		size, err := memory(listener, field)
		return Row{Name: name, On: on, Value: size, Unit: "MiB"}, err
	}
	idle, err := row("listener's memory, nodes listed", "VmRSS")
	if err != nil {
		return err
	}
	report(idle)
	s.Logf("letting every node be heard and pinned")
	if err := kernels.Arm(ctx, fleet, watch); err != nil {
		return err
	}
	heard, err := row("listener's memory, every node pinned", "VmRSS")
	if err != nil {
		return err
	}
	report(heard.aim("≤ 150 MiB", heard.Value <= 150))

	one := fleet.Part(fleet.Nodes/2, 1)
	said, err := kernels.Panic(ctx, one)
	if err != nil {
		return err
	}
	failed, err := watch.Failed(ctx, one)
	if err != nil {
		return err
	}
	report(Row{
		Name: "panic to last pod Failed", On: fmt.Sprintf("1 node, %d pods, of %s", one.Pods, on),
		Value: failed.Sub(earliest(said)).Seconds(), Unit: "s",
	})
	if _, err := watch.Gone(ctx, one); err != nil {
		return err
	}
	peak, err := row("listener's memory, the most of all this", "VmHWM")
	if err != nil {
		return err
	}
	report(peak.aim("≤ 150 MiB", peak.Value <= 150))
	return nil
}

// memory reads one of a process's sizes, in MiB (proc_pid_status(5)).
func memory(d *lab.Daemon, field string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID()))
	if err != nil {
		return 0, fmt.Errorf("read memory of a process: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			var kib float64
			_, err := fmt.Sscan(value, &kib)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("read memory of a process: no %s", field)
}
