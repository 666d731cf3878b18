package kube

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ellipsis stands where a text was cut.
const ellipsis = "…"

// printable makes what a kernel, a datagram or a Node says fit for an API object: at most size bytes, and nothing in it that
// a terminal would act on. kubectl prints fields as they are, so control characters, newlines, directional overrides and
// bytes that are not UTF-8 are written as escapes; a tab becomes a space.
func printable(s string, size int) string {
	if len(s) <= size && strings.IndexFunc(s, unprintable) < 0 {
		return s
	}
	var b strings.Builder
	cut := 0 // where to cut if all of it does not fit
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		piece := s[:n]
		switch {
		case r == '\t':
			piece = " "
		case r == utf8.RuneError && n == 1, r < utf8.RuneSelf && unprintable(r):
			piece = fmt.Sprintf(`\x%02x`, s[0])
		case unprintable(r) && r > 0xffff:
			piece = fmt.Sprintf(`\U%08x`, r)
		case unprintable(r):
			piece = fmt.Sprintf(`\u%04x`, r)
		}
		if b.Len()+len(piece) > size {
			return b.String()[:cut] + ellipsis
		}
		b.WriteString(piece)
		if b.Len() <= size-len(ellipsis) {
			cut = b.Len()
		}
		s = s[n:]
	}
	return b.String()
}

// unprintable is true of utf8.RuneError as well: it stands for bytes that are not UTF-8.
func unprintable(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }

// letters is s without everything that a cause must not contain, at most size bytes.
func letters(s string, size int) string {
	s = strings.Map(func(r rune) rune {
		if (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z') {
			return r
		}
		return -1
	}, s)
	return s[:min(len(s), size)]
}
