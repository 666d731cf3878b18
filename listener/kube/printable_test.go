package kube

import (
	"strings"
	"testing"
	"unicode"
)

func TestPrintable(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		size     int
		want     string
	}{
		{"short", "abc", 5, "abc"},
		{"just fits", "abcde", 5, "abcde"},
		{"cut", "abcdef", 5, "ab…"},
		{"cut between the bytes of a letter", "aäöü", 6, "aä…"},
		{"not utf-8", "a\xffb", 9, `a\xffb`},
		{"replacement character as sent", "a\uFFFDb", 9, `a\ufffdb`},
		{"terminal escape", "\x1b[2Jx", 99, `\x1b[2Jx`},
		{"newline and return", "a\r\nb", 99, `a\x0d\x0ab`},
		{"tab is a space", "a\tb", 99, "a b"},
		{"nul and delete", "\x00\x7f", 99, `\x00\x7f`},
		{"one-byte control sequence introducer", "\u009b2J", 99, `\u009b2J`},
		{"right-to-left override", "a\u202eb", 99, `a\u202eb`},
		{"isolate", "\u2066a\u2069", 99, `\u2066a\u2069`},
		{"arabic letter mark, zero width", "\u061c\u200b\ufeff", 99, `\u061c\u200b\ufeff`},
		{"line separators", "a\u2028b\u2029", 99, `a\u2028b\u2029`},
		{"tag characters", "\U000e0041", 99, `\U000e0041`},
		{"an escape is not cut in two", "abc\x1bdef", 9, "abc…"},
		{"letters of all kinds", "größe 文字 ñ", 99, "größe 文字 ñ"},
	} {
		if got := printable(tt.in, tt.size); got != tt.want || len(got) > tt.size {
			t.Errorf("%s: printable(%q, %d) = %q (%d bytes), want %q", tt.name, tt.in, tt.size, got, len(got), tt.want)
		}
	}
	if got := printable(strings.Repeat("ä", 1000), 1024); len(got) != 1023 && len(got) != 1024 {
		t.Errorf("printable leaves %d bytes of 1024", len(got))
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b\u202e\xff", 7)
	f.Fuzz(func(t *testing.T, s string, size int) {
		if size = size & 0xfff; size < 4 {
			return
		}
		got := printable(s, size)
		if len(got) > size || strings.IndexFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
			t.Errorf("printable(%q, %d) = %q (%d bytes)", s, size, got, len(got))
		}
		if again := printable(got, size); again != got {
			t.Errorf("printable(%q) = %q the second time", got, again)
		}
	})
}
