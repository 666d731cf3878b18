package detect

import (
	"math/bits"
	"regexp/syntax"
	"unicode/utf8"
)

// A table finds the rule for a message. The first bytes of an ordinary message leave almost no rule to try.
type table struct {
	rules []*Rule           // in the order in which they are asked
	words int               // of 64 rules each
	heads [headLen][]uint64 // for each value of a byte, words of bits: the rules that it leaves possible
}

// newTable makes a table of rules, which are asked in their order.
func newTable(lists ...[]Rule) *table {
	t := new(table)
	for _, list := range lists {
		for i := range list {
			t.rules = append(t.rules, &list[i])
		}
	}
	t.words = (len(t.rules) + 63) / 64
	for k := range t.heads {
		t.heads[k] = make([]uint64, 256*t.words)
		for i, r := range t.rules {
			for b := range 256 {
				if r.head.has(k, b) {
					t.heads[k][b*t.words+i/64] |= 1 << (i % 64)
				}
			}
		}
	}
	return t
}

// find is the first rule that matches the message, and where; nil if none does.
func (t *table) find(text []byte) (*Rule, []int) {
	if len(text) == 0 {
		return nil, nil
	}
	begin := text[:min(headLen, len(text))]
	for w := range t.words {
		left := ^uint64(0)
		for k, b := range begin {
			left &= t.heads[k][int(b)*t.words+w]
		}
		for ; left != 0; left &= left - 1 {
			if i := 64*w + bits.TrailingZeros64(left); i < len(t.rules) {
				if at := t.rules[i].match(text); at != nil {
					return t.rules[i], at
				}
			}
		}
	}
	return nil, nil
}

// headLen is how many of a message's first bytes choose the rules to try.
const headLen = 4

// A head has, for each of the first bytes of a message, a bit for each value that it may have where the rule matches.
type head [headLen][256 / 64]uint64

func (h *head) has(k, b int) bool { return h[k][b/64]&(1<<(b%64)) != 0 }
func (h *head) add(k, b int)      { h[k][b/64] |= 1 << (b % 64) }

// newHead follows the expression over the first bytes. It takes every way that the bytes of one place leave open, whatever stood
// before, so a head may accept too much, but rejects no message that the expression would match.
func newHead(prog *syntax.Prog) head {
	var h head
	var at [headLen + utf8.UTFMax]map[uint32]bool // instructions that may be next
	for k := range at {
		at[k] = make(map[uint32]bool)
	}
	reach(prog, uint32(prog.Start), at[0])
	for k := range headLen {
		for pc := range at[k] {
			h.follow(prog, pc, k, at[k+1:])
		}
	}
	return h
}

// follow marks what the instruction accepts at place k, and adds what follows it to after, the places behind k.
func (h *head) follow(prog *syntax.Prog, pc uint32, k int, after []map[uint32]bool) {
	in := &prog.Inst[pc]
	switch in.Op {
	case syntax.InstMatch:
		h.accept(k, headLen, 0) // whatever follows
	case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
		for b := range rune(utf8.RuneSelf) {
			if in.MatchRune(b) {
				h.add(k, int(b))
			}
		}
		reach(prog, in.Out, after[0])
		if isASCII(in) {
			return
		}
		for n := range utf8.UTFMax { // bytes; which of them is not worth distinguishing
			h.accept(k+n, k+n+1, utf8.RuneSelf)
			reach(prog, in.Out, after[n])
		}
	}
}

// accept marks all values that are not below least, at the places from k to end.
func (h *head) accept(k, end, least int) {
	for ; k < min(end, headLen); k++ {
		for b := least; b < 256; b++ {
			h.add(k, b)
		}
	}
}

// isASCII reports whether the instruction accepts nothing but ASCII.
func isASCII(in *syntax.Inst) bool {
	switch in.Op {
	case syntax.InstRune1:
		return in.Rune[0] < utf8.RuneSelf
	case syntax.InstRune: // a single rune also stands for its other cases: the sign for kelvin is a k
		return len(in.Rune) > 1 && in.Rune[len(in.Rune)-1] < utf8.RuneSelf
	}
	return false
}

// reach adds to set the instructions that consume a byte, or match, and that can be next at pc.
func reach(prog *syntax.Prog, pc uint32, set map[uint32]bool) {
	if set[pc] {
		return
	}
	set[pc] = true
	switch in := &prog.Inst[pc]; in.Op {
	case syntax.InstAlt, syntax.InstAltMatch:
		reach(prog, in.Out, set)
		reach(prog, in.Arg, set)
	case syntax.InstCapture, syntax.InstEmptyWidth, syntax.InstNop:
		reach(prog, in.Out, set)
	}
}
