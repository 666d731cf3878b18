//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// TestConfiguratorIsQuiet makes a hundred pods come and go in a minute while watch runs. None of them is on the way to a
// listener, so there must be no pass, no canary, and nothing in the kernel's log.
func TestConfiguratorIsQuiet(t *testing.T) {
	g := newGuest(t, "6.12", lab.VMSpec{Modules: []string{"veth"}})
	a := newFakeListener(t, g.net, lab.ListenerAddr.Addr())
	g.write(t, config, fmt.Sprintf("endpoint: {static: [%q]}\ncanary: {interval: 1h}\n", a.String()))
	defer g.startWatch(t)()
	g.awaitTargets(t, "lastgasp-10.77.2.10-1")
	eventually(t, "the first pass", func() error {
		if v := g.status(t).Verdict; v != "covered" {
			return fmt.Errorf("verdict %s", v)
		}
		return nil
	})
	passes := func() int {
		return strings.Count(g.read(t, lab.LogPath("lastgasp-configurator")), "running a pass")
	}
	a.awaitQuiet(t)
	before := passes() // what the guest's own start has brought about
	a.forget()
	g.guestRun(t, "pods", "100", "600ms")
	records, _ := a.awaitQuiet(t)
	for _, text := range records {
		if _, ok := netconsole.ParseCanary(text); ok {
			t.Errorf("a canary: %s", text)
		}
	}
	if n := passes() - before; n > 0 {
		t.Errorf("%d passes:\n%s", n, g.read(t, lab.LogPath("lastgasp-configurator")))
	}
	// It still notices what does matter.
	g.write(t, configfs+"/lastgasp-10.77.2.10-1/enabled", "0")
	g.awaitTargets(t, "lastgasp-10.77.2.10-2")
}
