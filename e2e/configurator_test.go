//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	configfs = "/sys/kernel/config/netconsole"
	config   = "/etc/lastgasp/configurator.yaml"
)

// TestConfiguratorOnRealKernels leads one guest for each kernel through everything an operator does, and does wrong.
func TestConfiguratorOnRealKernels(t *testing.T) {
	for _, kernel := range []string{"6.1", "6.12"} {
		t.Run(kernel, func(t *testing.T) {
			g := newGuest(t, kernel, nil)
			a := newEar(t, g.net, lab.ListenerAddr.Addr())
			b := newEar(t, g.net, lab.APIServerAddr.Addr())
			userdata := kernel != "6.1"

			t.Run("a bad configuration changes nothing", func(t *testing.T) {
				g.write(t, config, "endpoint:\n  static: [10.77.2.300:6666]\n")
				r := g.run(t, 2, "apply")
				want := "lastgasp-configurator: " + config + `:2: endpoint.static: "10.77.2.300:6666": "10.77.2.300" is neither an address nor a host name; correct it` + "\n"
				if diff := cmp.Diff(want, r.Stderr); diff != "" {
					t.Errorf("stderr (-want +got):\n%s", diff)
				}
				if _, err := g.vm.ReadFile(t.Context(), "/run/lastgasp/gasp"); err == nil {
					t.Error("a secret was made")
				}
				g.write(t, config, "canary: {timeout: 1s}\n")
			})
			t.Run("an unknown flag and no listener are usage errors", func(t *testing.T) {
				g.run(t, 2, "apply", "--endpiont", a.String())
				g.run(t, 2, "apply")
			})
			t.Run("a node that nobody armed is mute", func(t *testing.T) {
				if r := g.run(t, 1, "status"); !strings.Contains(r.Stdout, "MUTE: no target is armed: ") {
					t.Errorf("status:\n%s", r.Stdout)
				}
			})
			t.Run("a kernel without the module cannot", func(t *testing.T) {
				restore := g.hideModule(t)
				if r := g.run(t, 4, "apply", "--endpoint", a.String()); !strings.Contains(r.Stderr, "netconsole") {
					t.Errorf("stderr: %s", r.Stderr)
				}
				restore()
			})
			t.Run("a dry run shows the whole tuple and arms nothing", func(t *testing.T) {
				r := g.run(t, 0, "apply", "--dry-run", "--endpoint", a.String())
				for _, want := range []string{"10.77.1.5:6665 on eth0 to " + a.String() + " via " + g.net.GatewayMAC().String()} {
					if !strings.Contains(r.Stdout, want) {
						t.Errorf("%q is not in\n%s", want, r.Stdout)
					}
				}
				g.wantTargets(t)
			})
			t.Run("a listener in another subnet is armed by way of the gateway and proved", func(t *testing.T) {
				g.run(t, 0, "apply", "--endpoint", a.String())
				g.wantTargets(t, "lastgasp-10.77.2.10-1")
				if mac := g.read(t, configfs+"/lastgasp-10.77.2.10-1/remote_mac"); mac != g.net.GatewayMAC().String() {
					t.Errorf("remote_mac is %s, the gateway's is %s", mac, g.net.GatewayMAC())
				}
				canary, record := a.last(t)
				if canary.Boot != g.vm.BootID() || canary.Facts.Kernel != g.kernel.Release {
					t.Errorf("canary %+v is not of this boot and kernel", canary)
				}
				id := record.Identity()
				switch {
				case userdata && (id.Boot != g.vm.BootID() || id.Instance != canary.Instance || len(id.Gasp) != 22):
					t.Errorf("identity of the record: %+v, secret of %d characters", id, len(id.Gasp))
				case userdata && record.Release != g.kernel.Release:
					t.Errorf("release %q", record.Release)
				case !userdata && id != netconsole.Identity{}:
					t.Errorf("a kernel without userdata said %+v", id)
				}
			})
			t.Run("the secret is for root only and never shown", func(t *testing.T) {
				gasp := strings.Fields(g.read(t, "/run/lastgasp/gasp"))[1]
				for _, args := range [][]string{{"status"}, {"status", "-o", "json"}, {"apply", "--dry-run", "-o", "json", "--endpoint", a.String()}} {
					r, err := g.vm.Run(t.Context(), append([]string{"/usr/bin/lastgasp-configurator"}, args...)...)
					if err != nil {
						t.Fatal(err)
					}
					if strings.Contains(r.Stdout+r.Stderr, gasp) {
						t.Errorf("%q shows it", args)
					}
				}
				if dmesg, err := g.vm.Dmesg(t.Context()); err != nil || strings.Contains(dmesg, gasp) {
					t.Errorf("the kernel log has it (%v)", err)
				}
			})
			t.Run("what is right is left alone", func(t *testing.T) {
				before, err := g.vm.Dmesg(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				g.run(t, 0, "apply", "--endpoint", a.String())
				after, err := g.vm.Dmesg(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, line := range strings.Split(strings.TrimPrefix(after, before), "\n") {
					if strings.Contains(line, "netconsole:") {
						t.Errorf("netconsole was touched: %s", line)
					}
				}
			})
			t.Run("status and verify say that all is well", func(t *testing.T) {
				r := g.run(t, 0, "status")
				for _, want := range []string{"covered: a panic of this node is heard", "static, flag --endpoint", a.String(), g.net.GatewayMAC().String()} {
					if !strings.Contains(r.Stdout, want) {
						t.Errorf("%q is not in\n%s", want, r.Stdout)
					}
				}
				t.Logf("status:\n%s", r.Stdout)
				if r := g.run(t, 0, "verify"); !strings.Contains(r.Stdout, "acknowledged in") {
					t.Errorf("verify:\n%s", r.Stdout)
				}
			})
			t.Run("verify names a listener that fell silent", func(t *testing.T) {
				a.setDeaf(true)
				defer a.setDeaf(false)
				if r := g.run(t, 1, "verify"); !strings.Contains(r.Stdout, a.String()) || !strings.Contains(r.Stdout, "likely") {
					t.Errorf("verify:\n%s%s", r.Stdout, r.Stderr)
				}
				if r := g.run(t, 1, "status"); !strings.Contains(r.Stdout, "unproven") {
					t.Errorf("status:\n%s", r.Stdout)
				}
			})
			t.Run("a reload to a silent listener leaves the old target", func(t *testing.T) {
				b.setDeaf(true)
				defer b.setDeaf(false)
				if r := g.run(t, 1, "apply", "--reload", "--endpoint", b.String()); !strings.Contains(r.Stderr, b.String()+": not acknowledged") {
					t.Errorf("stderr: %s", r.Stderr)
				}
				g.wantTargets(t, "lastgasp-10.77.2.10-1")
			})
			t.Run("a port where nothing listens is told from a silent one", func(t *testing.T) {
				closed := netip.AddrPortFrom(lab.ListenerAddr.Addr(), 6)
				if r := g.run(t, 1, "apply", "--endpoint", closed.String()); !strings.Contains(r.Stderr, "its machine answers that nothing listens on that port") {
					t.Errorf("stderr: %s", r.Stderr)
				}
				g.wantTargets(t, "lastgasp-10.77.2.10-1")
			})
			t.Run("a next hop that does not answer is unresolved and leaves the old target", func(t *testing.T) {
				if r := g.run(t, 3, "apply", "--endpoint", "10.77.1.99:6666"); !strings.Contains(r.Stderr, "10.77.1.99") {
					t.Errorf("stderr: %s", r.Stderr)
				}
				g.wantTargets(t, "lastgasp-10.77.2.10-1")
			})
			t.Run("a reload to a listener that answers replaces the old target", func(t *testing.T) {
				g.run(t, 0, "apply", "--reload", "--endpoint", b.String())
				g.wantTargets(t, "lastgasp-10.77.2.20-1")
			})
			t.Run("two listeners that share a source port are proved one by one", func(t *testing.T) {
				r := g.run(t, 0, "apply", "-o", "json", "--endpoint", a.String()+","+b.String())
				var state struct {
					Targets []struct {
						Listener netip.AddrPort
						LastAck  time.Time
					}
				}
				if err := json.Unmarshal([]byte(r.Stdout), &state); err != nil {
					t.Fatalf("%v in %s", err, r.Stdout)
				}
				for _, ts := range state.Targets {
					if ts.LastAck.IsZero() {
						t.Errorf("%s counts as never acknowledged", ts.Listener)
					}
				}
				if len(state.Targets) != 2 {
					t.Errorf("targets: %s", r.Stdout)
				}
			})
			t.Run("disarm takes away ours and nobody else's", func(t *testing.T) {
				if err := g.vm.Mkdir(t.Context(), configfs+"/admin"); err != nil {
					t.Fatal(err)
				}
				g.run(t, 0, "disarm")
				g.wantTargets(t)
				g.read(t, configfs+"/admin/enabled")
				g.run(t, 0, "disarm")
			})
			t.Run("watch re-arms what somebody disabled, and follows a drop-in", func(t *testing.T) {
				g.write(t, "/etc/lastgasp/configurator.d/50-user-data.yaml", fmt.Sprintf("endpoint: {static: [%q]}\n", a.String()))
				if err := g.vm.Start(t.Context(), "/usr/bin/lastgasp-configurator", "watch"); err != nil {
					t.Fatal(err)
				}
				g.awaitTargets(t, "lastgasp-10.77.2.10-1")
				g.write(t, configfs+"/lastgasp-10.77.2.10-1/enabled", "0")
				g.awaitTargets(t, "lastgasp-10.77.2.10-2")
				g.write(t, "/etc/lastgasp/configurator.d/90-late.yaml", fmt.Sprintf("endpoint: {static: [%q]}\n", b.String()))
				g.awaitTargets(t, "lastgasp-10.77.2.20-1")
			})
		})
	}
}

// TestConfiguratorSaysThatAKernelIsMute shows what it says, and mends if it may, where kernel.panic makes a kernel mute.
func TestConfiguratorSaysThatAKernelIsMute(t *testing.T) {
	g := newGuest(t, "7", map[string]string{"kernel.panic": "5"})
	a := newEar(t, g.net, lab.ListenerAddr.Addr())
	g.write(t, config, fmt.Sprintf("endpoint: {static: [%q]}\n", a.String()))

	const mute = "MUTE: kernel.panic is 5 on kernel "
	if r := g.run(t, 0, "apply"); !strings.Contains(r.Stderr, mute) {
		t.Errorf("apply: %s", r.Stderr)
	}
	if r := g.run(t, 0, "verify"); !strings.Contains(r.Stderr, mute) {
		t.Errorf("verify: %s", r.Stderr)
	}
	if r := g.run(t, 1, "status"); !strings.Contains(r.Stdout, mute) || !strings.Contains(r.Stdout, "would NOT be heard") {
		t.Errorf("status:\n%s", r.Stdout)
	}
	if canary, _ := a.last(t); canary.Facts.Mute() == "" {
		t.Errorf("the canary hides it: %+v", canary.Facts)
	}

	g.write(t, "/etc/lastgasp/configurator.d/hold.yaml", "panic: {hold: true}\n")
	g.run(t, 0, "apply")
	if got := g.read(t, "/proc/sys/kernel/panic"); got != "0" {
		t.Errorf("kernel.panic is %s though it is to be held", got)
	}
	if r := g.run(t, 0, "status"); !strings.Contains(r.Stdout, "/proc/sys/kernel/panic=0 (was 5)") {
		t.Errorf("status:\n%s", r.Stdout)
	}
	g.run(t, 0, "disarm")
	if got := g.read(t, "/proc/sys/kernel/panic"); got != "5" {
		t.Errorf("kernel.panic is %s after disarm", got)
	}
}

// guest is a machine with our configurator on it.
type guest struct {
	vm     *lab.VM
	net    *lab.Net
	kernel *lab.Kernel
}

func newGuest(t *testing.T, kernel string, sysctls map[string]string) *guest {
	t.Helper()
	k, err := lab.FetchKernel(t.Context(), t, kernel)
	if err != nil {
		t.Fatal(err)
	}
	n, err := lab.NewNet(t)
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "lastgasp-configurator")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin,
		"github.com/lastgasp/lastgasp/cmd/lastgasp-configurator")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	vm, err := lab.BootVM(t.Context(), t, lab.VMSpec{
		Kernel: k, Net: n, Sysctls: sysctls,
		Files: map[string]lab.GuestFile{
			"/usr/bin/lastgasp-configurator":  {Host: bin, Mode: 0o755},
			"/etc/lastgasp/configurator.yaml": {Data: []byte("# nothing yet\n")},
			// What the test writes later needs a folder to be there.
			"/etc/lastgasp/configurator.d/00-empty.yaml": {Data: []byte("# nothing\n")},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &guest{vm: vm, net: n, kernel: k}
}

// run runs the configurator, which must end with an exit code.
func (g *guest) run(t *testing.T, exit int, args ...string) lab.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := g.vm.Run(ctx, append([]string{"/usr/bin/lastgasp-configurator"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	if r.Exit != exit {
		t.Fatalf("%q ended with %d instead of %d:\n%s%s", args, r.Exit, exit, r.Stdout, r.Stderr)
	}
	return r
}

func (g *guest) write(t *testing.T, name, text string) {
	t.Helper()
	if err := g.vm.WriteFile(t.Context(), name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (g *guest) read(t *testing.T, name string) string {
	t.Helper()
	data, err := g.vm.ReadFile(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// targets are the names of our targets that are enabled, as status tells them.
func (g *guest) targets(t *testing.T) []string {
	t.Helper()
	r, err := g.vm.Run(t.Context(), "/usr/bin/lastgasp-configurator", "status", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var status struct {
		Targets []struct {
			Name    string
			Enabled bool
		}
	}
	if err := json.Unmarshal([]byte(r.Stdout), &status); err != nil {
		t.Fatalf("%v in %s%s", err, r.Stdout, r.Stderr)
	}
	var names []string
	for _, ts := range status.Targets {
		if ts.Enabled {
			names = append(names, ts.Name)
		}
	}
	return names
}

func (g *guest) wantTargets(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, g.targets(t)); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
}

// awaitTargets waits until exactly the targets named are armed.
func (g *guest) awaitTargets(t *testing.T, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for !slices.Equal(g.targets(t), want) {
		select {
		case <-again.C:
		case <-ctx.Done():
			log, _ := g.vm.ReadFile(t.Context(), lab.LogPath("lastgasp-configurator"))
			t.Fatalf("targets are %v, want %v; watch said:\n%s", g.targets(t), want, log)
		}
	}
}

// hideModule takes netconsole's module away until restore is called.
func (g *guest) hideModule(t *testing.T) (restore func()) {
	t.Helper()
	index := "/lib/modules/" + g.kernel.Release + "/modules.dep"
	dep := g.read(t, index)
	var rest []string
	for _, line := range strings.Split(dep, "\n") {
		if !strings.Contains(strings.SplitN(line, ":", 2)[0], "netconsole") {
			rest = append(rest, line)
		}
	}
	if len(rest) == len(strings.Split(dep, "\n")) {
		t.Fatalf("no netconsole in %s:\n%s", index, dep)
	}
	g.write(t, index, strings.Join(rest, "\n")+"\n")
	return func() { g.write(t, index, dep+"\n") }
}

// ear is a listener as small as can be: it acknowledges canaries and remembers the last.
type ear struct {
	conn *net.UDPConn

	mu     sync.Mutex
	deaf   bool
	canary netconsole.Canary
	record netconsole.Record
}

// newEar listens in the listener subnet until t ends.
func newEar(t *testing.T, n *lab.Net, at netip.Addr) *ear {
	t.Helper()
	e := &ear{}
	if err := n.Listener.Do(func() (err error) {
		e.conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 6666)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var hearing sync.WaitGroup
	hearing.Go(e.hear)
	t.Cleanup(func() {
		e.conn.Close()
		hearing.Wait()
	})
	return e
}

func (e *ear) String() string { return e.conn.LocalAddr().String() }

func (e *ear) hear() {
	streams := make(map[netip.AddrPort]*netconsole.Stream)
	buf := make([]byte, 2048)
	for {
		n, from, err := e.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if streams[from] == nil {
			streams[from] = new(netconsole.Stream)
		}
		streams[from].Push(time.Now(), buf[:n], func(r *netconsole.Record) { e.answer(r, from) })
	}
}

func (e *ear) answer(r *netconsole.Record, from netip.AddrPort) {
	e.mu.Lock()
	defer e.mu.Unlock()
	canary, ok := netconsole.ParseCanary(r.Text)
	if !ok || e.deaf {
		return
	}
	e.canary, e.record = canary, *r
	e.record.Fields = slices.Clone(r.Fields)
	e.conn.WriteToUDPAddrPort([]byte(netconsole.Ack{Nonce: canary.Nonce, Seq: r.Seq}.Line()), from)
}

func (e *ear) setDeaf(deaf bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.deaf = deaf
}

// last is the last canary that was acknowledged.
func (e *ear) last(t *testing.T) (netconsole.Canary, netconsole.Record) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.canary.Nonce == "" {
		t.Fatal("no canary has arrived")
	}
	return e.canary, e.record
}
