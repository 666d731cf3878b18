package netconsole

import (
	"bytes"
	"strings"
)

// A run is a stretch of a record's body that arrived without a hole.
type run struct {
	off  int // in the body
	data []byte
}

func (r run) end() int { return r.off + len(r.data) }

// decoder turns bodies into text and fields. It allocates nothing for records like the last one: their text is lent as it
// came or decoded into the same memory, and userdata is the same on every line of a boot, so that comparing it is usually
// all there is to do.
type decoder struct {
	text   []byte  // of the last record that could not be lent as it came
	tail   string  // what fields were decoded from
	fields []Field // of the last record
}

// maxMemo and maxText bound, in bytes, what a silent source keeps of its last record: its tail, and its text decoded.
const maxMemo, maxText = 1 << 10, 256

// decode reads the runs of a body of total bytes, in order of offset and not adjacent, into r.Text and r.Fields.
//
// A hole hides whether what follows it is text or the value of a field, so that nothing between a hole and the next
// newline is decoded; and a field ends only where the next one begins, because userdata and sysdata may contain newlines
// of their own. So everything that is decoded is as it is in the whole record.
func (d *decoder) decode(r *Record, runs []run, total int) {
	if len(runs) == 1 && len(runs[0].data) == total {
		text, tail, _ := bytes.Cut(runs[0].data, []byte{'\n'})
		r.Text = d.unescape(text)
		r.Fields = d.decodeTail(tail)
		return
	}

	at := 0
	for _, run := range runs {
		if run.off > at {
			r.Fields = append(r.Fields, Field{Value: Gap})
		}
		line, tail, found := bytes.Cut(run.data, []byte{'\n'})
		if run.off == 0 && found {
			r.Text = d.unescape(line)
		} else if run.off == 0 {
			r.Text = d.cut(d.unescape(trimEscape(line)))
		}
		r.Fields = appendFields(r.Fields, string(tail), run.end() == total)
		at = run.end()
	}
	if at < total {
		r.Fields = append(r.Fields, Field{Value: Gap})
	}
	if len(runs) == 0 || runs[0].off > 0 {
		r.Text = d.cut(nil)
	}
}

// unescape decodes text, which is lent as it is if it has nothing to decode.
func (d *decoder) unescape(text []byte) []byte {
	if bytes.IndexByte(text, '\\') < 0 {
		return text
	}
	d.text = appendUnescaped(d.text[:0], text)
	return d.text
}

// cut marks text as lacking its end.
func (d *decoder) cut(text []byte) []byte {
	d.text = append(append(d.text[:0], text...), Gap...)
	return d.text
}

// rest puts text away until the next record. Without others to share it with, it is freed if it is too large to keep.
func (d *decoder) rest(spare *Spare) {
	switch {
	case spare != nil && cap(d.text) > cap(spare.text) && cap(d.text) <= firstData:
		spare.text, d.text = d.text, nil
	case spare != nil || cap(d.text) > maxText:
		d.text = nil
	}
}

// wake takes what rest put away. If a record is being handed over, that is in use.
func (d *decoder) wake(spare *Spare) {
	if spare != nil {
		d.text, spare.text = spare.text, nil
	}
}

// decodeTail reads the fields of a whole record.
func (d *decoder) decodeTail(tail []byte) []Field {
	if string(tail) == d.tail {
		return d.fields
	}
	if len(tail) > maxMemo {
		return appendFields(nil, string(tail), true)
	}
	d.tail = string(tail)
	d.fields = appendFields(d.fields[:0], d.tail, true)
	return d.fields
}

// appendFields reads ` key=value` lines, the first of which begins tail. A line that does not look like that belongs to
// the value before it. Unless tail ends the record the last field is left out: it might go on.
func appendFields(fields []Field, tail string, last bool) []Field {
	var key string
	from, to := -1, 0 // the value of key in tail
	flush := func() {
		if from >= 0 {
			fields = append(fields, field(key, tail[from:to]))
		}
		from = -1
	}

	for at := 0; at < len(tail); {
		line, _, _ := strings.Cut(tail[at:], "\n")
		if k, ok := fieldKey(line); ok {
			flush()
			key, from = k, at+1+len(k)+1
		}
		to = at + len(line)
		at = to + 1
	}
	if last {
		flush()
	}
	return fields
}

// fieldKey is the key of a ` key=value` line.
func fieldKey(line string) (key string, ok bool) {
	if !strings.HasPrefix(line, " ") {
		return "", false
	}
	key, _, ok = strings.Cut(line[1:], "=")
	return key, ok && key != ""
}

// unescapeDictionary decodes the values the kernel escapes: those of the dictionary (msg_add_dict_text,
// kernel/printk/printk.c). Userdata and sysdata go out as they are.
func unescapeDictionary(key, value string) string {
	if key != "SUBSYSTEM" && key != "DEVICE" {
		return value
	}
	return string(appendUnescaped(nil, []byte(value)))
}

// appendUnescaped decodes what msg_add_ext_text (kernel/printk/printk.c) encodes, `\xHH` for control bytes, bytes from 0x7f
// on and the backslash. The result need not be UTF-8.
func appendUnescaped(dst, b []byte) []byte {
	for {
		i := bytes.IndexByte(b, '\\')
		if i < 0 {
			return append(dst, b...)
		}
		dst = append(dst, b[:i]...)
		b = b[i:]
		if len(b) >= 4 && b[1] == 'x' && hexdigit(b[2]) >= 0 && hexdigit(b[3]) >= 0 {
			dst = append(dst, byte(hexdigit(b[2])<<4|hexdigit(b[3])))
			b = b[4:]
			continue
		}
		dst = append(dst, '\\')
		b = b[1:]
	}
}

// trimEscape takes off the beginning of an escape whose end is missing.
func trimEscape(b []byte) []byte {
	i := len(b) - 1
	for i >= 0 && b[i] != '\\' && len(b)-i < 4 {
		i--
	}
	if i < 0 || len(b)-i >= 4 {
		return b
	}
	if rest := b[i+1:]; len(rest) > 0 && (rest[0] != 'x' || len(rest) == 2 && hexdigit(rest[1]) < 0) {
		return b
	}
	return b[:i]
}

// hexdigit is the value of a lower-case hex digit, the only case the kernel writes, -1 for anything else.
func hexdigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}
