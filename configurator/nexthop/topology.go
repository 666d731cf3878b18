package nexthop

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// topology is how this machine's devices are stacked. It decides what forwards a frame: netpoll all the way down to a network
// card, or something that does not run in a panic.
type topology struct {
	devices map[int]device
	// ports are the ports where a bridge has seen a station: its forwarding database.
	ports map[station][]int
	// cable is the kind of link that counts as a network card in tests.
	cable string
}

type station struct {
	bridge int
	mac    mac
}

// Kinds of links that hand a frame from netpoll on to netpoll of the devices below: they have ndo_netpoll_setup, or
// are made of ports of the switch chip below (drivers/net/bonding, team, macvlan.c; net/8021q, bridge, dsa).
const (
	kindBridge  = "bridge"
	kindBond    = "bond"
	kindTeam    = "team"
	kindVLAN    = "vlan"
	kindMacvlan = "macvlan"
	kindMacvtap = "macvtap"
	kindDSA     = "dsa"
)

// stops says why netpoll gets no frame through d, as the second half of a sentence, or "" if d sends it or passes it to the
// devices below. A device that is neither a card nor known to pass frames on is refused: if it needs a process, a softirq or
// a kernel thread, it works in a test and is silent in a panic.
func (d device) stops() string {
	switch d.kind {
	case kindBridge, kindBond, kindTeam, kindVLAN, kindMacvlan, kindMacvtap, kindDSA, "device":
		return ""
	case "openvswitch":
		return "is a port of Open vSwitch: a frame whose flow has expired is sent by a process, and none runs in a panic"
	case "tuntap":
		return "hands its packets to a process, and none runs in a panic"
	case "veth", "netkit":
		return fmt.Sprintf("is one end of a %s pair: the other end receives in a softirq, and none runs in a panic", d.kind)
	case "wireguard":
		return "encrypts in kernel threads, and none runs in a panic"
	case "dummy":
		return "is a dummy device: it throws everything away"
	}
	if d.parent != "" {
		return "" // a card whose driver names a kind
	}
	return fmt.Sprintf("is of kind %s: it sends through the network stack, which a panic cannot use", d.kind)
}

// maxStacked is MAX_NEST_DEV of the kernel, include/linux/netdevice.h.
const maxStacked = 8

// cards returns the names of the network cards by which a frame to next leaves if it is sent through d. The error says which
// device on the way does not work in a panic (ErrUnusable), else which cannot send for now (ErrNotReady).
func (t topology) cards(d device, next mac) ([]string, error) {
	names, err := t.below(d, next, 0)
	slices.Sort(names)
	return slices.Compact(names), err
}

func (t topology) below(d device, next mac, depth int) ([]string, error) {
	if depth > maxStacked {
		return nil, fmt.Errorf("%w: the devices below are stacked too deep", ErrUnusable)
	}
	names, err := t.through(d, next, depth)
	if why := d.notReady(); err == nil && why != "" {
		return nil, fmt.Errorf("%w: %s %s", ErrNotReady, d.name, why)
	}
	return names, err
}

// through is below, whether or not d itself can send for now.
func (t topology) through(d device, next mac, depth int) ([]string, error) {
	if d.kind == t.cable {
		return []string{d.name}, nil
	}
	if why := d.stops(); why != "" {
		return nil, fmt.Errorf("%w: %s %s", ErrUnusable, d.name, why)
	}
	switch d.kind {
	case kindBridge:
		if seen := t.ports[station{d.index, next}]; len(seen) > 0 {
			return t.all(seen, next, depth)
		}
		return t.any(d, next, depth) // it floods
	case kindBond, kindTeam:
		if ready := t.ready(d.index); len(ready) > 0 {
			return t.all(ready, next, depth)
		}
		return t.any(d, next, depth)
	case kindVLAN, kindMacvlan, kindMacvtap:
		lower, ok := t.devices[d.lower]
		if !ok {
			return nil, fmt.Errorf("%w: %s sits on a device of another network namespace", ErrUnusable, d.name)
		}
		return t.below(lower, next, depth+1)
	}
	return []string{d.name}, nil
}

// all returns the cards below the devices. Each device must lead to one, because we do not choose which the frame takes.
func (t topology) all(indices []int, next mac, depth int) ([]string, error) {
	var names []string
	for _, i := range indices {
		some, err := t.below(t.devices[i], next, depth+1)
		if err != nil {
			return nil, err
		}
		names = append(names, some...)
	}
	return names, nil
}

// any returns the cards below the ports of a master. One port that leads to a card is enough, because the frame takes all of
// them. If none does, one that only cannot send for now is what an operator looks for: the others may be a hundred pods.
func (t topology) any(master device, next mac, depth int) ([]string, error) {
	var names []string
	var unready, unusable error
	for _, i := range t.enslaved(master.index) {
		some, err := t.below(t.devices[i], next, depth+1)
		switch {
		case errors.Is(err, ErrNotReady):
			unready = cmp.Or(unready, err)
		case err != nil:
			unusable = cmp.Or(unusable, err)
		}
		names = append(names, some...)
	}
	switch err := cmp.Or(unready, unusable); {
	case len(names) > 0:
		return names, nil
	case err != nil:
		return nil, err
	}
	return nil, fmt.Errorf("%w: %s has no port", ErrNotReady, master.name)
}

// enslaved returns the ports of a master, by index.
func (t topology) enslaved(master int) []int {
	var indices []int
	for i, d := range t.devices {
		if d.master == master {
			indices = append(indices, i)
		}
	}
	slices.Sort(indices)
	return indices
}

// ready returns the ports of a master that can send.
func (t topology) ready(master int) []int {
	return slices.DeleteFunc(t.enslaved(master), func(i int) bool {
		d := t.devices[i]
		return d.notReady() != ""
	})
}

// stacked reports whether frames that are sent through d leave by other devices.
func (d device) stacked() bool {
	return d.kind != "device" && d.stops() == "" && d.parent == ""
}

// readTopology reads all devices, and where the bridges among them have seen next. They flood to a zero next.
func readTopology(next mac, cable string) (topology, error) {
	t := topology{devices: make(map[int]device), ports: make(map[station][]int), cable: cable}
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // what was lost to a race comes back as an event
		return t, fmt.Errorf("read devices: %w", err)
	}
	for _, l := range links {
		d := deviceOf(l)
		t.devices[d.index] = d
	}
	if next == (mac{}) {
		return t, nil
	}
	seen, err := netlink.NeighList(0, unix.AF_BRIDGE)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return t, fmt.Errorf("read the bridges' forwarding database: %w", err)
	}
	for _, n := range seen {
		if m, ok := macOf(n.HardwareAddr); ok && m == next && n.MasterIndex != 0 && n.LinkIndex != n.MasterIndex {
			key := station{n.MasterIndex, m}
			if !slices.Contains(t.ports[key], n.LinkIndex) {
				t.ports[key] = append(t.ports[key], n.LinkIndex)
			}
		}
	}
	return t, nil
}

// cardsOf is cards for this machine. While next is not known it is zero, and one way to a card is enough.
func (q query) cardsOf(d device, next mac) (string, error) {
	if why := d.unusable(); why != "" && d.kind != q.cable {
		return "", fmt.Errorf("%w: %s %s", ErrUnusable, d.name, why)
	}
	if why := d.notReady(); d.kind == q.cable || !d.stacked() { // the usual case, without reading anything else
		if why != "" {
			return "", fmt.Errorf("%w: %s %s", ErrNotReady, d.name, why)
		}
		return d.name, nil
	}
	t, err := readTopology(next, q.cable)
	if err != nil {
		return "", err
	}
	names, err := t.cards(d, next)
	return strings.Join(names, " "), err
}
