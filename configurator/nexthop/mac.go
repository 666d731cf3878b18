package nexthop

import (
	"net"

	"github.com/lastgasp/lastgasp/configurator/configfs"
)

// mac is an Ethernet address that can be compared.
type mac [6]byte

func (m mac) String() string         { return net.HardwareAddr(m[:]).String() }
func (m mac) addr() net.HardwareAddr { return net.HardwareAddr(m[:]) }

// macOf makes a mac of hw, if hw is one of Ethernet.
func macOf(hw net.HardwareAddr) (m mac, ok bool) {
	return m, copy(m[:], hw) == len(m) && len(hw) == len(m)
}

// unfit says why nothing can be sent to m as one station from a device that owns own, or "" if something can.
// The kernel objects to none of these: its own default for a netconsole target is the broadcast address.
func (m mac) unfit(own mac) string {
	if m == own {
		return "our own address"
	}
	return configfs.UnfitMAC(m.addr())
}
