package detect

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// A Rule says what one kernel message means. The rules of this package are written in the same terms as those a user
// adds in the configuration.
type Rule struct {
	// Cause is the stable word for the finding, like KernelPanic: letters only, no more than 64. Users of
	// node-problem-detector know most of them.
	Cause string `yaml:"cause"`
	// Verdict is what the message says about the kernel that sent it.
	Verdict Verdict `yaml:"verdict"`
	// Match is a regular expression (Go's, RE2) that has to match from the first byte of the message on. It need not
	// reach the message's end. Start it with `.*` to look anywhere, at the price of believing quotations. A message that
	// begins with the name of a process, as in "bench[12]: segfault", is never more than Sick.
	Match string `yaml:"match"`
	// Title names the finding. $1, $2 … stand for the groups of Match, and {in} for " in <function>" when the trace
	// behind the message names the function. An empty Title is the matched text.
	Title string `yaml:"title"`
	// Remedy is advice for whoever has to repair it, one sentence; may be empty.
	Remedy string `yaml:"remedy"`
	// Examples are messages the rule must match, without the time stamp. At least one is required.
	Examples []string `yaml:"examples"`
	// Counterexamples are messages it must not match.
	Counterexamples []string `yaml:"counterexamples"`

	// rank says how much Title says: a better one replaces a worse one as the incident unfolds.
	rank rank
	// alike replaces Title in fingerprints, where another architecture has another name for the same.
	alike string
	// follows lists, separated by spaces, the causes of findings that lead to this one and name it better: an oops leads
	// to "Fatal exception".
	follows string
	// place is the group of Match that names the function where it happened, 0 if none does.
	place int
	// within is the function that alone prints the message, empty if several do.
	within string
	// outermost says that the work in progress is to be named, and not the innermost function: the damage is older.
	outermost bool
	// overflow says that a function that calls itself is to be named.
	overflow bool
	// owner says that the function that allocated the memory is to be named, if the report has it, and not the one that found
	// it broken.
	owner bool
	// work says that the report lists the work of the pool that the message names.
	work bool
	// locks says that the report names the places where locks were taken.
	locks bool
	// asserts says that a check of the kernel found it, unlike a fault: helpers check their arguments.
	asserts bool
	// heads says that the message names the WARNING or BUG right behind it.
	heads bool
	// asks says that the function that asked for a lock, a wake-up or memory is to be named, not the one that grants it.
	asks bool
	// stalls says that the interrupted code is to be named, too: the report is printed by an interrupt.
	stalls bool
	// anywhere says that the place where it happened does not matter.
	anywhere bool
	// ends says that the kernel prints nothing, or nothing of interest, after this message.
	ends bool

	re     *regexp.Regexp
	filter filter
	head   head
}

// A rank orders titles, best first.
type rank uint8

const (
	proper      rank = iota
	vague            // a consequence, such as "Fatal exception"
	placeholder      // only that it happened
)

// maxMatch bounds the length of a Match. Go's regular expressions take linear time, with this as the factor.
const maxMatch = 1000

// Compile checks the rule and makes it ready for use. Its errors name the rule by its cause.
func (r *Rule) Compile() error {
	if err := r.compile(); err != nil {
		return fmt.Errorf("rule %s: %w", r.Cause, err)
	}
	return nil
}

func (r *Rule) compile() error {
	switch {
	case strings.ContainsAny(r.Cause, "0123456789"):
		return fmt.Errorf("cause %q has digits; write letters only", r.Cause)
	case !isWord(r.Cause):
		return fmt.Errorf("cause %q is not a word like KernelPanic", r.Cause)
	case r.Verdict < Sick || r.Verdict > Dying:
		return fmt.Errorf("unknown verdict %v", r.Verdict)
	case r.Match == "":
		return errors.New("match is empty; write a regular expression")
	case len(r.Match) > maxMatch:
		return fmt.Errorf("match is longer than %d bytes", maxMatch)
	case len(r.Examples) == 0:
		return errors.New("examples is empty; add a message that the rule matches")
	}

	tree, err := syntax.Parse(r.Match, syntax.Perl)
	if err != nil {
		return fmt.Errorf("match: %w", err)
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return fmt.Errorf("match: %w", err)
	}
	if r.re, err = regexp.Compile(`^(?:` + r.Match + `)`); err != nil {
		return fmt.Errorf("match: %w", err)
	}
	if r.re.MatchString("") {
		return errors.New("match accepts the empty message")
	}
	if n := highestGroup(r.Title); n > r.re.NumSubexp() {
		return fmt.Errorf("title uses $%d, but match has %d groups", n, r.re.NumSubexp())
	}
	r.filter, r.head = newFilter(tree), newHead(prog)

	for _, s := range r.Examples {
		switch {
		case r.Verdict >= Oops && isProcessLine([]byte(s)):
			return fmt.Errorf("example %q begins with a process's name, which is the process's to choose", s)
		case r.match([]byte(s)) == nil:
			return fmt.Errorf("does not match its example %q", s)
		}
	}
	for _, s := range r.Counterexamples {
		if r.match([]byte(s)) != nil {
			return fmt.Errorf("matches its counterexample %q", s)
		}
	}
	return nil
}

// match is the location of the match and its groups in text, nil if there is none.
func (r *Rule) match(text []byte) []int {
	if !r.filter.passes(text) {
		return nil
	}
	at := r.re.FindSubmatchIndex(text)
	if at != nil && (isPacketLog(text) || r.Verdict >= Oops && isProcessLine(text)) {
		return nil
	}
	return at
}

// maxComm is the length of a process's name (TASK_COMM_LEN, include/linux/sched.h), without its NUL.
const maxComm = 15

// isProcessLine reports whether the message begins like those that the kernel prints about a process of userspace when it
// sends a signal: "%s[%d]: " (show_signal_msg, arch/x86/mm/fault.c; arm64_show_signal, arch/arm64/kernel/traps.c), "%s[%d] "
// (signal_fault, arch/x86/kernel/signal.c), "traps: " in front of either (arch/x86/kernel/traps.c). They are printed at
// facility 0 and then name a file, so an unprivileged user can choose both ends.
func isProcessLine(text []byte) bool {
	text = bytes.TrimPrefix(text, []byte("traps: "))
	for i := range min(maxComm+1, len(text)) {
		if text[i] != '[' { // the name may have brackets of its own
			continue
		}
		pid, after, found := bytes.Cut(text[i+1:], []byte("]"))
		if found && len(pid) <= 10 && isDigits(string(pid)) && len(after) > 0 && (after[0] == ':' || after[0] == ' ') {
			return true
		}
	}
	return false
}

// isPacketLog reports whether the message is the netfilter LOG target's (nf_log_ip_packet, net/netfilter/
// nf_log_syslog.c). It prints at facility 0 and begins with a prefix of up to 128 bytes that the firewall's author
// chose, so that no anchor distinguishes it from the kernel's own words.
func isPacketLog(text []byte) bool {
	_, after, found := bytes.Cut(text, []byte("IN="))
	return found && bytes.Contains(after, []byte(" OUT="))
}

// isWord reports whether s is a word in camel case: letters only, as the CRD demands of a cause.
func isWord(s string) bool {
	for i := range len(s) {
		c := s[i]
		upper, lower := 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z'
		if !upper && (i == 0 || !lower) {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// highestGroup is the highest n of the $n in a title.
func highestGroup(title string) int {
	highest := 0
	for i := 0; i+1 < len(title); i++ {
		if c := title[i+1]; title[i] == '$' && '1' <= c && c <= '9' {
			highest = max(highest, int(c-'0'))
		}
	}
	return highest
}
