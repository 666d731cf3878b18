package lab

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/lastgasp/lastgasp/e2e/guest/control"
)

// Crash names a way for a guest to die, or at least to become sick.
type Crash string

// Crashes that need no module.
const (
	CrashSysrq    Crash = "sysrq"     // echo c > /proc/sysrq-trigger: panics
	CrashInitExit Crash = "init-exit" // process 1 ends: panics
	CrashReset    Crash = "reset"     // echo b > /proc/sysrq-trigger: resets the machine at once
)

// Crashes that are ways of the crash module, see crashmod/lastgasp_crash.c.
const (
	// Oopses: fatal where they happen in an interrupt, or with kernel.panic_on_oops=1.
	CrashNullDeref     Crash = "null-deref"     // store to address 0
	CrashErrPtr        Crash = "err-ptr"        // store through an error taken for a pointer
	CrashGPF           Crash = "gpf"            // store to a list's poison: a general protection fault
	CrashBug           Crash = "bug"            // BUG()
	CrashStackOverflow Crash = "stack-overflow" // recursion into the guard page: always fatal
	CrashOopsInIRQ     Crash = "oops-in-irq"    // store to address 0 in a timer: always fatal

	CrashPanicMultiline Crash = "panic-multiline" // panic() with two lines of text
	CrashBurst          Crash = "burst"           // 120 emergency records, then panic()
	CrashTxLock         Crash = "tx-lock"         // panic() that stops the last CPU while it holds eth0's transmit lock

	// Lockups of 30 s: sick, fatal with kernel.softlockup_panic, panic_on_rcu_stall, hung_task_panic.
	CrashSoftLockup Crash = "softlockup" // a CPU that does not schedule
	CrashIRQsOff    Crash = "irqs-off"   // a CPU that takes no interrupts: an RCU stall
	CrashHungTask   Crash = "hung-task"  // a thread that waits for a mutex for ever

	// Not fatal by themselves.
	CrashSchedAtomic Crash = "sched-atomic" // sleep with preemption off
	CrashWarn        Crash = "warn"         // WARN()
	CrashBigRecord   Crash = "big-record"   // a record that takes several datagrams in extended format
	CrashPrCont      Crash = "pr-cont"      // records written in pieces
	CrashDevDict     Crash = "dev-dict"     // a record with SUBSYSTEM= and DEVICE=
	CrashNetdevLeak  Crash = "netdev-leak"  // unregister_netdevice: waiting for … to become free
	CrashSlabExhaust Crash = "slab-exhaust" // SLUB: Unable to allocate memory on node
)

// argv returns the words that ask the guest for the crash.
func (c Crash) argv() []string {
	switch c {
	case CrashSysrq:
		return []string{control.TriggerSysrq, "c"}
	case CrashReset:
		return []string{control.TriggerSysrq, "b"}
	case CrashInitExit:
		return []string{control.TriggerInit}
	default:
		return []string{control.TriggerModule, "way=" + string(c)}
	}
}

//go:embed crashmod
var crashSource embed.FS

// BuildCrashModule compiles the crash module for k, unless the cache has it, and returns the path of the .ko.
func BuildCrashModule(ctx context.Context, s Scope, k *Kernel) (string, error) {
	source, err := fs.Sub(crashSource, "crashmod")
	if err != nil {
		return "", fmt.Errorf("find the crash module's source: %w", err)
	}
	return BuildModule(ctx, s, k, "lastgasp_crash", source)
}
