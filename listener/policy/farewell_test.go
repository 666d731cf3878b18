package policy

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

func TestFarewellOf(t *testing.T) {
	at := time.Date(2026, 11, 26, 18, 50, 0, 123, time.UTC)
	due := time.Date(2026, 11, 26, 18, 52, 0, 0, time.UTC)
	for _, tt := range []struct {
		name string
		bye  netconsole.Bye
		want string
	}{
		{"a reboot by a user", netconsole.Bye{Cause: "reboot", By: "alice", Command: "reboot", Sudo: true}, "rebooted by alice (sudo reboot)"},
		{"a power-off by root", netconsole.Bye{Cause: "poweroff", By: "root", Command: "systemctl"}, "powered off by root (systemctl poweroff)"},
		{"a reboot by a service", netconsole.Bye{Cause: "reboot", Unit: "kured.service", Command: "systemctl"}, "rebooted by kured.service (systemctl reboot)"},
		{"a cron job", netconsole.Bye{Cause: "reboot", By: "root", Command: "reboot", Unit: "cron.service"}, "rebooted by root (reboot, cron.service)"},
		{"a job that is gone", netconsole.Bye{Cause: "reboot", By: "root", Unit: "cron.service"}, "rebooted by root (cron.service)"},
		{"a user wins over the unit of the session", netconsole.Bye{Cause: "halt", By: "bob", Unit: "session-1.scope"}, "halted by bob"},
		{"a power button", netconsole.Bye{Cause: "poweroff"}, "powered off"},
		{"kexec", netconsole.Bye{Cause: "kexec", By: "alice"}, "rebooted with kexec by alice"},
		{"a soft reboot", netconsole.Bye{Cause: "soft-reboot"}, "soft-rebooted"},
		{"a shutdown of an unknown kind", netconsole.Bye{Cause: "shutdown"}, "shut down"},
		{"a spot interruption", netconsole.Bye{Cause: "spot", Event: "terminate", Due: due},
			"interrupted as a spot instance (terminate), due 2026-11-26T18:52:00Z"},
		{"an Auto Scaling group", netconsole.Bye{Cause: "asg"}, "terminated by its Auto Scaling group"},
		{"a scheduled event", netconsole.Bye{Cause: "maintenance", Event: "instance-event-0d5"}, "shut down for a scheduled event of EC2 (instance-event-0d5)"},
		{"a word of a later version", netconsole.Bye{Cause: "hibernate", By: "alice"}, "shut down (hibernate) by alice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.bye.Boot = "b"
			got := FarewellOf(tt.bye, at)
			if want := (Farewell{Boot: "b", Text: tt.want, At: at.Truncate(time.Second)}); !cmp.Equal(want, got) {
				t.Errorf("(-want +got):\n%s", cmp.Diff(want, got))
			}
			if diff := cmp.Diff(got, ParseFarewell(got.Annotation())); diff != "" {
				t.Errorf("annotation %q (-want +got):\n%s", got.Annotation(), diff)
			}
			if want := tt.want + " at 2026-11-26T18:50:00Z, says the node"; got.String() != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
	for _, text := range []string{"", "b", "b: rebooted", "b: rebooted at noon, says the node", ": x at 2026-11-26T18:50:00Z, says the node"} {
		if got := ParseFarewell(text); got != (Farewell{}) {
			t.Errorf("%q read as %+v", text, got)
		}
	}
}

func TestFarewellAfterwards(t *testing.T) {
	at := time.Date(2026, 11, 26, 18, 50, 0, 0, time.UTC)
	f := FarewellAfterwards(netconsole.Obituary{Boot: "a"}, "b", at)
	if got, want := f.Annotation(), "a: shut down at 2026-11-26T18:50:00Z, says the node on boot b"; got != want || ParseFarewell(got) != f {
		t.Errorf("%q, read as %+v; want %q", got, ParseFarewell(got), want)
	}
}

func TestLeftInOrder(t *testing.T) {
	said := time.Date(2026, 11, 26, 18, 50, 0, 0, time.UTC)
	due := said.Add(3 * 24 * time.Hour)
	rebooted := Farewell{Boot: "a", Text: "rebooted by alice", At: said}
	event := Farewell{Boot: "a", Text: "shut down for a scheduled event of EC2, due " + due.Format(time.RFC3339), At: said}
	for _, tt := range []struct {
		name  string
		node  Node
		ended time.Time
		want  bool
	}{
		{"no farewell", Node{BootID: "a"}, said, false},
		{"a farewell", Node{BootID: "a", Farewell: rebooted}, said.Add(time.Minute), true},
		{"a farewell of this boot on the next one", Node{BootID: "b", Farewell: rebooted}, said.Add(time.Minute), true},
		{"a farewell of another boot", Node{BootID: "a", Farewell: Farewell{Boot: "x", Text: "rebooted", At: said}}, said.Add(time.Minute), false},
		{"a shutdown that was called off hours ago", Node{BootID: "a", Farewell: rebooted}, said.Add(3 * time.Hour), false},
		{"an event that is due", Node{BootID: "a", Farewell: event}, due.Add(-time.Minute), true},
		{"an event that is days away", Node{BootID: "a", Farewell: event}, said.Add(24 * time.Hour), false},
		{"a soft reboot, behind which the boot goes on", Node{BootID: "a", Farewell: Farewell{Boot: "a", Text: "soft-rebooted by alice", At: said}}, said.Add(time.Minute), false},
		{"a word afterwards", Node{BootID: "a", Farewell: Farewell{Boot: "a", Text: "shut down", At: said, On: "b"}}, said.Add(24 * time.Hour), true},
		{"a drain", Node{BootID: "a", Leaving: true}, said, true},
		{"a drain of the boot after", Node{BootID: "b", Leaving: true}, said, false},
	} {
		if got := tt.node.LeftInOrder("a", tt.ended) != ""; got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
}

func TestFarewellBy(t *testing.T) {
	const secret = netconsole.Secret("s")
	pin := Pin{Boot: "b", Sum: secret.Sum()}
	node := Node{Name: "n", BootID: "b", Pin: pin}
	bye := netconsole.Bye{Boot: "b", Secret: secret}
	for _, tt := range []struct {
		name string
		node Node
		bye  netconsole.Bye
		want string // empty: it has said it
	}{
		{"the node itself", node, bye, ""},
		{"another boot", Node{Name: "n", BootID: "c", Pin: pin}, bye, "node n runs boot c and not b"},
		{"another secret", node, netconsole.Bye{Boot: "b", Secret: "t"}, "node n has not pinned the secret of boot b; check that lastgasp-configurator-watch.service is running there"},
		{"no secret", node, netconsole.Bye{Boot: "b"}, "node n has not pinned the secret of boot b; check that lastgasp-configurator-watch.service is running there"},
		{"no secret and no pin", Node{Name: "n", BootID: "b"}, netconsole.Bye{Boot: "b"}, "node n has not pinned the secret of boot b; check that lastgasp-configurator-watch.service is running there"},
		{"a claim is not enough", Node{Name: "n", BootID: "b", Claim: pin}, bye, "node n has not pinned the secret of boot b; check that lastgasp-configurator-watch.service is running there"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if err := FarewellBy(tt.node, tt.bye); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}
