package detect

import (
	"strconv"
	"strings"

	"github.com/lastgasp/lastgasp/listener/lazyregexp"
)

// A Culprit is the task that the text of an incident names: the one that ran, hung or was killed. It is unknown if Comm is
// empty.
type Culprit struct {
	// Comm is the task's name, which the task itself can choose.
	Comm string
	// PID is in the initial namespace.
	PID int
	// CPU is where it ran, -1 if unknown.
	CPU int
	// Cgroup is its path, empty unless the text says it.
	Cgroup string
	// Bystander says that the kernel was in an interrupt: the task only happened to run on that CPU.
	Bystander bool
}

var (
	// dump_stack_print_info (lib/dump_stack.c), with the UID since 6.12.
	cpuLine = lazyregexp.New(`^CPU: (\d{1,5}) (?:UID: \d+ )?PID: (\d{1,10}) Comm: (.{1,64}?) (?:Kdump: loaded )?(?:Not tainted|Tainted: )`)
	// The same before 3.10, which names no CPU.
	pidLine = lazyregexp.New(`^Pid: (\d{1,10}), comm: (.{1,64}?) (?:Not tainted|Tainted: )`)
	// kernel/hung_task.c check_hung_task; kernel/watchdog.c watchdog_timer_fn.
	hungLine   = lazyregexp.New(`^INFO: task (.{1,24}):(\d{1,10}) (?:blocked|can't die)`)
	lockupLine = lazyregexp.New(`soft lockup - CPU#(\d{1,5}) stuck for \d+s! \[(.{1,24}):(\d{1,10})\]`)
	// mm/oom_kill.c dump_oom_summary. The name is the task's, so that what stands behind it counts from the end.
	oomLine  = lazyregexp.New(`^oom-kill:.*,task_memcg=([^,]*),task=(.{0,24}),pid=(\d{1,10}),uid=\d+$`)
	killLine = lazyregexp.New(`^Out of memory(?: \([^)]*\))?: Kill(?:ed)? process (\d{1,10}) \((.{0,24})\)`)
	// log_culprit of packaging/kernel/lastgasp.c. The name is the task's, so that what stands behind it counts from the end.
	moduleLine = lazyregexp.New(`^(?:lastgasp\w*: )?culprit: (\w+) cpu=(\d{1,5}) ctx=(\w+) comm=(.{0,24}) pid=(\d{1,10}) cgroup=(\S*)`)
	inSoftirq  = lazyregexp.New(`^ *(?:\[<[0-9a-f]+>\] )?(?:\w*do_softirq\w*|handle_softirqs|el1h?_(?:64_)?irq\w*|__irq_svc|run_timer_softirq|net_rx_action)\+0x`)
)

// culprit is the task that the lines of an incident name. head is the index of the headline.
func culprit(lines []line, head int, rule *Rule) Culprit {
	head = min(head, len(lines))
	if rule.Cause == oomKilling {
		return oomVictim(lines, head)
	}
	c := taskOf(lines, head, rule).idle()
	for i := max(0, head-maxHeading); i < len(lines); i++ {
		m := submatch(moduleLine, lines[i].message(), "culprit: ")
		if m == nil || !lines[i].kernel || i < head && m[1] != "panic" { // its line comes before the panic's, and behind an oops
			continue
		}
		named := Culprit{Comm: m[4], PID: number(m[5]), CPU: number(m[2]), Cgroup: m[6], Bystander: m[3] != "task"}
		switch {
		case c.Comm != "" && c.PID == named.PID:
			c.Cgroup = named.Cgroup
			c.Bystander = c.Bystander || named.Bystander && !rule.stalls
			return c
		case c.Comm == "" && !rule.stalls: // who detects a stall is not who caused it
			return named.idle()
		}
	}
	return c
}

// taskOf is the task that the kernel's own lines name.
func taskOf(lines []line, head int, rule *Rule) Culprit {
	var c Culprit
	caller := ""
	if head < len(lines) && !rule.stalls {
		caller = lines[head].caller()
	}
	for i := head; i < len(lines); i++ {
		if !lines[i].kernel {
			continue
		}
		msg := lines[i].message()
		if other := lines[i].caller(); other != caller && other != "" && caller != "" {
			continue
		}
		if c.Comm == "" {
			if m := submatch(hungLine, msg, "INFO: task "); m != nil {
				return Culprit{Comm: m[1], PID: number(m[2]), CPU: -1}
			} else if m := submatch(lockupLine, msg, "soft lockup"); m != nil {
				c = Culprit{Comm: m[2], PID: number(m[3]), CPU: number(m[1])}
			} else if m := submatch(cpuLine, msg, "CPU: "); m != nil {
				c = Culprit{Comm: m[3], PID: number(m[2]), CPU: number(m[1])}
			} else if m := submatch(pidLine, msg, ", comm: "); m != nil {
				c = Culprit{Comm: m[2], PID: number(m[1]), CPU: -1}
			}
		}
		switch {
		case strings.HasPrefix(msg, " </"), strings.HasPrefix(msg, "---[ end trace"):
			return c
		case rule.stalls: // an interrupt reports it, which does not make the task a bystander
		case strings.HasPrefix(msg, " <IRQ>"), strings.HasPrefix(msg, " <SOFTIRQ>"), strings.HasPrefix(msg, " <NMI>"), submatch(inSoftirq, msg, "+0x") != nil, strings.HasSuffix(msg, "in interrupt"):
			c.Bystander = c.Comm != ""
		}
	}
	return c
}

// submatch matches an expression on a text if it has what is part of every match.
func submatch(re *lazyregexp.Regexp, text, part string) []string {
	if !strings.Contains(text, part) {
		return nil
	}
	return re.FindStringSubmatch(text)
}

// idle marks the idle task as a bystander: it does nothing by itself.
func (c Culprit) idle() Culprit {
	c.Bystander = c.Bystander || c.PID == 0 && strings.HasPrefix(c.Comm, "swapper")
	return c
}

// oomVictim reads which task the kernel killed to free memory. A line before the headline names its cgroup.
func oomVictim(lines []line, head int) Culprit {
	if head == len(lines) {
		return Culprit{}
	}
	m := killLine.FindStringSubmatch(lines[head].message())
	if m == nil {
		return Culprit{}
	}
	c := Culprit{Comm: m[2], PID: number(m[1]), CPU: -1}
	for i := head - 1; i >= max(0, head-maxHeading); i-- {
		if m := oomLine.FindStringSubmatch(lines[i].message()); m != nil && lines[i].kernel && number(m[3]) == c.PID {
			c.Cgroup = m[1]
			break
		}
	}
	return c
}

// number is the value of a few decimal digits.
func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
