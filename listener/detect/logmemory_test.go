package detect

import (
	"strings"
	"testing"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// What a reader keeps while it does not know yet what it reads is bounded in bytes, however long the lines are.
func TestLogReaderKeepsLittle(t *testing.T) {
	const lines, bound = 300, 32 << 20 // bytes
	long := strings.Repeat(" ", 256<<10)
	for _, tt := range []struct{ name, first, line string }{
		{"white space in a document that does not end", `{"a":`, long},
		{"a part of pstore that does not end", "Panic#1 Part1", long + "x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var l LogReader
			ignore := func(*netconsole.Record) {}
			l.Line(tt.first, ignore)
			for range lines {
				l.Line(tt.line, ignore)
			}
			kept := 0
			for _, line := range l.json.lines {
				kept += len(line)
			}
			for _, p := range l.parts {
				for _, line := range p.lines {
					kept += len(line)
				}
			}
			if kept > bound {
				t.Errorf("%d bytes are kept of %d, want %d at most", kept, lines*len(tt.line), bound)
			}
		})
	}
}

// A value is found by every end of its path, so a path of a million names would be a million entries.
func TestFieldsPassOverEndlessPaths(t *testing.T) {
	f := newFields(map[string]any{strings.Repeat("a.", 1000): "x", "_source.message": "hi"})
	if len(f) != 2 || f.text() != "hi" {
		t.Errorf("%d fields, text %q, want 2 and hi", len(f), f.text())
	}
}
