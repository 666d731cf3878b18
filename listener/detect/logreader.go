package detect

import (
	"cmp"
	"iter"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/lastgasp/lastgasp/listener/lazyregexp"
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
	// maxParts bounds the parts, and maxPartBytes what is collected of all of them.
	maxParts     = 256
	maxPartBytes = 16 << 20
)

// A LogReader turns the lines of a log into records, whatever wrote the log; see ParseLogLine for what stands in one line.
// Beyond one line it reads JSON documents, spreadsheets and journalctl's -o export and verbose, puts the parts of a pstore file in
// order, and finds a kernel message behind a program's unfinished line on a console: its time stamp must fit its neighbours'.
//
// A record has the fields KeyHost and KeyTime where its line says so.
//
// It is a state machine: feed every line, blank ones too, and call Flush at the end. The zero value is ready.
type LogReader struct {
	line         int // number of lines read
	kernel       int // lines that are marked as a kernel's
	first        int // number of the first line that is not, 0 if none
	unrecognised string

	last     time.Duration // uptime of the last record, -1 if unknown
	stamps   bool          // last is known
	strict   bool          // lines of this log have an envelope: bare ones are another program's
	plain    bool          // lines of this log stand for themselves
	pending  []glued
	envelope string // in front of the stamps of this log, if it is of no known form

	entry entry
	json  document
	sheet sheet
	parts []part
	held  int // bytes of the parts

	margin  margin
	patch   bool              // in a patch, or behind the header of a commit
	mail    bool              // that came by mail
	partial map[string]string // beginnings of a container's lines, by stream
	wrapped string            // a line that is as wide as a terminal
}

// An emitter takes the records of a log.
type emitter = func(*netconsole.Record)

// glued is a line that may have a kernel's message in its middle.
type glued struct {
	whole, before string
	message       netconsole.Record
	quoted        bool // in YAML's quotes, which are a program's in a log whose lines stand for themselves
}

// middle is the first time stamp that is not at the beginning of a line.
var middle = lazyregexp.New(kernelStamp)

// Line reads the next line, without its newline, and emits the records that are complete with it.
func (l *LogReader) Line(text string, emit func(*netconsole.Record)) {
	l.line++
	if l.row(text, emit) || l.document(text, emit) || l.part(text) || l.collect(text, emit) {
		return
	}
	l.single(text, emit)
}

// More reads the rest of a line of which Line got the beginning only. Only JSON has lines that are too long to be read at once;
// the rest of any other is ignored.
func (l *LogReader) More(text string, emit func(*netconsole.Record)) {
	if l.json.active() {
		l.more(text, emit)
	}
}

// Flush emits the lines that waited for another one.
func (l *LogReader) Flush(emit func(*netconsole.Record)) {
	if e := l.entry.take(); e != nil {
		l.record(e, emit)
	}
	l.abandonRow(emit)
	l.abandon(emit)
	defer l.flushPieces(emit)
	parts := l.parts
	l.parts, l.held = nil, 0
	// pstore numbers the parts from the newest on (fs/pstore/platform.c pstore_dump).
	slices.SortStableFunc(parts, func(a, b part) int {
		return cmp.Or(cmp.Compare(a.dump, b.dump), cmp.Compare(b.number, a.number))
	})
	for _, p := range parts {
		for _, text := range p.lines {
			l.single(text, emit)
		}
	}
}

// flushPieces reads the lines of which a piece is missing.
func (l *LogReader) flushPieces(emit emitter) {
	if l.wrapped != "" {
		l.whole(l.wrapped, emit)
	}
	for _, name := range [...]string{"stdout", "stderr"} {
		if begin := l.partial[name]; begin != "" {
			l.whole(begin, emit)
		}
	}
	l.wrapped, l.partial = "", nil
	l.release(emit)
}

// Kernel is how many lines are marked as a kernel's.
func (l *LogReader) Kernel() int { return l.kernel }

// Unrecognised is the first line that is not marked as a kernel's, and its number from 1; 0 if all are.
func (l *LogReader) Unrecognised() (number int, text string) { return l.first, l.unrecognised }

// single reads a line that stands for itself, or is one of the pieces that a container runtime or a terminal made of one.
func (l *LogReader) single(text string, emit emitter) {
	if m := containerLine.FindStringSubmatch(text); m != nil {
		if l.partial == nil {
			l.partial = make(map[string]string)
		}
		begin := l.partial[m[2]]
		delete(l.partial, m[2])
		if m[3] == "P" && len(begin) < maxPiece {
			l.partial[m[2]] = begin + m[4]
			return
		}
		text = m[1] + "F " + begin + m[4]
	}
	if wrapped := l.wrapped; wrapped != "" {
		l.wrapped = ""
		if !continues(text) {
			l.whole(wrapped, emit)
		} else if text = wrapped + text; len(text) >= maxPiece {
			l.whole(text, emit)
			return
		}
	}
	if fillsTerminal(text) {
		l.wrapped = text
		return
	}
	l.whole(text, emit)
}

// maxPiece bounds a line that is put together, in bytes.
const maxPiece = 64 << 10

// containerLine is a line in a container's log as CRI has it: P for all but the last piece of a long one.
var containerLine = lazyregexp.New(`^(\S+ (stdout|stderr) )([FP])(?::\S+)? (.*)$`)

// fillsTerminal reports whether a kernel's line is as wide as terminals are, which break longer ones.
func fillsTerminal(text string) bool {
	if len(text) < 80 {
		return false
	}
	switch utf8.RuneCountInString(strings.TrimRight(uncoloured(text), "\r\n")) {
	case 80, 100, 120, 132:
		_, how := parseLine(text)
		return how >= marked
	}
	return false
}

// continues reports whether a line may be the rest of one that a terminal has broken: nothing in it says whose it is.
func continues(text string) bool {
	_, how := parseLine(text)
	return (how == bare || quotation.MatchString(text)) && !middle.MatchString(text)
}

// whole reads a line that is complete.
func (l *LogReader) whole(text string, emit emitter) {
	if strings.TrimSpace(text) == "" {
		return
	}
	if l.patched(text) {
		l.unknown(text)
		return
	}
	r, how := parseLine(text)
	if how <= bare {
		l.unknown(text)
	} else {
		l.kernel++
		l.plain = true
		l.strict = l.strict || how == addressed
	}
	switch {
	case how == foreign:
	case how > bare:
		l.cutMargin(&r)
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

var (
	// patchHead begins a patch, a part of one, or a commit in git's log.
	patchHead = lazyregexp.New(`^(?:diff --git a/|@@ -\d+(?:,\d+)? \+\d+(?:,\d+)? @@|[*|/\\ ]*commit [0-9a-f]{12,64}(?: \(.*\))?$)`)
	// mailPatch begins what git format-patch writes, where all is quotation.
	mailPatch = lazyregexp.New(`^From [0-9a-f]{40} Mon Sep 17 00:00:00 2001$`)
	// patchLine is what may follow.
	patchLine = lazyregexp.New(`^(?:[ \t+\\|-]|(?:Author|Date|Merge|AuthorDate|Commit|CommitDate): |(?:index|new|old|deleted|similarity|rename|copy|Binary) )`)
)

// patched reports whether a line stands in a patch or in a commit's message, which quote logs.
func (l *LogReader) patched(text string) bool {
	l.mail = l.mail && text != "-- " || !l.plain && mailPatch.MatchString(text)
	l.patch = !l.plain && (l.mail || patchHead.MatchString(text) || l.patch && patchLine.MatchString(text))
	return l.patch
}

// A margin is a blank more behind every time stamp than the kernel prints.
type margin int

const (
	unknownMargin margin = iota
	withMargin
	withoutMargin
)

// cutMargin removes it. Frames of a backtrace have a blank in any case; the first other line decides.
func (l *LogReader) cutMargin(r *netconsole.Record) {
	if r.Uptime < 0 || l.margin == withoutMargin || len(r.Text) < 2 {
		return
	}
	functions, _ := frame(string(r.Text))
	switch {
	case r.Text[0] != ' ':
		l.margin = withoutMargin
	case l.margin == unknownMargin && (len(functions) > 0 || r.Text[1] == ' ' || r.Text[1] == '<'):
		return
	default:
		l.margin = withMargin
		r.Text = r.Text[1:]
	}
}

// formatVerb ends a message as it stands in a program's code.
var formatVerb = lazyregexp.New(`: %[a-zA-Z\d]{1,5}(?:\\n.*)?$`)

// bareLine emits a line that does not say whose it is. In a log whose other lines do, it is not the kernel's.
func (l *LogReader) bareLine(r netconsole.Record, emit func(*netconsole.Record)) {
	if len(l.pending) > 0 {
		l.hold(glued{whole: string(r.Text)}, emit)
		return
	}
	if l.strict || formatVerb.Match(r.Text) {
		r.Prefix = 1 << 3
	}
	emit(&r)
}

// takeGlued reports whether the line has a kernel's time stamp in its middle, and then emits or holds it.
func (l *LogReader) takeGlued(text string, emit func(*netconsole.Record)) bool {
	before, message, quoted := splitGlued(text)
	if l.strict || before == "" || quoted && l.plain {
		return false
	}
	r, how := parseLine(message)
	if how < marked || r.Uptime < 0 {
		return false
	}
	g := glued{whole: text, before: before, message: r, quoted: quoted}
	if l.stamps && near(l.last, r.Uptime) || l.envelope != "" && alike(l.envelope, before) {
		l.accept(g, emit)
		return true
	}
	if last := l.lastPending(); !l.stamps && last != nil && alike(last.before, g.before) && near(last.message.Uptime, r.Uptime) {
		// No line of this log begins with a stamp, and this one begins as another: it is an envelope.
		l.envelope = before
		l.pending = append(l.pending, g)
		l.corroborate(r.Uptime, emit)
		return true
	}
	l.hold(g, emit)
	return true
}

// yamlItem is a text in quotes in a list of YAML, or the value of a key that collectors give to lines of log: `- '[    1.000000] x'`,
// `textPayload: "[    1.000000] x"` (gcloud logging read).
var yamlItem = lazyregexp.New(`^( *(?:- )?(?:(?:textPayload|message|MESSAGE|msg|log|line): )?["'])(` + kernelStamp + `.*)(["'])$`)

// splitGlued returns a kernel's message in a line, and what stands before; nothing if there is none. quoted says that it is YAML's.
func splitGlued(text string) (before, message string, quoted bool) {
	text = strings.TrimRight(text, "\r\n")
	if m := yamlItem.FindStringSubmatch(text); m != nil && strings.HasSuffix(m[1], m[3]) {
		return m[1], strings.NewReplacer(`\"`, `"`, `\r`, "", "''", "'").Replace(m[2]), true
	}
	at := middle.FindStringIndex(text)
	if at == nil || quotes(text[:at[0]], text[at[0]:]) {
		return "", "", false
	}
	return text[:at[0]], text[at[0]:], false
}

// logLevel is in front of what a program logs.
var logLevel = lazyregexp.New(`\b(?:TRACE|DEBUG|INFO|WARN(?:ING)?|ERROR|FATAL|CRITICAL)\b`)

// alike reports whether two texts in front of a stamp are the same envelope: equal, or numbers of one form, such as a time.
func alike(a, b string) bool {
	form := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return '0'
			}
			return r
		}, s)
	}
	return a == b && !logLevel.MatchString(a) || !strings.ContainsFunc(a, unicode.IsLetter) && form(a) == form(b)
}

// lastPending is the last pending line that may have a kernel's message, nil if there is none.
func (l *LogReader) lastPending() *glued {
	for i := len(l.pending) - 1; i >= 0; i-- {
		if l.pending[i].message.Text != nil {
			return &l.pending[i]
		}
	}
	return nil
}

// argument is an assignment, the mark of a mail or of a program's comment.
var argument = lazyregexp.New(`(?:[>=]|//) *$`)

// quotes reports whether a message is likely to be a quotation or an argument: it ends a quote or parenthesis that is open before
// it, or is an argument. A program's output that was cut leaves them open.
func quotes(before, message string) bool {
	for _, pair := range [...]string{`""`, "''", "``", "()", "{}"} {
		opening, closing := pair[:1], pair[1:]
		open := strings.Count(before, opening) > strings.Count(before, closing)
		if opening == closing {
			open = strings.Count(before, opening)%2 != 0
		}
		if open && strings.Contains(message, closing) {
			return true
		}
	}
	return argument.MatchString(before)
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
		if g.message.Text != nil && !(g.quoted && l.plain) && near(g.message.Uptime, uptime) {
			l.accept(g, emit)
			continue
		}
		emit(&netconsole.Record{Prefix: 1 << 3, Uptime: -1, Text: []byte(g.whole)})
	}
}

// release emits the pending lines as lines of userspace.
func (l *LogReader) release(emit func(*netconsole.Record)) { l.corroborate(-1, emit) }

// unknown notes the first line that is not marked as a kernel's.
func (l *LogReader) unknown(text string) {
	if l.first == 0 {
		l.first, l.unrecognised = l.line, text
	}
}

// inner reads the lines of a log that stands in a document. More documents may follow: the reader's own lines are still none of a
// kernel's.
func (l *LogReader) inner(lines iter.Seq[string], emit emitter) {
	plain := l.plain
	for line := range lines {
		l.single(strings.TrimRight(line, "\r\n"), emit)
	}
	l.flushPieces(emit)
	l.plain = plain
}

// record emits the record of an entry of the journal.
func (l *LogReader) record(f fields, emit emitter) {
	r, how := f.journal()
	if how == foreign {
		return
	}
	f.note(&r)
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
var partHead = lazyregexp.New(`^(?:Panic|Oops|Emergency|Shutdown|Reboot|Halt|Poweroff|Unknown)#(\d{1,6}) Part(\d{1,6})\s*$`)

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
	if len(p.lines) < maxPart && l.held+len(text) <= maxPartBytes {
		p.lines, l.held = append(p.lines, text), l.held+len(text)
	}
	return true
}

// An entry is one of a journal, in a form that takes several lines.
type entry struct {
	form   form
	fields fields
	binary string // the key of a field whose value comes on the next line
	lines  int
}

type form int

const (
	none form = iota
	export
	verbose
)

var (
	exportHead   = lazyregexp.New(`^__(?:CURSOR|REALTIME_TIMESTAMP|MONOTONIC_TIMESTAMP|SEQNUM)=`)
	exportField  = lazyregexp.New(`^([A-Z_][A-Z0-9_]*)=(.*)$`)
	verboseHead  = lazyregexp.New(`^.{8,80} \[s=[0-9a-f]+;i=`)
	verboseField = lazyregexp.New(`^    ([A-Z_][A-Z0-9_]*)=(.*)$`)
	exportKey    = lazyregexp.New(`^[A-Z_][A-Z0-9_]*$`)
)

// take ends an entry, and returns its fields; nil if there is none.
func (e *entry) take() fields {
	f := e.fields
	*e = entry{}
	return f
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
		*e = entry{form: verbose, fields: make(fields)}
		return true
	case e.form == none && exportHead.MatchString(text):
		*e = entry{form: export, fields: make(fields)}
		return true
	}
	switch e.form {
	case export:
		m := exportField.FindStringSubmatch(text)
		switch {
		case text == "":
			l.record(e.take(), emit)
		case e.binary != "":
			e.fields.put(e.binary, text[min(8, len(text)):]) // behind its length, eight bytes
			e.binary = ""
		case m != nil:
			e.fields.put(m[1], m[2])
		case exportKey.MatchString(text):
			e.binary = text
		}
		return true
	case verbose:
		if m := verboseField.FindStringSubmatch(text); m != nil {
			e.fields.put(m[1], m[2])
			return true
		}
		if strings.HasPrefix(text, "     ") || text == "" {
			return true // the rest of a message
		}
		l.record(e.take(), emit)
	}
	return false
}
