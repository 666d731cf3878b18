package policy

import (
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

func TestFateEnded(t *testing.T) {
	for _, tt := range []struct {
		name string
		fate Fate
		want bool
	}{
		{"terminated by its owner", Fate{State: "terminated", Code: "Client.UserInitiatedShutdown"}, true},
		{"terminated as a spot instance", Fate{State: "terminated", Code: "Server.SpotInstanceTermination"}, true},
		{"stopped as a spot instance", Fate{State: "stopped", Code: "Server.SpotInstanceShutdown"}, true},
		{"stopped for retirement", Fate{State: "stopped", Code: "Server.ScheduledStop"}, true},
		{"halted from inside", Fate{State: "stopped", Code: "Client.InstanceInitiatedShutdown"}, true},
		{"ended by a fault of EC2", Fate{State: "terminated", Code: "Server.InternalError"}, true},
		{"hibernated", Fate{State: "stopped", Code: "Client.UserInitiatedHibernate"}, false},
		{"hibernated as a spot instance", Fate{State: "stopped", Code: "Server.SpotInstanceShutdown", Reason: "the Spot Instance was hibernated"}, false},
		{"hibernated, and terminated later", Fate{State: "terminated", Code: "Client.UserInitiatedHibernate"}, true},
		{"on its way", Fate{State: "shutting-down", Code: "Client.UserInitiatedShutdown"}, false},
		{"running", Fate{State: "running"}, false},
		{"a state that is none of EC2's", Fate{State: "lost"}, false},
		{"not known", Fate{}, false},
	} {
		if got := tt.fate.Ended("i-1") != ""; got != tt.want {
			t.Errorf("%s: ended %t, want %t", tt.name, got, tt.want)
		}
	}
}

func TestConsoleWithin(t *testing.T) {
	silence := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	n, now := Node{SilentSince: silence}, silence.Add(time.Minute)
	for _, tt := range []struct {
		name string
		at   time.Time
		want bool
	}{
		{"just now", now, true},
		{"when the node died", silence.Add(-50 * time.Second), true},
		{"while it lived", silence.Add(-10 * time.Minute), false},
		{"in the future", now.Add(time.Minute), false},
		{"at a time that EC2 does not say", time.Time{}, false},
	} {
		if got := (Console{At: tt.at}).Within(n, Fate{Launched: silence.Add(-time.Hour)}, now); got != tt.want {
			t.Errorf("read %s: %t, want %t", tt.name, got, tt.want)
		}
	}
	if (Console{At: now}).Within(n, Fate{Launched: now.Add(time.Second)}, now) {
		t.Error("a console of before the machine was started is of another boot")
	}
}

func TestDeathIn(t *testing.T) {
	dies := func(boot string) detect.BootLog {
		return detect.BootLog{Boot: boot, Death: detect.Incident{Verdict: detect.Dying, Title: "of " + boot}}
	}
	lives := func(boot string) detect.BootLog { return detect.BootLog{Boot: boot} }
	for _, tt := range []struct {
		name  string
		logs  []detect.BootLog
		next  string
		title string // empty: none
		named bool
	}{
		{"nothing", nil, "", "", false},
		{"the boot itself", []detect.BootLog{dies("a")}, "", "of a", true},
		{"the boot itself, and others", []detect.BootLog{dies("x"), dies("a"), dies("y")}, "y", "of a", true},
		{"another boot", []detect.BootLog{dies("x")}, "", "", false},
		{"no name, the last", []detect.BootLog{lives("x"), dies("")}, "", "of ", false},
		{"no name, before the next", []detect.BootLog{dies(""), lives("b")}, "b", "of ", false},
		{"no name, not the one before the next", []detect.BootLog{dies(""), lives("x"), lives("b")}, "b", "", false},
		{"the next boot died, too", []detect.BootLog{dies("b")}, "b", "", false},
		{"the boot lived", []detect.BootLog{lives("a")}, "", "", false},
	} {
		inc, named, ok := DeathIn(tt.logs, "a", tt.next)
		if ok != (tt.title != "") || named != tt.named || ok && inc.Title != tt.title {
			t.Errorf("%s: %q, named %t, %t; want %q, named %t", tt.name, inc.Title, named, ok, tt.title, tt.named)
		}
	}
}
