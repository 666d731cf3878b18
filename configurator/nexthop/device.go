package nexthop

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// device is what decides whether netconsole can send through an interface.
type device struct {
	index  int
	name   string
	hw     net.HardwareAddr
	encap  string // "ether" for ARPHRD_ETHER
	kind   string // rtnetlink's IFLA_INFO_KIND, "device" for hardware
	flags  uint32 // IFF_…
	master int    // index, 0: none
}

// unusable says in the second half of a sentence why a dying kernel cannot send through d, or "" if it can. The kernel
// itself accepts most of these devices for netconsole and stays silent (__netpoll_setup, net/core/netpoll.c).
func (d device) unusable() string {
	switch {
	case d.flags&unix.IFF_LOOPBACK != 0:
		return "is the loopback device"
	case d.encap != "ether":
		return fmt.Sprintf("is no Ethernet device (%s)", d.encap)
	case len(d.hw) != len(mac{}):
		return "has no Ethernet address"
	}
	switch d.kind {
	case "tuntap":
		return "hands its packets to a process, and none runs in a panic"
	case "wireguard":
		return "encrypts in kernel threads, and none runs in a panic"
	case "ipvlan", "ipvtap", "vxlan", "geneve", "gretap", "ip6gretap", "vrf":
		return fmt.Sprintf("is a %s device: it sends through the network stack, which a panic cannot use", d.kind)
	case "dummy":
		return "is a dummy device: it throws everything away"
	}
	switch {
	case d.flags&unix.IFF_UP == 0:
		return "is down"
	case d.flags&unix.IFF_LOWER_UP == 0:
		return "has no carrier"
	}
	return ""
}

// leads reports whether netconsole may use d in place of the ports enslaved to it. It refuses the ports themselves
// with EBUSY. A VRF or an Open vSwitch masters its ports too, but cannot be sent through.
func (d device) leads() bool {
	switch d.kind {
	case "bridge", "bond", "team":
		return true
	}
	return false
}

// deviceByIndex reads one device.
func deviceByIndex(index int) (device, error) {
	l, err := netlink.LinkByIndex(index)
	if gone := (netlink.LinkNotFoundError{}); errors.As(err, &gone) {
		return device{}, fmt.Errorf("%w: device %d is gone", ErrUnusable, index)
	}
	if err != nil {
		return device{}, fmt.Errorf("read device %d: %w", index, err)
	}
	return deviceOf(l), nil
}

func deviceOf(l netlink.Link) device {
	a := l.Attrs()
	return device{
		index:  a.Index,
		name:   a.Name,
		hw:     a.HardwareAddr,
		encap:  a.EncapType,
		kind:   l.Type(),
		flags:  a.RawFlags,
		master: a.MasterIndex,
	}
}

// outer returns d, or the master to be used in its place. Masters may be stacked: a bond's bridge.
func (d device) outer() (device, error) {
	const stacked = 8 // MAX_NEST_DEV of the kernel, include/linux/netdevice.h
	for range stacked {
		if d.master == 0 {
			return d, nil
		}
		m, err := deviceByIndex(d.master)
		if err != nil {
			return device{}, err
		}
		if !m.leads() {
			return device{}, fmt.Errorf("%w: %s is enslaved to %s (%s), and netconsole takes neither", ErrUnusable, d.name, m.name, m.kind)
		}
		d = m
	}
	return device{}, fmt.Errorf("%w: masters of %s are stacked too deep", ErrUnusable, d.name)
}
