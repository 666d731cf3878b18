package detect

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

func TestNamesAreRemembered(t *testing.T) {
	n := newNames(`^(?:foo|bar_\w+)$`)
	long := "bar_" + strings.Repeat("x", maxName)
	want := map[string]bool{"foo": true, "bar_x": true, "bar": false, "xfoo": false, "": false, long: true}
	for range 3 { // the first time it is matched, then it is known
		for function, yes := range want {
			if got := n.has(function); got != yes {
				t.Errorf("has(%q) = %t, want %t", function, got, yes)
			}
		}
	}
	if _, ok := n.known[long]; ok || len(n.known) != len(want)-1 {
		t.Errorf("%d names are known, want all but the long one of %d", len(n.known), len(want))
	}
}

func TestMadeUpNamesAreNotKept(t *testing.T) {
	n := newNames(`^foo$`)
	for i := range 3 * maxNames {
		n.has(fmt.Sprintf("made_up_%d", i))
		if len(n.known) > maxNames {
			t.Fatalf("%d names are known, want %d at most", len(n.known), maxNames)
		}
	}
	if !n.has("foo") || n.has("made_up_0") {
		t.Error("the answer is wrong after names were forgotten")
	}
}

// BenchmarkForgedDeath is the cost of one incident from a sender that makes up a boot for each.
func BenchmarkForgedDeath(b *testing.B) {
	s := NewSource(&Config{}, netip.AddrPort{})
	r := netconsole.Record{Extended: true, Text: []byte("Kernel panic - not syncing: sysrq triggered crash")}
	emitted, i := 0, 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		r.Seq, r.Fields = uint64(i), identity(fmt.Sprint(i), "bGFzdGdhc3AtbGFiLWdhc3A")
		s.Push(start, &r, func(Incident) { emitted++ })
	}
	if emitted < i {
		b.Errorf("%d incidents of %d deaths", emitted, i)
	}
}
