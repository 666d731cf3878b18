package nexthop

import (
	"net"

	"github.com/lastgasp/lastgasp/configurator/configfs"
)

// mac is an Ethernet address that can be compared.
type mac [6]byte

func (m mac) String() string         { return net.HardwareAddr(m[:]).String() }
func (m mac) addr() net.HardwareAddr { return net.HardwareAddr(m[:]) }

func macOf(hw net.HardwareAddr) (m mac, ok bool) {
	return m, copy(m[:], hw) == len(m) && len(hw) == len(m)
}

// unfit says why m cannot be the address of another station, seen from a device that owns own, or "". The kernel accepts
// all of these: its own default for a netconsole target is the broadcast address.
func (m mac) unfit(own mac) string {
	if m == own {
		return "our own address"
	}
	return configfs.UnfitMAC(m.addr())
}
