package detect

import (
	"net/netip"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// rehearsed returns the lines of two deaths about which most expressions have something to say.
func rehearsed() [][]string {
	return [][]string{
		{
			"sysrq: Trigger a crash",
			"Kernel panic - not syncing: sysrq triggered crash",
			"CPU: 1 UID: 0 PID: 4711 Comm: bash Not tainted 6.12.0 #1",
			"Call Trace:", " <TASK>", " dump_stack_lvl+0x5d/0x80", " panic+0x156/0x32a", " sysrq_handle_crash+0x1a/0x20", " </TASK>",
			"---[ end Kernel panic - not syncing: sysrq triggered crash ]---",
		},
		{
			"watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [java:4711]",
			"BUG: kernel NULL pointer dereference, address: 0000000000000008",
			"Oops: 0000 [#1] PREEMPT SMP NOPTI",
			"CPU: 1 UID: 0 PID: 4711 Comm: java Not tainted 6.12.0 #1",
			"RIP: 0010:__list_del_entry_valid+0x1a/0x20",
			"Call Trace:", " <TASK>", " mutex_lock+0x5d/0x80", " ? foo_release+0x1a/0x20 [foo]", " foo_release.isra.0+0x1a/0x20 [foo]",
			" __x64_sys_close+0x3d/0x80", " </TASK>", "---[ end trace 0000000000000000 ]---",
			"Kernel panic - not syncing: Fatal exception",
		},
	}
}

// Rehearse judges made-up deaths, so that the first true one does not wait until the expressions are compiled: that takes 10 ms
// of a processor, and a multiple of it on a busy machine. Call Compile before.
func (c *Config) Rehearse() { c.rehearse(func(Incident) {}) }

func (c *Config) rehearse(emit func(Incident)) {
	now := time.Unix(0, 0)
	for _, lines := range rehearsed() {
		for _, r := range []netconsole.Record{{Extended: true}, {Prefix: -1}} {
			s := NewSource(c, netip.AddrPort{})
			for i, text := range lines {
				r.Seq, r.Uptime, r.Text = uint64(i), time.Duration(i)*time.Millisecond, []byte(text)
				s.Push(now, &r, emit)
			}
			s.Flush(now.Add(time.Hour), emit)
		}
	}
}
