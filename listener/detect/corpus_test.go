package detect

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// TestCorpus judges everything in testdata and fails on any incident that is missed, wrongly named or not there. With -v
// it prints recall and precision.
func TestCorpus(t *testing.T) {
	expect := readExpectations(t)
	scores := make(map[string]*score)
	names := func(pattern string) []string {
		paths, err := filepath.Glob(filepath.Join("testdata", pattern))
		if err != nil || len(paths) == 0 {
			t.Fatalf("no files match %s: %v", pattern, err)
		}
		return paths
	}
	paths := slices.Concat(names("captures/*.jsonl"), names("logs/*.log"), names("written/*/*.log"))
	for _, path := range paths {
		name, err := filepath.Rel("testdata", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			group, keys := keysOf(name)
			want, ok := find(expect, keys)
			if !ok {
				t.Fatalf("expect.json has none of %q", keys)
			}
			var emitted []Incident
			if strings.HasSuffix(name, ".jsonl") {
				emitted = replayCapture(t, path)
			} else {
				emitted = replayLog(t, path)
			}
			checkEmissions(t, emitted)

			var got []string
			for _, inc := range emitted {
				if inc.Complete {
					got = append(got, fmt.Sprintf("%s %s: %s", inc.Verdict, inc.Code, inc.Title))
				}
			}
			if scores[group] == nil {
				scores[group] = new(score)
			}
			missed, wrong := scores[group].count(want, got)
			if len(missed) > 0 || len(wrong) > 0 {
				t.Errorf("missed %q, false %q", missed, wrong)
			}
		})
	}

	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tfiles\tincidents\tmissed\tfalse\trecall\tprecision\t")
	var total score
	for _, group := range slices.Sorted(maps.Keys(scores)) {
		s := scores[group]
		s.print(w, group)
		total.files += s.files
		total.want += s.want
		total.missed += s.missed
		total.wrong += s.wrong
	}
	total.print(w, "total")
	w.Flush()
	t.Logf("\n%s", b.String())
}

// A score counts final incidents.
type score struct{ files, want, missed, wrong int }

func (s *score) count(want, got []string) (missed, wrong []string) {
	s.files++
	for _, inc := range want {
		inc, optional := strings.CutPrefix(inc, "maybe ")
		i := slices.Index(got, inc)
		switch {
		case i >= 0:
			s.want++
			got = slices.Delete(slices.Clone(got), i, i+1)
		case !optional:
			s.want++
			missed = append(missed, inc)
		}
	}
	s.missed += len(missed)
	s.wrong += len(got)
	return missed, got
}

func (s *score) print(w io.Writer, name string) {
	found := s.want - s.missed
	rate := func(n, of int) string {
		if of == 0 {
			return "-"
		}
		return fmt.Sprintf("%.1f %%", 100*float64(n)/float64(of))
	}
	fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%s\t%s\t\n",
		name, s.files, s.want, s.missed, s.wrong, rate(found, s.want), rate(found, found+s.wrong))
}

// checkEmissions holds for all sources: every incident is told in the right order and once.
func checkEmissions(t *testing.T, emitted []Incident) {
	t.Helper()
	open := false
	var before Verdict
	for i, inc := range emitted {
		switch {
		case inc.Title == "" || strings.Contains(inc.Title, "{in}") || inc.Code == "" || inc.Time.IsZero():
			t.Errorf("emission %d lacks something: %+v", i, inc)
		case inc.Verdict == Sick && !inc.Complete:
			t.Errorf("emission %d: a sick report that is not complete: %s", i, inc.Title)
		case open && inc.Verdict < before && inc.Verdict > Sick:
			t.Errorf("emission %d: %s became %s", i, before, inc.Verdict)
		case inc.Complete && inc.Verdict > Sick && !open:
			t.Errorf("emission %d: %s was complete before it was told", i, inc.Title)
		case inc.Complete && len(inc.Fingerprint) != 12:
			t.Errorf("emission %d: fingerprint %q", i, inc.Fingerprint)
		case len(inc.Trace) == 0:
			t.Errorf("emission %d has no trace", i)
		}
		if inc.Verdict > Sick {
			open, before = !inc.Complete, inc.Verdict
		}
	}
	if open {
		t.Error("the last incident never became complete")
	}
}

// keysOf are the names under which expect.json may list a file, the most specific one first, and the group to count it
// with.
func keysOf(name string) (group string, keys []string) {
	stem := strings.TrimSuffix(strings.TrimSuffix(name, ".jsonl"), ".log")
	if key, ok := strings.CutPrefix(stem, "written/"); ok {
		verdict, _, _ := strings.Cut(key, "/")
		return "written/" + verdict, []string{key}
	}
	folder, stem := filepath.Split(stem)
	scenario := strings.TrimSuffix(strings.TrimSuffix(stem, ".basic"), ".ext")
	format := stem[len(scenario):]
	if format == "" {
		format = ".log"
	}
	kernel, short, _ := strings.Cut(scenario, "-")
	return folder + kernel + format, []string{scenario + format, short + format, scenario, short}
}

func readExpectations(t *testing.T) map[string][]string {
	t.Helper()
	b, err := os.ReadFile("testdata/expect.json")
	if err != nil {
		t.Fatal(err)
	}
	var expect map[string][]string
	if err := json.Unmarshal(b, &expect); err != nil {
		t.Fatalf("expect.json: %v", err)
	}
	return expect
}

func find(expect map[string][]string, keys []string) ([]string, bool) {
	for _, key := range keys {
		if want, ok := expect[key]; ok {
			return want, true
		}
	}
	return nil, false
}

// A sender is one source of a capture.
type sender struct {
	stream netconsole.Stream
	source *Source
}

// replayCapture feeds a file of datagrams in the format of `lastgasp-listener replay --format=datagrams`.
func replayCapture(t *testing.T, path string) []Incident {
	t.Helper()
	var incidents []Incident
	emit := func(inc Incident) { incidents = append(incidents, inc) }
	senders := make(map[netip.AddrPort]*sender)
	var secrets []string
	var now time.Time
	for line := range linesOf(t, path) {
		var d struct {
			T       float64        `json:"t"`
			Src     netip.AddrPort `json:"src"`
			Payload []byte         `json:"payload_b64"`
		}
		if err := json.Unmarshal(line, &d); err != nil {
			t.Fatal(err)
		}
		now = time.Unix(0, int64(d.T*1e9))
		s := senders[d.Src]
		if s == nil {
			s = &sender{source: NewSource(&Config{}, d.Src)}
			senders[d.Src] = s
		}
		push := func(r *netconsole.Record) {
			if id := r.Identity(); id.Gasp != "" {
				secrets = append(secrets, string(id.Gasp))
			}
			s.source.Push(now, r, emit)
		}
		if err := s.stream.Push(now, d.Payload, push); err != nil {
			t.Errorf("datagram at %v: %v", d.T, err)
		}
	}
	for _, s := range senders {
		end := now.Add(time.Hour)
		s.stream.Flush(end, func(r *netconsole.Record) { s.source.Push(now, r, emit) })
		s.source.Flush(end, emit)
	}
	for _, inc := range incidents {
		for _, secret := range secrets {
			if strings.Contains(strings.Join(inc.Trace, "\n"), secret) {
				t.Fatalf("the trace of %q has the secret of its boot", inc.Title)
			}
		}
	}
	return incidents
}

// replayLog feeds a text log, as `lastgasp-listener replay --format=log` does. A log has no arrival times; those of its
// sender do.
func replayLog(t *testing.T, path string) []Incident {
	t.Helper()
	var incidents []Incident
	emit := func(inc Incident) { incidents = append(incidents, inc) }
	s := NewSource(&Config{}, netip.AddrPort{})
	now := time.Unix(1, 0)
	var uptime time.Duration
	for line := range linesOf(t, path) {
		r, ok := ParseLogLine(string(line))
		if !ok {
			continue
		}
		if r.Uptime > uptime {
			now = now.Add(r.Uptime - uptime)
		}
		if r.Uptime >= 0 {
			uptime = r.Uptime
		}
		s.Push(now, &r, emit)
	}
	s.Flush(now.Add(time.Hour), emit)
	return incidents
}

// linesOf yields the lines of a file.
func linesOf(t *testing.T, path string) func(yield func([]byte) bool) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return func(yield func([]byte) bool) {
		lines := bufio.NewScanner(bytes.NewReader(b))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if !yield(lines.Bytes()) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
	}
}
