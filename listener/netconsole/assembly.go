package netconsole

import (
	"slices"
	"time"
)

// maxSpans bounds the pieces of one record. The kernel's are 77 at most.
const maxSpans = 1024

// An assembly collects the fragments of one record.
type assembly struct {
	header string // Frame.Header of every fragment
	total  int
	record Record // what the header says
	spans  []span // in order of offset, disjoint
	data   []byte // in order of arrival
	due    time.Time
	told   bool // emitted once already, as Partial
}

// A span says that the body's bytes from off to end are in data from at on.
type span struct{ off, end, at int }

// matches reports whether the fragment belongs to the record.
func (a *assembly) matches(f *Frame) bool {
	return a.total == f.Total && a.header == string(f.Header)
}

// missing is the number of bytes not there yet.
func (a *assembly) missing() int { return a.total - len(a.data) }

// begun reports whether the first byte is there.
func (a *assembly) begun() bool { return len(a.spans) > 0 && a.spans[0].off == 0 }

// add takes what is new in the fragment: where fragments overlap, the first one to arrive counts. It reports false when
// the record is in too many pieces to take another.
func (a *assembly) add(f *Frame) bool {
	off, end := f.Offset, f.Offset+len(f.Body)
	i := 0
	for off < end {
		if i < len(a.spans) && a.spans[i].off <= off {
			off = max(off, a.spans[i].end)
			i++
			continue
		}
		hole := end // where the hole that off is in ends
		if i < len(a.spans) {
			hole = min(hole, a.spans[i].off)
		}
		if len(a.spans) == maxSpans {
			return false
		}
		a.spans = slices.Insert(a.spans, i, span{off, hole, len(a.data)})
		a.data = append(a.data, f.Body[off-f.Offset:hole-f.Offset]...)
	}
	return true
}

// runs joins what has arrived.
func (a *assembly) runs() []run {
	var runs []run
	for _, s := range a.spans {
		piece := a.data[s.at : s.at+s.end-s.off]
		if n := len(runs); n > 0 && runs[n-1].end() == s.off {
			runs[n-1].data = append(runs[n-1].data, piece...)
			continue
		}
		runs = append(runs, run{s.off, slices.Clone(piece)})
	}
	return runs
}
