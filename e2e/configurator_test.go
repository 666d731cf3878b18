//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
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

// TestConfiguratorOnRealKernels does everything an operator does, or does wrong, in one guest for each kernel.
func TestConfiguratorOnRealKernels(t *testing.T) {
	for _, kernel := range []string{"6.1", "6.12", "6.12-arm64"} {
		t.Run(kernel, func(t *testing.T) {
			g := newGuest(t, kernel, lab.VMSpec{})
			a := newFakeListener(t, g.net, lab.ListenerAddr.Addr())
			b := newFakeListener(t, g.net, lab.APIServerAddr.Addr())
			userdata := kernel != "6.1"
			byteLimited := kernel != "6.1" // virtio_net has byte queue limits

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
				if r := g.run(t, 1, "status"); !strings.Contains(r.Stdout, "MUTE: netconsole is not loaded: ") {
					t.Errorf("status:\n%s", r.Stdout)
				}
			})
			t.Run("a kernel without the module is heard only after the fact", func(t *testing.T) {
				restore := g.hideModule(t)
				r := g.run(t, 0, "apply", "--endpoint", a.String())
				if !strings.HasPrefix(r.Stdout, a.String()+": nothing is armed, this kernel has no netconsole; heard only after the fact; acknowledged in ") ||
					!strings.Contains(r.Stderr, "lastgasp-configurator: MUTE: this kernel has no netconsole module: ") {
					t.Errorf("stdout: %sstderr: %s", r.Stdout, r.Stderr)
				}
				if canary, record := a.last(t); !canary.Facts.NoNetconsole || !record.FromConfigurator() || record.Identity().Secret == "" {
					t.Errorf("canary %+v in %+v", canary, record)
				}
				r = g.run(t, 1, "status")
				for _, want := range []string{"MUTE: this kernel has no netconsole module: ", "heard only after the fact: a panic of this node would NOT be heard"} {
					if !strings.Contains(r.Stdout, want) {
						t.Errorf("%q is not in\n%s", want, r.Stdout)
					}
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
				g.wantQueueRoom(t, byteLimited)
				if mac := g.read(t, configfs+"/lastgasp-10.77.2.10-1/remote_mac"); mac != g.net.GatewayMAC().String() {
					t.Errorf("remote_mac is %s, the gateway's is %s", mac, g.net.GatewayMAC())
				}
				canary, record := a.last(t)
				if canary.Boot != g.vm.BootID() || canary.Facts.Kernel != g.kernel.Release {
					t.Errorf("canary %+v is not of this boot and kernel", canary)
				}
				id := record.Identity()
				switch {
				case userdata && (id.Boot != g.vm.BootID() || id.Instance != canary.Instance || len(id.Secret) != 22):
					t.Errorf("identity of the record: %+v, secret of %d characters", id, len(id.Secret))
				case userdata && record.Release != g.kernel.Release:
					t.Errorf("release %q", record.Release)
				case !userdata && id != netconsole.Identity{}:
					t.Errorf("a kernel without userdata said %+v", id)
				}
			})
			t.Run("the secret is for root only and never shown", func(t *testing.T) {
				secret := strings.Fields(g.read(t, "/run/lastgasp/gasp"))[1]
				for _, args := range [][]string{{"status"}, {"status", "-o", "json"}, {"apply", "--dry-run", "-o", "json", "--endpoint", a.String()}} {
					r, err := g.vm.Run(t.Context(), append([]string{"/usr/bin/lastgasp-configurator"}, args...)...)
					if err != nil {
						t.Fatal(err)
					}
					if strings.Contains(r.Stdout+r.Stderr, secret) {
						t.Errorf("%q shows it", args)
					}
				}
				if dmesg, err := g.vm.Dmesg(t.Context()); err != nil || strings.Contains(dmesg, secret) {
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
			t.Run("a bad configuration hides nothing", func(t *testing.T) {
				g.write(t, config, "targets: many\n")
				if r := g.run(t, 0, "status"); !strings.Contains(r.Stdout, "covered: ") || !strings.Contains(r.Stdout, `targets: "many" is not a number`) {
					t.Errorf("status:\n%s", r.Stdout)
				}
				g.write(t, config, "canary: {timeout: 1s}\n")
			})
			t.Run("metrics say the same as status", func(t *testing.T) {
				if m := g.read(t, "/var/lib/lastgasp/metrics.prom"); !strings.Contains(m, `lastgasp_configurator_verdict{verdict="covered"} 1`) {
					t.Errorf("metrics:\n%s", m)
				}
			})
			t.Run("a listener whose cluster has no Node for this one makes it a stranger", func(t *testing.T) {
				a.setStranger(true)
				g.run(t, 0, "verify")
				if r := g.run(t, 1, "status"); !strings.Contains(r.Stdout, "stranger: ") {
					t.Errorf("status:\n%s", r.Stdout)
				}
				a.setStranger(false)
				g.run(t, 0, "verify")
				g.run(t, 0, "status")
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
				g.runSaying(t, 1, "its machine answers that nothing listens on that port", "apply", "--endpoint", closed.String())
				g.wantTargets(t, "lastgasp-10.77.2.10-1")
			})
			t.Run("a next hop that does not answer is unresolved and leaves the old target", func(t *testing.T) {
				if r := g.run(t, unresolved, "apply", "--endpoint", "10.77.1.99:6666"); !strings.Contains(r.Stderr, "10.77.1.99") {
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
				g.wantQueueRoom(t, false)
				g.read(t, configfs+"/admin/enabled")
				g.run(t, 0, "disarm")
			})
			t.Run("watch re-arms what somebody disabled, and follows a drop-in", func(t *testing.T) {
				g.write(t, config, "canary: {timeout: 20s}\n")
				g.write(t, "/etc/lastgasp/configurator.d/50-user-data.yaml", fmt.Sprintf("endpoint: {static: [%q]}\n", a.String()))
				defer g.startWatch(t)()
				g.awaitTargets(t, "lastgasp-10.77.2.10-1")
				g.write(t, configfs+"/lastgasp-10.77.2.10-1/enabled", "0")
				g.awaitTargets(t, "lastgasp-10.77.2.10-2")
				g.write(t, "/etc/lastgasp/configurator.d/90-late.yaml", fmt.Sprintf("endpoint: {static: [%q]}\n", b.String()))
				g.awaitTargets(t, "lastgasp-10.77.2.20-1")
			})
			t.Run("a drill asks, and then the listener hears the panic", func(t *testing.T) {
				r := g.run(t, 1, "drill")
				if !strings.Contains(r.Stdout, "is about to panic") || !strings.Contains(r.Stdout, "heard by "+b.String()) ||
					!strings.Contains(r.Stderr, "nobody answered; nothing was done") {
					t.Errorf("without an answer:\n%s%s", r.Stdout, r.Stderr)
				}
				b.setStranger(true)
				if r := g.run(t, 1, "drill", "--yes"); !strings.Contains(r.Stderr, "this node is stranger, so a drill would prove nothing") {
					t.Errorf("as a stranger: %s", r.Stderr)
				}
				b.setStranger(false)
				b.forget()
				if err := g.vm.Start(t.Context(), "/usr/bin/lastgasp-configurator", "drill", "--yes"); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the panic to be heard", func() error {
					records, _ := b.recall()
					for _, text := range records {
						if strings.Contains(text, "Kernel panic - not syncing: sysrq triggered crash") {
							return nil
						}
					}
					return fmt.Errorf("%d records", len(records))
				})
			})
		})
	}
}

// TestConfiguratorSaysThatAKernelIsMute checks what it says, and changes if it may, when kernel.panic makes a kernel mute.
func TestConfiguratorSaysThatAKernelIsMute(t *testing.T) {
	g := newGuest(t, "7", lab.VMSpec{Sysctls: map[string]string{"kernel.panic": "5"}})
	a := newFakeListener(t, g.net, lab.ListenerAddr.Addr())
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
