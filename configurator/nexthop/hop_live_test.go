//go:build live

package nexthop

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// host is a network namespace that lives as long as its test.
type host struct {
	t  testing.TB
	ns netns.NsHandle
}

func newHost(t testing.TB) host {
	t.Helper()
	h := host{t: t}
	onThread(t, func() {
		var err error
		if h.ns, err = netns.New(); err != nil {
			t.Fatalf("make network namespace (needs root): %v", err)
		}
	})
	t.Cleanup(func() { h.ns.Close() })
	h.ip("link set lo up")
	return h
}

// onThread runs f on the test's own goroutine, locked to its thread, and takes the thread back to its namespace.
func onThread(t testing.TB, f func()) {
	t.Helper()
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatalf("find own network namespace: %v", err)
	}
	defer home.Close()
	defer func() {
		if err := netns.Set(home); err != nil {
			t.Errorf("return to own network namespace: %v", err) // and leave the thread locked, to die
			return
		}
		runtime.UnlockOSThread()
	}()
	f()
}

// do runs f inside the namespace.
func (h host) do(f func()) {
	h.t.Helper()
	onThread(h.t, func() {
		if err := netns.Set(h.ns); err != nil {
			h.t.Fatalf("enter network namespace: %v", err)
		}
		f()
	})
}

// ip runs `ip` with each line's words inside the namespace.
func (h host) ip(lines ...string) {
	h.t.Helper()
	h.do(func() {
		for _, line := range lines {
			if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
				h.t.Fatalf("ip %s: %v: %s", line, err, out)
			}
		}
	})
}

// wire connects two hosts with a veth pair. Both ends are up; neither has an address but those given.
func wire(a host, aDev, aMAC string, b host, bDev, bMAC string) {
	a.t.Helper()
	a.ip("link add "+aDev+" address "+aMAC+" type veth peer name far address "+bMAC,
		"link set "+aDev+" addrgenmode none", "link set far addrgenmode none")
	a.do(func() {
		far, err := netlink.LinkByName("far")
		if err == nil {
			err = netlink.LinkSetNsFd(far, int(b.ns))
		}
		if err != nil {
			a.t.Fatalf("wire %s to %s: %v", aDev, bDev, err)
		}
	})
	b.ip("link set far name "+bDev, "link set "+bDev+" up")
	a.ip("link set " + aDev + " up")
	a.awaitUp(aDev)
	b.awaitUp(bDev)
}

// awaitUp waits until the kernel has noticed the carrier of a device: before that it drops what is sent, and it may take a second
// (net/core/link_watch.c).
func (h host) awaitUp(device string) {
	h.t.Helper()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for range 60000 {
		var state netlink.LinkOperState
		h.do(func() {
			l, err := netlink.LinkByName(device)
			if err != nil {
				h.t.Fatal(err)
			}
			state = l.Attrs().OperState
		})
		if state == netlink.OperUp {
			return
		}
		<-again.C
	}
	h.t.Fatalf("%s never comes up", device)
}

const (
	nodeMAC  = "02:00:00:00:00:05"
	nodeMAC1 = "02:00:00:00:01:05"
	gateMAC  = "02:00:00:00:00:01"
	gateMAC1 = "02:00:00:00:01:01"
	deadMAC  = "02:de:ad:00:00:01"
	listener = "10.9.1.53"
)

// subnet is a node on one link with a gateway: the world most tests start from. Duplicate address detection would keep
// its IPv6 addresses unusable for a second.
func subnet(t testing.TB) (node, gate host) {
	t.Helper()
	node, gate = newHost(t), newHost(t)
	wire(node, "eth0", nodeMAC, gate, "eth0", gateMAC)
	node.ip("addr add 10.0.0.5/24 dev eth0", "addr add fe80::5/64 dev eth0 nodad", "addr add 2001:db8::5/64 dev eth0 nodad")
	gate.ip("addr add 10.0.0.1/24 dev eth0", "addr add fe80::1/64 dev eth0 nodad", "addr add 2001:db8::1/64 dev eth0 nodad")
	return node, gate
}

// resolve is ask where the next hop answers: on a busy machine not within a second each time.
func (h host) resolve(q Query) (hop Hop, err error) {
	h.t.Helper()
	for range 30 {
		if hop, err = h.ask(q); !errors.Is(err, ErrNoReply) {
			break
		}
		h.t.Log(err)
	}
	return hop, err
}

// ask asks from inside the node, and leaves out the interface index, which differs from run to run.
func (h host) ask(q Query) (Hop, error) {
	h.t.Helper()
	var (
		hop Hop
		err error
	)
	h.do(func() { hop, err = query{q, "veth"}.hopTo(h.t.Context()) })
	if err == nil && hop.Index == 0 {
		h.t.Errorf("no device index in %+v", hop)
	}
	hop.Index = 0
	return hop, err
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func ether(t testing.TB, s string) net.HardwareAddr {
	t.Helper()
	hw, err := net.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return hw
}

var addrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestLiveResolve(t *testing.T) {
	viaGate := func(t testing.TB) Hop {
		return Hop{
			Device: "eth0", DeviceMAC: ether(t, nodeMAC), Source: ip("10.0.0.5"),
			NextHop: ip("10.0.0.1"), NextHopMAC: ether(t, gateMAC),
		}
	}
	viaGate6 := func(t testing.TB) Hop {
		h := viaGate(t)
		h.Source, h.NextHop = ip("2001:db8::5"), ip("fe80::1")
		return h
	}
	tests := []struct {
		name string
		node []string // run in the node beforehand
		gate []string
		q    Query
		want func(testing.TB) Hop
	}{
		{
			name: "by a gateway",
			node: []string{"route add default via 10.0.0.1"},
			q:    Query{Destination: ip(listener)},
			want: viaGate,
		},
		{
			name: "an IPv4 address in IPv6 clothes",
			node: []string{"route add default via 10.0.0.1"},
			q:    Query{Destination: ip("::ffff:" + listener)},
			want: viaGate,
		},
		{
			name: "on-link",
			q:    Query{Destination: ip("10.0.0.1")},
			want: func(t testing.TB) Hop { h := viaGate(t); h.OnLink = true; return h },
		},
		{
			name: "on-link in IPv6",
			q:    Query{Destination: ip("2001:db8::1")},
			want: func(t testing.TB) Hop {
				h := viaGate6(t)
				h.OnLink, h.NextHop = true, ip("2001:db8::1")
				return h
			},
		},
		{
			name: "by a link-local IPv6 gateway",
			node: []string{"-6 route add default via fe80::1 dev eth0"},
			q:    Query{Destination: ip("2001:db8:9::53")},
			want: viaGate6,
		},
		{
			name: "a link-local destination on the device of its zone",
			q:    Query{Destination: ip("fe80::1%eth0")},
			want: func(t testing.TB) Hop { h := viaGate6(t); h.OnLink, h.Source = true, ip("fe80::5"); return h },
		},
		{
			name: "IPv4 by an IPv6 gateway",
			node: []string{"-4 route add default via inet6 fe80::1 dev eth0"},
			q:    Query{Destination: ip(listener)},
			want: func(t testing.TB) Hop { h := viaGate(t); h.NextHop = ip("fe80::1"); return h },
		},
		{
			name: "a permanent neighbour entry with a dead address",
			node: []string{"route add default via 10.0.0.1", "neigh replace 10.0.0.1 lladdr " + deadMAC + " nud permanent dev eth0"},
			q:    Query{Destination: ip(listener)},
			want: viaGate,
		},
		{
			name: "a reachable neighbour entry with a dead address",
			node: []string{"route add default via 10.0.0.1", "neigh replace 10.0.0.1 lladdr " + deadMAC + " nud reachable dev eth0"},
			q:    Query{Destination: ip(listener)},
			want: viaGate,
		},
		{
			name: "a permanent IPv6 neighbour entry with a dead address",
			node: []string{"-6 route add default via fe80::1 dev eth0", "neigh replace fe80::1 lladdr " + deadMAC + " nud permanent dev eth0"},
			q:    Query{Destination: ip("2001:db8:9::53")},
			want: viaGate6,
		},
		{
			name: "the master instead of its port",
			node: []string{
				"addr flush dev eth0", "link add br0 address 02:00:00:00:00:0b type bridge", "link set br0 addrgenmode none",
				"link set br0 up", "link set eth0 master br0", "addr add 10.0.0.5/24 dev br0", "route add default via 10.0.0.1",
			},
			q: Query{Destination: ip(listener), Prefer: "eth0"},
			want: func(t testing.TB) Hop {
				h := viaGate(t)
				h.Device, h.DeviceMAC = "br0", ether(t, "02:00:00:00:00:0b")
				return h
			},
		},
		{
			name: "a macvlan",
			node: []string{
				"addr flush dev eth0", "link add mv0 link eth0 address 02:00:00:00:00:0c type macvlan mode bridge",
				"link set mv0 up", "addr add 10.0.0.5/24 dev mv0", "route add default via 10.0.0.1",
			},
			q: Query{Destination: ip(listener)},
			want: func(t testing.TB) Hop {
				h := viaGate(t)
				h.Device, h.DeviceMAC = "mv0", ether(t, "02:00:00:00:00:0c")
				return h
			},
		},
		{
			name: "a source on the loopback device, as routing daemons have it",
			node: []string{"addr add 192.0.2.5/32 dev lo", "route add default via 10.0.0.1 src 192.0.2.5"},
			q:    Query{Destination: ip(listener)},
			want: func(t testing.TB) Hop { h := viaGate(t); h.Source = ip("192.0.2.5"); return h },
		},
		{
			name: "a gateway outside of every subnet",
			node: []string{"route add default via 169.254.1.1 dev eth0 onlink"},
			gate: []string{"addr add 169.254.1.1/32 dev eth0"},
			q:    Query{Destination: ip(listener)},
			want: func(t testing.TB) Hop { h := viaGate(t); h.NextHop = ip("169.254.1.1"); return h },
		},
		{
			name: "a host address, and a route to its gateway",
			node: []string{"-4 addr flush dev eth0", "addr add 10.0.0.5/32 dev eth0", "route add 10.0.0.1/32 dev eth0", "route add default via 10.0.0.1"},
			q:    Query{Destination: ip(listener)},
			want: viaGate,
		},
		{
			name: "a default route without a gateway, and one that answers for all",
			node: []string{"route add default dev eth0"},
			gate: []string{"addr add " + listener + "/32 dev eth0"},
			q:    Query{Destination: ip(listener)},
			want: func(t testing.TB) Hop { h := viaGate(t); h.NextHop, h.OnLink = ip(listener), true; return h },
		},
		{
			name: "the route's own source is not allowed",
			node: []string{"addr add 10.0.0.9/24 dev eth0", "route add default via 10.0.0.1 src 10.0.0.9"},
			q:    Query{Destination: ip(listener), Sources: []netip.Addr{ip("10.0.0.5")}},
			want: viaGate,
		},
		{
			name: "a deprecated IPv6 address beside another",
			node: []string{"addr add 2001:db8::7/64 dev eth0 nodad preferred_lft 0", "-6 route add default via fe80::1 dev eth0"},
			q:    Query{Destination: ip("2001:db8:9::53")},
			want: viaGate6,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			node, gate := subnet(t)
			changes := node.watch()
			node.ip(tt.node...)
			gate.ip(tt.gate...)
			got, err := node.resolve(tt.q)
			// A bridge has its carrier only when the kernel's link watch has run. The event says when.
			for errors.Is(err, ErrNotReady) {
				changes.next()
				got, err = node.resolve(tt.q)
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want(t), got, addrs); diff != "" {
				t.Errorf("hop (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLiveResolveRefuses(t *testing.T) {
	tests := []struct {
		name string
		node []string
		gate []string
		dst  string
		is   error
		want string
	}{
		{
			name: "no route",
			dst:  listener,
			is:   ErrNoRoute,
			want: "reach 10.9.1.53: no route",
		},
		{
			name: "a blackhole",
			node: []string{"route add blackhole 10.9.0.0/16"},
			dst:  listener,
			is:   ErrNoRoute,
			want: "reach 10.9.1.53: no route: the route is a blackhole",
		},
		{
			name: "a nexthop object that is a blackhole",
			node: []string{"nexthop add id 1 blackhole", "route add 10.9.0.0/16 nhid 1"},
			dst:  listener,
			is:   ErrNoRoute,
			want: "reach 10.9.1.53: no route: the route is a blackhole",
		},
		{
			name: "an unreachable route",
			node: []string{"route add unreachable 10.9.0.0/16"},
			dst:  listener,
			is:   ErrNoRoute,
			want: "reach 10.9.1.53: no route: the route is unreachable",
		},
		{
			name: "a prohibited route",
			node: []string{"route add prohibit 10.9.0.0/16"},
			dst:  listener,
			is:   ErrNoRoute,
			want: "reach 10.9.1.53: no route: the route is prohibited",
		},
		{
			name: "an IPv6 blackhole",
			node: []string{"-6 route add blackhole 2001:db8:9::/48"},
			dst:  "2001:db8:9::53",
			is:   ErrNoRoute,
			want: "reach 2001:db8:9::53: no route: the route is a blackhole",
		},
		{
			name: "a rule that prohibits, whatever the routes say",
			node: []string{"route add default via 10.0.0.1", "rule add to 10.9.0.0/16 prohibit"},
			dst:  listener,
			is:   ErrNoRoute,
			want: "reach 10.9.1.53: no route: the route is prohibited",
		},
		{
			name: "IPv4 where there is IPv6 only",
			node: []string{"-4 addr flush dev eth0", "-6 route add default via fe80::1 dev eth0"},
			dst:  listener,
			is:   ErrNoRoute,
			want: "reach 10.9.1.53: no route",
		},
		{
			name: "ourselves",
			dst:  "10.0.0.5",
			is:   ErrNoRoute,
			want: "reach 10.0.0.5: no route: it is an address of this machine",
		},
		{
			name: "the subnet's broadcast address",
			dst:  "10.0.0.255",
			is:   ErrNoRoute,
			want: "reach 10.0.0.255: no route: it is a broadcast address",
		},
		{
			name: "a dead gateway",
			node: []string{"route add default via 10.0.0.77"},
			dst:  listener,
			is:   ErrNoReply,
			want: "reach 10.9.1.53: next hop does not answer: 10.0.0.77 on eth0 ignored 4 ARP requests within 1s",
		},
		{
			name: "a dead gateway that the neighbour table calls permanent",
			node: []string{"route add default via 10.0.0.77", "neigh replace 10.0.0.77 lladdr " + deadMAC + " nud permanent dev eth0"},
			dst:  listener,
			is:   ErrNoReply,
			want: "reach 10.9.1.53: next hop does not answer: 10.0.0.77 on eth0 ignored 4 ARP requests within 1s",
		},
		{
			name: "a dead IPv6 gateway",
			node: []string{"-6 route add default via fe80::77 dev eth0"},
			dst:  "2001:db8:9::53",
			is:   ErrNoReply,
			want: "reach 2001:db8:9::53: next hop does not answer: fe80::77 on eth0 ignored 4 neighbour solicitations within 1s",
		},
		{
			name: "no carrier",
			node: []string{"route add default via 10.0.0.1"},
			gate: []string{"link set eth0 down"},
			dst:  listener,
			is:   ErrNotReady,
			want: "reach 10.9.1.53: device is not ready: eth0 has no carrier",
		},
		{
			name: "a device without IPv6 addresses",
			node: []string{"-6 addr flush dev eth0", "-4 route add default via inet6 fe80::1 dev eth0"},
			dst:  listener,
			is:   ErrNotReady,
			want: "reach 10.9.1.53: device is not ready: eth0 has no IPv6 address to ask fe80::1 from",
		},
		{
			name: "a link-local address only, as while duplicate address detection checks the global one",
			node: []string{"-6 addr flush dev eth0", "addr add fe80::5/64 dev eth0 nodad", "-6 route add default via fe80::1 dev eth0"},
			dst:  "2001:db8:9::53",
			is:   ErrNotReady,
			want: "reach 2001:db8:9::53: device is not ready: packets would leave from fe80::5, which no router forwards; there is no global address yet",
		},
		{
			name: "a link-local address of no device",
			dst:  "fe80::1",
			is:   ErrNoRoute,
			want: "reach fe80::1: no route: a link-local address needs its device named (fe80::1%eth0)",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			node, gate := subnet(t)
			node.ip(tt.node...)
			gate.ip(tt.gate...)
			_, err := node.ask(Query{Destination: ip(tt.dst)})
			if !errors.Is(err, tt.is) || err.Error() != tt.want {
				t.Errorf("error %v\nwant  %s", err, tt.want)
			}
		})
	}
}

// TestLiveTwoInterfaces is a node with two ENIs, each with a gateway of its own, as VPC CNI and ec2-net-utils leave it.
func TestLiveTwoInterfaces(t *testing.T) {
	first := Hop{
		Device: "eth0", DeviceMAC: ether(t, nodeMAC), Source: ip("10.0.0.5"),
		NextHop: ip("10.0.0.1"), NextHopMAC: ether(t, gateMAC),
	}
	second := Hop{
		Device: "eth1", DeviceMAC: ether(t, nodeMAC1), Source: ip("10.0.1.5"),
		NextHop: ip("10.0.1.1"), NextHopMAC: ether(t, gateMAC1),
	}
	inSecond := second
	inSecond.NextHop, inSecond.OnLink = ip("10.0.1.1"), true
	rules := []string{
		"rule add from 10.0.0.5 lookup 10000", "route add default via 10.0.0.1 dev eth0 table 10000",
		"rule add from 10.0.1.5 lookup 10001", "route add default via 10.0.1.1 dev eth1 table 10001",
	}
	tests := []struct {
		name string
		node []string
		q    Query
		want Hop
		is   error
	}{
		{
			name: "the main table's choice",
			node: append([]string{"route add default via 10.0.0.1"}, rules...),
			q:    Query{Destination: ip(listener)},
			want: first,
		},
		{
			name: "the preferred interface, by its rule",
			node: append([]string{"route add default via 10.0.0.1"}, rules...),
			q:    Query{Destination: ip(listener), Prefer: "eth1"},
			want: second,
		},
		{
			name: "the allowed source, by its rule",
			node: append([]string{"route add default via 10.0.0.1"}, rules...),
			q:    Query{Destination: ip(listener), Sources: []netip.Addr{ip("10.0.1.5")}},
			want: second,
		},
		{
			name: "no default route but the rules'",
			node: rules,
			q:    Query{Destination: ip(listener), Sources: []netip.Addr{ip("10.0.1.5"), ip("10.0.0.5")}, Prefer: "eth0"},
			want: first,
		},
		{
			name: "a destination in the second subnet leaves by the preferred interface's gateway",
			node: rules,
			q:    Query{Destination: ip("10.0.1.1"), Prefer: "eth0"},
			want: first,
		},
		{
			name: "without a rule it leaves where it is on-link",
			q:    Query{Destination: ip("10.0.1.1"), Prefer: "eth0"},
			want: inSecond,
		},
		{
			name: "but not with the first interface's address",
			q:    Query{Destination: ip("10.0.1.1"), Sources: []netip.Addr{ip("10.0.0.5")}},
			is:   ErrNoRoute,
		},
		{
			name: "an allowed source that DHCP has not brought yet",
			node: []string{"route add default via 10.0.0.1"},
			q:    Query{Destination: ip(listener), Sources: []netip.Addr{ip("10.0.0.6")}},
			is:   ErrNotReady,
		},
		{
			name: "a preferred interface that does not exist is no wish",
			node: append([]string{"route add default via 10.0.0.1"}, rules...),
			q:    Query{Destination: ip(listener), Prefer: "ens5"},
			want: first,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			node, gate := subnet(t)
			gate1 := newHost(t)
			wire(node, "eth1", nodeMAC1, gate1, "eth0", gateMAC1)
			node.ip("addr add 10.0.1.5/24 dev eth1")
			gate1.ip("addr add 10.0.1.1/24 dev eth0")
			gate.ip("addr add 10.0.1.1/32 dev lo") // answers too, if asked on the wrong device
			node.ip(tt.node...)
			got, err := node.resolve(tt.q)
			if !errors.Is(err, tt.is) {
				t.Fatalf("error %v, want %v", err, tt.is)
			}
			if diff := cmp.Diff(tt.want, got, addrs); diff != "" {
				t.Errorf("hop (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLiveNexthopGroup(t *testing.T) {
	node, _ := subnet(t)
	gate1 := newHost(t)
	wire(node, "eth1", nodeMAC1, gate1, "eth0", gateMAC1)
	node.ip("addr add 10.0.1.5/24 dev eth1")
	gate1.ip("addr add 10.0.1.1/24 dev eth0")
	node.ip("nexthop add id 1 via 10.0.0.1 dev eth0", "nexthop add id 2 via 10.0.1.1 dev eth1",
		"nexthop add id 10 group 1/2", "route add default nhid 10")
	got, err := node.resolve(Query{Destination: ip(listener)})
	if err != nil {
		t.Fatal(err)
	}
	members := map[string]Hop{
		"eth0": {
			Device: "eth0", DeviceMAC: ether(t, nodeMAC), Source: ip("10.0.0.5"),
			NextHop: ip("10.0.0.1"), NextHopMAC: ether(t, gateMAC),
		},
		"eth1": {
			Device: "eth1", DeviceMAC: ether(t, nodeMAC1), Source: ip("10.0.1.5"),
			NextHop: ip("10.0.1.1"), NextHopMAC: ether(t, gateMAC1),
		},
	}
	if diff := cmp.Diff(members[got.Device], got, addrs); diff != "" {
		t.Errorf("hop is no whole member of the group (-want +got):\n%s", diff)
	}
}

// TestLiveNexthopGroupWithASilentMember: the kernel's choice among the members is a hash of the flow, dead or alive.
func TestLiveNexthopGroupWithASilentMember(t *testing.T) {
	alive := Hop{
		Device: "eth0", DeviceMAC: ether(t, nodeMAC), Source: ip("10.0.0.5"), NextHop: ip("10.0.0.1"), NextHopMAC: ether(t, gateMAC),
	}
	alive6 := alive
	alive6.Source, alive6.NextHop = ip("2001:db8::5"), ip("2001:db8::1")
	const twoDevices = "route add 10.9.0.0/16 nexthop via 10.0.0.1 dev eth0 nexthop via 10.0.1.66 dev eth1"
	for _, tt := range []struct {
		name    string
		route   []string
		first   string // the member that the kernel chooses
		sources []netip.Addr
		want    Hop
		is      error
	}{
		{"the living one is chosen", []string{twoDevices}, "10.0.0.1", nil, alive, nil},
		{"the silent one is chosen", []string{twoDevices}, "10.0.1.66", nil, alive, nil},
		{"the silent one of a nexthop object is chosen", []string{"nexthop add id 1 via 10.0.0.1 dev eth0",
			"nexthop add id 2 via 10.0.1.66 dev eth1", "nexthop add id 10 group 1/2", "route add 10.9.0.0/16 nhid 10"},
			"10.0.1.66", nil, alive, nil},
		{"both are on one device",
			[]string{"route add 10.9.0.0/16 nexthop via 10.0.0.1 dev eth0 nexthop via 10.0.0.66 dev eth0"},
			"10.0.0.66", nil, alive, nil},
		{"IPv6",
			[]string{"route add 2001:db8:9::/48 nexthop via 2001:db8::1 dev eth0 nexthop via 2001:db8:1::66 dev eth1"},
			"2001:db8:1::66", nil, alive6, nil},
		{"the living one's source is not allowed", []string{twoDevices}, "10.0.1.66", []netip.Addr{ip("10.0.1.5")}, Hop{}, ErrNoReply},
		{"all are silent",
			[]string{"route add 10.9.0.0/16 nexthop via 10.0.0.66 dev eth0 nexthop via 10.0.1.66 dev eth1"},
			"10.0.0.66", nil, Hop{}, ErrNoReply},
	} {
		t.Run(tt.name, func(t *testing.T) {
			node, _ := subnet(t)
			wire(node, "eth1", nodeMAC1, newHost(t), "eth0", gateMAC1)
			node.ip("addr add 10.0.1.5/24 dev eth1", "addr add 2001:db8:1::5/64 dev eth1 nodad")
			node.ip(tt.route...)
			ask := node.resolve
			if tt.is != nil {
				ask = node.ask
			}
			got, err := ask(Query{Destination: node.routedBy(ip(tt.first)), Sources: tt.sources})
			if !errors.Is(err, tt.is) {
				t.Fatalf("error %v, want %v", err, tt.is)
			}
			if err != nil {
				t.Log(err)
			}
			if diff := cmp.Diff(tt.want, got, addrs); diff != "" {
				t.Errorf("hop (-want +got):\n%s", diff)
			}
		})
	}
}

// routedBy is a destination on the far side for which the kernel chooses this gateway.
func (h host) routedBy(gateway netip.Addr) netip.Addr {
	h.t.Helper()
	to := ip("10.9.1.1")
	if gateway.Is6() {
		to = ip("2001:db8:9::1")
	}
	for range 250 {
		var r route
		var err error
		h.do(func() { r, err = lookup(to, netip.Addr{}, 0) })
		if err != nil {
			h.t.Fatal(err)
		}
		if r.gateway == gateway {
			return to
		}
		to = to.Next()
	}
	h.t.Fatalf("the kernel never chooses %s", gateway)
	return netip.Addr{}
}

// TestLiveGatewayMoves is what netconsole cannot see for itself: the same gateway address on another machine.
func TestLiveGatewayMoves(t *testing.T) {
	node, gate := subnet(t)
	node.ip("route add default via 10.0.0.1")
	q := Query{Destination: ip(listener)}
	before, err := node.resolve(q)
	if err != nil {
		t.Fatal(err)
	}
	gate.ip("link set eth0 down", "link set eth0 address "+deadMAC, "link set eth0 up")
	gate.awaitUp("eth0")
	node.awaitUp("eth0")
	after, err := node.resolve(q)
	if err != nil {
		t.Fatal(err)
	}
	if before.NextHopMAC.String() != gateMAC || after.NextHopMAC.String() != deadMAC {
		t.Errorf("next hop was %s and is %s, want %s and %s", before.NextHopMAC, after.NextHopMAC, gateMAC, deadMAC)
	}
}

// TestLiveBridge has the gateway behind one port of a bridge and somebody else behind the other: who forwards is read from
// the bridge, and refused by what the port is.
func TestLiveBridge(t *testing.T) {
	node, gate, other := newHost(t), newHost(t), newHost(t)
	wire(node, "up0", nodeMAC, gate, "eth0", gateMAC)
	wire(node, "pod0", nodeMAC1, other, "eth0", gateMAC1)
	node.ip("link add br0 address 02:00:00:00:02:05 type bridge", "link set up0 master br0", "link set pod0 master br0", "link set br0 up",
		"addr add 10.0.0.5/24 dev br0", "route add default via 10.0.0.1")
	gate.ip("addr add 10.0.0.1/24 dev eth0")
	node.awaitUp("br0")
	q := Query{Destination: ip(listener)}
	node.do(func() {
		_, err := Resolve(t.Context(), q)
		for range 30 { // as in resolve
			if !errors.Is(err, ErrNoReply) {
				break
			}
			_, err = Resolve(t.Context(), q)
		}
		if !errors.Is(err, ErrUnusable) ||
			!strings.Contains(err.Error(), "up0 is one end of a veth pair: the other end receives in a softirq, and none runs in a panic") {
			t.Errorf("error %v, want up0 refused", err)
		}
	})
	if hop, err := node.resolve(q); err != nil || hop.Device != "br0" {
		t.Errorf("with a cable for a card: %+v, %v", hop, err)
	}
	node.ip("neigh replace 10.0.0.1 lladdr " + gateMAC + " dev br0")
	var path Path
	node.do(func() { path = query{q, "veth"}.path() })
	if path.Problem != "" || path.Cards != "up0" || path.NextHopMAC != gateMAC {
		t.Errorf("path %+v, want one by up0", path)
	}
}

// TestLiveUnusableAndSilent has a gateway that does not answer behind a device that no panic gets through. The device is what an
// operator must change.
func TestLiveUnusableAndSilent(t *testing.T) {
	node, gate := newHost(t), newHost(t)
	wire(node, "pod0", nodeMAC, gate, "eth0", gateMAC)
	node.ip("link add br0 type bridge", "link set pod0 master br0", "link set br0 up",
		"link add upper link br0 type macvlan", "link set upper up", "addr add 10.0.0.5/24 dev upper", "route add default via 10.0.0.1")
	node.awaitUp("br0")
	node.awaitUp("upper")
	node.do(func() {
		if _, err := Resolve(t.Context(), Query{Destination: ip(listener)}); !errors.Is(err, ErrUnusable) || errors.Is(err, ErrNoReply) ||
			!strings.Contains(err.Error(), "pod0 is one end of a veth pair") {
			t.Errorf("error %v, want pod0 refused", err)
		}
	})
}

// TestLiveUnpluggedUplink has a bridge with a pod, whose uplink has lost its carrier: the uplink is what an operator must look at, not
// the pod. When the carrier is back, the path says so, though the bridge itself never changed.
func TestLiveUnpluggedUplink(t *testing.T) {
	node, gate := newHost(t), newHost(t)
	wire(node, "eth0", nodeMAC, gate, "eth0", gateMAC)
	node.ip("link add pod0 type vxlan id 7 dstport 4789", "link add br0 type bridge", "link set eth0 master br0", "link set pod0 master br0",
		"link set pod0 up", "link set br0 up", "addr add 10.0.0.5/24 dev br0", "route add default via 10.0.0.1")
	gate.ip("addr add 10.0.0.1/24 dev eth0", "link set eth0 down")
	changes := node.watch()
	look := func() (p Path) {
		node.do(func() { p = query{Query{Destination: ip(listener)}, "veth"}.path() })
		return p
	}
	if _, err := node.resolve(Query{Destination: ip(listener)}); !errors.Is(err, ErrNotReady) || errors.Is(err, ErrUnusable) ||
		!strings.Contains(err.Error(), "eth0 has no carrier") {
		t.Errorf("error %v, want eth0 without a carrier", err)
	}
	if p := look(); !strings.Contains(p.Problem, "eth0 has no carrier") {
		t.Errorf("path %+v", p)
	}
	gate.ip("link set eth0 up")
	for look().Problem != "" {
		changes.next()
	}
}

// TestLivePath has pods come and go, and routes that are nobody's business, and then what does matter.
func TestLivePath(t *testing.T) {
	node, gate := subnet(t)
	wire(node, "eth1", nodeMAC1, gate, "eth1", gateMAC1)
	node.ip("route add default via 10.0.0.1", "addr add 10.0.1.5/24 dev eth1")
	gate.ip("addr add 10.0.0.2/24 dev eth0")
	look := func() (p Path) {
		node.do(func() { p = query{Query{Destination: ip(listener)}, "veth"}.path() })
		return p
	}
	known := []Path{look()}
	if known[0].Problem != "" || known[0].Device != "eth0" || known[0].NextHop != ip("10.0.0.1") {
		t.Fatalf("path %+v", known[0])
	}
	for _, tt := range []struct {
		name string
		do   string
		want string // begins with
	}{
		{"a pod starts", "link add pod0 type veth peer name pod0p", ""},
		{"its route", "route add 10.200.0.7/32 dev eth1", ""},
		{"its rule", "rule add from 10.200.0.7 lookup 100", ""},
		{"its address on a device of ours", "addr add 10.0.0.77/24 dev eth0", ""},
		{"the pod ends", "link del pod0", ""},
		{"the gateway is met", "neigh replace 10.0.0.1 lladdr " + gateMAC + " dev eth0", ""},
		{"the gateway is forgotten", "neigh flush dev eth0", ""},
		{"the gateway moves", "neigh replace 10.0.0.1 lladdr " + gateMAC1 + " dev eth0", "neighbour 10.0.0.1 on eth0 moved from " + gateMAC},
		{"another default route", "route replace default via 10.0.0.2", "10.9.1.53 is reached through gateway 10.0.0.2"},
		{"a better route", "route add 10.9.0.0/16 via 10.0.1.1", "10.9.1.53 is reached through eth1"},
		{"its device goes down", "link set eth1 down", "10.9.1.53 is reached through eth0"},
		{"and no other is left", "link set eth0 down", "10.9.1.53 cannot be reached: no route"},
	} {
		node.ip(tt.do)
		next, changes := Compare(known, []Path{look()})
		if known = next; tt.want == "" && changes != "" || !strings.HasPrefix(changes, tt.want) {
			t.Errorf("%s: changes %q, want %q", tt.name, changes, tt.want)
		}
	}
}

func TestLiveResolveEndsWithItsContext(t *testing.T) {
	node, _ := subnet(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	node.do(func() {
		if _, err := (query{Query{Destination: ip("10.0.0.77")}, "veth"}).hopTo(ctx); !errors.Is(err, enough) {
			t.Errorf("error %v, want %v", err, enough)
		}
	})
}

// changes is a Watch with a bound on every wait.
type changes struct {
	t       testing.TB
	reasons <-chan string
}

func (h host) watch() changes {
	h.t.Helper()
	c := changes{t: h.t}
	h.do(func() {
		var err error
		if c.reasons, err = Watch(h.t.Context()); err != nil {
			h.t.Fatal(err)
		}
	})
	return c
}

func (c changes) next() string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	select {
	case r, ok := <-c.reasons:
		if !ok {
			c.t.Fatal("the watch ended")
		}
		return r
	case <-ctx.Done():
		c.t.Fatal("no change within a minute")
	}
	return ""
}

func TestLiveWatch(t *testing.T) {
	tests := []struct {
		name string
		node []string
		gate []string
		want string
	}{
		{name: "a route", node: []string{"route add 10.9.0.0/16 via 10.0.0.1"}, want: "route 10.9.0.0/16 added"},
		{name: "a default route", node: []string{"-6 route add default via fe80::1 dev eth0"}, want: "route default added"},
		{name: "a rule", node: []string{"rule add from 10.0.0.5 lookup 100"}, want: "routing rules changed"},
		{name: "an IPv6 rule", node: []string{"-6 rule add from 2001:db8::5 lookup 100"}, want: "routing rules changed"},
		{name: "a nexthop object", node: []string{"nexthop add id 1 via 10.0.0.1 dev eth0"}, want: "nexthop objects changed"},
		{name: "an address", node: []string{"addr add 10.0.0.6/24 dev eth0"}, want: "address 10.0.0.6/24 added to eth0"},
		{name: "carrier", gate: []string{"link set eth0 down"}, want: "device eth0 has no carrier"},
		{name: "a rename", node: []string{"link set eth0 name ens5"}, want: "device eth0 is now called ens5"},
		{
			name: "an Ethernet address",
			node: []string{"link set eth0 address 02:00:00:00:00:06"},
			want: "device eth0 changed its Ethernet address from 02:00:00:00:00:05 to 02:00:00:00:00:06",
		},
		{
			name: "a neighbour that moved",
			node: []string{
				"neigh replace 10.0.0.9 lladdr " + gateMAC + " nud reachable dev eth0",
				"neigh replace 10.0.0.9 lladdr " + deadMAC + " nud reachable dev eth0",
			},
			want: "neighbour 10.0.0.9 on eth0 moved from " + gateMAC + " to " + deadMAC,
		},
		{name: "a device removed", node: []string{"link del eth0"}, want: "device eth0 is gone"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			node, gate := subnet(t)
			w := node.watch()
			node.ip(tt.node...)
			gate.ip(tt.gate...)
			for seen := w.next(); !strings.Contains(seen, tt.want); seen = w.next() {
				t.Logf("meanwhile: %s", seen)
			}
		})
	}
	t.Run("the end of its context", func(t *testing.T) {
		node := newHost(t)
		ctx, cancel := context.WithCancel(t.Context())
		node.do(func() {
			reasons, err := Watch(ctx)
			if err != nil {
				t.Fatal(err)
			}
			cancel()
			for range reasons {
			}
		})
	})
}

// TestLiveWatchOverflow lets more events happen than a socket can hold, while nobody reads.
func TestLiveWatchOverflow(t *testing.T) {
	node := newHost(t)
	var w *watcher
	node.do(func() {
		s, err := subscribe()
		if err != nil {
			t.Fatal(err)
		}
		w = &watcher{socket: s, buf: make([]byte, 64<<10)}
		if err := w.fill(); err != nil {
			t.Fatal(err)
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			t.Fatal(err)
		}
		// Each route weighs several hundred bytes in the socket, which holds some 200 KiB by default.
		for i := range 20000 {
			dst := &net.IPNet{IP: net.IPv4(198, 18, byte(i>>8), byte(i)), Mask: net.CIDRMask(32, 32)}
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK}); err != nil {
				t.Fatalf("add route %d: %v", i, err)
			}
		}
	})
	overflowed := false
	err := w.sendChanges(func(r string) {
		if r == missed {
			overflowed = true
			w.socket.Close() // ends sendChanges
		}
	})
	if !overflowed {
		t.Fatalf("sendChanges ended without missing anything: %v", err)
	}
}
