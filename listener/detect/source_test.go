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

// A rig feeds a Source and notes what it emits, as "+seconds verdict title", with "…" behind what is not complete.
type rig struct {
	source    *Source
	now       time.Time
	seq       uint64
	incidents []Incident
	emitted   []string
}

var start = time.Date(2025, 11, 21, 21, 44, 0, 0, time.UTC)

func newRig(cfg *Config) *rig {
	return &rig{source: NewSource(cfg, netip.MustParseAddrPort("10.0.1.5:6665")), now: start, seq: 400}
}

func (g *rig) emit(inc Incident) {
	g.incidents = append(g.incidents, inc)
	more := ""
	if !inc.Complete {
		more = " …"
	}
	g.emitted = append(g.emitted, fmt.Sprintf("+%v %s %s%s", g.now.Sub(start), inc.Verdict, inc.Title, more))
}

// wait lets time pass the way a caller does: Flush is called at each deadline.
func (g *rig) wait(d time.Duration) {
	end := g.now.Add(d)
	for {
		due := g.source.Deadline()
		if due.IsZero() || due.After(end) {
			break
		}
		g.now = due
		g.source.Flush(g.now, g.emit)
	}
	g.now = end
}

// record is a record of the kernel itself at this moment, 100 s after boot at the start.
func (g *rig) record(text string) netconsole.Record {
	g.seq++
	return netconsole.Record{
		Extended: true, Prefix: 0, Seq: g.seq, Uptime: 100*time.Second + g.now.Sub(start), Text: []byte(text),
		Fields: identity("boot-1", "secret-1"),
	}
}

func identity(boot, gasp string) []netconsole.Field {
	fields := []netconsole.Field{{Key: "instance", Value: "i-1"}, {Key: "boot", Value: boot}}
	if gasp != "" {
		fields = append(fields, netconsole.Field{Key: "gasp", Value: gasp})
	}
	return fields
}

// say pushes records of the kernel, a millisecond apart.
func (g *rig) say(texts ...string) {
	for _, text := range texts {
		g.push(g.record(text))
		g.now = g.now.Add(time.Millisecond)
	}
}

func (g *rig) push(r netconsole.Record) { g.source.Push(g.now, &r, g.emit) }

// basic is a record in the basic format, or a line of a log.
func (g *rig) basic(uptime time.Duration, text string) {
	g.push(netconsole.Record{Prefix: -1, Uptime: uptime, Text: []byte(text)})
}

const (
	panicLine = "Kernel panic - not syncing: sysrq triggered crash"
	panicEnd  = "---[ end Kernel panic - not syncing: sysrq triggered crash ]---"
	oopsLine  = "BUG: kernel NULL pointer dereference, address: 0000000000000000"
	oopsRIP   = "RIP: 0010:store+0x5/0x10 [lastgasp_crash]"
	fatalLine = "Kernel panic - not syncing: Fatal exception"
	lockup    = "watchdog: BUG: soft lockup - CPU#3 stuck for 26s! [kworker/3:1:71]"
)

func TestWhatIsEmittedWhen(t *testing.T) {
	tests := []struct {
		name string
		cfg  Config
		run  func(*rig)
		want []string
	}{
		{
			"a panic is emitted at once, and once more when the kernel is silent",
			Config{},
			func(g *rig) { g.say(panicLine, "Call Trace:", " sysrq_handle_crash+0x16/0x20"); g.wait(time.Minute) },
			[]string{"+0s dying sysrq triggered crash …", "+2.002s dying sysrq triggered crash"},
		},
		{
			"the second printing ends the incident when late fragments have had their time",
			Config{},
			func(g *rig) { g.say(panicLine, "Call Trace:", panicEnd, "a straggler"); g.wait(time.Minute) },
			[]string{"+0s dying sysrq triggered crash …", "+1.002s dying sysrq triggered crash"},
		},
		{
			"a panic whose first line was lost is known by its second printing",
			Config{},
			func(g *rig) { g.say("Call Trace:", panicEnd); g.wait(time.Minute) },
			[]string{"+1ms dying sysrq triggered crash …", "+1.001s dying sysrq triggered crash"},
		},
		{
			"a panic of which only a notifier was heard has no better name",
			Config{},
			func(g *rig) { g.say("Kernel Offset: disabled"); g.wait(time.Minute) },
			[]string{"+0s dying kernel panic …", "+2s dying kernel panic"},
		},
		{
			"the name comes late if the line with it was overtaken",
			Config{},
			func(g *rig) { g.say("Kernel Offset: disabled", panicLine); g.wait(time.Minute) },
			[]string{"+0s dying kernel panic …", "+2.001s dying sysrq triggered crash"},
		},
		{
			"an oops that is survived",
			Config{},
			func(g *rig) { g.say(oopsLine, "Oops: Oops: 0002 [#1] SMP NOPTI", oopsRIP); g.wait(time.Minute) },
			[]string{"+0s oops kernel NULL pointer dereference …", "+2.002s oops kernel NULL pointer dereference in store"},
		},
		{
			"an oops that leads to a panic names it",
			Config{},
			func(g *rig) { g.say(oopsLine, oopsRIP, fatalLine); g.wait(time.Minute) },
			[]string{
				"+0s oops kernel NULL pointer dereference …",
				"+2ms dying kernel NULL pointer dereference in store …",
				"+2.002s dying kernel NULL pointer dereference in store",
			},
		},
		{
			"an oops is a death notice where the canary said panic_on_oops",
			Config{},
			func(g *rig) { g.source.SetFatal(true, false); g.say(oopsLine, oopsRIP, fatalLine); g.wait(time.Minute) },
			[]string{
				"+0s dying kernel NULL pointer dereference …",
				"+2.002s dying kernel NULL pointer dereference in store",
			},
		},
		{
			"a crash kernel takes over from an oops of the idle task",
			Config{},
			func(g *rig) {
				g.source.SetFatal(false, true)
				g.say(oopsLine, "CPU: 0 UID: 0 PID: 0 Comm: swapper/0 Not tainted 6.12.1 #1", oopsRIP)
				g.wait(time.Minute)
			},
			[]string{
				"+0s oops kernel NULL pointer dereference …",
				"+1ms dying kernel NULL pointer dereference …",
				"+2.002s dying kernel NULL pointer dereference in store",
			},
		},
		{
			"a crash kernel does not take over from an oops of a process",
			Config{},
			func(g *rig) {
				g.source.SetFatal(false, true)
				g.say(oopsLine, "CPU: 0 UID: 0 PID: 4711 Comm: java Not tainted 6.12.1 #1", oopsRIP)
				g.wait(time.Minute)
			},
			[]string{"+0s oops kernel NULL pointer dereference …", "+2.002s oops kernel NULL pointer dereference in store"},
		},
		{
			"a stall is printed in bursts that are seconds apart",
			Config{},
			func(g *rig) {
				g.say("rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:")
				g.wait(5 * time.Second)
				g.say("Sending NMI from CPU 0 to CPUs 1:", "NMI backtrace for cpu 1", oopsRIP)
				g.wait(time.Minute)
			},
			[]string{"+10s sick RCU stall in store"},
		},
		{
			"a sick finding is reported when it is over",
			Config{},
			func(g *rig) { g.say(lockup, oopsRIP); g.wait(time.Minute) },
			[]string{"+6.001s sick soft lockup in store"},
		},
		{
			"a sick report does not wait for a kernel that never falls silent",
			Config{},
			func(g *rig) {
				g.say(lockup)
				for range 12 {
					g.wait(time.Second)
					g.say("and another line")
				}
			},
			[]string{"+10s sick soft lockup"},
		},
		{
			"the same sick finding is reported once in ten minutes",
			Config{},
			func(g *rig) {
				for range 70 {
					g.say("unregister_netdevice: waiting for lo to become free. Usage count = 2")
					g.wait(10 * time.Second)
				}
			},
			[]string{
				"+2s sick network device reference leaked (unregister_netdevice)",
				"+10m2.06s sick network device reference leaked (unregister_netdevice)",
			},
		},
		{
			"a source that finds something new all the time is reported 16 times in ten minutes",
			Config{},
			func(g *rig) {
				for i := range 100 {
					g.say(fmt.Sprintf("WARNING: CPU: 0 PID: 1 at x.c:1 f%d+0x1/0x2", i))
					g.wait(3 * time.Second)
				}
				g.emitted = []string{fmt.Sprint(len(g.emitted), " incidents")}
			},
			[]string{"16 incidents"},
		},
		{
			"a finding that is not reported again still names the panic it leads to",
			Config{},
			func(g *rig) {
				g.say(lockup, oopsRIP)
				g.wait(time.Minute)
				g.say(lockup, oopsRIP, "Kernel panic - not syncing: softlockup: hung tasks")
				g.wait(time.Minute)
			},
			[]string{
				"+6.001s sick soft lockup in store",
				"+1m0.004s dying soft lockup in store …",
				"+1m6.004s dying soft lockup in store",
			},
		},
		{
			"a panic that has nothing to do with the report before it has its own name",
			Config{},
			func(g *rig) { g.say(lockup, panicLine); g.wait(time.Minute) },
			[]string{"+1ms dying sysrq triggered crash …", "+2.001s dying sysrq triggered crash"},
		},
		{
			"a consequence without its cause has the name of the consequence",
			Config{},
			func(g *rig) { g.say(lockup, fatalLine); g.wait(time.Minute) },
			[]string{"+1ms dying Fatal exception …", "+2.001s dying Fatal exception"},
		},
		{
			"a finding that is one message does not cut another's backtrace",
			Config{},
			func(g *rig) {
				g.say("INFO: task java:6102 blocked for more than 120 seconds.", "Call Trace:", " schedule+0x9c/0x1b0",
					"unregister_netdevice: waiting for lo to become free. Usage count = 6", " mutex_lock_nested+0x3b0/0x1130", " copy_net_ns+0xcc/0x220")
				g.wait(time.Minute)
			},
			[]string{
				"+3ms sick network device reference leaked (unregister_netdevice)",
				"+2.005s sick task hung in copy_net_ns",
			},
		},
		{
			"two different findings at a time are both reported",
			Config{},
			func(g *rig) { g.say(lockup, "rcu: INFO: rcu_sched self-detected stall on CPU"); g.wait(time.Minute) },
			[]string{"+1ms sick soft lockup", "+6.001s sick RCU stall"},
		},
		{
			"what is known already does not end a report",
			Config{},
			func(g *rig) {
				g.say(lockup)
				g.wait(time.Minute)
				g.say("rcu: INFO: rcu_sched self-detected stall on CPU", lockup, oopsRIP)
				g.wait(time.Minute)
			},
			[]string{"+6s sick soft lockup", "+1m6.003s sick RCU stall in store"},
		},
		{
			"an older trace does not name a later report",
			Config{},
			func(g *rig) { g.say(oopsRIP, " older+0x1/0x2"); g.say(lockup); g.wait(time.Minute) },
			[]string{"+6.002s sick soft lockup"},
		},
		{
			"a warning is called by the message that heads it",
			Config{},
			func(g *rig) {
				g.say("refcount_t: underflow; use-after-free.",
					"WARNING: CPU: 1 PID: 9 at lib/refcount.c:28 refcount_warn_saturate+0xba/0x110",
					"RIP: 0010:refcount_warn_saturate+0xba/0x110", "Call Trace:", " sctp_association_put+0x6a/0x80 [sctp]")
				g.wait(time.Minute)
			},
			[]string{"+2.004s sick refcount_t: underflow; use-after-free in sctp_association_put"},
		},
		{
			"a BUG is called by the message that heads it, even where it kills",
			Config{},
			func(g *rig) {
				g.source.SetFatal(true, false)
				g.say("list_del corruption. prev->next should be ffff9a3d04f1c508, but was dead000000000100",
					"------------[ cut here ]------------", "kernel BUG at lib/list_debug.c:51!",
					"invalid opcode: 0000 [#1] SMP PTI", "RIP: 0010:__list_del_entry_valid.cold+0xf/0x6f",
					"Call Trace:", " css_task_iter_advance+0x4a/0xe0", fatalLine)
				g.wait(time.Minute)
			},
			[]string{"+2ms dying list_del corruption …", "+2.007s dying list_del corruption in css_task_iter_advance"},
		},
		{
			"nothing that userspace writes to /dev/kmsg is judged",
			Config{},
			func(g *rig) {
				for _, prefix := range []int{8, 12, 14, 30} {
					r := g.record(panicLine)
					r.Prefix = prefix
					g.push(r)
				}
				g.wait(time.Minute)
			},
			nil,
		},
		{
			"nothing behind a newline inside a message is judged",
			Config{},
			func(g *rig) { g.say("overlayfs: unrecognized mount option \"x\n" + panicLine); g.wait(time.Minute) },
			nil,
		},
		{
			"the middle of a line is not its beginning",
			Config{},
			func(g *rig) {
				r := g.record(panicLine)
				r.Cont = true
				g.push(r)
				g.wait(time.Minute)
			},
			nil,
		},
		{
			"in a log with time stamps a line without one is not the kernel's",
			Config{},
			func(g *rig) {
				g.basic(time.Second, "eth0: link becomes ready")
				g.basic(-1, panicLine)
				g.wait(time.Minute)
			},
			nil,
		},
		{
			"unless time stamps have been turned off",
			Config{},
			func(g *rig) {
				g.basic(time.Second, "eth0: link becomes ready")
				for range maxBare {
					g.basic(-1, "eth0: link becomes ready")
				}
				g.basic(-1, panicLine)
				g.wait(time.Minute)
			},
			[]string{"+0s dying sysrq triggered crash …", "+2s dying sysrq triggered crash"},
		},
		{
			"records of a panic after it was complete are the same panic",
			Config{},
			func(g *rig) {
				g.say(panicLine)
				g.wait(10 * time.Second)
				g.say(panicEnd, oopsLine)
				g.wait(time.Minute)
			},
			[]string{"+0s dying sysrq triggered crash …", "+2s dying sysrq triggered crash"},
		},
		{
			"a boot that proved itself by its secret dies once",
			Config{},
			func(g *rig) { g.say(panicLine); g.wait(time.Hour); g.say(panicLine); g.wait(time.Hour) },
			[]string{"+0s dying sysrq triggered crash …", "+2s dying sysrq triggered crash"},
		},
		{
			"the next boot dies for itself",
			Config{},
			func(g *rig) {
				g.say(panicLine)
				g.wait(time.Minute)
				r := g.record(panicLine)
				r.Fields = identity("boot-2", "secret-2")
				g.push(r)
				g.wait(time.Minute)
			},
			[]string{
				"+0s dying sysrq triggered crash …", "+2s dying sysrq triggered crash",
				"+1m0.001s dying sysrq triggered crash …", "+1m2.001s dying sysrq triggered crash",
			},
		},
		{
			"without a boot id the next boot is known by its clock",
			Config{},
			func(g *rig) {
				r := g.record(panicLine)
				r.Fields = nil
				g.push(r)
				g.wait(20 * time.Second)
				r = g.record(panicLine)
				r.Fields, r.Seq, r.Uptime = nil, 350, 9*time.Second
				g.push(r)
				g.wait(time.Minute)
			},
			[]string{
				"+0s dying sysrq triggered crash …", "+2s dying sysrq triggered crash",
				"+20s dying sysrq triggered crash …", "+22s dying sysrq triggered crash",
			},
		},
		{
			"even if it died and spoke again at about the same age",
			Config{},
			func(g *rig) {
				for _, uptime := range []time.Duration{4 * time.Second, 3500 * time.Millisecond} {
					r := g.record(panicLine)
					r.Fields, r.Uptime = nil, uptime
					r.Seq = uint64(uptime)
					g.push(r)
					g.wait(10 * time.Second)
				}
			},
			[]string{
				"+0s dying sysrq triggered crash …", "+2s dying sysrq triggered crash",
				"+10s dying sysrq triggered crash …", "+12s dying sysrq triggered crash",
			},
		},
		{
			"a log whose clock starts again is of the next boot, though no time has passed",
			Config{},
			func(g *rig) {
				g.basic(100*time.Second, panicLine)
				g.basic(3*time.Second, panicLine)
				g.wait(time.Minute)
			},
			[]string{
				"+0s dying sysrq triggered crash …", "+0s dying sysrq triggered crash",
				"+0s dying sysrq triggered crash …", "+2s dying sysrq triggered crash",
			},
		},
		{
			"a log without uptimes goes on with the next boot",
			Config{},
			func(g *rig) {
				for range 2 {
					g.basic(-1, "Linux version 6.12.1 (x) #1")
					g.basic(-1, panicLine)
				}
				g.wait(time.Minute)
			},
			[]string{
				"+0s dying sysrq triggered crash …", "+0s dying sysrq triggered crash",
				"+0s dying sysrq triggered crash …", "+2s dying sysrq triggered crash",
			},
		},
		{
			"only a death that proves more is reported after a death",
			Config{},
			func(g *rig) {
				g.say("eth0: link becomes ready")
				r := g.record(panicLine)
				r.Fields, r.Missing = nil, 7
				g.push(r)
				g.wait(10 * time.Second)
				g.say(lockup)
				g.wait(10 * time.Second)
				g.say(panicLine)
				g.wait(10 * time.Second)
				g.say(panicLine)
				g.wait(10 * time.Second)
			},
			[]string{
				"+1ms dying sysrq triggered crash …", "+2.001s dying sysrq triggered crash",
				"+16.001s sick soft lockup",
				"+20.002s dying sysrq triggered crash …", "+22.002s dying sysrq triggered crash",
			},
		},
		{
			"a record that arrives late is not of another boot",
			Config{},
			func(g *rig) {
				old := g.record("a record that waited for its fragments")
				old.Fields = nil
				for range 10 {
					r := g.record("eth0: link becomes ready")
					r.Fields = nil
					g.push(r)
					g.wait(100 * time.Millisecond)
				}
				r := g.record(panicLine)
				r.Fields = nil
				g.push(r)
				g.push(old)
				r = g.record(panicEnd)
				r.Fields = nil
				g.push(r)
				g.wait(30 * time.Second)
			},
			[]string{"+1s dying sysrq triggered crash …", "+2s dying sysrq triggered crash"},
		},
		{
			"a log that is printed once more in a panic is not another boot",
			Config{},
			func(g *rig) {
				g.now = g.now.Add(time.Hour)
				for seq, text := range []string{panicLine, "Linux version 6.12.1 (x) #1", "eth0: link becomes ready", panicLine, panicEnd} {
					r := g.record(text)
					r.Fields = nil
					if seq > 0 && seq < 3 {
						r.Seq, r.Uptime = uint64(seq), time.Duration(seq)*time.Second
					}
					g.push(r)
				}
				g.wait(30 * time.Second)
			},
			[]string{"+1h0m0s dying sysrq triggered crash …", "+1h0m1s dying sysrq triggered crash"},
		},
		{
			"a text log goes on with the next boot",
			Config{},
			func(g *rig) {
				g.basic(100*time.Second, panicLine)
				g.basic(0, "Linux version 6.12.1 (x) #1")
				g.basic(100*time.Second, panicLine)
				g.wait(time.Minute)
			},
			[]string{
				"+0s dying sysrq triggered crash …", "+0s dying sysrq triggered crash",
				"+0s dying sysrq triggered crash …", "+2s dying sysrq triggered crash",
			},
		},
		{
			"what cannot prove itself, and lives on, may die again",
			Config{},
			func(g *rig) {
				for range 2 {
					r := g.record(panicLine)
					r.Fields = nil
					g.push(r)
					g.wait(90 * time.Second)
				}
			},
			[]string{
				"+0s dying sysrq triggered crash …", "+2s dying sysrq triggered crash",
				"+1m30s dying sysrq triggered crash …", "+1m32s dying sysrq triggered crash",
			},
		},
		{
			"a death that was presumed from an oops does not hide the panic",
			Config{},
			func(g *rig) {
				g.source.SetFatal(true, false)
				g.say(oopsLine)
				g.wait(time.Minute)
				g.say(panicLine)
				g.wait(time.Minute)
			},
			[]string{
				"+0s dying kernel NULL pointer dereference …", "+2s dying kernel NULL pointer dereference",
				"+1m0.001s dying sysrq triggered crash …", "+1m2.001s dying sysrq triggered crash",
			},
		},
		{
			"a rule of the user's",
			Config{Rules: []Rule{{
				Cause: "AcmeBroken", Verdict: Dying, Match: `acme (\d+): broken`, Title: "acme broken{in}",
				Examples: []string{"acme 7: broken"},
			}}},
			func(g *rig) { g.say("acme 7: broken", oopsRIP); g.wait(time.Minute) },
			[]string{"+0s dying acme broken …", "+2.001s dying acme broken in store"},
		},
		{
			"a rule of the user's may overrule ours",
			Config{Rules: []Rule{{
				Cause: "KernelOops", Verdict: Dying, Match: `BUG: kernel NULL pointer dereference, address: 0{16}$`,
				Examples: []string{oopsLine},
			}}},
			func(g *rig) { g.say(oopsLine); g.wait(time.Minute) },
			[]string{
				"+0s dying BUG: kernel NULL pointer dereference, address: … …",
				"+2s dying BUG: kernel NULL pointer dereference, address: …",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.cfg.Compile(); err != nil {
				t.Fatal(err)
			}
			g := newRig(&tt.cfg)
			tt.run(g)
			if diff := cmp.Diff(tt.want, g.emitted); diff != "" {
				t.Errorf("emitted (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAuthorityIsWhatTheRecordProvesByItself(t *testing.T) {
	tests := []struct {
		name   string
		record netconsole.Record
		want   string
	}{
		{"extended, with identity", netconsole.Record{Extended: true, Fields: identity("boot-1", "s"), Text: []byte(panicLine)}, "kernel boot-1 (gasp)"},
		{"extended, without", netconsole.Record{Extended: true, Text: []byte(panicLine)}, "kernel  "},
		{"basic", netconsole.Record{Prefix: -1, Text: []byte(panicLine)}, "text  "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(&Config{})
			g.push(tt.record)
			inc := g.incidents[0]
			got := fmt.Sprintf("%s %s %s", inc.Authority, inc.Identity.Boot, inc.Identity.Secret)
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// Whoever shares a node's address can send datagrams, but not those of the node's own boot.
func TestForgedDeathsHideNothing(t *testing.T) {
	forgeries := map[string]netconsole.Record{
		"in the basic format":     {Prefix: -1, Uptime: time.Second, Text: []byte("Kernel panic - not syncing: forged")},
		"without an identity":     {Extended: true, Seq: 1 << 40, Uptime: time.Hour, Text: []byte("Kernel panic - not syncing: forged")},
		"with the wrong secret":   {Extended: true, Seq: 1, Uptime: time.Second, Text: []byte("Kernel panic - not syncing: forged"), Fields: identity("boot-1", "guess")},
		"without a secret":        {Extended: true, Seq: 1, Uptime: time.Second, Text: []byte("Kernel panic - not syncing: forged"), Fields: identity("boot-1", "")},
		"of another boot":         {Extended: true, Seq: 1, Uptime: time.Second, Text: []byte("Kernel panic - not syncing: forged"), Fields: identity("boot-0", "guess")},
		"of a record that is cut": {Extended: true, Seq: 1, Uptime: time.Second, Text: []byte("Kernel panic - not syncing: forged" + netconsole.Gap), Missing: 7},
	}
	for name, forged := range forgeries {
		for _, wait := range []time.Duration{0, 10 * time.Second} {
			t.Run(fmt.Sprintf("%s %v before", name, wait), func(t *testing.T) {
				g := newRig(&Config{})
				g.say("what the node said before")
				g.push(forged)
				g.wait(wait)
				g.say(panicLine, "Call Trace:", " sysrq_handle_crash+0x16/0x20")
				g.wait(time.Minute)

				var emitted, complete bool
				for _, inc := range g.incidents {
					if inc.Identity.Boot != "boot-1" || inc.Identity.Secret != "secret-1" || inc.Verdict != Dying {
						continue
					}
					emitted, complete = true, inc.Complete
					if strings.Contains(inc.Title, "forged") {
						t.Errorf("the forger named it: %s", inc.Title)
					}
					if complete && !strings.Contains(strings.Join(inc.Trace, "\n"), "what the node said before") {
						t.Errorf("the record has lost what came before:\n%s", strings.Join(inc.Trace, "\n"))
					}
				}
				if !emitted || !complete {
					t.Errorf("the real death was emitted: %t, completely: %t; all emissions: %q", emitted, complete, g.emitted)
				}
			})
		}
	}
}

func TestAPartialRecordIsAnAlarmAndNotALine(t *testing.T) {
	g := newRig(&Config{})
	whole := g.record("Kernel panic - not syncing: sysrq triggered crash")
	partial := whole
	partial.Partial, partial.Missing, partial.Fields = true, 100, []netconsole.Field{{Value: netconsole.Gap}}
	g.push(partial)
	if diff := cmp.Diff([]string{"+0s dying sysrq triggered crash …"}, g.emitted); diff != "" {
		t.Fatalf("emitted (-want +got):\n%s", diff)
	}
	if g.incidents[0].Identity.Boot != "" || len(g.incidents[0].Trace) != 0 {
		t.Errorf("the first fragment tells %+v", g.incidents[0])
	}

	g.wait(10 * time.Millisecond)
	g.push(whole)
	g.wait(time.Minute)
	if n := len(g.incidents); n != 3 || g.incidents[1].Complete || !g.incidents[2].Complete {
		t.Fatalf("emitted %q, want the alarm, the proof and the whole", g.emitted)
	}
	for _, inc := range g.incidents[1:] {
		if inc.Identity.Secret != "secret-1" {
			t.Errorf("identity %+v, want that of the whole record", inc.Identity)
		}
		want := []string{"[  100.000000] Kernel panic - not syncing: sysrq triggered crash"}
		if diff := cmp.Diff(want, inc.Trace); diff != "" {
			t.Errorf("trace (-want +got):\n%s", diff)
		}
	}
}

func TestTheTraceIsWhatDmesgWouldPrint(t *testing.T) {
	g := newRig(&Config{Lines: 4})
	g.say("one", "two", "three", "four \x1b[2J\xff\u009b é")
	userspace := g.record("lastgasp: canary v1 nonce=0")
	userspace.Prefix = 14
	g.push(userspace)
	userspace.Text = []byte("written by userspace")
	g.push(userspace)
	g.say("Kernel panic - not syncing: boom: multi\nline")
	g.wait(time.Minute)

	want := []string{
		`[  100.003000] four \x1b[2J\xff\xc2\x9b é`,
		`[  100.004000] written by userspace`,
		`[  100.004000] Kernel panic - not syncing: boom: multi`,
		`[  100.004000] line`,
	}
	for _, inc := range g.incidents {
		if diff := cmp.Diff(want, inc.Trace); diff != "" {
			t.Errorf("trace (-want +got):\n%s", diff)
		}
	}
}

func TestLateAndDamagedRecordsBelongToTheirBoot(t *testing.T) {
	tests := []struct {
		name string
		bend func(*netconsole.Record)
	}{
		{"late, of a kernel without userdata", func(r *netconsole.Record) { r.Fields = nil }},
		{"damaged, without the part that tells the boot", func(r *netconsole.Record) { r.Missing, r.Fields = 10, []netconsole.Field{{Value: netconsole.Gap}} }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(&Config{})
			old := g.record("old")
			anonymous := tt.name == tests[0].name
			say := func(text string) {
				g.wait(500 * time.Millisecond)
				r := g.record(text)
				if anonymous {
					r.Fields = nil
				}
				g.push(r)
			}
			say("before")
			tt.bend(&old)
			g.push(old)
			say(panicLine)
			g.wait(time.Minute)
			want := []string{"[  100.500000] before", "[  100.000000] old", "[  101.000000] " + panicLine}
			if diff := cmp.Diff(want, g.incidents[len(g.incidents)-1].Trace); diff != "" {
				t.Errorf("trace (-want +got):\n%s", diff)
			}
		})
	}
}

func TestARecordThatComesTwiceIsOneLine(t *testing.T) {
	g := newRig(&Config{})
	for _, text := range []string{"one", "two", panicLine} {
		r := g.record(text)
		g.push(r)
		g.push(r)
	}
	want := []string{"[  100.000000] one", "[  100.000000] two", "[  100.000000] " + panicLine}
	if diff := cmp.Diff(want, g.incidents[0].Trace); diff != "" {
		t.Errorf("trace (-want +got):\n%s", diff)
	}
}

func TestWhatAnIncidentMayGrowTo(t *testing.T) {
	g := newRig(&Config{})
	g.say(panicLine)
	for range 3 * maxTail {
		g.say("Task dump: " + strings.Repeat("x", 200))
	}
	g.wait(time.Minute)
	inc := g.incidents[len(g.incidents)-1]
	size := 0
	for _, l := range inc.Trace {
		size += len(l)
	}
	if size > maxTailBytes+32<<10 || len(inc.Trace) > maxTail+200+1 {
		t.Errorf("%d lines, %d bytes", len(inc.Trace), size)
	}
	if last := inc.Trace[len(inc.Trace)-1]; last != netconsole.Gap {
		t.Errorf("the trace ends in %q, want a mark that it was cut", last)
	}
}

func TestReleaseComesFromWhereItCan(t *testing.T) {
	withRelease := func(r netconsole.Record) netconsole.Record { r.Release = "6.12.1-a"; return r }
	tests := []struct {
		name    string
		records []netconsole.Record
		want    string
	}{
		{"the header", []netconsole.Record{withRelease(netconsole.Record{Extended: true, Text: []byte(panicLine)})}, "6.12.1-a"},
		{"sysdata", []netconsole.Record{{Extended: true, Text: []byte(panicLine), Fields: []netconsole.Field{{Key: "release", Value: "6.15.1-b"}}}}, "6.15.1-b"},
		{"the boot banner", []netconsole.Record{{Prefix: -1, Text: []byte("Linux version 5.10.0-c (x@y) #1 SMP")}, {Prefix: -1, Text: []byte(panicLine)}}, "5.10.0-c"},
		{"the backtrace", []netconsole.Record{{Prefix: -1, Text: []byte(panicLine)}, {Prefix: -1, Text: []byte("CPU: 0 PID: 1 Comm: init Tainted: G           OE      6.1.0-d #1")}}, "6.1.0-d"},
		{"the backtrace of RHEL, whose taints have dashes", []netconsole.Record{{Prefix: -1, Text: []byte(panicLine)}, {Prefix: -1, Text: []byte("CPU: 12 PID: 0 Comm: swapper/12 Kdump: loaded Tainted: G           OE    --------- -  - 4.18.0-305.el8.x86_64 #1")}}, "4.18.0-305.el8.x86_64"},
		{"nowhere", []netconsole.Record{{Prefix: -1, Text: []byte(panicLine)}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(&Config{})
			for _, r := range tt.records {
				g.push(r)
			}
			g.wait(time.Minute)
			if got := g.incidents[len(g.incidents)-1].Release; got != tt.want {
				t.Errorf("release %q, want %q", got, tt.want)
			}
		})
	}
}

func TestVerdictsAndAuthoritiesSurviveTheirText(t *testing.T) {
	for _, v := range []Verdict{Sick, Oops, Dying} {
		text, err := v.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		got := Verdict(-1)
		if err := got.UnmarshalText(text); err != nil || got != v {
			t.Errorf("%s became %v, %v", text, got, err)
		}
	}
	for _, a := range []Authority{Text, Cloud, Kernel, Boot, Claimed, Pinned} {
		text, err := a.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		got := Authority(-1)
		if err := got.UnmarshalText(text); err != nil || got != a {
			t.Errorf("%s became %v, %v", text, got, err)
		}
	}
	if err := new(Verdict).UnmarshalText([]byte("ill")); err == nil || err.Error() != `verdict "ill" is none of sick, oops, dying` {
		t.Errorf("error %v", err)
	}
	if err := new(Authority).UnmarshalText([]byte("god")); err == nil || err.Error() != `authority "god" is none of text, cloud, kernel, boot, claimed, pinned` {
		t.Errorf("error %v", err)
	}
}
