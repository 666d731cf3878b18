package nexthop

import (
	"net/netip"
	"testing"
)

func TestCompare(t *testing.T) {
	path := Path{
		Destination: netip.MustParseAddr("10.9.1.53"), Device: "br0", Index: 3, DeviceMAC: "02:00:00:00:00:05",
		Source: netip.MustParseAddr("10.0.0.5"), NextHop: netip.MustParseAddr("10.0.0.1"), NextHopMAC: "02:00:00:00:00:01", Cards: "eth0",
	}
	other := path
	other.Destination = netip.MustParseAddr("10.9.2.53")
	for _, tt := range []struct {
		name string
		edit func(*Path)
		want string
	}{
		{"nothing", func(*Path) {}, ""},
		{"the neighbour is forgotten", func(p *Path) { p.NextHopMAC, p.Cards = "", "" }, ""},
		{"another device", func(p *Path) { p.Device, p.Index = "eth1", 4 }, "10.9.1.53 is reached through eth1 instead of br0"},
		{"the device came back", func(p *Path) { p.Index = 9 }, "br0 is now another device"},
		{"the device was renamed", func(p *Path) { p.Device = "lan0" }, "10.9.1.53 is reached through lan0 instead of br0"},
		{"another Ethernet address of ours", func(p *Path) { p.DeviceMAC = "02:00:00:00:00:06" },
			"br0 changed its Ethernet address from 02:00:00:00:00:05 to 02:00:00:00:00:06"},
		{"another source", func(p *Path) { p.Source = netip.MustParseAddr("10.0.0.6") }, "10.9.1.53 is reached from 10.0.0.6 instead of 10.0.0.5"},
		{"another gateway", func(p *Path) { p.NextHop = netip.MustParseAddr("10.0.0.2") }, "10.9.1.53 is reached through gateway 10.0.0.2 instead of 10.0.0.1"},
		{"the gateway moved", func(p *Path) { p.NextHopMAC = "02:00:00:00:00:02" },
			"neighbour 10.0.0.1 on br0 moved from 02:00:00:00:00:01 to 02:00:00:00:00:02"},
		{"another card in the bridge", func(p *Path) { p.Cards = "eth1" }, "br0 sends through eth1 instead of eth0"},
		{"no carrier", func(p *Path) { p.Problem = "device is not ready: br0 has no carrier" },
			"10.9.1.53 cannot be reached: device is not ready: br0 has no carrier"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now := path
			tt.edit(&now)
			next, got := Compare([]Path{path, other}, []Path{now, other})
			if got != tt.want {
				t.Errorf("changes %q, want %q", got, tt.want)
			}
			// What is known from now on differs from what it was just where that was said.
			if _, again := Compare(next, []Path{now, other}); again != "" {
				t.Errorf("the same once more: %q", again)
			}
			if _, back := Compare(next, []Path{path, other}); (back == "") != (tt.want == "") {
				t.Errorf("and back: %q", back)
			}
		})
	}

	t.Run("a gateway that moved while it was forgotten", func(t *testing.T) {
		gone, moved := path, path
		gone.NextHopMAC, gone.Cards = "", ""
		moved.NextHopMAC = "02:00:00:00:00:02"
		known, _ := Compare([]Path{path}, []Path{gone})
		if _, got := Compare(known, []Path{moved}); got != "neighbour 10.0.0.1 on br0 moved from 02:00:00:00:00:01 to 02:00:00:00:00:02" {
			t.Errorf("changes %q", got)
		}
	})
	t.Run("other destinations", func(t *testing.T) {
		if _, got := Compare([]Path{path}, []Path{other}); got != "10.9.2.53 is a new destination; 10.9.1.53 is no longer a destination" {
			t.Errorf("changes %q", got)
		}
	})
}
