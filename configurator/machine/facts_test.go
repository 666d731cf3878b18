package machine

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

func TestFactsAreRead(t *testing.T) {
	w := newWorld(t)
	w.write(t, "proc/sys/kernel/panic", "-1")
	w.write(t, "sys/kernel/kexec_crash_loaded", "1")
	w.write(t, kdumpNotifiersFile, "Y")
	w.write(t, "sys/module/printk/parameters/ignore_loglevel", "N")
	w.write(t, "sys/module/netconsole/parameters/oops_only", "1")
	want := Facts{
		Facts:          netconsole.Facts{Kernel: "6.12.117-cloud-amd64", Panic: -1, PanicOnOops: true, Kdump: true, ConsoleLevel: 7, Version: "v1"},
		KdumpNotifiers: true, Devkmsg: "ratelimit", OopsOnly: true,
	}
	if diff := cmp.Diff(want, w.root.Facts("v1")); diff != "" {
		t.Errorf("facts (-want +got):\n%s", diff)
	}
	w.write(t, "sys/module/lastgasp/parameters/unmutes", "Y")
	want.Unmuted = true
	if diff := cmp.Diff(want, w.root.Facts("v1")); diff != "" {
		t.Errorf("facts with the module (-want +got):\n%s", diff)
	}
	for _, file := range []string{"proc/sys/kernel/ftrace_enabled", "sys/kernel/debug/kprobes/enabled"} {
		w.write(t, file, "0")
		if w.root.Facts("v1").Unmuted {
			t.Errorf("the module does nothing with %s=0", file)
		}
		w.write(t, file, "1")
		if diff := cmp.Diff(want, w.root.Facts("v1")); diff != "" {
			t.Errorf("facts with the module and %s=1 (-want +got):\n%s", file, diff)
		}
	}
	if bare := Root(t.TempDir()).Facts("v1"); bare.ConsoleLevel != 7 || bare.Kernel == "" {
		t.Errorf("facts of a machine that shows nothing: %+v", bare)
	}
}

func TestCanaryLevel(t *testing.T) {
	for _, tt := range []struct {
		name   string
		facts  Facts
		level  int
		passes bool
	}{
		{"the default", Facts{Facts: netconsole.Facts{ConsoleLevel: 7}}, 6, true},
		{"everything is shown", Facts{Facts: netconsole.Facts{ConsoleLevel: 15}}, 7, true},
		{"quiet", Facts{Facts: netconsole.Facts{ConsoleLevel: 4}}, 3, true},
		{"alerts and worse", Facts{Facts: netconsole.Facts{ConsoleLevel: 2}}, 1, true},
		{"only emergencies, which would be shown on every terminal", Facts{Facts: netconsole.Facts{ConsoleLevel: 1}}, 0, false},
		{"the level is ignored", Facts{Facts: netconsole.Facts{ConsoleLevel: 1}, IgnoreLoglevel: true}, 7, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			level, passes := tt.facts.CanaryLevel()
			if level != tt.level || passes != tt.passes {
				t.Errorf("%d, %t; want %d, %t", level, passes, tt.level, tt.passes)
			}
		})
	}
}

func TestFindings(t *testing.T) {
	good := []configfs.State{target("lastgasp-10.0.2.10-1", true)}
	broadcast, bare := target("t", true), target("t", true)
	broadcast.RemoteMAC = []byte{255, 255, 255, 255, 255, 255}
	bare.Userdata = nil
	with := func(change func(f *Facts)) Facts { f := goodFacts; change(&f); return f }
	for _, tt := range []struct {
		name  string
		facts Facts
		armed []configfs.State
		want  []string // "MUTE " or "weak ", and how it begins
	}{
		{name: "a 6.12 node as the kubelet leaves it", facts: goodFacts, armed: good},
		{name: "a 7.2 node as the kubelet leaves it", armed: good,
			facts: with(func(f *Facts) { f.Kernel = "7.2.13+deb14-cloud-amd64" }),
			want:  []string{"MUTE kernel.panic is 10 on kernel 7.2.13"}},
		{name: "a 7.2 node that holds", armed: good,
			facts: with(func(f *Facts) { f.Kernel, f.Panic = "7.2.13", 0 })},
		{name: "a 7.3 node with kdump", armed: good,
			facts: with(func(f *Facts) { f.Kernel, f.Panic, f.Kdump, f.KdumpNotifiers = "7.3.4", 0, true, true }),
			want:  []string{"MUTE a kdump kernel is loaded on kernel 7.3.4"}},
		{name: "a 7.3 node with our module", armed: good,
			facts: with(func(f *Facts) { f.Kernel, f.Unmuted = "7.3.4", true })},
		{name: "a 7.3 node with our module and an instant reset", armed: good,
			facts: with(func(f *Facts) { f.Kernel, f.Unmuted, f.Panic = "7.3.4", true, -1 })},
		{name: "a 7.3 node with our module and kdump", armed: good,
			facts: with(func(f *Facts) { f.Kernel, f.Unmuted, f.Kdump = "7.3.4", true, true }),
			want:  []string{"weak a kdump kernel is loaded without crash_kexec_post_notifiers"}},
		{name: "a 6.12 node with kdump", armed: good,
			facts: with(func(f *Facts) { f.Kdump = true }),
			want:  []string{"weak a kdump kernel is loaded without crash_kexec_post_notifiers"}},
		{name: "a 6.12 node with kdump and notifiers", armed: good,
			facts: with(func(f *Facts) { f.Kdump, f.KdumpNotifiers = true, true })},
		{name: "an instant reset", armed: good,
			facts: with(func(f *Facts) { f.Panic = -1 }),
			want:  []string{"weak kernel.panic is -1"}},
		{name: "oopses only", armed: good,
			facts: with(func(f *Facts) { f.OopsOnly = true }),
			want:  []string{"MUTE netconsole has oops_only=1"}},
		{name: "a console that hides the canary", armed: good,
			facts: with(func(f *Facts) { f.ConsoleLevel = 1 }),
			want:  []string{"weak the console level is 1"}},
		{name: "a console that hides errors", armed: good,
			facts: with(func(f *Facts) { f.ConsoleLevel = 3 }),
			want:  []string{"weak the console level is 3"}},
		{name: "a console that shows warnings only if they are called errors", armed: good,
			facts: with(func(f *Facts) { f.ConsoleLevel = 4 }),
			want:  []string{"weak the console level is 4"}},
		{name: "a console that shows warnings", armed: good,
			facts: with(func(f *Facts) { f.ConsoleLevel = 5 })},
		{name: "a kernel that throws canaries away", armed: good,
			facts: with(func(f *Facts) { f.Devkmsg = "off" }),
			want:  []string{"weak kernel.printk_devkmsg is off"}},
		{name: "nothing armed", facts: goodFacts, want: []string{"MUTE no target is armed"}},
		{name: "the only target disabled", facts: goodFacts,
			armed: []configfs.State{target("t", false)},
			want:  []string{"MUTE t is disabled"}},
		{name: "both disabled, as when their card is unplugged", facts: goodFacts,
			armed: []configfs.State{target("t", false), target("u", false)},
			want:  []string{"MUTE t is disabled", "MUTE u is disabled"}},
		{name: "one disabled, the other to the kernel's default address", facts: goodFacts,
			armed: []configfs.State{target("u", false), broadcast},
			want:  []string{"MUTE u is disabled", "MUTE t sends to the hardware address ff:ff:ff:ff:ff:ff"}},
		{name: "one of two disabled", facts: goodFacts,
			armed: append([]configfs.State{target("t", false)}, good...),
			want:  []string{"weak t is disabled"}},
		{name: "the kernel's default address", facts: goodFacts,
			armed: []configfs.State{broadcast},
			want:  []string{"MUTE t sends to the hardware address ff:ff:ff:ff:ff:ff"}},
		{name: "a kernel without userdata", facts: with(func(f *Facts) { f.Kernel = "6.1.192" }),
			armed: []configfs.State{bare},
			want:  []string{"weak this kernel's netconsole has no userdata"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			found := Findings(tt.facts, tt.armed)
			var got []string
			for i, f := range found {
				kind := "weak "
				if f.Mute {
					kind = "MUTE "
				}
				if f.Cost == "" || f.Mend == "" {
					t.Errorf("%q has no cost or no remedy", f.What)
				}
				line := kind + f.What
				if i < len(tt.want) && strings.HasPrefix(line, tt.want[i]) {
					line = tt.want[i]
				}
				got = append(got, line)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

// Node and listener must agree on which kernels are mute: the one says so here, the other by the canary's facts.
func TestFindingsAgreeWithTheCanary(t *testing.T) {
	armed := []configfs.State{target("t", true)}
	for _, kernel := range []string{"5.10.0", "6.1.192", "6.12.117", "6.19.0-rc1", "7.0.0", "7.3.4", "10.0.0", "weird"} {
		for _, panicTimeout := range []int{-1, 0, 10} {
			for bits := range 4 {
				f := goodFacts
				f.Kernel, f.Panic, f.Kdump, f.Unmuted = kernel, panicTimeout, bits&1 != 0, bits&2 != 0
				mute := false
				for _, found := range Findings(f, armed) {
					mute = mute || found.Mute
				}
				if said := f.Mute() != ""; mute != said {
					t.Errorf("%s with kernel.panic=%d kdump=%t unmuted=%t: findings say mute=%t, the canary %t", kernel, panicTimeout, f.Kdump, f.Unmuted, mute, said)
				}
			}
		}
	}
}

func TestLinkProblem(t *testing.T) {
	for _, tt := range []struct {
		name, flags, carrier, want string
	}{
		{"a device that sends", "0x1003", "1", ""},
		{"a cable that is unplugged", "0x1003", "0", "has no carrier"},
		{"a device that is down, whose carrier cannot be read", "0x1002", "", "is down"},
		{"a device that is gone", "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := world{Root(t.TempDir())}
			for name, text := range map[string]string{"flags": tt.flags, "carrier": tt.carrier} {
				if text != "" {
					w.write(t, "sys/class/net/eth0/"+name, text)
				}
			}
			if got := w.root.LinkProblem("eth0"); got != tt.want {
				t.Errorf("eth0 %q, want %q", got, tt.want)
			}
		})
	}
}

// Below a device there may be cards and others. One card that can send is enough.
func TestLinkProblemBelow(t *testing.T) {
	const on, off = "1", "0"
	for _, tt := range []struct {
		name, want string
		carriers   map[string]string // of the devices below br0; a card is called eth…
	}{
		{"a bridge of pods", "", map[string]string{"pod0": on}},
		{"a bridge with an uplink, among pods", "", map[string]string{"eth0": on, "pod0": off}},
		{"whose uplink is unplugged", "sends through eth0, which has no carrier", map[string]string{"eth0": off, "pod0": on}},
		{"one of whose uplinks is unplugged", "", map[string]string{"eth0": off, "eth1": on, "pod0": on}},
		{"all of whose uplinks are", "sends through eth0, which has no carrier", map[string]string{"eth0": off, "eth1": off}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := world{Root(t.TempDir())}
			w.write(t, "sys/class/net/br0/flags", "0x1003")
			w.write(t, "sys/class/net/br0/carrier", on)
			for name, carrier := range tt.carriers {
				w.write(t, "sys/class/net/br0/lower_"+name+"/x", "")
				w.write(t, "sys/class/net/"+name+"/flags", "0x1003")
				w.write(t, "sys/class/net/"+name+"/carrier", carrier)
				if strings.HasPrefix(name, "eth") {
					w.write(t, "sys/class/net/"+name+"/device/vendor", "0x1d0f")
				}
			}
			if got := w.root.LinkProblem("br0"); got != tt.want {
				t.Errorf("br0 %q, want %q", got, tt.want)
			}
			w.write(t, "sys/class/net/br0/device/vendor", "0x1414")
			if got := w.root.LinkProblem("br0"); got != "" {
				t.Errorf("br0 is a card itself, and %q", got)
			}
		})
	}
}

func TestMTUFindings(t *testing.T) {
	w := world{Root(t.TempDir())}
	for device, mtu := range map[string]string{"eth0": "1500\n", "eth1": "576\n", "eth2": "1048\n", "eth3": "1047\n", "eth4": "9001\n"} {
		w.write(t, "sys/class/net/"+device+"/mtu", mtu)
	}
	var got []string
	for _, f := range w.root.MTUFindings([]string{"eth3", "eth0", "eth1", "eth1", "eth2", "eth4", "gone"}) {
		got = append(got, f.String())
	}
	const cost = ": netconsole sends packets of up to 1048 bytes, and those that are longer than the MTU are lost; set an MTU of 1280 or more"
	if diff := cmp.Diff([]string{"the MTU of eth1 is 576" + cost, "the MTU of eth3 is 1047" + cost}, got); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

// TestModulesOfTheRunningKernelAreGone: a package manager has replaced them, and the machine was not rebooted since.
func TestModulesOfTheRunningKernelAreGone(t *testing.T) {
	w := newWorld(t)
	if f := w.root.NoNetconsole(); f.What != "this kernel has no netconsole module" {
		t.Errorf("without any modules: %s", f)
	}
	w.write(t, "lib/modules/6.12.118-cloud-amd64/modules.dep", "")
	if f := w.root.NoNetconsole(); f.What != "the modules of the running kernel 6.12.117-cloud-amd64 are gone" || !f.Mute {
		t.Errorf("after an upgrade: %s", f)
	}
}
