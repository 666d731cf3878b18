package detect

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// report makes lines as a Source keeps them.
func lines(text string) []line {
	var l []line
	for s := range strings.Lines(text) {
		l = append(l, line{text: strings.TrimSuffix(s, "\n"), kernel: true})
	}
	return l
}

func TestWhereItHappened(t *testing.T) {
	oops := &Rule{Cause: kernelOops, Verdict: Oops}
	stall := &Rule{Cause: "RCUStall", asks: true, stalls: true}
	hung := &Rule{Cause: "TaskHung", asks: true}
	direct := &Rule{Cause: kernelPanic, Verdict: Dying}
	tests := []struct {
		name  string
		rule  *Rule
		lines string
		want  string
	}{
		{
			"the instruction pointer comes first", oops,
			"RIP: 0010:foo+0x1/0x2 [mod]\nCall Trace:\n <TASK>\n bar+0x1/0x2 [mod]\n baz+0x1/0x2\n qux+0x1/0x2\n </TASK>\n",
			"foo",
		},
		{
			"frames the unwinder guesses do not count", oops,
			"RIP: 0010:foo+0x1/0x2\nCall Trace:\n ? maybe+0x1/0x2\n bar+0x1/0x2\n ? perhaps+0x1/0x2 [mod]\n",
			"foo",
		},
		{
			"what the compiler appends does not count", oops,
			"RIP: 0010:foo.isra.0.cold+0x1/0x2\nCall Trace:\n bar.constprop.0+0x1/0x2\n",
			"foo",
		},
		{
			"the hash of a BPF program does not count", oops,
			"RIP: 0010:bpf_prog_6deef7357e7b4530_sd_fw_ingress+0x1/0x2\nCall Trace:\n foo+0x1/0x2\n",
			"bpf_prog_sd_fw_ingress",
		},
		{
			"the address of a frame, its build id and its notes do not count", oops,
			"Call trace:\n panic+0x1/0x2 (P)\n [<ffffffff81000000>] foo+0x1/0x2 [mod 4f2a9c]\n baz+0x1/0x2 [mod] (PC)\n",
			"foo",
		},
		{
			"what only reports names nothing", direct,
			"Call Trace:\n <TASK>\n dump_stack_lvl+0x44/0x5c\n panic+0x118/0x2f4\n sysrq_handle_crash+0x16/0x20\n __handle_sysrq.cold+0x44/0x11c\n </TASK>\n",
			"sysrq_handle_crash",
		},
		{
			"the code that a panicking interrupt had interrupted is beside the point", direct,
			"Call Trace:\n <IRQ>\n panic+0x118/0x2f4\n my_irq_handler+0x1/0x2\n </IRQ>\n <TASK>\n asm_common_interrupt+0x1/0x2\nRIP: 0010:default_idle+0x1/0x2\n",
			"my_irq_handler",
		},
		{
			"whom an exception interrupted stands in no frame", &Rule{Cause: kernelOops, Verdict: Oops, asserts: true},
			"RIP: 0010:exc_control_protection+0x1/0x2\nCall Trace:\n <TASK>\n asm_exc_control_protection+0x26/0x30\nRIP: 0010:guilty+0x0/0x10\nCode: 90\n caller+0x1/0x2\n",
			"guilty",
		},
		{
			"a panic whose WARNING was lost has its registers in the backtrace", direct,
			"Call Trace:\n panic+0x1/0x2\n check_panic_on_warn+0x1/0x2\n __warn+0x1/0x2\n exc_invalid_op+0x1/0x2\n asm_exc_invalid_op+0x1/0x2\nRIP: 0010:refcount_warn_saturate+0x1/0x2\nRSP: 0018:0\n guilty+0x1/0x2\n caller+0x1/0x2\n",
			"guilty",
		},
		{
			"the work of a stuck pool, and not of another", &Rule{work: true},
			"BUG: workqueue lockup - pool cpus=3 node=0 flags=0x0 nice=0 stuck for 31s!\nworkqueue events: flags=0x0\n" +
				"  pwq 2: cpus=1 node=0 flags=0x0 nice=0 active=1/256 refcnt=2\n    in-flight: 12:other_work\n" +
				"  pwq 6: cpus=3 node=0 flags=0x0 nice=0 active=1/256 refcnt=2\n    in-flight: 212(RESCUER):guilty_work for 31s, 14:more_work\n    pending: third_work\n",
			"guilty_work",
		},
		{
			"a pool that works on nothing", &Rule{work: true},
			"BUG: workqueue lockup - pool cpus=3 node=0 flags=0x0 nice=0 stuck for 31s!\n  pwq 6: cpus=3 node=0 flags=0x0 nice=0 active=1/256 refcnt=2\n    pending: third_work\nCall Trace:\n panic+0x1/0x2\n wq_watchdog_timer_fn+0x1/0x2\n",
			"",
		},
		{
			"but it is what a stall is about", stall,
			"Call Trace:\n <IRQ>\n rcu_dump_cpu_stacks+0x1/0x2\n rcu_sched_clock_irq+0x1/0x2\n </IRQ>\n <TASK>\n asm_sysvec_apic_timer_interrupt+0x1/0x2\nRIP: 0010:busy+0x1/0x2\n caller+0x1/0x2\n",
			"busy",
		},
		{
			"whoever waits is named, not what it waits in", hung,
			"Call Trace:\n <TASK>\n __schedule+0x1/0x2\n schedule+0x1/0x2\n io_schedule+0x1/0x2\n folio_wait_bit_common+0x1/0x2\n ext4_writepages+0x1/0x2\n </TASK>\n",
			"ext4_writepages",
		},
		{
			"whoever hands a bad pointer to the library", oops,
			"RIP: 0010:memcpy_erms+0x6/0x10\nCall Trace:\n <TASK>\n __x86_indirect_thunk_rax+0x1/0x2\n foo+0x1/0x2\n </TASK>\n",
			"foo",
		},
		{
			"functions that call each other in turn are one recursion, wherever it ended", &Rule{Cause: kernelPanic, Verdict: Dying, overflow: true},
			"RIP: 0010:leaf+0x1/0x2\nCall Trace:\n __cc+0x1/0x2\n bb+0x1/0x2\n aa+0x1/0x2\n __cc+0x1/0x2\n bb+0x1/0x2\n aa+0x1/0x2\n __cc+0x1/0x2\n bb+0x1/0x2\n aa+0x1/0x2\n __cc+0x1/0x2\n bb+0x1/0x2\n entry+0x1/0x2\n",
			"aa",
		},
		{
			"a function and its inner half are one recursion, named by the outer half", &Rule{Cause: kernelPanic, Verdict: Dying, overflow: true},
			"RIP: 0010:leaf+0x1/0x2\nCall Trace:\n" + strings.Repeat(" __walk+0x1/0x2\n walk+0x1/0x2\n", 5) + " entry+0x1/0x2\n",
			"walk",
		},
		{
			"on arm64 the link register has the caller of an address without code", oops,
			"pc : 0xffffffffdeadbeef\nlr : caller+0x1/0x2 [mod]\nCall trace:\n 0xffffffffdeadbeef\n el0_svc_naked+0x1/0x2\n",
			"caller",
		},
		{
			"the library, if its caller is lost", oops,
			"RIP: 0010:memcpy_erms+0x6/0x10\nCode: 90\n",
			"memcpy_erms",
		},
		{
			"a lock that is spun on is not to blame", stall,
			"RIP: 0010:native_queued_spin_lock_slowpath+0x13c/0x1c0\nCall Trace:\n _raw_spin_lock_irqsave+0x25/0x30\n try_charge_memcg+0x1a1/0x620\n",
			"try_charge_memcg",
		},
		{
			"userspace has no part in it", direct,
			"Call Trace:\n foo+0x1/0x2\nRIP: 0033:0x4b0642\n",
			"foo",
		},
		{
			"arm64 calls it pc and repeats it in the trace", oops,
			"pc : foo+0x1/0x2 [mod]\nlr : other+0x1/0x2 [mod]\nCall trace:\n foo+0x1/0x2 [mod]\n bar+0x1/0x2\n",
			"foo",
		},
		{
			"the summary of an oops makes good for a lost line", oops,
			"Call Trace:\n bar+0x1/0x2\n---[ end trace 0000000000000000 ]---\nRIP: 0010:foo+0x1/0x2\n",
			"foo",
		},
		{
			"a second backtrace is another story", oops,
			"RIP: 0010:foo+0x1/0x2\nCall Trace:\n bar+0x1/0x2\n </TASK>\nCall Trace:\n baz+0x1/0x2\n",
			"foo",
		},
		{"no backtrace", oops, "Modules linked in: foo+0x1/0x2 bar\nCode: 00\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := readTrace(lines(tt.lines), tt.rule, "")
			if got.guilty != tt.want {
				t.Errorf("%q, want %q", got.guilty, tt.want)
			}
		})
	}
}

func TestOnlyLinesOfTheKernelAreReadForFrames(t *testing.T) {
	l := lines("RIP: 0010:forged+0x1/0x2\nCall Trace:\n foo+0x1/0x2\n")
	l[0].kernel = false
	got := readTrace(l, &Rule{Verdict: Oops}, "")
	if got.guilty != "foo" {
		t.Errorf("%q, want foo", got.guilty)
	}
}

func TestTitles(t *testing.T) {
	tests := []struct {
		name, message, frames, want string
	}{
		{"offsets and addresses go", "Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: foo+0x12/0x34", "", "stack-protector: Kernel stack is corrupted in foo"},
		{"kernel pointers go", "Kernel panic - not syncing: CRED: put_cred_rcu() sees ffff888004b10180 with usage -1", "", "CRED: put_cred_rcu() sees … with usage -1"},
		{"the first line counts", "Kernel panic - not syncing: \nEDAC: [2 Uncorrectable errors @ 0x00000010]\nx", "", "EDAC: [2 Uncorrectable errors @ 0x00000010]"},
		{"a log level in the middle goes", "Kernel panic - not syncing: \x012BTRFS panic (device vda1)", "", "BTRFS panic (device vda1)"},
		{"control characters are shown", "Kernel panic - not syncing: \x1b[31mred", "", `\x1b[31mred`},
		{"a panic without a word", "Kernel panic - not syncing: ", "", "Kernel panic - not syncing"},
		{"an oops without a word", "Internal error:  : 0 [#1]", "", "Internal error: : 0 [#1]"},
		{"a place marker in the message is no place marker", "Kernel panic - not syncing: x{in}y", "RIP: 0010:foo+0x1/0x2\n", "xy"},
		{"the line of a BUG goes, its file stays", "kernel BUG at mm/slub.c:123!", "RIP: 0010:kfree+0x1/0x2\n", "kernel BUG at mm/slub.c in kfree"},
		{"the directory of the build goes", "kernel BUG at /build/linux-6.1/mm/slub.c:123!", "", "kernel BUG at slub.c"},
		{"a jump to nowhere is named after the caller", "BUG: kernel NULL pointer dereference, address: 0000000000000000", "RIP: 0010:0x0\nCall Trace:\n foo+0x1/0x2\n", "kernel NULL pointer dereference on a bad jump from foo"},
		{"long ones are cut", "Kernel panic - not syncing: " + strings.Repeat("long ", 50), "", strings.Repeat("long ", 32) + "…"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rule, at := builtinTable().find([]byte(tt.message))
			if rule == nil {
				t.Fatal("no rule matches")
			}
			tr := readTrace(lines(tt.frames), rule, placeOf(rule, []byte(tt.message), at))
			if got := name(titleOf(rule, []byte(tt.message), at), &tr); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// printOf is the fingerprint of a log whose first line is the headline.
func printOf(t *testing.T, log string) string {
	t.Helper()
	inc := completeIncident(t, log)
	return inc.Fingerprint
}

// completeIncident is what becomes of a log: its one incident.
func completeIncident(t *testing.T, log string) Incident {
	t.Helper()
	var all []Incident
	s := NewSource(&Config{}, netip.AddrPort{})
	emit := func(inc Incident) {
		if inc.Complete {
			all = append(all, inc)
		}
	}
	var reader LogReader
	push := func(r *netconsole.Record) { s.Push(start, r, emit) }
	for line := range strings.Lines(log) {
		reader.Line(strings.TrimSuffix(line, "\n"), push)
	}
	reader.Flush(push)
	s.Flush(start.Add(time.Hour), emit)
	if len(all) != 1 {
		t.Fatalf("%d incidents, want one: %+v\n%s", len(all), all, log)
	}
	return all[0]
}

const faultLine = "BUG: unable to handle page fault for address: ffffc90000123000\n"

func TestEqualBugsHaveEqualFingerprints(t *testing.T) {
	bug := printOf(t, faultLine+"CPU: 1 PID: 170 Comm: insmod Not tainted 6.12.1 #1\nRIP: 0010:foo+0x25/0xff0 [mod]\n"+
		"Call Trace:\n <TASK>\n bar+0x10/0x20 [mod]\n ? guess+0x1/0x2\n baz+0x30/0x40\n </TASK>\n")
	for name, log := range map[string]string{
		"other addresses": "BUG: unable to handle page fault for address: ffffffffc0de0000\nRIP: 0010:foo+0x25/0xff0 [mod]\n" +
			"Call Trace:\n bar+0x10/0x20 [mod]\n baz+0x30/0x40\n",
		"another build": faultLine + "RIP: 0010:foo.isra.0+0x99/0x200 [mod abcdef]\n" +
			"Call Trace:\n bar.constprop.0+0x11/0x22 [mod]\n baz.cold+0x1/0x8\n",
		"another CPU and task": faultLine +
			"CPU: 7 PID: 1 Comm: init Tainted: G           OE      6.12.1 #1\nRIP: 0010:foo+0x25/0xff0 [mod]\nCall Trace:\n bar+0x1/0x2\n baz+0x1/0x2\n",
		"an old kernel": "BUG: unable to handle kernel paging request at ffffc90000123000\nIP: [<ffffffff81000000>] foo+0x25/0xff0\n" +
			"Call Trace:\n [<ffffffff81000000>] bar+0x1/0x2\n [<ffffffff81000000>] baz+0x1/0x2\n",
		"an older kernel's addresses": "BUG: unable to handle kernel paging request at ffffc90000123000\nRIP: e030:[<ffffffff81000000>]  [<ffffffff81000000>] foo+0x25/0xff0\n" +
			"Call Trace:\n [<ffffffff81000000>] ? guess+0x1/0x2\n [<ffffffff81000000>] bar+0x1/0x2\n",
		"arm64": "Unable to handle kernel paging request at virtual address ffff800012345678\npc : foo+0x1/0x2\nlr : x+0x1/0x2\n" +
			"Call trace:\n foo+0x1/0x2 (P)\n bar+0x1/0x2 (L)\n baz+0x1/0x2\n",
		"arm64 without the line of the program counter": "Unable to handle kernel paging request at virtual address ffff800012345678\nlr : x+0x1/0x2\n" +
			"Call trace:\n foo+0x1/0x2 (P)\n bar+0x1/0x2 (L)\n",
		"lost registers and guesses": faultLine + "RIP: 0010:foo+0x25/0xff0 [mod]\n bar+0x10/0x20 [mod]\n baz+0x30/0x40\n",
		"a lost instruction pointer that the summary repeats": faultLine + "Call Trace:\n bar+0x10/0x20 [mod]\n---[ end trace 0000000000000000 ]---\n" +
			"RIP: 0010:foo+0x25/0xff0 [mod]\n",
		"a function without a frame":        faultLine + "RIP: 0010:foo+0x25/0xff0 [mod]\nCall Trace:\n other+0x1/0x2\n baz+0x1/0x2\n",
		"an address that is no pointer":     "general protection fault, probably for non-canonical address 0xdead000000000108: 0000 [#1] SMP\nRIP: 0010:foo+0x25/0xff0 [mod]\nCall Trace:\n bar+0x1/0x2\n",
		"lost callers":                      faultLine + "RIP: 0010:foo+0x25/0xff0 [mod]\nCall Trace:\n bar+0x10/0x20 [mod]\n",
		"frames of calls that never return": faultLine + "RIP: 0010:foo+0x25/0xff0\nCall Trace:\n next_in_memory+0x0/0x20\n bar+0x10/0x20\n",
		"helpers between":                   faultLine + "RIP: 0010:memcpy_erms+0x6/0x10\nCall Trace:\n foo+0x1/0x2\n _raw_spin_lock+0x1/0x2\n bar+0x10/0x20\n",
		"other helpers":                     faultLine + "RIP: 0010:__memcpy+0x6/0x10\nCall Trace:\n foo+0x1/0x2\n kmalloc_trace+0x1/0x2\n bar+0x10/0x20\n",
	} {
		if got := printOf(t, log); got != bug {
			t.Errorf("%s: fingerprint %s, want %s", name, got, bug)
		}
	}
	for name, log := range map[string]string{
		"another function": faultLine + "RIP: 0010:other+0x25/0xff0 [mod]\nCall Trace:\n bar+0x1/0x2\n baz+0x1/0x2\n",
		"another kind":     "BUG: kernel NULL pointer dereference, address: 0000000000000000\nRIP: 0010:foo+0x25/0xff0 [mod]\nCall Trace:\n bar+0x1/0x2\n baz+0x1/0x2\n",
	} {
		if got := printOf(t, log); got == bug {
			t.Errorf("%s: the same fingerprint %s", name, got)
		}
	}
	if a, b := fingerprint("ACause", "title", ""), fingerprint("BCause", "title", ""); a == b {
		t.Errorf("findings of different causes have the same fingerprint %s", a)
	}
}

func TestFingerprintsOfPairs(t *testing.T) {
	const initDied = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x"
	rust := func(file, function string) string {
		return "rust_kernel: panicked at drivers/android/binder/" + file + ":877:13:\nattempt to subtract with overflow\n" +
			"------------[ cut here ]------------\nkernel BUG at rust/helpers/bug.c:7!\nOops: invalid opcode: 0000 [#1] PREEMPT SMP PTI\n" +
			"RIP: 0010:rust_helper_BUG+0x8/0x10\nCall Trace:\n _RNvCscSpY9Juk0HT_7___rustc17rust_begin_unwind+0x15b/0x160\n " +
			"_RNvNtCs9jEwPDbx20M_4core9panicking9panic_fmt+0x84/0x90\n " + function + "+0x1f2/0x400\n"
	}
	lost := func(place string) string {
		return "CPU: 3 UID: 0 PID: 1 Comm: systemd Not tainted 6.12.83 #1\nRIP: 0010:" + place + "+0xb9/0x2e0\nCall Trace:\n" +
			" foo+0x4d/0x150\n bar+0x41c/0xc70\nKernel panic - not syncing: Fatal exception in interrupt\n"
	}
	ubsan := func(path string) string {
		return "UBSAN: array-index-out-of-bounds in " + path + ":194:14\nCall Trace:\n <TASK>\n dump_stack_lvl+0x76/0xa0\n" +
			" __ubsan_handle_out_of_bounds+0xc6/0x110\n longest_prefix_match.isra.0+0x1c9/0x210\n trie_update_elem+0x152/0x300\n"
	}
	warn := func(function string) string {
		return "WARNING: CPU: 1 PID: 9 at fs/x.c:7 " + function + "+0x1/0x2\nRIP: 0010:" + function + "+0x1/0x2\nCall Trace:\n caller+0x1/0x2\n"
	}
	tests := []struct {
		name, a, b string
		same       bool
	}{
		{"init killed by different signals", initDied + "00000004\n", initDied + "0000000b\n", false},
		{"init that fell over and init that gave up", initDied + "0000000b\n", initDied + "00000200\n", false},
		{"init killed by one signal", initDied + "0000000b\nCPU: 1 PID: 1 Comm: init Not tainted 6.1.0 #1\n", initDied + "0000000b\nCPU: 3 PID: 1 Comm: init Not tainted 6.6.0 #1\n", true},
		{"a panic that is named by its text, with and without the function that ends in it", "Kernel panic - not syncing: VFS: cannot go on\nCall trace:\n panic+0x184/0x364\n next_in_memory+0x0/0x560\n caller+0x54/0x100\n", "Kernel panic - not syncing: VFS: cannot go on\nCall Trace:\n panic+0x184/0x364\n guilty+0x45/0x50\n caller+0x54/0x100\n", true},
		{"no root file system on two machines", `Kernel panic - not syncing: VFS: Unable to mount root fs on "UUID=7a3b9e7b" or unknown-block(0,0)` + "\n", "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(259,1)\n", true},
		{"a panic about two devices", "Kernel panic - not syncing: EXT4-fs (device dm-0): panic forced after error\n", "Kernel panic - not syncing: EXT4-fs (device nvme1n1p1): panic forced after error\n", true},
		{"absolute and relative paths", ubsan("/build/linux-Z1RxaK/linux-6.8.0/kernel/bpf/lpm_trie.c"), ubsan("kernel/bpf/lpm_trie.c"), true},
		{"paths from the build's folder", ubsan("./kernel/bpf/lpm_trie.c"), ubsan("kernel/bpf/lpm_trie.c"), true},
		{"different files", ubsan("kernel/bpf/lpm_trie.c"), ubsan("kernel/bpf/hashtab.c"), false},
		{"BUGs of different builds", "kernel BUG at /build/a/mm/slub.c:379!\nRIP: 0010:foo+0x1/0x2\n", "kernel BUG at mm/slub.c:412!\nRIP: 0010:foo+0x1/0x2\n", true},
		{"different panics of Rust", rust("node.rs", "_RNvMs0_NtCs_11rust_binder4node4Node11update_refs"), rust("process.rs", "_RNvMs3_NtCs_11rust_binder7process7Process6insert"), false},
		{"one panic of Rust in two builds", rust("node.rs", "_RNvMs0_NtCs9jEwPDbx20M_11rust_binder4node4Node11update_refs"), rust("node.rs", "_RNvMs0_NtCshgDM7dBCdno_11rust_binder4node4Node11update_refs"), true},
		{"lost headlines of different bugs", lost("is_uprobe_at_func_entry"), lost("update_se"), false},
		{"lost headlines of one bug", lost("update_se"), "[    1.000000] eth0: up\n" + strings.ReplaceAll("\n"+strings.TrimSpace(lost("update_se")), "\n", "\n[    9.000000] ")[1:] + "\n", true},
		{"the entries of a system call on two architectures", warn("__x64_sys_bpf"), warn("__arm64_sys_bpf"), true},
		{"the entries of a system call of two releases", warn("SyS_bpf"), warn("__se_sys_bpf"), true},
		{"different system calls", warn("__x64_sys_bpf"), warn("__x64_sys_read"), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := completeIncident(t, tt.a), completeIncident(t, tt.b)
			if (a.Fingerprint == b.Fingerprint) != tt.same {
				t.Errorf("%s %q and %s %q", a.Fingerprint, a.Title, b.Fingerprint, b.Title)
			}
		})
	}
}
