package endpoint

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChoose(t *testing.T) {
	ep := func(host, zone string, priority uint16) Endpoint {
		return Endpoint{Host: host, Port: 6666, Zone: zone, Priority: priority}
	}
	for _, tt := range []struct {
		name string
		list []Endpoint
		n    int
		zone string
		want []string
	}{
		{name: "an empty list", n: 2},
		{name: "fewer than asked for", list: []Endpoint{ep("a", "", 0)}, n: 2, want: []string{"a:6666"}},
		{name: "the same twice counts once", list: []Endpoint{ep("a", "", 0), ep("a", "z1", 0)}, n: 2, want: []string{"a:6666"}},
		{name: "the own zone first", list: []Endpoint{ep("a", "z1", 0), ep("b", "z2", 0), ep("c", "z3", 0)}, n: 1, zone: "z2", want: []string{"b:6666"}},
		{name: "the own zone first, wherever it stands", list: []Endpoint{ep("c", "z3", 0), ep("b", "z2", 0)}, n: 2, zone: "z3", want: []string{"c:6666", "b:6666"}},
		{name: "priority before zone", list: []Endpoint{ep("a", "z1", 10), ep("b", "z2", 0)}, n: 2, zone: "z1", want: []string{"b:6666", "a:6666"}},
		{name: "an unknown zone is nobody's", list: []Endpoint{ep("a", "", 0)}, n: 1, zone: "", want: []string{"a:6666"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, e := range Choose(tt.list, tt.n, tt.zone, "i-0123456789abcdef0", nil) {
				got = append(got, e.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("chosen (-want +got):\n%s", diff)
			}
		})
	}
}

// Two of four listeners are dead, and both are this node's choice: the others of the list are to be used.
func TestChooseAvoidsSilentListeners(t *testing.T) {
	list := []Endpoint{
		{Host: "a", Port: 6666, Zone: "z1"}, {Host: "b", Port: 6666, Zone: "z1"},
		{Host: "c", Port: 6666, Zone: "z2"}, {Host: "d", Port: 6666, Priority: 10},
	}
	const node = "i-0123456789abcdef0"
	ranked := Choose(list, len(list), "z1", node, nil)
	for _, tt := range []struct {
		name   string
		silent []int // of ranked
		n      int
		want   []int
	}{
		{"nobody is silent", nil, 2, []int{0, 1}},
		{"the first is", []int{0}, 2, []int{1, 2}},
		{"the second is: the first stays", []int{1}, 2, []int{0, 2}},
		{"both are", []int{0, 1}, 2, []int{2, 3}},
		{"of another zone or a lower priority is better than silent", []int{0, 1, 2}, 1, []int{3}},
		{"only one is left: a silent one is tried beside it", []int{0, 1, 3}, 2, []int{2, 0}},
		{"all are: as if none were", []int{0, 1, 2, 3}, 2, []int{0, 1}},
		{"one that is not chosen", []int{3}, 2, []int{0, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Choose(list, tt.n, "z1", node, func(e Endpoint) bool {
				return slices.ContainsFunc(tt.silent, func(i int) bool { return ranked[i] == e })
			})
			var want []Endpoint
			for _, i := range tt.want {
				want = append(want, ranked[i])
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("chosen (-want +got):\n%s", diff)
			}
		})
	}
}

// A listener that dies moves its own nodes only, and spreads them over those that are left.
func TestNodesOfASilentListenerSpread(t *testing.T) {
	var five []Endpoint
	for i := range 5 {
		five = append(five, Endpoint{Host: fmt.Sprintf("10.0.%d.10", i), Port: 6666})
	}
	load := make(map[string]int)
	for i := range 10_000 {
		node := fmt.Sprintf("i-%017x", i)
		before := Choose(five, 1, "", node, nil)
		after := Choose(five, 1, "", node, func(e Endpoint) bool { return e == five[0] })
		if before[0] != five[0] && after[0] != before[0] {
			t.Fatalf("%s moved from %s to %s without need", node, before[0], after[0])
		}
		load[after[0].String()]++
	}
	if len(load) != 4 {
		t.Errorf("loads %v, want 4 listeners", load)
	}
	for e, nodes := range load {
		if nodes < 2300 || nodes > 2700 { // 2500 ± 8 %, more than four standard deviations of chance
			t.Errorf("%s serves %d of 10000 nodes, an even share is 2500", e, nodes)
		}
	}
}

// fleet is the choice of many nodes: node → chosen.
func fleet(list []Endpoint, n int) map[string][]string {
	chosen := make(map[string][]string)
	for i := range 10_000 {
		node := fmt.Sprintf("i-%017x", i)
		for _, e := range Choose(list, n, "", node, nil) {
			chosen[node] = append(chosen[node], e.String())
		}
	}
	return chosen
}

func TestAFleetSpreadsEvenlyAndMovesLittle(t *testing.T) {
	var five []Endpoint
	for i := range 5 {
		five = append(five, Endpoint{Host: fmt.Sprintf("10.0.%d.10", i), Port: 6666})
	}
	before := fleet(five, 2)
	load := make(map[string]int)
	for _, chosen := range before {
		for _, e := range chosen {
			load[e]++
		}
	}
	for e, nodes := range load {
		if nodes < 3800 || nodes > 4200 { // 4000 ± 5 %, seven standard deviations of chance
			t.Errorf("%s serves %d of 10000 nodes, an even share is 4000", e, nodes)
		}
	}

	gone := five[0].String()
	after := fleet(five[1:], 2)
	for node, chosen := range before {
		var kept []string
		for _, e := range chosen {
			if e != gone {
				kept = append(kept, e)
			}
		}
		// Whoever was not on the one that went keeps both, in their order; the others keep what is left as their first.
		if diff := cmp.Diff(kept, after[node][:len(kept)]); diff != "" {
			t.Fatalf("%s moved without need (-want +got):\n%s", node, diff)
		}
	}
}

// The order is for good: if it changed with a release, an upgrade would move the fleet.
func TestWeightIsForGood(t *testing.T) {
	if got := weight(Endpoint{Host: "10.0.2.10", Port: 6666}, "i-0123456789abcdef0"); got != wantWeight {
		t.Errorf("weight %#x, want %#x", got, uint64(wantWeight))
	}
}

// wantWeight is the beginning of the SHA-256 of "i-0123456789abcdef0", a NUL and "10.0.2.10:6666", by sha256sum(1).
const wantWeight = 0xd962b1ed681fe8ae
