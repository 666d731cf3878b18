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
	if _, whole := n.known[long]; whole || len(n.known) != len(want) {
		t.Errorf("%d names are known, want %d, and the long one cut", len(n.known), len(want))
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

// Whoever forges a trace chooses its names and how many there are.
func TestFramesOfATraceAreBounded(t *testing.T) {
	lines := []line{{text: "Kernel panic - not syncing: x", kernel: true}}
	for i := range maxTail {
		if i%100 == 0 {
			lines = append(lines, line{text: "Call Trace:", kernel: true})
		}
		lines = append(lines, line{text: fmt.Sprintf(" xas_made_up_%d+0x1/0x2", i), kernel: true}) // it serves whoever called it
	}
	for _, rule := range []*Rule{{Verdict: Dying}, {Verdict: Sick, stalls: true}} {
		readTrace(lines, rule, "")
		looked := 0
		library.mu.Lock()
		for name := range library.known {
			if strings.HasPrefix(name, "xas_made_up_") {
				looked++
			}
		}
		clear(library.known)
		library.mu.Unlock()
		if looked == 0 || looked > allFrames {
			t.Errorf("%d names were looked at, want some, and %d at most", looked, allFrames)
		}
	}
}
