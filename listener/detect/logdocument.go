package detect

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/lazyregexp"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	// maxDocument bounds what is kept of a JSON document, in bytes: an entry is taken out as soon as it is complete.
	maxDocument = 1 << 20
	// maxLines bounds the lines that are kept until a document turns out to be one, in bytes, white space included.
	maxLines = 4 * maxDocument
	// maxDepth bounds how deep objects and arrays stand in each other.
	maxDepth = 32
)

// A document is JSON in the course of being read: an object per line, an object or array over many lines, or one long line. Each
// element of an array, and each object that stands alone, may be an entry of a log. It is taken out once it is complete, so that a
// large export takes little memory.
type document struct {
	text            []byte // without white space and without the entries
	open            []int  // where in text the open objects and arrays begin
	quoted, escaped bool   // in a string, behind a backslash
	skipComma       bool   // behind an entry that was the first element
	alone           bool   // it is one string, read as a list of one
	lines           []string
	size            int // of lines, in bytes
}

// beginsDocument reports whether a line begins a JSON document. "[    1.000000] " and "[  OK  ] " do not.
func beginsDocument(line string) bool {
	if line == "" || line[0] != '{' && line[0] != '[' {
		return false
	}
	rest := strings.TrimLeft(line[1:], " \t")
	return rest == "" || strings.IndexByte(`"{[`, rest[0]) >= 0 && (line[0] == '[' || rest[0] == '"') || line == "{}"
}

// active reports whether a document has begun and not ended.
func (d *document) active() bool { return len(d.open) > 0 }

// read takes the next piece of the document and hands out its entries: values that take tells to be one. It returns false if this
// is not JSON.
func (d *document) read(piece string, take func(value any) bool) bool {
	for i := range len(piece) {
		c := piece[i]
		switch {
		case d.escaped:
			d.escaped = false
		case d.quoted:
			d.escaped = c == '\\'
			d.quoted = c != '"'
			if c < ' ' && c != '\t' {
				return false
			}
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			continue
		case c == '"':
			d.quoted = true
		case c == '{' || c == '[':
			d.open = append(d.open, len(d.text))
		case c == '}' || c == ']':
			d.text = append(d.text, c)
			if !d.close(take) {
				return false
			}
			continue
		case c == ',' && (d.skipComma || len(d.open) == 0):
			d.skipComma = false
			continue
		case strings.IndexByte(",:+-.0123456789eEtrufalsn", c) < 0:
			return false
		}
		if len(d.open) == 0 || len(d.open) > maxDepth || len(d.text) == maxDocument {
			return false
		}
		d.skipComma = false
		d.text = append(d.text, c)
	}
	return true
}

// close ends the innermost object or array.
func (d *document) close(take func(value any) bool) bool {
	if len(d.open) == 0 {
		return false
	}
	last := len(d.open) - 1
	start := d.open[last]
	value := d.text[start:]
	if (value[0] == '{') != (value[len(value)-1] == '}') {
		return false
	}
	d.open = d.open[:last]
	if last > 0 && d.text[d.open[last-1]] != '[' {
		return true // part of an object
	}
	dec := json.NewDecoder(bytes.NewReader(value))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return false
	}
	if taken := take(v); !taken && last > 0 {
		return true
	}
	d.text = d.text[:start]
	if before := len(d.text) - 1; before >= 0 && d.text[before] == ',' {
		d.text = d.text[:before]
	} else {
		d.skipComma = last > 0
	}
	return true
}

var (
	// fluentd writes a time, a tag and an entry; fluent-bit's stdout the same in its own notation.
	fluentd   = lazyregexp.New(`^(?:` + isoTime + `)[ \t]+(\S+?):?[ \t]+(\{.*\})$`)
	fluentBit = lazyregexp.New(`^\[\d+\] (\S+): \[+[\d.]+(?:, \{[^}]*\}\])?, (\{.*\})\]$`)
)

// collected returns the entry in a line of such a collector. If the tag does not say that it is the kernel's, the entry must.
func collected(text string) (fields, bool) {
	m := fluentd.FindStringSubmatch(text)
	if m == nil {
		if m = fluentBit.FindStringSubmatch(text); m == nil {
			return nil, false
		}
		m[2] = strings.ReplaceAll(m[2], `"=>`, `":`)
	}
	var object map[string]any
	dec := json.NewDecoder(strings.NewReader(m[2]))
	dec.UseNumber()
	if dec.Decode(&object) != nil {
		return nil, false
	}
	f := newFields(object)
	if _, how, ok := f.record(); !ok || how == foreign || !kernelTag.MatchString(m[1]) && !f.isKmsg() && f.program() != "kernel" {
		return nil, false
	}
	return f, true
}

// document reads a line of JSON, and reports whether it is one. What turns out not to be JSON is read line by line.
func (l *LogReader) document(text string, emit emitter) bool {
	d := &l.json
	begins := strings.TrimSpace(text)
	for _, prefix := range []string{byteOrderMark, "\x1e", "data: ", "- "} { // -o json-seq, json-sse, a list in YAML
		begins = strings.TrimPrefix(begins, prefix)
	}
	switch {
	case d.active():
		if d.quoted {
			l.abandon(emit) // no string of JSON has a newline
			return false
		}
	case l.plain:
		return false // a program's output among the kernel's lines
	case beginsDocument(begins):
		text = begins
	case l.line == 1 && strings.HasPrefix(begins, `"`) && strings.Contains(begins, `\n`): // az vm boot-diagnostics get-boot-log
		d.alone = true
		text = "[" + begins
	default:
		f, ok := collected(begins)
		return ok && l.takeFields(f, emit)
	}
	d.lines, d.size = append(d.lines, text), d.size+len(text)
	l.more(text, emit)
	return true
}

// more reads a piece of a document.
func (l *LogReader) more(text string, emit emitter) {
	d := &l.json
	took := false
	take := func(value any) bool {
		if !l.takeValue(value, emit) {
			return false
		}
		took = true
		return true
	}
	ok := d.read(text, take)
	if ok && d.alone && !d.quoted {
		d.alone = false
		ok = d.read("]", take)
	}
	switch {
	case !ok || len(d.lines) > maxPart || d.size > maxLines:
		l.abandon(emit)
	case took || !d.active():
		if !took {
			l.unknown(strings.Join(d.lines, " "))
		}
		d.lines, d.size = nil, 0
	}
}

// abandon gives the document up and reads its lines as those of another log.
func (l *LogReader) abandon(emit emitter) {
	lines := l.json.lines
	l.json = document{}
	for _, text := range lines {
		l.single(text, emit)
	}
}

// takeValue reads a value of a document, and reports whether it is an entry or several.
func (l *LogReader) takeValue(value any, emit emitter) bool {
	f := newFields(value)
	if f.foreign() || f.contained() { // whatever log stands in it is that program's output
		return l.takeFields(f, emit)
	}
	of := func(r *netconsole.Record) {
		note(r, KeyHost, f.host())
		emit(r)
	}
	if lines := logLines(value); lines != nil {
		l.inner(slices.Values(lines), of)
		return true
	}
	if f == nil {
		return false
	}
	if console := f.get("output", "contents", "stdout", "standardoutputcontent"); strings.Contains(console, "\n") || f.get("instanceid") != "" && console != "" {
		l.inner(strings.Lines(decodeConsole(console)), of)
		return true
	}
	return l.takeFields(f, emit)
}

// logName is how a field is called that holds a whole log.
var logName = lazyregexp.New(`(?i)^(?:(?:serial|boot|kernel)?[_-]?(?:console|log)|(?:console|vmcore)[_-](?:log|output|dmesg)|dmesg|kmsg)$`)

// logLines are the lines of a kernel's log in a list of texts, or in a text that is a log by its name, which stands alone or somewhere
// in an object: what Ansible registers, a NodeDeath's trace. It is nil if there is none. Two lines must have a kernel's time stamp, in
// order: one is a quotation.
func logLines(value any) []string {
	switch v := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			inner := v[key]
			if text, ok := inner.(string); ok && logName.MatchString(key) {
				inner = []any{text}
			}
			if lines := logLines(inner); lines != nil {
				return lines
			}
		}
	case []any:
		var lines []string
		stamps, last := 0, time.Duration(-1)
		for _, element := range v {
			text, ok := element.(string)
			if !ok {
				return nil
			}
			for line := range strings.Lines(text) {
				lines = append(lines, strings.TrimRight(line, "\r\n"))
				if r, how := parseLine(line); how >= marked && r.Uptime >= max(0, last) {
					stamps, last = stamps+1, r.Uptime
				}
			}
		}
		if stamps > 1 {
			return lines
		}
	}
	return nil
}

// takeFields reads an entry, and reports whether it is one.
func (l *LogReader) takeFields(f fields, emit emitter) bool {
	r, how, ok := f.record()
	if !ok {
		return false
	}
	if how == foreign {
		l.unknown(f.text())
		return true
	}
	l.kernel++
	l.strict = true
	emit(&r)
	return true
}
