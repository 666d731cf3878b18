package nexthop

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCards walks from what the node's address is on to the cards that a frame to the gateway leaves by.
func TestCards(t *testing.T) {
	gateway := mac{2, 0, 0, 0, 0, 1}
	const (
		eth0 = iota + 1
		eth1
		br0
		br1
		bond0
		vlan
		ovs
		tap
		patch
		pod
		odd
	)
	base := []device{
		{index: eth0, name: "eth0", kind: "device", parent: "0000:00:05.0"},
		{index: eth1, name: "eth1", kind: "device"}, // a kernel before 5.14 does not name the parent
		{index: br0, name: "br0", kind: "bridge"},
		{index: br1, name: "br1", kind: "bridge"},
		{index: bond0, name: "bond0", kind: "bond"},
		{index: vlan, name: "eth0.10", kind: "vlan", lower: eth0},
		{index: ovs, name: "br-ex", kind: "openvswitch"},
		{index: tap, name: "tap0", kind: "tuntap"},
		{index: patch, name: "patch", kind: "veth"},
		{index: pod, name: "veth1234", kind: "veth"},
		{index: odd, name: "odd0", kind: "nobody-knows"},
	}
	for _, tt := range []struct {
		name    string
		from    int
		masters map[int]int   // port → master
		lower   map[int]int   // VLAN → below
		down    []int         // devices
		seen    map[int][]int // bridge → ports behind which the gateway is
		want    string
		err     string
		is      error // default: ErrUnusable
	}{
		{name: "a card", from: eth0, want: "eth0"},
		{name: "a card of an older kernel", from: eth1, want: "eth1"},
		{name: "a VLAN on a card", from: vlan, want: "eth0"},
		{name: "a bond of two cards", from: bond0, masters: map[int]int{eth0: bond0, eth1: bond0}, want: "eth0 eth1"},
		{name: "a bridge whose uplink is a card, among pods", from: br0, masters: map[int]int{eth0: br0, pod: br0},
			seen: map[int][]int{br0: {eth0}}, want: "eth0"},
		{name: "a bridge over a bond of cards", from: br0, masters: map[int]int{bond0: br0, eth0: bond0, eth1: bond0, pod: br0},
			seen: map[int][]int{br0: {bond0}}, want: "eth0 eth1"},
		{name: "a bridge that does not know the gateway floods", from: br0, masters: map[int]int{eth0: br0, pod: br0}, want: "eth0"},
		{name: "a VLAN on a bridge", from: vlan, lower: map[int]int{vlan: br0}, masters: map[int]int{eth0: br0},
			seen: map[int][]int{br0: {eth0}}, want: "eth0"},
		{name: "a VLAN on a bridge over a bond of cards, among pods", from: vlan, lower: map[int]int{vlan: br0},
			masters: map[int]int{bond0: br0, pod: br0, eth0: bond0, eth1: bond0}, seen: map[int][]int{br0: {bond0}}, want: "eth0 eth1"},
		{name: "a bridge whose uplink is a VLAN on a bond", from: br0, lower: map[int]int{vlan: bond0},
			masters: map[int]int{vlan: br0, pod: br0, eth0: bond0, eth1: bond0}, seen: map[int][]int{br0: {vlan}}, want: "eth0 eth1"},
		{name: "an unplugged card of a bond does not matter", from: bond0, masters: map[int]int{eth0: bond0, tap: bond0}, down: []int{tap}, want: "eth0"},
		{name: "an unplugged uplink does not matter beside another", from: br0, masters: map[int]int{eth0: br0, eth1: br0, pod: br0},
			down: []int{eth0}, want: "eth1"},

		{name: "a bridge among pods whose uplink is unplugged", from: br0, masters: map[int]int{eth0: br0, pod: br0}, down: []int{eth0},
			is: ErrNotReady, err: "eth0 is down"},
		{name: "a bridge that has learned the gateway behind an uplink that is unplugged since", from: br0,
			masters: map[int]int{eth0: br0, pod: br0}, seen: map[int][]int{br0: {eth0}}, down: []int{eth0}, is: ErrNotReady, err: "eth0 is down"},
		{name: "a bridge over a bond whose cards are unplugged", from: br0, masters: map[int]int{bond0: br0, eth0: bond0, eth1: bond0, pod: br0},
			seen: map[int][]int{br0: {bond0}}, down: []int{eth0, eth1}, is: ErrNotReady, err: "eth0 is down"},
		{name: "a bond over a process that is unplugged", from: bond0, masters: map[int]int{tap: bond0}, down: []int{tap}, err: "tap0 hands"},
		{name: "a bridge of nobody", from: br0, is: ErrNotReady, err: "br0 has no port"},
		{name: "a bond of nobody", from: bond0, is: ErrNotReady, err: "bond0 has no port"},
		{name: "Open vSwitch", from: ovs, err: "br-ex is a port of Open vSwitch"},
		{name: "a bridge whose uplink is in Open vSwitch", from: br0, masters: map[int]int{ovs: br0, eth0: br0},
			seen: map[int][]int{br0: {ovs}}, err: "br-ex is a port of Open vSwitch"},
		{name: "a bridge patched to Open vSwitch", from: br0, masters: map[int]int{patch: br0, eth1: br0},
			seen: map[int][]int{br0: {patch}}, err: "patch is one end of a veth pair"},
		{name: "a bridge whose uplink is a process", from: br0, masters: map[int]int{tap: br0, eth0: br0},
			seen: map[int][]int{br0: {tap}}, err: "tap0 hands its packets to a process"},
		{name: "a bridge of nothing but pods", from: br0, masters: map[int]int{pod: br0}, err: "veth1234 is one end of a veth pair"},
		{name: "a bridge that saw the gateway on two ports", from: br0, masters: map[int]int{tap: br0, eth0: br0},
			seen: map[int][]int{br0: {eth0, tap}}, err: "tap0 hands its packets to a process"},
		{name: "a VLAN on Open vSwitch", from: vlan, lower: map[int]int{vlan: ovs}, err: "br-ex is a port of Open vSwitch"},
		{name: "a bond with a port that is a process", from: bond0, masters: map[int]int{eth0: bond0, tap: bond0}, err: "tap0 hands"},
		{name: "a kind that nobody has thought of", from: odd, err: "odd0 is of kind nobody-knows"},
		{name: "on such a kind", from: vlan, lower: map[int]int{vlan: odd}, err: "odd0 is of kind nobody-knows"},
		{name: "on a device of somebody else", from: vlan, lower: map[int]int{vlan: 0}, err: "eth0.10 sits on a device of another network namespace"},
		{name: "a circle", from: vlan, lower: map[int]int{vlan: vlan}, err: "stacked too deep"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			world := topology{devices: make(map[int]device), ports: make(map[station][]int)}
			for _, d := range base {
				d.flags = unix.IFF_UP | unix.IFF_LOWER_UP
				d.master = tt.masters[d.index]
				if lower, ok := tt.lower[d.index]; ok {
					d.lower = lower
				}
				world.devices[d.index] = d
			}
			for _, i := range tt.down {
				d := world.devices[i]
				d.flags = 0
				world.devices[i] = d
			}
			for bridge, ports := range tt.seen {
				world.ports[station{bridge, gateway}] = ports
			}
			got, err := world.cards(world.devices[tt.from], gateway)
			if tt.err != "" {
				is := tt.is
				if is == nil {
					is = ErrUnusable
				}
				if !errors.Is(err, is) || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("cards = %q, %v; want an error with %q", got, err, tt.err)
				}
				return
			}
			if err != nil || strings.Join(got, " ") != tt.want {
				t.Errorf("cards = %q, %v; want %s", got, err, tt.want)
			}
		})
	}
}
