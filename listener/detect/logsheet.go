package detect

import (
	"encoding/csv"
	"strings"

	"github.com/lastgasp/lastgasp/listener/lazyregexp"
)

const (
	// maxColumns bounds the columns of a spreadsheet.
	maxColumns = 256
	// maxRow bounds a row that takes several lines, in bytes.
	maxRow = 1 << 20
)

// A sheet is a spreadsheet in the course of being read: what Splunk, CloudWatch, Datadog and Kibana export as CSV, with commas,
// semicolons or tabs. Its first line names the columns, and every row is an entry of a log.
type sheet struct {
	comma   rune
	columns []string
	lines   []string // of a row that is not complete
	size    int      // of lines, in bytes
	quoted  bool     // the next line begins in quotes
}

// columnName is how columns are called.
var columnName = lazyregexp.New(`^[@_A-Za-z][\w.@ ()\[\]-]{0,63}$`)

// cells are the cells of a row, nil if it is none, or not complete.
func (s *sheet) cells(row string) []string {
	if strings.Count(row, string(s.comma)) > maxColumns {
		return nil
	}
	in := csv.NewReader(strings.NewReader(row))
	in.Comma = s.comma
	all, err := in.Read()
	if err != nil {
		return nil
	}
	return all
}

// begins reports whether a line names the columns of a sheet, of which one is the line of log.
func (s *sheet) begins(text string) bool {
	for _, s.comma = range ",;\t" {
		if s.names(text) {
			return true
		}
	}
	return false
}

func (s *sheet) names(text string) bool {
	columns := s.cells(strings.TrimPrefix(text, byteOrderMark))
	if len(columns) < 2 {
		return false
	}
	f := make(fields)
	for i, name := range columns {
		if !columnName.MatchString(name) {
			return false
		}
		columns[i] = strings.TrimPrefix(name, "@")
		f.put(columns[i], name)
	}
	if f.text() == "" {
		return false
	}
	s.columns = columns
	return true
}

// row reads a line of a spreadsheet, and reports whether it is one.
func (l *LogReader) row(text string, emit emitter) bool {
	s := &l.sheet
	if l.line == 1 {
		return s.begins(text)
	}
	if s.columns == nil {
		return false
	}
	s.lines, s.size = append(s.lines, text), s.size+len(text)+1
	s.quoted = s.quoted != (strings.Count(text, `"`)%2 != 0)
	if s.quoted && s.size < maxRow {
		return true
	}
	row := s.cells(strings.Join(s.lines, "\n"))
	if len(row) != len(s.columns) {
		s.lines = s.lines[:len(s.lines)-1] // the caller has the last one
		l.abandonRow(emit)
		return false
	}
	s.endRow()
	f := make(fields)
	for i, name := range s.columns {
		f.put(name, row[i])
	}
	if !l.takeFields(f, emit) {
		l.unknown(text)
	}
	return true
}

// endRow makes the next line the first of a row.
func (s *sheet) endRow() { s.lines, s.size, s.quoted = nil, 0, false }

// abandonRow gives a row up that is none, or has no end, and reads its lines as those of another log.
func (l *LogReader) abandonRow(emit emitter) {
	lines := l.sheet.lines
	l.sheet.endRow()
	for _, text := range lines {
		l.single(text, emit)
	}
}
