package detect

// dyingRules are the messages after which no userspace runs. Each begins its own printk with nothing in front of it but
// what the file's pr_fmt says, unless noted; (n) is the level.
//
// The texts are those of 4.19 to 7.x on x86-64 and arm64.
func dyingRules() []Rule {
	return []Rule{
		// kernel/panic.c, vpanic(), panic() before 6.17: (0) "Kernel panic - not syncing: %s\n". The file has no pr_fmt.
		// The rules down to the general one are panics that follow from something that was reported just before.
		{
			// arch/x86/kernel/dumpstack.c oops_end(); arch/arm64/kernel/traps.c die() puts its reason in front;
			// arch/s390/kernel/dumpstack.c die().
			Cause: kernelPanic, Verdict: Dying,
			Match: `Kernel panic - not syncing: ((?:[A-Za-z][^\n]{1,60}: )?Fatal exception(?: in interrupt|: panic_on_oops)?)(?:\n|$)`,
			Title: "$1", rank: vague, follows: kernelOops,
			Examples: []string{
				"Kernel panic - not syncing: Fatal exception",
				"Kernel panic - not syncing: Fatal exception in interrupt",
				"Kernel panic - not syncing: Oops - BUG: Fatal exception",
				"Kernel panic - not syncing: Fatal exception: panic_on_oops",
				"Kernel panic - not syncing: UBSAN: array index out of bounds: Fatal exception",
				"Kernel panic - not syncing: synchronous external abort: Fatal exception",
			},
			Counterexamples: []string{
				`audit: type=1400 audit(1700000000.123:45): apparmor="DENIED" operation="open" profile="x" name="/x" pid=1 comm="Kernel panic - "`,
				"Kernel panic - not syncing: IN=eth0 OUT= MAC=02:00 SRC=10.0.0.1 DST=10.0.0.2 LEN=60 Fatal exception",
			},
		},
		{
			// kernel/exit.c do_exit(), make_task_dead(); arch/x86/kernel/traps.c exc_double_fault(),
			// handle_stack_overflow(); arch/arm64/kernel/traps.c panic_bad_stack().
			Cause: kernelPanic, Verdict: Dying,
			Match: `Kernel panic - not syncing: (Attempted to kill (?:init|the idle task)!.*|Aiee, killing interrupt handler!|` +
				`Oopsed too often .*|Oops failed to kill thread|Machine halted\.|\S+ stack guard hit)`,
			Title: "$1", rank: vague, follows: kernelOops,
			Examples: []string{
				"Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b",
				"Kernel panic - not syncing: Aiee, killing interrupt handler!",
				"Kernel panic - not syncing: Oopsed too often (kernel.oops_limit is 10000)",
				"Kernel panic - not syncing: IRQ stack guard hit",
			},
			Counterexamples: []string{"systemd[1]: Kernel panic - not syncing: Attempted to kill init!"},
		},
		{
			// arch/arm64/kernel/traps.c panic_bad_stack(), arch/riscv/kernel/traps.c handle_bad_stack().
			Cause: kernelPanic, Verdict: Dying,
			Match: `Kernel panic - not syncing: (?i:kernel stack overflow)`,
			Title: "kernel stack overflow{in}", overflow: true, rank: vague, follows: kernelOops,
			Examples:        []string{"Kernel panic - not syncing: kernel stack overflow", "Kernel panic - not syncing: Kernel stack overflow"},
			Counterexamples: []string{"test: Kernel panic - not syncing: kernel stack overflow"},
		},
		{
			// kernel/watchdog.c watchdog_timer_fn() with softlockup_panic: an interrupt of the CPU that hangs.
			Cause: kernelPanic, Verdict: Dying,
			Match: `Kernel panic - not syncing: (softlockup: hung tasks)`,
			Title: "$1{in}", asks: true, stalls: true, rank: vague, follows: "SoftLockup HardLockup RCUStall",
			Examples:        []string{"Kernel panic - not syncing: softlockup: hung tasks"},
			Counterexamples: []string{"watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [panic:123]"},
		},
		{
			// kernel/watchdog.c watchdog_hardlockup_check(), kernel/watchdog_hld.c before 6.5, with hardlockup_panic: an NMI of the
			// CPU that hangs, except where another CPU looks after it, which says so before. Kernels before 4.4 say nothing before.
			Cause: kernelPanic, Verdict: Dying,
			Match: `Kernel panic - not syncing: (Hard LOCKUP|Watchdog detected hard LOCKUP) ?`,
			Title: "$1{in}", asks: true, stalls: true, rank: vague, follows: "SoftLockup HardLockup RCUStall",
			Examples: []string{
				"Kernel panic - not syncing: Hard LOCKUP",
				"Kernel panic - not syncing: Watchdog detected hard LOCKUP on cpu 0",
			},
			Counterexamples: []string{"watchdog: Watchdog detected hard LOCKUP on cpu 3"},
		},
		{
			// kernel/rcu/tree_stall.h panic_on_rcu_stall().
			Cause: kernelPanic, Verdict: Dying,
			Match: `Kernel panic - not syncing: (RCU Stall)`,
			Title: "$1", rank: vague, follows: "SoftLockup HardLockup RCUStall",
			Examples:        []string{"Kernel panic - not syncing: RCU Stall"},
			Counterexamples: []string{"rcu: INFO: rcu_preempt self-detected stall on CPU"},
		},
		{
			// kernel/hung_task.c check_hung_uninterruptible_tasks() with hung_task_panic.
			Cause: kernelPanic, Verdict: Dying,
			Match: `Kernel panic - not syncing: (hung_task: blocked tasks)`,
			Title: "$1", rank: vague, follows: "TaskHung",
			Examples:        []string{"Kernel panic - not syncing: hung_task: blocked tasks"},
			Counterexamples: []string{"INFO: task kernel panic:12 blocked for more than 120 seconds."},
		},
		{
			// kernel/workqueue.c panic_on_wq_watchdog().
			Cause: kernelPanic, Verdict: Dying,
			Match: `Kernel panic - not syncing: (workqueue: \d+ stall\(s\) exceeded threshold)`,
			Title: "$1", rank: vague, follows: "WorkqueueLockup",
			Examples:        []string{"Kernel panic - not syncing: workqueue: 4 stall(s) exceeded threshold 4"},
			Counterexamples: []string{"BUG: workqueue lockup - pool cpus=1 node=0 flags=0x0 nice=0 stuck for 31s!"},
		},
		{
			// kernel/panic.c check_panic_on_warn() with who asks, before 6.2 __warn() and others without; mm/kasan/report.c
			// end_report(), mm/kmsan/report.c.
			Cause: kernelPanic, Verdict: Dying,
			Match: `Kernel panic - not syncing: ((?:\S+: )?panic_on_warn set|\S+: system warned too often|kasan\.fault=\S+ set|` +
				`kmsan\.panic set|panic_on_kmsan set|panic_on_taint set)`,
			Title: "$1{in}", rank: vague, follows: "KernelWarning MemoryCorruption KernelBug",
			Examples: []string{
				"Kernel panic - not syncing: kernel: panic_on_warn set ...",
				"Kernel panic - not syncing: panic_on_warn set ...\n",
				"Kernel panic - not syncing: kasan.fault=panic set ...",
				"Kernel panic - not syncing: kernel: system warned too often (kernel.warn_limit is 100)",
			},
			Counterexamples: []string{"kernel.panic_on_warn = 1", "Kernel command line: quiet panic_on_warn=1"},
		},
		{
			// kernel/sched/core.c __schedule_bug(), with panic_on_warn.
			Cause: kernelPanic, Verdict: Dying,
			Match: `Kernel panic - not syncing: (scheduling while atomic)`,
			Title: "$1{in}", asks: true, rank: vague, follows: "KernelBug",
			Examples:        []string{"Kernel panic - not syncing: scheduling while atomic\n"},
			Counterexamples: []string{"BUG: scheduling while atomic: insmod/170/0x00000002"},
		},
		{
			// mm/oom_kill.c check_panic_on_oom(), out_of_memory(). Whoever happened to ask for memory is not the cause.
			Cause: kernelPanic, Verdict: Dying,
			Match: `Kernel panic - not syncing: (Out of memory: .* panic_on_oom is enabled|System is deadlocked on memory)`,
			Title: "$1", anywhere: true,
			Examples: []string{
				"Kernel panic - not syncing: Out of memory: system-wide panic_on_oom is enabled",
				"Kernel panic - not syncing: System is deadlocked on memory",
			},
			Counterexamples: []string{"vm.panic_on_oom = 1", "Out of memory: Killed process 1 (x) panic_on_oom is enabled"},
		},
		{
			// kernel/sched/core.c schedule_debug() with CONFIG_SCHED_STACK_END_CHECK. The corruption is older than its discovery.
			Cause: kernelPanic, Verdict: Dying,
			Match: `Kernel panic - not syncing: (corrupted stack end detected inside scheduler)`,
			Title: "$1{in}", rank: vague, follows: "MemoryCorruption", outermost: true,
			Examples:        []string{"Kernel panic - not syncing: corrupted stack end detected inside scheduler"},
			Counterexamples: []string{"test: Kernel panic - not syncing: corrupted stack end detected inside scheduler"},
		},
		{
			// kernel/panic.c __stack_chk_fail(). The function is an address only where kallsyms has none.
			Cause: kernelPanic, Verdict: Dying,
			Match: `Kernel panic - not syncing: (stack-protector: Kernel stack is corrupted) in: ([\w.]+)`,
			Title: "$1{in}", place: 2, asserts: true,
			Examples: []string{
				"Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: do_one_initcall+0x2c5/0x310",
				"Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: ffffffff8493e6d8",
			},
			Counterexamples: []string{"stack-protector: Kernel stack is corrupted in: do_one_initcall+0x2c5/0x310"},
		},
		{
			// drivers/tty/sysrq.c sysrq_handle_crash(). That function ends with the call of panic, so arm64's kernels show
			// the one behind it in memory instead where the compiler put nothing in between (6.1).
			Cause: kernelPanic, Verdict: Dying,
			Match: `Kernel panic - not syncing: (sysrq triggered crash)(?:\n|$)`,
			Title: "$1", within: "sysrq_handle_crash",
			Examples:        []string{"Kernel panic - not syncing: sysrq triggered crash"},
			Counterexamples: []string{"[   12.345678] Kernel panic - not syncing: sysrq triggered crash"},
		},
		{
			// init/do_mounts.c mount_root_generic(). The device, and whether it is named, differ between machines and kernels.
			Cause: kernelPanic, Verdict: Dying,
			Match: `Kernel panic - not syncing: (VFS: Unable to mount root fs .*)`,
			Title: "$1", alike: "VFS: Unable to mount root fs",
			Examples: []string{
				`Kernel panic - not syncing: VFS: Unable to mount root fs on "/dev/vda1" or unknown-block(253,1)`,
				"Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
			},
			Counterexamples: []string{"VFS: Unable to mount root fs on unknown-block(0,0)"},
		},
		{
			// All other panics: the argument is the name. It may begin with a newline (drivers/edac/altera_edac.c), have
			// several lines (arch/arm64/kvm/handle_exit.c), or carry a KERN_CRIT in its middle (fs/btrfs/messages.c).
			Cause: kernelPanic, Verdict: Dying,
			Match: `Kernel panic - not syncing: \s*(.*)`,
			Title: "$1",
			Examples: []string{
				"Kernel panic - not syncing: boom: multi\nline panic arg=42",
				"Kernel panic - not syncing: \nEDAC: [2 Uncorrectable errors @ 0x00000010]",
			},
			Counterexamples: []string{
				// drivers/char/ttyprintk.c prints what userspace writes to /dev/ttyprintk, at facility 0.
				"[U] Kernel panic - not syncing: sysrq triggered crash",
				// The console of another machine, printed with that machine's own time stamp.
				"[   12.345678] Kernel panic - not syncing: sysrq triggered crash",
				`audit: type=1326 audit(1700000000.1:2): auid=0 uid=0 gid=0 ses=1 pid=9 comm="Kernel panic - " exe="/bench"`,
				"Kernel panic - not syncing: IN=eth0 OUT= MAC= SRC=10.0.0.1 DST=10.0.0.2 LEN=60 TOS=0x00 PROTO=TCP",
				"overlayfs: unrecognized mount option \"x\nKernel panic - not syncing: x\" or missing value",
				"mce: [Hardware Error]: Fake kernel panic: Fatal machine check",
				"Kernel panic test: loading out-of-tree module taints kernel.",
				"BTRFS critical (device vda1): panic in btrfs_new_root:12: x (errno=-17 Object already exists)",
			},
		},
		{
			// kernel/panic.c vpanic(): (0) behind everything else, only with kernel.panic=0. The same string again.
			Cause: kernelPanic, Verdict: Dying,
			Match: `---\[ end Kernel panic - not syncing: \s*([^\n]*?)(?: \]---)?(?:\n|$)`,
			Title: "$1", rank: vague, follows: kernelOops, ends: true,
			Examples: []string{
				"---[ end Kernel panic - not syncing: sysrq triggered crash ]---",
				"---[ end Kernel panic - not syncing: boom: multi\nline panic arg=42 ]---",
			},
			Counterexamples: []string{"---[ end trace 0000000000000000 ]---"},
		},
		{
			// kernel/panic.c vpanic(): (0), only with kernel.panic > 0. It ends in two dots; drivers for reset buttons, which
			// reboot in an orderly way, print three.
			Cause: kernelPanic, Verdict: Dying,
			Match: `Rebooting in \d+ seconds\.\.$`,
			Title: "kernel panic", rank: placeholder, ends: true,
			Examples:        []string{"Rebooting in 10 seconds.."},
			Counterexamples: []string{"Rebooting in 10 seconds...", "systemd-shutdown[1]: Rebooting in 10 seconds.."},
		},
		{
			// arch/x86/kernel/setup.c, arch/arm64/kernel/setup.c dump_kernel_offset(): (0), a panic notifier and called
			// from nowhere else.
			Cause: kernelPanic, Verdict: Dying,
			Match: `Kernel Offset: (?:disabled$|0x[0-9a-f]+ from 0x[0-9a-f]+)`,
			Title: "kernel panic", rank: placeholder,
			Examples: []string{
				"Kernel Offset: 0x16e00000 from 0xffffffff81000000 (relocation range: 0xffffffff80000000-0xffffffffbfffffff)",
				"Kernel Offset: 0x2a0f7fa00000 from 0xffff800080000000",
				"Kernel Offset: disabled",
			},
			Counterexamples: []string{"KASLR disabled: 'nokaslr' on cmdline.", "Kernel Offset: disabled by policy"},
		},
		{
			// arch/arm64/kernel/machine_kexec.c, arch/riscv/kernel/machine_kexec.c machine_crash_shutdown(): (6). With kdump an oops
			// comes here without a panic.
			Cause: kernelPanic, Verdict: Dying,
			Match: `Starting crashdump kernel\.\.\.$`,
			Title: "kernel panic", rank: placeholder, ends: true,
			Examples:        []string{"Starting crashdump kernel..."},
			Counterexamples: []string{"kexec_core: Starting new kernel", "kdumpctl[612]: kexec: Starting crashdump kernel..."},
		},
		{
			// kernel/panic.c panic_try_force_cpu() (7.x): (0), in front of the panic line.
			Cause: kernelPanic, Verdict: Dying,
			Match: `panic: Redirecting from CPU \d+ to CPU \d+ for crash kernel\.`,
			Title: "kernel panic", rank: placeholder,
			Examples:        []string{"panic: Redirecting from CPU 3 to CPU 0 for crash kernel."},
			Counterexamples: []string{"panic: target CPU 4 is offline, continuing on CPU 1"},
		},
		{
			// drivers/tty/sysrq.c __handle_sysrq(): pr_fmt "sysrq: ", at a console level raised for it. Up to 5.0 the name
			// stood behind "SysRq : ", and the crash was a null dereference with panic_on_oops set. A refused key prints
			// something else.
			Cause: kernelPanic, Verdict: Dying,
			Match:    `sysrq: (?:SysRq : )?Trigger a crash$`,
			Title:    "sysrq triggered crash",
			within:   "sysrq_handle_crash",
			Examples: []string{"sysrq: Trigger a crash", "sysrq: SysRq : Trigger a crash"},
			Counterexamples: []string{
				"sysrq: This sysrq operation is disabled.",
				"sysrq: HELP : loglevel(0-9) reboot(b) crash(c) terminate-all-tasks(e)",
			},
		},
		{
			// The same, `echo b > /proc/sysrq-trigger`: emergency_restart() comes next. An orderly reboot says "reboot:
			// Restarting system", and is none of our business.
			Cause: "SysrqReset", Verdict: Dying,
			Match:           `sysrq: (?:SysRq : )?Resetting$`,
			Title:           "sysrq triggered reset",
			Examples:        []string{"sysrq: Resetting", "sysrq: SysRq : Resetting"},
			Counterexamples: []string{"reboot: Restarting system", "sysrq: Emergency Remount R/O"},
		},
		{
			// drivers/watchdog/softdog.c softdog_fire(): (2), pr_fmt "softdog: ". emergency_restart() comes next.
			Cause: "Watchdog", Verdict: Dying,
			Match:           `softdog: Initiating system reboot$`,
			Title:           "software watchdog expired",
			Examples:        []string{"softdog: Initiating system reboot"},
			Counterexamples: []string{"softdog: initialized. soft_noboot=0 soft_margin=60 sec soft_panic=0 (nowayout=0)", "softdog: Triggered - Reboot ignored"},
		},
		{
			// kernel/power/poweroff.c, `echo o > /proc/sysrq-trigger`: kernel_power_off() comes next.
			Cause: "SysrqPowerOff", Verdict: Dying,
			Match:           `sysrq: (?:SysRq : )?Power Off$`,
			Title:           "sysrq triggered power-off",
			Examples:        []string{"sysrq: Power Off", "sysrq: SysRq : Power Off"},
			Counterexamples: []string{"reboot: Power down", "systemd-shutdown[1]: sysrq: Power Off is disabled"},
		},
		{
			// arch/x86/kernel/traps.c exc_double_fault(): (0), pr_fmt "traps: "; arch/x86/kernel/doublefault.c before 5.6
			// without. arch/x86/mm/extable.c early_fixup_exception(), before there is a console but the early one.
			Cause: kernelPanic, Verdict: Dying,
			Match: `(?:traps: )?PANIC: (double fault|early exception)(?:, error_code:)? 0x`,
			Title: "$1{in}",
			Examples: []string{
				"traps: PANIC: double fault, error_code: 0x0", "PANIC: double fault, error_code: 0x0",
				"PANIC: early exception 0x0e IP 10:ffffffff81f3a6b2 error 0 cr2 0xffffffffff200000",
			},
			Counterexamples: []string{"traps: panic[77] general protection fault ip:401000 sp:7ffc0 error:0 in panic[400000+1000]"},
		},
		{
			// arch/x86/kernel/traps.c handle_stack_overflow(), arch/x86/mm/fault.c before 5.17: (0); die() and panic()
			// follow.
			Cause: kernelPanic, Verdict: Dying,
			Match: `BUG: (?:[#A-Z_0-9]+ )?stack guard page was hit at `,
			Title: "kernel stack overflow{in}", overflow: true,
			Examples: []string{
				"BUG: TASK stack guard page was hit at 00000000c2e9b2b1 (stack is 000000006a3b07c4..00000000d4c0b0b5)",
				"BUG: stack guard page was hit at 00000000c2e9b2b1 (stack is 000000006a3b07c4..00000000d4c0b0b5)",
			},
			Counterexamples: []string{
				"show_signal: 12 callbacks suppressed: BUG: TASK stack guard page was hit at 0",
				"BUG: x[1234]: stack guard page was hit at 0",
			},
		},
		{
			// arch/arm64/kernel/traps.c panic_bad_stack(): (0).
			Cause: kernelPanic, Verdict: Dying,
			Match: `Insufficient stack space to handle exception!`,
			Title: "kernel stack overflow{in}", overflow: true,
			Examples:        []string{"Insufficient stack space to handle exception!"},
			Counterexamples: []string{"foo: Insufficient stack space to handle exception!"},
		},
		{
			// arch/arm64/kernel/traps.c arm64_serror_panic(): (2).
			Cause: kernelPanic, Verdict: Dying,
			Match:           `SError Interrupt on CPU\d+, code 0x[0-9a-f]+ -- `,
			Title:           "asynchronous SError interrupt{in}",
			Examples:        []string{"SError Interrupt on CPU1, code 0x00000000bf000002 -- SError"},
			Counterexamples: []string{"EDAC MC0: SError Interrupt on CPU1, code 0x00000000bf000002 -- SError"},
		},
		{
			// arch/arm64/kernel/entry-common.c __panic_unhandled(): (2). The names are those of UNHANDLED() there, spelled out:
			// a process may be called "Unhandled x", and its file "y exception on CPU1, ESR 0x0".
			Cause: kernelPanic, Verdict: Dying,
			Match: `Unhandled (?:64|32)-bit (?:el1[ht]|el0t) (?:sync|irq|fiq|error) exception on CPU\d+, ESR 0x[0-9a-f]{8,16} -- `,
			Title: "unhandled exception{in}",
			Examples: []string{
				"Unhandled 64-bit el1h sync exception on CPU1, ESR 0x0000000096000021 -- DABT (current EL)",
				"Unhandled 32-bit el0t error exception on CPU0, ESR 0xbf000002 -- SError",
			},
			Counterexamples: []string{
				"Unhandled exception on CPU1: IRQ 7, ignored",
				"Unhandled x[1234]: segfault at 0 ip 0000000000401000 sp 00007ffc0 error 4 in y exception on CPU1, ESR 0x0[400000+1000]",
				"Unhandled x invoked oom-killer: y exception on CPU1, ESR 0x0000000096000021 -- DABT (current EL)",
			},
		},
		{
			// arch/arm64/kernel/traps.c bad_mode() before 5.14: (2). The names are those of handler[] there, for the same
			// reason.
			Cause: kernelPanic, Verdict: Dying,
			Match: `Bad mode in (?:Synchronous Abort|IRQ|FIQ|Error) handler detected on CPU\d+, code 0x[0-9a-f]{8,16} -- `,
			Title: "unhandled exception{in}",
			Examples: []string{
				"Bad mode in Error handler detected on CPU2, code 0xbf000002 -- SError",
				"Bad mode in Synchronous Abort handler detected on CPU0, code 0x86000006 -- IABT (current EL)",
			},
			Counterexamples: []string{
				"Bad mode in /etc/fstab handler",
				"Bad mode in x[1234]: segfault at 0 ip 0000000000401000 sp 00007ffc0 error 4 in y handler detected on CPU1, code 0x0[400000+1000]",
				"Bad mode in x invoked oom-killer: y handler detected on CPU2, code 0xbf000002 -- SError",
			},
		},
	}
}
