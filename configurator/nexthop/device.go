package nexthop

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// device is the part of an interface that decides whether netconsole can send through it.
type device struct {
	index  int
	name   string
	hw     net.HardwareAddr
	encap  string // "ether" for ARPHRD_ETHER
	kind   string // rtnetlink's IFLA_INFO_KIND, "device" if its driver gives none
	parent string // IFLA_PARENT_DEV_NAME: the PCI function or virtio device below, empty for a software device
	flags  uint32 // IFF_…
	master int    // index, 0: none
	lower  int    // index of the device below a VLAN or macvlan, 0: none in this network namespace
}

// unusable says why a dying kernel cannot send through d, as the second half of a sentence, or "" if nothing about d itself
// prevents it: for the devices below see topology. The kernel accepts most of these devices for netconsole and then sends
// nothing (__netpoll_setup, net/core/netpoll.c).
func (d device) unusable() string {
	switch {
	case d.flags&unix.IFF_LOOPBACK != 0:
		return "is the loopback device"
	case d.encap != "ether":
		return fmt.Sprintf("is not an Ethernet device (%s)", d.encap)
	case len(d.hw) != len(mac{}):
		return "has no Ethernet address"
	}
	return d.stops()
}

// notReady says why nothing can be sent through d for now, as the second half of a sentence, or "".
func (d device) notReady() string {
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
	return d.kind == kindBridge || d.kind == kindBond || d.kind == kindTeam
}

func deviceByIndex(index int) (device, error) {
	l, err := netlink.LinkByIndex(index)
	if gone := (netlink.LinkNotFoundError{}); errors.As(err, &gone) {
		return device{}, fmt.Errorf("%w: device %d is gone", ErrNotReady, index)
	}
	if err != nil {
		return device{}, fmt.Errorf("read device %d: %w", index, err)
	}
	return deviceOf(l), nil
}

func deviceOf(l netlink.Link) device {
	a := l.Attrs()
	d := device{
		index:  a.Index,
		name:   a.Name,
		hw:     a.HardwareAddr,
		encap:  a.EncapType,
		kind:   l.Type(),
		parent: a.ParentDev,
		flags:  a.RawFlags,
		master: a.MasterIndex,
	}
	if a.NetNsID < 0 { // otherwise the index belongs to another namespace
		d.lower = a.ParentIndex
	}
	return d
}

// outer returns d, or the master to use in its place. Masters may be stacked, as a bridge on a bond.
func (d device) outer() (device, error) {
	for range maxStacked {
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
