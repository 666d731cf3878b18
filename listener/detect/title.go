package detect

import (
	"cmp"
	"strings"

	"github.com/lastgasp/lastgasp/listener/lazyregexp"
)

// maxTitle bounds a title in bytes.
const maxTitle = 160

var (
	offset  = lazyregexp.New(`\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?`)
	pointer = lazyregexp.New(`\b(?:0x)?[0-9a-f]{12,16}\b`)
	// A log level in the middle of a message, where printk does not look for it (fs/btrfs/messages.c).
	strayLevel = lazyregexp.New("\x01[0-7cd]")
	spaces     = lazyregexp.New(`\s+`)
)

// inFunction stands for the function's name in a title.
const inFunction = "{in}"

// titleOf fills the groups of a match into the rule's title. {in} stays.
func titleOf(r *Rule, text []byte, at []int) string {
	var b strings.Builder
	for i := 0; i < len(r.Title); i++ {
		if r.Title[i] != '$' || i+1 == len(r.Title) || r.Title[i+1] < '1' || r.Title[i+1] > '9' {
			b.WriteByte(r.Title[i])
			continue
		}
		i++
		if g := 2 * int(r.Title[i]-'0'); g+1 < len(at) && at[g] >= 0 {
			b.WriteString(tidy(string(text[at[g]:at[g+1]])))
		}
	}
	title := b.String()
	if strings.TrimSpace(title) == "" || title == inFunction {
		title = tidy(string(text[at[0]:at[1]])) // no title, or a panic without an argument
	}
	return cmp.Or(title, r.Cause)
}

// placeOf is the function that the message names as where it happened, or that alone prints it; empty if there is none.
func placeOf(r *Rule, text []byte, at []int) string {
	if r.within != "" {
		return r.within
	}
	if g := 2 * r.place; g > 0 && g+1 < len(at) && at[g] >= 0 {
		if f := string(text[at[g]:at[g+1]]); isSymbol(f) {
			return function(f)
		}
	}
	return ""
}

// isSymbol reports whether s can be a symbol of the kernel, and not an address without one, such as 0x0, or damaged text.
func isSymbol(s string) bool {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return false
	}
	return s != "" && (s[0] < '0' || s[0] > '9') && (len(s) < 8 || strings.Trim(s, "0123456789abcdef") != "")
}

// tidy makes text from a message fit for a title: one line, without what differs from boot to boot.
func tidy(s string) string {
	s, _, _ = strings.Cut(strings.TrimLeft(s, "\n"), "\n")
	s = s[:min(len(s), 2*maxTitle)]
	s = strayLevel.ReplaceAllLiteralString(s, "")
	s = offset.ReplaceAllLiteralString(s, "")
	s = pointer.ReplaceAllLiteralString(s, "…")
	s = spaces.ReplaceAllLiteralString(s, " ")
	s = strings.TrimRight(s, " .:,!")
	return string(printable([]byte(strings.ReplaceAll(s, inFunction, ""))))
}

// name puts the function into the title, and in front of it the helper in which it happened.
func name(title string, t *trace) string {
	in := ""
	if f := t.guilty; f != "" {
		in = " in " + f
		if t.jumped {
			in = " on a bad jump from " + f
		}
		if t.helper != "" {
			in = " (" + t.helper + ")" + in
		}
	}
	title = strings.Replace(title, inFunction, in, 1)
	if len(title) > maxTitle {
		title = strings.ToValidUTF8(title[:maxTitle], "") + "…"
	}
	return title
}
