package endpoint

import (
	"fmt"
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
			for _, e := range Choose(tt.list, tt.n, tt.zone, "i-0123456789abcdef0") {
				got = append(got, e.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("chosen (-want +got):\n%s", diff)
			}
		})
	}
}

// fleet is the choice of many nodes: node → chosen.
func fleet(list []Endpoint, n int) map[string][]string {
	chosen := make(map[string][]string)
	for i := range 10_000 {
		node := fmt.Sprintf("i-%017x", i)
		for _, e := range Choose(list, n, "", node) {
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
