// Package nexthop finds out how a datagram to one address leaves this machine: device, source address, and the Ethernet
// address of the next hop, proved on the wire. A netconsole target fixes all three, because a dying kernel cannot look
// anything up. So none of them comes from a cache, which may stay wrong for good.
//
// It speaks rtnetlink and raw Ethernet, and needs CAP_NET_RAW. It changes nothing on the machine.
package nexthop

import (
	"net"
	"net/netip"
)

// Hop is how a datagram to one destination leaves this machine: everything that a netconsole target has to hold because a
// dying kernel cannot look it up.
type Hop struct {
	Device     string           // interface; the master if the port is enslaved to a bridge, bond or team
	Index      int              // of Device
	DeviceMAC  net.HardwareAddr // Ethernet source
	Source     netip.Addr       // IP source, of the destination's family
	NextHop    netip.Addr       // the gateway, or the destination itself when it is on-link; may be IPv6 for an IPv4 destination
	OnLink     bool             // the destination is its own next hop
	NextHopMAC net.HardwareAddr // Ethernet destination, proved on the wire
}
