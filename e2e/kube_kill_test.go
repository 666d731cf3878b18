//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/e2e/story"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// TestKubeKilledAfterEveryCall kills the listener that owns a cleanup after each of its API calls in turn: after it has the
// answer, and after the API server has carried out the call but the answer is lost. Another replica, which heard the panic,
// too, finishes. The API server's audit log proves that nothing is lost and nothing is done twice.
func TestKubeKilledAfterEveryCall(t *testing.T) {
	w := newReplicaWorld(t)
	bin, err := story.Build(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	heir := w.startReplica(t, bin, "", anyNumber)

	calls := 0
	if !t.Run("nobody is killed", func(t *testing.T) {
		v := w.newVictim(t, bin, "spared", 1, fate{})
		w.letDie(t, heir, v)
		calls = v.count
		if err := v.cleanedOnce(w.audit(t)); err != nil || v.killed() {
			t.Fatal(err)
		}
		t.Logf("a cleanup of %d pods and a volume: %d API calls", len(v.pods), calls)
	}) {
		return
	}
	for i, tt := range []struct {
		name string
		fate fate
	}{
		{"answered", fate{}},
		{"answer lost", fate{lost: true}},
		{"answer lost, and the node comes back", fate{lost: true, back: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var victims []*victim
			for n := 1; n <= calls; n++ {
				tt.fate.dies = n
				victims = append(victims, w.newVictim(t, bin, fmt.Sprintf("killed-%d-%d", i, n), 100*(i+1)+n, tt.fate))
			}
			w.letDie(t, heir, victims...)
			w.judge(t, victims)
		})
	}
}

// fate is when and how a replica is killed.
type fate struct {
	dies int  // after which call; 0: not at all
	lost bool // and it does not get the answer to that call
	back bool // the node reboots before anybody takes over
}

// victim is a replica that owns the cleanup of one node.
type victim struct {
	*doomed
	fate
	replica *replica
	own     func()        // closes owned
	owned   chan struct{} // closed when it owns the NodeDeath
	dead    chan struct{} // closed when it was killed
	dying   atomic.Bool   // its node dies: what it asked the API server before that belongs to its start

	mu    sync.Mutex
	count int // API calls

	died   time.Time
	backAt time.Time
	took   time.Duration // from its death to the end of the cleanup
	phase  policy.Phase  // of the NodeDeath then
}

func (w *kubeWorld) newVictim(t *testing.T, bin, name string, i int, f fate) *victim {
	t.Helper()
	v := &victim{doomed: newDoomed(name, i), fate: f, owned: make(chan struct{}), dead: make(chan struct{})}
	v.own = sync.OnceFunc(func() { close(v.owned) })
	v.replica = w.startReplica(t, bin, w.proxy(t, v.meddle), anyNumber)
	return v
}

func (v *victim) killed() bool {
	select {
	case <-v.dead:
		return true
	default:
		return false
	}
}

// meddle counts the calls and kills the replica after the one at which it is to die. Later calls do not get through.
func (v *victim) meddle(rw http.ResponseWriter, r *http.Request, pass http.Handler) {
	if ofCaches(r) || !v.dying.Load() {
		pass.ServeHTTP(rw, r)
		return
	}
	// The API server does what it was asked to, and logs that in its audit log, whether or not anybody waits for the answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), time.Minute)
	defer cancel()
	r = r.WithContext(ctx)
	v.mu.Lock()
	v.count++
	n := v.count
	v.mu.Unlock()
	switch {
	case v.dies == 0 || n < v.dies:
		pass.ServeHTTP(rw, r)
		if r.Method == http.MethodPost && r.URL.Path == "/apis/lastgasp.dev/v1alpha1/nodedeaths" {
			v.own()
		}
		return
	case n > v.dies:
		<-v.dead
		panic(http.ErrAbortHandler)
	case v.lost:
		pass.ServeHTTP(httptest.NewRecorder(), r)
	default:
		pass.ServeHTTP(rw, r)
		http.NewResponseController(rw).Flush()
	}
	v.replica.Kill()
	v.died = time.Now()
	close(v.dead)
	panic(http.ErrAbortHandler)
}

// letDie makes the victims' nodes die at the same time and waits until each is cleaned up.
func (w *kubeWorld) letDie(t *testing.T, heir *replica, victims ...*victim) {
	t.Helper()
	for _, v := range victims {
		w.join(t, v.doomed)
	}
	for _, v := range victims {
		for _, r := range []*replica{v.replica, heir} {
			eventually(t, "a replica to know "+v.name, func() error { return r.knows(w, v.name) })
		}
	}
	var wg sync.WaitGroup
	for _, v := range victims {
		wg.Go(func() {
			if err := v.story(w, t, heir); err != nil {
				t.Errorf("killed after call %d of %s: %v", v.dies, v.name, err)
			}
		})
	}
	wg.Wait()
}

// story is what happens to one victim. Its replica hears the panic first, so that it owns the NodeDeath. The heir hears it when
// that is done, or when the replica has died before.
func (v *victim) story(w *kubeWorld, t *testing.T, heir *replica) error {
	ctx := t.Context()
	v.dying.Store(true)
	if err := v.panics(w, v.replica); err != nil {
		return err
	}
	select {
	case <-v.owned:
	case <-v.dead:
	case <-time.After(busy):
		return fmt.Errorf("it neither created the NodeDeath nor died; %d calls", v.count)
	}
	if v.back {
		err := within(ctx, busy, func() error {
			if v.killed() {
				return nil
			}
			_, err := w.ended(ctx, v.doomed) // it finished before
			return err
		})
		if err != nil {
			return err
		}
		if err := w.comesBack(ctx, v.doomed); err != nil {
			return err
		}
		v.backAt = time.Now()
	}
	if err := v.panics(w, heir); err != nil {
		return err
	}
	err := within(ctx, busy, func() error {
		r, err := w.ended(ctx, v.doomed)
		v.phase = r.Phase
		return err
	})
	if err != nil {
		return err
	}
	if v.killed() {
		v.took = time.Since(v.died)
	}
	if v.back {
		return within(ctx, busy, func() error { return w.untouched(ctx, v.doomed) })
	}
	return nil
}

// judge reads the audit log's verdict on every victim.
func (w *kubeWorld) judge(t *testing.T, victims []*victim) {
	t.Helper()
	log := w.audit(t)
	var took []time.Duration
	for _, v := range victims {
		var err error
		switch {
		case v.back:
			err = v.spared(log, v.backAt)
		case v.phase != policy.Cleaned:
			err = fmt.Errorf("phase %s, want Cleaned", v.phase)
		default:
			err = v.cleanedOnce(log)
		}
		if err != nil {
			t.Errorf("killed after call %d of %s: %v", v.dies, v.name, err)
		}
		if v.killed() {
			took = append(took, v.took)
		}
	}
	slices.Sort(took)
	if len(took) > 0 {
		t.Logf("%d of %d killed; cleanup over %v to %v after the kill, median %v",
			len(took), len(victims), took[0], took[len(took)-1], took[len(took)/2])
	}
}
