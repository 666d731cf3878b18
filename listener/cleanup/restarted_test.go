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
				var about []string
				for _, ev := range w.events {
					if ev.Pod.Name != "" {
						about = append(about, ev.Pod.Name)
					}
				}
				slices.Sort(about)
				if !slices.Equal(about, tt.want) {
					t.Errorf("events about %q, want %q, each once", about, tt.want)
				}
				if n := watched(e); n != 0 {
					t.Errorf("%d deaths are still watched", n)
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
