package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/story"
)

// compareTimeout is how long after the deaths the last milestone may come. Kubernetes alone needs about 340 s to delete
// the first pod and detaches no volume for 6 minutes more.
const compareTimeout = 13 * time.Minute

// compare makes three nodes with the same workloads die at once, on one control plane, and measures the time until the
// workloads run elsewhere: after our cleanup, after the procedure that Netflix published, and after what Kubernetes does by
// itself. The nodes are real kubelets that are killed; each has a surviving partner that is as busy.
func compare(ctx context.Context, report func(Row)) error {
	s := new(scope)
	defer s.Run()
	f, err := story.NewFleet(ctx, s, lab.ClusterSpec{SlowController: true})
	if err != nil {
		return err
	}
	if err := f.Listen(ctx, ""); err != nil {
		return err
	}
	volumes := watchVolumes(ctx, f.Cluster.Client())
	ours := &order{name: "ours", carryOut: func(_ context.Context, n *story.Hollow) error { return n.Panic() }}
	published := &order{name: "published", carryOut: func(ctx context.Context, n *story.Hollow) error {
		return annotateAndDelete(ctx, f.Cluster.Client(), n.Name)
	}}
	alone := &order{name: "alone", carryOut: func(context.Context, *story.Hollow) error { return nil }}

	g, preparing := errgroup.WithContext(ctx)
	for _, o := range []*order{ours, published, alone} {
		if err := o.makeNodes(f); err != nil {
			return err
		}
		g.Go(func() error { return o.prepare(preparing, f) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := ours.dies.Arm(ctx); err != nil {
		return err
	}
	s.Logf("three nodes die; the last answer may take %s", compareTimeout)
	g, dying := errgroup.WithContext(ctx)
	for _, o := range []*order{ours, published, alone} {
		g.Go(func() error { return o.measure(dying, s, f, volumes) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, m := range milestones() {
		for _, row := range m.rows(ours.after[m.name], published.after[m.name], alone.after[m.name]) {
			report(row)
		}
	}
	return nil
}

// rows reports our times beside those of the two others. Zero means never.
func (m milestone) rows(ours, published, alone time.Duration) []Row {
	row := func(reference string, other time.Duration) Row {
		if other == 0 {
			reference, other = reference+", not yet", compareTimeout
		}
		return Row{
			Name: m.name, On: fmt.Sprintf("a node of %d pods, its partner as busy", pairPods), Value: ours.Seconds(), Unit: "s",
			Reference: reference, ReferenceValue: other.Seconds(), Ratio: ours.Seconds() / other.Seconds(),
		}
	}
	toPublished, toAlone := row("annotate and delete", published), row("Kubernetes alone", alone)
	if m.goal != "" {
		reached := m.reached(ours.Seconds(), toPublished.Ratio)
		toPublished.Goal, toPublished.Reached = m.goal, &reached
	}
	return []Row{toPublished, toAlone}
}

// milestones after a death that anybody who watches the API can see.
func milestones() []milestone {
	return []milestone{
		{
			name: "service runs elsewhere", app: "web", pods: 3,
			goal: "≤ 3 s", reached: func(s, _ float64) bool { return s <= 3 },
		},
		{
			name: "Job with a policy has its retry", app: "batch-policy", pods: 1,
			goal: "≤ 0.5 ×", reached: func(_, ratio float64) bool { return ratio <= 0.5 },
		},
		{name: "Job without has its retry", app: "batch-plain", pods: 1},
		{
			name: "volume is detached",
			goal: "≤ 1 s", reached: func(s, _ float64) bool { return s <= 1 },
		},
		{name: "StatefulSet runs elsewhere", app: "db", pods: 1},
		{
			name: "Deployment that tolerates every taint runs elsewhere", app: "tolerant", pods: 1,
			goal: "≤ 0.5 ×", reached: func(_, ratio float64) bool { return ratio <= 0.5 },
		},
		{name: "bare pod says that it failed, and why", app: "bare"},
	}
}

// milestone is reached when so many pods of an app run on another node or, if that is zero, when its pod has failed for a stated
// reason. Without an app it is reached when the volume is detached.
type milestone struct {
	name    string
	app     string
	pods    int
	goal    string
	reached func(seconds, ratio float64) bool
}

// measure kills the node, carries out the order and waits for the milestones.
func (o *order) measure(ctx context.Context, s *scope, f *story.Fleet, volumes *volumes) error {
	watcher, err := story.Watch(ctx, f.Cluster.RESTConfig(), o.name)
	if err != nil {
		return err
	}
	death := time.Now()
	o.dies.Kill()
	bounded, cancel := context.WithDeadline(ctx, death.Add(compareTimeout))
	defer cancel()
	at := make([]time.Time, len(milestones()))
	g, waiting := errgroup.WithContext(bounded)
	g.Go(func() error { return o.carryOut(ctx, o.dies) })
	for i, m := range milestones() {
		g.Go(func() (err error) {
			if m.app == "" {
				at[i], err = volumes.awaitDetached(waiting, o.dies.Name)
			} else {
				at[i], err = watcher.Await(waiting, m.name, func(seen []story.Sighting) bool {
					if m.pods == 0 {
						return story.Failed(seen, m.app)
					}
					return story.Elsewhere(seen, o.dies.Name, m.app) == m.pods
				})
			}
			if err == nil {
				s.Logf("%s: %s after %s", o.name, m.name, at[i].Sub(death).Round(10*time.Millisecond))
			} else if bounded.Err() != nil && ctx.Err() == nil {
				err = nil // it is never, then
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("%s: %w", o.name, err)
	}
	o.after = make(map[string]time.Duration)
	for i, m := range milestones() {
		if !at[i].IsZero() {
			o.after[m.name] = at[i].Sub(death)
		}
	}
	return nil
}
