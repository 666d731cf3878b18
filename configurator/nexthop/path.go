package nexthop

import (
	"fmt"
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
	Cards     string // network cards that frames to Neighbour leave by, by name; empty without Neighbour
	Why       string // there is no way, or none that can be used
}

// Moved reports whether a Hop has to be resolved anew because the path is now another one than p. A neighbour that the
// kernel does not know at the moment, or did not know before, has not moved.
func (p Path) Moved(now Path) bool {
	if p.Neighbour == "" {
		p.Neighbour, p.Cards = now.Neighbour, now.Cards
	}
	return p.Update(now) != p
}

// Update is now, with the neighbour of p if the kernel knows none at the moment.
func (p Path) Update(now Path) Path {
	if now.Neighbour == "" && now.Device == p.Device && now.NextHop == p.NextHop {
		now.Neighbour, now.Cards = p.Neighbour, p.Cards
	}
	return now
}

// Path looks up the path to q.Destination. It needs no rights.
func (q Query) Path() Path { return query{Query: q}.path() }

func (q query) path() Path {
	q.Destination = q.Destination.Unmap()
	var p Path
	if err := q.lookUp(&p); err != nil {
		p.Why = err.Error()
	}
	return p
}

// lookUp fills p in as far as it gets.
func (q query) lookUp(p *Path) error {
	if why := configfs.UnfitIP(q.Destination.WithZone("")); why != "" {
		return fmt.Errorf("%w: it is %s", ErrNoRoute, why)
	}
	r, err := q.route()
	if err != nil {
		return err
	}
	d, err := deviceByIndex(r.index)
	if err != nil {
		return err
	}
	if d, err = d.outer(); err != nil {
		return err
	}
	*p = Path{Device: d.name, Index: d.index, MAC: d.hw.String(), Source: r.source, NextHop: r.gateway}
	if !p.NextHop.IsValid() {
		p.NextHop = q.Destination.WithZone("")
	}
	if err := q.check(d); err != nil {
		return err
	}
	next, ok, err := neighbour(r.index, p.NextHop)
	if err != nil || !ok {
		return err
	}
	p.Neighbour = next.String()
	p.Cards, err = q.cardsOf(d, next)
	return err
}

// neighbour is the Ethernet address that the kernel has for an address on a device, if any.
func neighbour(index int, of netip.Addr) (mac, bool, error) {
	family := netlink.FAMILY_V6
	if of.Is4() {
		family = netlink.FAMILY_V4
	}
	list, err := netlink.NeighList(index, family)
	if err != nil {
		return mac{}, false, fmt.Errorf("read neighbours: %w", err)
	}
	for _, n := range list {
		if ip, ok := addrOf(n.IP); ok && ip == of {
			m, ok := macOf(n.HardwareAddr)
			return m, ok, nil
		}
	}
	return mac{}, false, nil
}
