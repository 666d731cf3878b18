package detect

import (
	"testing"
)

// What a table leaves out without running the expressions is what they would not match.
func TestTheTableOverlooksNothing(t *testing.T) {
	var user []Rule
	for _, match := range []string{
		`(?i)kernel`, `.?x+ `, `\bfoo`, `é.*b`, `[^a]bc`, `a?b?c?d?e?f`, `(?:ab|é|)cd`, `^abc$`, `[[:^ascii:]]+x`, `(?s).`, `[k-ſ]{3}x`,
	} {
		user = append(user, Rule{Cause: "UserRule", Verdict: Sick, Match: match, Examples: []string{"?"}})
	}
	for i := range user {
		user[i].compile() // its example does not match, which is of no interest here
	}
	texts := []string{
		"kernel", "\u212aernel", "KERNEL", "x ", "yx ", "\xffx ", "€x ", "foo", " foo", "é€b", "éb", "\xc3", "bbc", "ébc", "\xffbc", "f", "bf", "abcdef",
		"cd", "abcd", "écd", "abc", "abcd", "éééx", "\xff\xfex", "ſſſx", "\u212aſkx",
	}
	for _, r := range builtin() {
		for _, s := range append(r.Examples, r.Counterexamples...) {
			texts = append(texts, s, s[1:], s[:len(s)/2], " "+s, "é"+s[1:], "\xff"+s)
		}
	}
	table := newTable(user, builtin())
	for _, s := range texts {
		text := []byte(s)
		var want *Rule
		for _, r := range table.rules {
			if at := r.re.FindSubmatchIndex(text); at != nil && r.match(text) != nil {
				want = r
				break
			} else if at != nil && !isPacketLog(text) && !isProcessLine(text) {
				t.Errorf("the filter of %s %q rejects %q, which matches", r.Cause, r.Match, s)
			}
		}
		if got, _ := table.find(text); got != want {
			t.Errorf("%q: found %v, want %v", s, label(got), label(want))
		}
	}
}

// label is the rule's cause and expression.
func label(r *Rule) string {
	if r == nil {
		return "none"
	}
	return r.Cause + " " + r.Match
}
