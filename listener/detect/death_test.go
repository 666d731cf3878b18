package detect

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// completed are the complete incidents of a log, as "verdict cause: title".
func completed(log string) []string {
	var all []string
	for _, inc := range completeIncidents(log) {
		all = append(all, fmt.Sprintf("%s %s: %s", inc.Verdict, inc.Cause, inc.Title))
	}
	return all
}

// completeIncidents are the complete incidents of a log, whose time passes as its stamps say.
func completeIncidents(log string) []Incident {
	var all []Incident
	s := NewSource(&Config{}, netip.AddrPort{})
	now := start
	emit := func(inc Incident) {
		if inc.Complete {
			all = append(all, inc)
		}
	}
	var reader LogReader
	push := func(r *netconsole.Record) {
		if r.Uptime >= 0 {
			now = start.Add(r.Uptime)
		}
		s.Push(now, r, emit)
	}
	for line := range strings.Lines(log) {
		reader.Line(strings.TrimSuffix(line, "\n"), push)
	}
	reader.Flush(push)
	s.Flush(now.Add(time.Hour), emit)
	return all
}

// What one kernel says in one breath is one incident, and the better name wins.
func TestOneDeathIsOneIncident(t *testing.T) {
	const (
		oops    = oopsLine + "\nCPU: 1 PID: 42 Comm: java Not tainted 6.1.0 #1\nRIP: 0010:foo+0x1/0x2\nCall Trace:\n <TASK>\n bar+0x1/0x2\n </TASK>\n---[ end trace 0 ]---\n"
		warning = "WARNING: CPU: 0 PID: 9 at x.c:1 baz+0x1/0x2\nCall Trace:\n baz+0x1/0x2\n </TASK>\n"
		stall   = "rcu: INFO: rcu_sched self-detected stall on CPU\nRIP: 0010:foo+0x1/0x2\n"
	)
	tests := []struct {
		name, log string
		want      string
	}{
		{"oops, then its panic", oops + fatalLine, "dying KernelPanic: kernel NULL pointer dereference in foo"},
		{"oops, then a warning with panic_on_warn", oops + warning + "Kernel panic - not syncing: kernel: panic_on_warn set ...", "dying KernelPanic: kernel NULL pointer dereference in foo"},
		{"oops, then a lockup panic", oops + "Kernel panic - not syncing: softlockup: hung tasks", "dying KernelPanic: kernel NULL pointer dereference in foo"},
		{"oops, then a hard lockup panic", oops + "Kernel panic - not syncing: Hard LOCKUP", "dying KernelPanic: kernel NULL pointer dereference in foo"},
		{"oops, then init dies of it", oops + "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009", "dying KernelPanic: kernel NULL pointer dereference in foo"},
		{"lockup, then its panic", lockup + "\nRIP: 0010:foo+0x1/0x2\nKernel panic - not syncing: softlockup: hung tasks", "dying KernelPanic: soft lockup in foo"},
		{"RCU stall, then a lockup panic", stall + "Kernel panic - not syncing: softlockup: hung tasks", "dying KernelPanic: RCU stall in foo"},
		{"RCU stall, then its panic", stall + "Kernel panic - not syncing: RCU Stall", "dying KernelPanic: RCU stall in foo"},
		{"warning, then its panic", warning + "Kernel panic - not syncing: panic_on_warn set ...", "dying KernelPanic: WARNING in baz"},
		{"a warning whose message comes behind it", "WARNING: CPU: 1 PID: 46 at lib/refcount.c:28 refcount_warn_saturate+0x13c/0x174\nrefcount_t: underflow; use-after-free.\nCall trace:\n refcount_warn_saturate+0x13c/0x174\n foo+0x1/0x2\n", "sick MemoryCorruption: refcount_t: underflow; use-after-free in foo"},
		{"KASAN, then a panic about the stack", "BUG: KASAN: out-of-bounds in foo+0x1/0x2\nKernel panic - not syncing: corrupted stack end detected inside scheduler\n", "dying KernelPanic: KASAN: out-of-bounds in foo"},
		{
			"two CPUs at once, told apart by their tasks",
			"[    1.000000][   T42] general protection fault: 0000 [#1] SMP\n[    1.000001][   T43] WARNING: CPU: 1 PID: 43 at lib/x.c:28 other+0x87/0x200\n" +
				"[    1.000002][   T43] RIP: 0010:other+0x1/0x2\n[    1.000003][   T42] CPU: 0 PID: 42 Comm: java Not tainted 6.1.90 #26\n[    1.000004][   T43] Call Trace:\n" +
				"[    1.000005][   T43]  other_caller+0x1/0x2\n[    1.000006][   T42] RIP: 0010:foo+0x8e/0x200\n[    1.000007][   T42] Call Trace:\n[    1.000008][   T42]  bar+0x1/0x2\n" +
				"[    1.000009][   T43] Kernel panic - not syncing: kernel: panic_on_warn set ...\n",
			"dying KernelPanic: general protection fault in foo",
		},
		{
			"another CPU's frames in front of the backtrace",
			"WARNING: CPU: 0 PID: 9 at x.c:1 baz+0x1/0x2\n other+0x1/0x2\n other_caller+0x1/0x2\nKernel panic - not syncing: panic_on_warn set ...\nCall Trace:\n dump_stack+0x1/0x2\n panic+0x1/0x2\n baz+0x1/0x2\n",
			"dying KernelPanic: WARNING in baz",
		},
		{
			"registers inside of a backtrace",
			"refcount_t: underflow; use-after-free.\nWARNING: CPU: 0 PID: 4270 at lib/refcount.c:28 refcount_warn_saturate+0x1d1/0x1e0\nKernel panic - not syncing: panic_on_warn set ...\n" +
				"CPU: 0 PID: 4270 Comm: kworker/0:12 Not tainted 5.6.0-rc6+ #153\nCall Trace:\n dump_stack+0xef/0x16e\n panic+0x2aa/0x6e1\n __warn.cold+0x2f/0x30\n invalid_op+0x23/0x30\n" +
				"RIP: 0010:refcount_warn_saturate+0x1d1/0x1e0\nCode: e9 db <0f> 0b\nRSP: 0018:ffff88806732f8d0 EFLAGS: 00010282\n kobject_put+0x313/0x3d0\n foo+0xa9/0x109\n",
			"dying KernelPanic: refcount_t: underflow; use-after-free in foo",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff([]string{tt.want}, completed(tt.log)); diff != "" {
				t.Errorf("incidents (-want +got):\n%s", diff)
			}
		})
	}
}

// A death that an oops led to later, or on a slow console, has the oops's name and fingerprint.
func TestADeathThatFollowsAnOops(t *testing.T) {
	for name, oops := range map[string]string{
		"on amd64": oopsLine + "\n#PF: supervisor read access in kernel mode\nOops: 0000 [#1] SMP\nCPU: 1 PID: 42 Comm: java Not tainted 6.1.0 #1\nRIP: 0010:foo+0x1/0x2\nCall Trace:\n bar+0x1/0x2\n",
		"on arm64": "Unable to handle kernel paging request at virtual address ffff800012345678\nMem abort info:\n" + strings.Repeat("  EC\n", 20) +
			"Internal error: Oops: 96000004 [#1] SMP\nCPU: 1 PID: 42 Comm: java Not tainted 6.1.0 #1\npc : foo+0x1/0x2\nlr : x+0x1/0x2\n",
		"that is a BUG": "kernel BUG at mm/slub.c:379!\nOops: invalid opcode: 0000 [#1] SMP\nCPU: 1 PID: 42 Comm: java Not tainted 6.1.0 #1\nRIP: 0010:foo+0x1/0x2\n",
	} {
		log := "[   10.000000] " + strings.ReplaceAll(strings.TrimSpace(oops), "\n", "\n[   10.000000] ")
		all := completeIncidents(log + "\n[   15.000000] ---[ end trace 0 ]---\n[   15.000000] " + fatalLine + "\n")
		if len(all) != 2 || all[0].Verdict != Oops || all[1].Verdict != Dying || all[0].Title != all[1].Title || all[0].Fingerprint != all[1].Fingerprint {
			t.Errorf("%s: %+v, want an oops and a death with its name and fingerprint", name, all)
		}
	}
}

func TestALostHeadline(t *testing.T) {
	const (
		cpu   = "CPU: 18 PID: 234918 Comm: conn48291 Not tainted 6.6.58 #1\n"
		rip   = "RIP: 0010:foo+0x28/0x80\n"
		stack = "Call Trace:\n <TASK>\n bar+0x20a/0x360\n </TASK>\n"
		end   = "---[ end trace 0000000000000000 ]---\n"
		found = "dying KernelPanic: oops in foo"
	)
	tests := []struct {
		name, log string
		want      []string
	}{
		{"the rest names the death", cpu + rip + stack + end + fatalLine, []string{found}},
		{"without the CPU", rip + stack + end + fatalLine, []string{found}},
		{"by the summary alone", end + rip + fatalLine, []string{found}},
		{"on arm64", cpu + "pc : foo+0x1/0x2\nlr : x+0x1/0x2\nCall trace:\n foo+0x1/0x2\n" + fatalLine, []string{found}},
		{"before 4.10", cpu + "RIP: e030:[<ffffffff81014dc3>]  [<ffffffff81014dc3>] foo+0x63/0x80\n" + fatalLine, []string{found}},
		{"of init", cpu + rip + stack + "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\n", []string{found}},
		{"the panic's own line was lost, too", cpu + rip + stack + "---[ end Kernel panic - not syncing: Fatal exception ]---\n", []string{found}},
		{"an older trace is another story", cpu + rip + stack + end + cpu + "RIP: 0010:later+0x1/0x2\n" + end + fatalLine, []string{"dying KernelPanic: oops in later"}},
		{"a warning's trace is the warning's", "WARNING: something of a module's own\n" + rip + stack + end + fatalLine, []string{"dying KernelPanic: Fatal exception"}},
		{"nothing arrived", fatalLine, []string{"dying KernelPanic: Fatal exception"}},
		{"a panic with a name of its own keeps it", cpu + rip + stack + panicLine, []string{"dying KernelPanic: sysrq triggered crash"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, completed(tt.log)); diff != "" {
				t.Errorf("incidents (-want +got):\n%s", diff)
			}
		})
	}
}
