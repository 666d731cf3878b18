package nexthop

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/lastgasp/lastgasp/configurator/configfs"
)

var (
	// ErrNoRoute means that no packet can reach the destination, or none from an allowed source.
	ErrNoRoute = errors.New("no route")
	// ErrNoReply means that the next hop did not answer on the wire, whatever the neighbour table may say.
	ErrNoReply = errors.New("next hop does not answer")
	// ErrUnusable means that the device on the way can never carry netconsole: another must be used.
	ErrUnusable = errors.New("device cannot be used")
	// ErrNotReady means that the device on the way cannot send yet: it is down, or has no carrier, or duplicate address
	// detection is still running.
	ErrNotReady = errors.New("device is not ready")
)

// Query asks how to reach one address.
type Query struct {
	// Destination is a unicast address of another machine. If it is IPv6 link-local, its zone or Prefer names the device.
	Destination netip.Addr
	// Sources are the addresses that packets may carry as their source, best first. Empty means any.
	Sources []netip.Addr
	// Prefer names the device to use if there is a choice. Empty means the kernel's choice.
	Prefer string
}

// query is a Query and what only tests set.
type query struct {
	Query
	cable string // see topology
}

// Resolve looks up the route to q.Destination, checks its device, and asks the next hop for its Ethernet address on the
// wire. It never consults the neighbour table, where a dead machine's address can stay "reachable" for good. The way from
// the device to a network card must be one that netpoll can take by itself: see topology.
//
// It takes up to a second for each next hop that does not answer; the members of a group are asked in turn until one does.
// Errors wrap ErrNoRoute, ErrNoReply, ErrUnusable or ErrNotReady if that is the reason, else the cause, such as missing
// CAP_NET_RAW.
func Resolve(ctx context.Context, q Query) (Hop, error) { return query{Query: q}.hopTo(ctx) }

func (q query) hopTo(ctx context.Context) (Hop, error) {
	q.Destination = q.Destination.Unmap()
	h, err := q.resolve(ctx)
	if err != nil {
		return Hop{}, fmt.Errorf("reach %s: %w", q.Destination, err)
	}
	return h, nil
}

func (q query) resolve(ctx context.Context) (Hop, error) {
	if why := configfs.UnfitIP(q.Destination.WithZone("")); why != "" {
		return Hop{}, fmt.Errorf("%w: it is %s", ErrNoRoute, why)
	}
	r, err := q.route()
	if err != nil {
		return Hop{}, err
	}
	return q.anyHop(ctx, r)
}

// hop checks r's device and asks its next hop.
func (q query) hop(ctx context.Context, r route) (Hop, error) {
	d, err := deviceByIndex(r.index)
	if err != nil {
		return Hop{}, err
	}
	if d, err = d.outer(); err != nil {
		return Hop{}, err
	}
	// Asked first, so that a device that cannot be used is called that, whatever else is not ready or does not answer in time.
	if _, err := q.cardsOf(d, mac{}); err != nil {
		return Hop{}, err
	}
	h := Hop{
		Device:    d.name,
		Index:     d.index,
		DeviceMAC: d.hw,
		Source:    r.source,
		NextHop:   r.gateway,
	}
	if !h.NextHop.IsValid() {
		h.NextHop, h.OnLink = q.Destination.WithZone(""), true
	}
	if !h.Source.IsValid() {
		return Hop{}, fmt.Errorf("%w: %s has no address to send from", ErrNotReady, d.name)
	}
	h.NextHopMAC, err = ask(ctx, d, h.Source, h.NextHop)
	if err != nil {
		return Hop{}, err
	}
	next, _ := macOf(h.NextHopMAC)
	if _, err := q.cardsOf(d, next); err != nil { // asked again: the answer has taught the bridges where the next hop is
		return Hop{}, err
	}
	return h, nil
}

// route chooses among the kernel's routes to the destination.
func (q query) route() (route, error) {
	prefer, err := deviceIndex(q.Prefer)
	if err != nil {
		return route{}, err
	}
	device := 0
	if q.Destination.IsLinkLocalUnicast() && q.Destination.Is6() {
		if device, err = deviceIndex(q.Destination.Zone()); err != nil {
			return route{}, err
		}
		if device == 0 {
			device = prefer
		}
		if device == 0 {
			return route{}, fmt.Errorf("%w: a link-local address needs its device named (%s%%eth0)", ErrNoRoute, q.Destination)
		}
	}
	dst := q.Destination.WithZone("")
	local, err := localAddresses(dst)
	if err != nil {
		return route{}, err
	}
	return choose(q.Sources, prefer, local, func(source netip.Addr) (route, error) {
		return lookup(dst, source, device)
	})
}

// deviceIndex finds a device by name, or the master to use in its place. If name is empty or there is no such device it
// returns 0, and the kernel's routes decide.
func deviceIndex(name string) (int, error) {
	if name == "" {
		return 0, nil
	}
	l, err := netlink.LinkByName(name)
	if gone := (netlink.LinkNotFoundError{}); errors.As(err, &gone) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("find device %s: %w", name, err)
	}
	d, err := deviceOf(l).outer()
	if errors.Is(err, ErrUnusable) {
		return 0, nil
	}
	return d.index, err
}
