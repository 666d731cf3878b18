package cleanup

import (
	"slices"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// restarts is what the kubelet of a node that runs again reports of a pod that it has started again.
func (w *world) restarts(pod string) {
	w.set(func() {
		p := w.pods["default/"+pod]
		p.Lost, p.Started = true, time.Now()
		w.pods["default/"+pod] = p
	})
}

// watched is of how many deaths the pods are to be looked at again.
func watched(e *Engine) int { e.mu.Lock(); defer e.mu.Unlock(); return len(e.restarting) }

// podsWithEvents are the pods that events are about, sorted, as often as there are events.
func podsWithEvents(w *world) (names []string) {
	w.set(func() {
		for _, e := range w.events {
			if e.Pod.Name != "" {
				names = append(names, e.Pod.Name)
			}
		}
	})
	slices.Sort(names)
	return names
}

// A node says how its last boot ended before its kubelet reports what it has started again.
func TestPodsThatAreRestartedAfterTheObituary(t *testing.T) {
	for _, tt := range []struct {
		name   string
		after  func(w *world) // the obituary is on record
		before func(w *world)
		want   []string // pods with an event
	}{
		{name: "some at once, some later", before: func(w *world) { w.restarts("n1-web") }, after: func(w *world) {
			pass(20 * time.Second)
			w.restarts("n1-db")
			pass(time.Minute)
			w.restarts("n1-log")
		}, want: []string{"n1-db", "n1-log", "n1-web"}},
		{name: "the node dies again meanwhile", before: func(*world) {}, after: func(w *world) {
			pass(20 * time.Second)
			change(w, func(n *policy.Node) { n.BootID = boot2 })
			w.restarts("n1-db")
		}},
		{name: "the node is gone meanwhile", before: func(*world) {}, after: func(w *world) {
			pass(20 * time.Second)
			w.set(func() { delete(w.nodes, "n1") })
			w.restarts("n1-db")
		}},
		{name: "the API server is away for a while", before: func(*world) {}, after: func(w *world) {
			w.set(func() { w.down = true })
			pass(50 * time.Second)
			w.set(func() { w.down = false })
			w.restarts("n1-db")
		}, want: []string{"n1-db"}},
		{name: "long afterwards", before: func(*world) {}, after: func(w *world) {
			pass(5 * time.Minute)
			w.restarts("n1-db")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				e, _ := run(t, testPolicy(), w, "a")
				pass(time.Second)
				tt.before(w)
				id, o := said(nil)
				if !repeat(e, address(1), id, o) {
					t.Fatal("not dealt with")
				}
				tt.after(w)
				pass(10 * time.Minute)
				if got := podsWithEvents(w); !slices.Equal(got, tt.want) {
					t.Errorf("events about %q, want %q, each once", got, tt.want)
				}
				if n := watched(e); n != 0 {
					t.Errorf("%d deaths are still watched", n)
				}
			})
		})
	}
}

// Nothing is failed on a node that is back by the time its death is decided. Its pods say all the same why they were restarted.
func TestPodsOfANodeThatIsBackBeforeTheDecision(t *testing.T) {
	for _, tt := range []struct {
		name    string
		secret  netconsole.Secret // that its boot has
		happens func(w *world)
		want    []string // pods with an event
	}{
		{"before it was found", secret1, func(w *world) {
			w.set(func() { w.down = true })
			pass(10 * time.Second)
			w.reboots(1, boot2)
			w.restarts("n1-web")
			w.set(func() { w.down = false })
			pass(30 * time.Second)
			w.restarts("n1-db")
		}, []string{"n1-db", "n1-web"}},
		{"while a witness was awaited", "", func(w *world) {
			pass(10 * time.Second)
			w.reboots(1, boot2)
			w.restarts("n1-web")
			pass(30 * time.Second)
			w.restarts("n1-db")
		}, []string{"n1-db", "n1-web"}},
		{"none of them lost anything", "", func(w *world) {
			pass(10 * time.Second)
			w.reboots(1, boot2)
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				if tt.secret == "" {
					w.unpin()
				}
				e, _ := run(t, testPolicy(), w, "a")
				w.panics(1)
				offer(t, w, incident(1, boot1, tt.secret), e)
				tt.happens(w)
				pass(10 * time.Minute)
				d := w.only()
				if d.Phase != policy.Recorded || len(d.Pods) == 0 || w.failed() > 0 {
					t.Fatalf("phase %s (%s), %d pods named, %d failed", d.Phase, d.Decision, len(d.Pods), w.failed())
				}
				if got := podsWithEvents(w); !slices.Equal(got, tt.want) {
					t.Errorf("events about %q, want %q, each once", got, tt.want)
				}
			})
		})
	}
}

// However many nodes are back at once, only so many are remembered.
func TestRestartsThatAreWatchedAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		e, _ := run(t, testPolicy(), w, "a")
		pass(time.Second)
		for i := range 2 * restartsWatched {
			name := policy.DeathName("n1", netconsole.Secret(time.Duration(i).String()).Sum())
			e.watchRestarts(restarting{notice: policy.Notice{Death: name}, node: policy.Node{Name: "n1"}})
		}
		if n := watched(e); n != restartsWatched {
			t.Errorf("%d are watched, want %d", n, restartsWatched)
		}
		pass(5 * time.Minute)
		if n := watched(e); n != 0 {
			t.Errorf("%d are watched for ever", n)
		}
	})
}
