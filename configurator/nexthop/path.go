package nexthop

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lastgasp/lastgasp/configurator/configfs"
)

// Path is the way to one destination according to the kernel's own tables, without asking on the wire. It is cheap to read,
// and a resolved Hop stays valid as long as its Path stays the same.
type Path struct {
	Destination netip.Addr
	// Problem says why there is no way at present, empty if there is one. The rest may be zero then.
	Problem   string
	Device    string     // as in Hop
	Index     int        // as in Hop
	DeviceMAC string     // as in Hop
	Source    netip.Addr // as in Hop
	NextHop   netip.Addr // as in Hop
	// NextHopMAC is the entry of the neighbour table for NextHop, empty if there is none. It proves nothing, but if it changes
	// the neighbour may have moved.
	NextHopMAC string
	// Cards are the names of the network cards by which frames to NextHopMAC leave, empty if unknown.
	Cards string
}

// Lookup reads the Path to q.Destination. What cannot be read is its Problem.
func Lookup(q Query) Path { return query{Query: q}.path() }

func (q query) path() Path {
	q.Destination = q.Destination.Unmap()
	p := Path{Destination: q.Destination}
	if err := q.lookup(&p); err != nil {
		p.Problem = err.Error()
	}
	return p
}

func (q query) lookup(p *Path) error {
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
	p.Device, p.Index, p.DeviceMAC, p.Source, p.NextHop = d.name, d.index, d.hw.String(), r.source, r.gateway
	if !p.NextHop.IsValid() {
		p.NextHop = q.Destination.WithZone("")
	}
	next, ok, err := neighbour(d.index, p.NextHop)
	if err != nil {
		return err
	}
	cards, err := q.cardsOf(d, next)
	if ok { // otherwise a bridge names every port that the neighbour may be behind
		p.NextHopMAC, p.Cards = next.String(), cards
	}
	return err
}

// neighbour returns the Ethernet address that the neighbour table has for a on a device, if any.
func neighbour(index int, a netip.Addr) (mac, bool, error) {
	family := unix.AF_INET
	if a.Is6() {
		family = unix.AF_INET6
	}
	list, err := netlink.NeighList(index, family)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // what was lost to a race comes back as an event
		return mac{}, false, fmt.Errorf("read neighbours: %w", err)
	}
	for _, n := range list {
		if ip, ok := addrOf(n.IP); ok && ip == a {
			m, ok := macOf(n.HardwareAddr)
			return m, ok, nil
		}
	}
	return mac{}, false, nil
}

// Compare says in words how the paths now differ from the known ones, destination by destination; "" means that every Hop
// resolved meanwhile is still valid. next are the paths to compare with next time. A neighbour that is missing from the
// kernel's table is no change: next has its last known address, for comparison when it is back.
func Compare(known, now []Path) (next []Path, changes string) {
	var reasons []string
	for _, p := range now {
		old, ok := find(known, p.Destination)
		if !ok {
			reasons = append(reasons, fmt.Sprintf("%s is a new destination", p.Destination))
		} else if r := old.differs(p); r != "" {
			reasons = append(reasons, r)
		}
		if p.NextHopMAC == "" && p.sameWay(old) {
			p.NextHopMAC, p.Cards = old.NextHopMAC, old.Cards
		}
		next = append(next, p)
	}
	for _, old := range known {
		if _, ok := find(now, old.Destination); !ok {
			reasons = append(reasons, fmt.Sprintf("%s is no longer a destination", old.Destination))
		}
	}
	return next, strings.Join(reasons, "; ")
}

func find(paths []Path, dst netip.Addr) (Path, bool) {
	for _, p := range paths {
		if p.Destination == dst {
			return p, true
		}
	}
	return Path{}, false
}

// sameWay reports whether both send to the same next hop by the same device.
func (p Path) sameWay(o Path) bool { return p.Index == o.Index && p.NextHop == o.NextHop }

// differs says what is different in now.
func (p Path) differs(now Path) string {
	dst := p.Destination
	switch {
	case now.Problem != p.Problem && now.Problem != "":
		return fmt.Sprintf("%s cannot be reached: %s", dst, now.Problem)
	case now.Problem != p.Problem:
		return fmt.Sprintf("%s can be reached again", dst)
	case now.Device == p.Device && now.Index != p.Index:
		return fmt.Sprintf("%s is now another device", now.Device)
	case now.Device != p.Device:
		return fmt.Sprintf("%s is reached through %s instead of %s", dst, now.Device, p.Device)
	case now.DeviceMAC != p.DeviceMAC:
		return fmt.Sprintf("%s changed its Ethernet address from %s to %s", now.Device, p.DeviceMAC, now.DeviceMAC)
	case now.Source != p.Source:
		return fmt.Sprintf("%s is reached from %s instead of %s", dst, now.Source, p.Source)
	case now.NextHop != p.NextHop:
		return fmt.Sprintf("%s is reached through gateway %s instead of %s", dst, now.NextHop, p.NextHop)
	case now.NextHopMAC != p.NextHopMAC && now.NextHopMAC != "" && p.NextHopMAC != "":
		return fmt.Sprintf("neighbour %s on %s moved from %s to %s", now.NextHop, now.Device, p.NextHopMAC, now.NextHopMAC)
	case now.Cards != p.Cards && now.Cards != "" && p.Cards != "":
		return fmt.Sprintf("%s sends through %s instead of %s", now.Device, now.Cards, p.Cards)
	}
	return ""
}
