package lab

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
)

// The lab's addresses. They exist only in namespaces that NewNet makes, so labs may run side by side.
var (
	// NodeAddr is the address of the namespace Net.Node itself, for a node that is not a guest.
	NodeAddr = netip.MustParsePrefix("10.77.1.6/24")
	// GuestAddr is for a guest.
	GuestAddr = netip.MustParsePrefix("10.77.1.5/24")
	// ListenerAddr and APIServerAddr are both on the one interface of Net.Listener.
	ListenerAddr  = netip.MustParsePrefix("10.77.2.10/24")
	APIServerAddr = netip.MustParsePrefix("10.77.2.20/24")
	// NodeGateway and ListenerGateway are the router's ends.
	NodeGateway     = netip.MustParsePrefix("10.77.1.1/24")
	ListenerGateway = netip.MustParsePrefix("10.77.2.1/24")
)

// Net is the lab's network: a node subnet and a listener subnet with a router in between, so that the next hop on the
// way to the listener is a gateway, whose MAC is not the listener's.
//
//	Node                                  Router                    Listener
//	guest ─ tap ┐
//	            br0 (10.77.1.6) ─ uplink ═ nodes (10.77.1.1)
//	                                      listeners (10.77.2.1) ═ eth0 (10.77.2.10, 10.77.2.20)
type Net struct {
	Node, Router, Listener *NS

	gatewayMAC net.HardwareAddr
}

// The names of the bridge to which guests and the router's cable are connected, and of the other end of that cable.
const (
	bridgeName = "br0"
	uplinkName = "uplink"
)

// NewNet makes the three namespaces and connects them. They are removed when s ends.
func NewNet(s Scope) (*Net, error) {
	n := &Net{}
	for _, ns := range []struct {
		at   **NS
		name string
	}{{&n.Node, "node"}, {&n.Router, "router"}, {&n.Listener, "listener"}} {
		made, err := NewNS(s, ns.name)
		if err != nil {
			return nil, err
		}
		*ns.at = made
	}
	if err := n.Router.Do(n.cable); err != nil {
		return nil, fmt.Errorf("build the router: %w", err)
	}
	if err := n.Node.Do(nodeSide); err != nil {
		return nil, fmt.Errorf("build the node subnet: %w", err)
	}
	if err := n.Listener.Do(listenerSide); err != nil {
		return nil, fmt.Errorf("build the listener subnet: %w", err)
	}
	return n, nil
}

// NodeAddress adds an address to Net.Node: every node there that is not a guest needs its own.
func (n *Net) NodeAddress(a netip.Prefix) error {
	return n.Node.Do(func() error {
		_, err := bringUp(bridgeName, a)
		return err
	})
}

// Twin makes a namespace on the node subnet whose address is own, and which also believes to have the address of a guest. The
// subnet never learns of that: a kubelet that runs there speaks for a guest that cannot run one. It is removed when s ends.
func (n *Net) Twin(s Scope, own netip.Prefix, guest netip.Addr) (*NS, error) {
	ns, err := NewNS(s, "twin")
	if err != nil {
		return nil, err
	}
	cable := fmt.Sprintf("twin-%d", own.Addr().As4()[3])
	err = n.Node.Do(func() error {
		bridge, err := netlink.LinkByName(bridgeName)
		if err != nil {
			return err
		}
		err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: cable}, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns.fd)})
		if err != nil {
			return err
		}
		link, err := bringUp(cable)
		if err != nil {
			return err
		}
		return netlink.LinkSetMaster(link, bridge)
	})
	if err == nil {
		err = ns.Do(func() error {
			// Otherwise it would answer when the router asks for the guest: arp_ignore in ip-sysctl.rst.
			if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/arp_ignore", []byte("1"), 0); err != nil {
				return err
			}
			if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}); err != nil {
				return err
			}
			if _, err := bringUp(bridgeName, netip.PrefixFrom(guest, guest.BitLen())); err != nil {
				return err
			}
			if _, err := bringUp("eth0", own); err != nil {
				return err
			}
			return defaultRoute(NodeGateway.Addr())
		})
	}
	if err != nil {
		return nil, fmt.Errorf("make a twin of %s: %w", guest, err)
	}
	return ns, nil
}

// GatewayMAC returns the router's MAC in the node subnet, to which nodes have to send.
func (n *Net) GatewayMAC() net.HardwareAddr { return n.gatewayMAC }

// The router's ends of its two cables.
const (
	nodesName     = "nodes"
	listenersName = "listeners"
)

// MoveGateway gives the router another MAC in the node subnet and announces it, as at a gateway's failover.
func (n *Net) MoveGateway(mac net.HardwareAddr) error {
	err := n.Router.Do(func() error {
		link, err := netlink.LinkByName(nodesName)
		if err != nil {
			return err
		}
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+nodesName+"/arp_notify", []byte("1"), 0); err != nil {
			return err
		}
		return netlink.LinkSetHardwareAddr(link, mac)
	})
	if err != nil {
		return fmt.Errorf("give the gateway the address %s: %w", mac, err)
	}
	n.gatewayMAC = mac
	return nil
}

// cable makes the router's two links with their far ends in the other namespaces, and turns forwarding on.
func (n *Net) cable() error {
	for _, end := range []struct {
		name, peer string
		far        *NS
		addr       netip.Prefix
	}{
		{nodesName, uplinkName, n.Node, NodeGateway},
		{listenersName, "eth0", n.Listener, ListenerGateway},
	} {
		veth := &netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: end.name},
			PeerName:      end.peer,
			PeerNamespace: netlink.NsFd(end.far.fd),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("add link %s: %w", end.name, err)
		}
		link, err := bringUp(end.name, end.addr)
		if err != nil {
			return err
		}
		if end.far == n.Node {
			n.gatewayMAC = link.Attrs().HardwareAddr
		}
	}
	// /proc/sys/net is that of the namespace of the thread that opens it.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return fmt.Errorf("turn forwarding on: %w", err)
	}
	return nil
}

func nodeSide() error {
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	uplink, err := bringUp(uplinkName)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(uplink, bridge); err != nil {
		return fmt.Errorf("plug the uplink into the bridge: %w", err)
	}
	if _, err := bringUp(bridgeName, NodeAddr); err != nil {
		return err
	}
	return defaultRoute(NodeGateway.Addr())
}

func listenerSide() error {
	if _, err := bringUp("eth0", ListenerAddr, APIServerAddr); err != nil {
		return err
	}
	return defaultRoute(ListenerGateway.Addr())
}

// bringUp gives a link of this thread's namespace its addresses and sets it up.
func bringUp(name string, addrs ...netip.Prefix) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", name, err)
	}
	for _, a := range addrs {
		ipnet := &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipnet}); err != nil {
			return nil, fmt.Errorf("give %s the address %s: %w", name, a, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set %s up: %w", name, err)
	}
	return link, nil
}

func defaultRoute(gateway netip.Addr) error {
	if err := netlink.RouteAdd(&netlink.Route{Gw: gateway.AsSlice()}); err != nil {
		return fmt.Errorf("route by %s: %w", gateway, err)
	}
	return nil
}

// Tap connects a tap device called name (at most 15 bytes) to the node subnet, for a guest. It is removed when s ends.
func (n *Net) Tap(s Scope, name string) error {
	err := n.Node.Do(func() error {
		tap := &netlink.Tuntap{
			LinkAttrs: netlink.LinkAttrs{Name: name},
			Mode:      netlink.TUNTAP_MODE_TAP,
			Flags:     netlink.TUNTAP_ONE_QUEUE | netlink.TUNTAP_VNET_HDR,
		}
		if err := netlink.LinkAdd(tap); err != nil {
			return err
		}
		bridge, err := netlink.LinkByName(bridgeName)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMaster(tap, bridge); err != nil {
			return err
		}
		return netlink.LinkSetUp(tap)
	})
	if err != nil {
		return fmt.Errorf("plug tap %s into %s: %w", name, n.Node.Name, err)
	}
	s.Cleanup(func() {
		n.Node.Do(func() error { // if this fails, it goes with the namespace
			link, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			return netlink.LinkDel(link)
		})
	})
	return nil
}
