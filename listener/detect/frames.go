package detect

import (
	"cmp"
	"slices"
	"strings"

	"github.com/lastgasp/lastgasp/listener/lazyregexp"
)

const (
	// symbol is a function and the offset in it, or the source lines that scripts/decode_stacktrace.sh puts in the offset's place.
	symbol = `\.?([A-Za-z_$][\w.$]*)(?:\+0x([0-9a-f]+)/0x[0-9a-f]+|` + sourceLines + `)`
	// sourceLines is what that script writes behind a function: " (net/x.c:12 (discriminator 3) include/y.h:7) mod".
	sourceLines = ` \((?:[\w./+~?-]+:[\d?]+(?: \(discriminator \d+\))? ?)+\)(?: \w+)?`
	// bracketed is a code address in brackets, which kernels printed in front of a symbol before 4.10, and some still do.
	bracketed = `(?:\[<?[^>\]\n]{0,40}>?\] *)`
	// behind is all that may follow a symbol: the module with its build id, the unwinder's notes, the file that a script found, the
	// stack pointer in the summary of an oops before 4.15.
	// Lines that begin with a task's name, which may look like a symbol, go on otherwise.
	behind = `\)?(?: \[[^\]\n]{0,80}\]| RSP: [0-9a-f]{16}| \([\w ]{1,20}\)| \(?[\w./+~-]+:\d+\)?)*\)?\s*$`
)

var (
	// A frame of a backtrace: " foo+0x12/0x40 [mod]", "? " in front where the unwinder guesses, a note such as " (P)" behind
	// it on arm64 since 6.13, a module with its build id, a file where a script put it. Before 4.10 the name of the stack stands in
	// front: " <IRQ>  [<ffffffff81012345>] foo+0x12/0x40".
	frameLine = lazyregexp.New(`^(?: *<{1,2}[#A-Z]{2,10}>{1,2})?(?: +|\(?\[<?[0-9a-f]+>?\]\)? *)(?:\(?\[<?[0-9a-f x]+>?\] *)*(\? )?` + symbol + behind)
	// The same of arm: "[<c0012345>] (foo [mod]) from [<c0054321>] (bar+0x12/0x40)", " foo [mod] from bar+0x12/0x40" since 5.19.
	armFrame = lazyregexp.New(`^ *(?:\[<[0-9a-f]+>\] \((\w+)(?:\+0x[0-9a-f]+/0x[0-9a-f]+)?(?: \[\w+\])?\)|(\w+)(?: \[\w+\])?) from (?:\[<[0-9a-f]+>\] \()?` + symbol)
	// Where the kernel was: "RIP: 0010:foo+0x12/0x40 [mod]" (e030 under Xen), with addresses in brackets before 4.10; "pc : "
	// and "PC is at" on arm, "epc : " on RISC-V and MIPS, ERA on LoongArch, NIP on PowerPC, the PSW of s390. 0033 is userspace,
	// 0x… no code at all.
	whereLine = lazyregexp.New(`^(?:(?:RIP|EIP|IP)(?::? +| is at )(?:(?:0010|0008|e030|e008|0060|0061):)?|(?:pc|epc|  ERA) *: *|PC is at |NIP |Krnl PSW : .{0,60}\(|kernel_?pc: )` +
		bracketed + `*(?:[0-9a-f]{8,16} )?(?:` + symbol + behind + `|(0x[0-9a-f]+|[0-9a-f]{8,16}|\(null\))\)?\s*$)`)
	// What workers work on: "    in-flight: 12:foo_work for 31s, 13(RESCUER):bar_work".
	inFlight = lazyregexp.New(`^ +in-flight: \d+(?:\(RESCUER\))?:([A-Za-z_][\w.]*)`)
	// The register with the caller of an address without code, which may have no frame: "lr : foo+0x12/0x40" and "LR is at" on
	// arm, "LR [c00000000000abcd] " on PowerPC, " ra : " on RISC-V and LoongArch.
	linkLine = lazyregexp.New(`^(?:lr *: *|LR is at |LR | {1,3}ra *: *)(?:\[?[0-9a-f]{8,16}\]? )?` + symbol + behind)
	// Where lockdep says a lock was taken: "ffff8880120b9168 (&x->lock){....}-{2:2}, at: foo+0x14b/0x460"; what a worker ran last.
	lockedAt = lazyregexp.New(`\([^\n]+\)\{[^}\n]{1,12}\}(?:-\{[\d:]{1,7}\})?, at: ` + bracketed + `?([A-Za-z_][\w.]*)\+0x|^ +last function: ([A-Za-z_][\w.]*)\s*$`)
	// `uname -r` as dump_stack_print_info (lib/dump_stack.c) prints it: "CPU: 0 PID: 1 Comm: init Not tainted 6.1.0 #1".
	// "Pid: 1, comm: init Not tainted 2.6.32-431.el6.x86_64 #1" before 3.10, in parentheses on 32-bit machines.
	releaseIn = lazyregexp.New(`^(?:CPU: \d+|Pid: \d+,) .*(?:Not tainted|Tainted: [A-Z -]+) +\(?([0-9]\S*) #`)
	// bpfTag is the hash in the name of a BPF program, which changes with its bytecode, or the number of a BPF trampoline.
	bpfTag = lazyregexp.New(`^(bpf_prog|bpf_trampoline)_(?:[0-9a-f]{16}|\d+(?:_\d+)?)`)
	// syscallName is the name of a system call's entry, which differs between architectures and releases.
	syscallName = lazyregexp.New(`^(?:__(?:x64|ia32|arm64|riscv|s390x?|loongarch|powerpc|arm)_(?:compat_)?sys_|__(?:se|do)_(?:compat_)?sys_|(?:compat_)?SyS_|(?:compat_)?SYSC_)(\w+)$`)
)

// maxFrames bounds the frames of a backtrace that are looked at, and allFrames those of all: whoever forges them chooses how many there are,
// and each name takes 100 µs the first time. A kernel's stack of 16 KiB has some hundred, and the function to blame is among the innermost.
const maxFrames, allFrames = 128, 512

// A trace is what the lines behind a headline say about the place of the crash.
type trace struct {
	guilty string // the function to blame, empty if unknown
	helper string // where it happened, if that only served the guilty function
	jumped bool   // the kernel jumped to an address without code, and the guilty function made it
}

// readTrace reads the first backtrace in lines, which begin with the headline that rule matched; place is the function that
// the headline itself names, or empty. The instruction pointer is the innermost frame if it stands in front of the
// backtrace, as it does in an oops. Inside the backtrace it is that of the interrupted code, which is what a stall is about
// and beside the point otherwise; behind it comes the summary of an oops.
//
// Where records name the task or CPU that printed them, only those of the headline's are read: other CPUs print meanwhile.
func readTrace(lines []line, rule *Rule, place string) trace {
	var t trace
	switch {
	case rule.anywhere:
		return t
	case rule.work:
		return trace{guilty: stuckWork(lines)}
	}
	caller := ""
	if len(lines) > 0 && !rule.stalls {
		caller = lines[0].caller()
	}
	var where string
	var stack, early, guessed, jumper []string // jumper: who called the address without code
	located, started, embedded, done := false, false, false, false
	seen := 0 // frames
	for i := range lines {
		if !lines[i].kernel {
			continue
		}
		if c := lines[i].caller(); c != caller && c != "" && caller != "" {
			continue
		}
		msg := lines[i].message()
		if rule.stalls && strings.HasPrefix(msg, "Kernel panic") && ofBystander(lines, i) {
			break
		}
		if m := wherever(msg); m != nil {
			inside := len(stack) > 0 && !done
			embedded = embedded || inside
			if !located && (len(stack) == 0 || rule.Verdict == Oops || rule.stalls) {
				located = true
				where, t.jumped = function(m[1]), m[1] == "" && rule.Verdict >= Oops
			} else if inside && m[1] != "" {
				stack = append(stack, function(m[1])) // whom an exception interrupted: no frame names it
			}
			continue
		}
		if m := linkLine.FindStringSubmatch(msg); m != nil && len(stack) == 0 {
			jumper = []string{function(m[1])}
		}
		switch {
		case done:
		case !started && startsStack(msg):
			started = true
			if above := append(early, stack...); rule.locks && place == "" && len(above) > 0 {
				place = above[0] // of who unlocks, above its backtrace
			}
			stack = nil // another CPU's
		case len(stack) > 0 && endsStack(msg, embedded):
			if rule.stalls && started && !slices.ContainsFunc(stack, func(f string) bool { return !serves(f, rule) }) {
				started, stack = false, nil // of the thread that looks for stalls, whose own is printed in front
			} else if done = started; !done { // the line in front of the frames was lost, or they are another CPU's
				early, stack = append(early, stack...), nil
			}
		case place == "" && !started && len(stack) == 0 && namesPlace(msg, rule) != "":
			place = namesPlace(msg, rule)
		default:
			if len(stack) >= maxFrames || seen >= allFrames {
				continue
			}
			functions, guess := frame(msg)
			seen += len(functions)
			if guess {
				guessed = append(guessed, functions...)
			} else {
				stack = append(stack, functions...)
			}
		}
	}
	if where == "" {
		where = place
	}
	if len(stack) == 0 && len(early) == 0 {
		stack = guessed // a kernel without frame pointers guesses all, as many did before 4.14
	} else if len(stack) == 0 || !started && len(early) > 0 || where != "" && slices.Contains(early, where) && !slices.Contains(stack, where) || rule.owner && len(early) > 0 {
		stack = early
	}
	if t.jumped {
		stack = append(jumper, stack...)
	}
	switch {
	case rule.outermost:
		t.blame("", outermost(stack), rule)
	case rule.overflow && recursing(stack) != "":
		t.blame(recursing(stack), nil, rule)
	default:
		t.blame(where, stack, rule)
	}
	if t.guilty == "" {
		t.blame("", early, rule) // where preemption was disabled
	}
	return t
}

// stuckWork is what a worker of the pool that a workqueue lockup is about works on, empty if none does. The pool is described alike
// in the headline and in the list of workqueues (pr_cont_pool_info, kernel/workqueue.c).
func stuckWork(lines []line) string {
	if len(lines) == 0 {
		return ""
	}
	_, pool, _ := strings.Cut(lines[0].message(), " - pool ")
	pool, _, _ = strings.Cut(pool, " stuck for ")
	ours := false
	for _, l := range lines[1:] {
		msg := l.message()
		if _, after, found := strings.Cut(msg, "  pwq "); found && l.kernel {
			_, described, _ := strings.Cut(after, ": ")
			ours = strings.HasPrefix(described, pool+" ")
		} else if m := inFlight.FindStringSubmatch(msg); m != nil && l.kernel && ours {
			return function(m[1])
		}
	}
	return ""
}

// outermost is the part of a stack that begins with the function that a system call, an interrupt or a worker called.
func outermost(stack []string) []string {
	for i, f := range stack {
		if dispatching.MatchString(f) && i > 0 && !reporting.has(stack[i-1]) {
			return stack[i-1:]
		}
	}
	return stack
}

// byName compares functions. Leading underscores count only between foo and __foo.
func byName(a, b string) int {
	return cmp.Or(cmp.Compare(strings.TrimLeft(a, "_"), strings.TrimLeft(b, "_")), cmp.Compare(b, a))
}

// recursing is the function that a stack has most often, at least three times; empty if it has none that often. Functions that call
// each other stand there about equally often. The first of them by name is taken, wherever the stack ended.
func recursing(stack []string) string {
	times, most := make(map[string]int), 3
	for _, f := range stack {
		if !serves(f, &Rule{}) {
			times[f]++
			most = max(most, times[f])
		}
	}
	best := ""
	for f, n := range times {
		if n >= max(3, most/2) && (best == "" || byName(f, best) < 0) {
			best = f
		}
	}
	return best
}

// wherever matches whereLine, and is quick about lines that cannot be one.
func wherever(msg string) []string {
	if msg == "" || !strings.Contains("RIEPpeNKk", msg[:1]) && !strings.HasPrefix(msg, "  ERA") {
		return nil
	}
	m := whereLine.FindStringSubmatch(msg)
	if m != nil && isProcessLine([]byte(msg)) {
		return nil
	}
	return m
}

// stalledCPU finds the CPU that another one may have seen stall.
var stalledCPU = lazyregexp.New(`hard LOCKUP on cpu (\d+)`)

// ofBystander reports whether the panic at i is that of a CPU which saw others stall, as the headline says: what it did itself is
// beside the point.
func ofBystander(lines []line, i int) bool {
	head := lines[0].message()
	if strings.Contains(head, "stalls on ") {
		return true
	}
	m := stalledCPU.FindStringSubmatch(head)
	if m == nil {
		return false
	}
	for _, l := range lines[i+1 : min(i+4, len(lines))] {
		if strings.HasPrefix(l.message(), "CPU: "+m[1]+" ") {
			return false
		}
	}
	return true
}

// startsStack reports whether a backtrace comes next.
func startsStack(msg string) bool {
	head := strings.TrimRight(msg, " ")
	return head == "Call Trace:" || head == "Call trace:" || head == "Backtrace:" || strings.HasPrefix(msg, "Backtrace: ")
}

// namesPlace is the function that a line between a headline and its backtrace names: where lockdep says a lock was taken, or
// what a worker did last. It is empty if the line names none.
func namesPlace(msg string, rule *Rule) string {
	if !rule.locks {
		return ""
	}
	if m := lockedAt.FindStringSubmatch(msg); m != nil {
		return function(m[1] + m[2])
	}
	return ""
}

// frame reads the functions in a line of a backtrace, and whether the unwinder only guesses. Any other line has none.
func frame(msg string) (functions []string, guess bool) {
	if msg == "" || msg[0] != ' ' && msg[0] != '[' && msg[0] != '(' {
		return nil, false
	}
	if m := frameLine.FindStringSubmatch(msg); m != nil {
		// A return address at the very beginning of a function follows a call that never returns: the caller is the function
		// before it in memory.
		if m[3] == "0" {
			return nil, false
		}
		return []string{function(m[2])}, m[1] != "" || strings.HasSuffix(msg, " (unreliable)") // PowerPC
	}
	if m := armFrame.FindStringSubmatch(msg); m != nil {
		return []string{function(m[1] + m[2]), function(m[3])}, false
	}
	return nil, false
}

// blame finds the guilty function. where is the innermost one, empty if unknown; the stack may begin above or below it.
func (t *trace) blame(where string, stack []string, rule *Rule) {
	helps := func(f string) bool { return serves(f, rule) }
	reports := func(f string) bool { return reports(f, rule) }
	fault := rule.Verdict >= Oops && !rule.asserts && !rule.overflow
	if i := slices.Index(stack, where); i >= 0 && (!fault || !slices.ContainsFunc(stack[:i], func(f string) bool { return !reports(f) })) {
		stack = stack[i+1:] // the functions above it report
	}
	switch {
	case where == "":
	case !helps(where), fault && !checking.has(where) && !library.has(where) && !rule.asks:
		t.guilty = where
		return
	case fault && checking.has(where) && !reporting.has(where), !reports(where) && !rule.asks:
		t.helper = where
	}
	if fault && !rule.asks {
		helps = func(f string) bool { return reports(f) || library.has(f) } // which leaves those that allocate
	}
	t.guilty = firstOther(stack, helps)
	if t.guilty != "" || rule.asks {
		return
	}
	// Better a helper than nothing.
	t.guilty, t.helper = t.helper, ""
	if t.guilty == "" {
		t.guilty = cmp.Or(firstOther(stack, reports), where)
	}
}

// firstOther is the first function of a stack that is not to be passed over, empty if there is none.
func firstOther(stack []string, pass func(f string) bool) string {
	for _, f := range stack {
		if !pass(f) {
			return f
		}
	}
	return ""
}

// reports says whether a function only detects and reports.
func reports(f string, rule *Rule) bool {
	return reporting.has(f) || checking.has(f) || rule.stalls && stalling.has(f)
}

// serves says whether a function is not to be named: it reports, or does what its caller asks for.
func serves(f string, rule *Rule) bool {
	return reports(f, rule) || library.has(f) || allocating.has(f) || rule.asks && waiting.has(f)
}

// endsStack reports whether a message comes behind a backtrace. Registers that are embedded in it, because an exception was
// taken there, do not end it.
func endsStack(msg string, embedded bool) bool {
	for _, s := range [...]string{
		" </TASK>", "Call ", "Call trace", "Modules linked in:", "---[ end ", "Allocated by ", "Freed by ", "Uninit was ", "Kernel panic", "Kernel Offset",
		"The buggy address ", "NMI backtrace for ", "Sending NMI ", "Showing all locks ", "=====", "INFO: ", "BUG: ", "WARNING: ",
	} {
		if strings.HasPrefix(msg, s) {
			return true
		}
	}
	return !embedded && (strings.HasPrefix(msg, "Code: ") || strings.HasPrefix(msg, "CPU: "))
}

// function is a symbol without what differs between builds and architectures: what the compiler appends (foo.isra.0,
// foo.cold) or puts in front (the padding __pfx_foo), the entry of a system call, Rust's mangling.
func function(symbol string) string {
	if strings.HasPrefix(symbol, "_R") {
		if name := demangle(symbol); name != "" {
			return name
		}
	}
	if i := strings.IndexByte(symbol, '.'); i > 0 {
		symbol = symbol[:i]
	}
	symbol = strings.TrimPrefix(symbol, "__pfx_")
	if m := syscallName.FindStringSubmatch(symbol); m != nil {
		return "sys_" + m[1]
	}
	return bpfTag.ReplaceAllString(symbol, "$1")
}

// demangle is the path in a symbol of Rust's v0 mangling (RFC 2603), without hashes and the markers of generic arguments;
// empty if the symbol is not mangled like that.
func demangle(symbol string) string {
	var path []string
	s := symbol[len("_R"):]
	for len(s) > 0 {
		switch c := s[0]; {
		case c == 's' || c == 'B': // a disambiguator or a reference back, in base 62
			_, rest, found := strings.Cut(s, "_")
			if !found {
				return ""
			}
			s = rest
		case '0' <= c && c <= '9':
			n := 0
			for len(s) > 0 && '0' <= s[0] && s[0] <= '9' && n < 1000 {
				n = 10*n + int(s[0]-'0')
				s = s[1:]
			}
			s = strings.TrimPrefix(s, "_")
			if n > len(s) {
				return ""
			}
			path = append(path, s[:n])
			s = s[n:]
		case c == '.':
			s = ""
		default: // a tag
			s = s[1:]
		}
	}
	return strings.Join(path, "::")
}

// release is `uname -r` from the lines of an incident, empty if they do not say.
func release(lines []line) string {
	for i := range lines {
		if msg := lines[i].message(); !lines[i].kernel || !strings.HasPrefix(msg, "CPU: ") && !strings.HasPrefix(msg, "Pid: ") {
			continue
		}
		if m := releaseIn.FindStringSubmatch(lines[i].message()); m != nil {
			return m[1]
		}
	}
	return ""
}
