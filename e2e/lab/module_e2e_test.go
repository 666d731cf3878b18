//go:build e2e

package lab

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var matrix = flag.Bool("matrix", false, "run every trigger, number of CPUs and kernel.panic with lastgasp's kernel module, not a few")

// moduleCrash is a panic with lastgasp's kernel module loaded.
type moduleCrash struct {
	kernel  string
	trigger string // a scenario's name
	cpus    int
	panic   int    // kernel.panic
	kdump   string // with a crash kernel, the headline: an oops starts it before anything says panic; empty: without
	args    string // of the kernel
}

// crashesWithModule is a few of them, or with -matrix all.
func crashesWithModule() []moduleCrash {
	if !*matrix {
		return []moduleCrash{
			{kernel: "7", trigger: "null-deref", cpus: 2, panic: -1},
			{kernel: "7", trigger: "tx-lock", cpus: 2, panic: 1},
			{kernel: "6.12", trigger: "null-deref", cpus: 1, panic: 1},
			{kernel: "6.1", trigger: "sysrq", cpus: 1, panic: 1},
		}
	}
	var all []moduleCrash
	const panics = "Kernel panic - not syncing: sysrq triggered crash"
	all = append(all,
		// The other CPUs are stopped before __crash_kexec, and the log is printed once more when they are.
		moduleCrash{kernel: "7", trigger: "sysrq", cpus: 2, panic: 10, kdump: panics, args: "crash_kexec_post_notifiers"},
		moduleCrash{kernel: "7", trigger: "null-deref", cpus: 2, panic: 10, args: "panic_print=0x7f"},
	)
	for _, cpus := range []int{1, 2, 4} {
		const oops = "BUG: kernel NULL pointer dereference"
		all = append(all,
			moduleCrash{kernel: "7", trigger: "sysrq", cpus: cpus, panic: 10, kdump: panics},
			moduleCrash{kernel: "7", trigger: "null-deref", cpus: cpus, panic: 10, kdump: oops},
			moduleCrash{kernel: "7", trigger: "oops-in-irq", cpus: cpus, panic: 10, kdump: oops},
		)
	}
	for _, cpus := range []int{1, 2, 4} {
		for _, seconds := range []int{1, 10, -1} {
			for _, trigger := range []string{"sysrq", "init-exit", "panic-multiline", "null-deref", "oops-in-irq", "softlockup", "hung-task", "tx-lock"} {
				if trigger == "tx-lock" && cpus == 1 {
					continue // another CPU has to hold it
				}
				all = append(all, moduleCrash{kernel: "7", trigger: trigger, cpus: cpus, panic: seconds})
			}
		}
	}
	for _, kernel := range []string{"6.1", "6.12"} {
		for _, trigger := range []string{"sysrq", "null-deref", "oops-in-irq", "hung-task"} {
			all = append(all, moduleCrash{kernel: kernel, trigger: trigger, cpus: 2, panic: 1})
		}
	}
	return all
}

func (c moduleCrash) String() string {
	name := fmt.Sprintf("%s %s cpus=%d panic=%d", c.kernel, c.trigger, c.cpus, c.panic)
	if c.kdump != "" {
		name += " kdump"
	}
	if c.args != "" {
		name += " " + c.args
	}
	return name
}

// crashKernel marks the command line that the crash kernel prints.
const crashKernel = "lastgasp.crash-kernel"

// TestPanicModule makes kernels panic that have lastgasp's kernel module, and a second or ten to live, or none. The panic must
// be heard, with its culprit, and the machine must reboot. With kdump the crash kernel must run.
func TestPanicModule(t *testing.T) {
	for _, c := range crashesWithModule() {
		t.Run(c.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), labTimeout)
			defer cancel()
			sc := pick(t, c.trigger)[0].with("kernel.panic", fmt.Sprint(c.panic))
			sc.cpus = c.cpus
			if c.kdump != "" {
				sc.append = append(slices.Clone(sc.append), "crashkernel=192M")
			}
			if c.args != "" {
				sc.append = append(slices.Clone(sc.append), c.args)
			}
			vm, heard := armWithModule(t, ctx, c, sc)
			start := time.Now()
			sc.start(t, ctx, vm)
			if err := vm.Wait(ctx); err != nil { // a reset ends QEMU
				t.Fatal(err)
			}
			serial, err := os.ReadFile(vm.Serial())
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("reset after %.1f s", time.Since(start).Seconds())
			want := []string{sc.headline, "Kernel panic - not syncing: ", "lastgasp: culprit: "}
			if c.kdump != "" {
				want = []string{c.kdump, "lastgasp: culprit: "}
				if !bytes.Contains(serial, []byte(crashKernel)) {
					t.Error("the crash kernel has not run")
				}
			}
			for _, text := range want {
				if !bytes.Contains(serial, []byte(text)) {
					t.Errorf("the serial console has not shown %q", text)
				}
				soon, cancel := context.WithTimeout(ctx, time.Minute) // what was sent may not have been read yet
				if _, err := heard.Await(soon, text); err != nil {
					t.Error(err)
				}
				cancel()
			}
		})
	}
}

// armWithModule boots a guest for a scenario, with lastgasp's kernel module loaded and one extended target armed.
func armWithModule(t *testing.T, ctx context.Context, c moduleCrash, sc scenario) (*VM, *Capture) {
	t.Helper()
	k := fetch(t, ctx, c.kernel)
	crash, err := BuildCrashModule(ctx, t, k)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := BuildModule(ctx, t, k, "lastgasp", os.DirFS("../../packaging/kernel"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := NewNet(t)
	if err != nil {
		t.Fatal(err)
	}
	heard, err := NewCapture(t, n.Listener, netip.AddrPortFrom(ListenerAddr.Addr(), extendedPort))
	if err != nil {
		t.Fatal(err)
	}
	const ko, image = "/lib/lastgasp.ko", "/boot/vmlinuz"
	spec := VMSpec{Kernel: k, Net: n, CrashModule: crash, CPUs: sc.cpus, Sysctls: sc.sysctls, Append: sc.append,
		Files: map[string]GuestFile{ko: {Host: ours}}}
	if c.kdump != "" {
		spec.MemoryMiB, spec.Files[image] = 1024, GuestFile{Host: k.Image}
	}
	vm := boot(t, ctx, spec)
	if c.kdump != "" { // without a root file system this kernel panics, too, and reboots
		mustRun(t, ctx, vm, 0, "kdump", image, crashKernel+" panic=1 nr_cpus=1 "+strings.Join(spec.machine().append, " "))
	}
	mustRun(t, ctx, vm, 0, "modprobe", "netconsole")
	mustRun(t, ctx, vm, 0, "insmod", ko)
	g := &armed{vm: vm, extended: heard}
	g.target(t, ctx, n, "extended", extendedPort)
	const mark = "lastgasp lab: armed"
	if err := vm.WriteFile(ctx, "/dev/kmsg", []byte("<5>"+mark+"\n"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := heard.Await(ctx, mark); err != nil {
		t.Fatal(err)
	}
	return vm, heard
}
