package detect

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCulprits(t *testing.T) {
	const trace = "RIP: 0010:foo+0x1/0x2\nCall Trace:\n <TASK>\n foo+0x1/0x2\n </TASK>\n"
	tests := []struct {
		name, log string
		want      Culprit
	}{
		{"an oops", oopsLine + "\nCPU: 1 PID: 42 Comm: java Not tainted 6.1.0 #1\n" + trace, Culprit{Comm: "java", PID: 42, CPU: 1}},
		{"an oops since 6.12", oopsLine + "\nCPU: 1 UID: 1000 PID: 42 Comm: java Tainted: G           OE      6.12.1 #1\n" + trace, Culprit{Comm: "java", PID: 42, CPU: 1}},
		{"RHEL", oopsLine + "\nCPU: 1 PID: 42 Comm: java Kdump: loaded Not tainted 4.18.0-305.el8.x86_64 #1\n" + trace, Culprit{Comm: "java", PID: 42, CPU: 1}},
		{"a name with blanks", oopsLine + "\nCPU: 1 PID: 42 Comm: G1 Main Marker Not tainted 6.1.0 #1\n" + trace, Culprit{Comm: "G1 Main Marker", PID: 42, CPU: 1}},
		{"RHEL 6", oopsLine + "\nPid: 42, comm: java Not tainted 2.6.32-431.el6.x86_64 #1\n" + trace, Culprit{Comm: "java", PID: 42, CPU: -1}},
		{"an interrupt", oopsLine + "\nCPU: 1 PID: 42 Comm: java Not tainted 6.1.0 #1\nRIP: 0010:foo+0x1/0x2\nCall Trace:\n <IRQ>\n bar+0x1/0x2\n", Culprit{Comm: "java", PID: 42, CPU: 1, Bystander: true}},
		{"an interrupt by its end", oopsLine + "\nCPU: 1 PID: 42 Comm: java Not tainted 6.1.0 #1\nKernel panic - not syncing: Fatal exception in interrupt\n", Culprit{Comm: "java", PID: 42, CPU: 1, Bystander: true}},
		{"an interrupt on arm64", "Unable to handle kernel paging request at virtual address ffff800012345678\nCPU: 1 PID: 42 Comm: java Not tainted 6.1.0 #1\npc : foo+0x1/0x2\nCall trace:\n foo+0x1/0x2\n __do_softirq+0x1/0x2\n", Culprit{Comm: "java", PID: 42, CPU: 1, Bystander: true}},
		{"the idle task", oopsLine + "\nCPU: 1 PID: 0 Comm: swapper/1 Not tainted 6.1.0 #1\n" + trace, Culprit{Comm: "swapper/1", CPU: 1, Bystander: true}},
		{"a soft lockup names the task itself", "watchdog: BUG: soft lockup - CPU#3 stuck for 26s! [kworker/3:1:71]\nCPU: 3 PID: 71 Comm: kworker/3:1 Not tainted 6.1.0 #1\nCall Trace:\n <IRQ>\n", Culprit{Comm: "kworker/3:1", PID: 71, CPU: 3}},
		{"a hung task is not who found it", "INFO: task jbd2/vda1-8:231 blocked for more than 120 seconds.\nCPU: 0 PID: 30 Comm: khungtaskd Not tainted 6.1.0 #1\n", Culprit{Comm: "jbd2/vda1-8", PID: 231, CPU: -1}},
		{
			"out of memory", "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=x.scope,mems_allowed=0,global_oom,task_memcg=/kubepods.slice/pod1234.slice/cri-containerd-1.scope,task=java,pid=4242,uid=1000\n" +
				"Out of memory: Killed process 4242 (java) total-vm:8388608kB, anon-rss:4194304kB\n",
			Culprit{Comm: "java", PID: 4242, CPU: -1, Cgroup: "/kubepods.slice/pod1234.slice/cri-containerd-1.scope"},
		},
		{
			"out of memory, and another task's cgroup", "oom-kill:constraint=CONSTRAINT_NONE,task_memcg=/other,task=java,pid=1,uid=1000\n" +
				"Out of memory: Killed process 4242 (java) total-vm:8388608kB\n",
			Culprit{Comm: "java", PID: 4242, CPU: -1},
		},
		{"lastgasp's module", oopsLine + "\nCPU: 1 PID: 42 Comm: java Not tainted 6.1.0 #1\nlastgasp: culprit: oops cpu=1 ctx=task comm=java pid=42 cgroup=/kubepods.slice/pod1234.slice\n", Culprit{Comm: "java", PID: 42, CPU: 1, Cgroup: "/kubepods.slice/pod1234.slice"}},
		{"lastgasp's module in an interrupt", oopsLine + "\nculprit: oops cpu=1 ctx=softirq comm=java pid=42 cgroup=/\n", Culprit{Comm: "java", PID: 42, CPU: 1, Cgroup: "/", Bystander: true}},
		{"lastgasp's module behind the trace", oopsLine + "\nCPU: 1 PID: 42 Comm: java Not tainted 6.1.0 #1\n" + trace + "Modules linked in: lastgasp(OE)\nlastgasp: culprit: oops cpu=1 ctx=task comm=java pid=42 cgroup=/kubepods.slice/pod1234.slice\n---[ end trace 0000000000000000 ]---\n", Culprit{Comm: "java", PID: 42, CPU: 1, Cgroup: "/kubepods.slice/pod1234.slice"}},
		{"lastgasp's module before the panic", "lastgasp: culprit: panic cpu=0 ctx=task comm=java pid=42 cgroup=/kubepods.slice/pod1234.slice\n" + panicLine + "\n", Culprit{Comm: "java", PID: 42, Cgroup: "/kubepods.slice/pod1234.slice"}},
		{"lastgasp's module about an earlier oops", "lastgasp: culprit: oops cpu=0 ctx=task comm=java pid=42 cgroup=/kubepods.slice/pod1234.slice\n" + panicLine + "\n", Culprit{}},
		{"lastgasp's module about the panic of another task", oopsLine + "\nCPU: 1 PID: 42 Comm: java Not tainted 6.1.0 #1\n" + trace + "lastgasp: culprit: panic cpu=0 ctx=task comm=sh pid=7 cgroup=/\n", Culprit{Comm: "java", PID: 42, CPU: 1}},
		{"lastgasp's module in the interrupt that found a lockup", "watchdog: BUG: soft lockup - CPU#3 stuck for 26s! [java:71]\nCPU: 3 PID: 71 Comm: java Not tainted 6.1.0 #1\nCall Trace:\n <IRQ>\nlastgasp: culprit: panic cpu=3 ctx=irq comm=java pid=71 cgroup=/pod\nKernel panic - not syncing: softlockup: hung tasks\n", Culprit{Comm: "java", PID: 71, CPU: 3, Cgroup: "/pod"}},
		{"lastgasp's module about who found a hung task", "INFO: task jbd2/vda1-8:231 blocked for more than 120 seconds.\nlastgasp: culprit: panic cpu=0 ctx=task comm=khungtaskd pid=30 cgroup=/\nKernel panic - not syncing: hung_task: blocked tasks\n", Culprit{Comm: "jbd2/vda1-8", PID: 231, CPU: -1}},
		{"a name that looks like lastgasp's line", oopsLine + "\nlastgasp: culprit: oops cpu=1 ctx=task comm=a pid=1 cgroup= pid=42 cgroup=/pod\n", Culprit{Comm: "a pid=1 cgroup=", PID: 42, CPU: 1, Cgroup: "/pod"}},
		{"nobody", panicLine + "\n", Culprit{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, completeIncident(t, tt.log).Culprit); diff != "" {
				t.Errorf("culprit (-want +got):\n%s", diff)
			}
		})
	}
}
