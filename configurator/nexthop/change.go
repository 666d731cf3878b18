package nexthop

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// deviceFlags are those that decide whether a device can send.
	deviceFlags = unix.IFF_UP | unix.IFF_LOWER_UP

	// keptNeighbours bounds how many neighbours are remembered after the kernel dropped them: a gateway that fails,
	// is collected and comes back with another address did move.
	keptNeighbours = 4096
)

// known mirrors the kernel's tables, to distinguish a change from a repetition: the kernel repeats itself whenever a timer is
// refreshed, a DHCP lease renewed, or a neighbour confirmed.
type known struct {
	devices    map[int32]deviceState
	addresses  map[addressKey]struct{}
	neighbours map[neighbourKey]mac
}

type deviceState struct {
	name   string
	hw     string
	flags  uint32 // of deviceFlags
	master uint32
}

type addressKey struct {
	index uint32
	netip.Prefix
}

type neighbourKey struct {
	index uint32
	addr  netip.Addr
}

func newKnown() *known {
	return &known{
		devices:    make(map[int32]deviceState),
		addresses:  make(map[addressKey]struct{}),
		neighbours: make(map[neighbourKey]mac),
	}
}

// learn applies one rtnetlink message, an event or part of a dump, and says what changed that may alter a Hop, or "".
func (k *known) learn(m syscall.NetlinkMessage) string {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return k.link(m)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return k.address(m)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return k.neighbour(m)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return k.route(m)
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		return "routing rules changed"
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		return "nexthop objects changed"
	}
	return ""
}

// link parses struct ifinfomsg. Bridges repeat their ports' events in a family of their own.
func (k *known) link(m syscall.NetlinkMessage) string {
	attrs, ok := attributes(m.Data, unix.SizeofIfInfomsg)
	if !ok || m.Data[0] != unix.AF_UNSPEC {
		return ""
	}
	index := int32(binary.NativeEndian.Uint32(m.Data[4:]))
	old, had := k.devices[index]
	if m.Header.Type == unix.RTM_DELLINK {
		delete(k.devices, index)
		if !had {
			return ""
		}
		return fmt.Sprintf("device %s is gone", old.name)
	}
	now := deviceState{flags: binary.NativeEndian.Uint32(m.Data[8:]) & deviceFlags}
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.IFLA_IFNAME:
			now.name = nl.BytesToString(a.Value)
		case unix.IFLA_ADDRESS:
			now.hw = net.HardwareAddr(a.Value).String()
		case unix.IFLA_MASTER:
			if len(a.Value) == 4 {
				now.master = binary.NativeEndian.Uint32(a.Value)
			}
		}
	}
	k.devices[index] = now
	switch {
	case !had:
		return fmt.Sprintf("device %s appeared", now.name)
	case now.name != old.name:
		return fmt.Sprintf("device %s is now called %s", old.name, now.name)
	case now.master != old.master:
		return fmt.Sprintf("device %s changed its master", now.name)
	case now.hw != old.hw:
		return fmt.Sprintf("device %s changed its Ethernet address from %s to %s", now.name, old.hw, now.hw)
	case now.flags == old.flags:
		return ""
	case now.flags&unix.IFF_UP == 0:
		return fmt.Sprintf("device %s went down", now.name)
	case now.flags&unix.IFF_LOWER_UP == 0:
		return fmt.Sprintf("device %s has no carrier", now.name)
	}
	return fmt.Sprintf("device %s is up", now.name)
}

// address parses struct ifaddrmsg. An address counts once duplicate address detection has passed.
func (k *known) address(m syscall.NetlinkMessage) string {
	attrs, ok := attributes(m.Data, unix.SizeofIfAddrmsg)
	if !ok {
		return ""
	}
	var local, peer []byte
	flags := uint32(m.Data[2])
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.IFA_ADDRESS:
			peer = a.Value
		case unix.IFA_LOCAL:
			local = a.Value
		case unix.IFA_FLAGS:
			if len(a.Value) == 4 {
				flags = binary.NativeEndian.Uint32(a.Value)
			}
		}
	}
	if local == nil { // set by IPv6 on point-to-point links only
		local = peer
	}
	ip, ok := netip.AddrFromSlice(local)
	if !ok {
		return ""
	}
	key := addressKey{binary.NativeEndian.Uint32(m.Data[4:]), netip.PrefixFrom(ip, int(m.Data[1]))}
	_, had := k.addresses[key]
	has := m.Header.Type == unix.RTM_NEWADDR && flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0
	switch {
	case has && !had:
		k.addresses[key] = struct{}{}
		return fmt.Sprintf("address %s added to %s", key.Prefix, k.name(key.index))
	case had && !has:
		delete(k.addresses, key)
		return fmt.Sprintf("address %s removed from %s", key.Prefix, k.name(key.index))
	}
	return ""
}

// neighbour parses struct ndmsg. Only a neighbour that moved counts: the kernel's idea of its reachability proves nothing.
func (k *known) neighbour(m syscall.NetlinkMessage) string {
	attrs, ok := attributes(m.Data, unix.SizeofNdMsg)
	if !ok || m.Data[0] != unix.AF_INET && m.Data[0] != unix.AF_INET6 {
		return ""
	}
	key := neighbourKey{index: binary.NativeEndian.Uint32(m.Data[4:])}
	var (
		now   mac
		found bool
	)
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.NDA_DST:
			key.addr, _ = netip.AddrFromSlice(a.Value)
		case unix.NDA_LLADDR:
			now, found = macOf(a.Value)
		}
	}
	switch {
	case !key.addr.IsValid():
		return ""
	case m.Header.Type == unix.RTM_DELNEIGH:
		if len(k.neighbours) > keptNeighbours {
			delete(k.neighbours, key)
		}
		return ""
	case !found: // being resolved: keep the last address, to compare it with the next
		return ""
	}
	old, had := k.neighbours[key]
	k.neighbours[key] = now
	if !had || old == now {
		return ""
	}
	return fmt.Sprintf("neighbour %s on %s moved from %s to %s", key.addr, k.name(key.index), old, now)
}

// route parses struct rtmsg. The local table repeats the addresses; cloned entries are caches.
func (k *known) route(m syscall.NetlinkMessage) string {
	attrs, ok := attributes(m.Data, unix.SizeofRtMsg)
	if !ok || binary.NativeEndian.Uint32(m.Data[8:])&unix.RTM_F_CLONED != 0 || m.Data[4] == unix.RT_TABLE_LOCAL {
		return ""
	}
	dst := "default"
	for _, a := range attrs {
		if a.Attr.Type != unix.RTA_DST {
			continue
		}
		if ip, ok := netip.AddrFromSlice(a.Value); ok {
			dst = netip.PrefixFrom(ip, int(m.Data[1])).String()
		}
	}
	if m.Header.Type == unix.RTM_DELROUTE {
		return fmt.Sprintf("route %s removed", dst)
	}
	return fmt.Sprintf("route %s added", dst)
}

// name returns a device's name for messages.
func (k *known) name(index uint32) string {
	if d, ok := k.devices[int32(index)]; ok {
		return d.name
	}
	return fmt.Sprintf("device %d", index)
}

func attributes(data []byte, fixed int) ([]syscall.NetlinkRouteAttr, bool) {
	if len(data) < fixed {
		return nil, false
	}
	attrs, err := nl.ParseRouteAttr(data[fixed:])
	return attrs, err == nil
}
