package listener

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// maxLayers bounds the codings around a log: compressed, and that in base64, for instance.
const maxLayers = 3

// decode undoes what files of logs come in: gzip and bzip2 (logrotate, S3), base64 (EC2's API), UTF-16 (PowerShell).
func decode(r io.Reader) (*bufio.Reader, error) {
	in := bufio.NewReaderSize(r, maxLine)
	for range maxLayers {
		begin, _ := in.Peek(512)
		if err := unreadable(begin); err != nil {
			return nil, err
		}
		var inner io.Reader
		switch {
		case bytes.HasPrefix(begin, []byte("\x1f\x8b")):
			z, err := gzip.NewReader(in)
			if err != nil {
				return nil, fmt.Errorf("read gzip: %w", err)
			}
			inner = z
		case bytes.HasPrefix(begin, []byte("BZh")):
			inner = bzip2.NewReader(in)
		case bytes.HasPrefix(begin, []byte("\xff\xfe")), len(begin) > 3 && begin[0] != 0 && begin[1] == 0 && begin[2] != 0 && begin[3] == 0:
			inner = &utf16Reader{in: in, order: binary.LittleEndian}
		case bytes.HasPrefix(begin, []byte("\xfe\xff")), len(begin) > 3 && begin[0] == 0 && begin[1] != 0 && begin[2] == 0 && begin[3] != 0:
			inner = &utf16Reader{in: in, order: binary.BigEndian}
		case carriageReturns(in):
			inner = newlines{in}
		case isBase64(begin):
			inner = base64.NewDecoder(base64.StdEncoding, unindented{in})
		default:
			return in, nil
		}
		in = bufio.NewReaderSize(inner, maxLine)
	}
	return in, nil
}

// unreadable says what a file is that holds a log in a form that other programs read.
func unreadable(begin []byte) error {
	for _, form := range []struct{ begins, is, write string }{
		{"\xfd7zXZ\x00", "compressed with xz", "xz -dc FILE"},
		{"\x28\xb5\x2f\xfd", "compressed with zstd", "zstd -dc FILE"},
		{"PK\x03\x04", "a zip archive", "unzip -p FILE"},
		{"LPKSHHRH", "a journal's own file", "journalctl --file FILE -k -o json"},
		{"KDUMP   ", "a dump of a kernel", "makedumpfile --dump-dmesg FILE LOG && cat LOG"},
		{"\x7fELF", "a program, or a dump of a kernel", "makedumpfile --dump-dmesg FILE LOG && cat LOG"},
	} {
		if bytes.HasPrefix(begin, []byte(form.begins)) {
			return fmt.Errorf("it is %s; write `%s | lastgasp-listener replay -`", form.is, form.write)
		}
	}
	return nil
}

// isBase64 reports whether a file that begins like this is base64 as a whole: it has nothing else, and text or gzip inside.
func isBase64(begin []byte) bool {
	const enough = 64
	begin = bytes.Join(bytes.Fields(begin), nil)
	begin = begin[:len(begin)/4*4]
	if len(begin) < enough {
		return false
	}
	plain := make([]byte, base64.StdEncoding.DecodedLen(len(begin)))
	n, err := base64.StdEncoding.Decode(plain, begin)
	plain = plain[:n]
	text := !bytes.ContainsFunc(plain[:n-min(n, utf8.UTFMax)], func(r rune) bool { return r == utf8.RuneError || r == 0 })
	return err == nil && (text || bytes.HasPrefix(plain, []byte("\x1f\x8b")))
}

// unindented leaves out blanks and tabs; base64.NewDecoder itself leaves out newlines.
type unindented struct{ in io.Reader }

func (u unindented) Read(p []byte) (int, error) {
	n, err := u.in.Read(p)
	return len(slices.DeleteFunc(p[:n], func(c byte) bool { return c == ' ' || c == '\t' })), err
}

// carriageReturns reports whether the lines of a file end in carriage returns alone.
func carriageReturns(in *bufio.Reader) bool {
	begin, _ := in.Peek(maxLine)
	begin = bytes.TrimRight(begin, "\r\n")
	return bytes.IndexByte(begin, '\r') >= 0 && bytes.IndexByte(begin, '\n') < 0
}

// newlines reads them as newlines.
type newlines struct{ in io.Reader }

func (n newlines) Read(p []byte) (int, error) {
	got, err := n.in.Read(p)
	copy(p, bytes.ReplaceAll(p[:got], []byte{'\r'}, []byte{'\n'}))
	return got, err
}

// utf16Reader reads UTF-16 as UTF-8, without the byte order mark.
type utf16Reader struct {
	in    *bufio.Reader
	order binary.ByteOrder
	out   []byte // not yet read
}

func (u *utf16Reader) Read(p []byte) (int, error) {
	for len(u.out) == 0 {
		r, err := u.rune()
		if err != nil {
			return 0, err
		}
		if r != '\ufeff' {
			u.out = utf8.AppendRune(u.out, r)
		}
	}
	n := copy(p, u.out)
	u.out = u.out[n:]
	return n, nil
}

// rune reads one character.
func (u *utf16Reader) rune() (rune, error) {
	unit, err := u.unit()
	if err != nil || !utf16.IsSurrogate(unit) {
		return unit, err
	}
	low, err := u.unit()
	return utf16.DecodeRune(unit, low), err
}

// unit reads 16 bits.
func (u *utf16Reader) unit() (rune, error) {
	var b [2]byte
	if _, err := io.ReadFull(u.in, b[:]); err != nil {
		return 0, io.EOF // half a character at the end is none
	}
	return rune(u.order.Uint16(b[:])), nil
}
