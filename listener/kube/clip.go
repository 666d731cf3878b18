package kube

import (
	"strings"
	"unicode/utf8"
)

// clip makes a kernel's words fit for an API object: valid UTF-8 and at most size bytes, an ellipsis where it was cut.
// Kernel text is bytes: a crash may print anything.
func clip(s string, size int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= size {
		return s
	}
	const ellipsis = "…"
	cut := size - len(ellipsis)
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + ellipsis
}

// letters leaves of s what a code may consist of, at most size bytes.
func letters(s string, size int) string {
	s = strings.Map(func(r rune) rune {
		if (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z') {
			return r
		}
		return -1
	}, s)
	return s[:min(len(s), size)]
}
