package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"time"
)

// report is the growing table. Each row is printed as soon as it is known, so the columns have fixed widths.
type report struct {
	out     io.Writer
	section string

	Machine  machine `json:"machine"`
	Complete bool    `json:"complete"` // every section that was asked for is there
	Rows     []Row   `json:"rows"`
}

const columns = "%-37s  %-50s  %15s  %-30s  %15s  %7s  %-10s  %s\n"

func newReport(out io.Writer, m machine) *report {
	fmt.Fprintf(out, "%s\n\n", m)
	fmt.Fprintf(out, columns, "measured", "on", "value", "reference", "", "ratio", "goal", "reached")
	return &report{out: out, Machine: m, Rows: []Row{}}
}

func (r *report) begin(section string) {
	r.section = section
	fmt.Fprintf(r.out, "%s, %s\n", section, time.Now().Format(time.TimeOnly))
}

// add prints a row and stores it for the file.
func (r *report) add(row Row) {
	row.Section = r.section
	r.Rows = append(r.Rows, row)
	reference, ratio, reached := "", "", ""
	if row.Reference != "" {
		reference = figure(row.ReferenceValue, row.Unit)
	}
	if row.Ratio != 0 {
		ratio = fmt.Sprintf("%.2f ×", row.Ratio)
	}
	if row.Reached != nil {
		reached = map[bool]string{true: "yes", false: "no"}[*row.Reached]
	}
	fmt.Fprintf(r.out, columns, row.Name, row.On, figure(row.Value, row.Unit), row.Reference, reference, ratio, row.Goal, reached)
}

// save writes everything to a file.
func (r *report) save(file string, complete bool) error {
	r.Complete = complete
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// figure returns a value with its unit: with three significant digits, or as an integer from a thousand on.
func figure(v float64, unit string) string {
	if math.Abs(v) >= 999.5 {
		return grouped(int64(math.Round(v))) + " " + unit
	}
	return strconv.FormatFloat(v, 'g', 3, 64) + " " + unit
}

// grouped writes 1234567 as 1,234,567.
func grouped(n int64) string {
	if n < 0 {
		return "-" + grouped(-n)
	}
	if n < 1000 {
		return strconv.FormatInt(n, 10)
	}
	return fmt.Sprintf("%s,%03d", grouped(n/1000), n%1000)
}
