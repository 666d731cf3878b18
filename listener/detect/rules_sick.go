package detect

// sickRules are messages of kernels that run on. They are reported; nothing else is done about them.
func sickRules() []Rule {
	return []Rule{
		// CPUs and tasks that make no progress. A setting turns each of these into a panic.
		{
			// kernel/watchdog.c watchdog_timer_fn(): (0), pr_fmt "watchdog: ", "NMI watchdog: " up to 4.13, none up to 3.11.
			Cause: "SoftLockup", Verdict: Sick,
			Match: `(?:(?:NMI )?watchdog: )?BUG: soft lockup - CPU#\d+ stuck for \d+s! \[`,
			Title: "soft lockup{in}", asks: true, stalls: true,
			Examples: []string{
				"watchdog: BUG: soft lockup - CPU#3 stuck for 26s! [kworker/3:1:71]",
				"BUG: soft lockup - CPU#2 stuck for 67s! [kswapd0:71]",
			},
			Counterexamples: []string{"perf: watchdog: BUG: soft lockup - CPU#3 stuck for 26s! [x:1]", "watchdog: Delayed init of the lockup detector failed: -22"},
		},
		{
			// kernel/watchdog.c watchdog_hardlockup_check(): (0); kernel/watchdog_hld.c, pr_fmt "NMI watchdog: ", before 6.5;
			// the reporting CPU in front since 6.13. arch/powerpc/kernel/watchdog.c has its own words.
			Cause: "HardLockup", Verdict: Sick,
			Match: `(?:NMI )?watchdog: (?:(?:CPU\d+: )?Watchdog detected hard LOCKUP on cpu \d+|CPU \d+ (?:self-detected hard LOCKUP @ |detected hard LOCKUP on other CPUs ))`,
			Title: "hard lockup{in}", asks: true, stalls: true,
			Examples: []string{
				"NMI watchdog: Watchdog detected hard LOCKUP on cpu 1",
				"watchdog: Watchdog detected hard LOCKUP on cpu 3",
				"watchdog: CPU3: Watchdog detected hard LOCKUP on cpu 3",
				"watchdog: CPU 3 self-detected hard LOCKUP @ foo_spin+0x10/0x40",
				"watchdog: CPU 5 detected hard LOCKUP on other CPUs 3",
			},
			Counterexamples: []string{"NMI watchdog: Enabled. Permanently consumes one hw-PMU counter."},
		},
		{
			// kernel/rcu/tree_stall.h, tree_exp.h: (3), pr_fmt "rcu: " since 4.19; tasks.h without.
			Cause: "RCUStall", Verdict: Sick,
			Match: `(?:rcu: )?INFO: \w+ (?:self-detected stall on CPU|detected (?:expedited )?stalls on )`,
			Title: "RCU stall{in}", asks: true, stalls: true,
			Examples: []string{
				"rcu: INFO: rcu_preempt self-detected stall on CPU",
				"rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
				"rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-...D } 21 jiffies s: 77 root: 0x2/.",
				"INFO: rcu_tasks detected stalls on tasks:",
			},
			Counterexamples: []string{"rcu: Hierarchical RCU implementation.", "rcutorture: INFO: rcu_sched self-detected stall on CPU"},
		},
		{
			Cause: "RCUStall", Verdict: Sick,
			Match: `rcu: (\w+) kthread starved for \d+ jiffies!`,
			Title: "$1 kthread starved", rank: vague,
			Examples:        []string{"rcu: rcu_preempt kthread starved for 5253 jiffies! g1881 f0x0 RCU_GP_WAIT_FQS(5) ->state=0x0 ->cpu=1"},
			Counterexamples: []string{"rcu: \tOffload RCU callbacks from CPUs: (none)."},
		},
		{
			// kernel/hung_task.c check_hung_task(): (3), no pr_fmt. A comm may contain anything.
			Cause: "TaskHung", Verdict: Sick,
			Match: `(?:INFO: )?task (?s:.{1,24}):\d+ (?:blocked(?: in I/O wait)?|can't die) for more than \d+ seconds\.`,
			Title: "task hung{in}", asks: true,
			Examples: []string{
				"INFO: task jbd2/vda1-8:231 blocked for more than 120 seconds.",
				"INFO: task kworker/u8:3:77 blocked in I/O wait for more than 241 seconds.",
				"task docker:4711 blocked for more than 120 seconds.",
			},
			Counterexamples: []string{
				"Future hung task reports are suppressed, see sysctl kernel.hung_task_warnings",
				"INFO: task dd:12 blocked on a mutex likely owned by task dd:11.",
			},
		},
		{
			// kernel/workqueue.c wq_watchdog_timer_fn(): (0), no pr_fmt.
			Cause: "WorkqueueLockup", Verdict: Sick,
			Match: `BUG: workqueue lockup - pool`,
			Title: "workqueue lockup{in}", work: true,
			Examples:        []string{"BUG: workqueue lockup - pool cpus=1 node=0 flags=0x0 nice=0 stuck for 31s!"},
			Counterexamples: []string{"workqueue: blk_mq_run_work_fn hogged CPU for >10000us 4 times, consider switching to WQ_UNBOUND"},
		},

		// Memory that is short or broken.
		{
			// mm/oom_kill.c __oom_kill_process(): (3), "%s: Killed process"; (3) "%s: Kill process %d (%s) score" before 5.1. A
			// container at its own limit says "Memory cgroup out of memory", which is not the node's fault.
			Cause: "OOMKilling", Verdict: Sick,
			Match: `Out of memory(?: \(oom_kill_allocating_task\))?: Kill(?:ed)? process \d+ \((.*?)\)`,
			Title: "out of memory, killed $1", anywhere: true,
			Examples: []string{
				"Out of memory: Killed process 4242 (java) total-vm:8388608kB, anon-rss:4194304kB, file-rss:0kB, shmem-rss:0kB, UID:1000 pgtables:8264kB oom_score_adj:985",
				"Out of memory: Kill process 4242 (java) score 912 or sacrifice child",
			},
			Counterexamples: []string{
				"Memory cgroup out of memory: Killed process 4242 (java) total-vm:8388608kB, anon-rss:4194304kB, file-rss:0kB, shmem-rss:0kB, UID:1000 pgtables:8264kB oom_score_adj:985",
				"Out of memory and no killable processes...",
			},
		},
		{
			// mm/slub.c slab_out_of_memory(): (4), limited by ___ratelimit; mm/slab.c before 6.8.
			Cause: "SlabAllocationFailure", Verdict: Sick,
			Match: `SL[AU]B: Unable to allocate memory on (?:CPU \d+ \(of node \d+\) on )?node -?\d+[, ]`,
			Title: "slab allocation failure",
			Remedy: "the kernel found no page for a slab cache: below 5.9 mostly kernel-memory accounting of dead cgroups (boot with " +
				"cgroup.memory=nokmem, or take a newer kernel and cgroup v2), else reserve more memory for the system",
			Examples: []string{
				"SLUB: Unable to allocate memory on node -1, gfp=0x6080c0(GFP_KERNEL|__GFP_ZERO)",
				"SLUB: Unable to allocate memory on CPU 3 (of node 0) on node -1, gfp=0xcc0(GFP_KERNEL)",
				"SLUB: Unable to allocate memory on node -1 (gfp=0x20)",
			},
			Counterexamples: []string{"SLUB: HWalign=64, Order=0-3, MinObjects=0, CPUs=2, Nodes=1"},
		},
		{
			// mm/page_alloc.c warn_alloc(): (4), the comm of the allocating task in front.
			Cause: "PageAllocationFailure", Verdict: Sick,
			Match: `.{1,24}: page allocation failure: order:(\d+), mode:0x`,
			Title: "page allocation failure of order $1{in}", asks: true,
			Examples:        []string{"kworker/0:1: page allocation failure: order:4, mode:0x40dc0(GFP_KERNEL|__GFP_COMP|__GFP_ZERO), nodemask=(null),cpuset=/,mems_allowed=0"},
			Counterexamples: []string{"warn_alloc: 12 callbacks suppressed", "page allocation failure: order:4, mode:0x40dc0"},
		},
		{
			// lib/list_debug.c: (3), then BUG or WARNING.
			Cause: "MemoryCorruption", Verdict: Sick,
			Match: `list_(add|del) (?:corruption[.,]|double add:) `,
			Title: "list_$1 corruption{in}", heads: true,
			Examples: []string{
				"list_del corruption. prev->next should be ffff88800a4f1508, but was 0000000000000000. (prev=ffff88800a4f1408)",
				"list_add corruption. next->prev should be prev (ffff888), but was dead000000000122. (next=ffff888).",
				"list_add double add: new=ffff88800a4f1508, prev=ffff88800a4f1508, next=ffff88800a4f1408.",
				"list_del corruption, ffff88800a4f1508->next is LIST_POISON1 (dead000000000100)",
			},
			Counterexamples: []string{"list_sort_test: list_add corruption. not found"},
		},
		{
			// lib/refcount.c refcount_warn_saturate(): (4), in a WARNING.
			Cause: "MemoryCorruption", Verdict: Sick,
			Match: `refcount_t: ([a-z0-9 ]+; [a-z-]+(?: [a-z]+)?)\.$`,
			Title: "refcount_t: $1{in}", heads: true,
			Examples:        []string{"refcount_t: underflow; use-after-free.", "refcount_t: saturated; leaking memory."},
			Counterexamples: []string{"lkdtm: refcount_t: underflow; use-after-free."},
		},
		{
			// mm/usercopy.c usercopy_abort(): (0), pr_fmt "usercopy: ", then BUG.
			Cause: "MemoryCorruption", Verdict: Sick,
			Match: `usercopy: Kernel memory (exposure|overwrite) attempt detected (?:from|to) `,
			Title: "usercopy: kernel memory $1 attempt{in}", heads: true,
			Examples:        []string{"usercopy: Kernel memory exposure attempt detected from SLUB object 'kmalloc-64' (offset 0, size 96)!"},
			Counterexamples: []string{"Invalid option string for hardened_usercopy: 'x'"},
		},
		{
			// mm/kasan/report.c print_error_description(), mm/kfence/report.c: (3), no pr_fmt in either.
			Cause: "MemoryCorruption", Verdict: Sick,
			Match: `BUG: (KASAN|KFENCE|KMSAN): ([a-zA-Z /-]+?) (?:in (\S+?)(?:\+0x[0-9a-f]+/0x[0-9a-f]+)?(?: \[\S+\])?(?: \S+:\d+|` + sourceLines + `)?(?: at addr \(?[0-9a-z]+\)?)?\s*$|on address )`,
			Title: "$1: $2{in}", place: 3,
			Examples: []string{
				"BUG: KASAN: slab-use-after-free in boom_init+0x1a0/0x1000 [boom]",
				"BUG: KFENCE: out-of-bounds read in test_out_of_bounds_read+0xa6/0x234\n",
				"BUG: KASAN: slab-out-of-bounds in __lock_acquire+0x2eff/0x3640 at addr ffff8801a751e6f8",
				"BUG: KASAN: null-ptr-deref on address           (null)",
			},
			Counterexamples: []string{"kasan: test: BUG: KASAN: slab-use-after-free in x+0x1/0x2", "kasan: KernelAddressSanitizer initialized (generic)"},
		},
		{
			// mm/page_alloc.c bad_page(), mm/memory.c print_bad_pte(), kernel/fork.c check_mm(): (1).
			Cause: "MemoryCorruption", Verdict: Sick,
			Match: `BUG: (?:Bad (page state|page map|page cache|rss-counter state) (?:in process |mm:)|non-zero (pgtables_bytes|nr_pmds|nr_ptes) on freeing mm: )`,
			Title: "bad $1$2{in}", owner: true,
			Examples: []string{
				"BUG: Bad page state in process kswapd0  pfn:12345",
				"BUG: Bad rss-counter state mm:00000000a1b2c3d4 type:MM_ANONPAGES val:3",
				"BUG: non-zero pgtables_bytes on freeing mm: -4096",
			},
			Counterexamples: []string{"BUG: Bad page state: 12 messages suppressed"},
		},
		{
			// mm/slub.c slab_bug(): (3) "BUG %s (%s): %pV".
			Cause: "MemoryCorruption", Verdict: Sick,
			Match: `BUG (\S+)(?: \((?:Not tainted|Tainted: [A-Z -]+)\): ([^k\s].*)|: (Objects remaining) on )`,
			Title: "slab $1: $2$3",
			Examples: []string{
				"BUG kmalloc-64 (Tainted: G           OE     ): Right Redzone overwritten",
				"BUG dentry (Not tainted): Poison overwritten",
				"BUG sas_task: Objects remaining on kmem_cache_close()",
			},
			Counterexamples: []string{
				"BUG dentry (probably): Poison overwritten",
				"BUG UNIX (Not tainted): kasan: bad access detected", // an annex of KASAN's own report
			},
		},

		// Checks in kernel code that failed.
		{
			// kernel/panic.c warn_slowpath_common() up to 3.12, which is RHEL 7; PowerPC and s390 name no function.
			Cause: kernelWarning, Verdict: Sick,
			Match: `WARNING: at \S+:\d+(?: (\S+?)\+0x[0-9a-f]+/0x[0-9a-f]+)?(?:\(\))?(?: \[\S+\])?(?:\(\))?\s*$`,
			Title: "WARNING{in}", place: 1,
			Examples: []string{
				"WARNING: at net/ipv4/tcp_input.c:2776 tcp_fastretrans_alert+0xc7a/0xd10()",
				"WARNING: at arch/powerpc/platforms/pseries/eeh.c:390",
			},
			Counterexamples: []string{"WARNING: at least one disk is full", "WARNING: at 12:30 the door closes"},
		},
		{
			// kernel/panic.c __warn(): (4), no pr_fmt. First the form up to 6.18.
			Cause: kernelWarning, Verdict: Sick,
			Match: `WARNING: CPU: \d+ PID: \d+ at (?:\S+?:\d+ )?(\S+?)(?:\+0x|` + sourceLines + `)`,
			Title: "WARNING{in}", place: 1,
			Examples: []string{
				"WARNING: CPU: 1 PID: 170 at kernel/workqueue.c:3012 __flush_work+0x1d2/0x250",
				"WARNING: CPU: 0 PID: 1 at boom_init+0x12/0x40 [boom]",
				"WARNING: CPU: 0 PID: 1 at net/ipv4/tcp_input.c:700 tcp_rcv_space_adjust (net/ipv4/tcp_input.c:700 (discriminator 3))",
			},
			Counterexamples: []string{"WARNING: CPU: frequency scaling is off", "systemd[1]: WARNING: CPU: 1 PID: 1 at x.c:1 x+0x1/0x2"},
		},
		{
			Cause: kernelWarning, Verdict: Sick,
			Match: `WARNING: (?:\[.*\] )?(?:\S+:\d+ )?at (\S+?)(?:\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[\S+\])?|` + sourceLines + `)?, CPU#\d+: `,
			Title: "WARNING{in}", place: 1,
			Examples: []string{
				"WARNING: kernel/workqueue.c:4278 at __flush_work+0x1d2/0x250, CPU#1: kworker/1:1/44",
				"WARNING: boom.c:77 at boom_init+0x12/0x40 [boom], CPU#0: insmod/170",
				"WARNING: [time_after(jiffies, timeout)] io_uring/io_uring.c:3026 at io_ring_exit_work+0x44c/0xbc0, CPU#0: kworker/u8:0/10040",
			},
			Counterexamples: []string{"WARNING: x.c:1 at the end of the day, CPU#0"},
		},
		{
			// kernel/sched/core.c __schedule_bug(), __might_resched(): (3).
			Cause: "KernelBug", Verdict: Sick,
			Match: `BUG: (scheduling while atomic|sleeping function called from invalid context)(?:: | at )`,
			Title: "$1{in}", asks: true,
			Examples: []string{
				"BUG: scheduling while atomic: insmod/170/0x00000002",
				"BUG: sleeping function called from invalid context at kernel/locking/mutex.c:283",
			},
			Counterexamples: []string{"rt-tests: BUG: scheduling while atomic: x/1/0x00000002"},
		},
		{
			// kernel/locking/spinlock_debug.c spin_dump(): (0); kernel/workqueue.c process_one_work(): (3).
			Cause: "KernelBug", Verdict: Sick,
			Match: `BUG: (?:((?:spinlock|rwlock) [a-z ]+) on CPU#\d+, |(workqueue leaked) )`,
			Title: "$1$2{in}", locks: true,
			Examples: []string{
				"BUG: spinlock bad magic on CPU#1, swapper/1/0",
				"BUG: workqueue leaked atomic, lock or RCU: kworker/0:1[12]",
			},
			Counterexamples: []string{"BUG: spinlock of doom"},
		},
		{
			// rust/kernel/lib.rs panic(): (0), then BUG. Rust before 1.73 had the message in front of the place.
			Cause: "KernelBug", Verdict: Sick,
			Match: `rust_kernel: panicked at (?:'.*', )?(?:/\S*/)?([^\s']+?):\d+:\d+(?::|\s*$)`,
			Title: "Rust panic at $1{in}", heads: true,
			Examples: []string{
				"rust_kernel: panicked at drivers/android/binder/node.rs:877:13:\nattempt to subtract with overflow",
				"rust_kernel: panicked at 'index out of bounds: the len is 3 but the index is 5', samples/rust/rust_minimal.rs:22:9",
			},
			Counterexamples: []string{"rust_binder: rust_kernel: panicked at drivers/android/binder/node.rs:877:13:"},
		},
		{
			// lib/ubsan.c ubsan_prologue(): (3). Before 5.7 it did not say what was wrong.
			Cause: "KernelBug", Verdict: Sick,
			Match: `UBSAN: (\S+|Undefined behaviour) in (?:/\S*/)?(\S+?):\d+:\d+$`,
			Title: "UBSAN: $1 at $2{in}", heads: true,
			Examples:        []string{"UBSAN: array-index-out-of-bounds in drivers/net/foo.c:12:34", "UBSAN: Undefined behaviour in ./arch/x86/include/asm/atomic.h:156:2"},
			Counterexamples: []string{"UBSAN: enabled"},
		},

		{
			// kernel/locking/lockdep.c, kernel/rcu/update.c: debugging kernels. Titles stood in brackets until 4.17 and "BUG: " ones
			// still do.
			Cause: "KernelBug", Verdict: Sick,
			Match: `(?:\[ )?(?:WARNING|INFO|BUG): (possible (?:circular locking dependency|recursive locking|irq lock inversion dependency) detected|` +
				`(?:SOFT|HARD)IRQ-safe -> (?:SOFT|HARD)IRQ-unsafe lock order detected|inconsistent lock state|bad (?:unlock balance|contention) detected|` +
				`held lock freed|Invalid wait context|Nested lock was not taken|lock held when returning to user space|` +
				`trying to register non-static key|looking up invalid subclass|MAX_[A-Z_]+ too low)`,
			Title: "$1{in}", locks: true,
			Examples: []string{
				"WARNING: possible circular locking dependency detected",
				"[ INFO: possible recursive locking detected ]",
				"[ BUG: held lock freed! ]",
				"WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected",
				"INFO: trying to register non-static key.",
				"BUG: MAX_STACK_TRACE_ENTRIES too low!",
			},
			Counterexamples: []string{"Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar", "test: WARNING: inconsistent lock state"},
		},
		{
			// kernel/locking/lockdep.c print_held_locks_bug(), with the task in front before 4.17.
			Cause: "KernelBug", Verdict: Sick,
			Match: `(?:\[ )?(?:WARNING|BUG): .{1,24}/\d+ still has locks held!`,
			Title: "still has locks held{in}", locks: true,
			Examples:        []string{"WARNING: syz-executor/4711 still has locks held!", "[ BUG: java/4711 still has locks held! ]"},
			Counterexamples: []string{"1 lock held by java/4711:"},
		},
		{
			// kernel/locking/lockdep.c lockdep_rcu_suspicious(); lib/smp_processor_id.c check_preemption_disabled().
			Cause: "KernelBug", Verdict: Sick,
			Match: `(?:\[ )?(?:WARNING|INFO|BUG): (suspicious (?:RCU|rcu_dereference_check\(\)) usage|using \w+\(\) in preemptible)`,
			Title: "$1{in}",
			Examples: []string{
				"WARNING: suspicious RCU usage",
				"[ INFO: suspicious RCU usage. ]",
				"[ INFO: suspicious rcu_dereference_check() usage. ]",
				"BUG: using smp_processor_id() in preemptible [00000000] code: java/1234",
			},
			Counterexamples: []string{"test: WARNING: suspicious RCU usage"},
		},
		{
			// arch/x86/kernel/unwind_frame.c: debugging kernels.
			Cause: kernelWarning, Verdict: Sick,
			Match: `WARNING: kernel stack (regs|frame pointer) at .{1,40} in .{1,24}:\d+ has bad `,
			Title: "WARNING: kernel stack $1 has a bad value", anywhere: true,
			Examples:        []string{"WARNING: kernel stack regs at 00000000a1b2c3d4 in java:4493 has bad 'bp' value 00000000a1b2c3d4"},
			Counterexamples: []string{"WARNING: kernel stack of things"},
		},
		{
			// mm/kmemleak.c: (4) and (6), pr_fmt "kmemleak: ". Debugging kernels, and a backtrace only with kmemleak.verbose.
			Cause: "MemoryLeak", Verdict: Sick,
			Match: `(?:(?:kmemleak: )?unreferenced object 0x[0-9a-f]{8,16} \(size \d+\):|kmemleak: \d+ new suspected memory leaks \()`,
			Title: "memory leak{in}",
			Examples: []string{
				"kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
				"kmemleak: unreferenced object 0xffff88810a4f1500 (size 64):",
				"unreferenced object 0xffff88810a4f1500 (size 64):",
			},
			Counterexamples: []string{"kmemleak: Kernel memory leak detector initialized (mem pool available: 15686)"},
		},
		{
			// fs/super.c generic_shutdown_super(): (0), a BUG since 6.8; fs/open.c filp_close(): (3).
			Cause: "KernelBug", Verdict: Sick,
			Match: `VFS: (?:Busy inodes after unmount of |Close: file count is 0)`,
			Title: "VFS: use of a freed object", anywhere: true,
			Examples:        []string{"VFS: Busy inodes after unmount of vda1 (ext4)", "VFS: Close: file count is 0 (f_op=ext4_file_operations)"},
			Counterexamples: []string{"VFS: Mounted root (ext4 filesystem) on device 259:1."},
		},
		{
			// kernel/kcsan/report.c print_report(): (3).
			Cause: "KernelBug", Verdict: Sick,
			Match: `BUG: (KCSAN: (?:data-race|assert: race) in \S.*)`,
			Title: "$1", anywhere: true,
			Examples:        []string{"BUG: KCSAN: data-race in e1000_clean_rx_irq+0x551/0xb10 / __napi_schedule"},
			Counterexamples: []string{"kcsan: enabled early", "kcsan: BUG: KCSAN: data-race in x"},
		},
		{
			// kernel/cfi.c report_cfi_failure(): (3), then BUG or WARNING. On arm64 the oops says so, too.
			Cause: "KernelBug", Verdict: Sick,
			Match: `CFI failure at (\S+?)\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[\S+\])? \((?:target: |no target information)`,
			Title: "CFI failure{in}", place: 1, heads: true,
			Examples:        []string{"CFI failure at foo_call+0x2d/0x60 [foo] (target: bar_cb+0x0/0x20; expected type: 0xa3bd2a8c)"},
			Counterexamples: []string{"CFI: Using standard kCFI", "test: CFI failure at x+0x1/0x2 (target: y"},
		},
		{
			// fs/dcache.c umount_check(): in a WARNING, behind it before 6.7.
			Cause: "KernelBug", Verdict: Sick,
			Match: `BUG: Dentry \S+\{i=[0-9a-f]+,n=.*\} +still in use \(`,
			Title: "dentry still in use", heads: true,
			Examples:        []string{"BUG: Dentry 00000000c5d8b0a2{i=5fe1,n=file0}  still in use (1) [unmount of ext4 sda1]"},
			Counterexamples: []string{"BUG: Dentry of the day"},
		},

		// Hardware.
		{
			// drivers/pci/pcie/aer.c aer_print_port_info(): (6), (4) if fatal; "Uncorrectable" since 6.10.
			Cause: "HardwareError", Verdict: Sick,
			Match: `pcieport \S+: AER: (?:Multiple )?Uncorrect(?:ed|able) \((?:Non-)?Fatal\) error (?:message )?received`,
			Title: "uncorrectable PCIe error",
			Examples: []string{
				"pcieport 0000:00:1c.0: AER: Uncorrected (Fatal) error received: 0000:01:00.0",
				"pcieport 0000:00:1c.0: AER: Multiple Uncorrectable (Non-Fatal) error message received from 0000:01:00.0",
			},
			Counterexamples: []string{"pcieport 0000:00:1c.0: AER: Corrected error received: 0000:01:00.0", "pcieport 0000:00:1c.0: AER: enabled with IRQ 24"},
		},
		{
			// arch/x86/kernel/cpu/mce/core.c __print_mce(), mce_panic(): (0), pr_fmt "mce: " since 4.2. Without "Exception" it was
			// found by polling, and as a rule corrected.
			Cause: "HardwareError", Verdict: Sick,
			Match: `(?:mce: )?\[Hardware Error\]: (?:CPU \d+: Machine Check Exception: |Machine check: )`,
			Title: "machine check exception",
			Examples: []string{
				"mce: [Hardware Error]: CPU 1: Machine Check Exception: 5 Bank 3: be00000000800400",
				"mce: [Hardware Error]: Machine check: Processor context corrupt",
				"[Hardware Error]: CPU 1: Machine Check Exception: 5 Bank 3: be00000000800400",
			},
			Counterexamples: []string{
				"mce: [Hardware Error]: Machine check events logged",
				"mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 5: 8c00004000010090",
			},
		},
		{
			// drivers/acpi/apei/ghes.c ghes_print_estatus(): "{n}" counts the events of this boot. bert.c
			// reports those before it, without the braces.
			Cause: "HardwareError", Verdict: Sick,
			Match:           `\{\d+\}\[Hardware Error\]: event severity: (fatal|recoverable)`,
			Title:           "$1 hardware error (APEI)",
			Examples:        []string{"{1}[Hardware Error]: event severity: fatal", "{12}[Hardware Error]: event severity: recoverable"},
			Counterexamples: []string{"{1}[Hardware Error]: event severity: corrected", "[Hardware Error]: event severity: fatal"},
		},
		{
			// drivers/edac/edac_mc.c edac_ue_error(): (0). CE are corrected ones.
			Cause: "HardwareError", Verdict: Sick,
			Match:           `EDAC MC\d+: \d+ UE `,
			Title:           "uncorrected memory error",
			Examples:        []string{"EDAC MC0: 1 UE memory read error on CPU_SrcID#0_MC#0_Chan#0_DIMM#0 (channel:0 slot:0 page:0x1234 offset:0x0 grain:32)"},
			Counterexamples: []string{"EDAC MC0: 1 CE memory read error on CPU_SrcID#0_MC#0_Chan#0_DIMM#0 (channel:0 slot:0)", "EDAC MC: Ver: 3.0.0"},
		},
		{
			// mm/memory-failure.c: (3), pr_fmt "Memory failure: ".
			Cause: "HardwareError", Verdict: Sick,
			Match:           `Memory failure: 0x[0-9a-f]+: `,
			Title:           "memory failure",
			Examples:        []string{"Memory failure: 0x12345: recovery action for dirty LRU page: Recovered"},
			Counterexamples: []string{"Injecting memory failure for pfn 0x12345 at process virtual address 0x7f00"},
		},
		{
			// arch/x86/kernel/cpu/mce/core.c kill_me_maybe(): (3), pr_fmt "mce: ".
			Cause: "HardwareError", Verdict: Sick,
			Match:           `mce: Uncorrected hardware memory error in user-access at `,
			Title:           "memory failure",
			Examples:        []string{"mce: Uncorrected hardware memory error in user-access at 1234567000"},
			Counterexamples: []string{"mce: CPU supports 10 MCE banks"},
		},

		// File systems and disks.
		{
			// fs/ext4/super.c __ext4_error(), __ext4_std_error(): (2).
			Cause: "FilesystemError", Verdict: Sick,
			Match: `EXT4-fs error \(device [^\s)]+\)(?: in|:) (\w+):\d+: `,
			Title: "EXT4-fs error in $1",
			Examples: []string{
				"EXT4-fs error (device vda1): ext4_find_entry:1455: inode #2: comm ls: reading directory lblock 0",
				"EXT4-fs error (device nvme0n1p1) in ext4_reserve_inode_write:5764: Journal has aborted",
			},
			Counterexamples: []string{"EXT4-fs (vda1): mounted filesystem with ordered data mode. Quota mode: none.", "EXT4-fs warning (device vda1): ext4_resize_begin:73: x"},
		},
		{
			// fs/ext4/super.c ext4_handle_error(): (2). A remount that somebody asked for reads "re-mounted".
			Cause: "FilesystemError", Verdict: Sick,
			Match: `EXT4-fs \([^\s)]+\): Remounting filesystem read-only$`,
			Title: "EXT4-fs remounted read-only", rank: vague,
			Examples:        []string{"EXT4-fs (vda1): Remounting filesystem read-only"},
			Counterexamples: []string{"EXT4-fs (vda1): re-mounted. Opts: (null). Quota mode: none."},
		},
		{
			// fs/xfs/xfs_fsops.c xfs_do_force_shutdown(), xfs_error.c xfs_corruption_error(), xfs_log.c: (1).
			Cause: "FilesystemError", Verdict: Sick,
			Match: `XFS \([^\s)]+\): (?:Corruption detected\. Unmount and run xfs_repair|.*Shutting down filesystem|` +
				`Filesystem has been shut down due to log error|Internal error .* at line \d+ of file |Metadata (?:corruption|CRC error) detected at )`,
			Title: "XFS corruption or shutdown",
			Examples: []string{
				"XFS (nvme1n1): Corruption detected. Unmount and run xfs_repair",
				"XFS (nvme1n1): Log I/O Error (0x2) detected at xlog_ioend_work+0x6e/0x70 [xfs] (fs/xfs/xfs_log.c:1378).  Shutting down filesystem.",
				"XFS (dm-0): Corruption of in-memory data detected.  Shutting down filesystem",
				"XFS (dm-0): Internal error i != 1 at line 2111 of file fs/xfs/libxfs/xfs_alloc.c.  Caller xfs_free_ag_extent+0x3f1/0x900 [xfs]",
				"XFS (dm-0): Metadata CRC error detected at xfs_agf_read_verify+0x9f/0xe0 [xfs], xfs_agf block 0x1 ",
			},
			Counterexamples: []string{"XFS (nvme1n1): Unmounting Filesystem 2b1c", "XFS (nvme1n1): Ending clean mount"},
		},
		{
			// fs/btrfs/messages.c __btrfs_handle_fs_error(): (2).
			Cause: "FilesystemError", Verdict: Sick,
			Match:           `BTRFS: error \(device [^)]+\) in \S+:\d+: errno=`,
			Title:           "BTRFS error",
			Examples:        []string{"BTRFS: error (device vda1: state A) in btrfs_run_delayed_refs:2149: errno=-5 IO failure"},
			Counterexamples: []string{"BTRFS error (device vda1): open_ctree failed: -22"},
		},
		{
			// fs/btrfs/tree-checker.c (2); fs/btrfs/transaction.h btrfs_abort_transaction(), in a WARNING.
			Cause: "FilesystemError", Verdict: Sick,
			Match: `BTRFS(?: critical \(device [^)]+\): (corrupt (?:leaf|node)): |: (Transaction aborted) \(error )`,
			Title: "BTRFS: $1$2{in}", heads: true,
			Examples: []string{
				"BTRFS critical (device vda1): corrupt leaf: root=5 block=30408704 slot=3, bad key order, prev (256 96 4) current (256 96 3)",
				"BTRFS: Transaction aborted (error -28)",
			},
			Counterexamples: []string{"BTRFS critical (device vda1): use --init-extent-tree", "BTRFS: device fsid 1 devid 1 transid 9 /dev/vda1"},
		},
		{
			// fs/jbd2/journal.c __jbd2_journal_abort_hard(), jbd2_journal_abort(): (3).
			Cause: "FilesystemError", Verdict: Sick,
			Match: `Aborting journal on device \S+\.$`,
			Title: "journal aborted", rank: vague,
			Examples:        []string{"Aborting journal on device nvme1n1-8."},
			Counterexamples: []string{"Aborting journal on device nvme1n1 and so on"},
		},
		{
			// fs/btrfs/messages.c btrfs_handle_error(), super.c before 6.2: (6).
			Cause: "FilesystemError", Verdict: Sick,
			Match: `BTRFS info \(device [^)]+\): forced readonly`,
			Title: "BTRFS error", rank: vague,
			Examples:        []string{"BTRFS info (device vda1: state EA): forced readonly"},
			Counterexamples: []string{"BTRFS info (device vda1): using free space tree"},
		},
		{
			// fs/buffer.c buffer_io_error(), fs/ext4/page-io.c: (3). Not sr0 and fd0: a drive without a medium is well.
			Cause: "IOError", Verdict: Sick,
			Match:           `Buffer I/O error on dev(?:ice)? (?:nvme|xvd|sd|vd|md|dm-)`,
			Title:           "buffer I/O error",
			Examples:        []string{"Buffer I/O error on dev nvme1n1, logical block 0, async page read"},
			Counterexamples: []string{"Buffer I/O error on dev sr0, logical block 0, async page read"},
		},
		{
			// block/blk-mq.c blk_print_req_error(): (3), without the prefix since 5.16.
			Cause: "IOError", Verdict: Sick,
			Match: `(?:blk_update_request: |print_req_error: )?(?:I/O|critical medium) error, dev (?:nvme|xvd|sd|vd|md|dm-)`,
			Title: "block I/O error",
			Examples: []string{
				"I/O error, dev nvme1n1, sector 2048 op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 2",
				"blk_update_request: I/O error, dev sda, sector 2048 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 0",
				"print_req_error: I/O error, dev xvdf, sector 2048",
			},
			Counterexamples: []string{"blk_update_request: I/O error, dev fd0, sector 0 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 0"},
		},
		{
			// drivers/nvme/host/pci.c nvme_timeout(), nvme_warn_reset(): (4), dev_warn.
			Cause: "StorageTimeout", Verdict: Sick,
			Match: `nvme nvme\d+: (?:I/O .*QID \d+ timeout, (?:aborting|reset controller|disable controller)|controller is down; will reset: )`,
			Title: "nvme timeout",
			Examples: []string{
				"nvme nvme0: I/O 12 QID 3 timeout, aborting",
				"nvme nvme0: I/O tag 12 (100c) opcode 0x1 (I/O Cmd) QID 3 timeout, aborting req_op:WRITE(1) size:4096",
				"nvme nvme1: controller is down; will reset: CSTS=0x3, PCI_STATUS=0x10",
			},
			Counterexamples: []string{"nvme nvme0: I/O 12 QID 3 timeout, completion polled"},
		},
		{
			// drivers/nvme/host/pci.c nvme_remove_dead_ctrl() before 6.4, nvme_reset_work(): (4), dev_warn.
			Cause: "StorageLost", Verdict: Sick,
			Match: `nvme nvme\d+: (?:Removing after probe failure|Disabling device after reset failure|Device not ready; aborting (?:reset|initialisation))`,
			Title: "nvme lost",
			Examples: []string{
				"nvme nvme1: Removing after probe failure status: -19",
				"nvme nvme1: Disabling device after reset failure: -19",
				"nvme nvme1: Device not ready; aborting reset, CSTS=0x1",
			},
			Counterexamples: []string{"nvme nvme1: Shutdown timeout set to 10 seconds"},
		},

		// Network.
		{
			// net/core/dev.c netdev_wait_allrefs_any(): (0), every 10 s.
			Cause: "NetdevRefcountLeak", Verdict: Sick,
			Match: `unregister_netdevice: waiting for \S+ to become free\. Usage count = -?\d+`,
			Title: "network device reference leaked (unregister_netdevice)",
			Remedy: "a reference to a deleted network device was leaked: its network namespace never goes away, pods hang in deletion " +
				"and new ones on the same lock; only a reboot frees it, so drain and reboot the node, and take a newer kernel",
			Examples: []string{
				"unregister_netdevice: waiting for lo to become free. Usage count = 2",
				"unregister_netdevice: waiting for vethb3f2a1c to become free. Usage count = -1",
			},
			Counterexamples: []string{"netconsole: unregister_netdevice: waiting for lo to become free. Usage count = 2", "unregister_netdevice: device eth0/00000000 never was registered"},
		},
		{
			// net/sched/sch_generic.c dev_watchdog(): (2) netdev_crit since 6.5 and in later stable kernels; a WARNING before.
			Cause: "NetdevWatchdog", Verdict: Sick,
			Match: `(?:(?:\S+ \S+ )?\S+(?: \(\w+\))?: )?NETDEV WATCHDOG: (?:CPU: \d+|\S+ \(\S*\)): transmit queue \d+ timed out`,
			Title: "NETDEV WATCHDOG: transmit queue timed out", heads: true,
			Examples: []string{
				"ena 0000:00:05.0 eth0: NETDEV WATCHDOG: CPU: 1: transmit queue 3 timed out 5120 ms",
				"NETDEV WATCHDOG: eth0 (ena): transmit queue 3 timed out",
			},
			Counterexamples: []string{"a log of: eth0 NETDEV WATCHDOG transmit queue 3 timed out", "ena 0000:00:05.0 eth0: Link up"},
		},
		{
			// drivers/net/ethernet/amazon/ena/ena_netdev.c: (3), netif_err and dev_err.
			Cause: "NetdevReset", Verdict: Sick,
			Match: `ena \S+?(?: \S+?)?: (Keep alive watchdog timeout|Potential MSIX issue on \wx side|Reset attempt failed\. Can not reset the device|` +
				`(?:The number of l|L)ost (?:tx|TX) completions (?:is|are) above the threshold|ENA admin queue is not in running state)`,
			Title: "ena: $1",
			Examples: []string{
				"ena 0000:00:05.0 eth0: Keep alive watchdog timeout.",
				"ena 0000:00:05.0 eth0: Potential MSIX issue on Rx side Queue = 2. Reset the device",
				"ena 0000:00:05.0: Reset attempt failed. Can not reset the device",
				"ena 0000:00:05.0 eth0: The number of lost tx completions is above the threshold (129 > 128). Reset the device",
				"ena 0000:00:05.0 eth0: Lost TX completions are above the threshold (129 > 128). Completion transmission timeout: 5000.",
				"ena 0000:00:05.0 eth0: ENA admin queue is not in running state!",
			},
			Counterexamples: []string{"ena 0000:00:05.0: Device reset completed successfully"},
		},
	}
}
