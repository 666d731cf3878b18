package configurator

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/configurator/ec2"
)

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
