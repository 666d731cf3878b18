package netconsole

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"
)

// sent is a record as a kernel has it, and how it would send it: the other side of the contract, written from
// drivers/net/netconsole.c and kernel/printk/printk.c, so that tests can compare what came out with what went in.
type sent struct {
	release string
	prefix  int
	seq     uint64
	usec    uint64
	flag    byte
	caller  string
	text    string
	dict    []Field // DEVICE and SUBSYSTEM: escaped by the kernel
	user    []Field // userdata and sysdata: raw
}

func (k sent) header() string {
	h := fmt.Sprintf("%d,%d,%d,%c", k.prefix, k.seq, k.usec, k.flag)
	if k.release != "" {
		h = k.release + "," + h
	}
	if k.caller != "" {
		h += ",caller=" + k.caller
	}
	return h
}

func (k sent) body() string {
	b := escape(k.text) + "\n"
	for _, f := range k.dict {
		b += " " + f.Key + "=" + escape(f.Value) + "\n"
	}
	for _, f := range k.user {
		b += " " + f.Key + "=" + f.Value + "\n"
	}
	return b
}

func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '\\' {
			fmt.Fprintf(&b, `\x%02x`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// piece is the fragment with the bytes from off to end.
func (k sent) piece(off, end int) []byte {
	body := k.body()
	return fmt.Appendf(nil, "%s,ncfrag=%d/%d;%s", k.header(), off, len(body), body[off:end])
}

// datagrams is the record as the kernel sends it.
func (k sent) datagrams() [][]byte {
	body := k.body()
	if whole := k.header() + ";" + body; len(whole) < chunk {
		return [][]byte{[]byte(whole)}
	}
	var all [][]byte
	for off := 0; off < len(body); {
		room := chunk - len(k.piece(off, off))
		end := min(off+room, len(body))
		all = append(all, k.piece(off, end))
		off = end
	}
	return all
}

// fields is what the body tells behind its text, by an independent reading.
func (k sent) fields() []Field {
	_, tail, _ := strings.Cut(k.body(), "\n")
	var fields []Field
	keyed := regexp.MustCompile(`(?s)^ ([^=]+)=(.*)$`)
	for _, line := range strings.Split(strings.TrimSuffix(tail, "\n"), "\n") {
		if m := keyed.FindStringSubmatch(line); m != nil {
			fields = append(fields, Field{m[1], m[2]})
		} else if n := len(fields); n > 0 {
			fields[n-1].Value += "\n" + line
		}
	}
	for i, f := range fields {
		fields[i] = field(f.Key, f.Value)
	}
	for i := range min(len(k.dict), len(fields)) {
		fields[i] = k.dict[i]
	}
	return fields
}

// check compares everything the stream said about a record with the record. The bytes that arrived are given.
func (k sent) check(arrived []bool, got []Record) error {
	had := 0
	for _, ok := range arrived {
		if ok {
			had++
		}
	}
	if had == 0 {
		if len(got) > 0 {
			return fmt.Errorf("told %q of a record that never arrived", got[0].Text)
		}
		return nil
	}
	if len(got) == 0 || got[len(got)-1].Partial {
		return fmt.Errorf("not told for good: %d times in all", len(got))
	}
	if len(got) > 2 || len(got) == 2 && !got[0].Partial {
		return fmt.Errorf("told %d times", len(got))
	}
	final := got[len(got)-1]
	if final.Missing != len(arrived)-had {
		return fmt.Errorf("missing %d bytes, want %d", final.Missing, len(arrived)-had)
	}
	if arrived[0] && final.Missing > 0 && len(got) != 2 {
		return fmt.Errorf("began and was not told at once")
	}
	prefix := 0
	for prefix < len(arrived) && arrived[prefix] {
		prefix++
	}
	if want := k.textOf(prefix); string(final.Text) != want {
		return fmt.Errorf("text %q, want %q", final.Text, want)
	}
	for _, r := range got {
		if err := k.holds(r); err != nil {
			return fmt.Errorf("partial %v, missing %d: %w", r.Partial, r.Missing, err)
		}
	}
	return nil
}

// textOf is the text as far as the first n bytes of the body tell.
func (k sent) textOf(n int) string {
	if n > len(escape(k.text)) {
		return redacted(k.text)
	}
	end := 0
	for end < len(k.text) && n >= len(escape(k.text[end:end+1])) {
		n -= len(escape(k.text[end : end+1]))
		end++
	}
	return redacted(k.text[:end] + Gap)
}

// redacted is what is told of a text.
func redacted(text string) string { return string(redact([]byte(text))) }

// holds reports what is told and not so, and what is missing and not marked so.
func (k sent) holds(r Record) error {
	want := Record{
		Extended: true, Partial: r.Partial, Release: k.release, Prefix: k.prefix, Seq: k.seq,
		Uptime: time.Duration(k.usec) * time.Microsecond, Cont: k.flag != '-', Caller: k.caller,
		Text: r.Text, Fields: r.Fields, Missing: r.Missing, Assembled: r.Assembled, Contested: r.Contested,
	}
	if got, want := fmt.Sprintf("%+v", r), fmt.Sprintf("%+v", want); got != want {
		return fmt.Errorf("header says %s, want %s", got, want)
	}
	all, text := k.fields(), redacted(k.text)
	if r.Missing == 0 {
		if string(r.Text) != text || fmt.Sprintf("%q", r.Fields) != fmt.Sprintf("%q", all) {
			return fmt.Errorf("whole record %q %q, want %q %q", r.Text, r.Fields, text, all)
		}
		return nil
	}

	marked := false
	if known, cut := strings.CutSuffix(string(r.Text), Gap); cut && strings.HasPrefix(text, known) {
		marked = true
	} else if string(r.Text) != text {
		return fmt.Errorf("text %q is not of %q", r.Text, text)
	}
	i := 0
	for _, f := range r.Fields {
		if f.Key == "" {
			marked = true
			continue
		}
		for i < len(all) && all[i] != f {
			i++
		}
		if i == len(all) {
			return fmt.Errorf("field %q is not among %q, in that order", f, all)
		}
		i++
	}
	if !marked {
		return fmt.Errorf("not marked: %q %q", r.Text, r.Fields)
	}
	whole := Record{Fields: all}
	told, id := r.Identity(), whole.Identity()
	if told.Instance != "" && told.Instance != id.Instance || told.Boot != "" && told.Boot != id.Boot || told.Secret != "" && told.Secret != id.Secret {
		return fmt.Errorf("identity %q, want that of %q", told, id)
	}
	return nil
}

// randomSent makes up a record that has everything in it that makes records hard to read.
func randomSent(rng *rand.Rand, seq uint64) sent {
	pick := func(s ...string) string { return s[rng.IntN(len(s))] }
	words := func(n int) string {
		var b strings.Builder
		for range rng.IntN(n) {
			b.WriteString(pick("Kernel panic", " ", "\n", "=", `\`, `\x41`, "é", "\x00", "\x7f", ";", ",", " boot=x", "a", Gap, "\n gasp=y"))
		}
		return b.String()
	}
	k := sent{
		release: pick("", "6.12.117+deb13-cloud-amd64"),
		prefix:  rng.IntN(16),
		seq:     seq,
		usec:    rng.Uint64N(1e12),
		flag:    "-c"[rng.IntN(2)],
		caller:  pick("", "T1", "C3"),
		text:    words(200),
	}
	if rng.IntN(3) == 0 {
		k.dict = []Field{{"SUBSYSTEM", "net"}, {"DEVICE", pick("n2", `+usb:1-1\x`, "\n é")}}
	}
	if rng.IntN(4) > 0 {
		k.user = []Field{{KeyInstance, "i-0abc"}, {KeyBoot, "7f3c2f6e-0000-4000-8000-000000000001"}, {KeySecret, "c2VjcmV0c2VjcmV0c2VjcmV0"}}
	}
	for range rng.IntN(4) {
		// Raw, so that whatever is in it must be told as it is; a NUL cannot be: configfs and the kernel end strings there.
		k.user = append(k.user, Field{pick("note", "k", "x y"), strings.ReplaceAll(words(60), "\x00", "")})
	}
	if rng.IntN(3) == 0 {
		// What a task may call itself, to be taken for somebody else.
		k.user = append(k.user, Field{"cpu", "3"}, Field{"taskname", pick("init", "\n boot=forged", "x\n instance=i")}, Field{"msgid", "17"})
	}
	return k
}

// TestKernelModelAgreesWithTheCapture keeps the model honest: the one fragmented record there is came out like that.
func TestKernelModelAgreesWithTheCapture(t *testing.T) {
	var pieces []string
	for _, d := range capture(t, "6.1-big.ext.jsonl") {
		if strings.HasPrefix(string(d), "0,391,") {
			pieces = append(pieces, string(d))
		}
	}
	text := strings.Repeat("abcdefghijklmnopqrstuvwxyz", 38) + "a"
	var got []string
	for _, d := range (sent{seq: 391, usec: 3610096, flag: '-', text: text}).datagrams() {
		got = append(got, string(d))
	}
	if strings.Join(got, "|") != strings.Join(pieces, "|") {
		t.Errorf("the model sends\n%q, the kernel sent\n%q", got, pieces)
	}
}
