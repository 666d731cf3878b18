package detect

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// begin pushes the beginning of a record: n bytes of its text, or all of it and the fields that are given.
func (g *rig) begin(whole netconsole.Record, n int, fields ...netconsole.Field) {
	r := whole
	r.Partial, r.Missing = true, 100
	if n < len(r.Text) {
		r.Text = append(slices.Clip(r.Text[:n]), netconsole.Gap...)
	}
	r.Fields = append(fields[:len(fields):len(fields)], netconsole.Field{Value: netconsole.Gap})
	g.push(r)
	g.now = g.now.Add(time.Millisecond)
}

// claims are the incidents with what they claim of who died.
func (g *rig) claims() []string {
	var claims []string
	for i, inc := range g.incidents {
		claims = append(claims, fmt.Sprintf("%s (%s %s)", g.emitted[i], inc.Identity.Boot, inc.Identity.Secret))
	}
	return claims
}

func TestABeginningIsToldOnceMoreAsItsRecord(t *testing.T) {
	const all = 1 << 10
	softlockup := "Kernel panic - not syncing: softlockup: hung tasks"
	boot := identity("boot-1", "")
	tests := []struct {
		name string
		run  func(*rig)
		want []string
	}{
		{
			"an oops waits for who had it",
			func(g *rig) {
				r := g.record(oopsLine)
				g.begin(r, all)
				g.push(r)
			},
			[]string{
				"+1ms oops kernel NULL pointer dereference … (boot-1 (gasp))",
				"+2.001s oops kernel NULL pointer dereference (boot-1 (gasp))",
			},
		},
		{
			"an oops of a kernel that was heard before waits, too",
			func(g *rig) {
				g.say("eth0: link becomes ready")
				r := g.record(oopsLine)
				g.begin(r, all)
				g.push(r)
			},
			[]string{
				"+2ms oops kernel NULL pointer dereference … (boot-1 (gasp))",
				"+2.002s oops kernel NULL pointer dereference (boot-1 (gasp))",
			},
		},
		{
			"a death with its boot and not yet its secret is one death",
			func(g *rig) {
				r := g.record(panicLine)
				g.begin(r, all, boot...)
				g.push(r)
			},
			[]string{
				"+0s dying sysrq triggered crash … (boot-1 )",
				"+1ms dying sysrq triggered crash … (boot-1 (gasp))",
				"+2.001s dying sysrq triggered crash (boot-1 (gasp))",
			},
		},
		{
			"so it is if the kernel was heard before",
			func(g *rig) {
				g.say("eth0: link becomes ready")
				r := g.record(panicLine)
				g.begin(r, all, boot...)
				g.push(r)
			},
			[]string{
				"+1ms dying sysrq triggered crash … (boot-1 )",
				"+2ms dying sysrq triggered crash … (boot-1 (gasp))",
				"+2.002s dying sysrq triggered crash (boot-1 (gasp))",
			},
		},
		{
			"one that has the secret has all that matters",
			func(g *rig) {
				r := g.record(panicLine)
				g.begin(r, all, identity("boot-1", "secret-1")...)
				g.push(r)
			},
			[]string{
				"+0s dying sysrq triggered crash … (boot-1 (gasp))",
				"+2.001s dying sysrq triggered crash (boot-1 (gasp))",
			},
		},
		{
			"a title that was cut is replaced",
			func(g *rig) {
				r := g.record(softlockup)
				g.begin(r, len(softlockup)-len("sks"))
				g.push(r)
			},
			[]string{
				"+0s dying softlockup: hung ta[…] … ( )",
				"+1ms dying softlockup: hung tasks … (boot-1 (gasp))",
				"+2.001s dying softlockup: hung tasks (boot-1 (gasp))",
			},
		},
		{
			"an alarm has the name of the oops that led to it",
			func(g *rig) {
				g.say(oopsLine, oopsRIP)
				r := g.record(fatalLine)
				g.begin(r, all)
				g.push(r)
			},
			[]string{
				"+0s oops kernel NULL pointer dereference … (boot-1 (gasp))",
				"+2ms dying kernel NULL pointer dereference in store … ( )",
				"+3ms dying kernel NULL pointer dereference in store … (boot-1 (gasp))",
				"+2.003s dying kernel NULL pointer dereference in store (boot-1 (gasp))",
			},
		},
		{
			"the rest of it may come when it is due",
			func(g *rig) {
				r := g.record(panicEnd)
				g.begin(r, all, boot...)
				g.now = start.Add(netconsole.WireTimeout)
				r.Missing, r.Fields = 100, append(boot[:2:2], netconsole.Field{Value: netconsole.Gap})
				g.push(r)
			},
			[]string{
				"+0s dying sysrq triggered crash … (boot-1 )",
				"+1s dying sysrq triggered crash … (boot-1 )",
				"+2s dying sysrq triggered crash (boot-1 )",
			},
		},
		{
			"a beginning in a death says nothing new",
			func(g *rig) {
				g.say(panicLine)
				r := g.record(panicEnd)
				g.begin(r, all)
				g.push(r)
			},
			[]string{
				"+0s dying sysrq triggered crash … (boot-1 (gasp))",
				"+1.002s dying sysrq triggered crash (boot-1 (gasp))",
			},
		},
		{
			"and neither does one after it",
			func(g *rig) {
				g.say(panicLine)
				g.wait(10 * time.Second)
				r := g.record(panicEnd)
				g.begin(r, all, boot...)
				g.push(r)
			},
			[]string{
				"+0s dying sysrq triggered crash … (boot-1 (gasp))",
				"+2s dying sysrq triggered crash (boot-1 (gasp))",
			},
		},
		{
			"every alarm is completed, even if the record turns out to be of one long dead",
			func(g *rig) {
				g.say(panicLine)
				g.wait(10 * time.Second)
				alive := g.record("eth0: link becomes ready")
				alive.Fields = identity("boot-2", "secret-2")
				g.push(alive)
				r := g.record(panicEnd)
				g.begin(r, all)
				g.push(r)
			},
			[]string{
				"+0s dying sysrq triggered crash … (boot-1 (gasp))",
				"+2s dying sysrq triggered crash (boot-1 (gasp))",
				"+10.001s dying sysrq triggered crash … ( )",
				"+12.001s dying sysrq triggered crash ( )",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(&Config{})
			tt.run(g)
			g.wait(time.Minute)
			if diff := cmp.Diff(tt.want, g.claims()); diff != "" {
				t.Errorf("emitted (-want +got):\n%s", diff)
			}
		})
	}
}

// Whoever sends the beginning of a record without the secret of the boot speaks for himself, and changes nothing of what
// the boot says.
func TestAForgedBeginningSpeaksForItself(t *testing.T) {
	emitted := func(forge func(*rig)) []string {
		g := newRig(&Config{})
		g.say("what the node said before", oopsLine, oopsRIP)
		forge(g)
		g.now = start.Add(time.Second)
		g.say(fatalLine, " sysrq_handle_crash+0x16/0x20")
		g.wait(time.Minute)

		var own []string
		for i, inc := range g.incidents {
			forged := strings.Contains(strings.Join(inc.Trace, "\n"), "forged")
			if inc.Identity.Secret == "" {
				continue
			}
			if forged || inc.Identity.Secret != "secret-1" {
				t.Errorf("a forged record is emitted in the boot's name: %s\n%s", g.emitted[i], strings.Join(inc.Trace, "\n"))
			}
			own = append(own, g.emitted[i]+"\n"+strings.Join(inc.Trace, "\n"))
		}
		return own
	}
	want := emitted(func(*rig) {})
	for name, fields := range map[string][]netconsole.Field{
		"nothing":  nil,
		"the boot": identity("boot-1", ""),
	} {
		t.Run("with "+name, func(t *testing.T) {
			got := emitted(func(g *rig) {
				r := g.record("Kernel panic - not syncing: forged")
				r.Seq, r.Fields = r.Seq+1000, fields
				g.begin(r, 1<<10, fields...)
				g.push(r)
				g.seq--
			})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("emitted in the boot's name (-want +got):\n%s", diff)
			}
		})
	}
}
