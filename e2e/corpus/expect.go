package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/lastgasp/lastgasp/listener"
)

// An expectation is what should be found in a file.
type expectation struct {
	kind    string // of the first incident, for the table
	unknown bool   // nothing is expected; whatever is found is right
	skip    bool   // left out of the figures: broken on purpose, or not from a kernel
	// incidents are the findings, each with the names it may have. None means that anything found is a false alarm.
	incidents []incident
}

// An incident is matched by verdict and cause (any if empty), and named right by title.
type incident struct {
	verdict, cause string
	optional       bool
	title          *regexp.Regexp // nil if no name is expected
}

func (e expectation) String() string {
	var s []string
	for _, i := range e.incidents {
		s = append(s, fmt.Sprintf("%s %s %v", i.verdict, i.cause, i.title))
	}
	return "[" + strings.Join(s, "; ") + "]"
}

// A book finds the expectation of a file.
type book struct {
	json   map[string][]string
	tsv    map[string]expectation
	headed bool // files of this folder have headers; without a title there is no crash in it
}

func readExpectations(dir string) (*book, error) {
	b := new(book)
	text, err := os.ReadFile(filepath.Join(dir, "expect.json"))
	switch {
	case err == nil:
		return b, json.Unmarshal(text, &b.json)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	for _, place := range []string{dir, filepath.Dir(filepath.Clean(dir))} {
		if text, err = os.ReadFile(filepath.Join(place, "EXPECTED.tsv")); err == nil {
			b.tsv = readTSV(string(text))
			break
		}
	}
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		if text, err := os.ReadFile(filepath.Join(dir, entry.Name())); err == nil && bytes.HasPrefix(text, []byte("TITLE: ")) {
			b.headed = true
			break
		}
	}
	return b, err
}

// readTSV reads "name, source, verdict, cause, title". In each of the last three `+` joins incidents; in a title `|` joins
// alternatives, and `,` words that must all be there.
func readTSV(text string) map[string]expectation {
	all := make(map[string]expectation)
	for line := range strings.Lines(text) {
		col := strings.Split(strings.TrimSpace(line), "\t")
		if len(col) < 5 || col[0] == "name" {
			continue
		}
		e := expectation{}
		causes, names := strings.Split(col[3], "+"), strings.Split(col[4], "+")
		for i, verdict := range strings.Split(col[2], "+") {
			verdict = strings.TrimSpace(verdict)
			if verdict == "none" || verdict == "" {
				continue
			}
			e.incidents = append(e.incidents, incident{
				verdict: verdict, cause: strings.TrimSpace(causes[min(i, len(causes)-1)]), title: words(names[min(i, len(names)-1)]),
			})
		}
		if len(e.incidents) > 0 {
			e.kind = e.incidents[0].cause
		}
		all[col[0]] = e
	}
	return all
}

// words returns an expression that matches titles with all words of one alternative, in any order.
func words(s string) *regexp.Regexp {
	var either []string
	for alternative := range strings.SplitSeq(s, "|") {
		var all []string
		for word := range strings.SplitSeq(alternative, ",") {
			all = append(all, regexp.QuoteMeta(strings.TrimSpace(word)))
		}
		either = append(either, permutations(all)...)
	}
	return regexp.MustCompile("(?i)" + strings.Join(either, "|"))
}

func permutations(words []string) []string {
	if len(words) == 1 {
		return words
	}
	var all []string
	for i, first := range words {
		rest := append(append([]string(nil), words[:i]...), words[i+1:]...)
		for _, tail := range permutations(rest) {
			all = append(all, first+".*"+tail)
		}
	}
	return all
}

// find returns what is expected of a file, and its log without headers. It returns false for a file that is not a log.
func (b *book) find(path string, text []byte) (expectation, []byte, bool) {
	stem := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	switch {
	case b.json != nil:
		e, ok := b.fixture(path)
		return e, text, ok
	case b.tsv != nil:
		e, ok := b.tsv[stem]
		return e, text, ok
	}
	if b.headed {
		title, alternatives, corrupted, log, ok := headers(text)
		return headed(title, alternatives, corrupted), log, ok
	}
	return expectation{unknown: true}, text, utf8Text(text) && filepath.Ext(path) != ".yaml" && filepath.Ext(path) != ".json"
}

func utf8Text(text []byte) bool { return !bytes.Contains(text[:min(len(text), 512)], []byte{0}) }

// fixture finds a file of listener/detect/testdata under the names that expect.json may list it by, the most specific first.
func (b *book) fixture(path string) (expectation, bool) {
	dir, base := filepath.Base(filepath.Dir(path)), filepath.Base(path)
	stem := strings.TrimSuffix(base, filepath.Ext(base))
	kernel, scenario, _ := strings.Cut(stem, "-")
	plain := strings.TrimSuffix(strings.TrimSuffix(scenario, ".ext"), ".basic")
	keys := []string{dir + "/" + stem, kernel + "-" + scenario, kernel + "-" + plain, scenario, plain}
	if filepath.Ext(base) == ".log" {
		keys = append([]string{stem + ".log", scenario + ".log"}, keys...)
	}
	for _, key := range keys { // what holds on every architecture
		if of, ok := strings.CutPrefix(key, "arm64-"); ok {
			keys = append(keys, of)
		}
	}
	for _, key := range keys {
		if want, ok := b.json[key]; ok {
			return listed(want), true
		}
	}
	return expectation{}, false
}

var choice = regexp.MustCompile(`\\\{([^}]*)\\\}`)

// listed reads "[maybe ]verdict Cause: title", where {a,b} stands for either.
func listed(want []string) expectation {
	var e expectation
	for _, s := range want {
		s, optional := strings.CutPrefix(s, "maybe ")
		head, title, _ := strings.Cut(s, ": ")
		verdict, cause, _ := strings.Cut(head, " ")
		pattern := choice.ReplaceAllStringFunc(regexp.QuoteMeta(title), func(c string) string {
			return "(?:" + strings.ReplaceAll(c[2:len(c)-2], ",", "|") + ")"
		})
		e.incidents = append(e.incidents, incident{verdict: verdict, cause: cause, optional: optional, title: regexp.MustCompile("^" + pattern + "$")})
	}
	if len(e.incidents) > 0 {
		e.kind = e.incidents[0].cause
	}
	return e
}

var header = regexp.MustCompile(`^(TITLE|ALT|TYPE|FRAME|START|END|CORRUPTED|SUPPRESSED|PANICKED|EXECUTOR): (.*)$`)

// headers reads the lines before a log that say what is in it.
func headers(text []byte) (title string, alternatives []string, corrupted bool, log []byte, ok bool) {
	for {
		line, rest, found := bytes.Cut(text, []byte("\n"))
		if !found {
			return "", nil, false, nil, false
		}
		m := header.FindSubmatch(bytes.TrimRight(line, "\r"))
		switch {
		case bytes.HasPrefix(line, []byte("#")):
		case len(bytes.TrimSpace(line)) == 0:
			log, _, _ = bytes.Cut(rest, []byte("\n\nREPORT:\n"))
			return title, alternatives, corrupted, log, true
		case m == nil:
			return "", nil, false, nil, false
		case string(m[1]) == "TITLE":
			title = string(m[2])
		case string(m[1]) == "ALT":
			alternatives = append(alternatives, string(m[2]))
		case string(m[1]) == "CORRUPTED":
			corrupted = true
		}
		text = rest
	}
}

// headed returns the expectation for a log with headers. Only the function is compared: the words around it differ by project.
func headed(title string, alternatives []string, corrupted bool) expectation {
	if title == "" {
		return expectation{}
	}
	e := expectation{kind: kindOf(title)}
	e.skip = e.kind == ""
	var functions []string
	for _, t := range append([]string{title}, alternatives...) {
		if i := strings.LastIndex(t, " in "); i > 0 && !strings.HasSuffix(t, " in unmount") && !strings.Contains(t, " still in use [") {
			function, _, _ := strings.Cut(t[i+len(" in "):], "/usb_submit_urb")
			functions = append(functions, `(?:^|[^\w.]|sys_)`+regexp.QuoteMeta(function)+`(?:$|[^\w.])`)
		}
	}
	i := incident{}
	if len(functions) > 0 && !corrupted {
		i.title = regexp.MustCompile(strings.Join(functions, "|"))
	}
	e.incidents = []incident{i}
	return e
}

// kindOf sorts a title of syzkaller's into a kind, empty if it is about a program and not about a kernel.
func kindOf(title string) string {
	for _, k := range []struct{ kind, begins string }{
		{"", `SYZ|go runtime|panic:|trusty:|lost connection|unexpected kernel reboot|INFO: (Freed|Allocated)|fatal error`},
		{"stall", `INFO: (rcu|task|rcu_\w+)|BUG: (soft lockup|workqueue lockup)|INFO: .*stall`},
		{"lockdep", `possible deadlock|inconsistent lock|.*(locking bug|unlock balance|locks? held|lock held|held lock|nested lock|RCU usage|non-static key|using \S+ in preemptible|MAX_)|WARNING: possible circular|INFO: possible`},
		{"KMSAN, UBSAN, KCSAN", `KMSAN|UBSAN|KCSAN`},
		{"KASAN, KFENCE", `KASAN|KFENCE`},
		{"memory leak", `memory leak`},
		{"WARNING", `WARNING`},
		{"kernel BUG", `kernel BUG`},
		{"panic", `kernel panic|PANIC|kernel stack overflow|BUG: stack guard page`},
		{"BUG", `BUG: (?:unable)?`},
		{"oops", `general protection|divide error|Internal error|Unhandled fault|stack segment|int3|invalid opcode|Oops|bad-access|Alignment trap`},
	} {
		if regexp.MustCompile(`^(?:` + k.begins + `)`).MatchString(title) {
			if k.kind == "BUG" && strings.HasPrefix(title, "BUG: unable to handle") {
				return "oops"
			}
			return k.kind
		}
	}
	return "other"
}

// titles returns the findings as they are printed.
func titles(found []listener.Replayed) string {
	var s []string
	for _, r := range found {
		s = append(s, fmt.Sprintf("%s %s: %s", r.Verdict, r.Code, r.Title))
	}
	return "[" + strings.Join(s, "; ") + "]"
}
