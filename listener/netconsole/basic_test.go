package netconsole

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStreamReadsBasicFormat(t *testing.T) {
	basic := func(us int, text string) Record {
		return Record{Prefix: -1, Uptime: time.Duration(us) * time.Microsecond, Text: []byte(text)}
	}
	undated := func(text string) Record { return Record{Prefix: -1, Uptime: -1, Text: []byte(text)} }
	cut := func(r Record, partial bool) Record {
		r.Text, r.Missing, r.Partial = append(slices.Clip(r.Text), Gap...), 1, partial
		return r
	}
	fill := func(head string) string { return head + strings.Repeat("x", chunk-len(head)) }
	const stamp = "[    3.592626] "
	const notice = "** 1 printk messages dropped **"
	full, rest := fill(stamp), strings.Repeat("x", chunk-len(stamp))

	tests := []struct {
		name      string
		datagrams []string
		want      []Record
	}{
		{"a record", []string{stamp + "Kernel panic\n"}, []Record{basic(3592626, "Kernel panic")}},
		{"no time at all", []string{"Kernel panic\n"}, []Record{undated("Kernel panic")}},
		{"an uptime of years", []string{"[123456789.000001] x\n"}, []Record{basic(123456789000001, "x")}},
		{"a task as caller", []string{"[    3.592626][    T1] x\n"}, []Record{basic(3592626, "x")}},
		{"a CPU as caller, without time", []string{"[    C0] x\n"}, []Record{undated("x")}},
		{"syslog's prefix", []string{"<4>[    3.592626][T12345] x\n"}, []Record{basic(3592626, "x")}},
		{"syslog's prefix alone", []string{"<4>x\n<4>y\n"}, []Record{undated("x\ny")}},
		{"a space at the start of the text", []string{stamp + " <TASK>\n"}, []Record{basic(3592626, " <TASK>")}},
		{"raw bytes and backslashes", []string{stamp + "\xc3\xa9 \xff \\x41 \x01\n"}, []Record{basic(3592626, "\xc3\xa9 \xff \\x41 \x01")}},
		{"a message of several lines, one of them blank", []string{stamp + "one\n" + stamp + "\n" + stamp + "two\n"}, []Record{basic(3592626, "one\n\ntwo")}},
		{"a message that ends in a blank line", []string{stamp + "one\n" + stamp + "\n"}, []Record{basic(3592626, "one\n")}},
		{"several lines without time", []string{"one\ntwo\n"}, []Record{undated("one\ntwo")}},
		{"a text that quotes a record of its own kernel", []string{stamp + stamp + "x\n"}, []Record{basic(3592626, stamp+"x")}},
		{"two records in one datagram", []string{stamp + "one\n[    3.592627] two\n"}, []Record{basic(3592626, "one"), basic(3592627, "two")}},
		{"two records in one datagram, the first without time", []string{"one\n" + stamp + "two\n"}, []Record{undated("one"), basic(3592626, "two")}},
		{"the last newline lost", []string{stamp + "x"}, []Record{basic(3592626, "x")}},
		{"a blank line", []string{"\n"}, []Record{undated("")}},
		{"a time that is none", []string{"[    3.59] x\n", "[a.000000] x\n", "[1.000000]x\n", "[1234567890.000000] x\n"},
			[]Record{undated("[    3.59] x"), undated("[a.000000] x"), undated("[1.000000]x"), undated("[1234567890.000000] x")}},
		{"a bracket that stays open", []string{"[ the text of somebody who likes brackets ]\n", "[    3.592626\n"},
			[]Record{undated("[ the text of somebody who likes brackets ]"), undated("[    3.592626")}},
		{"a caller that is none", []string{"[    X1] x\n", "[T] x\n", "[12] x\n"}, []Record{undated("[    X1] x"), undated("[T] x"), undated("[12] x")}},
		{"a priority that is none", []string{"<b>x\n", "<12345>x\n", "<>x\n"}, []Record{undated("<b>x"), undated("<12345>x"), undated("<>x")}},
		{"records dropped before this one", []string{"** 17 printk messages dropped **\n" + stamp + "x\n"},
			[]Record{undated("** 17 printk messages dropped **"), basic(3592626, "x")}},
		{"the same from an old kernel", []string{"** 17 printk messages dropped ** " + stamp + "x\n"},
			[]Record{undated("** 17 printk messages dropped **"), basic(3592626, "x")}},
		{"a notice alone", []string{"** 17 printk messages dropped **\n"}, []Record{undated("** 17 printk messages dropped **")}},
		{"what looks like a notice", []string{"** x printk messages dropped **\n", notice, "**  printk messages dropped **\n"},
			[]Record{undated("** x printk messages dropped **"), undated(notice), undated("**  printk messages dropped **")}},
		{"a replayed record behind dropped ones", []string{replayNotice + notice + "\n" + stamp + "x\n"},
			[]Record{undated(notice), basic(3592626, "x")}},

		{"a record of two datagrams", []string{full, "yz\n"}, []Record{cut(basic(3592626, rest), true), basic(3592626, rest+"yz")}},
		{"a record of three datagrams", []string{full, strings.Repeat("y", chunk), "z\n"},
			[]Record{cut(basic(3592626, rest), true), basic(3592626, rest+strings.Repeat("y", chunk)+"z")}},
		{"lines cut anywhere", []string{fill(stamp + "one\n" + stamp), "yz\n" + stamp + "two\n"}, []Record{
			cut(basic(3592626, "one\n"+strings.Repeat("x", chunk-2*len(stamp)-4)), true),
			basic(3592626, "one\n"+strings.Repeat("x", chunk-2*len(stamp)-4)+"yz\ntwo")}},
		{"a full datagram that is a whole record", []string{full[:chunk-1] + "\n", stamp + "y\n"},
			[]Record{basic(3592626, rest[1:]), basic(3592626, "y")}},
		{"a rest that never comes, because the next record does", []string{full, "[    3.600000] y\n"},
			[]Record{cut(basic(3592626, rest), true), cut(basic(3592626, rest), false), basic(3600000, "y")}},
		{"a rest that never comes, because records were dropped", []string{full, notice + "\n"},
			[]Record{cut(basic(3592626, rest), true), cut(basic(3592626, rest), false), undated(notice)}},
		{"a rest that never comes, because a record is replayed", []string{full, replayNotice + "6,1,0,-;y\n"},
			[]Record{cut(basic(3592626, rest), true), cut(basic(3592626, rest), false), {Extended: true, Prefix: 6, Seq: 1, Text: []byte("y")}}},
		{"the first datagram twice", []string{full, full, "yz\n"}, []Record{cut(basic(3592626, rest), true), basic(3592626, rest+"yz")}},
		{"a rest written to look like the kernel's own panic", []string{full, "0,1,2,-;Kernel panic - not syncing\n"},
			[]Record{cut(basic(3592626, rest), true), basic(3592626, rest+"0,1,2,-;Kernel panic - not syncing")}},
		{"a full datagram without time may be anything", []string{fill("y"), "z\n"},
			[]Record{cut(undated(fill("y")), false), undated("z")}},
		{"dropped records and a cut one", []string{fill(notice + "\n" + stamp), "z\n"}, []Record{
			undated(notice),
			cut(basic(3592626, strings.Repeat("x", chunk-len(notice)-1-len(stamp))), true),
			basic(3592626, strings.Repeat("x", chunk-len(notice)-1-len(stamp))+"z")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s Stream
			var got []Record
			for _, d := range tt.datagrams {
				got = append(got, push(t, &s, start, d)...)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
			if d := s.Deadline(); !d.IsZero() {
				t.Errorf("still waits until %v", d)
			}
		})
	}
}

func TestStreamGivesUpOnCutBasicRecords(t *testing.T) {
	var s Stream
	head := "[    3.592626] " + strings.Repeat("x", chunk-15)
	push(t, &s, start, head)
	if d := s.Deadline(); !d.Equal(start.Add(WireTimeout)) {
		t.Errorf("deadline %v, want a second after the piece", d)
	}
	var got []Record
	s.Flush(start.Add(WireTimeout), collect(&got))
	want := []Record{{Prefix: -1, Uptime: 3592626 * time.Microsecond, Text: []byte(head[15:] + Gap), Missing: 1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	// What comes now is no rest of it.
	if got := push(t, &s, start.Add(WireTimeout), "6,1,0,-;y\n"); len(got) != 1 || !got[0].Extended {
		t.Errorf("got %+v, want an extended record", got)
	}
}

// TestMalformedDatagramEndsCutRecord: it cannot be the rest, and whatever comes behind it may be anything.
func TestMalformedDatagramEndsCutRecord(t *testing.T) {
	for name, payload := range map[string]string{
		"empty":     "",
		"binary":    "a\x00b",
		"oversized": strings.Repeat("x", MaxPayload+1),
	} {
		t.Run(name, func(t *testing.T) {
			var s Stream
			push(t, &s, start, "[    3.592626] "+strings.Repeat("x", chunk-15))
			var got []Record
			if err := s.Push(start, []byte(payload), collect(&got)); err == nil {
				t.Error("accepted")
			}
			if len(got) != 1 || got[0].Partial || got[0].Missing != 1 || !s.Deadline().IsZero() {
				t.Errorf("got %+v, deadline %v, want the cut record for good", got, s.Deadline())
			}
		})
	}
}
