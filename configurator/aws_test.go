package configurator

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/configurator/ec2"
	"github.com/lastgasp/lastgasp/configurator/endpoint"
)

// A fleet may keep its parameters in one region: AWS_REGION means to us what it means to every SDK.
func TestPlace(t *testing.T) {
	for _, tt := range []struct {
		name, vendor, variable string
		want                   endpoint.Place
		fails                  bool
	}{
		{"an instance", "Amazon EC2", "", endpoint.Place{Region: "eu-west-1", ZoneID: "euw1-az1", Cluster: "prod-1"}, false},
		{"an instance with its own", "Amazon EC2", "us-east-1", endpoint.Place{Region: "us-east-1", ZoneID: "euw1-az1", Cluster: "prod-1"}, false},
		{"another machine", "QEMU", "us-east-1", endpoint.Place{Region: "us-east-1", Cluster: "prod-1"}, false},
		{"another machine without it", "QEMU", "", endpoint.Place{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("AWS_REGION", tt.variable)
			w := newWorld(t)
			w.write(t, "sys/class/dmi/id/sys_vendor", tt.vendor)
			node := w.node(listenerA)
			node.Config.Cluster = "prod-1"
			node.Instance = func(context.Context) (ec2.Instance, error) {
				return ec2.Instance{Region: "eu-west-1", ZoneID: "euw1-az1"}, nil
			}
			got, err := node.place(t.Context())
			if (err != nil) != tt.fails || err == nil && got != tt.want {
				t.Errorf("%+v, %v; want %+v", got, err, tt.want)
			}
		})
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
