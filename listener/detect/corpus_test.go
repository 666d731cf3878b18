package detect

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// TestCorpus judges everything in testdata and fails on any incident that is missed, wrongly named or not there.
// `go run ./e2e/corpus` prints the table.
func TestCorpus(t *testing.T) {
	expect := readExpectations(t)
	prints := make(fingerprints)
	names := func(pattern string) []string {
		paths, err := filepath.Glob(filepath.Join("testdata", pattern))
		if err != nil || len(paths) == 0 {
			t.Fatalf("no files match %s: %v", pattern, err)
		}
		return paths
	}
	for _, path := range slices.Concat(names("captures/*.jsonl"), names("logs/*.log"), names("written/*/*.log")) {
		f := newFixture(path)
		t.Run(path, func(t *testing.T) {
			want, ok := find(expect, f.keys)
			if !ok {
				t.Fatalf("expect.json has none of %q", f.keys)
			}
			var emitted []Incident
			if filepath.Ext(path) == ".jsonl" {
				emitted = replayCapture(t, path)
			} else {
				emitted = replayLog(t, path)
			}
			checkEmissions(t, emitted)

			var got []string
			for _, inc := range emitted {
				if inc.Complete && inc.Verdict == Dying {
					prints.note(f, inc)
				}
				if inc.Complete {
					got = append(got, fmt.Sprintf("%s %s: %s", inc.Verdict, inc.Cause, inc.Title))
				}
			}
			if missed, wrong := compare(want, got); len(missed) > 0 || len(wrong) > 0 {
				t.Errorf("missed %q, false %q", missed, wrong)
			}
		})
	}
	prints.check(t)
}

// fingerprints are those of deaths, by scenario, kernel and file.
type fingerprints map[string]map[string]map[string]string

func (p fingerprints) note(f fixture, inc Incident) {
	if f.scenario == "" {
		return
	}
	if p[f.scenario] == nil {
		p[f.scenario] = make(map[string]map[string]string)
	}
	if p[f.scenario][f.kernel] == nil {
		p[f.scenario][f.kernel] = make(map[string]string)
	}
	p[f.scenario][f.kernel][f.path] = inc.Fingerprint
}

// check fails if one crash, recorded in both formats and on the serial console, by several kernels and on two architectures,
// has several fingerprints.
func (p fingerprints) check(t *testing.T) {
	t.Helper()
	for scenario, kernels := range p {
		all := make(map[string]bool)
		for _, files := range kernels {
			for _, print := range files {
				all[print] = true
			}
		}
		if len(all) > 1 {
			t.Errorf("%s has several fingerprints: %v", scenario, kernels)
		}
	}
}

// compare takes what was wanted out of what was found, and returns what is left of both.
func compare(want, got []string) (missed, wrong []string) {
	for _, inc := range want {
		inc, optional := strings.CutPrefix(inc, "maybe ")
		i := slices.IndexFunc(got, func(s string) bool { return slices.Contains(alternatives(inc), s) })
		switch {
		case i >= 0:
			got = slices.Delete(slices.Clone(got), i, i+1)
		case !optional:
			missed = append(missed, inc)
		}
	}
	return missed, got
}

// alternatives spells out the {a,b} in s.
func alternatives(s string) []string {
	before, rest, open := strings.Cut(s, "{")
	among, after, shut := strings.Cut(rest, "}")
	if !open || !shut {
		return []string{s}
	}
	var all []string
	for choice := range strings.SplitSeq(among, ",") {
		for _, tail := range alternatives(after) {
			all = append(all, before+choice+tail)
		}
	}
	return all
}

// checkEmissions holds for all sources: every incident is emitted in the right order and once.
func checkEmissions(t *testing.T, emitted []Incident) {
	t.Helper()
	open := false
	var before Verdict
	for i, inc := range emitted {
		switch {
		case inc.Title == "" || strings.Contains(inc.Title, "{in}") || inc.Cause == "" || inc.Time.IsZero():
			t.Errorf("emission %d lacks something: %+v", i, inc)
		case inc.Verdict == Sick && !inc.Complete:
			t.Errorf("emission %d: a sick report that is not complete: %s", i, inc.Title)
		case open && inc.Verdict < before && inc.Verdict > Sick:
			t.Errorf("emission %d: %s became %s", i, before, inc.Verdict)
		case inc.Complete && inc.Verdict > Sick && !open:
			t.Errorf("emission %d: %s was complete before it was emitted", i, inc.Title)
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

// A fixture is one file of the corpus.
type fixture struct {
	path string
	// kernel and scenario are empty for a written log.
	kernel, scenario string
	// keys are the names under which expect.json may list it, the most specific one first.
	keys []string
}

// onlyARM64 is a crash whose fingerprint differs on arm64: a CPU with interrupts off cannot be asked there for its backtrace, so
// that nothing names a function.
const onlyARM64 = "irqs-off"

// newFixture reads the name of a file.
func newFixture(path string) fixture {
	f := fixture{path: path}
	dir, base := filepath.Split(strings.TrimPrefix(path, "testdata/"))
	stem := strings.TrimSuffix(base, filepath.Ext(base))
	if verdict, ok := strings.CutPrefix(dir, "written/"); ok {
		f.keys = []string{verdict + stem}
		return f
	}
	format := filepath.Ext(stem)
	if format != ".basic" && format != ".ext" {
		format = ".log"
	}
	f.kernel, f.scenario, _ = strings.Cut(strings.TrimSuffix(stem, format), "-")
	names := []string{f.kernel + "-" + f.scenario, f.scenario}
	if scenario, ok := strings.CutPrefix(f.scenario, "arm64-"); ok { // a kernel of its own, its scenarios those of all
		f.kernel = f.kernel + "-arm64"
		names = append(names, scenario)
		if scenario != onlyARM64 {
			f.scenario = scenario
		}
	}
	for _, name := range names {
		f.keys = append(f.keys, name+format, name)
	}
	return f
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

// A datagram is a line of a capture.
type datagram struct {
	T       float64        `json:"t"`
	Src     netip.AddrPort `json:"src"`
	Payload []byte         `json:"payload_b64"`
}

// A sender is one source of a capture.
type sender struct {
	stream netconsole.Stream
	source *Source
}

// pusher takes records from the stream to the source.
func (s *sender) pusher(now *time.Time, emit func(Incident)) func(*netconsole.Record) {
	return func(r *netconsole.Record) { s.source.Push(*now, r, emit) }
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
		var d datagram
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
			if id := r.Identity(); id.Secret != "" {
				secrets = append(secrets, string(id.Secret))
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
	var reader LogReader
	push := func(r *netconsole.Record) {
		if r.Uptime > uptime {
			now = now.Add(r.Uptime - uptime)
		}
		if r.Uptime >= 0 {
			uptime = r.Uptime
		}
		s.Push(now, r, emit)
	}
	for line := range linesOf(t, path) {
		reader.Line(string(line), push)
	}
	reader.Flush(push)
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
