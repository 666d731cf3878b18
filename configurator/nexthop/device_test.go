package nexthop

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestUnusable(t *testing.T) {
	tests := []struct {
		name string
		edit func(*device)
		want string
	}{
		{"a network card", func(*device) {}, ""},
		{"a network card of a driver that names a kind", func(d *device) { d.kind, d.parent = "hv_netvsc", "vmbus_1" }, ""},
		{"a bridge", func(d *device) { d.kind = "bridge" }, ""},
		{"a VLAN", func(d *device) { d.kind = "vlan" }, ""},
		{"loopback", func(d *device) { d.flags |= unix.IFF_LOOPBACK; d.encap = "loopback" }, "is the loopback device"},
		{"a point-to-point tunnel", func(d *device) { d.encap = "none"; d.hw = nil }, "is not an Ethernet device (none)"},
		{"Ethernet without address", func(d *device) { d.hw = nil }, "has no Ethernet address"},
		{"tap", func(d *device) { d.kind = "tuntap" }, "hands its packets to a process, and none runs in a panic"},
		{"Open vSwitch", func(d *device) { d.kind = "openvswitch" },
			"is a port of Open vSwitch: a frame whose flow has expired is sent by a process, and none runs in a panic"},
		{"a container's network", func(d *device) { d.kind = "veth" },
			"is one end of a veth pair: the other end receives in a softirq, and none runs in a panic"},
		{"wireguard", func(d *device) { d.kind = "wireguard" }, "encrypts in kernel threads, and none runs in a panic"},
		{"vxlan", func(d *device) { d.kind = "vxlan" }, "is of kind vxlan: it sends through the network stack, which a panic cannot use"},
		{"macsec, which nobody has thought of", func(d *device) { d.kind = "macsec" },
			"is of kind macsec: it sends through the network stack, which a panic cannot use"},
		{"dummy", func(d *device) { d.kind = "dummy" }, "is a dummy device: it throws everything away"},
		{"down", func(d *device) { d.flags = 0 }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := device{index: 2, name: "eth0", hw: ownMAC.addr(), encap: "ether", kind: "device", flags: unix.IFF_UP | unix.IFF_LOWER_UP}
			tt.edit(&d)
			if got := d.unusable(); got != tt.want {
				t.Errorf("unusable = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestNotReady(t *testing.T) {
	for _, tt := range []struct {
		name  string
		flags uint32
		want  string
	}{
		{"up", unix.IFF_UP | unix.IFF_LOWER_UP, ""},
		{"down", 0, "is down"},
		{"unplugged", unix.IFF_UP, "has no carrier"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := (device{flags: tt.flags}).notReady(); got != tt.want {
				t.Errorf("notReady = %q, want %q", got, tt.want)
			}
		})
	}
}
