package detect

import (
	"bufio"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// replayCapture feeds a file of datagrams in the format of `lastgasp-listener replay --format=datagrams`.
func replayCapture(t *testing.T, path string) []Incident {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	type sender struct {
		stream netconsole.Stream
		source *Source
	}
	senders := make(map[netip.AddrPort]*sender)
	var incidents []Incident
	emit := func(inc Incident) { incidents = append(incidents, inc) }
	var now time.Time
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var d struct {
			T       float64        `json:"t"`
			Src     netip.AddrPort `json:"src"`
			Payload []byte         `json:"payload_b64"`
		}
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		now = time.Unix(0, int64(d.T*1e9))
		s := senders[d.Src]
		if s == nil {
			s = &sender{source: NewSource(&Config{}, d.Src)}
			senders[d.Src] = s
		}
		push := func(r *netconsole.Record) { s.source.Push(now, r, emit) }
		if err := s.stream.Push(now, d.Payload, push); err != nil {
			t.Errorf("%s: datagram at %v: %v", path, d.T, err)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	for _, s := range senders {
		end := now.Add(time.Hour)
		s.stream.Flush(end, func(r *netconsole.Record) { s.source.Push(now, r, emit) })
		s.source.Flush(end, emit)
	}
	return incidents
}

func TestX(t *testing.T) {
	paths, _ := filepath.Glob("testdata/captures/*.jsonl")
	for _, p := range paths {
		for _, inc := range replayCapture(t, p) {
			t.Logf("%-45s %s %s %v %-15s %q %s %q rel=%q %d", strings.TrimPrefix(p, "testdata/captures/"), inc.Verdict, inc.Authority, inc.Complete, inc.Code, inc.Title, inc.Fingerprint, inc.Identity.Boot, inc.Release, len(inc.Trace))
		}
	}
}
