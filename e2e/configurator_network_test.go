//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// keepsUpWithTheNetwork changes the way from the guest to a while watch runs, in every way we know. After each change a canary
// must reach a again, through the kernel.
func keepsUpWithTheNetwork(t *testing.T, g *guest, a *fakeListener) {
	g.write(t, config, fmt.Sprintf("endpoint: {static: [%q]}\n", a.String()))
	a.forget()
	defer g.startWatch(t)()
	g.awaitHeard(t, a, "eth0")

	for _, step := range []struct {
		name   string
		do     func(t *testing.T)
		device string // that the target sends through afterwards
	}{
		{"the gateway has another hardware address", func(t *testing.T) {
			if err := g.net.MoveGateway(net.HardwareAddr{0x02, 0, 0, 0, 0x77, 0x01}); err != nil {
				t.Fatal(err)
			}
		}, "eth0"},
		{"the card is unplugged and plugged in again", func(t *testing.T) {
			g.write(t, "/sys/class/net/eth0/device/../remove", "1") // of the PCI device
			g.write(t, "/sys/bus/pci/rescan", "1")
			g.guestRun(t, "network", "eth0")
		}, "eth0"},
		{"the device is renamed", func(t *testing.T) {
			g.guestRun(t, "link", "rename", "eth0", "uplink")
			g.guestRun(t, "network", "uplink")
		}, "uplink"},
		{"the device becomes a bond's", func(t *testing.T) {
			g.guestRun(t, "link", "bond", "uplink", "pair")
			g.guestRun(t, "network", "pair")
		}, "pair"},
		{"the bond becomes a bridge's", func(t *testing.T) {
			g.guestRun(t, "link", "bridge", "pair", "br0")
			g.guestRun(t, "network", "br0")
		}, "br0"},
		{"a device on top of the bridge takes over", func(t *testing.T) {
			g.guestRun(t, "link", "macvlan", "br0", "upper")
			g.guestRun(t, "network", "upper")
		}, "upper"},
	} {
		if !t.Run(step.name, func(t *testing.T) {
			a.forget()
			step.do(t)
			g.awaitHeard(t, a, step.device)
		}) {
			return // each begins where the one before has ended
		}
	}
	want := "0" // 6.1's virtio_net has no byte queue limits
	if g.kernel.Name != "6.1" {
		want = "262144"
	}
	if got := g.read(t, "/sys/class/net/uplink/queues/tx-0/byte_queue_limits/limit_min"); got != want {
		t.Errorf("limit_min of the card below them all is %s, want %s", got, want)
	}
}

// guestRun runs one of the guest's own programs.
func (g *guest) guestRun(t *testing.T, argv ...string) {
	t.Helper()
	r, err := g.vm.Run(t.Context(), argv...)
	if err != nil {
		t.Fatal(err)
	}
	if r.Exit != 0 {
		t.Fatalf("%q ended with %d: %s", argv, r.Exit, r.Stderr)
	}
}

// awaitHeard waits until a has acknowledged a canary since it forgot, and the one target that is armed sends through
// device to the gateway.
func (g *guest) awaitHeard(t *testing.T, a *fakeListener, device string) {
	t.Helper()
	start := time.Now()
	eventually(t, "a canary", func() error {
		if !a.heardCanary() {
			return errors.New("none has arrived")
		}
		return nil
	})
	heard := time.Since(start)
	eventually(t, "the target to be right", func() error {
		s := g.status(t)
		if s.Verdict != "covered" || len(s.Targets) != 1 || !s.Targets[0].Enabled || s.Targets[0].Device != device ||
			s.Targets[0].RemoteMAC != g.net.GatewayMAC().String() {
			return fmt.Errorf("status is %+v", s)
		}
		return nil
	})
	t.Logf("heard again after %v, and all was right after %v", heard.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
}

func (e *fakeListener) heardCanary() bool {
	records, _ := e.recall()
	return slices.ContainsFunc(records, func(text string) bool {
		_, ok := netconsole.ParseCanary(text)
		return ok
	})
}
