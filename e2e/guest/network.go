package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/lastgasp/lastgasp/e2e/guest/control"
)

// network gives a device, and no other, the address and the route that eth0 had at boot: what a DHCP client does with a new device.
func network(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: network DEVICE")
	}
	config, err := readConfig()
	if err != nil {
		return err
	}
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list devices: %w", err)
	}
	for _, l := range links {
		if l.Attrs().Name != args[0] && l.Attrs().Flags&net.FlagLoopback == 0 {
			if err := dropAddresses(l); err != nil {
				return err
			}
		}
	}
	return configureDevice(args[0], config)
}

// configureDevice gives a device its address and the default route, which no other has from then on.
func configureDevice(name string, config control.Config) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{
		IP:   config.Addr.Addr().AsSlice(),
		Mask: net.CIDRMask(config.Addr.Bits(), config.Addr.Addr().BitLen()),
	}}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("give %s the address %s: %w", name, config.Addr, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	if config.Gateway == (netip.Addr{}) {
		return nil
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: config.Gateway.AsSlice()}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("route by %s: %w", config.Gateway, err)
	}
	return nil
}

// link renames a device, or stacks another on it that takes its frames from then on.
func link(args []string) error {
	if len(args) != 3 {
		return errors.New("usage: link rename|bond|bridge|macvlan DEVICE NAME")
	}
	verb, name := args[0], args[2]
	lower, err := netlink.LinkByName(args[1])
	if err != nil {
		return fmt.Errorf("find %s: %w", args[1], err)
	}
	attrs := netlink.LinkAttrs{Name: name, HardwareAddr: lower.Attrs().HardwareAddr}
	switch verb {
	case "rename": // which before 6.2 only a device that is down can be
		if err := netlink.LinkSetDown(lower); err != nil {
			return err
		}
		return netlink.LinkSetName(lower, name)
	case "macvlan":
		attrs.ParentIndex = lower.Attrs().Index
		attrs.HardwareAddr = nil // one of its own
		if err := dropAddresses(lower); err != nil {
			return err
		}
		return netlink.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE})
	case "bridge":
		return enslave(lower, &netlink.Bridge{LinkAttrs: attrs})
	case "bond":
		bond := netlink.NewLinkBond(attrs)
		bond.Mode, bond.Miimon = netlink.BOND_MODE_ACTIVE_BACKUP, 100
		return enslave(lower, bond)
	}
	return fmt.Errorf("no such verb: %s", verb)
}

// enslave makes the master and puts the port, which loses its addresses, under it.
func enslave(port, master netlink.Link) error {
	if err := netlink.LinkAdd(master); err != nil {
		return fmt.Errorf("add %s: %w", master.Attrs().Name, err)
	}
	if err := dropAddresses(port); err != nil {
		return err
	}
	if err := netlink.LinkSetDown(port); err != nil { // a bond takes no port that is up
		return err
	}
	if err := netlink.LinkSetMaster(port, master); err != nil {
		return fmt.Errorf("put %s under %s: %w", port.Attrs().Name, master.Attrs().Name, err)
	}
	return netlink.LinkSetUp(port)
}

func dropAddresses(link netlink.Link) error {
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", link.Attrs().Name, err)
	}
	for _, a := range addrs {
		if err := netlink.AddrDel(link, &a); err != nil {
			return fmt.Errorf("take %s from %s: %w", a.IPNet, link.Attrs().Name, err)
		}
	}
	return nil
}
