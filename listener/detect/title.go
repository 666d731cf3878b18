package detect

import (
	"regexp"
	"strings"
)

// maxTitle bounds a title in bytes.
const maxTitle = 160

var (
	offset  = regexp.MustCompile(`\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?`)
	pointer = regexp.MustCompile(`\b(?:0x)?[0-9a-f]{12,16}\b`)
	// A log level in the middle of a message, where printk does not look for it (fs/btrfs/messages.c).
	strayLevel = regexp.MustCompile("\x01[0-7cd]")
	spaces     = regexp.MustCompile(`\s+`)
)

// inFunction is the place of the function's name in a title.
const inFunction = "{in}"

// titleOf fills the groups of a match into the rule's title. {in} stays.
func titleOf(r *Rule, text string, at []int) string {
	title := r.Title
	if title == "" {
		title = tidy(text[at[0]:at[1]])
	}
	if !strings.Contains(title, "$") {
		return title
	}
	var b strings.Builder
	for i := 0; i < len(title); i++ {
		if title[i] != '$' || i+1 == len(title) || title[i+1] < '1' || title[i+1] > '9' {
			b.WriteByte(title[i])
			continue
		}
		i++
		if g := 2 * int(title[i]-'0'); g+1 < len(at) && at[g] >= 0 {
			b.WriteString(tidy(text[at[g]:at[g+1]]))
		}
	}
	if b.Len() == 0 {
		return tidy(text[at[0]:at[1]]) // a panic without an argument
	}
	return b.String()
}

// tidy makes text from a message fit for a title: one line, without what differs from boot to boot.
func tidy(s string) string {
	s, _, _ = strings.Cut(strings.TrimLeft(s, "\n"), "\n")
	s = strayLevel.ReplaceAllLiteralString(s, "")
	s = offset.ReplaceAllLiteralString(s, "")
	s = pointer.ReplaceAllLiteralString(s, "…")
	s = spaces.ReplaceAllLiteralString(s, " ")
	s = strings.TrimRight(s, " .:,!")
	return printable(strings.ReplaceAll(s, inFunction, ""))
}

// name puts the function into the title.
func name(title string, t *trace) string {
	in := ""
	if f := t.function(); f != "" {
		in = " in " + f
		if t.jumped {
			in = " on a bad jump from " + f
		}
	}
	title = strings.Replace(title, inFunction, in, 1)
	if len(title) > maxTitle {
		title = strings.ToValidUTF8(title[:maxTitle], "") + "…"
	}
	return title
}
