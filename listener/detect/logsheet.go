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
	maxRow = 64 << 10
)

// A sheet is a spreadsheet in the course of being read: what Splunk, CloudWatch, Datadog and Kibana export as CSV. Its first line
// names the columns, and every row is an entry of a log.
type sheet struct {
	columns []string
	row     string // the beginning of a row that takes several lines
}

// columnName is how columns are called.
var columnName = lazyregexp.New(`^[@_A-Za-z][\w.@ -]{0,63}$`)

// cells are the cells of a row, nil if it is none, or not complete.
func cells(row string) []string {
	if strings.Count(row, ",") > maxColumns {
		return nil
	}
	all, err := csv.NewReader(strings.NewReader(row)).Read()
	if err != nil {
		return nil
	}
	return all
}

// begins reports whether a line names the columns of a sheet, of which one is the line of log.
func (s *sheet) begins(text string) bool {
	columns := cells(strings.TrimPrefix(text, byteOrderMark))
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
	s.row += text
	if strings.Count(s.row, `"`)%2 != 0 && len(s.row) < maxRow {
		s.row += "\n"
		return true
	}
	row := cells(s.row)
	s.row = ""
	if len(row) != len(s.columns) {
		return false
	}
	f := make(fields)
	for i, name := range s.columns {
		f.put(name, row[i])
	}
	if !l.takeFields(f, emit) {
		l.unknown(text)
	}
	return true
}
