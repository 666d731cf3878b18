package configurator

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/configurator/nexthop"
)

const (
	// pollEvery is how often the watch reads what sends no event: which targets are enabled, kernel.panic, and the
	// modification times of configuration files. That is one wake-up, and a read file for each target.
	pollEvery = 5 * time.Second
	// rereadEvery is how often it reads targets and settings as a whole, some dozens of files.
	rereadEvery = time.Minute
)

// Watcher keeps a node armed: it runs a pass whenever something moved that a target depends on, and every
// canary.interval to prove it.
type Watcher struct {
	ConfigFile string
	LoadConfig func() (Config, error)
	New        func(Config) *Configurator
	Changes    func(ctx context.Context) (<-chan string, error) // nexthop.Watch
	Path       func(nexthop.Query) nexthop.Path                 // nexthop.Lookup
	Reload     <-chan os.Signal                                 // asks for a pass that looks everything up again
	Watchdog   time.Duration                                    // systemd's, 0: none
	Notify     func(state string)                               // sd_notify
	Log        *slog.Logger
}

// Run watches until ctx ends, and then leaves everything armed: the targets live in the kernel. It returns an error only
// if it cannot begin.
func (w *Watcher) Run(ctx context.Context) error {
	cfg, err := w.LoadConfig()
	if err != nil {
		return err
	}
	changes, err := w.Changes(ctx)
	if err != nil {
		return err
	}
	node := w.New(cfg)
	s := schedule{interval: cfg.Canary.Interval, lookup: lookupEvery(cfg), chance: rand.Float64}
	var last passed
	files, seen := w.files(), snapshot{}
	pinged, reread := time.Now(), time.Now()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	defer w.Notify("STOPPING=1")
	for {
		due := time.NewTimer(time.Until(s.due()))
		select {
		case <-ctx.Done():
			due.Stop()
			return nil
		case reason, ok := <-changes:
			if !ok {
				changes = nil // until the next poll
				break
			}
			s.mayChange(time.Now(), reason)
		case <-w.Reload:
			s.change(time.Now(), "a reload was asked for")
			s.relook()
			s.prove()
		case now := <-poll.C:
			if w.Watchdog > 0 && now.Sub(pinged) > w.Watchdog/2-pollEvery {
				pinged = now
				w.Notify("WATCHDOG=1")
			}
			if changes == nil {
				if changes, err = w.Changes(ctx); err != nil {
					w.Log.Error("changes of the network go unnoticed until the next proof", "err", err)
					changes = nil
				} else {
					s.mayChange(now, "the watch of the network was started again")
				}
			}
			if current := w.files(); current != files {
				files = current
				s.change(now, "the configuration changed")
			}
			whole := now.Sub(reread) >= rereadEvery
			if whole {
				reread = now
			}
			if current := node.snapshot(seen, whole); !reflect.DeepEqual(current, seen) {
				if current.hasNewTarget(seen) {
					s.relook()
				}
				seen = current
				s.change(now, "targets or settings changed")
			}
		case <-due.C:
			if s.doubtful(time.Now()) {
				changes := last.moved(w.Path)
				if changes == "" && !reflect.DeepEqual(node.snapshot(seen, false), seen) {
					changes = "targets or settings changed" // the kernel disables the targets of a device that goes away
				}
				s.dismiss()
				if changes == "" {
					break
				}
				s.change(time.Now(), changes)
			}
			files = w.files() // before they are read: what is written from now on is seen by the next poll
			if next, err := w.LoadConfig(); err != nil {
				w.Log.Error("the configuration is bad, the former one stays in force", "err", err)
			} else if !reflect.DeepEqual(next, cfg) {
				cfg, node, last = next, w.New(next), passed{}
				s.interval, s.lookup = cfg.Canary.Interval, lookupEvery(cfg)
				s.relook()
				s.prove()
			}
			if node.snapshot(seen, false).hasNewTarget(seen) {
				s.relook() // since the last poll
			}
			last, seen = w.pass(ctx, node, &s, last)
			reread = time.Now()
		}
		due.Stop()
	}
}

// lookupEvery is how often listeners are looked up while nothing else asks for it: SSM's quota is shared by the whole
// account (40 requests a second), DNS is cheap.
func lookupEvery(cfg Config) time.Duration {
	if len(cfg.Endpoint.SSM) > 0 {
		return time.Hour
	}
	return min(cfg.Canary.Interval, 5*time.Minute)
}

// pass runs one pass. It returns that pass, and what the next poll has to see if nothing happened since.
func (w *Watcher) pass(ctx context.Context, node *Configurator, s *schedule, former passed) (passed, snapshot) {
	reasons, lookup, canary := s.start(time.Now())
	if len(reasons) > 0 {
		w.Log.Info("running a pass", "because", strings.Join(reasons, ", "))
	}
	known := former.listeners()
	if lookup {
		known = nil
	}
	last, err := node.passes(ctx, known, !canary)
	if known == nil && ctx.Err() == nil {
		s.lookedUp(time.Now(), last.found, former.listeners() != nil)
		if len(last.found.Endpoints) == 0 && former.listeners() != nil {
			w.Log.Warn("listeners cannot be looked up, going on with those known", "err", err)
			last, err = node.passes(ctx, former.listeners(), !canary)
		}
	}
	if ctx.Err() != nil {
		return former, snapshot{}
	}
	if len(last.found.Endpoints) == 0 {
		last.found = former.found
	}
	last.paths = last.lookPaths(w.Path)
	s.done(time.Now(), last.outcome(err))
	w.report(node, last.state, err)
	after := node.snapshot(snapshot{}, true)
	if err == nil {
		// If anything is different by now, somebody else changed it during the pass.
		after.differ = false
		after.enabled = targetNames(last.state)
	}
	debug.FreeOSMemory() // otherwise an idle process would keep what a pass needed for a moment
	return last, after
}

// report writes the outcome of a pass to the log, and to systemd.
func (w *Watcher) report(node *Configurator, state machine.State, err error) {
	line := statusLine(state, err)
	if status, statusErr := node.Status(nil); statusErr == nil {
		for _, f := range status.Findings {
			if f.Mute {
				line = "MUTE: " + f.String()
				w.Log.Error("this node is mute", "what", f.What, "cost", f.Cost, "mend", f.Mend)
			}
		}
	}
	if err != nil {
		w.Log.Error("the pass failed", "err", err)
	} else {
		w.Notify("READY=1")
	}
	w.Notify("STATUS=" + line)
}

// statusLine is the outcome of a pass in one line.
func statusLine(s machine.State, err error) string {
	if err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		return fmt.Sprintf("%d armed, but: %s", len(s.Targets), first)
	}
	var listeners []string
	outcome := "armed and acknowledged"
	for _, t := range s.Targets {
		listeners = append(listeners, t.Listener.String())
		if !t.Known {
			outcome = "armed and acknowledged, but the cluster has no Node for this machine yet"
		}
	}
	return fmt.Sprintf("%s: %s (%s)", outcome, strings.Join(listeners, ", "), s.Where)
}

// targetNames are those of the targets that a pass has left, sorted as a listing is.
func targetNames(s machine.State) []string {
	var list []string
	for _, t := range s.Targets {
		list = append(list, t.Name)
	}
	slices.Sort(list)
	return list
}

// snapshot is what is polled because it sends no event.
type snapshot struct {
	enabled []string          // names of our targets that are enabled, sorted
	targets string            // all that is known of ours
	want    []machine.Setting // of this node at the time
	differ  bool              // one of them is not so
}

// hasNewTarget reports whether a target is armed that was not in the former snapshot: another process has found other
// listeners, as a reload does, and what is known here is out of date.
func (s snapshot) hasNewTarget(former snapshot) bool {
	return slices.ContainsFunc(s.enabled, func(name string) bool { return !slices.Contains(former.enabled, name) })
}

// snapshot polls the kernel. Unless the whole is asked for, it reads no more than what changes most often, and takes the
// rest from the former snapshot. What cannot be read compares like any other value.
func (c *Configurator) snapshot(former snapshot, whole bool) snapshot {
	s := former
	s.enabled, _ = c.Netconsole.Enabled()
	if !whole {
		kernel := slices.DeleteFunc(slices.Clone(s.want), func(s machine.Setting) bool { return s.Link != 0 })
		s.differ = c.Root.Differ(kernel)
		return s
	}
	present, err := c.Netconsole.List()
	s.targets = fmt.Sprint(present, err)
	s.want = c.WantedSettings(devicesOf(present))
	s.differ = c.Root.Differ(s.want)
	return s
}

// files changes when a configuration file did.
func (w *Watcher) files() string {
	var b strings.Builder
	list, _ := filepath.Glob(dropins(w.ConfigFile))
	for _, f := range append(list, w.ConfigFile) {
		if info, err := os.Stat(f); err == nil {
			fmt.Fprintln(&b, f, info.ModTime(), info.Size())
		}
	}
	return b.String()
}
