package detect

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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
		want  []string
	}{
		{
			"the instruction pointer comes first", oops,
			"RIP: 0010:foo+0x1/0x2 [mod]\nCall Trace:\n <TASK>\n bar+0x1/0x2 [mod]\n baz+0x1/0x2\n qux+0x1/0x2\n </TASK>\n",
			[]string{"foo", "bar"},
		},
		{
			"frames the unwinder guesses do not count", oops,
			"RIP: 0010:foo+0x1/0x2\nCall Trace:\n ? maybe+0x1/0x2\n bar+0x1/0x2\n ? perhaps+0x1/0x2 [mod]\n",
			[]string{"foo", "bar"},
		},
		{
			"what the compiler appends does not count", oops,
			"RIP: 0010:foo.isra.0.cold+0x1/0x2\nCall Trace:\n bar.constprop.0+0x1/0x2\n",
			[]string{"foo", "bar"},
		},
		{
			"the hash of a BPF program does not count", oops,
			"RIP: 0010:bpf_prog_6deef7357e7b4530_sd_fw_ingress+0x1/0x2\nCall Trace:\n foo+0x1/0x2\n",
			[]string{"bpf_prog_sd_fw_ingress", "foo"},
		},
		{
			"the address of a frame, its build id and its notes do not count", oops,
			"Call trace:\n panic+0x1/0x2 (P)\n [<ffffffff81000000>] foo+0x1/0x2 [mod 4f2a9c]\n baz+0x1/0x2 [mod] (PC)\n",
			[]string{"foo", "baz"},
		},
		{
			"the reporting machinery names nothing", direct,
			"Call Trace:\n <TASK>\n dump_stack_lvl+0x44/0x5c\n panic+0x118/0x2f4\n sysrq_handle_crash+0x16/0x20\n __handle_sysrq.cold+0x44/0x11c\n </TASK>\n",
			[]string{"sysrq_handle_crash", "__handle_sysrq"},
		},
		{
			"the code that a panicking interrupt had interrupted is beside the point", direct,
			"Call Trace:\n <IRQ>\n panic+0x118/0x2f4\n my_irq_handler+0x1/0x2\n </IRQ>\n <TASK>\n asm_common_interrupt+0x1/0x2\nRIP: 0010:default_idle+0x1/0x2\n",
			[]string{"my_irq_handler"},
		},
		{
			"but it is what a stall is about", stall,
			"Call Trace:\n <IRQ>\n rcu_dump_cpu_stacks+0x1/0x2\n rcu_sched_clock_irq+0x1/0x2\n </IRQ>\n <TASK>\n asm_sysvec_apic_timer_interrupt+0x1/0x2\nRIP: 0010:busy+0x1/0x2\n caller+0x1/0x2\n",
			[]string{"busy", "caller"},
		},
		{
			"whoever waits is named, not what it waits in", hung,
			"Call Trace:\n <TASK>\n __schedule+0x1/0x2\n schedule+0x1/0x2\n io_schedule+0x1/0x2\n folio_wait_bit_common+0x1/0x2\n ext4_writepages+0x1/0x2\n </TASK>\n",
			[]string{"ext4_writepages"},
		},
		{
			"whoever hands a bad pointer to the library", oops,
			"RIP: 0010:memcpy_erms+0x6/0x10\nCall Trace:\n <TASK>\n __x86_indirect_thunk_rax+0x1/0x2\n foo+0x1/0x2\n </TASK>\n",
			[]string{"foo"},
		},
		{
			"the library, if its caller is lost", oops,
			"RIP: 0010:memcpy_erms+0x6/0x10\nCode: 90\n",
			[]string{"memcpy_erms"},
		},
		{
			"a lock that is spun on is not to blame", stall,
			"RIP: 0010:native_queued_spin_lock_slowpath+0x13c/0x1c0\nCall Trace:\n _raw_spin_lock_irqsave+0x25/0x30\n try_charge_memcg+0x1a1/0x620\n",
			[]string{"try_charge_memcg"},
		},
		{
			"userspace has no part in it", direct,
			"Call Trace:\n foo+0x1/0x2\nRIP: 0033:0x4b0642\n",
			[]string{"foo"},
		},
		{
			"arm64 calls it pc and repeats it in the trace", oops,
			"pc : foo+0x1/0x2 [mod]\nlr : other+0x1/0x2 [mod]\nCall trace:\n foo+0x1/0x2 [mod]\n bar+0x1/0x2\n",
			[]string{"foo", "bar"},
		},
		{
			"the summary of an oops makes good for a lost line", oops,
			"Call Trace:\n bar+0x1/0x2\n---[ end trace 0000000000000000 ]---\nRIP: 0010:foo+0x1/0x2\n",
			[]string{"foo", "bar"},
		},
		{
			"a second backtrace is another story", oops,
			"RIP: 0010:foo+0x1/0x2\nCall Trace:\n bar+0x1/0x2\n </TASK>\nCall Trace:\n baz+0x1/0x2\n",
			[]string{"foo", "bar"},
		},
		{"no backtrace", oops, "Modules linked in: foo+0x1/0x2 bar\nCode: 00\n", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := readTrace(lines(tt.lines), tt.rule, "")
			if diff := cmp.Diff(tt.want, got.frames); diff != "" {
				t.Errorf("frames (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOnlyLinesOfTheKernelAreReadForFrames(t *testing.T) {
	l := lines("RIP: 0010:forged+0x1/0x2\nCall Trace:\n foo+0x1/0x2\n")
	l[0].kernel = false
	got := readTrace(l, &Rule{Verdict: Oops}, "")
	if diff := cmp.Diff([]string{"foo"}, got.frames); diff != "" {
		t.Errorf("frames (-want +got):\n%s", diff)
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

func TestEqualBugsHaveEqualFingerprints(t *testing.T) {
	print := func(log string) string {
		t.Helper()
		all := lines(log)
		rule, at := builtinTable().find([]byte(all[0].text))
		if rule == nil {
			t.Fatalf("no rule matches %q", all[0].text)
		}
		tr := readTrace(all[1:], rule, placeOf(rule, []byte(all[0].text), at))
		return fingerprint(rule.Cause, titleOf(rule, []byte(all[0].text), at), &tr)
	}
	bug := print("BUG: unable to handle page fault for address: ffffc90000123000\n" +
		"CPU: 1 PID: 170 Comm: insmod Not tainted 6.12.1 #1\nRIP: 0010:foo+0x25/0xff0 [mod]\n" +
		"Call Trace:\n <TASK>\n bar+0x10/0x20 [mod]\n ? guess+0x1/0x2\n baz+0x30/0x40\n </TASK>\n")
	equal := map[string]string{
		"other addresses": "BUG: unable to handle page fault for address: ffffffffc0de0000\nRIP: 0010:foo+0x25/0xff0 [mod]\n" +
			"Call Trace:\n bar+0x10/0x20 [mod]\n baz+0x30/0x40\n",
		"another build": "BUG: unable to handle page fault for address: ffffc90000123000\nRIP: 0010:foo.isra.0+0x99/0x200 [mod abcdef]\n" +
			"Call Trace:\n bar.constprop.0+0x11/0x22 [mod]\n baz.cold+0x0/0x8\n",
		"another CPU and task": "BUG: unable to handle page fault for address: ffffc90000123000\n" +
			"CPU: 7 PID: 1 Comm: init Tainted: G           OE      6.12.1 #1\nRIP: 0010:foo+0x25/0xff0 [mod]\nCall Trace:\n bar+0x1/0x2\n baz+0x1/0x2\n",
		"an old kernel": "BUG: unable to handle kernel paging request at ffffc90000123000\nRIP: 0010:foo+0x25/0xff0 [mod]\n" +
			"Call Trace:\n bar+0x1/0x2\n baz+0x1/0x2\n",
		"arm64": "Unable to handle kernel paging request at virtual address ffff800012345678\npc : foo+0x1/0x2\nlr : x+0x1/0x2\n" +
			"Call trace:\n foo+0x1/0x2\n bar+0x1/0x2\n baz+0x1/0x2\n",
		"lost registers and guesses": "BUG: unable to handle page fault for address: ffffc90000123000\nRIP: 0010:foo+0x25/0xff0 [mod]\n" +
			" bar+0x10/0x20 [mod]\n baz+0x30/0x40\n",
	}
	for name, log := range equal {
		if got := print(log); got != bug {
			t.Errorf("%s: fingerprint %s, want %s", name, got, bug)
		}
	}
	for name, log := range map[string]string{
		"another function": "BUG: unable to handle page fault for address: ffffc90000123000\nRIP: 0010:other+0x25/0xff0 [mod]\nCall Trace:\n bar+0x1/0x2\n baz+0x1/0x2\n",
		"another caller":   "BUG: unable to handle page fault for address: ffffc90000123000\nRIP: 0010:foo+0x25/0xff0 [mod]\nCall Trace:\n other+0x1/0x2\n baz+0x1/0x2\n",
		"another kind":     "BUG: kernel NULL pointer dereference, address: 0000000000000000\nRIP: 0010:foo+0x25/0xff0 [mod]\nCall Trace:\n bar+0x1/0x2\n baz+0x1/0x2\n",
	} {
		if got := print(log); got == bug {
			t.Errorf("%s: the same fingerprint %s", name, got)
		}
	}
	if a, b := fingerprint("ACause", "title", &trace{}), fingerprint("BCause", "title", &trace{}); a == b {
		t.Errorf("findings of different causes have the same fingerprint %s", a)
	}
	if a, b := print("Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009\n"), print("Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\n"); a != b {
		t.Errorf("fingerprints %s and %s differ by a number", a, b)
	}
}
