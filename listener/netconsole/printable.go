package netconsole

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable is s fit for a terminal, a log or an object of the API: what is not UTF-8, control characters but the tab, and
// characters that cannot be seen or change the direction of the text become `\xHH`, as in dmesg. Everything that a datagram
// says goes through it before it is shown.
func Printable(s string) string {
	i := 0
	for i < len(s) && (s[i] >= ' ' && s[i] < 0x7f || s[i] == '\t') {
		i++
	}
	if i == len(s) {
		return s
	}

	const hex = "0123456789abcdef"
	out := append(make([]byte, 0, len(s)+16), s[:i]...)
	for i < len(s) {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == '\t' || unicode.IsGraphic(r) && (r != utf8.RuneError || size > 1) {
			out = append(out, s[i:i+size]...)
		} else {
			for _, c := range []byte(s[i : i+size]) {
				out = append(out, '\\', 'x', hex[c>>4], hex[c&0xf])
			}
		}
		i += size
	}
	return string(out)
}

// hidden stands for a secret.
const hidden = "(gasp)"

// redact returns text without the values of the secret's key, wherever they stand and whatever blanks are around the equals
// sign. Text without any is returned as it is.
func redact(text []byte) []byte {
	at := afterSecretKey(text)
	if at < 0 {
		return text
	}
	var out []byte
	for ; at >= 0; at = afterSecretKey(text) {
		out = append(append(out, text[:at]...), hidden...)
		text = text[at:]
		value, _, _ := bytes.Cut(text, []byte(Gap))
		if end := bytes.IndexFunc(value, unicode.IsSpace); end >= 0 {
			value = value[:end]
		}
		text = text[len(value):]
	}
	return append(out, text...)
}

// afterSecretKey is where the first value of the secret's key begins, -1 if there is none.
func afterSecretKey(text []byte) int {
	const blanks = " \t"
	for at := 0; ; {
		i := bytes.Index(text[at:], []byte(KeySecret))
		if i < 0 {
			return -1
		}
		at += i + len(KeySecret)
		if value, found := bytes.CutPrefix(bytes.TrimLeft(text[at:], blanks), []byte("=")); found {
			return len(text) - len(bytes.TrimLeft(value, blanks))
		}
	}
}

// redactUnknown hides what may be a secret in the text of a basic record, which can be an extended one whose header this
// program does not know. The first line of a fragment other than the first may begin in the middle of the secret.
func redactUnknown(text []byte) []byte {
	line, rest, more := bytes.Cut(text, []byte{'\n'})
	if head, piece, found := bytes.Cut(line, []byte{';'}); found && len(piece) > 0 {
		_, offset, fragment := bytes.Cut(head, []byte("ncfrag="))
		if fragment && !bytes.HasPrefix(offset, []byte("0/")) {
			text = append(append([]byte(nil), head...), ";"+Gap...)
			if more {
				text = append(append(text, '\n'), rest...)
			}
		}
	}
	return redact(text)
}

// field makes a Field fit to be kept: the values of an identity become words of their own, and a secret stays hidden
// whatever stands around its key.
func field(key, value string) Field {
	if strings.Contains(key, KeySecret) && key != KeySecret {
		return Field{Key: key, Value: hidden}
	}
	if strings.Contains(value, KeySecret) {
		value = string(redact([]byte(value)))
	}
	if key == KeyInstance || key == KeyBoot || key == KeySecret {
		return Field{Key: key, Value: oneWord(value, maxToken)}
	}
	return Field{Key: key, Value: unescapeDictionary(key, value)}
}
