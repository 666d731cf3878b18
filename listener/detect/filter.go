package detect

import (
	"bytes"
	"regexp/syntax"
	"slices"
	"strings"
)

// A filter quickly checks what all messages have in common that a regular expression matches. It keeps the expression from
// running on ordinary messages. It rejects no message that the expression would match.
type filter struct {
	prefixes [][]byte   // it begins with one of them; nil if that is not known
	needs    [][][]byte // it contains one text at least of each
}

// minNeed is the shortest text that is worth looking for, in bytes.
const minNeed = 2

func newFilter(re *syntax.Regexp) filter {
	var f filter
	begin := prefixes(re)
	if !slices.Contains(begin, "") {
		f.prefixes = toBytes(begin)
	}
	for _, any := range needs(re) {
		if !slices.Equal(any, trimmed(begin)) {
			f.needs = append(f.needs, toBytes(any))
		}
	}
	return f
}

func trimmed(list []string) []string {
	list = slices.Clone(list)
	for i := range list {
		list[i] = strings.Trim(list[i], " ")
	}
	return list
}

func toBytes(list []string) [][]byte {
	var texts [][]byte
	for _, s := range list {
		texts = append(texts, []byte(s))
	}
	return texts
}

// passes reports whether the expression may match the text.
func (f *filter) passes(text []byte) bool {
	if f.prefixes != nil && !hasAnyPrefix(text, f.prefixes) {
		return false
	}
	for _, any := range f.needs {
		if !containsAny(text, any) {
			return false
		}
	}
	return true
}

func hasAnyPrefix(text []byte, any [][]byte) bool {
	for _, s := range any {
		last := len(s) - 1 // decides most often: texts mostly begin with the same few words
		if last < len(text) && text[last] == s[last] && bytes.HasPrefix(text, s) {
			return true
		}
	}
	return false
}

func containsAny(text []byte, any [][]byte) bool {
	for _, s := range any {
		if bytes.Contains(text, s) {
			return true
		}
	}
	return false
}

// prefixes lists texts such that whatever re matches begins with one of them; one is empty if that is not obvious from re.
func prefixes(re *syntax.Regexp) []string {
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase == 0 {
			return []string{string(re.Rune)}
		}
	case syntax.OpCapture, syntax.OpPlus:
		return prefixes(re.Sub[0])
	case syntax.OpConcat:
		var all []string
		for _, sub := range re.Sub {
			if sub.Op != syntax.OpQuest && sub.Op != syntax.OpStar {
				return append(all, prefixes(sub)...)
			}
			all = append(all, prefixes(sub.Sub[0])...)
		}
	case syntax.OpAlternate:
		var all []string
		for _, sub := range re.Sub {
			all = append(all, prefixes(sub)...)
		}
		return all
	}
	return []string{""}
}

// needs lists sets of texts: what re matches contains at least one of each.
func needs(re *syntax.Regexp) [][]string {
	switch re.Op {
	case syntax.OpLiteral:
		// Without the spaces around it: looking for one stops at every word.
		if s := strings.Trim(string(re.Rune), " "); re.Flags&syntax.FoldCase == 0 && len(s) >= minNeed {
			return [][]string{{s}}
		}
	case syntax.OpCapture, syntax.OpPlus:
		return needs(re.Sub[0])
	case syntax.OpConcat:
		var all [][]string
		for _, sub := range re.Sub {
			all = append(all, needs(sub)...)
		}
		return all
	case syntax.OpAlternate:
		var either []string
		for _, sub := range re.Sub {
			one := best(needs(sub))
			if one == nil {
				return nil
			}
			either = append(either, one...)
		}
		return [][]string{either}
	}
	return nil
}

// best is the most selective set: the one whose shortest text is longest.
func best(sets [][]string) []string {
	var best []string
	longest := 0
	for _, set := range sets {
		shortest := len(set[0])
		for _, s := range set {
			shortest = min(shortest, len(s))
		}
		if shortest > longest {
			best, longest = set, shortest
		}
	}
	return best
}
