package listener

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"errors"
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
		case bytes.HasPrefix(begin, []byte("\xfd7zXZ\x00")):
			return nil, errors.New("it is compressed with xz; write `xz -dc FILE | lastgasp-listener replay -`")
		case bytes.HasPrefix(begin, []byte("\x28\xb5\x2f\xfd")):
			return nil, errors.New("it is compressed with zstd; write `zstd -dc FILE | lastgasp-listener replay -`")
		case bytes.HasPrefix(begin, []byte("PK\x03\x04")):
			return nil, errors.New("it is a zip archive; write `unzip -p FILE | lastgasp-listener replay -`")
		case bytes.HasPrefix(begin, []byte("\xff\xfe")), len(begin) > 3 && begin[0] != 0 && begin[1] == 0 && begin[2] != 0 && begin[3] == 0:
			inner = &utf16Reader{in: in, order: binary.LittleEndian}
		case bytes.HasPrefix(begin, []byte("\xfe\xff")), len(begin) > 3 && begin[0] == 0 && begin[1] != 0 && begin[2] == 0 && begin[3] != 0:
			inner = &utf16Reader{in: in, order: binary.BigEndian}
		case isBase64(begin):
			inner = base64.NewDecoder(base64.StdEncoding, unindented{in})
		default:
			return in, nil
		}
		in = bufio.NewReaderSize(inner, maxLine)
	}
	return in, nil
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
