package detect

import (
	"strings"
	"testing"
)

func TestEveryRuleIsProvedBothWays(t *testing.T) {
	for i := range builtin() {
		r := &builtin()[i]
		t.Run(r.Code+" "+r.Match, func(t *testing.T) {
			if len(r.Examples) == 0 || len(r.Counterexamples) == 0 {
				t.Fatalf("%d examples and %d counterexamples, want at least one of each", len(r.Examples), len(r.Counterexamples))
			}
			if err := r.Compile(); err != nil {
				t.Fatal(err)
			}
			for _, s := range r.Examples {
				if got, _ := builtinTable().find(s); got != r {
					t.Errorf("%q is matched by %v first", s, got.Match)
				}
			}
			for _, s := range r.Counterexamples {
				if got, _ := builtinTable().find(s); got != nil && got.Verdict >= r.Verdict {
					t.Errorf("counterexample %q is matched by %s %v", s, got.Code, got.Match)
				}
			}
		})
	}
}

// The first byte and the literal that let most messages pass by a rule must never keep out one it matches.
func TestPrefilterAgreesWithTheExpression(t *testing.T) {
	for i := range builtin() {
		r := &builtin()[i]
		if len(r.needs) < 3 {
			t.Errorf("rule %s %s needs only %q, so that the expression runs for about every message", r.Code, r.Match, r.needs)
		}
		for j := range builtin() {
			for _, s := range append(builtin()[j].Examples, builtin()[j].Counterexamples...) {
				want := r.re.MatchString(s) && !isPacketLog(s)
				if got := r.match(s) != nil; got != want {
					t.Errorf("rule %s %s on %q: %t, the expression alone says %t", r.Code, r.Match, s, got, want)
				}
			}
		}
	}
}

func TestRulesThatCannotBeUsed(t *testing.T) {
	good := Rule{Code: "FooBroken", Match: `foo(\d+): broken`, Title: "foo $1 broken", Examples: []string{"foo12: broken"}}
	tests := []struct {
		name string
		bend func(*Rule)
		want string
	}{
		{"a code with a space", func(r *Rule) { r.Code = "Foo broken" }, "code \"Foo broken\" is not a word like KernelPanic"},
		{"an unknown verdict", func(r *Rule) { r.Verdict = 7 }, "unknown verdict Verdict(7)"},
		{"no expression", func(r *Rule) { r.Match = "" }, "match is empty"},
		{"an expression that does not parse", func(r *Rule) { r.Match = "foo(" }, "match: error parsing regexp: missing closing ): `foo(`"},
		{"an expression that accepts anything", func(r *Rule) { r.Match, r.Title = "(foo)?", "" }, "match accepts the empty message"},
		{"a very long expression", func(r *Rule) { r.Match = strings.Repeat("x", 1001) }, "match is longer than 1000 bytes"},
		{"a title with a group that is not there", func(r *Rule) { r.Title = "$2" }, "title uses $2, but match has 1 groups"},
		{"no example", func(r *Rule) { r.Examples = nil }, "no example to prove it with"},
		{"an example in the middle of a message", func(r *Rule) { r.Examples = []string{"eth0: foo12: broken"} }, "does not match its example \"eth0: foo12: broken\""},
		{"a counterexample that matches", func(r *Rule) { r.Counterexamples = []string{"foo0: broken glass"} }, "matches its counterexample \"foo0: broken glass\""},
	}
	if err := good.Compile(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := good
			tt.bend(&r)
			err := r.Compile()
			if err == nil {
				t.Fatal("it was accepted")
			}
			if want := "rule " + r.Code + ": " + tt.want; err.Error() != want {
				t.Errorf("error %q, want %q", err, want)
			}
			cfg := Config{Rules: []Rule{r}}
			if err := cfg.Compile(); err == nil {
				t.Error("the configuration was accepted")
			}
		})
	}
}
