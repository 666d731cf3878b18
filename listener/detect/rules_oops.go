package detect

// dieTail is what __die_header (x86) and __die (arm64) put behind the count of oopses: words such as " PREEMPT SMP NOPTI",
// up to the end. "Oops: 0002 [#1]" alone is a name that any process can take, and the kernel then goes on otherwise.
const dieTail = `(?: +[A-Z][A-Z0-9_]*(?:\([a-z]+\))?)* *$`

// pageFault is the title of an access to an address without memory.
const pageFault = "kernel page fault{in}"

// oopsRules are the messages of a kernel that has met an error from which the task cannot continue. With
// kernel.panic_on_oops=1, which every kubelet sets, they are death notices; see Source.SetFatal.
func oopsRules() []Rule {
	return []Rule{
		{
			// arch/x86/mm/fault.c show_fault_oops(): (1), no pr_fmt. The second form is older than 5.1.
			Cause: kernelOops, Verdict: Oops,
			Match: `BUG: (?:kernel NULL pointer dereference, address: |unable to handle kernel NULL pointer dereference at |Kernel NULL pointer dereference )`,
			Title: "kernel NULL pointer dereference{in}",
			Examples: []string{
				"BUG: kernel NULL pointer dereference, address: 0000000000000000",
				"BUG: unable to handle kernel NULL pointer dereference at 0000000000000008",
				"BUG: Kernel NULL pointer dereference on read at 0x00000000", // arch/powerpc/mm/fault.c bad_page_fault()
			},
			Counterexamples: []string{
				"netconsole: seen before: BUG: kernel NULL pointer dereference, address: 0000000000000000",
				"BUG: kernel NULL IN=eth0 OUT= BUG: kernel NULL pointer dereference, address: ",
			},
		},
		{
			// The same function. An address that is not NULL.
			Cause: kernelOops, Verdict: Oops,
			Match: `(?:BUG: (?:unable to handle (?:page fault for address: |kernel paging request at |kernel *$)|Unable to handle (?:kernel (?:data access|instruction fetch|unaligned access)|unknown paging fault)(?: |\s*$))|` +
				`Unable to handle kernel paging request for [a-z ]{4,24}(?:at address 0x[0-9a-f]|$))`,
			Title: pageFault,
			Examples: []string{
				"BUG: unable to handle page fault for address: ffffc90000123000",
				"BUG: unable to handle kernel paging request at ffffc90000123000",
				"BUG: Unable to handle kernel data access on write at 0x8000000041a25f20",
				"BUG: Unable to handle kernel instruction fetch",
				"Unable to handle kernel paging request for data at address 0x00000000", // arch/powerpc/mm/fault.c before 5.1
				"Unable to handle kernel paging request for instruction fetch",
			},
			Counterexamples: []string{"stress-ng[7]: BUG: unable to handle page fault for address: ffffc90000123000"},
		},
		{
			// The same function: (2), in front of the above; arch/powerpc/mm/fault.c bad_kernel_fault().
			Cause: kernelOops, Verdict: Oops,
			Match: `(?:kernel tried to execute (?:NX-protected|exec-protected|user) page(?: \([0-9a-f]+\))? - exploit attempt\?|` +
				`Kernel attempted to execute user page \([0-9a-f]+\) - exploit attempt\?|unable to execute userspace code \(SMEP\?\)) \(uid: `,
			Title: "execution of a non-executable page{in}",
			Examples: []string{
				"kernel tried to execute NX-protected page - exploit attempt? (uid: 0)",
				"unable to execute userspace code (SMEP?) (uid: 1000)",
				"kernel tried to execute exec-protected page (c008000001234560) - exploit attempt? (uid: 0)",
				"Kernel attempted to execute user page (0) - exploit attempt? (uid: 0)",
			},
			Counterexamples: []string{"x86/mm: kernel tried to execute NX-protected page - exploit attempt? (uid: 0)"},
		},
		{
			// lib/bug.c __report_bug(): (2), pr_fmt empty. Line numbers and build directories differ between builds. The
			// condition stands in front with CONFIG_DEBUG_BUGVERBOSE_DETAILED (6.18).
			Cause: kernelOops, Verdict: Oops,
			Match: `kernel BUG at (?:\[[^\n]*\] )?(?:/\S*/)?(\S+?):\d+!$`,
			Title: "kernel BUG at $1{in}", asserts: true,
			Examples:        []string{"kernel BUG at mm/slub.c:379!", "kernel BUG at /build/linux/fs/ext4/inode.c:2721!", "kernel BUG at [PageTail(page)] mm/filemap.c:1498!"},
			Counterexamples: []string{"virtio_blk: kernel BUG at mm/slub.c:379!", "kernel BUG at your service", "kernel BUG at x:1![400000+1000]"},
		},
		{
			// arch/x86/kernel/dumpstack.c __die_header(): (4) "%s: %04lx [#%d]", with "Oops: " in front since 6.10. A fault
			// of userspace reads "traps: foo[12] general protection fault ip:…".
			Cause: kernelOops, Verdict: Oops,
			Match: `(?:Oops: general protection fault[^\n]*: [0-9a-f]{4} \[#\d+\]` + dieTail + `|general protection fault[^\n]*: [0-9a-f]{4} \[#\d+\])`,
			Title: "general protection fault{in}", alike: pageFault, // as an address that is no pointer is on all others
			Examples: []string{
				"general protection fault: 0000 [#1] SMP PTI",
				"general protection fault, probably for non-canonical address 0xdead000000000108: 0000 [#1] PREEMPT SMP NOPTI",
				"Oops: general protection fault, probably for non-canonical address 0xdead000000000108: 0000 [#1] SMP NOPTI",
			},
			Counterexamples: []string{
				"traps: bench[1234] general protection fault ip:7f00 sp:7ffc error:0 in libc.so.6[7f00+1000]",
				"Oops: general protection fault: 0000 [#1] in x",
			},
		},
		{
			// The same header behind a page fault, whose own line says more.
			Cause: kernelOops, Verdict: Oops,
			Match: `(?:(?:Oops: )?Oops: [0-9a-f]{4} (?:ilc:\d )?|Oops ?|Oops: (?:Kernel access of bad area|Exception in kernel mode), sig: \d+ )\[#\d+\](?::\s*$|` + dieTail + `)`,
			Title: "oops{in}", rank: vague,
			Examples: []string{
				"Oops: 0004 ilc:3 [#1] SMP ",                    // arch/s390/kernel/dumpstack.c
				"Oops: Kernel access of bad area, sig: 11 [#1]", // arch/powerpc/kernel/traps.c
				"Oops [#1]", "Oops[#1]:", // arch/riscv, arch/mips, arch/loongarch
				"Oops: 0002 [#1] PREEMPT SMP NOPTI",
				"Oops: Oops: 0002 [#1] SMP NOPTI",
				"Oops: Oops: 0000 [#2] PREEMPT(voluntary) SMP KASAN NOPTI",
				"Oops: 0002 [#1] SMP ",
			},
			Counterexamples: []string{
				"audit: Oops: 0002 [#1] SMP",
				"Oops: I did it again: 0002 #1",
				// A process with that name.
				"Oops: 0002 [#1][1234]: segfault at 0 ip 0000000000401000 sp 00007ffc0 error 4 in y[400000+1000]",
				"Oops: 0002 [#1] invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
				"Oops: 0002 [#1]: page allocation failure: order:4, mode:0xcc0(GFP_KERNEL), nodemask=(null),cpuset=x,mems_allowed=0",
			},
		},
		{
			// The same header behind BUG() and everything that is built on it.
			Cause: kernelOops, Verdict: Oops,
			Match: `(?:(?:Oops: )?invalid opcode: [0-9a-f]{4} |monitor event: [0-9a-f]{4} ilc:\d |Kernel BUG )\[#\d+\]` + dieTail,
			Title: "invalid opcode{in}", rank: vague, asserts: true,
			Examples: []string{"monitor event: 0040 ilc:2 [#1] SMP ", "Kernel BUG [#1]", "invalid opcode: 0000 [#1] PREEMPT SMP NOPTI", "Oops: invalid opcode: 0000 [#1] SMP NOPTI"},
			Counterexamples: []string{
				"traps: bench[1234] trap invalid opcode ip:401000 sp:7ffc error:0 in bench[400000+1000]",
				"invalid opcode: 0000 [#1] of x",
			},
		},
		{
			// The same header for the other traps of arch/x86/kernel/traps.c: divide error, stack segment, int3, bounds,
			// alignment check, double fault, Bad pagetable, unexpected #NM exception, …
			Cause: kernelOops, Verdict: Oops,
			Match: `(?:Oops: )?([A-Za-z][^:\[\n]{2,60}?)(?:, [^:\n]*)?: [0-9a-f]{4} (?:ilc:\d )?\[#\d+\]` + dieTail,
			Title: "$1{in}",
			Examples: []string{
				"specification exception: 0006 ilc:3 [#1] SMP ", // arch/s390/kernel/traps.c
				"divide error: 0000 [#1] SMP PTI",
				"Oops: divide error: 0000 [#1] SMP NOPTI",
				"Oops: unexpected #NM exception: 0000 [#1] SMP NOPTI",
				"Bad pagetable: 000d [#1] PREEMPT SMP NOPTI",
			},
			Counterexamples: []string{
				"usb 1-1: divide error: 0000 [#1] SMP PTI",
				"bench: run 0042 [#1] of 12",
				"abc: 0000 [#1][1234]: segfault at 0 ip 0000000000401000 sp 00007ffc0 error 4 in y[400000+1000]",
			},
		},
		{
			// What other architectures put in front of "[#1]": arch/riscv/kernel/traps.c, arch/powerpc/kernel/traps.c,
			// arch/mips/kernel/traps.c, arch/loongarch/kernel/traps.c.
			Cause: kernelOops, Verdict: Oops,
			Match: `(?:Oops - ([a-z][a-z ()/-]{3,40}) \[#\d+\]|Oops: ([A-Z][A-Za-z /-]{3,60}), sig: \d+ \[#\d+\]|((?:Break|Reserved) instruction in kernel code|Kernel bug detected|Illegal instruction in kernel code)\[#\d+\]:)` + dieTail,
			Title: "$1$2$3{in}",
			Examples: []string{
				"Oops - illegal instruction [#1]",
				"Oops: Machine check, sig: 7 [#1]",
				"Break instruction in kernel code[#1]:",
			},
			Counterexamples: []string{"Oops - illegal instruction [#1][1234]: segfault at 0", "Oops - I did it again", "Oops: Machine check, sig: 7 [#1] in x"},
		},
		{
			// arch/s390/mm/fault.c do_no_context(); arch/mips/mm/fault.c, arch/loongarch/mm/fault.c no_context(): (1).
			Cause: kernelOops, Verdict: Oops,
			Match: `(?:Unable to handle kernel (?:pointer dereference|paging request) in virtual (?:kernel|user) address space|` +
				`CPU \d+ Unable to handle kernel paging request at virtual address [0-9a-f]{8,16}, (?:epc|era) == )`,
			Title: pageFault,
			Examples: []string{
				"Unable to handle kernel pointer dereference in virtual kernel address space",
				"CPU 0 Unable to handle kernel paging request at virtual address 00000004, epc == 80123456, ra == 80123400",
			},
			Counterexamples: []string{"CPU 0 Unable to handle kernel paging", "s390: Unable to handle kernel pointer dereference in virtual kernel address space"},
		},
		{
			// arch/arm64/mm/fault.c die_kernel_fault(): (1), no pr_fmt.
			Cause: kernelOops, Verdict: Oops,
			Match: `Unable to handle kernel NULL pointer dereference at virtual address [0-9a-f]`,
			Title: "kernel NULL pointer dereference{in}",
			Examples: []string{
				"Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000",
			},
			Counterexamples: []string{"test: Unable to handle kernel NULL pointer dereference at virtual address 0"},
		},
		{
			Cause: kernelOops, Verdict: Oops,
			Match: `Unable to handle kernel (?:paging request|read from unreadable memory|write to read-only memory) at virtual address [0-9a-f]`,
			Title: pageFault,
			Examples: []string{
				"Unable to handle kernel paging request at virtual address ffff800012345678",
				"Unable to handle kernel write to read-only memory at virtual address ffff800010081000",
			},
			Counterexamples: []string{"Unable to handle paging request at virtual address ffff800012345678"},
		},
		{
			// "execute from non-executable memory", "execution of user memory", "access to user memory outside uaccess
			// routines" (5.13; "with fs=KERNEL_DS", "without uaccess routines" before).
			Cause: kernelOops, Verdict: Oops,
			Match: `Unable to handle kernel (exec[a-z]+ (?:from|of) [a-z-]+ memory|access to user memory) ?[A-Za-z_= ]*at virtual address [0-9a-f]`,
			Title: "kernel $1{in}",
			Examples: []string{
				"Unable to handle kernel execute from non-executable memory at virtual address ffff000012345678",
				"Unable to handle kernel access to user memory outside uaccess routines at virtual address 0000aaaac8c40000",
			},
			Counterexamples: []string{"Unable to handle kernel access request: at virtual address limit"},
		},
		{
			// arch/arm64/kernel/traps.c __die(): (0) "Internal error: %s: %016lx [#%d]", "%x" before 5.17. The reason is "Oops"
			// behind a fault, which has a line of its own.
			Cause: kernelOops, Verdict: Oops,
			Match: `Internal error: (?:Oops|Oops - BUG|Oops - BRK): [0-9a-f]{1,16} \[#\d+\]` + dieTail,
			Title: "oops{in}", rank: vague,
			Examples: []string{
				"Internal error: Oops: 0000000096000044 [#1] SMP",
				"Internal error: Oops: 96000004 [#1] PREEMPT SMP",
				"Internal error: Oops - BUG: 00000000f2000800 [#1] SMP",
			},
			Counterexamples: []string{"Internal error: Oops occurred", "Internal error: Oops: 0 [#1][400000+1000]"},
		},
		{
			// arch/arm/mm/fault.c do_DataAbort(): without a reason, which its line before has.
			Cause: kernelOops, Verdict: Oops,
			Match:           `Internal error: : [0-9a-f]{1,16} \[#\d+\]` + dieTail,
			Title:           "unhandled fault{in}",
			Examples:        []string{"Internal error: : 1b [#1] PREEMPT SMP ARM"},
			Counterexamples: []string{"Internal error: : 1b [#1] of x"},
		},
		{
			// The same for the reasons that stand for themselves: Undefined instruction, BTI, FPAC, CFI, synchronous external
			// abort, …
			Cause: kernelOops, Verdict: Oops,
			Match: `Internal error: (?:Oops - )?((?:UBSAN: )?[^:\n]+): [0-9a-f]{1,16} \[#\d+\]` + dieTail,
			Title: "$1{in}",
			Examples: []string{
				"Internal error: Oops - Undefined instruction: 0000000002000000 [#1] SMP",
				"Internal error: synchronous external abort: 0000000096000410 [#1] SMP",
				"Internal error: UBSAN: array index out of bounds: 00000000f2005512 [#1] SMP",
			},
			Counterexamples: []string{
				"nvme nvme0: Internal error: synchronous external abort: 0000000096000410 [#1] SMP",
				"Internal error: page allocation failure: 0 [#1],mems_allowed=0",
			},
		},
		{
			// kernel/exit.c make_task_dead(): (1). The task stays, with whatever locks it holds.
			Cause: kernelOops, Verdict: Oops,
			Match: `Fixing recursive fault but reboot is needed!`,
			Title: "recursive fault of a dying task", rank: vague,
			Examples:        []string{"Fixing recursive fault but reboot is needed!"},
			Counterexamples: []string{"updater: Fixing recursive fault but reboot is needed!"},
		},
	}
}
