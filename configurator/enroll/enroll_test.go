package enroll

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const (
	thisBoot = "5a2e4e5c-8a3e-4a3d-9d5b-0f5a5c1e7f11"
	lastBoot = "00000000-8a3e-4a3d-9d5b-0f5a5c1e7f11"
)

// fixture is a node beside its API server.
type fixture struct {
	*testing.T
	*api
	e      *Enroller
	pin    Pin
	files  []string
	rotate func(serial int64)
}

// newBench makes a node whose Node is not registered yet. It is for synctest bubbles.
func newBench(t *testing.T) *fixture {
	a, dial := newAPI(t)
	b := &fixture{T: t, api: a, pin: Pin{Boot: thisBoot, Sum: strings.Repeat("a", 64)}}
	file, rotate := a.kubeconfig(t)
	b.files, b.rotate = []string{file}, rotate
	b.e = &Enroller{
		Kubeconfigs: func() ([]string, error) { return b.files, nil },
		Pin:         func() (Pin, error) { b.mu.Lock(); defer b.mu.Unlock(); return b.pin, nil },
		StateFile:   filepath.Join(t.TempDir(), "enroll.json"),
		Version:     "v0",
		Log:         slog.New(slog.DiscardHandler),
		dial:        dial,
	}
	return b
}

// run starts it; it ends with the test.
func (b *fixture) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		b.e.Run(ctx)
		close(done)
	}()
	b.Cleanup(func() {
		cancel()
		<-done
	})
}

// after lets time pass, and what is due then be done.
func (b *fixture) after(d time.Duration) {
	time.Sleep(d) // of the bubble
	synctest.Wait()
}

func (b *fixture) state() State {
	b.Helper()
	s, err := ReadState(b.e.StateFile)
	if err != nil {
		b.Fatal(err)
	}
	if s == nil {
		return State{}
	}
	return *s
}

func (b *fixture) wantPin(want string) {
	b.Helper()
	if got := b.annotation(PinKey); got != want {
		b.Errorf("the Node's pin is %q, want %q", got, want)
	}
}

func (b *fixture) wantState(want State) {
	b.Helper()
	want.Node, want.Kubeconfig, want.Pin = "node-1", b.files[0], b.pin.String()
	if diff := cmp.Diff(want, b.state(), cmpopts.IgnoreFields(State{}, "Since")); diff != "" {
		b.Errorf("state (-want +got):\n%s", diff)
	}
}

// bubble runs a test in virtual time.
func bubble(t *testing.T, f func(b *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(newBench(t)) })
}

func TestEnroll(t *testing.T) {
	for _, tt := range []struct {
		name string
		run  func(b *fixture)
	}{
		{"a Node that reports this boot is pinned at once", func(b *fixture) {
			b.register(thisBoot)
			b.run()
			b.after(0)
			b.wantPin(b.pin.String())
			b.wantState(State{Enrolled: true})
			want := `{"metadata":{"annotations":{"lastgasp.dev/pin":"` + b.pin.String() + `"},"uid":"uid-1"}}`
			if diff := cmp.Diff([]string{want}, b.patches); diff != "" {
				b.Errorf("patches (-want +got):\n%s", diff)
			}
		}},
		{"a Node that is registered later is pinned without being asked for again", func(b *fixture) {
			b.run()
			b.after(time.Minute)
			b.wantState(State{Why: "the Node is not registered yet"})
			asked := b.count("GET")
			b.register(thisBoot)
			b.after(0)
			b.wantPin(b.pin.String())
			b.wantState(State{Enrolled: true})
			if got := b.count("GET"); got != asked {
				b.Errorf("it asked for the Node %d times more", got-asked)
			}
		}},
		{"a Node that still reports the last boot is left alone until it reports this one", func(b *fixture) {
			b.register(lastBoot)
			b.annotate(PinKey, lastBoot+":old")
			b.run()
			b.after(time.Minute)
			b.wantPin(lastBoot + ":old")
			b.wantState(State{Why: "the Node does not report this boot yet"})
			b.change("MODIFIED", func(o *object) { o.Boot = thisBoot })
			b.after(0)
			b.wantPin(b.pin.String())
			b.wantState(State{Enrolled: true})
		}},
		{"a pin that is removed is written again", func(b *fixture) {
			b.register(thisBoot)
			b.run()
			b.after(20 * time.Minute)
			b.change("MODIFIED", func(o *object) { delete(o.Annotations, PinKey) })
			b.after(firstWait)
			b.wantPin(b.pin.String())
			b.wantState(State{Enrolled: true})
		}},
		{"a pin that is replaced is written again", func(b *fixture) {
			b.register(thisBoot)
			b.run()
			b.after(20 * time.Minute)
			b.annotate(PinKey, thisBoot+":forged")
			b.after(firstWait)
			b.wantPin(b.pin.String())
		}},
		{"whoever goes on replacing it does not make this node flood the API server", func(b *fixture) {
			b.register(thisBoot)
			b.run()
			b.after(time.Minute)
			for range 3600 {
				b.annotate(PinKey, thisBoot+":forged")
				b.after(time.Second)
			}
			if got := b.count("PATCH"); got < 10 || got > 120 {
				b.Errorf("%d patches within an hour", got)
			}
			if s := b.state(); !strings.HasPrefix(s.Why, "something else removes or replaces the pin of Node node-1; ") || s.Enrolled {
				b.Errorf("state %+v", s)
			}
			b.after(longestWait)
			b.wantPin(b.pin.String())
		}},
		{"a new Node of this boot is pinned at once", func(b *fixture) {
			b.register(thisBoot)
			b.run()
			b.after(20 * time.Minute)
			b.remove()
			b.after(time.Minute)
			b.wantState(State{Why: "the Node is not registered yet"})
			b.register(thisBoot)
			b.after(0)
			b.wantPin(b.pin.String())
			b.wantState(State{Enrolled: true})
		}},
		{"a second installation has another secret, and the pin follows", func(b *fixture) {
			b.register(thisBoot)
			b.run()
			b.after(time.Minute)
			b.set(func() { b.pin.Sum = strings.Repeat("b", 64) })
			b.after(localEvery)
			b.wantPin(b.pin.String())
			b.wantState(State{Enrolled: true})
		}},
		{"without a secret nothing is written", func(b *fixture) {
			pin := b.pin
			b.pin = Pin{}
			b.register(thisBoot)
			b.run()
			b.after(time.Minute)
			b.wantPin("")
			b.wantState(State{Why: "this boot has no secret yet; lastgasp-configurator apply makes it"})
			b.set(func() { b.pin = pin })
			b.after(localEvery)
			b.wantPin(b.pin.String())
		}},
		{"what a listener has claimed is shown while the pin is refused, which is asked for ever more rarely", func(b *fixture) {
			b.set(func() { b.refusePatch = http.StatusForbidden })
			b.register(thisBoot)
			b.annotate(ClaimKey, b.pin.String())
			b.run()
			b.after(10 * time.Hour)
			b.wantState(State{Claimed: true,
				Why: `pin this boot to Node node-1: 403 Forbidden: nodes "node-1" is forbidden: policy lastgasp-pin denied request`})
			if got := b.count("PATCH"); got < 60 || got > 130 {
				b.Errorf("%d patches within 10 hours", got)
			}
			b.set(func() { b.refusePatch = 0 })
			b.after(refusedWait)
			b.wantPin(b.pin.String())
			b.wantState(State{Enrolled: true, Claimed: true})
		}},
		{"a claim of another secret is none", func(b *fixture) {
			b.set(func() { b.refusePatch = http.StatusForbidden })
			b.register(thisBoot)
			b.annotate(ClaimKey, thisBoot+":forged")
			b.run()
			b.after(time.Second)
			if s := b.state(); s.Claimed || s.Enrolled {
				b.Errorf("state %+v", s)
			}
		}},
		{"an API server that fails for a while is found again", func(b *fixture) {
			b.set(func() { b.refuse = http.StatusServiceUnavailable })
			b.register(thisBoot)
			b.run()
			b.after(time.Hour)
			if s := b.state(); s.Why != b.files[0]+": ask who these credentials are: 503 Service Unavailable: no [31m thanks" {
				b.Errorf("state %+v", s)
			}
			if got := b.count("POST"); got < 50 || got > 130 {
				b.Errorf("it asked %d times within an hour", got)
			}
			b.set(func() { b.refuse = 0 })
			b.after(longestWait)
			b.wantState(State{Enrolled: true})
		}},
		{"a watch that is cut off is begun again, and the pin still counts meanwhile", func(b *fixture) {
			b.register(thisBoot)
			b.run()
			b.after(2 * time.Minute)
			b.set(func() { b.refuse = http.StatusServiceUnavailable; b.cut++ })
			b.after(10 * time.Second)
			if s := b.state(); !s.Enrolled || s.Why == "" {
				b.Errorf("state %+v", s)
			}
			b.change("MODIFIED", func(o *object) { delete(o.Annotations, PinKey) })
			b.set(func() { b.refuse = 0 })
			b.after(longestWait)
			b.wantPin(b.pin.String())
			b.wantState(State{Enrolled: true})
		}},
		{"a watch too old for the server is begun anew", func(b *fixture) {
			b.register(thisBoot)
			b.run()
			b.after(time.Minute)
			b.set(func() { b.version += 100; b.oldest = b.version })
			b.change("MODIFIED", func(o *object) { delete(o.Annotations, PinKey) })
			b.after(longestWait)
			b.wantPin(b.pin.String())
			b.wantState(State{Enrolled: true})
		}},
		{"watches that a proxy ends at once are not asked for without a pause", func(b *fixture) {
			b.set(func() { b.short = true })
			b.register(thisBoot)
			b.run()
			b.after(time.Hour)
			if got := b.count("WATCH"); got < 50 || got > 130 {
				b.Errorf("%d watches within an hour", got)
			}
			if s := b.state(); !s.Enrolled || s.Why != "watch Node node-1: the server ended it at once" {
				b.Errorf("state %+v", s)
			}
		}},
		{"a day in which nothing happens costs some hundred watches and no other request", func(b *fixture) {
			b.register(thisBoot)
			b.run()
			b.after(24 * time.Hour)
			b.wantState(State{Enrolled: true})
			if got := b.count("WATCH"); got < 144 || got > 288 {
				b.Errorf("%d watches", got)
			}
			if got, want := [3]int{b.count("POST"), b.count("GET"), b.count("PATCH")}, [3]int{1, 1, 1}; got != want {
				b.Errorf("reviews, lists and patches: %v, want %v", got, want)
			}
		}},
		{"what a cache has not seen yet is no tampering", func(b *fixture) {
			b.register(thisBoot)
			b.annotate("example.com/a", "1")
			b.annotate("example.com/a", "2")
			b.set(func() { b.stale = true })
			b.run()
			b.after(time.Second)
			b.wantState(State{Enrolled: true})
			if got := b.count("PATCH"); got != 1 {
				b.Errorf("%d patches", got)
			}
		}},
		{"a kubeconfig that appears later is found", func(b *fixture) {
			there := b.files
			b.set(func() { b.files = []string{"/none/kubeconfig", "/none/kubelet.conf"} })
			b.e.Kubeconfigs = func() ([]string, error) { b.mu.Lock(); defer b.mu.Unlock(); return b.files, nil }
			b.register(thisBoot)
			b.run()
			b.after(time.Hour)
			if s := b.state(); s.Why != "this machine is not a Kubernetes node yet: /none/kubeconfig or /none/kubelet.conf does not exist" {
				b.Errorf("state %+v", s)
			}
			b.set(func() { b.files = there })
			b.after(localEvery)
			b.wantPin(b.pin.String())
		}},
		{"the first of several kubeconfigs that belongs to a node is used", func(b *fixture) {
			b.files = []string{"testdata/invalid-exec-other.kubeconfig", b.files[0]}
			b.register(thisBoot)
			b.run()
			b.after(time.Second)
			b.wantPin(b.pin.String())
		}},
		{"what a former process has written is known to the next one", func(b *fixture) {
			if err := (State{Enrolled: true, Node: "node-1", Kubeconfig: b.files[0], Pin: b.pin.String()}).write(b.e.StateFile); err != nil {
				b.Fatal(err)
			}
			b.set(func() { b.refuse = http.StatusServiceUnavailable })
			b.run()
			b.after(time.Second)
			if s := b.state(); !s.Enrolled || s.Why == "" {
				b.Errorf("state %+v", s)
			}
		}},
		{"credentials that are no node's are not used", func(b *fixture) {
			b.set(func() { b.user = "admin\n" })
			b.register(thisBoot)
			b.run()
			b.after(time.Minute)
			b.wantPin("")
			if s := b.state(); s.Why != b.files[0]+`: these credentials belong to "admin", which is not a node; set enroll.kubeconfig to the kubelet's own` {
				b.Errorf("state %+v", s)
			}
		}},
		{"a node's name outside of system:nodes is not used", func(b *fixture) {
			b.set(func() { b.groups = []string{"system:authenticated"} })
			b.register(thisBoot)
			b.run()
			b.after(time.Minute)
			b.wantPin("")
			if s := b.state(); !strings.Contains(s.Why, "outside of the group system:nodes") {
				b.Errorf("state %+v", s)
			}
		}},
		{"a certificate that was rotated is used by the next connection", func(b *fixture) {
			b.register(thisBoot)
			b.run()
			b.after(time.Minute)
			b.rotate(200)
			b.set(func() { b.cut++ })
			b.after(longestWait)
			b.mu.Lock()
			defer b.mu.Unlock()
			if first, last := b.serials[0], b.serials[len(b.serials)-1]; first != 100 || last != 200 {
				b.Errorf("certificates %v", b.serials)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) { bubble(t, tt.run) })
	}
}

func TestOnce(t *testing.T) {
	bubble(t, func(b *fixture) {
		ctx := context.Background()
		if s, err := b.e.Once(ctx); err == nil || err.Error() != "the Node is not registered yet" || s.Enrolled {
			t.Errorf("without a Node: %+v, %v", s, err)
		}
		b.register(thisBoot)
		if s, err := b.e.Once(ctx); err != nil || !s.Enrolled {
			t.Errorf("with one: %+v, %v", s, err)
		}
		b.wantPin(b.pin.String())
		b.wantState(State{Enrolled: true})
		b.set(func() { b.refuse = http.StatusUnauthorized })
		if _, err := b.e.Once(ctx); err == nil || !strings.Contains(err.Error(), "401 Unauthorized") {
			t.Errorf("refused: %v", err)
		}
		b.wantState(State{Enrolled: true}) // which is what watch has seen last
		b.after(time.Minute)               // idle connections end
	})
}

func TestCordon(t *testing.T) {
	bubble(t, func(b *fixture) {
		ctx := context.Background()
		if _, err := b.e.Cordon(ctx); err == nil || !strings.Contains(err.Error(), "cordon Node node-1: the Node is not registered yet; do it with kubectl cordon node-1") {
			t.Errorf("without a Node: %v", err)
		}
		b.register(thisBoot)
		if name, err := b.e.Cordon(ctx); name != "node-1" || err != nil {
			t.Errorf("with one: %q, %v", name, err)
		}
		if diff := cmp.Diff([]string{`{"metadata":{"uid":"uid-1"},"spec":{"unschedulable":true}}`}, b.patches); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		b.set(func() { b.refusePatch = http.StatusForbidden })
		if _, err := b.e.Cordon(ctx); err == nil || !strings.Contains(err.Error(), "403 Forbidden") || !strings.Contains(err.Error(), "kubectl cordon node-1") {
			t.Errorf("refused: %v", err)
		}
		b.after(time.Minute) // idle connections end
	})
}

// A server that the kubeconfig's authority does not vouch for is told nothing.
func TestServerWithAnotherAuthority(t *testing.T) {
	asked := make(chan string, 10)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.Path }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	a := &api{url: server.URL, ca: issue(t, nil, 1).cert}
	file, _ := a.kubeconfig(t)
	e := Enroller{
		Kubeconfigs: func() ([]string, error) { return []string{file}, nil },
		Pin:         func() (Pin, error) { return Pin{Boot: thisBoot, Sum: "a"}, nil },
		StateFile:   filepath.Join(t.TempDir(), "enroll.json"),
		Log:         slog.New(slog.DiscardHandler),
	}
	if _, err := e.Once(t.Context()); err == nil || !strings.Contains(err.Error(), "x509: ") {
		t.Errorf("error %v", err)
	}
	if len(asked) > 0 {
		t.Errorf("it was asked for %s", <-asked)
	}
}

func TestPace(t *testing.T) {
	down := errors.New("connection refused")
	forbidden := fmt.Errorf("pin: %w", &apiError{code: http.StatusForbidden})
	busy := fmt.Errorf("pin: %w", &apiError{code: http.StatusTooManyRequests})
	lost := fmt.Errorf("watch: EOF%w", errLost)
	var p pace
	for i, s := range []struct {
		lasted time.Duration
		err    error
		want   time.Duration // with chance 1
	}{
		{0, down, 2 * time.Second},
		{time.Second, down, 4 * time.Second},
		{time.Second, busy, 8 * time.Second},
		{time.Hour, down, 2 * time.Second}, // it went well for long
		{0, down, 4 * time.Second},
		{0, down, 8 * time.Second},
		{0, down, 16 * time.Second},
		{0, down, 32 * time.Second},
		{0, down, time.Minute},
		{0, busy, time.Minute},
		{0, forbidden, 2 * time.Minute},
		{0, forbidden, 4 * time.Minute},
		{0, forbidden, 8 * time.Minute},
		{0, forbidden, 10 * time.Minute},
		{0, down, time.Minute},
		{time.Hour, lost, 30 * time.Second},
		{time.Second, lost, time.Minute},
	} {
		before := p
		if got := p.next(s.lasted, s.err, 1); got != s.want {
			t.Errorf("step %d: %v, want %v", i, got, s.want)
		}
		if got := before.next(s.lasted, s.err, 0); got != s.want/2 {
			t.Errorf("step %d at the least: %v, want %v", i, got, s.want/2)
		}
	}
}

func TestStateForPeople(t *testing.T) {
	for _, tt := range []struct {
		name string
		s    State
		want string
	}{
		{"enrolled", State{Enrolled: true, Node: "node-1", Kubeconfig: "/etc/kubernetes/kubelet.conf"},
			"as node-1, with /etc/kubernetes/kubelet.conf"},
		{"enrolled, out of sight", State{Enrolled: true, Node: "node-1", Why: "connection refused"},
			"as node-1, but the Node cannot be watched: connection refused"},
		{"claimed", State{Claimed: true, Why: "403 Forbidden"},
			"NO, only claimed by a listener, so a death waits for a witness: 403 Forbidden"},
		{"neither", State{Why: "the Node is not registered yet"}, "NO, so a death waits for a witness: the Node is not registered yet"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.s.String(); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}
