package detect

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	// corroborated is how close in time another line of the same kernel must be to show that a time stamp in the middle of a
	// line is the kernel's.
	corroborated = time.Second
	// maxPending bounds the lines that wait for one.
	maxPending = 64
	// maxEntry and maxPart bound what is collected of an entry of a journal and of pstore's parts, in lines.
	maxEntry = 512
	maxPart  = 4096
	// maxParts bounds the parts.
	maxParts = 256
)

// A LogReader turns the lines of a log into records, whatever wrote the log; see ParseLogLine for what stands in one line.
// Beyond one line it reads journalctl's -o export, verbose and json-pretty, puts the parts of a pstore file in order, and
// finds a kernel message behind a program's unfinished line on a console: its time stamp must fit its neighbours'.
//
// It is a state machine: feed every line, blank ones too, and call Flush at the end. The zero value is ready.
type LogReader struct {
	line         int // number of lines read
	kernel       int // lines that are marked as a kernel's
	first        int // number of the first line that is not, 0 if none
	unrecognised string

	last    time.Duration // uptime of the last record, -1 if unknown
	stamps  bool          // last is known
	strict  bool          // lines of this log have an envelope: bare ones are another program's
	plain   bool          // lines of this log stand for themselves
	pending []glued

	entry entry
	parts []part
}

// glued is a line that may have a kernel's message in its middle.
type glued struct {
	whole, before string
	message       netconsole.Record
}

// middle is the first time stamp that is not at the beginning of a line.
var middle = regexp.MustCompile(kernelStamp)

// Line reads the next line, without its newline, and emits the records that are complete with it.
func (l *LogReader) Line(text string, emit func(*netconsole.Record)) {
	l.line++
	if l.part(text) || l.collect(text, emit) {
		return
	}
	l.single(text, emit)
}

// Flush emits the lines that waited for another one.
func (l *LogReader) Flush(emit func(*netconsole.Record)) {
	if e := l.entry.take(); e != nil {
		l.record(e, emit)
	}
	parts := l.parts
	l.parts = nil
	// pstore numbers the parts from the newest on (fs/pstore/platform.c pstore_dump).
	slices.SortStableFunc(parts, func(a, b part) int {
		return cmp.Or(cmp.Compare(a.dump, b.dump), cmp.Compare(b.number, a.number))
	})
	for _, p := range parts {
		for _, text := range p.lines {
			l.single(text, emit)
		}
	}
	l.release(emit)
}

// Kernel is how many lines are marked as a kernel's.
func (l *LogReader) Kernel() int { return l.kernel }

// Unrecognised is the first line that is not marked as a kernel's, and its number from 1; 0 if all are.
func (l *LogReader) Unrecognised() (number int, text string) { return l.first, l.unrecognised }

// single reads a line that stands for itself.
func (l *LogReader) single(text string, emit func(*netconsole.Record)) {
	if strings.TrimSpace(text) == "" {
		return
	}
	if entry, ok := jsonEntry(text); ok && entry["Output"] != "" {
		l.output(entry, emit)
		return
	}
	r, how := parseLine(text)
	if how <= bare {
		if l.first == 0 {
			l.first, l.unrecognised = l.line, text
		}
	} else {
		l.kernel++
		l.plain = true
		l.strict = l.strict || how == addressed
	}
	switch {
	case how == foreign:
	case how > bare:
		l.corroborate(r.Uptime, emit)
		if r.Uptime >= 0 {
			l.last, l.stamps = r.Uptime, true
		}
		emit(&r)
	case l.takeGlued(text, emit):
	default:
		l.bareLine(r, emit)
	}
}

// bareLine emits a line that does not say whose it is. In a log whose other lines do, it is not the kernel's.
func (l *LogReader) bareLine(r netconsole.Record, emit func(*netconsole.Record)) {
	if len(l.pending) > 0 {
		l.hold(glued{whole: string(r.Text)}, emit)
		return
	}
	if l.strict {
		r.Prefix = 1 << 3
	}
	emit(&r)
}

// takeGlued reports whether the line has a kernel's time stamp in its middle, and then emits or holds it.
func (l *LogReader) takeGlued(text string, emit func(*netconsole.Record)) bool {
	at := middle.FindStringIndex(text)
	if l.strict || at == nil || at[0] == 0 || strings.ContainsAny(text[:at[0]], "\"'`{(=<>") {
		return false // a quotation
	}
	r, how := parseLine(text[at[0]:])
	if how < marked || r.Uptime < 0 {
		return false
	}
	g := glued{whole: text, before: text[:at[0]], message: r}
	if l.stamps && near(l.last, r.Uptime) {
		l.accept(g, emit)
		return true
	}
	if n := len(l.pending); !l.stamps && n > 0 && l.pending[n-1].before == g.before && near(l.pending[n-1].message.Uptime, r.Uptime) {
		// No line of this log begins with a stamp, and this one begins as the one before: it is an envelope.
		l.pending = append(l.pending, g)
		l.corroborate(r.Uptime, emit)
		return true
	}
	l.hold(g, emit)
	return true
}

// near reports whether a message at uptime after closely follows one at uptime before.
func near(before, after time.Duration) bool { return after >= before && after-before <= corroborated }

// hold keeps a line until the next one says what it is.
func (l *LogReader) hold(g glued, emit func(*netconsole.Record)) {
	l.pending = append(l.pending, g)
	if len(l.pending) > maxPending {
		l.release(emit)
	}
}

// accept emits the message that stands in the middle of a line.
func (l *LogReader) accept(g glued, emit func(*netconsole.Record)) {
	l.kernel++
	l.last, l.stamps = g.message.Uptime, true
	emit(&g.message)
}

// corroborate emits the pending lines now that a line of the kernel's with that uptime is known.
func (l *LogReader) corroborate(uptime time.Duration, emit func(*netconsole.Record)) {
	pending := l.pending
	l.pending = nil
	for _, g := range pending {
		if g.message.Text != nil && near(g.message.Uptime, uptime) {
			l.accept(g, emit)
			continue
		}
		emit(&netconsole.Record{Prefix: 1 << 3, Uptime: -1, Text: []byte(g.whole)})
	}
}

// release emits the pending lines as lines of userspace.
func (l *LogReader) release(emit func(*netconsole.Record)) { l.corroborate(-1, emit) }

// output reads the lines in what `aws ec2 get-console-output` prints.
func (l *LogReader) output(entry map[string]string, emit func(*netconsole.Record)) {
	for line := range strings.Lines(entry["Output"]) {
		l.single(strings.TrimRight(line, "\r\n"), emit)
	}
}

// record emits the record of an entry of the journal.
func (l *LogReader) record(e map[string]string, emit func(*netconsole.Record)) {
	if e["Output"] != "" {
		l.output(e, emit)
		return
	}
	r, how := parseEntry(e)
	if how == foreign {
		return
	}
	l.kernel++
	l.strict = true
	emit(&r)
}

// A part is one of the files or sections that pstore cuts a log into.
type part struct {
	dump, number int
	lines        []string
}

// partHead begins a part: "Panic#1 Part2" (fs/pstore/platform.c).
var partHead = regexp.MustCompile(`^(?:Panic|Oops|Emergency|Shutdown|Reboot|Halt|Poweroff|Unknown)#(\d{1,6}) Part(\d{1,6})\s*$`)

// part collects lines behind the heading of a part.
func (l *LogReader) part(text string) bool {
	if l.plain {
		return false // whoever writes such a line into a log must not reorder it
	}
	if m := partHead.FindStringSubmatch(text); m != nil && len(l.parts) < maxParts {
		l.parts = append(l.parts, part{dump: number(m[1]), number: number(m[2])})
		return true
	}
	if len(l.parts) == 0 {
		return false
	}
	p := &l.parts[len(l.parts)-1]
	if len(p.lines) < maxPart {
		p.lines = append(p.lines, text)
	}
	return true
}

// An entry is one of a journal, in a form that takes several lines.
type entry struct {
	form   form
	fields map[string]string
	text   strings.Builder // json-pretty
	binary string          // the key of a field whose value comes on the next line
	lines  int
}

type form int

const (
	none form = iota
	export
	verbose
	pretty
)

var (
	exportField  = regexp.MustCompile(`^([A-Z_][A-Z0-9_]*)=(.*)$`)
	verboseHead  = regexp.MustCompile(`^.{8,80} \[s=[0-9a-f]+;i=`)
	verboseField = regexp.MustCompile(`^    ([A-Z_][A-Z0-9_]*)=(.*)$`)
	exportKey    = regexp.MustCompile(`^[A-Z_][A-Z0-9_]*$`)
)

// take ends an entry, and returns its fields; nil if there is none.
func (e *entry) take() map[string]string {
	fields := e.fields
	if e.form == pretty {
		fields, _ = jsonEntry(strings.ReplaceAll(e.text.String(), "\n", " "))
	}
	*e = entry{}
	return fields
}

// collect reads a line of an entry that takes several, and reports whether it is one.
func (l *LogReader) collect(text string, emit func(*netconsole.Record)) bool {
	if l.plain {
		return false
	}
	e := &l.entry
	if e.lines++; e.lines > maxEntry {
		*e = entry{}
	}
	switch {
	case verboseHead.MatchString(text):
		if done := e.take(); done != nil {
			l.record(done, emit)
		}
		*e = entry{form: verbose, fields: make(map[string]string)}
		return true
	case e.form == none && strings.HasPrefix(text, "__CURSOR="):
		*e = entry{form: export, fields: make(map[string]string)}
		return true
	case e.form == none && strings.TrimSpace(strings.TrimPrefix(text, "\x1e")) == "{":
		*e = entry{form: pretty}
		e.text.WriteString("{")
		return true
	}
	switch e.form {
	case export:
		m := exportField.FindStringSubmatch(text)
		switch {
		case text == "":
			l.record(e.take(), emit)
		case e.binary != "":
			e.fields[e.binary] = text[min(8, len(text)):] // behind its length, eight bytes
			e.binary = ""
		case m != nil:
			e.fields[m[1]] = m[2]
		case exportKey.MatchString(text):
			e.binary = text
		}
		return true
	case verbose:
		if m := verboseField.FindStringSubmatch(text); m != nil {
			e.fields[m[1]] = m[2]
			return true
		}
		if strings.HasPrefix(text, "     ") || text == "" {
			return true // the rest of a message
		}
		l.record(e.take(), emit)
	case pretty:
		e.text.WriteString(text)
		if line := strings.TrimSpace(text); line == "}" || line == "}," {
			if done := e.take(); done != nil {
				l.record(done, emit)
			}
		}
		return true
	}
	return false
}
