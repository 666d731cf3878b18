//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

// TestOpenVSwitch gives the node's address to a port of Debian's Open vSwitch, as OpenShift and others do. What a flow of the
// datapath does not know is forwarded by a process, and none runs in a panic: nothing there may be called covered.
func TestOpenVSwitch(t *testing.T) {
	files, err := lab.FetchPrograms(t.Context(), t, "bookworm", "openvswitch-switch",
		"/usr/bin/ovsdb-tool", "/usr/sbin/ovsdb-server", "/usr/bin/ovs-vsctl", "/usr/lib/openvswitch-switch/ovs-vswitchd",
		"/usr/share/openvswitch/vswitch.ovsschema")
	if err != nil {
		t.Fatal(err)
	}
	g := newGuest(t, "6.12", lab.VMSpec{Modules: []string{"openvswitch", "bridge", "8021q", "macvlan"}, Files: files})
	a := newFakeListener(t, g.net, lab.ListenerAddr.Addr())
	g.write(t, config, fmt.Sprintf("endpoint: {static: [%q]}\ncanary: {timeout: 1s}\n", a.String()))

	const socket = "/run/openvswitch.sock"
	g.run(t, 0, "apply")
	g.guestRun(t, "/usr/bin/ovsdb-tool", "create", "/run/conf.db", "/usr/share/openvswitch/vswitch.ovsschema")
	for _, daemon := range [][]string{
		{"/usr/sbin/ovsdb-server", "/run/conf.db", "--remote=punix:" + socket, "--unixctl=/run/ovsdb.ctl"},
		{"/usr/lib/openvswitch-switch/ovs-vswitchd", "unix:" + socket, "--unixctl=/run/vswitchd.ctl"},
	} {
		if err := g.vm.Start(t.Context(), daemon...); err != nil {
			t.Fatal(err)
		}
	}
	vsctl := func(args ...string) {
		t.Helper()
		g.guestRun(t, append([]string{"/usr/bin/ovs-vsctl", "--db=unix:" + socket, "--retry", "--timeout=300"}, args...)...)
	}
	refused := func(t *testing.T, want string) {
		t.Helper()
		if r := g.run(t, 4, "apply"); !strings.Contains(r.Stderr, want) {
			t.Errorf("%q is not in %s", want, r.Stderr)
		}
		if r := g.run(t, 1, "status"); !strings.Contains(r.Stdout, want) || strings.Contains(r.Stdout, "\ncovered") {
			t.Errorf("%q is not in\n%s", want, r.Stdout)
		}
	}
	vsctl("add-br", "br-ex", "--", "add-port", "br-ex", "eth0")

	t.Run("the node's address is on an internal port", func(t *testing.T) {
		g.guestRun(t, "network", "br-ex")
		refused(t, "br-ex is a port of Open vSwitch")
	})
	t.Run("a device on top of that port takes over", func(t *testing.T) {
		g.guestRun(t, "link", "macvlan", "br-ex", "upper")
		g.guestRun(t, "network", "upper")
		refused(t, "br-ex is a port of Open vSwitch")
	})
	t.Run("the node's address is on a bridge whose uplink is in Open vSwitch", func(t *testing.T) {
		vsctl("add-port", "br-ex", "inner", "--", "set", "interface", "inner", "type=internal")
		g.guestRun(t, "link", "bridge", "inner", "br0")
		g.guestRun(t, "network", "br0")
		refused(t, "inner is a port of Open vSwitch")
	})
	t.Run("the kernel refuses the uplink as well", func(t *testing.T) {
		if err := g.vm.Mkdir(t.Context(), configfs+"/uplink"); err != nil {
			t.Fatal(err)
		}
		g.write(t, configfs+"/uplink/dev_name", "eth0")
		g.write(t, configfs+"/uplink/local_ip", "10.77.1.5")
		g.write(t, configfs+"/uplink/remote_ip", "10.77.2.10")
		if err := g.vm.WriteFile(t.Context(), configfs+"/uplink/enabled", []byte("1"), 0o644); err == nil || !strings.Contains(err.Error(), "busy") {
			t.Errorf("enabled a target on a port: %v", err)
		}
	})
	t.Logf("%s", g.run(t, 1, "status").Stdout)
}
