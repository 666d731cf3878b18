package nexthop

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routes answers lookups by source; "" is the kernel's own choice. A source not in it has no route.
type routes map[string]route

func (r routes) lookup(source netip.Addr) (route, error) {
	key := ""
	if source.IsValid() {
		key = source.String()
	}
	found, ok := r[key]
	if !ok {
		return route{}, ErrNoRoute
	}
	return found, nil
}

func TestChoose(t *testing.T) {
	const eth0, eth1 = 2, 3
	var (
		a0  = netip.MustParseAddr("10.0.0.5")
		b0  = netip.MustParseAddr("10.0.0.6") // secondary address of eth0
		a1  = netip.MustParseAddr("10.0.1.5")
		gw0 = netip.MustParseAddr("10.0.0.1")
		gw1 = netip.MustParseAddr("10.0.1.1")

		by0  = route{index: eth0, source: a0, gateway: gw0}
		by0b = route{index: eth0, source: b0, gateway: gw0}
		by1  = route{index: eth1, source: a1, gateway: gw1}

		local = []address{
			{eth0, netip.PrefixFrom(a0, 24)}, {eth0, netip.PrefixFrom(b0, 24)}, {eth1, netip.PrefixFrom(a1, 24)},
		}
	)
	tests := []struct {
		name    string
		sources []netip.Addr
		prefer  int
		routes  routes
		want    route
		err     error
	}{
		{name: "no wishes: the kernel's choice", routes: routes{"": by1}, want: by1},
		{name: "no route at all", err: ErrNoRoute},
		{
			name:    "the kernel's choice stands if its source is allowed, whatever the order",
			sources: []netip.Addr{b0, a0},
			routes:  routes{"": by0, b0.String(): by0b},
			want:    by0,
		},
		{
			name:    "a source that is not allowed gives way to the first that is",
			sources: []netip.Addr{b0, a0},
			routes:  routes{"": by1, a0.String(): by0, b0.String(): by0b},
			want:    by0b,
		},
		{
			name:    "policy routing reaches what the main table does not",
			sources: []netip.Addr{a1},
			routes:  routes{a1.String(): by1},
			want:    by1,
		},
		{
			name:   "the preferred device if packets from its address leave there",
			prefer: eth0,
			routes: routes{"": by1, a0.String(): by0, b0.String(): by0b, a1.String(): by1},
			want:   by0,
		},
		{
			name:   "not the preferred device if its packets leave elsewhere",
			prefer: eth0,
			routes: routes{"": by1, a0.String(): {index: eth1, source: a0, gateway: gw1}, a1.String(): by1},
			want:   by1,
		},
		{
			name:    "the preferred device only from an allowed source",
			sources: []netip.Addr{a1},
			prefer:  eth0,
			routes:  routes{"": by1, a0.String(): by0, a1.String(): by1},
			want:    by1,
		},
		{
			name:    "a source is never lent to another device: the VPC would drop it",
			sources: []netip.Addr{a0},
			routes:  routes{"": by1, a0.String(): {index: eth1, source: a0, gateway: gw1}},
			err:     ErrNoRoute,
		},
		{
			name:    "an allowed source that this machine lacks is passed over",
			sources: []netip.Addr{netip.MustParseAddr("10.0.0.99"), a0},
			routes:  routes{"": by1, a0.String(): by0},
			want:    by0,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := choose(tt.sources, tt.prefer, local, tt.routes.lookup)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if got != tt.want {
				t.Errorf("choose = %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestRouteOf(t *testing.T) {
	tests := []struct {
		name string
		in   netlink.Route
		want route
		err  string
	}{
		{
			name: "by a gateway",
			in:   netlink.Route{Type: unix.RTN_UNICAST, LinkIndex: 2, Src: net.IPv4(10, 0, 0, 5), Gw: net.IPv4(10, 0, 0, 1).To4()},
			want: route{index: 2, source: ownIPv4, gateway: hopIPv4},
		},
		{
			name: "on-link",
			in:   netlink.Route{Type: unix.RTN_UNICAST, LinkIndex: 2, Src: net.IPv4(10, 0, 0, 5)},
			want: route{index: 2, source: ownIPv4},
		},
		{
			name: "IPv4 by an IPv6 gateway",
			in: netlink.Route{
				Type: unix.RTN_UNICAST, LinkIndex: 2, Src: net.IPv4(10, 0, 0, 5),
				Via: &netlink.Via{AddrFamily: unix.AF_INET6, Addr: net.ParseIP("fe80::1")},
			},
			want: route{index: 2, source: ownIPv4, gateway: hopIPv6},
		},
		{name: "to ourselves", in: netlink.Route{Type: unix.RTN_LOCAL}, err: "no route: it is an address of this machine"},
		{name: "to a subnet's broadcast", in: netlink.Route{Type: unix.RTN_BROADCAST}, err: "no route: it is a broadcast address"},
		{name: "multicast", in: netlink.Route{Type: unix.RTN_MULTICAST}, err: "no route: it is a multicast address"},
		{name: "to our anycast address", in: netlink.Route{Type: unix.RTN_ANYCAST}, err: "no route: it is an anycast address of this machine"},
		{name: "IPv6 blackhole", in: netlink.Route{Type: unix.RTN_BLACKHOLE}, err: "no route: the route is a blackhole"},
		{name: "IPv6 unreachable", in: netlink.Route{Type: unix.RTN_UNREACHABLE}, err: "no route: the route is unreachable"},
		{name: "IPv6 prohibit", in: netlink.Route{Type: unix.RTN_PROHIBIT}, err: "no route: the route is prohibited"},
		{name: "a type of the future", in: netlink.Route{Type: 42}, err: "no route: the route is of type 42"},
		{
			name: "by MPLS",
			in:   netlink.Route{Type: unix.RTN_UNICAST, Encap: &netlink.MPLSEncap{}},
			err:  "device cannot be used: the route encapsulates, and netconsole cannot",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := routeOf(tt.in)
			if text := errorText(err); text != tt.err {
				t.Fatalf("error %q, want %q", text, tt.err)
			}
			if got != tt.want {
				t.Errorf("routeOf = %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestRouteError(t *testing.T) {
	tests := []struct {
		name string
		in   error
		want string
	}{
		{"none", unix.ENETUNREACH, "no route"},
		{"unreachable", unix.EHOSTUNREACH, "no route: the route is unreachable"},
		{"prohibit", unix.EACCES, "no route: the route is prohibited"},
		{"blackhole", unix.EINVAL, "no route: the route is a blackhole"},
		{"anything else is told as it came", unix.ENOBUFS, "look up route: no buffer space available"},
		{"no errno", errors.New("odd"), "look up route: odd"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := routeError(tt.in).Error(); got != tt.want {
				t.Errorf("routeError = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestSenderOf(t *testing.T) {
	const eth0, eth1 = 2, 3
	var (
		global = netip.MustParseAddr("2001:db8::5")
		other  = netip.MustParseAddr("10.9.0.5")
	)
	local := []address{
		{eth0, netip.PrefixFrom(other, 24)},
		{eth0, netip.PrefixFrom(ownIPv4, 24)},
		{eth1, netip.MustParsePrefix("192.0.2.1/24")},
		{eth0, netip.PrefixFrom(global, 64)},
		{eth0, netip.PrefixFrom(ownIPv6, 64)},
	}
	only := func(ip4 bool) (as []address) {
		for _, a := range local {
			if a.Addr().Is4() == ip4 {
				as = append(as, a)
			}
		}
		return as
	}
	tests := []struct {
		name           string
		device         int
		source, target netip.Addr
		want           netip.Addr
	}{
		{"the packets' own source", eth0, other, hopIPv4, other},
		{"the packets' own source in IPv6", eth0, global, hopIPv6, global},
		{"a source that is another device's gives way to the subnet's", eth0, netip.MustParseAddr("192.0.2.1"), hopIPv4, ownIPv4},
		{"nothing in the subnet: a probe without sender", eth1, netip.MustParseAddr("203.0.113.1"), hopIPv4, netip.Addr{}},
		{"IPv4 by an IPv6 gateway asks from the link-local address", eth0, ownIPv4, hopIPv6, ownIPv6},
		{"a device without IPv6", eth1, ownIPv4, hopIPv6, netip.Addr{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := senderOf(only(tt.target.Is4()), tt.device, tt.source, tt.target); got != tt.want {
				t.Errorf("senderOf = %v, want %v", got, tt.want)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
