package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
)

// pods makes the network of as many pods as its first argument says come and go, one every second argument: for each a
// veth pair, a route and a neighbour, as a CNI plugin does.
func pods(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: pods COUNT EVERY")
	}
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return fmt.Errorf("read the number of pods: %w", err)
	}
	every, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := range count {
		if err := pod(n); err != nil {
			return fmt.Errorf("pod %d: %w", n, err)
		}
		<-tick.C
	}
	return nil
}

// pod makes the network of one pod and removes it again.
func pod(n int) error {
	name := fmt.Sprintf("pod%d", n)
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "in" + name}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("add its devices: %w", err)
	}
	for _, end := range []string{name, "in" + name} {
		link, err := netlink.LinkByName(end)
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err != nil {
			return fmt.Errorf("set %s up: %w", end, err)
		}
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	ip := net.IPv4(10, 99, byte(n>>8), byte(n))
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: &net.IPNet{IP: ip, Mask: net.CIDRMask(32, 32)}, Scope: netlink.SCOPE_LINK}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("add its route: %w", err)
	}
	neighbour := &netlink.Neigh{
		LinkIndex: link.Attrs().Index, IP: ip, State: netlink.NUD_PERMANENT,
		HardwareAddr: net.HardwareAddr{2, 0, 0x99, 0, byte(n >> 8), byte(n)},
	}
	if err := netlink.NeighAdd(neighbour); err != nil {
		return fmt.Errorf("add its neighbour: %w", err)
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("remove its devices: %w", err)
	}
	return nil
}
