//go:build e2e

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"strings"
	"testing"
	"time"
)

// labTimeout bounds one test, with its first fetch of a kernel, and scenarioTimeout what happens to a guest once it is armed.
const (
	labTimeout      = 15 * time.Minute
	scenarioTimeout = 6 * time.Minute
)

// fixtureIdentity is the userdata in the fixtures, beside the boot id.
var fixtureIdentity = map[string]string{
	"instance": "i-0123456789abcdef0",
	"gasp":     "bGFzdGdhc3AtZml4dHVyZQ", // 128 bits, not really secret
}

// The listener's ports: one for each format.
const (
	extendedPort = 6666
	basicPort    = 6667
)

func TestKernelsAreHeardThroughTheRouter(t *testing.T) {
	tests := []struct {
		kernel    string
		scenarios []scenario
	}{
		{"6.1", pick(t, "sysrq", "sysrq-panic5", "null-deref", "null-deref-panic5")},
		{"6.12", pick(t, "sysrq", "sysrq-panic5", "null-deref", "null-deref-panic5", "panic-multiline", "softlockup", "hung-task", "oops-in-irq", "big-record")},
		{"7", pick(t, "sysrq", "null-deref", "null-deref-survived")},
	}
	for _, tt := range tests {
		t.Run(tt.kernel, func(t *testing.T) {
			for _, sc := range tt.scenarios {
				t.Run(sc.name, func(t *testing.T) {
					h := captureScenario(t, tt.kernel, sc)
					for _, d := range h.extended.Datagrams() {
						if d.Source.Addr() != GuestAddr.Addr() {
							t.Errorf("a datagram came from %s, not from the guest: %q", d.Source, d.Payload)
						}
					}
				})
			}
		})
	}
}

func TestKernel7IsMuteWhenAPanicReboots(t *testing.T) {
	for _, sc := range pick(t, "sysrq", "null-deref") {
		sc = sc.with("kernel.panic", "5")
		t.Run(sc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), labTimeout)
			defer cancel()
			g := arm(t, ctx, "7", sc)
			sc.start(t, ctx, g.vm)
			if err := g.vm.Wait(ctx); err != nil {
				t.Fatal(err)
			}
			serial, err := os.ReadFile(g.vm.Serial())
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(serial, []byte(rebooting)) {
				t.Error("the kernel has not said on its serial console that it panics")
			}
			for _, c := range []*Capture{g.basic, g.extended} {
				for _, d := range c.Datagrams() {
					if bytes.Contains(d.Payload, []byte("panic")) {
						t.Errorf("the kernel can be heard after all: %q", d.Payload)
					}
				}
			}
		})
	}
}

func TestGuestRebootsIntoANewBoot(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), labTimeout)
	defer cancel()
	vm := boot(t, ctx, VMSpec{Kernel: fetch(t, ctx, "6.12"), Reboot: true, Sysctls: map[string]string{"kernel.panic": "1"}})
	before := vm.BootID()
	if err := vm.Crash(ctx, CrashSysrq); err != nil {
		t.Fatal(err)
	}
	if err := vm.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	file, err := vm.ReadFile(ctx, "/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	after := strings.TrimSpace(string(file))
	if after == before || after != vm.BootID() {
		t.Errorf("boot ids: %s before, %s announced after, %s read after", before, vm.BootID(), after)
	}
}

func TestGuestControl(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), labTimeout)
	defer cancel()
	vm := boot(t, ctx, VMSpec{
		Kernel: fetch(t, ctx, "6.1"),
		Files:  map[string]GuestFile{"/opt/there/data": {Data: []byte("carried"), Mode: 0o600}},
		SMBIOS: []string{"type=1,serial=lab-serial"},
	})

	t.Run("files written are read back whole", func(t *testing.T) {
		want := bytes.Repeat([]byte("0123456789abcdef"), 10_000) // several messages
		if err := vm.WriteFile(ctx, "/tmp/big", want, 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := vm.ReadFile(ctx, "/tmp/big")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("wrote %d bytes, read %d others", len(want), len(got))
		}
	})
	t.Run("files of the spec are there", func(t *testing.T) {
		got, err := vm.ReadFile(ctx, "/opt/there/data")
		if err != nil || string(got) != "carried" {
			t.Errorf("read %q, %v", got, err)
		}
	})
	t.Run("directories come and go", func(t *testing.T) {
		if err := vm.Mkdir(ctx, "/tmp/dir"); err != nil {
			t.Fatal(err)
		}
		if err := vm.Mkdir(ctx, "/tmp/dir"); err == nil {
			t.Error("no error for a directory that is there already")
		}
		if err := vm.Remove(ctx, "/tmp/dir"); err != nil {
			t.Fatal(err)
		}
		if _, err := vm.ReadFile(ctx, "/tmp/dir"); err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("after removal: %v", err)
		}
	})
	t.Run("the firmware says what the spec says", func(t *testing.T) {
		got, err := vm.ReadFile(ctx, "/sys/class/dmi/id/product_serial")
		if err != nil || string(got) != "lab-serial\n" {
			t.Errorf("read %q, %v", got, err)
		}
	})
	t.Run("programs get environment and input", func(t *testing.T) {
		env, err := vm.RunProgram(ctx, Program{Argv: []string{"env"}, Env: []string{"COLOUR=blue"}})
		if err != nil || !strings.Contains(env.Stdout, "COLOUR=blue\n") || !strings.Contains(env.Stdout, "PATH=/sbin:") {
			t.Errorf("env printed %q, %v", env.Stdout, err)
		}
		cat, err := vm.RunProgram(ctx, Program{Argv: []string{"cat"}, Stdin: []byte("a line")})
		if err != nil || cat.Stdout != "a line" {
			t.Errorf("cat printed %q, %v", cat.Stdout, err)
		}
	})
	t.Run("programs that fail say so", func(t *testing.T) {
		r, err := vm.Run(ctx, "modprobe", "no-such-module")
		if err != nil {
			t.Fatal(err)
		}
		if r.Exit != 1 || !strings.Contains(r.Stderr, "load no-such-module: module not found") {
			t.Errorf("modprobe ended with %d and said %q", r.Exit, r.Stderr)
		}
	})
	t.Run("programs left running write to their log", func(t *testing.T) {
		if err := vm.Start(ctx, "hog", "1"); err != nil {
			t.Fatal(err)
		}
		until(t, ctx, func() bool {
			log, err := vm.ReadFile(ctx, LogPath("hog"))
			return err == nil && string(log) == "touched 1 MiB\n"
		})
	})
	t.Run("a program that is not there is an error", func(t *testing.T) {
		if _, err := vm.Run(ctx, "no-such-program"); err == nil {
			t.Error("no error")
		}
	})
	t.Run("an end before the answer is an error", func(t *testing.T) {
		vm.Kill()
		if _, err := vm.Run(ctx, "dmesg"); !errors.Is(err, errGone) {
			t.Errorf("got error %v, want %v", err, errGone)
		}
	})
}

// fetch returns a kernel.
func fetch(t *testing.T, ctx context.Context, name string) *Kernel {
	t.Helper()
	k, err := FetchKernel(ctx, t, name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// boot boots a guest in a network of its own.
func boot(t *testing.T, ctx context.Context, spec VMSpec) *VM {
	t.Helper()
	if spec.Net == nil {
		n, err := NewNet(t)
		if err != nil {
			t.Fatal(err)
		}
		spec.Net = n
	}
	vm, err := BootVM(ctx, t, spec)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// armed is a guest with two netconsole targets, and captures of what they send.
type armed struct {
	vm              *VM
	basic, extended *Capture
}

// arm boots a guest for a scenario and arms it as the configurator would, but by hand.
func arm(t *testing.T, ctx context.Context, kernel string, sc scenario) *armed {
	t.Helper()
	k := fetch(t, ctx, kernel)
	ko, err := BuildCrashModule(ctx, t, k)
	if err != nil {
		t.Fatal(err)
	}
	n, err := NewNet(t)
	if err != nil {
		t.Fatal(err)
	}
	g := &armed{}
	for port, c := range map[uint16]**Capture{basicPort: &g.basic, extendedPort: &g.extended} {
		if *c, err = NewCapture(t, n.Listener, netip.AddrPortFrom(ListenerAddr.Addr(), port)); err != nil {
			t.Fatal(err)
		}
	}
	g.vm = boot(t, ctx, VMSpec{Kernel: k, Net: n, CrashModule: ko, CPUs: sc.cpus, Sysctls: sc.sysctls, Append: sc.append, Modules: sc.modules})
	mustRun(t, ctx, g.vm, 0, "modprobe", "netconsole")
	g.target(t, ctx, n, "basic", basicPort)
	g.target(t, ctx, n, "extended", extendedPort)
	g.mark(t, ctx, "armed")
	return g
}

// target makes and enables a netconsole target, a directory of configfs (Documentation/networking/netconsole.rst). The
// one called extended says who it is, as far as the kernel can.
func (g *armed) target(t *testing.T, ctx context.Context, n *Net, name string, port uint16) {
	t.Helper()
	dir := path.Join("/sys/kernel/config/netconsole", name)
	write := func(attribute, value string) {
		t.Helper()
		if err := g.vm.WriteFile(ctx, path.Join(dir, attribute), []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	mkdir := func(dir string) {
		t.Helper()
		if err := g.vm.Mkdir(ctx, dir); err != nil {
			t.Fatal(err)
		}
	}
	mkdir(dir)
	write("dev_name", "eth0")
	write("local_ip", GuestAddr.Addr().String())
	write("remote_ip", ListenerAddr.Addr().String())
	write("remote_port", fmt.Sprint(port))
	write("remote_mac", n.GatewayMAC().String())
	if name == "extended" {
		write("extended", "1")
		if g.vm.spec.Kernel.Series != "6.1" { // release came with 6.6, userdata with 6.9
			write("release", "1")
			identity := map[string]string{"boot": g.vm.BootID()}
			for key, value := range fixtureIdentity {
				identity[key] = value
			}
			for _, key := range []string{"instance", "boot", "gasp"} {
				mkdir(path.Join(dir, "userdata", key))
				write(path.Join("userdata", key, "value"), identity[key])
			}
		}
	}
	write("enabled", "1")
}

// awaitRecord waits until a record that contains text, and all records before it, have arrived in both formats.
func (g *armed) awaitRecord(t *testing.T, ctx context.Context, text string) {
	t.Helper()
	for _, c := range []*Capture{g.basic, g.extended} {
		if _, err := c.Await(ctx, text); err != nil {
			t.Fatal(err)
		}
	}
}

// awaitSerial waits until text is on the serial console.
func (g *armed) awaitSerial(t *testing.T, ctx context.Context, text string) {
	t.Helper()
	until(t, ctx, func() bool {
		serial, err := os.ReadFile(g.vm.Serial())
		return err == nil && bytes.Contains(serial, []byte(text))
	})
}

// mark writes a record of the lab's own into the guest's log, and waits until it has arrived.
func (g *armed) mark(t *testing.T, ctx context.Context, word string) {
	t.Helper()
	text := "lastgasp lab: " + word
	if err := g.vm.WriteFile(ctx, "/dev/kmsg", []byte("<5>"+text+"\n"), 0); err != nil {
		t.Fatal(err)
	}
	g.awaitRecord(t, ctx, text)
}

// captureScenario runs a scenario on a kernel and returns when the last records have arrived in both formats, or are on the serial
// console if the scenario is mute there. It fails if the headline is missing.
func captureScenario(t *testing.T, kernel string, sc scenario) *armed {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), labTimeout)
	defer cancel()
	g := arm(t, ctx, kernel, sc)
	ctx, cancel = context.WithTimeout(ctx, scenarioTimeout)
	defer cancel()
	sc.start(t, ctx, g.vm)
	if sc.mute(kernel) {
		g.awaitSerial(t, ctx, sc.headline)
		g.awaitSerial(t, ctx, sc.last)
		return g
	}
	g.awaitRecord(t, ctx, sc.headline)
	switch {
	case sc.last != "":
		g.awaitRecord(t, ctx, sc.last)
		g.awaitSerial(t, ctx, sc.last) // it is slower
	case sc.name != "poweroff":
		g.mark(t, ctx, "survived") // comes after the kernel's own records
	}
	return g
}

// until polls for a condition.
func until(t *testing.T, ctx context.Context, condition func() bool) {
	t.Helper()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for !condition() {
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatalf("wait for a condition: %v", ctx.Err())
		}
	}
}
