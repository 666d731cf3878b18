package detect

import (
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// The ring against a slice that does the same by moving everything.
func TestTheRingKeepsTheNewestLines(t *testing.T) {
	const maxLines, maxBytes = 12, 700
	random := rand.New(rand.NewPCG(1, 2))
	var g ring
	var model []line
	for i := range 5000 {
		text := strings.Repeat(string(rune('a'+i%26)), random.IntN(200))
		uptime := time.Duration(random.Int64N(int64(1e6 * time.Second)))
		if random.IntN(4) == 0 {
			uptime = -1
		}
		stamp := appendStamp(nil, uptime, "")
		kernel := random.IntN(2) == 0

		g.add(maxLines, maxBytes, stamp, []byte(text), kernel)
		model = append(model, line{text: string(stamp) + text, at: len(stamp), kernel: kernel})
		for size(model) > maxBytes || len(model) > maxLines {
			model = model[1:]
		}
		if random.IntN(50) == 0 {
			g.shrink(300)
			for size(model) > 300 {
				model = model[1:]
			}
			if len(g.buf) > 300 {
				t.Fatalf("buffer of %d bytes, shrunk to 300", len(g.buf))
			}
		}
		if diff := cmp.Diff(model, g.all(), cmp.AllowUnexported(line{}), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("after %d lines (-want +got):\n%s", i+1, diff)
		}
		if len(g.buf) > maxBytes {
			t.Fatalf("buffer of %d bytes", len(g.buf))
		}
	}
}

func size(lines []line) int {
	n := 0
	for _, l := range lines {
		n += header + len(l.text)
	}
	return n
}

func TestStampIsThatOfPrintk(t *testing.T) {
	tests := []struct {
		uptime time.Duration
		want   string
	}{
		{-1, ""},
		{0, "[    0.000000] "},
		{3591339 * time.Microsecond, "[    3.591339] "},
		{200100*time.Second + 1234567, "[200100.001234] "},
	}
	for _, tt := range tests {
		if got := string(appendStamp(nil, tt.uptime, "")); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.uptime, got, tt.want)
		}
	}
}

func TestPlain(t *testing.T) {
	for c := range 256 {
		for at := range 8 {
			b := []byte("abcd ~12")
			b[at] = byte(c)
			if got, want := plain(binary.LittleEndian.Uint64(b)), c >= ' ' && c <= '~'; got != want {
				t.Errorf("%q is plain: %t", b, got)
			}
		}
	}
}
