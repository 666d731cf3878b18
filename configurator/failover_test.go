package configurator

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/configurator/endpoint"
	"github.com/lastgasp/lastgasp/configurator/nexthop"
)

// fourListeners are more than a node sends to.
var fourListeners = []string{"10.0.2.10:6666", "10.0.3.10:6666", "10.0.4.10:6666", "10.0.5.10:6666"}

// firstTwo are the two of them that a node in a world chooses if all are well.
func firstTwo(t *testing.T) []string {
	t.Helper()
	w := newWorld(t)
	if _, err := w.node(fourListeners...).Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w.listeners()
}

// listeners are those that targets send to, sorted.
func (w *world) listeners() []string {
	var list []string
	for _, st := range w.kernel.targets {
		list = append(list, st.Remote().String())
	}
	slices.Sort(list)
	return list
}

func TestASilentListenerIsReplacedByAnotherOfTheList(t *testing.T) {
	chosen := firstTwo(t)
	for _, tt := range []struct {
		name  string
		fail  func(w *world, listener netip.AddrPort)
		dead  []string
		alive []string
	}{
		{"both chosen ones acknowledge nothing", func(w *world, l netip.AddrPort) { w.deaf[l] = true }, chosen, others(chosen)},
		{"one does not", func(w *world, l netip.AddrPort) { w.deaf[l] = true }, chosen[:1], chosen[1:]},
		{"both cannot be reached, being in the node's own subnet", func(w *world, l netip.AddrPort) { w.routes[l.Addr().String()] = nexthop.ErrNoReply }, chosen, others(chosen)},
		{"one can be reached by a device only that no panic gets through", func(w *world, l netip.AddrPort) { w.routes[l.Addr().String()] = nexthop.ErrUnusable }, chosen[:1], chosen[1:]},
		{"both can be reached by a device only that the kernel refuses", func(w *world, l netip.AddrPort) { w.kernel.refuseTo = append(w.kernel.refuseTo, l) }, chosen, others(chosen)},
		{"one cannot be reached", func(w *world, l netip.AddrPort) { w.routes[l.Addr().String()] = nexthop.ErrNoReply }, chosen[:1], chosen[1:]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			for _, l := range tt.dead {
				tt.fail(w, netip.MustParseAddrPort(l))
			}
			node := w.node(fourListeners...)
			if _, err := node.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			got := w.listeners()
			for _, l := range tt.alive {
				if !slices.Contains(got, l) {
					t.Errorf("armed %v, want %s among them", got, l)
				}
			}
			for _, l := range tt.dead {
				if slices.Contains(got, l) || len(got) != 2 {
					t.Errorf("armed %v, want two without %s", got, l)
				}
			}
			status, err := node.Status(nil)
			if err != nil || status.Verdict != Covered {
				t.Errorf("verdict %s, %v", status.Verdict, err)
			}
			w.kernel.log = nil
			if _, err := node.Apply(t.Context()); err != nil || len(w.kernel.log) > 0 {
				t.Errorf("the next pass goes back to what is silent: %v, %v", w.kernel.log, err)
			}
		})
	}
}

func others(listeners []string) []string {
	return slices.DeleteFunc(slices.Clone(fourListeners), func(l string) bool { return slices.Contains(listeners, l) })
}

func TestAListenerThatIsBackIsUsedAgain(t *testing.T) {
	chosen := firstTwo(t)
	w := newWorld(t)
	w.deaf[netip.MustParseAddrPort(chosen[0])] = true
	node := w.node(fourListeners...)
	if _, err := node.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	clear(w.deaf)
	w.boot = w.boot.Add(-forgiveAfter - time.Minute)
	if _, err := node.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(chosen, w.listeners()); diff != "" {
		t.Errorf("armed (-want +got):\n%s", diff)
	}
}

// A node that is cut off for a while comes back to its own listeners.
func TestANodeThatWasCutOffKeepsItsListeners(t *testing.T) {
	chosen := firstTwo(t)
	for _, tt := range []struct {
		name string
		cut  func(w *world, listener netip.AddrPort)
	}{
		{"it cannot send", func(w *world, l netip.AddrPort) { w.routes[l.Addr().String()] = nexthop.ErrNotReady }},
		{"nothing is heard of it", func(w *world, l netip.AddrPort) { w.deaf[l] = true }},
		{"both", func(w *world, l netip.AddrPort) { w.routes[l.Addr().String()], w.deaf[l] = nexthop.ErrNotReady, true }},
		{"its gateway is gone", func(w *world, l netip.AddrPort) { w.routes[l.Addr().String()], w.deaf[l] = nexthop.ErrNoReply, true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			node := w.node(fourListeners...)
			if _, err := node.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, l := range fourListeners {
				tt.cut(w, netip.MustParseAddrPort(l))
			}
			for range 3 {
				if _, err := node.Apply(t.Context()); err == nil {
					t.Fatal("the pass succeeded")
				}
			}
			clear(w.deaf)
			clear(w.routes)
			if _, err := node.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(chosen, w.listeners()); diff != "" {
				t.Errorf("armed (-want +got):\n%s", diff)
			}
		})
	}
}

// If every listener of the list is silent, what is armed stays: no coverage is worse than doubtful coverage.
func TestWithNobodyListeningSomethingStaysArmed(t *testing.T) {
	w := newWorld(t)
	for _, l := range fourListeners {
		w.deaf[netip.MustParseAddrPort(l)] = true
	}
	node := w.node(fourListeners...)
	for range 3 {
		if _, err := node.Apply(t.Context()); !errors.Is(err, ErrUnproved) {
			t.Fatalf("error %v, want %v", err, ErrUnproved)
		}
		if n := len(w.kernel.targets); n != 2 {
			t.Errorf("%d targets are armed: %v", n, w.listeners())
		}
	}
}

func TestListenersOutsideOfWithinAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		within string
		want   []string
		err    error
	}{
		{"all are within", "10.0.0.0/8", []string{listenerA, listenerB}, nil},
		{"one is not", "10.0.2.0/24", []string{listenerA}, nil},
		{"none is", "192.0.2.0/24", nil, endpoint.ErrNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			node := w.node(listenerA, listenerB)
			node.Config.Endpoint.Within = []netip.Prefix{netip.MustParsePrefix(tt.within)}
			s, err := node.Apply(t.Context())
			if !errors.Is(err, tt.err) {
				t.Errorf("error %v, want %v", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, w.listeners()); diff != "" {
				t.Errorf("armed (-want +got):\n%s", diff)
			}
			if len(tt.want) == 1 && !slices.Contains(s.Passed, fmt.Sprintf("listener %s is outside of endpoint.within", listenerB)) {
				t.Errorf("passed over: %q", s.Passed)
			}
		})
	}
}

// Whoever may write the parameter names his own listener after endpoint.within was set, or had it armed before. The last list
// that was proved is used again, and nothing stays armed towards him.
func TestAListOutsideOfWithin(t *testing.T) {
	for _, tt := range []struct {
		name   string
		armed  string
		reboot bool
		want   []string
		err    error
	}{
		{"what is armed within stays", listenerA, false, []string{listenerA}, nil},
		{"after a reboot the last proved list is used", listenerA, true, []string{listenerA}, nil},
		{"what is armed outside goes", listenerB, false, nil, endpoint.ErrNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			if _, err := w.node(tt.armed).Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			if tt.reboot {
				w.kernel.targets = nil
			}
			node := w.node(listenerB)
			node.Config.Endpoint.Within = []netip.Prefix{netip.MustParsePrefix("10.0.2.0/24")}
			if _, err := node.Apply(t.Context()); !errors.Is(err, tt.err) {
				t.Errorf("error %v, want %v", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, w.listeners()); diff != "" {
				t.Errorf("armed (-want +got):\n%s", diff)
			}
		})
	}
}

// A listener outside of endpoint.within goes at once, also where the one that takes its place does not answer.
func TestATargetOutsideOfWithinWaitsForNoOther(t *testing.T) {
	w := newWorld(t)
	if _, err := w.node(listenerB).Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.deaf[netip.MustParseAddrPort(listenerA)] = true
	node := w.node(listenerA)
	node.Config.Endpoint.Within = []netip.Prefix{netip.MustParsePrefix("10.0.2.0/24")}
	if _, err := node.Apply(t.Context()); !errors.Is(err, ErrUnproved) {
		t.Errorf("error %v, want ErrUnproved", err)
	}
	if diff := cmp.Diff([]string{listenerA}, w.listeners()); diff != "" {
		t.Errorf("armed (-want +got):\n%s", diff)
	}
}
