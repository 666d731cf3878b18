package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/load"
)

// captures are where the deaths come from.
const captures = "listener/detect/testdata/captures"

// readCrashes reads captured deaths by name.
func readCrashes(names ...string) ([]load.Crash, error) {
	root, err := lab.CheckoutRoot()
	if err != nil {
		return nil, err
	}
	var all []load.Crash
	for _, name := range names {
		c, err := load.ReadCrash(filepath.Join(root, captures, name+".ext.jsonl"))
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// receiveVerdict measures the time from the system call that sends a whole panic to its verdict, while others chatter.
//
// The daemon itself says when it read the datagram (the record's time) and how long it took from there to the hand-over of the
// incident (lastgasp_verdict_seconds). "Packet to verdict" is the sum, with the upper bound of the histogram's bucket. "Packet
// to record" is seen from outside, when the file appears in a folder in memory: it includes the writing, and the time that the
// operating system takes to run a third process.
func receiveVerdict(ctx context.Context, r *receivers, report func(Row)) error {
	crash, err := readCrashes("6.12-sysrq")
	if err != nil {
		return err
	}
	s := new(scope)
	defer s.Run()
	own, err := r.startOurs(ctx, s)
	if err != nil {
		return err
	}
	one, err := r.startReference(ctx, s, readOne, 1)
	if err != nil {
		return err
	}
	t := trial{crash: crash, noise: 100_000, nodes: 10_000, deaths: 300}
	mine, theirs := t, t
	if err := mine.run(ctx, s, own.subject, own.records); err != nil {
		return err
	}
	if err := theirs.run(ctx, s, one, one.dir); err != nil {
		return err
	}
	heard, err := arrivals(own.records)
	if err != nil {
		return err
	}
	m, err := own.metrics()
	if err != nil {
		return err
	}
	const q, goal = 0.99, 5
	on := fmt.Sprintf("%d panics in %s records/s of %s sources", t.deaths, grouped(int64(t.noise)), grouped(int64(t.nodes)))
	judging := 1000 * bucketBound(m, "lastgasp_verdict_seconds", q)
	verdict := Row{Name: "packet to verdict, p99", On: on, Unit: "ms", Value: quantile(mine.delays(heard), q) + judging}
	report(verdict.aim(fmt.Sprintf("≤ %d ms", goal), verdict.Value <= goal))
	for _, q := range []float64{0.5, q} {
		report(Row{Name: fmt.Sprintf("packet to record, p%g", 100*q), On: on, Unit: "ms", Value: quantile(mine.delays(mine.appeared), q)}.
			against(readOne, quantile(theirs.delays(theirs.appeared), q)))
	}
	found := len(mine.delays(mine.appeared))
	report(Row{Name: "panics found", On: on, Value: float64(found), Unit: "panics"}.
		against(readOne, float64(len(theirs.delays(theirs.appeared)))).aim(fmt.Sprint(t.deaths), found == t.deaths))
	return nil
}

// trial makes nodes die one after the other while others chatter.
type trial struct {
	crash         []load.Crash
	noise         float64 // records per second
	nodes, deaths int     // how many chatter, how many die

	sent     []time.Time          // when each death was
	appeared map[string]time.Time // when files appeared
}

// run sends it to x, which writes a file into dir for each death.
func (t *trial) run(ctx context.Context, s *scope, x *subject, dir string) error {
	const every = 20 * time.Millisecond
	appeared, err := watchFolder(s, dir)
	if err != nil {
		return err
	}
	dying, err := load.NewSender(x.at)
	if err != nil {
		return err
	}
	defer dying.Close()
	fleet := load.NewNodes(0, t.nodes, load.Extended)
	if _, err := x.sender.Send(ctx, load.Plan{Count: t.nodes, PerSecond: t.noise}, fleet.Chatter); err != nil {
		return err
	}
	noisy, quiet := context.WithCancel(ctx)
	defer quiet()
	var g errgroup.Group
	g.Go(func() error {
		_, err := x.sender.Send(noisy, load.Plan{Count: load.MaxCount, PerSecond: t.noise}, fleet.Chatter)
		if errors.Is(err, context.Canceled) {
			return ctx.Err()
		}
		return err
	})
	for i := range t.deaths {
		next, count, err := load.Deaths(t.crash, t.nodes+i, 1)
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(every):
		}
		t.sent = append(t.sent, time.Now())
		if _, err := dying.Send(ctx, load.Plan{Count: count}, next); err != nil {
			return err
		}
	}
	quiet()
	if err := g.Wait(); err != nil {
		return err
	}
	_, err = x.awaitDrained(ctx)
	t.appeared = appeared.files()
	return err
}

// delays returns the milliseconds from each death until the first file named after its node. Deaths without a file are
// missing.
func (t *trial) delays(known map[string]time.Time) []float64 {
	var took []float64
	for i, at := range t.sent {
		if first := firstAbout(known, t.nodes+i); !first.IsZero() {
			took = append(took, milliseconds(first.Sub(at)))
		}
	}
	return took
}

// arrivals are the times at which the daemon read the deaths that are recorded in dir, by instance.
func arrivals(dir string) (map[string]time.Time, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	all := make(map[string]time.Time)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var record struct {
			Time     time.Time
			Instance string
		}
		if err := json.Unmarshal(text, &record); err != nil {
			return nil, fmt.Errorf("read record %s: %w", file, err)
		}
		all[record.Instance] = record.Time
	}
	return all, nil
}

// bucketBound is the upper bound of the bucket of a histogram in which its quantile q is, in the histogram's unit.
func bucketBound(metrics map[string]float64, name string, q float64) float64 {
	bound := math.Inf(1)
	for metric, count := range metrics {
		text, ok := strings.CutPrefix(metric, name+`_bucket{le="`)
		le, err := strconv.ParseFloat(strings.TrimSuffix(text, `"}`), 64)
		if ok && err == nil && count >= q*metrics[name+"_count"] {
			bound = min(bound, le)
		}
	}
	return bound
}

// firstAbout returns the earliest time of a name with node n in it: with its instance id if the name is ours, with its address
// if it is a reference's.
func firstAbout(known map[string]time.Time, n int) (first time.Time) {
	for name, at := range known {
		about := strings.Contains(name, load.Instance(n)) || strings.HasPrefix(name, load.Addr(n).String()+":")
		if about && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}
