package cleanup

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// bye1 is what node 1 says when alice reboots it.
func bye1() netconsole.Bye {
	return netconsole.Bye{
		Nonce: strings.Repeat("0", 32), Cause: netconsole.ByeReboot, By: "alice", Command: "reboot", Sudo: true,
		Instance: "i-1", Boot: boot1, Secret: secret1,
	}
}

// counted notes the results of farewells. Run it in a bubble, where nothing is concurrent with the test.
func counted(e *Engine) map[FarewellResult]int {
	results := map[FarewellResult]int{}
	e.Observer.Farewell = func(r FarewellResult) { results[r]++ }
	return results
}

func TestFarewell(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.populate("n2")
		e, _ := run(t, testPolicy(), w, "a")
		other, _ := run(t, testPolicy(), w, "b")
		pass(time.Second)
		at := time.Now()
		for _, e := range []*Engine{e, other} { // a node has two listeners
			if !e.Farewell(address(1), bye1(), at, true) {
				t.Fatal("not taken")
			}
		}
		pass(time.Minute)

		want := policy.Farewell{Boot: boot1, Text: "rebooted by alice (sudo reboot)", At: at.UTC().Truncate(time.Second)}
		if diff := cmp.Diff(want, w.node("n1").Farewell); diff != "" {
			t.Errorf("on the node (-want +got):\n%s", diff)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		pods := []string{"n1-bare", "n1-db", "n1-log", "n1-static", "n1-sum", "n1-web"} // finished ones have nothing to do with it
		if diff := cmp.Diff(pods, slices.Sorted(maps.Keys(w.farewells))); diff != "" {
			t.Errorf("pods annotated (-want +got):\n%s", diff)
		}
		if got := w.farewells["n1-web"]; got != want.String() {
			t.Errorf("pod says %q, want %q", got, want)
		}
		if diff := cmp.Diff([]string{"farewell n1"}, w.calls); diff != "" {
			t.Errorf("what else was changed (-want +got):\n%s", diff)
		}
		var notes []string
		for _, ev := range w.events {
			if ev.Warning || ev.Reason != "Farewell" {
				t.Errorf("event %+v", ev)
			}
			notes = append(notes, ev.Node.Name+ev.Pod.Name+": "+ev.Note)
		}
		slices.Sort(notes)
		wantNotes := []string{"n1: this node was rebooted by alice (sudo reboot), says the node"}
		for _, p := range pods {
			wantNotes = append(wantNotes, p+": node n1 was rebooted by alice (sudo reboot), says the node")
		}
		slices.Sort(wantNotes)
		if diff := cmp.Diff(wantNotes, notes); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if len(w.deaths) > 0 {
			t.Errorf("deaths %+v", w.deaths)
		}
	})
}

func TestFarewellsThatAreNotWritten(t *testing.T) {
	for _, tt := range []struct {
		name     string
		change   func(*world, *netconsole.Bye)
		dryRun   bool
		stranger bool
		want     FarewellResult
	}{
		{name: "a stranger's", stranger: true, want: FarewellRefused},
		{name: "of another node's boot", change: func(_ *world, y *netconsole.Bye) { y.Boot, y.Secret = "boot of node 2", "secret of node 2" }, want: FarewellRefused},
		{name: "in another node's name", change: func(_ *world, y *netconsole.Bye) { y.Instance = "i-2" }, want: FarewellRefused},
		{name: "of a boot that is over", change: func(w *world, _ *netconsole.Bye) { w.reboots(1, boot2) }, want: FarewellRefused},
		{name: "of a node that has only claimed", change: func(w *world, _ *netconsole.Bye) {
			w.claims()
		}, want: FarewellRefused},
		{name: "of a node that is gone", change: func(w *world, _ *netconsole.Bye) { w.set(func() { delete(w.nodes, "n1") }) }, want: FarewellRefused},
		{name: "in a dry run", dryRun: true, want: FarewellWritten},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				w.populate("n2")
				p := testPolicy()
				p.DryRun = tt.dryRun
				e, _ := run(t, p, w, "a")
				results := counted(e)
				bye := bye1()
				if tt.change != nil {
					tt.change(w, &bye)
				}
				if !e.Farewell(address(1), bye, time.Now(), !tt.stranger) {
					t.Fatal("not taken")
				}
				pass(5 * time.Minute)
				if diff := cmp.Diff(map[FarewellResult]int{tt.want: 1}, results); diff != "" {
					t.Errorf("results (-want +got):\n%s", diff)
				}
				w.mu.Lock()
				defer w.mu.Unlock()
				if len(w.calls) > 0 || len(w.farewells) > 0 || len(w.events) > 0 {
					t.Errorf("changed %v, pods %v, events %v", w.calls, w.farewells, w.events)
				}
				if tt.stranger && w.finds > 0 {
					t.Errorf("%d Nodes looked up for a stranger", w.finds)
				}
			})
		})
	}
}

func TestFarewellIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.addPod("n1", "n1-web", "apps/v1 ReplicaSet", nil)
		e, _ := run(t, testPolicy(), w, "a")
		results := counted(e)
		for i := range 100 { // root on a node has much to say
			bye := bye1()
			bye.By = strings.Repeat("x", i+1)
			e.Farewell(address(1), bye, time.Now(), true)
			pass(time.Second)
		}
		want := map[FarewellResult]int{FarewellWritten: farewellsOfAddress, FarewellRefused: 100 - farewellsOfAddress}
		if diff := cmp.Diff(want, results); diff != "" {
			t.Errorf("results (-want +got):\n%s", diff)
		}
	})
}

func TestFarewellMeetsFaults(t *testing.T) {
	for _, tt := range []struct {
		name string
		call string
		err  error
		for_ time.Duration
		want FarewellResult
		pods int
	}{
		{"an API server that is away for a while", "", errors.New("connection refused"), time.Minute, FarewellWritten, 2},
		{"an API server that stays away", "", errors.New("connection refused"), time.Hour, FarewellFailed, 0},
		{"a Node that changes meanwhile", "PatchNode", ErrConflict, time.Second, FarewellWritten, 2},
		{"a policy that denies it", "PatchNode", ErrDenied, time.Hour, FarewellFailed, 0},
		{"pods that are denied", "AnnotateFarewell", ErrDenied, time.Hour, FarewellFailed, 0},
		{"pods that are gone", "AnnotateFarewell", ErrNotFound, time.Hour, FarewellWritten, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.addPod("n1", "n1-web", "apps/v1 ReplicaSet", nil)
				w.addPod("n1", "n1-db", "apps/v1 StatefulSet", nil)
				since := time.Now()
				e, _ := run(t, testPolicy(), faulty{world: w, before: func(_ context.Context, call string) error {
					if time.Since(since) < tt.for_ && (call == tt.call || tt.call == "") {
						return tt.err
					}
					return nil
				}}, "a")
				results := counted(e)
				e.Farewell(address(1), bye1(), time.Now(), true)
				pass(10 * time.Minute)
				if diff := cmp.Diff(map[FarewellResult]int{tt.want: 1}, results); diff != "" {
					t.Errorf("results (-want +got):\n%s", diff)
				}
				w.set(func() {
					if len(w.farewells) != tt.pods {
						t.Errorf("pods %v, want %d", w.farewells, tt.pods)
					}
				})
			})
		})
	}
}

// A pod that is masqueraded as its node can send farewells from the node's address, and earlier.
func TestForgedFarewellsKeepOutNoTrueOne(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		e, _ := run(t, testPolicy(), w, "a")
		results := counted(e)
		for range 100_000 {
			e.Farewell(address(1), bye1(), time.Now(), false)
		}
		e.Farewell(address(1), bye1(), time.Now(), true)
		pass(time.Minute)
		if diff := cmp.Diff(map[FarewellResult]int{FarewellRefused: 100_000, FarewellWritten: 1}, results); diff != "" {
			t.Errorf("results (-want +got):\n%s", diff)
		}
	})
}

// A farewell for which there is no room yet costs the node nothing of what it may say.
func TestFarewellIsRepeatedUntilThereIsRoom(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		e := NewEngine(testPolicy(), w, nil, "a", nil)
		for i := range farewellsWaiting {
			if !e.Farewell(address(1000+i), bye1(), time.Now(), true) {
				t.Fatalf("farewell %d is not taken", i)
			}
		}
		for range 2 * farewellsOfAddress {
			if e.Farewell(address(1), bye1(), time.Now(), true) {
				t.Fatal("taken, and there is no room")
			}
		}
		<-e.farewells
		if e.Farewell(address(1), bye1(), time.Now(), true); len(e.farewells) != farewellsWaiting {
			t.Error("not taken, and there is room")
		}
	})
}
