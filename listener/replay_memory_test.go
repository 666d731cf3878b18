package listener

import (
	"encoding/json"
	"fmt"
	"io"
	"testing"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// endless is a capture that goes on for so many lines: a source that talks, now and then another one that dies.
type endless struct {
	line, lines int
	rest        []byte
}

func (e *endless) Read(p []byte) (int, error) {
	if len(e.rest) == 0 {
		if e.line == e.lines {
			return 0, io.EOF
		}
		e.line++
		text, src := "link becomes ready", nodeA
		if e.line%1000 == 0 {
			text, src = "Kernel panic - not syncing: Fatal exception", node(e.line)
		}
		e.rest, _ = json.Marshal(Datagram{T: float64(e.line), Src: src, Payload: fmt.Appendf(nil, "0,%d,%d,-;%s\n", e.line, e.line*1e6, text)})
		e.rest = append(e.rest, '\n')
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

func TestReplayTakesConstantMemory(t *testing.T) {
	used := func(lines int) (incidents int, bytes int64) {
		heapInUse() // a sync.Pool lets go at the second collection, and other tests have filled some
		before, w := heapInUse(), &measuring{}
		if _, err := Replay(&endless{lines: lines}, w, &detect.Config{}, Datagrams); err != nil {
			t.Fatal(err)
		}
		return w.lines, w.heap - before
	}
	_, short := used(5_000)
	incidents, long := used(50_000)
	if incidents != 50 {
		t.Errorf("%d incidents, want 50", incidents)
	}
	if long > short+256<<10 {
		t.Errorf("a capture ten times as long took %d bytes more", long-short)
	}
}

// measuring measures the heap at every write, while replay still has its state.
type measuring struct {
	lines int
	heap  int64
}

func (m *measuring) Write(b []byte) (int, error) {
	m.lines++
	m.heap = max(m.heap, heapInUse())
	return len(b), nil
}
