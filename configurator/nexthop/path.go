package nexthop

import (
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/lastgasp/lastgasp/configurator/configfs"
)

// Path is how the kernel's tables would have a datagram leave, without asking the wire. Two of them can be compared, to see
// whether a Hop may have changed.
type Path struct {
	Device    string // or its master, as in Hop
	Index     int
	MAC       string // of the device
	Source    netip.Addr
	NextHop   netip.Addr
	Neighbour string // the kernel's idea of the next hop's Ethernet address, which may be wrong; empty: it has none
	Why       string // there is no way, or none that can be used
}

// Moved reports whether a Hop has to be resolved anew because the path is now another one than p. A neighbour that the
// kernel does not know at the moment has not moved.
func (p Path) Moved(now Path) bool { return p.Update(now) != p }

// Update is now, with the neighbour of p if the kernel knows none at the moment.
func (p Path) Update(now Path) Path {
	if now.Neighbour == "" && now.Device == p.Device && now.NextHop == p.NextHop {
		now.Neighbour = p.Neighbour
	}
	return now
}

// Path looks up the path to q.Destination. It needs no rights.
func (q Query) Path() Path {
	q.Destination = q.Destination.Unmap()
	if why := configfs.UnfitIP(q.Destination.WithZone("")); why != "" {
		return Path{Why: why}
	}
	r, err := q.route()
	if err != nil {
		return Path{Why: err.Error()}
	}
	d, err := deviceByIndex(r.index)
	if err == nil {
		d, err = d.outer()
	}
	if err != nil {
		return Path{Why: err.Error()}
	}
	p := Path{Device: d.name, Index: d.index, MAC: d.hw.String(), Source: r.source, NextHop: r.gateway, Why: d.unusable()}
	if !p.NextHop.IsValid() {
		p.NextHop = q.Destination.WithZone("")
	}
	p.Neighbour = neighbour(r.index, p.NextHop)
	return p
}

// neighbour is the Ethernet address that the kernel has for an address on a device, empty if it has none.
func neighbour(index int, of netip.Addr) string {
	family := netlink.FAMILY_V6
	if of.Is4() {
		family = netlink.FAMILY_V4
	}
	list, err := netlink.NeighList(index, family)
	if err != nil {
		return ""
	}
	for _, n := range list {
		if ip, ok := addrOf(n.IP); ok && ip == of {
			return n.HardwareAddr.String()
		}
	}
	return ""
}
