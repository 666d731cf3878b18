package detect

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

func TestEveryRuleIsProvedBothWays(t *testing.T) {
	for i := range builtin() {
		r := &builtin()[i]
		t.Run(r.Cause+" "+r.Match, func(t *testing.T) {
			if len(r.Examples) == 0 || len(r.Counterexamples) == 0 {
				t.Fatalf("%d examples and %d counterexamples, want at least one of each", len(r.Examples), len(r.Counterexamples))
			}
			if err := r.Compile(); err != nil {
				t.Fatal(err)
			}
			for _, s := range r.Examples {
				if got, _ := builtinTable().find([]byte(s)); got != r {
					t.Errorf("%q is matched by %v first", s, got.Match)
				}
			}
			for _, s := range r.Counterexamples {
				if got, _ := builtinTable().find([]byte(s)); got != nil && got.Verdict >= r.Verdict {
					t.Errorf("counterexample %q is matched by %s %v", s, got.Cause, got.Match)
				}
			}
		})
	}
}

// The filter that lets most messages pass by a rule must never keep out one it matches: no example, no counterexample, no
// line of the corpus, and none of them with a byte changed, left out or doubled.
func TestFilterAgreesWithTheExpression(t *testing.T) {
	texts := corpusTexts(t)
	for i := range builtin() {
		for _, s := range append(builtin()[i].Examples, builtin()[i].Counterexamples...) {
			texts[s] = true
			for at := range s {
				texts[s[:at]+s[at+1:]] = true
				texts[s[:at]+"x"+s[at+1:]] = true
				texts[s[:at]+s[at:at+1]+s[at:]] = true
			}
		}
	}
	asked, passed := 0, 0
	for i := range builtin() {
		r := &builtin()[i]
		if len(r.filter.needs) == 0 && r.filter.prefixes == nil {
			t.Errorf("rule %s %s has no filter, so that the expression runs for about every message", r.Cause, r.Match)
		}
		for s := range texts {
			asked++
			if r.filter.passes([]byte(s)) {
				passed++
			} else if s != "" && r.re.MatchString(s) {
				t.Errorf("rule %s %s: the filter keeps out %q", r.Cause, r.Match, s)
			}
		}
	}
	t.Logf("%d texts, %.2f %% of the questions are left to the expressions", len(texts), 100*float64(passed)/float64(asked))
}

// corpusTexts are the messages of the corpus.
func corpusTexts(t *testing.T) map[string]bool {
	t.Helper()
	texts := make(map[string]bool)
	for _, pattern := range []string{"testdata/logs/*.log", "testdata/written/*/*.log"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("no files match %s: %v", pattern, err)
		}
		for _, path := range paths {
			for line := range linesOf(t, path) {
				if r, ok := ParseLogLine(string(line)); ok {
					texts[string(r.Text)] = true
				}
			}
		}
	}
	return texts
}

func TestFilter(t *testing.T) {
	for _, tt := range []struct{ name, match, want string }{
		{"a literal", `foo`, `["foo"] []`},
		{"a literal behind a group", `foo(\d+): bar`, `["foo"] [[": bar"]]`},
		{"one that may be missing", `(?:foo )?bar`, `["foo " "bar"] [["bar"]]`},
		{"one of several", `x (?:foo|quux|zap)`, `["x "] [["foo" "quux" "zap"]]`},
		{"one of several in front", `(?:foo|quux) x`, `["foo" "quux"] []`},
		{"one of several that may be anything", `foo (?:bar|.*)`, `["foo "] []`},
		{"anything in front", `.*foo`, `[] [["foo"]]`},
		{"nothing that is certain", `(?:foo)?x*`, `[] []`},
		{"in capitals or not", `(?i)foo`, `[] []`},
		{"repeated", `(?:foo)+x*`, `["foo"] []`},
		{"too short", `ab.c`, `["ab"] []`},
		{"between spaces", `ab.* cd `, `["ab"] [["cd"]]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Rule{Cause: "FooBroken", Match: tt.match, Examples: []string{"foo"}}
			_ = r.Compile() // it matches no example, which is not what this is about
			if got := fmt.Sprintf("%q %q", r.filter.prefixes, r.filter.needs); got != tt.want {
				t.Errorf("filter %s, want %s", got, tt.want)
			}
		})
	}
}

func TestRulesThatCannotBeUsed(t *testing.T) {
	good := Rule{Cause: "FooBroken", Match: `foo(\d+): broken`, Title: "foo $1 broken", Examples: []string{"foo12: broken"}}
	tests := []struct {
		name string
		bend func(*Rule)
		want string
	}{
		{"a cause with a space", func(r *Rule) { r.Cause = "Foo broken" }, "cause \"Foo broken\" is not a word like KernelPanic"},
		{"a cause with a digit", func(r *Rule) { r.Cause = "Foo2Broken" }, "cause \"Foo2Broken\" has digits; write letters only"},
		{"a cause that begins in lower case", func(r *Rule) { r.Cause = "fooBroken" }, "cause \"fooBroken\" is not a word like KernelPanic"},
		{"a cause that is too long", func(r *Rule) { r.Cause = strings.Repeat("F", 65) }, "cause \"" + strings.Repeat("F", 65) + "\" is not a word like KernelPanic"},
		{"an unknown verdict", func(r *Rule) { r.Verdict = 7 }, "unknown verdict Verdict(7)"},
		{"no expression", func(r *Rule) { r.Match = "" }, "match is empty; write a regular expression"},
		{"an expression that does not parse", func(r *Rule) { r.Match = "foo(" }, "match: error parsing regexp: missing closing ): `foo(`"},
		{"an expression that accepts anything", func(r *Rule) { r.Match, r.Title = "(foo)?", "" }, "match accepts the empty message"},
		{"a very long expression", func(r *Rule) { r.Match = strings.Repeat("x", 1001) }, "match is longer than 1000 bytes"},
		{"a title with a group that is not there", func(r *Rule) { r.Title = "$2" }, "title uses $2, but match has 1 groups"},
		{"no example", func(r *Rule) { r.Examples = nil }, "examples is empty; add a message that the rule matches"},
		{"an example in the middle of a message", func(r *Rule) { r.Examples = []string{"eth0: foo12: broken"} }, "does not match its example \"eth0: foo12: broken\""},
		{"an oops that any process can say", func(r *Rule) {
			r.Verdict, r.Match, r.Title, r.Examples = Oops, `foo\[\d+\]: broken`, "", []string{"foo[12]: broken"}
		}, "example \"foo[12]: broken\" begins with a process's name, which is the process's to choose"},
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
			if want := "rule " + r.Cause + ": " + tt.want; err.Error() != want {
				t.Errorf("error %q, want %q", err, want)
			}
			cfg := Config{Rules: []Rule{r}}
			if err := cfg.Compile(); err == nil {
				t.Error("the configuration was accepted")
			}
		})
	}
}

// What an unprivileged process has the kernel say: the names of processes (15 bytes), of files and of network devices
// are its own to choose, and so is every text below but for what the kernel puts around it.
func TestNoProcessSpeaksForTheKernel(t *testing.T) {
	const at = " at 0 ip 0000000000401000 sp 00007ffc0 error 4"
	tests := []struct{ name, text string }{
		{"arm64's unhandled exception, with the end in a file's name",
			"Unhandled x[1234]: segfault" + at + " in y exception on CPU1, ESR 0x0[400000+1000]"},
		{"the same of all the kernel's words, behind a bad frame",
			"Unhandled x[1234] bad frame in rt_sigreturn frame:00007ffc0 ip:401000 sp:7ffc0 orax:0 in 64-bit el1h sync exception on CPU1, ESR 0x0000000096000021 -- DABT[400000+1000]"},
		{"arm64's bad mode, with the end in a file's name",
			"Bad mode in x[1234]: segfault" + at + " in y handler detected on CPU1, code 0x0[400000+1000]"},
		{"a bad mode of a process that asks for memory",
			"Bad mode in x invoked oom-killer: gfp_mask=0x0, cpuset=y handler detected on CPU1, code 0x0"},
		{"an oops header that is a process's name", "Oops: 0002 [#1][1234]: segfault" + at + " in y[400000+1000]"},
		{"an oops header that asks for memory", "Oops: 0002 [#1] invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"},
		{"an oops header that gets no memory", "Oops: 0002 [#1]: page allocation failure: order:4, mode:0xcc0(GFP_KERNEL), nodemask=(null),cpuset=x,mems_allowed=0"},
		{"an oops header that drops caches", "Oops: 0002 [#1] (1234): drop_caches: 3"},
		{"an oops header of a short name", "abc: 0000 [#1][1234]: segfault" + at},
		{"an oops header behind traps:", "traps: 0000 [#1][1234] general protection fault ip:401000 sp:7ffc0 error:0 in x[400000+1000]"},
		{"a process that is an internal error", "Internal error:[1234]: segfault" + at + " in Oops: 0 [#1] SMP[400000+1000]"},
		{"an internal error that gets no memory", "Internal error: page allocation failure: order:0, mode:0x0(), nodemask=(null),cpuset=: 0 [#1],mems_allowed=0"},
		{"a process that is a kernel BUG", "kernel BUG at x[1234]: segfault" + at + " in a:1![400000+1000]"},
		{"a double fault behind traps:", "traps: PANIC: double f[1234] trap invalid opcode ip:401000 sp:7ffc0 error:0 in PANIC: double fault, error_code: 0x0[400000+1000]"},
		{"a stack guard page", "BUG: x[1234]: segfault" + at + " in stack guard page was hit at 0[400000+1000]"},
		{"a reboot", "Rebooting in 1[1234]: segfault" + at + " in 0 seconds.."},
		{"a kernel offset", "Kernel Offset: [1234]: segfault" + at + " in 0x0 from 0x0[400000+1000]"},
		{"a network device named sysrq", "sysrq: renamed from Trigger"},
		{"a network device named Oops", "Oops: port 1(veth0) entered blocking state"},
		{"a name with a newline and a bracket", "a\n[b: 0[1]:[1234]: segfault" + at},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, _ := builtinTable().find([]byte(tt.text)); got != nil && got.Verdict >= Oops {
				t.Errorf("%q is matched by %v %s", tt.text, got.Verdict, got.Match)
			}
		})
	}
}

func TestProcessLine(t *testing.T) {
	tests := []struct {
		name, text string
		want       bool
	}{
		{"a fault", "bench[1234]: segfault at 0", true},
		{"a bad frame", "bench[1234] bad frame in rt_sigreturn frame:0", true},
		{"a trap", "traps: bench[1234] trap int3 ip:0", true},
		{"an undefined instruction", "traps: bench[1234]: undefined instruction: pc=0", true},
		{"fifteen bytes", "123456789012345[1]: segfault", true},
		{"no name at all", "[1]: segfault", true},
		{"a name that looks like a name", "a[1]b[2[1234]: segfault", true},
		{"sixteen bytes", "1234567890123456[1]: segfault", false},
		{"sixteen bytes behind traps:", "traps: 1234567890123456[1] trap int3", false},
		{"the count of oopses", "Oops: 0002 [#1] SMP", false},
		{"a bracket that does not close", "bench[1234", false},
		{"a number at the end", "bench[1234]", false},
		{"no number", "bench[]: segfault", false},
		{"a panic", "Kernel panic - not syncing: [1]: x", false},
		{"nothing", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := isProcessLine([]byte(tt.text)); got != tt.want {
				t.Errorf("%q: %t, want %t", tt.text, got, tt.want)
			}
		})
	}
}
