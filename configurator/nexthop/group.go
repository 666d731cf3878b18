package nexthop

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// anyHop returns the Hop by r or, if that is silent or cannot be used, by another member of the nexthop group or multipath
// route that r belongs to. The kernel picks a member by a hash of the flow, alive or not; a target stays with one member,
// and any that answers will do.
func (q query) anyHop(ctx context.Context, r route) (Hop, error) {
	h, err := q.hop(ctx, r)
	if !errors.Is(err, ErrNoReply) && !errors.Is(err, ErrUnusable) && !errors.Is(err, ErrNotReady) {
		return h, err
	}
	others, listErr := q.others(r)
	if listErr != nil {
		return Hop{}, err // the first error says more to an operator
	}
	for _, other := range others {
		h, otherErr := q.hop(ctx, other)
		if otherErr == nil {
			return h, nil
		}
		err = fmt.Errorf("%w; %w", err, otherErr)
	}
	return Hop{}, err
}

// others returns the other members of r's group, each with the source address that goes with its device.
func (q query) others(r route) ([]route, error) {
	dst := q.Destination.WithZone("")
	found, err := netlink.RouteGetWithOptions(dst.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true, SrcAddr: r.source.AsSlice()})
	if err != nil {
		return nil, fmt.Errorf("read nexthop group: %w", err)
	}
	var others []route
	for _, f := range found {
		for _, m := range f.MultiPath {
			other := route{index: m.LinkIndex, source: r.source}
			other.gateway, _ = addrOf(m.Gw)
			if via, ok := m.Via.(*netlink.Via); ok {
				other.gateway, _ = addrOf(via.Addr)
			}
			if m.Encap != nil || !other.gateway.IsValid() || other.index == r.index && other.gateway == r.gateway {
				continue
			}
			if other.index != r.index {
				by, err := lookup(dst, netip.Addr{}, other.index)
				if err != nil {
					continue // its device is down
				}
				other.source = by.source
			}
			if len(q.Sources) == 0 || slices.Contains(q.Sources, other.source) {
				others = append(others, other)
			}
		}
	}
	return others, nil
}
