//go:build live

package nexthop

import "testing"

// TestLivePath compares paths before and after what happens on a node: what a Hop depends on moves the path, the network of
// pods does not.
func TestLivePath(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   []string
		want bool
	}{
		{"a pod's network comes", []string{"link add pod1 type veth peer name inpod1", "link set pod1 up", "addr add 10.88.0.1/24 dev pod1",
			"route add 10.99.0.7/32 dev pod1", "neigh add 10.99.0.7 lladdr 02:99:00:00:00:07 dev pod1"}, false},
		{"another route", []string{"route add 10.200.0.0/16 via 10.0.0.9"}, false},
		{"the gateway's entry is forgotten", []string{"neigh flush dev eth0"}, false},
		{"the gateway moves", []string{"neigh replace 10.0.0.1 lladdr 02:00:00:00:00:99 dev eth0"}, true},
		{"another gateway", []string{"route replace default via 10.0.0.7"}, true},
		{"a more specific route", []string{"link add pod1 type veth peer name inpod1", "link set pod1 up", "route add " + listener + "/32 dev pod1"}, true},
		{"its way leads through a bridge now", []string{"link add br0 type bridge", "link set br0 up", "link set eth0 master br0",
			"addr flush dev eth0", "addr add 10.0.0.5/24 dev br0", "route add default via 10.0.0.1"}, true},
		{"the route is gone", []string{"route del default"}, true},
		{"the device is down", []string{"link set eth0 down"}, true},
		{"the device is renamed", []string{"link set eth0 down", "link set eth0 name uplink", "link set uplink up", "route add default via 10.0.0.1"}, true},
		{"the device becomes a bridge's", []string{"link add br0 type bridge", "link set eth0 master br0"}, true},
		{"the device has another hardware address", []string{"link set eth0 address 02:00:00:00:00:06"}, true},
		{"another source address", []string{"addr add 10.0.0.6/24 dev eth0", "route replace default via 10.0.0.1 src 10.0.0.6"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			node, _ := subnet(t)
			node.ip("route add default via 10.0.0.1", "neigh replace 10.0.0.1 lladdr "+gateMAC+" dev eth0")
			q := Query{Destination: ip(listener)}
			path := func() (p Path) { node.do(func() { p = query{q, "veth"}.path() }); return p }
			before := path()
			hop, err := node.resolve(q)
			if err != nil {
				t.Fatal(err)
			}
			if before.Device != hop.Device || before.Source != hop.Source || before.NextHop != hop.NextHop ||
				before.Neighbour != hop.NextHopMAC.String() || before.MAC != hop.DeviceMAC.String() || before.Why != "" {
				t.Errorf("path %+v is not of the hop %+v", before, hop)
			}
			node.ip(tt.do...)
			if after := path(); before.Moved(after) != tt.want {
				t.Errorf("moved %t, want %t: %+v became %+v", !tt.want, tt.want, before, after)
			}
		})
	}
}
