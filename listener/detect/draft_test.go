package detect

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestStallsWaitForBacktraces is about CPUs that are asked for a backtrace: the kernel is silent until they answer, or for ten
// seconds, and panics only then.
func TestStallsWaitForBacktraces(t *testing.T) {
	const (
		lockup = "watchdog: Watchdog detected hard LOCKUP on cpu 1"
		rcu    = "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:"
		asked  = "Sending NMI from CPU 0 to CPUs 1:"
	)
	panics := []string{"Kernel panic - not syncing: Hard LOCKUP", "CPU: 0 UID: 0 PID: 0 Comm: swapper/0 Not tainted 6.12.40 #1",
		"Call trace:", " panic+0x1/0x2", " nmi_panic+0x1/0x2", " default_idle_call+0x1/0x2", " do_idle+0x1/0x2"}
	tests := []struct {
		name   string
		first  []string
		after  time.Duration
		second []string
		want   []string
	}{
		{"the CPU does not answer before the panic", []string{lockup, asked}, 10 * time.Second, panics,
			[]string{"+10.002s dying hard lockup …", "+16.008s dying hard lockup"}},
		{"a virtual machine takes longer", []string{lockup, asked}, 25 * time.Second, panics,
			[]string{"+25.002s dying hard lockup …", "+31.008s dying hard lockup"}},
		{"the same of an RCU stall", []string{rcu, asked}, 10 * time.Second, append([]string{"Kernel panic - not syncing: RCU Stall"}, panics[1:]...),
			[]string{"+10.002s dying RCU stall …", "+16.008s dying RCU stall"}},
		{"one of several CPUs does not answer", []string{rcu, "Sending NMI from CPU 0 to CPUs 1,3-4:", "NMI backtrace for cpu 1", "NMI backtrace for cpu 4 skipped: idling at default_idle_call+0x1/0x2"},
			10 * time.Second, []string{"Kernel panic - not syncing: RCU Stall"}, []string{"+10.004s dying RCU stall …", "+16.004s dying RCU stall"}},
		{"all CPUs answer", []string{rcu, asked, "NMI backtrace for cpu 1"}, time.Minute, nil, []string{"+6.002s sick RCU stall"}},
		{"the kernel gives up", []string{rcu, asked}, 11 * time.Second, []string{"After 10 seconds, these CPUS still haven't responded to the NMI: 1"},
			[]string{"+12.002s sick RCU stall"}},
		{"the kernel gives up, and panics", []string{rcu, asked}, 11 * time.Second, append([]string{"After 10 seconds, these CPUS still haven't responded to the NMI: 1",
			"Kernel panic - not syncing: RCU Stall"}, panics[1:]...), []string{"+11.003s dying RCU stall …", "+17.009s dying RCU stall"}},
		{"nothing follows", []string{rcu, asked}, time.Minute, nil, []string{"+30.001s sick RCU stall"}},
		{"nobody is asked", []string{rcu, "rcu: \t1-...0: (20 ticks this GP)"}, time.Minute, nil, []string{"+6.001s sick RCU stall"}},
		{"a list that is damaged", []string{rcu, "Sending NMI from CPU 0 to CPUs 4-1,,9999999999999999999:"}, time.Minute, nil, []string{"+6.001s sick RCU stall"}},
	}
	t.Run("CPUs are asked one after the other", func(t *testing.T) {
		g := newRig(&Config{})
		g.say(rcu)
		for _, cpu := range []string{"1", "2", "3", "5"} {
			g.say("Sending NMI from CPU 0 to CPUs " + cpu + ":")
			g.wait(10 * time.Second)
		}
		g.say("Kernel panic - not syncing: RCU Stall")
		g.wait(time.Minute)
		if diff := cmp.Diff([]string{"+40.005s dying RCU stall …", "+46.005s dying RCU stall"}, g.emitted); diff != "" {
			t.Errorf("emitted (-want +got):\n%s", diff)
		}
	})
	t.Run("CPUs are asked for ever", func(t *testing.T) {
		g := newRig(&Config{})
		g.say(rcu)
		for range 30 {
			g.say(asked)
			g.wait(10 * time.Second)
		}
		if diff := cmp.Diff([]string{"+2m20.012s sick RCU stall"}, g.emitted); diff != "" {
			t.Errorf("emitted (-want +got):\n%s", diff)
		}
	})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(&Config{})
			g.say(tt.first...)
			g.wait(tt.after)
			g.say(tt.second...)
			g.wait(time.Minute)
			if diff := cmp.Diff(tt.want, g.emitted); diff != "" {
				t.Errorf("emitted (-want +got):\n%s", diff)
			}
		})
	}
}

// TestAPanicOfABystander is about the backtrace of a CPU that panics because another one stalls.
func TestAPanicOfABystander(t *testing.T) {
	const trace = "Call Trace:\n <NMI>\n panic+0x1/0x2\n </NMI>\n busy+0x1/0x2\n caller+0x1/0x2\n"
	panics := func(cpu string) string {
		return "Kernel panic - not syncing: Hard LOCKUP\nCPU: " + cpu + " PID: 9 Comm: java Not tainted 6.12.40 #1\n" + trace
	}
	for name, tt := range map[string]struct{ log, want string }{
		"another CPU is locked up":              {"watchdog: Watchdog detected hard LOCKUP on cpu 1\n" + panics("0"), "hard lockup"},
		"another CPU whose number begins alike": {"watchdog: Watchdog detected hard LOCKUP on cpu 1\n" + panics("12"), "hard lockup"},
		"the CPU itself is locked up":           {"NMI watchdog: Watchdog detected hard LOCKUP on cpu 7\n" + panics("7"), "hard lockup in busy"},
		"others stall":                          {"rcu: INFO: rcu_sched detected stalls on CPUs/tasks:\n" + panics("0"), "RCU stall"},
		"the CPU itself stalls":                 {"rcu: INFO: rcu_sched self-detected stall on CPU\n" + panics("0"), "RCU stall in busy"},
	} {
		if got := completeIncident(t, tt.log).Title; got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
