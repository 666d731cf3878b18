package netconsole

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var start = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// collect keeps the records that are lent to it.
func collect(to *[]Record) func(*Record) {
	return func(r *Record) {
		kept := *r
		kept.Text, kept.Fields = bytes.Clone(r.Text), slices.Clone(r.Fields)
		*to = append(*to, kept)
	}
}

func push(t testing.TB, s *Stream, now time.Time, payload string) (got []Record) {
	t.Helper()
	buf := []byte(payload)
	if err := s.Push(now, buf, collect(&got)); err != nil {
		t.Errorf("push %.60q: %v", payload, err)
	}
	for i := range buf {
		buf[i] = '!' // a socket reads the next datagram into it
	}
	return got
}

func TestStreamDecodes(t *testing.T) {
	const sec = time.Second
	gap := Field{Value: Gap}
	tests := []struct {
		name      string
		datagrams []string
		want      []Record
	}{
		{
			"userdata of our own target",
			[]string{"6.12.117,0,456,3000000,-,caller=T9;Kernel panic\n instance=i-0abc\n boot=7f3c\n gasp=c2Vj\n"},
			[]Record{{Extended: true, Release: "6.12.117", Seq: 456, Uptime: 3 * sec, Caller: "T9", Text: []byte("Kernel panic"),
				Fields: []Field{{"instance", "i-0abc"}, {"boot", "7f3c"}, {"gasp", "c2Vj"}}}},
		},
		{
			"a message of several lines, with everything escaped that can be",
			[]string{`0,1,0,-;boom: multi\x0aline \xc3\xa9 \x5c \x7f\x00 end` + "\n"},
			[]Record{{Extended: true, Seq: 1, Text: []byte("boom: multi\nline é \\ \x7f\x00 end")}},
		},
		{
			"what looks like an escape and is none",
			[]string{"0,1,0,-;" + `\x4g \xAB \x \ \x4` + "\n"},
			[]Record{{Extended: true, Seq: 1, Text: []byte(`\x4g \xAB \x \ \x4`)}},
		},
		{
			"the dictionary of a device is unescaped, userdata is not",
			[]string{"6,1,0,-;link up\n SUBSYSTEM=net\n DEVICE=+a:\\x5cb\n note=\\x41\n"},
			[]Record{{Extended: true, Prefix: 6, Seq: 1, Text: []byte("link up"), Fields: []Field{{"SUBSYSTEM", "net"}, {"DEVICE", `+a:\b`}, {"note", `\x41`}}}},
		},
		{
			"sysdata behind userdata, with a task that calls itself =",
			[]string{"6,1,0,-;x\n boot=7f3c\n cpu=3\n taskname=a = b\n release=6.17.0\n msgid=17\n"},
			[]Record{{Extended: true, Prefix: 6, Seq: 1, Text: []byte("x"), Fields: []Field{
				{"boot", "7f3c"}, {"cpu", "3"}, {"taskname", "a = b"}, {"release", "6.17.0"}, {"msgid", "17"}}}},
		},
		{
			"a userdata value of several lines",
			[]string{"6,1,0,-;x\n k=l1\nl2\n l3\n =l4\n\n boot=7f3c\n"},
			[]Record{{Extended: true, Prefix: 6, Seq: 1, Text: []byte("x"), Fields: []Field{{"k", "l1\nl2\n l3\n =l4\n"}, {"boot", "7f3c"}}}},
		},
		{
			"lines that belong to no field",
			[]string{"6,1,0,-;x\ny\n z\n k=v\n"},
			[]Record{{Extended: true, Prefix: 6, Seq: 1, Text: []byte("x"), Fields: []Field{{"k", "v"}}}},
		},
		{
			"a key twice, an empty value, an empty text",
			[]string{"6,1,0,-;\n k=1\n k=\n"},
			[]Record{{Extended: true, Prefix: 6, Seq: 1, Text: []byte{}, Fields: []Field{{"k", "1"}, {"k", ""}}}},
		},
		{
			"fields that come and go between records",
			[]string{"6,1,0,-;a\n k=1\n", "6,2,0,-;b\n", "6,3,0,-;c\n k=1\n", "6,4,0,-;d\n k=2\n", "6,5,0,-;e\n k=2\n"},
			[]Record{
				{Extended: true, Prefix: 6, Seq: 1, Text: []byte("a"), Fields: []Field{{"k", "1"}}},
				{Extended: true, Prefix: 6, Seq: 2, Text: []byte("b")},
				{Extended: true, Prefix: 6, Seq: 3, Text: []byte("c"), Fields: []Field{{"k", "1"}}},
				{Extended: true, Prefix: 6, Seq: 4, Text: []byte("d"), Fields: []Field{{"k", "2"}}},
				{Extended: true, Prefix: 6, Seq: 5, Text: []byte("e"), Fields: []Field{{"k", "2"}}},
			},
		},
		{
			"a datagram cut off in its text",
			[]string{"0,1,0,-;Kernel pan"},
			[]Record{{Extended: true, Seq: 1, Text: []byte("Kernel pan" + Gap), Missing: 1, Fields: []Field{gap}}},
		},
		{
			"a datagram cut off in an escape",
			[]string{"0,1,0,-;a\\x5c\\xc"},
			[]Record{{Extended: true, Seq: 1, Text: []byte(`a\` + Gap), Missing: 1, Fields: []Field{gap}}},
		},
		{
			"a datagram cut off behind a backslash that is no escape",
			[]string{`0,1,0,-;a\y`, `0,2,0,-;a\xy`, `0,3,0,-;a\`},
			[]Record{
				{Extended: true, Seq: 1, Text: []byte(`a\y` + Gap), Missing: 1, Fields: []Field{gap}},
				{Extended: true, Seq: 2, Text: []byte(`a\xy` + Gap), Missing: 1, Fields: []Field{gap}},
				{Extended: true, Seq: 3, Text: []byte(`a` + Gap), Missing: 1, Fields: []Field{gap}},
			},
		},
		{
			"a datagram cut off in its userdata",
			[]string{"0,1,0,-;Kernel panic\n instance=i-0abc\n boot=7f3"},
			[]Record{{Extended: true, Seq: 1, Text: []byte("Kernel panic"), Missing: 1, Fields: []Field{{"instance", "i-0abc"}, gap}}},
		},
		{
			"fragments out of order, twice, and overlapping",
			[]string{"0,1,0,-,ncfrag=8/13;\n k=v", "0,1,0,-,ncfrag=8/13;\n k=v", "0,1,0,-,ncfrag=2/13;cd\\x5c\n ", "0,1,0,-,ncfrag=12/13;v", "0,1,0,-,ncfrag=0/13;abcd"},
			[]Record{{Extended: true, Seq: 1, Text: []byte(`abcd\`), Fields: []Field{{"k", "v"}}}},
		},
		{
			"the beginning of a record at once, and all of it later",
			[]string{"0,1,0,-,ncfrag=0/24;Kernel panic\n a=1\n", "0,1,0,-,ncfrag=18/24; b=22\n"},
			[]Record{
				{Extended: true, Partial: true, Seq: 1, Text: []byte("Kernel panic"), Missing: 6, Fields: []Field{gap}},
				{Extended: true, Seq: 1, Text: []byte("Kernel panic"), Fields: []Field{{"a", "1"}, {"b", "22"}}},
			},
		},
		{
			"a record in one fragment",
			[]string{"0,1,0,-,ncfrag=0/2;a\n"},
			[]Record{{Extended: true, Seq: 1, Text: []byte("a")}},
		},
		{
			"records of two CPUs in turns, with a short one between",
			[]string{"0,1,7,-,ncfrag=0/4;a1", "0,2,7,-,ncfrag=0/4;b1", "6,3,7,-;c\n", "0,2,7,-,ncfrag=2/4;2\n", "0,1,7,-,ncfrag=2/4;2\n"},
			[]Record{
				{Extended: true, Partial: true, Seq: 1, Uptime: 7 * time.Microsecond, Text: []byte("a1" + Gap), Missing: 2, Fields: []Field{gap}},
				{Extended: true, Partial: true, Seq: 2, Uptime: 7 * time.Microsecond, Text: []byte("b1" + Gap), Missing: 2, Fields: []Field{gap}},
				{Extended: true, Prefix: 6, Seq: 3, Uptime: 7 * time.Microsecond, Text: []byte("c")},
				{Extended: true, Seq: 2, Uptime: 7 * time.Microsecond, Text: []byte("b12")},
				{Extended: true, Seq: 1, Uptime: 7 * time.Microsecond, Text: []byte("a12")},
			},
		},
		{
			"fragments that agree in all but one thing are of different records",
			[]string{"0,1,0,-,ncfrag=0/4;ab", "0,1,0,-,ncfrag=2/5;cd", "0,1,0,c,ncfrag=2/4;c\n", "6.1.0,0,1,0,-,ncfrag=2/4;c\n", "0,1,0,-,caller=C1,ncfrag=2/4;c\n"},
			[]Record{{Extended: true, Partial: true, Seq: 1, Text: []byte("ab" + Gap), Missing: 2, Fields: []Field{gap}}},
		},
		{
			"a record of another length in place of one that was told",
			[]string{"0,1,0,-,ncfrag=0/2;a\n", "0,1,0,-,ncfrag=0/3;ab\n"},
			[]Record{{Extended: true, Seq: 1, Text: []byte("a")}, {Extended: true, Seq: 1, Text: []byte("ab")}},
		},
		{
			"fragments that arrive again after the record",
			[]string{"0,1,0,-,ncfrag=0/4;ab", "0,1,0,-,ncfrag=2/4;c\n", "0,1,0,-,ncfrag=0/4;ab", "0,1,0,-,ncfrag=2/4;c\n"},
			[]Record{
				{Extended: true, Partial: true, Seq: 1, Text: []byte("ab" + Gap), Missing: 2, Fields: []Field{gap}},
				{Extended: true, Seq: 1, Text: []byte("abc")},
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s Stream
			var got []Record
			for _, d := range tt.datagrams {
				got = append(got, push(t, &s, start, d)...)
			}
			if diff := cmp.Diff(tt.want, got, emptyIsNil, unassembled); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
		})
	}
}

// unassembled compares records in fragments with others.
var unassembled = cmpopts.IgnoreFields(Record{}, "Assembled")

// emptyIsNil compares no fields with no fields.
var emptyIsNil = cmp.Transformer("fields", func(f []Field) string { return fmt.Sprintf("%q", pairs(f)) })

func pairs(fields []Field) (p [][2]string) {
	for _, f := range fields {
		p = append(p, [2]string{f.Key, f.Value})
	}
	return p
}

func TestStreamGivesUpInTime(t *testing.T) {
	var s Stream
	if d := s.Deadline(); !d.IsZero() {
		t.Errorf("a fresh stream waits until %v", d)
	}
	push(t, &s, start, "0,1,0,-,ncfrag=0/40;Kernel panic\n instance=i-0abc\n boot=")
	push(t, &s, start.Add(time.Millisecond), "0,2,0,-,ncfrag=10/60;tail\n boot=7f3c\n gasp=c2Vj\n note=")
	if d := s.Deadline(); !d.Equal(start.Add(WireTimeout)) {
		t.Errorf("deadline %v, want a second after the first fragment", d)
	}

	var got []Record
	s.Flush(start.Add(WireTimeout-1), collect(&got))
	if len(got) != 0 {
		t.Errorf("gave up early: %+v", got)
	}
	s.Flush(start.Add(WireTimeout), collect(&got))
	if d := s.Deadline(); !d.Equal(start.Add(WireTimeout + time.Millisecond)) {
		t.Errorf("deadline %v, want that of the second record", d)
	}
	// No Flush is needed when datagrams come.
	got = append(got, push(t, &s, start.Add(WireTimeout+time.Millisecond), "6,3,0,-;x\n")...)
	gap := Field{Value: Gap}
	want := []Record{
		{Extended: true, Seq: 1, Text: []byte("Kernel panic"), Missing: 5, Fields: []Field{{"instance", "i-0abc"}, gap}},
		{Extended: true, Seq: 2, Text: []byte(Gap), Missing: 15, Fields: []Field{gap, {"boot", "7f3c"}, {"gasp", "c2Vj"}, gap}},
		{Extended: true, Prefix: 6, Seq: 3, Text: []byte("x")},
	}
	want[0].Missing = 40 - len("Kernel panic\n instance=i-0abc\n boot=")
	want[1].Missing = 60 - len("tail\n boot=7f3c\n gasp=c2Vj\n note=")
	if diff := cmp.Diff(want, got, emptyIsNil, unassembled); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if id := got[1].Identity(); id != (Identity{}) {
		t.Errorf("identity %+v behind a gap, want none: a task name could have been in it", id)
	}
	if d := s.Deadline(); !d.IsZero() {
		t.Errorf("waits for nothing until %v", d)
	}

	if late := push(t, &s, start.Add(WireTimeout+2*time.Millisecond), "0,1,0,-,ncfrag=36/40;7f3\n"); len(late) != 0 {
		t.Errorf("a late fragment made the record anew: %+v", late)
	}
	if d := s.Deadline(); !d.IsZero() {
		t.Errorf("waits for the rest of a finished record until %v", d)
	}
	// The same numbers after a while are a new boot's.
	push(t, &s, start.Add(time.Minute), "0,1,0,-,ncfrag=36/40;7f3\n")
	if d := s.Deadline(); !d.Equal(start.Add(time.Minute + WireTimeout)) {
		t.Errorf("deadline %v, want one for the new record", d)
	}
}

// What is given up is told as it is, once, and leaves nothing behind.
func TestStreamGivesUpWhenAsked(t *testing.T) {
	var s Stream
	push(t, &s, start, "0,1,0,-,ncfrag=0/20;Kernel panic\n")
	push(t, &s, start, "0,2,0,-,ncfrag=5/20;x")
	var got []Record
	s.GiveUp(collect(&got))
	if len(got) != 2 || string(got[0].Text) != "Kernel panic" || got[0].Missing != 7 || got[1].Missing != 19 || got[0].Partial || got[1].Partial {
		t.Errorf("given up as %+v", got)
	}
	cut := "[    3.592626] " + strings.Repeat("x", chunk-15)
	push(t, &s, start, cut)
	got = nil
	s.GiveUp(collect(&got))
	if len(got) != 1 || got[0].Missing != 1 || got[0].Partial {
		t.Errorf("given up as %+v", got)
	}
	if s.Size() != 0 || !s.Deadline().IsZero() {
		t.Errorf("%d bytes are left, until %v", s.Size(), s.Deadline())
	}
}

// TestDeadlineIsTheNearest: a record in pieces and a cut basic one wait side by side.
func TestDeadlineIsTheNearest(t *testing.T) {
	fragment, cut := "0,1,0,-,ncfrag=1/9;x", "[    3.592626] "+strings.Repeat("x", chunk-15)
	for _, order := range [][]string{{fragment, cut}, {cut}, {fragment}} {
		var s Stream
		for i, d := range order {
			push(t, &s, start.Add(time.Duration(i)*time.Millisecond), d)
		}
		if d := s.Deadline(); !d.Equal(start.Add(WireTimeout)) {
			t.Errorf("deadline %v, want a second after the first of %d datagrams", d, len(order))
		}
	}
}

func TestStreamDropsMalformedDatagrams(t *testing.T) {
	var s Stream
	push(t, &s, start, "0,1,0,-,ncfrag=0/4;ab")
	for _, payload := range []string{"", "0,1,0,-,ncfrag=4/4;x", "0,1,0,-,bad;x", "\x00"} {
		if err := s.Push(start, []byte(payload), func(r *Record) { t.Errorf("%q made %+v", payload, r) }); err == nil {
			t.Errorf("%q is accepted", payload)
		}
	}
	if got := push(t, &s, start, "0,1,0,-,ncfrag=2/4;c\n"); len(got) != 1 || string(got[0].Text) != "abc" {
		t.Errorf("got %+v, want the record that was under way", got)
	}
}

// TestStreamMemoryIsBounded floods a stream with records that never end.
func TestStreamMemoryIsBounded(t *testing.T) {
	big := strings.Repeat("x", 60<<10)
	for _, tt := range []struct {
		name     string
		datagram func(i int) string
	}{
		{"records that are all different", func(i int) string { return fmt.Sprintf("0,%d,0,-,ncfrag=1/%d;x", i, MaxTotal) }},
		{"records of the greatest length", func(i int) string {
			return fmt.Sprintf("0,%d,0,-,ncfrag=%d/%d;%s", i/2%7, 1+i%2*len(big), MaxTotal, big)
		}},
		{"a record in single bytes", func(i int) string { return fmt.Sprintf("0,1,0,-,ncfrag=%d/%d;x", 1+2*i, MaxTotal) }},
		{"headers as long as can be", func(i int) string {
			return fmt.Sprintf("0,%d,0,-,x=%s,ncfrag=0/9;ab\n%s", i, strings.Repeat("x", 200), strings.Repeat("c", i%7))
		}},
		{"callers as long as can be", func(i int) string { return fmt.Sprintf("0,%d,0,-,caller=%s;ab\n", i, strings.Repeat("x", 200)) }},
		{"basic records without end", func(int) string { return "[    1.000000] " + strings.Repeat("x", chunk-15) }},
		{"a basic record without end", func(i int) string {
			if i == 0 {
				return "[    1.000000] " + strings.Repeat("x", chunk-15)
			}
			return strings.Repeat("x", chunk)
		}},
		{"a record of nothing but fields", func(i int) string {
			return fmt.Sprintf("0,%d,0,-;x\n%s", i, strings.Repeat(" a=\n", MaxPayload/4-10))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s Stream
			records := 0
			for i := range 2000 {
				if len(tt.datagram(0)) > 10000 && i > 100 {
					break
				}
				err := s.Push(start, []byte(tt.datagram(i)), func(*Record) { records++ })
				if err != nil && !errors.Is(err, ErrFragment) {
					t.Fatal(err)
				}
				if err := s.bounded(); err != nil {
					t.Fatalf("after datagram %d: %v", i, err)
				}
			}
			s.Flush(start.Add(WireTimeout), func(*Record) { records++ })
			if records == 0 {
				t.Error("nothing was told")
			}
			if n := s.idleBytes(); n > 16<<10 {
				t.Errorf("%d bytes kept when nothing is under way", n)
			}
		})
	}
}

// TestStreamGivesUpTheOldest tells which record goes when there is room for no more.
func TestStreamGivesUpTheOldest(t *testing.T) {
	piece := func(seq, n int) string {
		const size = 60 << 10
		return fmt.Sprintf("0,%d,0,-,ncfrag=%d/%d;%s", seq, 1+n*size, MaxTotal, strings.Repeat("x", size))
	}
	var many []string
	for seq := range maxOpen + 2 {
		many = append(many, fmt.Sprintf("0,%d,0,-,ncfrag=1/9;x", seq+1))
	}
	for _, tt := range []struct {
		name      string
		datagrams []string
		want      []uint64
	}{
		{"a new record comes", []string{piece(1, 0), piece(2, 0), piece(3, 0), piece(4, 0), piece(5, 0)}, []uint64{1}},
		{"the oldest itself goes on", []string{piece(1, 0), piece(2, 0), piece(3, 0), piece(4, 0), piece(1, 1)}, []uint64{2}},
		{"another one goes on", []string{piece(1, 0), piece(2, 0), piece(3, 0), piece(4, 0), piece(3, 1)}, []uint64{1}},
		{"there are too many", many, []uint64{1, 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s Stream
			var got []uint64
			for _, d := range tt.datagrams {
				for _, r := range push(t, &s, start, d) {
					got = append(got, r.Seq)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("given up (-want +got):\n%s", diff)
			}
		})
	}
}

// bounded checks what a stream holds.
func (s *Stream) bounded() error {
	held := 0
	for _, a := range s.open {
		held += len(a.data)
		if cap(a.data) > 2*MaxTotal+chunk || len(a.spans) > maxSpans {
			return fmt.Errorf("a record of %d bytes capacity in %d pieces", cap(a.data), len(a.spans))
		}
	}
	if held != s.held || held > maxHeld || len(s.open) > maxOpen || len(s.cut) > maxCut+chunk {
		return fmt.Errorf("%d records hold %d bytes, booked as %d; %d bytes of a basic one", len(s.open), held, s.held, len(s.cut))
	}
	return nil
}

// idleBytes is roughly what a stream keeps.
func (s *Stream) idleBytes() int {
	n := int(unsafe.Sizeof(*s)) + cap(s.cut) + cap(s.decoder.text) + len(s.decoder.tail) + cap(s.decoder.fields)*32 + len(s.release) + len(s.caller) + cap(s.open)*8
	if s.done != nil {
		n += int(unsafe.Sizeof(*s.done))
		for _, d := range s.done {
			n += len(d.header)
		}
	}
	for _, a := range s.open {
		n += cap(a.data) + cap(a.spans)*24 + len(a.header)
	}
	return n
}

// TestOurOwnSourceIsSmall is the usual case: what a healthy node costs between two canaries.
func TestOurOwnSourceIsSmall(t *testing.T) {
	var s Stream
	for _, d := range (sent{seq: 1, flag: '-', text: strings.Repeat("x", 1000), user: []Field{{"instance", "i-0abc"}, {"boot", "7f3c"}, {"gasp", "c2Vj"}}}).datagrams() {
		push(t, &s, start, string(d))
	}
	if n := s.idleBytes(); n > 1<<10 {
		t.Errorf("%d bytes, want no more than 1 KiB", n)
	}
}

// TestFragmentsNeverMislead is the property the listener stands on: whatever is split, reordered, repeated and lost,
// what is told is true and what is missing is marked.
func TestFragmentsNeverMislead(t *testing.T) {
	for seed := range uint64(1000) {
		if err := mislead(rand.New(rand.NewPCG(seed, 2)), seed%2 == 0); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// mislead sends a few records through a bad network, as the kernel splits them or anyhow, and checks what comes out.
func mislead(rng *rand.Rand, anyhow bool) error {
	records := make([]sent, 1+rng.IntN(4))
	arrived := make([][]bool, len(records))
	type datagram struct {
		record, off, end int
		payload          []byte
	}
	var wire []datagram
	for i := range records {
		records[i] = randomSent(rng, uint64(i))
		total := len(records[i].body())
		arrived[i] = make([]bool, total)
		size := 1 + rng.IntN(total)
		if !anyhow {
			size = chunk - len(records[i].piece(0, 0)) - 8
		}
		for off := 0; off < total; off += size {
			end := min(total, off+size)
			wire = append(wire, datagram{i, off, end, records[i].piece(off, end)})
		}
		for range rng.IntN(3) { // and pieces that overlap
			off := rng.IntN(total)
			end := off + 1 + rng.IntN(total-off)
			wire = append(wire, datagram{i, off, end, records[i].piece(off, end)})
		}
	}
	if rng.IntN(2) == 0 {
		wire = slices.Concat(wire, wire)
	}
	if rng.IntN(3) > 0 {
		rng.Shuffle(len(wire), func(i, j int) { wire[i], wire[j] = wire[j], wire[i] })
	}
	loss := rng.IntN(3) * 20 // percent
	var s Stream
	var got []Record
	for _, d := range wire {
		if rng.IntN(100) < loss {
			continue
		}
		if err := s.Push(start, d.payload, collect(&got)); err != nil {
			if errors.Is(err, ErrFragment) { // in too many pieces
				return s.bounded()
			}
			return err
		}
		for at := d.off; at < d.end; at++ {
			arrived[d.record][at] = true
		}
		if err := s.bounded(); err != nil {
			return err
		}
	}
	s.Flush(start.Add(WireTimeout), collect(&got))
	if !s.Deadline().IsZero() || s.held != 0 {
		return fmt.Errorf("%d bytes held after giving up, deadline %v", s.held, s.Deadline())
	}
	// A kernel does not send pieces that overlap after the whole. What comes of them makes a finished record be forgotten.
	contested := slices.ContainsFunc(got, func(r Record) bool { return r.Contested })
	for i, k := range records {
		var of []Record
		for _, r := range got {
			if r.Seq == k.seq {
				of = append(of, r)
			}
		}
		if contested {
			for _, r := range of {
				if err := k.holds(r); err != nil {
					return fmt.Errorf("record %d of %d bytes, contested: %w", i, len(arrived[i]), err)
				}
			}
			continue
		}
		if err := k.check(arrived[i], of); err != nil {
			return fmt.Errorf("record %d of %d bytes: %w", i, len(arrived[i]), err)
		}
	}
	return nil
}
