package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestFigures(t *testing.T) {
	for _, tt := range []struct {
		value float64
		unit  string
		want  string
	}{
		{0, "%", "0 %"}, {0.04567, "ms", "0.0457 ms"}, {2.5, "µs", "2.5 µs"}, {271.4, "MiB", "271 MiB"},
		{999.6, "s", "1,000 s"}, {1000, "nodes", "1,000 nodes"}, {422894.4, "records/s", "422,894 records/s"}, {-1234567, "", "-1,234,567 "},
	} {
		if got := figure(tt.value, tt.unit); got != tt.want {
			t.Errorf("%v %s is shown as %q, want %q", tt.value, tt.unit, got, tt.want)
		}
	}
}

func TestReport(t *testing.T) {
	var out strings.Builder
	r := newReport(&out, machine{CPU: "a CPU"})
	r.begin("receive")
	row := Row{Name: "CPU per datagram", On: "1,000 sources", Value: 2.6, Unit: "µs"}
	r.add(row.against("loop", 2).aim("≤ 1.2 ×", false))
	r.add(Row{Name: "lost", Value: 0, Unit: "%"}.against("loop", 0))
	lines := strings.Split(out.String(), "\n")
	column := func(line, text string) int {
		before, _, found := strings.Cut(line, text)
		if !found {
			t.Errorf("%q is not in %q", text, line)
		}
		return utf8.RuneCountInString(before)
	}
	if at := column(lines[2], "goal"); at != column(lines[4], "≤ 1.2 ×") || at+12 != column(lines[4], "no") {
		t.Errorf("the table is not aligned:\n%s", out.String())
	}
	column(lines[4], "1.30 ×")

	file := filepath.Join(t.TempDir(), "bench.json")
	if err := r.save(file, true); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	missed := false
	want := []Row{
		{"receive", "CPU per datagram", "1,000 sources", 2.6, "µs", "loop", 2, 1.3, "≤ 1.2 ×", &missed},
		{Section: "receive", Name: "lost", Unit: "%", Reference: "loop"},
	}
	if diff := cmp.Diff(want, back.Rows); diff != "" || !back.Complete {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}
