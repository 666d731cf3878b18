package cleanup

import (
	"context"
	"errors"
	"fmt"
	"github.com/lastgasp/lastgasp/listener/policy"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

func TestOfferNeverBlocks(t *testing.T) {
	w := newWorld(t)
	e := NewEngine(testPolicy(), w, nil, "a", nil) // nobody runs it
	for lane, first := range map[int]int{unknowns: 20000, strangers: 10000, verified: 0} {
		most, _, _ := bounds(lane)
		taken := 0
		for i := range 3 * most {
			secret := netconsole.Secret("")
			if lane != unknowns {
				w.addNode(first+i, fmt.Sprint("boot ", first+i), secret1)
			}
			if lane == verified {
				secret = secret1
			}
			if e.Offer(incident(first+i, fmt.Sprint("boot ", first+i), secret)) {
				taken++
			}
		}
		if taken != most {
			t.Errorf("lane %d: %d addresses taken before it was full, want %d", lane, taken, most)
		}
	}
	if !e.Offer(detect.Incident{Verdict: detect.Sick}) {
		t.Error("no room for a finding though only the intake of the dying is full")
	}
	id := netconsole.Identity{Boot: boot1, Secret: secret1}
	for range intakeSize {
		e.Canary(address(1), id, time.Time{})
	}
	if e.Canary(address(1), id, time.Time{}) {
		t.Error("a canary taken though there is no room")
	}
	if !e.Canary(address(1), netconsole.Identity{}, time.Time{}) {
		t.Error("a canary without identity offered again and again")
	}
}

// Of one address the latest few wait: a node that dies says nothing after that.
func TestIntakeOfOneAddress(t *testing.T) {
	in := newIntake()
	put := func(src, boot int) {
		inc := incident(src, fmt.Sprint("boot ", boot), "")
		if !in.put(&heard{key: keyOf(inc), lane: strangers, inc: inc}) {
			t.Fatal("not taken")
		}
	}
	for boot := range 1000 {
		put(1, boot)
	}
	put(2, 1)
	var got []string
	take := func(at time.Duration) *heard {
		h, wait := in.take(noon.Add(at))
		if h == nil {
			got = append(got, fmt.Sprint("wait ", wait))
			return nil
		}
		got = append(got, fmt.Sprint(h.key.src, " ", h.key.boot))
		return h
	}
	first := take(0)
	take(0) // the other address has its turn
	take(0) // one of an address at a time
	in.done(noon, first, true)
	take(time.Second) // and then a pause
	second := take(pauseAfter)
	in.done(noon, second, false)
	take(pauseAfter)
	if diff := cmp.Diff([]string{
		"10.0.0.1 boot 996", "10.0.0.2 boot 1", "wait 0s", "wait 9s", "10.0.0.1 boot 997", "10.0.0.1 boot 998",
	}, got); diff != "" {
		t.Errorf("taken (-want +got):\n%s", diff)
	}
}

func TestClaims(t *testing.T) {
	id := func(i int, boot string, g netconsole.Secret) netconsole.Identity {
		return netconsole.Identity{Instance: fmt.Sprintf("i-%d", i), Boot: boot, Secret: g}
	}
	for _, tt := range []struct {
		name  string
		story func(w *world, canary func(i int, id netconsole.Identity))
		want  policy.Pin // the claim of n1
		tally string
	}{
		{
			name: "the first canary of a boot claims it, later ones do not",
			story: func(w *world, canary func(int, netconsole.Identity)) {
				canary(1, id(1, boot1, "first"))
				canary(1, id(1, boot1, "second"))
				canary(1, id(1, boot1, "first"))
			},
			want: policy.Pin{Boot: boot1, Sum: netconsole.Secret("first").Sum()}, tally: "claimed refused",
		},
		{
			name: "the next boot is claimed anew, once the kubelet reports it",
			story: func(w *world, canary func(int, netconsole.Identity)) {
				canary(1, id(1, boot1, "first"))
				canary(1, id(1, boot2, "of the next boot"))
				pass(30 * time.Second)
				if w.node("n1").Claim.Boot != boot1 {
					w.t.Error("a boot that nobody reported is claimed")
				}
				w.reboots(1, boot2)
			},
			want: policy.Pin{Boot: boot2, Sum: netconsole.Secret("of the next boot").Sum()}, tally: "claimed waiting claimed",
		},
		{
			name: "a canary waits for its Node to be registered",
			story: func(w *world, canary func(int, netconsole.Identity)) {
				n := w.node("n1")
				w.set(func() { delete(w.nodes, "n1") })
				canary(1, id(1, boot1, "first"))
				canary(1, id(1, boot1, "second")) // comes second, also when both wait
				pass(5 * time.Minute)
				w.set(func() { w.nodes["n1"] = n })
				canary(1, id(1, boot1, "second")) // and now that the Node is there
			},
			want: policy.Pin{Boot: boot1, Sum: netconsole.Secret("first").Sum()}, tally: "waiting claimed",
		},
		{
			name: "a canary waits for the API server",
			story: func(w *world, canary func(int, netconsole.Identity)) {
				w.set(func() { w.down = true })
				canary(1, id(1, boot1, "first"))
				pass(time.Minute)
				w.set(func() { w.down = false })
			},
			want: policy.Pin{Boot: boot1, Sum: netconsole.Secret("first").Sum()}, tally: "waiting claimed",
		},
		{
			name: "a canary from another address than the node's own",
			story: func(w *world, canary func(int, netconsole.Identity)) {
				canary(2, id(1, boot1, "first"))
				pass(claimDeadline)
			},
			tally: "waiting given up",
		},
		{
			name: "a boot that the node pinned itself",
			story: func(w *world, canary func(int, netconsole.Identity)) {
				change(w, func(n *policy.Node) { n.Pin = policy.Pin{Boot: boot1, Sum: netconsole.Secret("its own").Sum()} })
				canary(1, id(1, boot1, "its own"))
				canary(1, id(1, boot1, "another"))
			},
			tally: "known refused",
		},
		{
			name:  "a kernel without userdata",
			story: func(w *world, canary func(int, netconsole.Identity)) { canary(1, netconsole.Identity{}) },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.unpin()
				var results []string
				e := NewEngine(testPolicy(), w, nil, "a", nil)
				e.Observer.Claimed = func(r policy.Claiming) { results = append(results, string(r)) }
				ctx, cancel := context.WithCancel(t.Context())
				defer func() { cancel(); synctest.Wait() }()
				go e.Run(ctx)
				tt.story(w, func(i int, id netconsole.Identity) {
					if !e.Canary(address(i), id, time.Now()) {
						t.Fatal("canary not taken")
					}
					pass(time.Millisecond)
				})
				pass(time.Minute)
				if got := w.node("n1").Claim; got != tt.want {
					t.Errorf("claim %+v, want %+v", got, tt.want)
				}
				if got := strings.Join(results, " "); got != tt.tally {
					t.Errorf("results %q, want %q", got, tt.tally)
				}
			})
		})
	}
}

func TestCanariesOfManyNodes(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const nodes = 200
		for i := 10; i < 10+nodes; i++ {
			w.addNode(i, fmt.Sprint("boot ", i), "")
		}
		w.set(func() { w.latency = 10 * time.Millisecond })
		finds := 0
		e, _ := run(t, testPolicy(), faulty{world: w, before: func(_ context.Context, call string) error {
			if call == "FindNode" {
				w.set(func() { finds++ })
			}
			return nil
		}}, "a")
		for range 3 { // rounds
			for i := 10; i < 10+nodes; i++ {
				id := netconsole.Identity{Instance: fmt.Sprintf("i-%d", i), Boot: fmt.Sprint("boot ", i), Secret: "secret"}
				for !e.Canary(address(i), id, time.Now()) {
					pass(10 * time.Millisecond)
				}
			}
			pass(10 * time.Minute)
		}
		claimed := 0
		for _, c := range w.log() {
			if strings.HasPrefix(c, "claim ") {
				claimed++
			}
		}
		if claimed != nodes || finds != nodes {
			t.Errorf("%d nodes claimed with %d look-ups, want %d each: what is known is not asked for again", claimed, finds, nodes)
		}
	})
}

func TestReports(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		e, _ := run(t, testPolicy(), w, "a")
		oops := incident(1, boot1, secret1)
		oops.Verdict, oops.Cause, oops.Title, oops.Remedy = detect.Oops, "KernelOops", "null dereference in foo", "update to 6.12.9"
		sick := oops
		sick.Verdict, sick.Cause = detect.Sick, "TaskHung"
		text := sick
		text.Authority, text.Cause = detect.Text, "SoftLockup"
		for range 30 { // five minutes of it
			offer(t, w, oops, e)
			offer(t, w, sick, e)
			offer(t, w, text, e)
			pass(10 * time.Second)
		}
		pass(5 * time.Minute)
		offer(t, w, oops, e)
		pass(time.Second)
		var got []string
		w.set(func() {
			for _, ev := range w.events {
				got = append(got, fmt.Sprintf("%s %s %s: %s", ev.Node.Name, ev.Reason, ev.Action, ev.Note))
			}
		})
		if diff := cmp.Diff([]string{
			"n1 KernelOops Record: null dereference in foo; update to 6.12.9",
			"n1 TaskHung Record: null dereference in foo; update to 6.12.9",
			"n1 KernelOops Record: null dereference in foo; update to 6.12.9",
		}, got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if len(w.log()) != 0 {
			t.Errorf("written: %q", w.log())
		}
	})
}

func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { q.run(ctx); close(done) }()
		inFlight, most := 0, 0
		var order []string
		gate := make(chan struct{}, 1) // a mutex that synctest can wait for
		call := func(name string) func(context.Context, int) {
			return func(context.Context, int) {
				gate <- struct{}{}
				order = append(order, name)
				inFlight++
				most = max(most, inFlight)
				<-gate
				time.Sleep(time.Second)
				gate <- struct{}{}
				inFlight--
				<-gate
			}
		}
		blocker := q.submit(ctx, tidying, callsInFlight, call("first"))
		synctest.Wait()
		late := []<-chan struct{}{
			q.submit(ctx, tidying, 1, call("tidy")),
			q.submit(ctx, failing, 40, call("fail a")),
			q.submit(ctx, failing, 40, call("fail b")),
			q.submit(ctx, fencing, 1, call("fence")),
		}
		<-blocker
		for _, d := range late {
			<-d
		}
		if most != callsInFlight {
			t.Errorf("%d calls in flight at most, want %d", most, callsInFlight)
		}
		rest := order[callsInFlight:]
		last := len(rest) % callsInFlight // calls that begin at one instant do so in any order
		if !slices.Contains(rest[:callsInFlight], "fence") || !slices.Contains(rest[len(rest)-last:], "tidy") {
			t.Errorf("want fence at first and tidy at last: %q", rest)
		}
		round := rest[:callsInFlight]
		a := len(slices.DeleteFunc(slices.Clone(round), func(s string) bool { return s != "fail a" }))
		if a < callsInFlight/2-1 || a > callsInFlight/2 {
			t.Errorf("%d of %d calls for a, want half", a, len(round))
		}

		// What belongs to an ended context is dropped, and nobody waits for it for ever.
		own, stop := context.WithCancel(ctx)
		ran := 0
		dropped := q.submit(own, tidying, 1000, func(ctx context.Context, _ int) {
			gate <- struct{}{}
			ran++
			<-gate
			<-ctx.Done()
		})
		synctest.Wait()
		stop()
		<-dropped
		if ran != callsInFlight {
			t.Errorf("%d calls ran, want those %d that were under way", ran, callsInFlight)
		}
		hung := errors.New("still running")
		<-q.submit(ctx, tidying, 1, func(ctx context.Context, _ int) { <-ctx.Done(); hung = ctx.Err() })
		if !errors.Is(hung, context.DeadlineExceeded) {
			t.Errorf("a call that hangs: %v, want a deadline", hung)
		}
		cancel()
		<-done
		<-q.submit(ctx, tidying, 1, func(context.Context, int) { t.Error("a call ran after the end") })
	})
}

func TestDualStackNodeIsOneIncident(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		v6 := netip.MustParseAddr("fd00::1")
		change(w, func(n *policy.Node) { n.Addresses = append(n.Addresses, v6) })
		w.panics(1)
		e, _ := run(t, testPolicy(), w, "a")
		inc := incident(1, boot1, secret1)
		offer(t, w, inc, e)
		inc.Source = netip.AddrPortFrom(v6, 6665)
		offer(t, w, inc, e)
		pass(time.Minute)
		w.cleanedOnce(pods)
	})
}

// Traces may be long, and the API server away.
func TestTracesThatWaitAreBounded(t *testing.T) {
	for lane := range lanes {
		in := newIntake()
		_, most, _ := bounds(lane)
		for i := range 500 {
			for boot := range perAddress {
				inc := incident(i, fmt.Sprint("boot ", boot), "")
				inc.Trace = slices.Repeat([]string{strings.Repeat("x", 1000)}, 128)
				in.put(&heard{key: keyOf(inc), lane: lane, inc: inc})
			}
		}
		bytes := 0
		for _, h := range in.all() {
			bytes += h.inc.TraceSize()
		}
		if l := &in.lanes[lane]; bytes != l.bytes || bytes > 5*most {
			t.Errorf("lane %d: %d bytes wait, %d counted, want %d and little more", lane, bytes, l.bytes, most)
		}
	}
	bubble(t, func(t *testing.T, w *world) {
		for i := 10; i < 600; i++ {
			w.addNode(i, fmt.Sprint("boot ", i), secret1)
		}
		w.set(func() { w.down = true })
		e, _ := run(t, testPolicy(), w, "a")
		for range 3 {
			for i := 10; i < 600; i++ {
				inc := incident(i, fmt.Sprint("boot ", i), secret1)
				inc.Trace = slices.Repeat([]string{strings.Repeat("x", 1000)}, 128)
				e.Offer(inc)
				inc.Complete, inc.Trace = true, append(inc.Trace, inc.Trace...)
				e.Offer(inc)
			}
			pass(time.Second)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		bytes := 0
		for _, h := range e.heard {
			bytes += h.inc.TraceSize()
			if h.later != nil { // where an emission of the third round found room
				bytes += h.later.TraceSize()
			}
		}
		if bytes != e.traces || bytes > 2*maxTraces {
			t.Errorf("%d bytes in hand, %d counted, want %d and little more", bytes, e.traces, maxTraces)
		}
	})
}
