package configurator

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lastgasp/lastgasp/configurator/endpoint"
	"github.com/lastgasp/lastgasp/configurator/nexthop"
)

// watching is a Watcher at work on a world, in a bubble whose time runs as the test sleeps.
type watching struct {
	*world
	changes chan string
	reload  chan os.Signal
	config  func() (Config, error)
	offline bool                // listeners cannot be looked up
	asked   int                 // how often that was tried
	moved   []endpoint.Endpoint // where listeners are found since they have moved

	notes []string // for systemd
	pings int      // of its watchdog
}

// configured is a configuration that names a listener.
func configured(listener string) Config {
	c := DefaultConfig()
	c.Endpoint.Static, _ = endpoint.ParseList(listener)
	return c
}

// watch prepares a world, and then runs f beside a Watcher of it that has this configuration.
func watch(t *testing.T, c Config, prepare, f func(t *testing.T, w *watching)) {
	synctest.Test(t, func(t *testing.T) {
		w := &watching{world: newWorld(t), changes: make(chan string), reload: make(chan os.Signal)}
		w.config = func() (Config, error) { return c, nil }
		if prepare != nil {
			prepare(t, w)
		}
		watcher := Watcher{
			ConfigFile: w.root.Path("etc/lastgasp/configurator.yaml"),
			LoadConfig: func() (Config, error) {
				w.mu.Lock()
				defer w.mu.Unlock()
				return w.config()
			},
			New:      w.configurator,
			Changes:  func(context.Context) (<-chan string, error) { return w.changes, nil },
			Path:     w.path,
			Watchdog: time.Minute,
			Reload:   w.reload,
			Notify:   w.notify,
			Log:      slog.New(slog.DiscardHandler),
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := watcher.Run(ctx); err != nil {
				t.Errorf("run: %v", err)
			}
		})
		f(t, w)
		cancel()
		running.Wait()
	})
}

// configurator is one pass of this machine's, by the watcher or beside it.
func (w *watching) configurator(c Config) *Configurator {
	node := w.node("192.0.2.1:1")
	node.Config = c
	node.Sources = []endpoint.Source{switchable{endpoint.Static{Endpoints: c.Endpoint.Static, Origin: "test"}, w}}
	return node
}

func (w *watching) notify(state string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if state == "WATCHDOG=1" {
		w.pings++
	} else {
		w.notes = append(w.notes, state)
	}
}

// notified reports whether systemd got a state that begins so, since the last call.
func (w *watching) notified(prefix string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	found := slices.ContainsFunc(w.notes, func(s string) bool { return strings.HasPrefix(s, prefix) })
	w.notes = nil
	return found
}

// pass lets time pass until everything that it brings about is done.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// What watch promises: soon after a change of the network, polled after one without an event.
const (
	soon   = 2 * time.Second
	polled = pollEvery + soon
)

const listenerA, listenerB = "10.0.2.10:6666", "10.0.3.10:6666"

// deafen makes listener a ignore canaries, or not.
func (w *watching) deafen(listener string, deaf bool) {
	w.change(func() { w.deaf[netip.MustParseAddrPort(listener)] = deaf })
}

func TestWatchIsReadyWhenItIsProved(t *testing.T) {
	watch(t, configured(listenerA), nil, func(t *testing.T, w *watching) {
		pass(soon)
		if !w.notified("READY=1") {
			t.Error("not ready though armed and acknowledged")
		}
	})
}

func TestWatchIsNotReadyUntilItIsProved(t *testing.T) {
	deaf := func(_ *testing.T, w *watching) { w.deafen(listenerA, true) }
	watch(t, configured(listenerA), deaf, func(t *testing.T, w *watching) {
		pass(soon)
		if armed, _ := w.kernel.List(); w.notified("READY=1") || len(armed) != 1 {
			t.Errorf("ready, or not armed, though nobody acknowledges: %v", names(armed))
		}
		w.deafen(listenerA, false)
		pass(retryMin + soon)
		if !w.notified("READY=1") {
			t.Error("not ready after a second try")
		}
	})
}

func TestWatchFollowsChangesSoon(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, w *watching)
		want   []string
	}{
		{"a gateway's new hardware address", func(_ *testing.T, w *watching) {
			w.change(func() { w.mac = movedMAC })
			w.changes <- "neighbour 10.0.1.1 moved"
		}, []string{"lastgasp-10.0.2.10-2"}},
		{"a target that went away with its device", func(_ *testing.T, w *watching) {
			w.change(func() { w.kernel.targets[0].Enabled = false })
			w.changes <- "device ens5 is gone"
			pass(soon)
			if armed, _ := w.kernel.List(); len(armed) != 1 || !armed[0].Enabled {
				t.Error("it is not armed again soon")
			}
		}, []string{"lastgasp-10.0.2.10-2"}},
		{"a target that somebody disabled", func(_ *testing.T, w *watching) {
			w.change(func() { w.kernel.targets[0].Enabled = false })
		}, []string{"lastgasp-10.0.2.10-2"}},
		{"a target that somebody removed", func(_ *testing.T, w *watching) {
			w.change(func() { w.kernel.targets = nil })
		}, []string{"lastgasp-10.0.2.10-1"}},
		{"another configuration", func(t *testing.T, w *watching) {
			w.change(func() { w.config = func() (Config, error) { return configured(listenerB), nil } })
			w.write(t, "etc/lastgasp/configurator.d/50-user-data.yaml", "# the watcher sees that there is a file")
		}, []string{"lastgasp-10.0.3.10-1"}},
		{"a bad configuration changes nothing", func(_ *testing.T, w *watching) {
			w.change(func() { w.config = func() (Config, error) { return Config{}, errors.New("bad") } })
			w.reload <- os.Interrupt
		}, []string{"lastgasp-10.0.2.10-1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			watch(t, configured(listenerA), nil, func(t *testing.T, w *watching) {
				pass(time.Minute)
				tt.change(t, w)
				pass(polled)
				armed, _ := w.kernel.List()
				if got := names(armed); !slices.Equal(got, tt.want) {
					t.Errorf("armed %v, want %v", got, tt.want)
				}
				for _, st := range armed {
					if !st.Enabled {
						t.Errorf("%s is disabled", st.Name)
					}
				}
			})
		})
	}
}

func TestWatchLosesNoChangeThatHappensDuringAPass(t *testing.T) {
	for _, tt := range []struct {
		name   string
		during func(t *testing.T, w *watching)
		want   string
	}{
		{"of the configuration", func(t *testing.T, w *watching) {
			w.config = func() (Config, error) { return configured(listenerB), nil }
			w.write(t, "etc/lastgasp/configurator.d/50-user-data.yaml", "# the watcher sees that there is a file")
		}, "lastgasp-10.0.3.10-1"},
		{"of a target", func(_ *testing.T, w *watching) {
			w.kernel.mu.Lock()
			defer w.kernel.mu.Unlock()
			w.kernel.targets[0].Enabled = false
		}, "lastgasp-10.0.2.10-2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			prepare := func(t *testing.T, w *watching) { w.during = func() { tt.during(t, w) } }
			watch(t, configured(listenerA), prepare, func(t *testing.T, w *watching) {
				pass(2 * polled)
				armed, _ := w.kernel.List()
				if len(armed) != 1 || armed[0].Name != tt.want || !armed[0].Enabled {
					t.Errorf("armed %v, want %s", names(armed), tt.want)
				}
			})
		})
	}
}

func TestWatchHoldsKernelPanicAgainstTheKubelet(t *testing.T) {
	c := configured(listenerA)
	c.Panic.Hold = true
	kernel7 := func(t *testing.T, w *watching) { w.write(t, "proc/sys/kernel/osrelease", "7.2.13") }
	watch(t, c, kernel7, func(t *testing.T, w *watching) {
		pass(soon)
		if got := w.read(panicFile); got != "0" {
			t.Fatalf("kernel.panic is %s", got)
		}
		w.write(t, panicFile, "10")
		pass(polled)
		if got := w.read(panicFile); got != "0" {
			t.Errorf("kernel.panic is %s after the kubelet's start", got)
		}
	})
}

// The kubelet starts after the node is armed, and makes a kernel mute that was not. Status is asked for, but metrics and listeners
// have to be sent it.
func TestWatchSaysSoonThatTheNodeHasBecomeMute(t *testing.T) {
	kernel7 := func(t *testing.T, w *watching) {
		w.write(t, "proc/sys/kernel/osrelease", "7.2.13")
		w.write(t, panicFile, "0")
	}
	watch(t, configured(listenerA), kernel7, func(t *testing.T, w *watching) {
		pass(soon)
		w.notified("")
		_, canaries := w.passes(func() {
			w.write(t, panicFile, "10")
			pass(rereadEvery + polled)
		})
		if !w.notified("STATUS=MUTE: kernel.panic is 10") || canaries != 1 {
			t.Errorf("a minute after the kubelet's start it is not said that the node is mute, or not to the listener: %d canaries", canaries)
		}
	})
}

func TestWatchProvesAtItsIntervalAndNotMore(t *testing.T) {
	watch(t, configured(listenerA), nil, func(t *testing.T, w *watching) {
		proved := func() (n int) { w.change(func() { n = w.proved }); return n }
		pass(time.Minute)
		before := proved()
		pass(100 * time.Minute)
		if n := proved() - before; n < 9 || n > 11 {
			t.Errorf("%d proofs in 100 minutes at an interval of 10", n)
		}
	})
}

func TestWatchGoesOnWithKnownListeners(t *testing.T) {
	watch(t, configured(listenerA), nil, func(t *testing.T, w *watching) {
		pass(soon)
		if err := os.RemoveAll(w.root.Path("var")); err != nil { // no last known good list either
			t.Fatal(err)
		}
		w.change(func() { w.offline, w.mac = true, movedMAC })
		w.reload <- os.Interrupt
		pass(soon)
		armed, _ := w.kernel.List()
		if len(armed) != 1 || armed[0].RemoteMAC.String() != movedMAC.String() {
			t.Errorf("armed %v: a failed look-up kept the gateway's new address out", names(armed))
		}
	})
}

// A node was switched off when the listeners moved, and nobody could be asked when it booted. The list it has kept is not believed for
// longer than need be.
func TestWatchAsksAgainSoonWhereTheKeptListenersAreSilent(t *testing.T) {
	prepare := func(t *testing.T, w *watching) {
		if _, err := w.node(listenerA).Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.kernel.targets, w.offline = nil, true
		w.deaf[netip.MustParseAddrPort(listenerA)] = true
	}
	watch(t, configured(listenerA), prepare, func(t *testing.T, w *watching) {
		pass(10 * time.Second)
		w.change(func() { w.offline, w.moved = false, configured(listenerB).Endpoint.Static })
		pass(30 * time.Second)
		if armed, _ := w.kernel.List(); len(armed) != 1 || armed[0].Name != "lastgasp-10.0.3.10-1" {
			t.Errorf("armed %v", names(armed))
		}
	})
}

// TestWatchDoesNotUndoAReload has the listeners move without notice to the watcher, which knows them for an hour.
func TestWatchDoesNotUndoAReload(t *testing.T) {
	for _, tt := range []struct {
		name  string
		after func(*watching)
	}{
		{"that can be asked again", func(*watching) {}},
		{"that cannot", func(w *watching) { w.change(func() { w.offline = true }) }},
		{"that can, and the network changes before the next poll", func(w *watching) { w.changes <- "neighbour 10.0.1.1 moved" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			watch(t, configured(listenerA), nil, func(t *testing.T, w *watching) {
				pass(time.Minute)
				w.change(func() { w.moved = configured(listenerB).Endpoint.Static })
				if _, err := w.configurator(configured(listenerA)).Reload(t.Context()); err != nil {
					t.Fatal(err)
				}
				tt.after(w)
				pass(polled)
				if armed, _ := w.kernel.List(); len(armed) != 1 || armed[0].Name != "lastgasp-10.0.3.10-1" {
					t.Errorf("armed %v", names(armed))
				}
			})
		})
	}
}

// switchable is a source that can be cut off, and whose listeners can move.
type switchable struct {
	endpoint.Source
	w *watching
}

func (s switchable) Find(ctx context.Context) ([]endpoint.Endpoint, string, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.asked++
	if s.w.offline {
		return unreachable{}.Find(ctx)
	}
	if s.w.moved != nil {
		return s.w.moved, "test", nil
	}
	return s.Source.Find(ctx)
}

// passes counts passes and canaries while f runs.
func (w *watching) passes(f func()) (passes, canaries int) {
	count := func() (passes, canaries int) {
		w.change(func() { passes, canaries = w.resolved, w.proved })
		return passes, canaries
	}
	passesBefore, canariesBefore := count()
	f()
	passes, canaries = count()
	return passes - passesBefore, canaries - canariesBefore
}

// Pods that start and stop make devices, routes and neighbours come and go, none of which is on the way to a listener.
func TestWatchIsQuietWhilePodsComeAndGo(t *testing.T) {
	watch(t, configured(listenerA), nil, func(t *testing.T, w *watching) {
		pass(time.Minute)
		passes, canaries := w.passes(func() {
			for range 500 { // 100 pods a minute, some events each
				w.changes <- "device veth appeared, route 10.0.9.7/32 added"
				pass(600 * time.Millisecond)
			}
		})
		if passes > 1 || canaries > 1 { // the interval's
			t.Errorf("%d passes and %d canaries in 5 minutes of pods starting and stopping", passes, canaries)
		}
	})
}

// Nor is it any business of a node that does not know its listeners yet: Parameter Store has a quota for all nodes.
func TestWatchDoesNotAskForListenersBecausePodsComeAndGo(t *testing.T) {
	offline := func(_ *testing.T, w *watching) { w.offline = true }
	watch(t, configured(listenerA), offline, func(t *testing.T, w *watching) {
		pass(30 * time.Minute)
		asked := w.asked
		for range 300 {
			w.changes <- "device veth appeared, route 10.0.9.7/32 added"
			pass(600 * time.Millisecond)
		}
		if n := w.asked - asked; n > 2 { // of the back-off
			t.Errorf("asked %d times in 3 minutes of pods starting and stopping", n)
		}
		asked = w.asked
		w.change(func() { w.routes["192.0.2.1"] = nexthop.ErrNoRoute })
		w.changes <- "route default removed"
		pass(soon)
		if w.asked == asked {
			t.Error("a default route that changed is no reason to ask")
		}
	})
}

// A file that is written without any change to the configuration needs a pass, and no canary.
func TestWatchProvesOnlyWhatItChanges(t *testing.T) {
	watch(t, configured(listenerA), nil, func(t *testing.T, w *watching) {
		pass(time.Minute)
		passes, canaries := w.passes(func() {
			w.write(t, "etc/lastgasp/configurator.d/50-user-data.yaml", "# nothing that matters")
			pass(polled)
		})
		if passes != 1 || canaries != 0 {
			t.Errorf("%d passes and %d canaries after a file was written that changes nothing; want 1 and 0", passes, canaries)
		}
	})
}

// A way that is lost makes the node unproven at once: what was acknowledged before says nothing about now.
func TestWatchIsUnprovenAsSoonAsAPassFails(t *testing.T) {
	watch(t, configured(listenerA), nil, func(t *testing.T, w *watching) {
		pass(time.Minute)
		verdict := func() Verdict {
			s, err := w.configurator(configured(listenerA)).Status(nil)
			if err != nil {
				t.Fatal(err)
			}
			return s.Verdict
		}
		if got := verdict(); got != Covered {
			t.Fatalf("verdict %s before anything happened", got)
		}
		_, canaries := w.passes(func() {
			w.change(func() {
				w.routes["10.0.2.10"] = nexthop.ErrNoRoute
				w.deaf[netip.MustParseAddrPort(listenerA)] = true
			})
			w.changes <- "device ens5 has no carrier"
			pass(soon)
		})
		if got := verdict(); got != Unproven {
			t.Errorf("verdict %s without a route", got)
		}
		if canaries != 1 {
			t.Errorf("%d canaries through what is still armed, want 1", canaries)
		}
		if armed, _ := w.kernel.List(); len(armed) != 1 {
			t.Errorf("armed: %v", names(armed))
		}
		w.change(func() { clear(w.routes); clear(w.deaf) })
		w.changes <- "device ens5 is up"
		pass(soon)
		if got := verdict(); got != Covered {
			t.Errorf("verdict %s with the route back", got)
		}
	})
}

// A kubelet registers minutes after the node was armed. Until then listeners know no Node for it.
func TestWatchAsksAgainUntilTheNodeIsKnown(t *testing.T) {
	strange := func(_ *testing.T, w *watching) { w.strange = true }
	watch(t, configured(listenerA), strange, func(t *testing.T, w *watching) {
		pass(soon)
		node := w.configurator(configured(listenerA))
		if s, err := node.Status(nil); err != nil || s.Verdict != Stranger {
			t.Fatalf("verdict %s, %v", s.Verdict, err)
		}
		if !w.notified("STATUS=armed and acknowledged, but the cluster has no Node for this machine yet: 10.0.2.10:6666") {
			t.Error("the unit's status hides it")
		}
		w.change(func() { w.strange = false })
		pass(2 * register)
		if s, err := node.Status(nil); err != nil || s.Verdict != Covered {
			t.Errorf("verdict %s, %v", s.Verdict, err)
		}
	})
}

func TestWatchFeedsTheWatchdogNoMoreThanItMust(t *testing.T) {
	watch(t, configured(listenerA), nil, func(t *testing.T, w *watching) {
		pass(10 * time.Minute)
		pings := 0
		w.change(func() { pings = w.pings })
		if pings < 19 || pings > 22 { // of a minute
			t.Errorf("%d pings in 10 minutes", pings)
		}
	})
}

// TestWatchNoticesAFileOfAnImage: NixOS and OSTree give all files the same time of modification, and a link that leads elsewhere now
// is a change, too.
func TestWatchNoticesAFileOfAnImage(t *testing.T) {
	dir := t.TempDir()
	w := Watcher{ConfigFile: filepath.Join(dir, "configurator.yaml")}
	for _, image := range []string{"a", "b"} {
		file := filepath.Join(dir, image)
		if err := os.WriteFile(file, []byte("endpoint: {static: 10.0.2.1"+image+":6666}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{w.configFiles(): true}
	for _, image := range []string{"a", "b"} {
		os.Remove(w.ConfigFile)
		if err := os.Symlink(image, w.ConfigFile); err != nil {
			t.Fatal(err)
		}
		if now := w.configFiles(); seen[now] {
			t.Errorf("nothing changes with image %s", image)
		} else {
			seen[now] = true
		}
	}
}
