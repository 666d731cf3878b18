//go:build e2e

package lab

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/lastgasp/lastgasp/e2e/guest/control"
)

// scenario is one thing that can happen to a guest, and what its kernel must then send.
type scenario struct {
	name    string // of the fixture, after the kernel's
	way     Crash  // or do
	do      func(t *testing.T, ctx context.Context, vm *VM)
	sysctls map[string]string
	append  []string
	modules []string
	cpus    int      // 0: one
	kernels []string // series or names; empty: all

	headline string // part of a line that every such crash sends
	arm64    string // the same on arm64, if it differs
	last     string // a part of the last line, of a crash that is fatal; empty: the machine survives
}

// How a kernel's last record ends: it either stops or announces its reboot (kernel/panic.c).
const (
	stopped   = "---[ end Kernel panic - not syncing"
	rebooting = "Rebooting in "
)

// allScenarios is what the fixtures of listener/detect are captured from.
func allScenarios() []scenario {
	oops := map[string]string{"kernel.panic_on_oops": "1"}
	return []scenario{
		// Dying.
		{name: "sysrq", way: CrashSysrq, headline: "Kernel panic - not syncing: sysrq triggered crash", last: stopped},
		{name: "sysrq-panic5", way: CrashSysrq, sysctls: map[string]string{"kernel.panic": "5"}, kernels: []string{"6.1", "6.12", "7-arm64"},
			headline: "Kernel panic - not syncing: sysrq triggered crash", last: rebooting},
		{name: "init-exit", way: CrashInitExit, headline: "Kernel panic - not syncing: Attempted to kill init!", last: stopped},
		{name: "panic-multiline", way: CrashPanicMultiline, headline: "Kernel panic - not syncing: lastgasp_crash: first line", last: stopped},
		// Without reboot it would hang on kernels before 7.0: only for the tests of our own module.
		{name: "tx-lock", way: CrashTxLock, kernels: []string{"none"}, headline: "Kernel panic - not syncing: lastgasp_crash: a CPU is stopped with the transmit lock"},
		{name: "burst", way: CrashBurst, headline: "Kernel panic - not syncing: lastgasp_crash: after a burst of 120 records", last: stopped},
		{name: "null-deref", way: CrashNullDeref, sysctls: oops, headline: "BUG: kernel NULL pointer dereference, address: 0000000000000000", arm64: "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000", last: stopped},
		{name: "null-deref-panic5", way: CrashNullDeref, sysctls: map[string]string{"kernel.panic_on_oops": "1", "kernel.panic": "5"}, kernels: []string{"6.1", "6.12", "7-arm64"},
			headline: "BUG: kernel NULL pointer dereference, address: 0000000000000000", arm64: "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000", last: rebooting},
		{name: "err-ptr", way: CrashErrPtr, sysctls: oops, headline: "BUG: unable to handle page fault for address: fffffffffffffff4", arm64: "Unable to handle kernel paging request at virtual address fffffffffffffff4", last: stopped},
		{name: "gpf", way: CrashGPF, sysctls: oops, headline: "general protection fault, probably for non-canonical address 0xdead000000000100", arm64: "Unable to handle kernel paging request at virtual address dead000000000100", last: stopped},
		{name: "bug", way: CrashBug, sysctls: oops, headline: "kernel BUG at ", last: stopped},
		{name: "stack-overflow", way: CrashStackOverflow, sysctls: oops, headline: "stack guard page", arm64: "Kernel panic - not syncing: kernel stack overflow", last: stopped},
		{name: "oops-in-irq", way: CrashOopsInIRQ, headline: "Kernel panic - not syncing: Fatal exception in interrupt",
			arm64: "Kernel panic - not syncing: Oops: Fatal exception in interrupt", last: stopped},
		{name: "softlockup", way: CrashSoftLockup, sysctls: map[string]string{"kernel.watchdog_thresh": "3", "kernel.softlockup_panic": "1"},
			headline: "watchdog: BUG: soft lockup - CPU#", last: stopped},
		{name: "rcu-stall", way: CrashSoftLockup, sysctls: map[string]string{"kernel.watchdog": "0", "kernel.panic_on_rcu_stall": "1"},
			append: []string{"rcupdate.rcu_cpu_stall_timeout=4"}, headline: "self-detected stall on CPU", last: stopped},
		// The other kernels' clocks stand still while the emulated CPU spins, so they notice nothing.
		{name: "irqs-off", way: CrashIRQsOff, sysctls: map[string]string{"kernel.watchdog": "0", "kernel.panic_on_rcu_stall": "1"},
			append: []string{"rcupdate.rcu_cpu_stall_timeout=4", "nohz=off"}, cpus: 2, kernels: []string{"6.12", "6.1-arm64"},
			headline: "detected stalls on CPUs/tasks:", last: stopped},
		// The kernel in which another CPU does what elsewhere takes a performance counter. It waits ten seconds for a backtrace, and
		// longer on a busy host; much longer than that would be another incident.
		{name: "hardlockup", way: CrashIRQsOff, sysctls: map[string]string{"kernel.watchdog_thresh": "3", "kernel.hardlockup_panic": "1"},
			append: []string{"nohz=off"}, cpus: 2, kernels: []string{"6.12-arm64"},
			headline: "Watchdog detected hard LOCKUP on cpu ", last: stopped},
		{name: "hung-task", way: CrashHungTask, sysctls: map[string]string{"kernel.hung_task_timeout_secs": "3", "kernel.hung_task_panic": "1"},
			headline: "INFO: task lastgasp_hung:", last: stopped},
		{name: "panic-on-warn", way: CrashWarn, sysctls: map[string]string{"kernel.panic_on_warn": "1"}, headline: "panic_on_warn set", last: stopped},
		{name: "panic-on-oom", do: outOfMemory, sysctls: map[string]string{"vm.panic_on_oom": "1"}, headline: "Kernel panic - not syncing: Out of memory", last: stopped},

		// Sick: the machine goes on.
		{name: "null-deref-survived", way: CrashNullDeref, headline: "BUG: kernel NULL pointer dereference, address: 0000000000000000", arm64: "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000"},
		{name: "gpf-survived", way: CrashGPF, headline: "general protection fault, probably for non-canonical address", arm64: "Unable to handle kernel paging request at virtual address dead000000000100"},
		{name: "softlockup-survived", way: CrashSoftLockup, sysctls: map[string]string{"kernel.watchdog_thresh": "3"}, headline: "watchdog: BUG: soft lockup - CPU#"},
		{name: "rcu-stall-survived", way: CrashSoftLockup, sysctls: map[string]string{"kernel.watchdog": "0"},
			append: []string{"rcupdate.rcu_cpu_stall_timeout=4"}, headline: "self-detected stall on CPU"},
		{name: "hung-task-survived", way: CrashHungTask, sysctls: map[string]string{"kernel.hung_task_timeout_secs": "3"}, headline: "INFO: task lastgasp_hung:"},
		{name: "sched-atomic", way: CrashSchedAtomic, headline: "BUG: scheduling while atomic: "},
		{name: "warn", way: CrashWarn, headline: "only a warning"},
		{name: "netdev-leak", way: CrashNetdevLeak, headline: "unregister_netdevice: waiting for leaky0 to become free. Usage count = "},
		{name: "slab-exhaust", do: exhaustSlab, headline: "SLUB: Unable to allocate memory on "},
		{name: "oom", do: outOfMemory, headline: "Out of memory: Killed process "},

		// Healthy: a listener must not find a death here.
		{name: "big-record", way: CrashBigRecord, headline: "abcdefgh"},
		{name: "pr-cont", way: CrashPrCont, headline: "lastgasp_crash: one record in three pieces"},
		{name: "dev-dict", way: CrashDevDict, headline: "a record with a dictionary"},
		{name: "memcg-oom", do: cgroupOutOfMemory, headline: "Memory cgroup out of memory: Killed process "},
		{name: "modules", do: reloadModule, modules: []string{"tun"}, headline: "tun: Universal TUN/TAP device driver"},
		{name: "user-faults", do: userFaults, headline: "segfault at 8"},
		{name: "forged", do: forgePanic, headline: "Kernel panic - not syncing: forged"},
		{name: "poweroff", do: powerOff, headline: "lastgasp lab: armed"},
	}
}

// on returns sc as it happens on a kernel, or false if it does not happen there.
func (sc scenario) on(kernel string) (scenario, bool) {
	series, arch := kernelArch(kernel)
	if arch == "arm64" && sc.arm64 != "" {
		sc.headline = sc.arm64
	}
	return sc, len(sc.kernels) == 0 || slices.Contains(sc.kernels, series) || slices.Contains(sc.kernels, kernel)
}

// mute reports whether netconsole has nothing of sc on a kernel: since 7.0 it keeps silent in a panic that reboots.
func (sc scenario) mute(kernel string) bool {
	series, _ := kernelArch(kernel)
	return series == "7" && sc.last == rebooting
}

// pick returns the scenarios called names, in that order.
func pick(t *testing.T, names ...string) []scenario {
	t.Helper()
	byName := map[string]scenario{}
	for _, sc := range allScenarios() {
		byName[sc.name] = sc
	}
	var picked []scenario
	for _, name := range names {
		sc, ok := byName[name]
		if !ok {
			t.Fatalf("no scenario is called %q", name)
		}
		picked = append(picked, sc)
	}
	return picked
}

// with returns sc with another sysctl.
func (sc scenario) with(key, value string) scenario {
	sc.sysctls = maps.Clone(sc.sysctls)
	if sc.sysctls == nil {
		sc.sysctls = map[string]string{}
	}
	sc.sysctls[key] = value
	return sc
}

// start makes the scenario happen.
func (sc scenario) start(t *testing.T, ctx context.Context, vm *VM) {
	t.Helper()
	if sc.do != nil {
		sc.do(t, ctx, vm)
		return
	}
	if err := vm.Crash(ctx, sc.way); err != nil {
		t.Fatal(err)
	}
}

// mustRun runs a program that must end with one of the given codes.
func mustRun(t *testing.T, ctx context.Context, vm *VM, exit int, argv ...string) {
	t.Helper()
	r, err := vm.Run(ctx, argv...)
	if err != nil {
		t.Fatal(err)
	}
	if r.Exit != exit {
		t.Fatalf("%q ended with %d instead of %d: %s%s", argv, r.Exit, exit, r.Stdout, r.Stderr)
	}
}

// killed is the exit code of a program that the OOM killer has killed, faulted that of one with a segmentation fault.
const (
	killed  = 128 + 9
	faulted = 128 + 11
)

func outOfMemory(t *testing.T, ctx context.Context, vm *VM) {
	more := strconv.Itoa(2 * vm.spec.MemoryMiB)
	if err := vm.Start(ctx, "hog", more); err != nil { // nobody waits: the machine may panic
		t.Fatal(err)
	}
}

// exhaustSlab waits for the end: while memory is short, netconsole may have none for its datagrams, either.
func exhaustSlab(t *testing.T, ctx context.Context, vm *VM) {
	mustRun(t, ctx, vm, 0, "insmod", control.CrashModule, "way="+string(CrashSlabExhaust))
}

func cgroupOutOfMemory(t *testing.T, ctx context.Context, vm *VM) {
	const group = "/sys/fs/cgroup/pod"
	if err := vm.WriteFile(ctx, "/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory"), 0); err != nil {
		t.Fatal(err)
	}
	if err := vm.Mkdir(ctx, group); err != nil {
		t.Fatal(err)
	}
	if err := vm.WriteFile(ctx, group+"/memory.max", []byte("64M"), 0); err != nil {
		t.Fatal(err)
	}
	mustRun(t, ctx, vm, killed, "hog", "128", group)
}

func reloadModule(t *testing.T, ctx context.Context, vm *VM) {
	mustRun(t, ctx, vm, 0, "rmmod", "tun")
	mustRun(t, ctx, vm, 0, "modprobe", "tun")
}

func userFaults(t *testing.T, ctx context.Context, vm *VM) {
	mustRun(t, ctx, vm, faulted, "fault", "non-canonical")
	mustRun(t, ctx, vm, faulted, "fault")
}

func forgePanic(t *testing.T, ctx context.Context, vm *VM) {
	for _, line := range []string{
		"<0>BUG: kernel NULL pointer dereference, address: 0000000000000000\n",
		"<0>Oops: 0002 [#1] SMP NOPTI\n",
		"<0>Kernel panic - not syncing: forged\n",
	} {
		if err := vm.WriteFile(ctx, "/dev/kmsg", []byte(line), 0); err != nil {
			t.Fatal(err)
		}
	}
}

func powerOff(t *testing.T, ctx context.Context, vm *VM) {
	if err := vm.Start(ctx, "poweroff"); err != nil {
		t.Fatal(err)
	}
	if err := vm.Wait(ctx); err != nil {
		t.Fatal(err)
	}
}
