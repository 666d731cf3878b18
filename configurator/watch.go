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

	"github.com/lastgasp/lastgasp/configurator/endpoint"
	"github.com/lastgasp/lastgasp/configurator/machine"
)

// pollEvery is how often is looked at what sends no event: whether the kernel disabled a target, kernel.panic, the
// configuration files. It costs some dozens of small reads.
const pollEvery = time.Second

// Watcher keeps a node armed: it runs a pass whenever something moved that a target depends on, and every
// canary.interval to prove it.
type Watcher struct {
	ConfigFile string
	LoadConfig func() (Config, error)
	New        func(Config) *Configurator
	Changes    func(ctx context.Context) (<-chan string, error) // nexthop.Watch
	Reload     <-chan os.Signal                                 // asks for a pass with everything looked up anew
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
	var found *endpoint.Found
	files, seen := w.files(), snapshot{}
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
			s.change(time.Now(), reason)
		case <-w.Reload:
			s.change(time.Now(), "asked to")
			s.relook()
		case <-poll.C:
			w.Notify("WATCHDOG=1")
			if changes == nil {
				if changes, err = w.Changes(ctx); err != nil {
					w.Log.Error("changes of the network go unnoticed until the next proof", "err", err)
					changes = nil
				} else {
					s.change(time.Now(), "watching the network anew")
				}
			}
			if now := w.files(); now != files {
				files = now
				s.change(time.Now(), "configuration changed")
			}
			if now := node.snapshot(); now != seen {
				if now.hasNewTarget(seen) {
					s.relook()
				}
				seen = now
				s.change(time.Now(), "targets or settings changed")
			}
		case <-due.C:
			files = w.files() // before they are read: what is written from now on is seen by the next poll
			if next, err := w.LoadConfig(); err != nil {
				w.Log.Error("configuration is bad, going on with the former one", "err", err)
			} else if !reflect.DeepEqual(next, cfg) {
				cfg, node, found = next, w.New(next), nil
				s.interval, s.lookup = cfg.Canary.Interval, lookupEvery(cfg)
				s.relook()
			}
			if node.snapshot().hasNewTarget(seen) {
				s.relook() // since the last poll
			}
			found, seen = w.pass(ctx, node, &s, found)
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

// pass runs one pass. It returns the listeners the next one may use without asking again, and what the next poll has to
// see if nothing happened since.
func (w *Watcher) pass(ctx context.Context, node *Configurator, s *schedule, known *endpoint.Found) (*endpoint.Found, snapshot) {
	reasons, lookup := s.start(time.Now())
	if len(reasons) > 0 {
		w.Log.Info("looking again", "because", strings.Join(reasons, ", "))
	}
	former := known
	if lookup {
		known = nil
	}
	found, state, err := node.apply(ctx, known)
	if known == nil && ctx.Err() == nil {
		s.lookedUp(time.Now(), found, former != nil)
		if len(found.Endpoints) == 0 && former != nil {
			w.Log.Warn("listeners cannot be looked up, going on with those known", "err", err)
			found, state, err = node.apply(ctx, former)
		}
	}
	if ctx.Err() != nil {
		return former, snapshot{}
	}
	if len(found.Endpoints) > 0 {
		known = &found
	}
	s.done(time.Now(), err == nil)
	w.report(node, state, err)
	after := node.snapshot()
	if err == nil {
		// Whatever is not so by now was changed by somebody else during the pass.
		after.differ = false
		after.armed = targetNames(state)
	}
	debug.FreeOSMemory() // what a pass took for a moment would stay for good on a node where nothing happens
	return known, after
}

// report tells systemd and the log how things stand, in one honest line.
func (w *Watcher) report(node *Configurator, state machine.State, err error) {
	line := statusLine(state, err)
	if status, statusErr := node.Status(time.Now()); statusErr == nil && status.Verdict == Mute {
		for _, f := range status.Findings {
			if f.Mute {
				line = "MUTE: " + f.String()
				w.Log.Error("this node is mute", "what", f.What, "cost", f.Cost, "mend", f.Mend)
			}
		}
	}
	if err != nil {
		w.Log.Error("not as it should be", "err", err)
	} else {
		w.Notify("READY=1")
	}
	w.Notify("STATUS=" + line)
}

// statusLine is how things stand after a pass.
func statusLine(s machine.State, err error) string {
	if err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		return fmt.Sprintf("%d armed, but: %s", len(s.Targets), first)
	}
	var listeners []string
	for _, t := range s.Targets {
		listeners = append(listeners, t.Listener.String())
	}
	return fmt.Sprintf("armed and acknowledged: %s (%s)", strings.Join(listeners, ", "), s.Where)
}

// targetNames are those of the targets that a pass has left, sorted as a listing is.
func targetNames(s machine.State) string {
	var list []string
	for _, t := range s.Targets {
		list = append(list, t.Name)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// snapshot is what is looked at because it sends no event.
type snapshot struct {
	armed   string // names of our targets that are enabled
	targets string // all that is known of ours
	differ  bool   // a kernel setting is not as configured
}

// hasNewTarget reports whether a target is armed that was not at the former sight: another process has found other listeners,
// as a reload does, and what is known here is out of date.
func (s snapshot) hasNewTarget(former snapshot) bool {
	return slices.ContainsFunc(strings.Fields(s.armed), func(name string) bool {
		return !slices.Contains(strings.Fields(former.armed), name)
	})
}

// snapshot takes one of the kernel. What cannot be read is a snapshot as well.
func (c *Configurator) snapshot() snapshot {
	var s snapshot
	present, err := c.Netconsole.List()
	var enabled []string
	for _, st := range present {
		if st.Enabled {
			enabled = append(enabled, st.Name)
		}
	}
	s.armed = strings.Join(enabled, " ")
	s.targets = fmt.Sprint(present, err)
	s.differ = c.Root.Differ(c.WantedSettings(devicesOf(present)))
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
