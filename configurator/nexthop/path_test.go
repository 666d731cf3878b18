package nexthop

import (
	"net/netip"
	"testing"
)

func TestPathMoved(t *testing.T) {
	p := Path{Device: "ens5", Index: 2, MAC: "02:00:00:00:00:05", Source: netip.MustParseAddr("10.0.1.5"),
		NextHop: netip.MustParseAddr("10.0.1.1"), Neighbour: "02:00:00:00:00:01", Cards: "ens5"}
	with := func(change func(*Path)) Path { now := p; change(&now); return now }
	for _, tt := range []struct {
		name string
		now  Path
		want bool
	}{
		{"nothing", p, false},
		{"the kernel has forgotten the gateway's address", with(func(p *Path) { p.Neighbour, p.Cards = "", "" }), false},
		{"another card below the device", with(func(p *Path) { p.Cards = "ens6" }), true},
		{"the gateway has another address", with(func(p *Path) { p.Neighbour = "02:00:00:00:00:02" }), true},
		{"another gateway, whose address is unknown", with(func(p *Path) { p.NextHop, p.Neighbour, p.Cards = netip.MustParseAddr("10.0.1.2"), "", "" }), true},
		{"another device", with(func(p *Path) { p.Device, p.Index = "ens6", 3 }), true},
		{"the device was renamed", with(func(p *Path) { p.Device = "uplink" }), true},
		{"the device was made anew", with(func(p *Path) { p.Index = 9 }), true},
		{"the device has another address", with(func(p *Path) { p.MAC = "02:00:00:00:00:06" }), true},
		{"another source", with(func(p *Path) { p.Source = netip.MustParseAddr("10.0.1.6") }), true},
		{"no carrier", with(func(p *Path) { p.Why = "has no carrier" }), true},
		{"no route", Path{Why: "no route"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := p.Moved(tt.now); got != tt.want {
				t.Errorf("%t, want %t", got, tt.want)
			}
		})
	}
	forgotten := p
	forgotten.Neighbour, forgotten.Cards = "", ""
	if got := p.Update(forgotten); got != p {
		t.Errorf("the gateway's address is forgotten: %+v", got)
	}
	if forgotten.Moved(p) {
		t.Error("a gateway whose address became known has moved")
	}
}
