package configurator

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/configurator/ec2"
)

func TestIdentity(t *testing.T) {
	const machine = "0123456789abcdef0123456789abcdef" // of newWorld
	mustNot := func() (ec2.Instance, error) { panic("the metadata service was asked without need") }
	for _, tt := range []struct {
		name  string
		files map[string]string
		ask   func() (ec2.Instance, error)
		want  string
	}{
		{"a machine of one's own", map[string]string{"sys/class/dmi/id/sys_vendor": "QEMU"}, mustNot, machine},
		{"an image that has no machine id yet", map[string]string{"etc/machine-id": "uninitialized"}, mustNot, someone.Boot},
		{"a Nitro instance tells by itself", map[string]string{
			"sys/class/dmi/id/sys_vendor":      "Amazon EC2",
			"sys/class/dmi/id/board_asset_tag": "i-0fedcba9876543210",
		}, mustNot, "i-0fedcba9876543210"},
		{"a Xen instance has to ask", map[string]string{"sys/hypervisor/uuid": "ec2e1916-9099-7caf-fd21-012345abcdef"},
			func() (ec2.Instance, error) { return ec2.Instance{ID: "i-0123456789abcdef0"}, nil }, "i-0123456789abcdef0"},
		{"an instance nobody tells", map[string]string{"sys/class/dmi/id/product_uuid": "ec2e1916-9099-7caf-fd21-012345abcdef"},
			func() (ec2.Instance, error) { return ec2.Instance{}, errors.New("timeout") }, machine},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			for file, text := range tt.files {
				w.write(t, file, text)
			}
			got, err := w.root.Identity(tt.ask)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Identity{Instance: tt.want, Boot: someone.Boot}, got); diff != "" {
				t.Errorf("identity (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := Root(t.TempDir()).Identity(mustNot); err == nil {
		t.Error("a machine without /proc has a boot id")
	}
}

func TestSources(t *testing.T) {
	first, second, third := netip.MustParseAddr("10.0.1.5"), netip.MustParseAddr("10.0.1.6"), netip.MustParseAddr("10.0.1.77")
	devices := map[string]string{"02:00:00:00:00:05": "ens5", "02:00:00:00:00:09": "ens6"}
	allowed, prefer := sources([]ec2.Interface{
		{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}, Addrs: []netip.Addr{third}},
		{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 5}, Primary: true, Addrs: []netip.Addr{first, second}},
	}, func(mac string) string { return devices[mac] })
	if prefer != "ens5" {
		t.Errorf("prefers %q, the primary interface is ens5", prefer)
	}
	// The best first: Kubernetes knows the node by the primary interface's first address.
	if diff := cmp.Diff([]netip.Addr{first, second, third}, allowed, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
}
