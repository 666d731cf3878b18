package netconsole

import (
	"bytes"
	"hash/maphash"
	"slices"
	"time"
)

// maxSpans bounds the pieces of one record. The kernel's are 77 at most. Each fragment is compared with all of them.
const maxSpans = 128

// An assembly collects the fragments of one record.
type assembly struct {
	header []byte // Frame.Header of every fragment
	total  int
	record Record // what the header says
	spans  []span // in order of offset, disjoint
	data   []byte // in order of arrival
	due    time.Time
	// emitted says that the record was emitted once, as Partial.
	emitted bool
	// contested says that another record with the same header contradicts it.
	contested bool
	pieces    pieces
	few       [3]span // memory for spans, usually enough
}

// firstData is the first capacity of data in bytes, usually enough: the kernel's longest text, and userdata.
const firstData = 2 << 10

// newAssembly begins the record that the fragment is a part of, in the memory of a spare one if there is one.
func newAssembly(spare *Spare, f *Frame, head Record, due time.Time) *assembly {
	a := spare.take()
	if a == nil {
		a = &assembly{data: make([]byte, 0, min(f.Total, firstData))}
	}
	*a = assembly{header: append(a.header[:0], f.Header...), total: f.Total, record: head, data: a.data[:0], due: due}
	a.spans = a.few[:0]
	return a
}

// Spare is memory that finished records no longer need. All Streams that one goroutine feeds can share it. The zero value has
// none.
type Spare struct {
	assemblies []*assembly
	text       []byte // decoded
}

// maxSpare is how many finished records are kept for their memory, some 2.5 KiB each: fragments of many nodes arrive in turn.
const maxSpare = 256

func (p *Spare) take() *assembly {
	if p == nil || len(p.assemblies) == 0 {
		return nil
	}
	last := len(p.assemblies) - 1
	a := p.assemblies[last]
	p.assemblies = p.assemblies[:last]
	return a
}

// give takes a record that nobody uses any more.
func (p *Spare) give(a *assembly) {
	if p != nil && len(p.assemblies) < maxSpare && cap(a.data) <= firstData {
		p.assemblies = append(p.assemblies, a)
	}
}

// A span says that the body's bytes from off to end are in data from at on.
type span struct{ off, end, at int }

// matches reports whether the fragment belongs to the record.
func (a *assembly) matches(f *Frame) bool {
	return a.total == f.Total && bytes.Equal(a.header, f.Header)
}

// agrees reports whether the fragment has the same bytes wherever it overlaps with those that have arrived.
func (a *assembly) agrees(f *Frame) bool {
	for _, s := range a.spans {
		from, to := max(s.off, f.Offset), min(s.end, f.Offset+len(f.Body))
		if from < to && !bytes.Equal(a.data[s.at+from-s.off:s.at+to-s.off], f.Body[from-f.Offset:to-f.Offset]) {
			return false
		}
	}
	return true
}

// finished is what is kept of a record after it was emitted for good.
type finished struct {
	header []byte
	total  int
	until  time.Time
	pieces pieces
}

// of overwrites d with what is kept of a.
func (d *finished) of(a *assembly) {
	*d = finished{header: append(d.header[:0], a.header...), total: a.total, until: a.due.Add(WireTimeout), pieces: a.pieces}
}

// pieces are the first fragments of a record. The kernel cuts a record only once, so each of its fragments either is one of
// them or does not overlap with any.
type pieces struct {
	seen [3]piece
	n    int
}

type piece struct {
	off, end int32
	hash     uint64
}

func newPiece(seed maphash.Seed, f *Frame) piece {
	return piece{int32(f.Offset), int32(f.Offset + len(f.Body)), maphash.Bytes(seed, f.Body)}
}

func (p *pieces) add(one piece) {
	if p.n < len(p.seen) {
		p.seen[p.n] = one
		p.n++
	}
}

// contradict reports whether a fragment cannot be of the same record.
func (p *pieces) contradict(one piece) bool {
	for _, s := range p.seen[:p.n] {
		if s.off < one.end && one.off < s.end && s != one {
			return true
		}
	}
	return false
}

func (a *assembly) missing() int { return a.total - len(a.data) }

func (a *assembly) hasStart() bool { return len(a.spans) > 0 && a.spans[0].off == 0 }

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

// runs joins the bytes that have arrived and appends them to runs. Those that arrived in order, as usual, are not copied.
func (a *assembly) runs(runs []run) []run {
	lent := 0 // where the last run ends in data, -1 if it is a copy
	for _, s := range a.spans {
		n := s.end - s.off
		last := len(runs) - 1
		switch {
		case last < 0 || runs[last].end() != s.off:
			runs = append(runs, run{s.off, slices.Clip(a.data[s.at : s.at+n])})
			lent = s.at + n
		case lent == s.at:
			from := s.at - len(runs[last].data)
			runs[last].data = slices.Clip(a.data[from : s.at+n])
			lent += n
		default:
			runs[last].data = append(runs[last].data, a.data[s.at:s.at+n]...) // which is clipped
			lent = -1
		}
	}
	return runs
}
