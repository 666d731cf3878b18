package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/lastgasp/lastgasp/e2e/crowd"
	"github.com/lastgasp/lastgasp/e2e/lab"
)

// The crowds of this section. In one cluster their numbers must not overlap.
var (
	singles   = crowd.Crowd{First: 0, Nodes: 200, Pods: 1}     // die one by one
	larges    = crowd.Crowd{First: 1000, Nodes: 5, Pods: 110}  // die one by one
	largesRef = crowd.Crowd{First: 2000, Nodes: 5, Pods: 110}  // live; their pods are failed by the loop
	together  = crowd.Crowd{First: 3000, Nodes: 100, Pods: 50} // die at once
	stormRef  = crowd.Crowd{First: 4000, Nodes: 100, Pods: 50} // live; their pods are failed by the loop
	fleet     = crowd.Crowd{First: 0, Nodes: 10_000, Pods: 30} // in a cluster of its own
)

// singlesAtOnce is how many of singles are there at a time: their Leases are not renewed.
const singlesAtOnce = 50

// cleanup measures the time from a panic until nodes and pods are cleaned up, on a real control plane. The reference for the
// fail-over is a plain loop that does nothing but write the same patches to the same API server.
func cleanup(ctx context.Context, report func(Row)) error {
	s := new(scope)
	defer s.Run()
	binary, err := build(ctx, s, "lastgasp-listener", runtime.GOARCH)
	if err != nil {
		return err
	}
	if err := cleanupDeaths(ctx, binary, report); err != nil {
		return err
	}
	return cleanupMemory(ctx, binary, report)
}

// deaths is a cluster whose nodes may die.
type deaths struct {
	*crowd.World
	kernels  *crowd.Kernels
	watch    *crowd.Watcher
	inFlight int // of the loop
	report   func(Row)
}

func cleanupDeaths(ctx context.Context, binary string, report func(Row)) error {
	s := new(scope)
	defer s.Run()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := crowd.NewWorld(ctx, s, lab.ClusterSpec{})
	if err != nil {
		return err
	}
	d := &deaths{World: w, report: report}
	if d.kernels, err = w.Kernels(s); err != nil {
		return err
	}
	if d.watch, err = w.Watch(ctx); err != nil {
		return err
	}
	// The breaker is off, because we measure the most that it can let pass.
	if _, _, err = w.StartListener(ctx, s, binary, "limits: {nodes: 100000}"); err != nil {
		return err
	}
	for _, measure := range []func(context.Context) error{d.single, d.large, d.storm} {
		if err := measure(ctx); err != nil {
			return err
		}
	}
	return nil
}

// populate makes a crowd whose kernels the listener knows.
func (d *deaths) populate(ctx context.Context, c crowd.Crowd) error {
	if err := d.Make(ctx, c); err != nil {
		return err
	}
	return d.kernels.Arm(ctx, c, d.watch)
}

// die makes a crowd die. It returns when each node's panic was sent, and when the last of their pods was seen Failed.
func (d *deaths) die(ctx context.Context, c crowd.Crowd) (said map[string]time.Time, failed time.Time, err error) {
	if said, err = d.kernels.Panic(ctx, c); err != nil {
		return nil, time.Time{}, err
	}
	failed, err = d.watch.Failed(ctx, c)
	return said, failed, err
}

// awaitCleaned waits until the crowd is gone and nothing of ours is under way any more.
func (d *deaths) awaitCleaned(ctx context.Context, c crowd.Crowd) (gone time.Time, err error) {
	if gone, err = d.watch.Gone(ctx, c); err != nil {
		return gone, err
	}
	for tick := time.Tick(50 * time.Millisecond); ; {
		if busy, err := d.Metric(ctx, "lastgasp_cleanups_at_work"); err != nil || busy == 0 {
			return gone, err
		}
		select {
		case <-tick:
		case <-ctx.Done():
			return gone, ctx.Err()
		}
	}
}

// single makes nodes die one by one.
func (d *deaths) single(ctx context.Context) error {
	var took []float64
	for from := 0; from < singles.Nodes; from += singlesAtOnce {
		batch := singles.Part(from, singlesAtOnce)
		if err := d.populate(ctx, batch); err != nil {
			return err
		}
		for i := range batch.Nodes {
			said, _, err := d.die(ctx, batch.Part(i, 1))
			if err != nil {
				return err
			}
			if took, err = d.fences(ctx, said, took); err != nil {
				return err
			}
			if _, err := d.awaitCleaned(ctx, batch.Part(i, 1)); err != nil {
				return err
			}
		}
	}
	on, goal := fmt.Sprintf("%d nodes, one at a time", singles.Nodes), 50.0
	p99 := quantile(took, 0.99)
	d.report(Row{Name: "packet to fence, p50", On: on, Value: quantile(took, 0.50), Unit: "ms"})
	d.report(Row{Name: "packet to fence, p99", On: on, Value: p99, Unit: "ms"}.aim("≤ 50 ms", p99 <= goal))
	return nil
}

// fences appends how many milliseconds it took from each node's panic to its fence.
func (d *deaths) fences(ctx context.Context, said map[string]time.Time, took []float64) ([]float64, error) {
	for node, at := range said {
		fenced, err := d.watch.Fenced(ctx, node)
		if err != nil {
			return nil, err
		}
		took = append(took, milliseconds(fenced.Sub(at)))
	}
	return took, nil
}

// large makes full nodes die one by one, each after the loop has failed as many pods of a living node.
func (d *deaths) large(ctx context.Context) error {
	if err := d.populate(ctx, larges); err != nil {
		return err
	}
	if err := d.Make(ctx, largesRef); err != nil {
		return err
	}
	if err := d.chooseInFlight(ctx, largesRef); err != nil {
		return err
	}
	var ours, loops []float64
	for i := range larges.Nodes {
		took, err := d.loop(ctx, largesRef.Part(i, 1))
		if err != nil {
			return err
		}
		loops = append(loops, took.Seconds())
		said, failed, err := d.die(ctx, larges.Part(i, 1))
		if err != nil {
			return err
		}
		ours = append(ours, failed.Sub(earliest(said)).Seconds())
		if _, err := d.awaitCleaned(ctx, larges.Part(i, 1)); err != nil {
			return err
		}
	}
	on := fmt.Sprintf("1 node, %d pods, median of %d", larges.Pods, larges.Nodes)
	row := Row{Name: "panic to last pod Failed", On: on, Value: quantile(ours, 0.5), Unit: "s"}.against(d.loopName(), quantile(loops, 0.5))
	d.report(row.aim("≤ 1.5 ×", row.Ratio <= 1.5))
	return nil
}

// storm makes many nodes die at once. The loop fails half of its pods before and half after, so that a machine that becomes
// slower or faster affects both.
func (d *deaths) storm(ctx context.Context) error {
	half := stormRef.Nodes / 2
	if err := d.Make(ctx, stormRef.Part(0, half)); err != nil {
		return err
	}
	before, err := d.loop(ctx, stormRef.Part(0, half))
	if err != nil {
		return err
	}
	if err := d.populate(ctx, together); err != nil {
		return err
	}
	const cpuSeconds = "process_cpu_seconds_total"
	idle, err := d.Metric(ctx, cpuSeconds)
	if err != nil {
		return err
	}
	said, failed, err := d.die(ctx, together)
	if err != nil {
		return err
	}
	busy, err := d.Metric(ctx, cpuSeconds)
	if err != nil {
		return err
	}
	gone, err := d.awaitCleaned(ctx, together)
	if err != nil {
		return err
	}
	if err := d.Make(ctx, stormRef.Part(half, stormRef.Nodes-half)); err != nil {
		return err
	}
	after, err := d.loop(ctx, stormRef.Part(half, stormRef.Nodes-half))
	if err != nil {
		return err
	}

	on, start := fmt.Sprintf("%d nodes × %d pods at once", together.Nodes, together.Pods), earliest(said)
	row := Row{Name: "panic to last pod Failed", On: on, Value: failed.Sub(start).Seconds(), Unit: "s"}.
		against(d.loopName(), (before + after).Seconds())
	d.report(row.aim("≤ 1.15 ×", row.Ratio <= 1.15))
	d.report(Row{Name: "panic to last pod and node gone", On: on, Value: gone.Sub(start).Seconds(), Unit: "s"})
	took, err := d.fences(ctx, said, nil)
	if err != nil {
		return err
	}
	d.report(Row{Name: "packet to fence, p50", On: on, Value: quantile(took, 0.50), Unit: "ms"})
	d.report(Row{Name: "packet to fence, p99", On: on, Value: quantile(took, 0.99), Unit: "ms"})
	d.report(Row{Name: "listener's CPU per pod failed", On: on, Value: (busy - idle) * 1000 / float64(together.Size()), Unit: "ms"})
	d.report(Row{Name: "pods Failed before the last fence", On: on, Value: float64(d.watch.FailedBeforeFences(together)), Unit: "pods"})
	return nil
}

// earliest returns the earliest of some times.
func earliest(times map[string]time.Time) (first time.Time) {
	for _, t := range times {
		if first.IsZero() || t.Before(first) {
			first = t
		}
	}
	return first
}
