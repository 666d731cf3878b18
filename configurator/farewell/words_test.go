package farewell

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/configurator/ec2"
	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

func TestRequestOf(t *testing.T) {
	at := time.UnixMicro(1_800_000_000_000_000)
	for _, tt := range []struct {
		name, iface, member string
		body                []any
		want                request
	}{
		{"reboot", login1Iface, "Reboot", []any{true}, request{cause: "reboot"}},
		{"reboot of newer systemctl", login1Iface, "RebootWithFlags", []any{uint64(1)}, request{cause: "reboot"}},
		{"reboot, by kexec if a kernel is loaded", login1Iface, "RebootWithFlags", []any{uint64(3)}, request{cause: "reboot"}},
		{"soft reboot", login1Iface, "RebootWithFlags", []any{uint64(4)}, request{cause: "soft-reboot"}},
		{"power off", login1Iface, "PowerOffWithFlags", []any{uint64(0)}, request{cause: "poweroff"}},
		{"halt", login1Iface, "Halt", []any{false}, request{cause: "halt"}},
		{"scheduled", login1Iface, "ScheduleShutdown", []any{"poweroff", uint64(1_800_000_000_000_000)}, request{"poweroff", at}},
		{"a rehearsal", login1Iface, "ScheduleShutdown", []any{"dry-reboot", uint64(1_800_000_000_000_000)}, request{}},
		{"a time beyond all", login1Iface, "ScheduleShutdown", []any{"reboot", ^uint64(0)}, request{}},
		{"a schedule without arguments", login1Iface, "ScheduleShutdown", nil, request{}},
		{"sleep is no end", login1Iface, "Suspend", []any{true}, request{}},
		{"a question", login1Iface, "CanReboot", nil, request{}},
		{"a target of systemd", systemdIface, "StartUnit", []any{"kexec.target", "replace"}, request{cause: "kexec"}},
		{"another unit", systemdIface, "StartUnit", []any{"cron.service", "replace"}, request{}},
		{"a unit that is stopped", systemdIface, "StopUnit", []any{"reboot.target", "replace"}, request{}},
		{"somebody else's Reboot", "com.example.Router", "Reboot", nil, request{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := requestOf(tt.iface, tt.member, tt.body); got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestBye(t *testing.T) {
	now := time.Date(2026, 11, 26, 18, 0, 0, 0, time.UTC)
	alice := asker{user: "alice", command: "reboot", sudo: true}
	asked := func(cause string, ago time.Duration) call {
		return call{request: request{cause: cause}, asker: alice, sender: ":1.7", serial: 3, heard: now.Add(-ago)}
	}
	scheduled := func(in time.Duration) call {
		c := asked("reboot", time.Hour)
		c.at = now.Add(in)
		return c
	}
	spot := ec2.Notices{SpotAction: "terminate", SpotTime: now.Add(time.Minute)}
	event := func(in time.Duration) ec2.Notices {
		return ec2.Notices{Events: []ec2.ScheduledEvent{{ID: "instance-event-1", Code: "system-reboot", NotBefore: now.Add(in)}}}
	}
	by := func(cause string) netconsole.Bye {
		return netconsole.Bye{Cause: cause, By: "alice", Command: "reboot", Sudo: true}
	}
	for _, tt := range []struct {
		name string
		w    func(*words)
		want netconsole.Bye
	}{
		{"nothing is known", func(*words) {}, netconsole.Bye{Cause: "shutdown"}},
		{"logind says how", func(w *words) { w.kind = "poweroff" }, netconsole.Bye{Cause: "poweroff"}},
		{"somebody asked", func(w *words) { w.add(asked("reboot", time.Second)) }, by("reboot")},
		{"somebody asked, and logind makes a kexec of it", func(w *words) { w.add(asked("reboot", time.Second)); w.kind = "kexec" }, by("kexec")},
		{"somebody asked, and something else happens", func(w *words) { w.add(asked("reboot", time.Second)); w.kind = "poweroff" }, netconsole.Bye{Cause: "poweroff"}},
		{"somebody asked long ago", func(w *words) { w.add(asked("reboot", time.Minute)); w.kind = "poweroff" }, netconsole.Bye{Cause: "poweroff"}},
		{"somebody asked, and was refused", func(w *words) { w.add(asked("reboot", time.Second)); w.refuse(":1.7", 3) }, netconsole.Bye{Cause: "shutdown"}},
		{"somebody else was refused", func(w *words) { w.add(asked("reboot", time.Second)); w.refuse(":1.8", 3) }, by("reboot")},
		{"another call of theirs was refused", func(w *words) { w.add(asked("reboot", time.Second)); w.refuse(":1.7", 4) }, by("reboot")},
		{"it was scheduled", func(w *words) { w.add(scheduled(0)) }, by("reboot")},
		{"it was scheduled for later", func(w *words) { w.add(scheduled(time.Hour)) }, netconsole.Bye{Cause: "shutdown"}},
		{"it was scheduled, and called off", func(w *words) { w.add(scheduled(0)); w.cancel() }, netconsole.Bye{Cause: "shutdown"}},
		{"asked now wins over scheduled", func(w *words) { w.add(scheduled(0)); w.add(asked("halt", 0)) }, by("halt")},
		{"a spot interruption", func(w *words) { w.notices, w.kind = spot, "poweroff" }, netconsole.Bye{Cause: "spot", Event: "terminate"}},
		{"somebody asked meanwhile", func(w *words) { w.notices = spot; w.add(asked("reboot", 0)) }, by("reboot")},
		{"an Auto Scaling group", func(w *words) { w.notices.ASGTerminates = true }, netconsole.Bye{Cause: "asg"}},
		{"a scheduled event begins", func(w *words) { w.notices, w.kind = event(time.Minute), "reboot" }, netconsole.Bye{Cause: "maintenance", Event: "instance-event-1"}},
		{"a scheduled event is days ahead", func(w *words) { w.notices, w.kind = event(48*time.Hour), "reboot" }, netconsole.Bye{Cause: "reboot"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var w words
			tt.w(&w)
			if diff := cmp.Diff(tt.want, w.bye(now)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAskerOf(t *testing.T) {
	const none = noLogin
	type process struct{ comm, loginuid, cgroup, stat string }
	sudo := process{comm: "sudo\n", stat: "90 (sudo) S 80 90 80 0"}
	for _, tt := range []struct {
		name    string
		process process
		parent  process
		want    asker
	}{
		{"a user with sudo", process{"reboot\n", "1000", "0::/user.slice/user-1000.slice/session-3.scope\n", "100 (reboot) S 90 1 1 0"}, sudo,
			asker{user: "alice", command: "reboot", sudo: true}},
		{"root at the console", process{"systemctl\n", "0", "0::/user.slice/user-0.slice/session-1.scope\n", "100 (systemctl) S 90 1 1 0"},
			process{comm: "bash\n", stat: "90 (bash) S 1 1 1 0"}, asker{user: "root", command: "systemctl"}},
		{"a user of a directory service", process{"reboot\n", "70001", "0::/user.slice\n", "100 (reboot) S 1 1 1 0"}, process{}, asker{user: "uid-70001", command: "reboot"}},
		{"a cron job of root, whom cron has logged in", process{"shutdown\n", "0", "0::/system.slice/cron.service\n", "100 (shutdown) S 90 1 1 0"},
			process{comm: "cron\n", stat: "90 (cron) S 1 1 1 0"}, asker{user: "root", command: "shutdown", unit: "cron.service"}},
		{"a service of a user", process{"systemctl\n", "1000", "0::/user.slice/user-1000.slice/user@1000.service/app.slice/tmux.service\n", "100 (systemctl) S 1 1 1 0"},
			process{}, asker{user: "alice", command: "systemctl"}},
		{"a user without pam_systemd", process{"reboot\n", "1000", "0::/system.slice/ssh.service\n", "100 (reboot) S 90 1 1 0"}, sudo,
			asker{user: "alice", command: "reboot", sudo: true}},
		{"SSM's agent", process{"shutdown\n", none, "0::/system.slice/amazon-ssm-agent.service\n", "100 (shutdown) S 1 1 1 0"}, process{},
			asker{command: "shutdown", unit: "amazon-ssm-agent.service"}},
		{"a service", process{"systemctl\n", none, "0::/system.slice/nightly.service\n", "100 (systemctl) S 1 1 1 0"}, process{},
			asker{command: "systemctl", unit: "nightly.service"}},
		{"a pod, by nsenter", process{"systemctl\n", none, "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1234_5.slice/cri-containerd-abc.scope\n", "100 (systemctl) S 1 1 1 0"}, process{},
			asker{command: "systemctl", unit: "kubepods-burstable-pod1234_5.slice"}},
		{"a pod, with the cgroupfs driver", process{"systemctl\n", none, "0::/kubepods/burstable/pod1234-5/abc\n", ""}, process{},
			asker{command: "systemctl", unit: "pod1234-5"}},
		{"a kernel without audit", process{"reboot\n", "", "0::/user.slice/user-1000.slice/session-3.scope\n", "100 (reboot) S 90 1 1 0"}, sudo,
			asker{user: "alice", command: "reboot", sudo: true}},
		{"the first version of control groups", process{"reboot\n", none, "12:cpu:/x\n1:name=systemd:/system.slice/cron.service\n", ""}, process{},
			asker{command: "reboot", unit: "cron.service"}},
		{"both versions of control groups", process{"reboot\n", none, "9:name=systemd:/\n8:pids:/\n0::/system.slice/cron.service\n", ""}, process{},
			asker{command: "reboot", unit: "cron.service"}},
		{"a name that looks like the end of it", process{"a) S 1\n", "1000", "", "100 (a) S 1 (b) S 90 1 1 0"}, sudo, asker{user: "alice", command: "a) S 1", sudo: true}},
		{"a process that is gone", process{}, process{}, asker{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := machine.Root(t.TempDir())
			write := func(pid string, p process) {
				for name, text := range map[string]string{"comm": p.comm, "loginuid": p.loginuid, "cgroup": p.cgroup, "stat": p.stat} {
					put(t, root.Path("proc", pid, name), text)
				}
			}
			put(t, root.Path("etc/passwd"), "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/sh\n")
			write("100", tt.process)
			write("90", tt.parent)
			if got := askerOf(root, 100); got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

// put writes a file, unless there is nothing to write.
func put(t *testing.T, name, text string) {
	t.Helper()
	if text == "" {
		return
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestEndingOf(t *testing.T) {
	for _, tt := range []struct {
		name string
		jobs []job
		want string
	}{
		{"nothing ends", []job{{Unit: "cron.service", Type: "start"}}, ""},
		{"a power-off", []job{{Unit: "cron.service", Type: "stop"}, {Unit: "poweroff.target", Type: "start"}}, "poweroff"},
		{"kexec", []job{{Unit: "kexec.target", Type: "start"}}, "kexec"},
		{"a target that is stopped", []job{{Unit: "reboot.target", Type: "stop"}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := endingOf(tt.jobs); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestForcedEnding(t *testing.T) {
	for _, tt := range []struct{ name, cmdline, want string }{
		{"systemd 257, systemctl reboot --force", "/usr/lib/systemd/systemd-shutdown\x00reboot\x00--timeout\x0090000000us\x00--log-level=6\x00", "reboot"},
		{"systemd 252, systemctl poweroff --force", "/lib/systemd/systemd-shutdown\x00poweroff\x00--log-level\x006\x00", "poweroff"},
		{"a container's", "/usr/lib/systemd/systemd-shutdown\x00exit\x00", ""},
		{"nothing ends", "/usr/lib/systemd/systemd\x00--switched-root\x00--system\x00", ""},
		{"something else has the name as an argument", "/sbin/init\x00systemd-shutdown\x00reboot\x00", ""},
		{"no arguments", "/usr/lib/systemd/systemd-shutdown\x00", ""},
		{"unreadable", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := machine.Root(t.TempDir())
			if tt.cmdline != "" {
				put(t, root.Path("proc/1/cmdline"), tt.cmdline)
			}
			if got := forcedEnding(root); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestMet(t *testing.T) {
	var m met
	for i := range 100 {
		m.add(fmt.Sprintf(":1.%d", i), asker{user: fmt.Sprint(i)})
	}
	for name, want := range map[string]string{":1.99": "99", ":1.36": "36", ":1.35": "", ":1.100": ""} {
		if got := m.find(name).user; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}
