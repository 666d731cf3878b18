//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/e2e/story"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// TestKubeChaos makes nodes die while the API server misbehaves in every way we know, for both replicas. Each node must be
// cleaned up exactly once, and fenced first, according to the API server's audit log.
func TestKubeChaos(t *testing.T) {
	w := newReplicaWorld(t)
	bin, err := story.Build(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	for i, tt := range []struct {
		name    string
		trouble func(t *testing.T) trouble
	}{
		{"two seconds for each call", func(*testing.T) trouble { return trouble{meddle: slow(2 * time.Second)} }},
		{"409, 429 and 500 at random", func(*testing.T) trouble { return trouble{meddle: new(dice).meddle} }},
		{"watches cut off", w.cutOff},
		{"etcd restarted", w.etcdRestarted},
		{"API server killed in the middle", w.killedInTheMiddle},
	} {
		t.Run(tt.name, func(t *testing.T) {
			trouble := tt.trouble(t)
			a := w.startReplica(t, bin, w.proxy(t, trouble.meddle), anyNumber)
			b := w.startReplica(t, bin, w.proxy(t, trouble.meddle), anyNumber)
			var dying []*doomed
			for n := range 3 {
				d := newDoomed(fmt.Sprintf("chaos-%d-%d", i, n), 1000+10*i+n)
				w.join(t, d)
				for _, r := range []*replica{a, b} {
					eventually(t, "a replica to know "+d.name, func() error { return r.knows(w, d.name) })
				}
				dying = append(dying, d)
			}
			if trouble.begins != nil {
				trouble.begins()
			}
			began := time.Now()
			for _, d := range dying {
				if err := d.panics(w, a, b); err != nil {
					t.Fatal(err)
				}
			}
			if trouble.ends != nil {
				if err := trouble.ends(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			for _, d := range dying {
				var r policy.Death
				err := within(t.Context(), busy, func() (err error) {
					r, err = w.ended(t.Context(), d)
					return err
				})
				if err != nil || r.Phase != policy.Cleaned {
					t.Fatalf("%s: phase %s, %v; a says:\n%s\nb says:\n%s", d.name, r.Phase, err, a.says(), b.says())
				}
			}
			t.Logf("all cleaned %v after the first panic", time.Since(began).Round(100*time.Millisecond))
			log := w.audit(t)
			for _, d := range dying {
				if !trouble.gaps {
					if err := d.cleanedOnce(log); err != nil {
						t.Errorf("%s: %v", d.name, err)
					}
				}
				if err := d.notTwice(log); err != nil {
					t.Errorf("%s: %v", d.name, err)
				}
				if err := w.gone(t.Context(), d); err != nil {
					t.Errorf("%s: %v", d.name, err)
				}
			}
		})
	}
}

// trouble is how the API server misbehaves, from just before the panics on.
type trouble struct {
	meddle meddle
	begins func()
	ends   func(ctx context.Context) error
	gaps   bool // in the audit log: whoever keeps it was killed
}

// slow delays every call by d.
func slow(d time.Duration) meddle {
	return func(rw http.ResponseWriter, r *http.Request, pass http.Handler) {
		select {
		case <-time.After(d):
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
		pass.ServeHTTP(rw, r)
	}
}

// dice answers a third of the cleanups' calls itself. Some of these are carried out all the same. Only writes get a conflict.
type dice struct {
	mu     sync.Mutex
	rolled *rand.Rand
}

func (d *dice) roll() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rolled == nil {
		d.rolled = rand.New(rand.NewPCG(5, 0))
	}
	return d.rolled.IntN(12)
}

func (d *dice) meddle(rw http.ResponseWriter, r *http.Request, pass http.Handler) {
	if ofCaches(r) {
		pass.ServeHTTP(rw, r)
		return
	}
	switch n := d.roll(); {
	case n == 0 && r.Method != http.MethodGet:
		answer(rw, http.StatusConflict, "Conflict")
	case n == 1:
		rw.Header().Set("Retry-After", "1")
		answer(rw, http.StatusTooManyRequests, "TooManyRequests")
	case n == 2:
		answer(rw, http.StatusInternalServerError, "InternalError")
	case n == 3:
		pass.ServeHTTP(httptest.NewRecorder(), r)
		answer(rw, http.StatusInternalServerError, "InternalError")
	default:
		pass.ServeHTTP(rw, r)
	}
}

// answer sends an API server's refusal.
func answer(rw http.ResponseWriter, code int, reason string) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(code)
	fmt.Fprintf(rw, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"reason":%q,"message":"chaos"}`, code, reason)
}

// cutOff ends all watches and refuses new ones. Writes pass, also those by which a replica that has just started proves the
// admission policies: until it has, it acts on nothing.
func (w *kubeWorld) cutOff(t *testing.T) trouble {
	open, cut := context.WithCancelCause(t.Context())
	return trouble{
		begins: func() { cut(errors.New("cut off")) },
		meddle: func(rw http.ResponseWriter, r *http.Request, pass http.Handler) {
			if ofCaches(r) && r.Method == http.MethodGet {
				ctx, cancel := context.WithCancel(r.Context())
				defer cancel()
				defer context.AfterFunc(open, cancel)()
				r = r.WithContext(ctx)
			}
			if r.Context().Err() != nil {
				panic(http.ErrAbortHandler)
			}
			pass.ServeHTTP(rw, r)
		},
	}
}

// etcdRestarted stops etcd while the nodes die.
func (w *kubeWorld) etcdRestarted(*testing.T) trouble {
	return trouble{
		begins: w.lab.StopEtcd,
		meddle: func(rw http.ResponseWriter, r *http.Request, pass http.Handler) { pass.ServeHTTP(rw, r) },
		ends: func(ctx context.Context) error {
			select {
			case <-time.After(5 * time.Second):
			case <-ctx.Done():
			}
			return w.lab.StartEtcd(ctx)
		},
	}
}

// killedInTheMiddle kills the API server after the first pod was failed.
func (w *kubeWorld) killedInTheMiddle(*testing.T) trouble {
	first := make(chan struct{})
	failed := sync.OnceFunc(func() { close(first) })
	return trouble{
		gaps: true,
		meddle: func(rw http.ResponseWriter, r *http.Request, pass http.Handler) {
			pass.ServeHTTP(rw, r)
			if r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/status") {
				failed()
			}
		},
		ends: func(ctx context.Context) error {
			select {
			case <-first:
			case <-time.After(busy):
				return errors.New("no pod was failed")
			}
			w.lab.StopAPIServer()
			return w.lab.StartAPIServer(ctx)
		},
	}
}
