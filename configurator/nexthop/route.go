package nexthop

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// route is the kernel's route from one source address to one destination.
type route struct {
	index   int        // device
	source  netip.Addr // IP source
	gateway netip.Addr // invalid: the destination is on-link
}

// address is one of this machine's addresses that packets may be sent from.
type address struct {
	index int // device
	netip.Prefix
}

// choose returns the route for netconsole. It takes the kernel's own choice if its source is allowed and it leaves by the
// preferred device, if one is named. Otherwise it looks up routes from each allowed address, because policy rules may send
// each another way: the first by the preferred device wins, then the kernel's own choice, then the first of all. A source
// must belong to the device it leaves by: the VPC drops anything else.
//
// lookup asks the kernel for the route from source; the zero Addr leaves the source to the kernel.
func choose(sources []netip.Addr, prefer int, local []address, lookup func(source netip.Addr) (route, error)) (route, error) {
	own, err := lookup(netip.Addr{})
	allowed := err == nil && (len(sources) == 0 || slices.Contains(sources, own.source))
	if allowed && (prefer == 0 || own.index == prefer) {
		return own, nil
	}
	var found []route
	usable := candidates(sources, local)
	for _, a := range usable {
		r, err := lookup(a.Addr())
		if err != nil || r.index != a.index {
			continue
		}
		if r.index == prefer {
			return r, nil
		}
		found = append(found, r)
	}
	switch {
	case allowed:
		return own, nil
	case len(found) > 0:
		return found[0], nil
	case err != nil:
		return route{}, err
	case len(usable) == 0:
		return route{}, fmt.Errorf("%w: none of the allowed sources %v is an address of this machine yet", ErrNotReady, sources)
	}
	return route{}, fmt.Errorf("%w: packets would leave from %s, and none of the allowed sources %v leads there", ErrNoRoute, own.source, sources)
}

// candidates returns the local addresses that are among sources, in the order of sources; all of them if sources is empty.
func candidates(sources []netip.Addr, local []address) []address {
	if len(sources) == 0 {
		return local
	}
	var c []address
	for _, s := range sources {
		for _, a := range local {
			if a.Addr() == s {
				c = append(c, a)
			}
		}
	}
	return c
}

// lookup asks the kernel how to reach dst from source, which may be invalid. device restricts the search and is for
// link-local destinations only: given a device, IPv4 invents an on-link route if there is no other
// (ip_route_output_key_hash_rcu, net/ipv4/route.c).
func lookup(dst, source netip.Addr, device int) (route, error) {
	opt := &netlink.RouteGetOptions{OifIndex: device}
	if source.IsValid() {
		opt.SrcAddr = source.AsSlice()
	}
	found, err := netlink.RouteGetWithOptions(dst.AsSlice(), opt)
	if err != nil {
		return route{}, routeError(err)
	}
	if len(found) != 1 {
		return route{}, fmt.Errorf("look up route: the kernel gave %d answers", len(found))
	}
	r, err := routeOf(found[0])
	switch {
	case source.IsValid():
		r.source = source // the kernel does not repeat it
	case err == nil && r.source.Is6() && r.source.IsLinkLocalUnicast() && !dst.IsLinkLocalUnicast(): // RFC 4291 §2.5.6
		return route{}, fmt.Errorf("%w: packets would leave from %s, which no router forwards; there is no global address yet", ErrNotReady, r.source)
	}
	return r, err
}

// routeError says what the errno of a route lookup means (fib_props, net/ipv4/fib_semantics.c).
func routeError(err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return fmt.Errorf("look up route: %w", err)
	}
	switch errno {
	case unix.ENETUNREACH:
		return ErrNoRoute
	case unix.EHOSTUNREACH:
		return fmt.Errorf("%w: the route is unreachable", ErrNoRoute)
	case unix.EACCES:
		return fmt.Errorf("%w: the route is prohibited", ErrNoRoute)
	case unix.EINVAL:
		return fmt.Errorf("%w: the route is a blackhole", ErrNoRoute)
	}
	return fmt.Errorf("look up route: %w", err)
}

// routeOf reads one answer. IPv4 reports a route that leads nowhere as an errno, IPv6 as its type.
func routeOf(r netlink.Route) (route, error) {
	switch r.Type {
	case unix.RTN_UNICAST:
	case unix.RTN_LOCAL:
		return route{}, fmt.Errorf("%w: it is an address of this machine", ErrNoRoute)
	case unix.RTN_BROADCAST:
		return route{}, fmt.Errorf("%w: it is a broadcast address", ErrNoRoute)
	case unix.RTN_MULTICAST:
		return route{}, fmt.Errorf("%w: it is a multicast address", ErrNoRoute)
	case unix.RTN_ANYCAST:
		return route{}, fmt.Errorf("%w: it is an anycast address of this machine", ErrNoRoute)
	case unix.RTN_BLACKHOLE:
		return route{}, routeError(unix.EINVAL)
	case unix.RTN_UNREACHABLE:
		return route{}, routeError(unix.EHOSTUNREACH)
	case unix.RTN_PROHIBIT:
		return route{}, routeError(unix.EACCES)
	default:
		return route{}, fmt.Errorf("%w: the route is of type %d", ErrNoRoute, r.Type)
	}
	if r.Encap != nil {
		return route{}, fmt.Errorf("%w: the route encapsulates, and netconsole cannot", ErrUnusable)
	}
	out := route{index: r.LinkIndex}
	out.source, _ = addrOf(r.Src)
	out.gateway, _ = addrOf(r.Gw)
	if via, ok := r.Via.(*netlink.Via); ok { // an IPv4 route by an IPv6 gateway
		out.gateway, _ = addrOf(via.Addr)
	}
	return out, nil
}

// localAddresses returns the addresses from which a packet to dst may be sent.
func localAddresses(dst netip.Addr) ([]address, error) {
	all, err := addressList(dst.Is4())
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(a address) bool {
		return a.Addr().IsLoopback() || a.Addr().IsLinkLocalUnicast() != dst.IsLinkLocalUnicast()
	}), nil
}

// addressList reads this machine's addresses of one family in the kernel's order, without those that failed or have not
// finished duplicate address detection.
func addressList(ip4 bool) ([]address, error) {
	family := netlink.FAMILY_V6
	if ip4 {
		family = netlink.FAMILY_V4
	}
	list, err := netlink.AddrList(nil, family)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // an address lost to a race comes back as an event
		return nil, fmt.Errorf("read addresses: %w", err)
	}
	var as []address
	for _, a := range list {
		ip, ok := addrOf(a.IP)
		if !ok || a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
			continue
		}
		ones, _ := a.Mask.Size()
		as = append(as, address{a.LinkIndex, netip.PrefixFrom(ip, ones)})
	}
	return as, nil
}

// addrOf is netip.AddrFromSlice for netlink's addresses, where IPv4 may have either length.
func addrOf(b []byte) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(b)
	return a.Unmap(), ok
}
