package configurator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

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

// Watcher keeps a node armed: it runs a pass whenever something changes that a target depends on, and one every
// canary.interval to prove the targets.
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

// Run watches until ctx ends. Everything stays armed then: the targets are in the kernel. It returns an error only if it
// cannot start.
func (w *Watcher) Run(ctx context.Context) error {
	cfg, err := w.LoadConfig()
	if err != nil {
		return err
	}
	changes, err := w.Changes(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	at := &watchLoop{
		Watcher: w, cfg: cfg, node: w.New(cfg), changes: changes, files: w.configFiles(), pinged: now, reread: now,
		schedule: schedule{interval: cfg.Canary.Interval, lookup: lookupEvery(cfg), chance: rand.Float64},
	}
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	defer w.Notify("STOPPING=1")
	proved := make(chan *Configurator, 1)
	var obituary sync.WaitGroup
	obituary.Go(func() { w.sendObituary(ctx, proved) })
	defer obituary.Wait()
	for {
		due := time.NewTimer(time.Until(at.schedule.due()))
		select {
		case <-ctx.Done():
			due.Stop()
			return nil
		case reason, ok := <-at.changes:
			if ok {
				at.schedule.mayChange(time.Now(), reason)
			} else {
				at.changes = nil // until the next poll
			}
		case <-w.Reload:
			at.schedule.change(time.Now(), "a reload was asked for")
			at.schedule.relook()
			at.schedule.prove()
		case now := <-poll.C:
			at.poll(ctx, now)
		case <-due.C:
			if !at.passIsDue() {
				break
			}
			at.pass(ctx)
			select {
			case proved <- at.node:
			default: // the one before is not taken yet
			}
		}
		due.Stop()
	}
}

// watchLoop is a Watcher at work.
type watchLoop struct {
	*Watcher
	cfg      Config
	node     *Configurator
	schedule schedule
	changes  <-chan string // of the network; nil while it is not watched
	last     passed
	files    string    // as configFiles
	seen     snapshot  // as polled last
	pinged   time.Time // when systemd's watchdog was served last
	reread   time.Time // when the snapshot was whole last
}

// poll looks for what sends no event.
func (at *watchLoop) poll(ctx context.Context, now time.Time) {
	if at.Watchdog > 0 && now.Sub(at.pinged) > at.Watchdog/2-pollEvery {
		at.pinged = now
		at.Notify("WATCHDOG=1")
	}
	if at.changes == nil {
		changes, err := at.Changes(ctx)
		if err != nil {
			at.Log.Error("changes of the network go unnoticed until the next proof", "err", err)
		} else {
			at.changes = changes
			at.schedule.mayChange(now, "the network watch was restarted")
		}
	}
	if current := at.configFiles(); current != at.files {
		at.files = current
		at.schedule.reconsider(now, "the configuration changed")
	}
	whole := now.Sub(at.reread) >= rereadEvery
	if whole {
		at.reread = now
	}
	if current := at.node.snapshot(at.seen, whole); !reflect.DeepEqual(current, at.seen) {
		if current.hasNewTarget(at.seen) {
			at.schedule.relook()
		}
		at.seen = current
		at.schedule.change(now, "targets, settings or the kernel's facts changed")
	}
}

// passIsDue reports whether a pass is to run now. What may have changed is looked at first.
func (at *watchLoop) passIsDue() bool {
	if !at.schedule.doubtful(time.Now()) {
		return true
	}
	changes := at.last.moved(at.Path)
	if changes == "" && !reflect.DeepEqual(at.node.snapshot(at.seen, false), at.seen) {
		changes = "targets or settings changed" // the kernel disables the targets of a device that goes away
	}
	at.schedule.dismiss()
	if changes == "" {
		return false
	}
	at.schedule.change(time.Now(), changes)
	return true
}

// pass runs a pass, with the configuration as it is now.
func (at *watchLoop) pass(ctx context.Context) {
	at.files = at.configFiles() // before they are read: the next poll sees what is written from now on
	if next, err := at.LoadConfig(); err != nil {
		at.Log.Error("the configuration is invalid, the previous one stays in force", "err", err)
	} else if !reflect.DeepEqual(next, at.cfg) {
		at.cfg, at.node, at.last = next, at.New(next), passed{}
		at.schedule.interval, at.schedule.lookup = next.Canary.Interval, lookupEvery(next)
		at.schedule.relook()
		at.schedule.prove()
	}
	if at.node.snapshot(at.seen, false).hasNewTarget(at.seen) {
		at.schedule.relook() // since the last poll
	}
	at.last, at.seen = at.runPass(ctx, at.node, &at.schedule, at.last)
	at.reread = time.Now()
}

// firstRetry and lastRetry bound how long to wait before an obituary is sent again; the time doubles.
const firstRetry, lastRetry = 5 * time.Second, 10 * time.Minute

// pinTries is how often an obituary waits for the pin of this boot, firstRetry each: a node that cannot enrol never gets one. After
// that only news of a shutdown waits, longer and longer.
const pinTries = 4

// sendObituary sends the listeners how the previous boot ended, from the first pass on until one has acknowledged it or ctx ends.
// It runs beside the passes: it can delay one by the few seconds that an attempt takes, and nothing else.
func (w *Watcher) sendObituary(ctx context.Context, passed <-chan *Configurator) {
	var node *Configurator
	unpinned := 0
	for wait := firstRetry; ; {
		var due <-chan time.Time
		retry := time.NewTimer(wait)
		if node != nil {
			due = retry.C
		}
		select {
		case <-ctx.Done():
			retry.Stop()
			return
		case node = <-passed:
		case <-due:
		}
		retry.Stop()
		err := node.sendObituary(ctx, unpinned < pinTries)
		switch {
		case err == nil:
			return
		case errors.Is(err, errUnpinned):
			if unpinned++; unpinned > pinTries {
				wait = min(2*wait, lastRetry)
			}
		case errors.Is(err, errNoneProved):
			node = nil // the next pass may change that, and nothing else
		case ctx.Err() == nil:
			wait = min(2*wait, lastRetry)
			w.Log.Warn("no listener knows yet how the previous boot ended; it is sent again", "err", err, "in", wait.String())
		}
	}
}

// lookupEvery returns how often listeners are looked up while nothing else asks for it. The whole account shares SSM's quota
// of 40 requests a second; DNS is cheap.
func lookupEvery(cfg Config) time.Duration {
	if len(cfg.Endpoint.SSM) > 0 {
		return time.Hour
	}
	return min(cfg.Canary.Interval, 5*time.Minute)
}

// runPass runs one pass. It returns that pass, and the snapshot that the next poll takes if nothing changes until then.
func (w *Watcher) runPass(ctx context.Context, node *Configurator, s *schedule, former passed) (passed, snapshot) {
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
	if err != nil && last.found.Stale && !last.found.Throttled {
		s.relook() // the listeners may have moved since
	}
	if len(last.found.Endpoints) == 0 {
		last.found = former.found
	}
	last.paths = last.lookPaths(w.Path)
	s.done(time.Now(), last.outcome(err))
	w.logOutcome(node, last.state, err)
	after := node.snapshot(snapshot{}, true)
	if err == nil {
		// If the kernel differs from this by now, somebody else changed it during the pass, and the next poll finds out.
		after.differ = false
		after.enabled = targetNames(last.state)
	}
	debug.FreeOSMemory() // otherwise an idle process would keep what a pass needed for a moment
	return last, after
}

// logOutcome writes the outcome of a pass to the log, and to systemd.
func (w *Watcher) logOutcome(node *Configurator, state machine.State, err error) {
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
	if s.AfterTheFact {
		outcome = "no netconsole, heard only after the fact; acknowledged"
	}
	for _, t := range s.Targets {
		listeners = append(listeners, t.Listener.String())
		if !t.Known {
			outcome += ", but the cluster has no Node for this machine yet"
		}
	}
	return fmt.Sprintf("%s: %s (%s)", outcome, strings.Join(listeners, ", "), s.Where)
}

// targetNames returns the names of the targets that a pass has left, sorted as in a listing.
func targetNames(s machine.State) []string {
	var list []string
	if s.AfterTheFact {
		return nil
	}
	for _, t := range s.Targets {
		list = append(list, t.Name)
	}
	slices.Sort(list)
	return list
}

// snapshot is what is polled because it sends no event.
type snapshot struct {
	enabled []string          // names of our enabled targets, sorted
	targets string            // all our targets, as text
	want    []machine.Setting // settings wanted when it was taken
	differ  bool              // one of them has another value
	facts   machine.Facts     // with which the listeners, status and metrics judge whether this node is mute
}

// hasNewTarget reports whether a target is armed that was not in the former snapshot: then another process, such as a reload,
// has found other listeners, and those known here are out of date.
func (s snapshot) hasNewTarget(former snapshot) bool {
	return slices.ContainsFunc(s.enabled, func(name string) bool { return !slices.Contains(former.enabled, name) })
}

// snapshot polls the kernel. Unless whole is set, it reads only what changes most often and takes the rest from the former
// snapshot. What cannot be read compares like any other value.
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
	s.facts = c.Root.Facts(c.Version)
	return s
}

// configFiles returns a text that changes whenever a configuration file does. Where files come from an image (NixOS, OSTree) they all
// have the same time of modification.
func (w *Watcher) configFiles() string {
	var b strings.Builder
	list, _ := dropins(w.ConfigFile)
	for _, f := range append(list, w.ConfigFile) {
		var st unix.Stat_t
		if unix.Stat(f, &st) == nil {
			fmt.Fprintln(&b, f, st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim)
		}
	}
	return b.String()
}
