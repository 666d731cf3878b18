package configurator

import (
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/configurator/canary"
	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/configurator/nexthop"
)

var (
	gatewayMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 1}
	movedMAC   = net.HardwareAddr{0x02, 0, 0, 0, 0, 2}
	kernel612  = configfs.Support{Netconsole: true, Extended: true, Release: true, Userdata: true}
	someone    = machine.Identity{Instance: "i-0123456789abcdef0", Boot: "5a2e4e5c-8a3e-4a3d-9d5b-0f5a5c1e7f11"}
)

// specTo is what a node wants for a listener whose gateway has a MAC.
func specTo(listener string, mac net.HardwareAddr) configfs.Spec {
	hop := nexthop.Hop{
		Device: "ens5", Source: netip.MustParseAddr("10.0.1.5"), NextHop: netip.MustParseAddr("10.0.1.1"), NextHopMAC: mac,
		DeviceMAC: net.HardwareAddr{0x02, 0, 0, 0, 0, 5},
	}
	return newSpec(hop, netip.MustParseAddrPort(listener), someone, "c2VjcmV0", kernel612)
}

// armed is spec as the kernel has it under a name and from a port.
func armed(spec configfs.Spec, name string, port uint16) configfs.State {
	spec.Name, spec.LocalPort = name, port
	return configfs.State{Spec: spec, Enabled: true, LocalMAC: net.HardwareAddr{0x02, 0, 0, 0, 0, 5}}
}

func TestPlan(t *testing.T) {
	a, b := specTo("10.0.2.10:6666", gatewayMAC), specTo("10.0.3.10:6666", gatewayMAC)
	moved := specTo("10.0.2.10:6666", movedMAC)
	disabled := armed(a, "lastgasp-10.0.2.10-1", 6665)
	disabled.Enabled = false
	oldBoot := specTo("10.0.2.10:6666", gatewayMAC)
	oldBoot.Userdata = []configfs.Datum{{Key: "boot", Value: "another"}}

	type outcome struct {
		Keep, Clear, Drop []string
		Arm               []string // name from port
	}
	for _, tt := range []struct {
		name    string
		wanted  []configfs.Spec
		present []configfs.State
		others  []configfs.State
		want    outcome
	}{
		{
			name:   "nothing is there",
			wanted: []configfs.Spec{a, b},
			want:   outcome{Arm: []string{"lastgasp-10.0.2.10-1 6665", "lastgasp-10.0.3.10-1 6665"}},
		},
		{
			name:    "all is there already, from whichever of our ports",
			wanted:  []configfs.Spec{a, b},
			present: []configfs.State{armed(a, "lastgasp-10.0.2.10-7", 6664), armed(b, "lastgasp-10.0.3.10-1", 6665)},
			want:    outcome{Keep: []string{"lastgasp-10.0.2.10-7", "lastgasp-10.0.3.10-1"}},
		},
		{
			name:    "a new next hop gets a target beside the old one, from another port",
			wanted:  []configfs.Spec{moved},
			present: []configfs.State{armed(a, "lastgasp-10.0.2.10-1", 6665)},
			want:    outcome{Arm: []string{"lastgasp-10.0.2.10-2 6664"}, Drop: []string{"lastgasp-10.0.2.10-1"}},
		},
		{
			name:    "another listener may use the same port",
			wanted:  []configfs.Spec{b},
			present: []configfs.State{armed(a, "lastgasp-10.0.2.10-1", 6665)},
			want:    outcome{Arm: []string{"lastgasp-10.0.3.10-1 6665"}, Drop: []string{"lastgasp-10.0.2.10-1"}},
		},
		{
			name:    "a target that the kernel disabled is cleared and armed anew",
			wanted:  []configfs.Spec{a},
			present: []configfs.State{disabled},
			want:    outcome{Clear: []string{"lastgasp-10.0.2.10-1"}, Arm: []string{"lastgasp-10.0.2.10-2 6665"}},
		},
		{
			name:    "a source port that is not ours is not kept",
			wanted:  []configfs.Spec{a},
			present: []configfs.State{armed(a, "lastgasp-10.0.2.10-1", 5555)},
			want:    outcome{Arm: []string{"lastgasp-10.0.2.10-2 6665"}, Drop: []string{"lastgasp-10.0.2.10-1"}},
		},
		{
			name:    "an identity that is not of this boot is not kept",
			wanted:  []configfs.Spec{a},
			present: []configfs.State{armed(oldBoot, "lastgasp-10.0.2.10-1", 6665)},
			want:    outcome{Arm: []string{"lastgasp-10.0.2.10-2 6664"}, Drop: []string{"lastgasp-10.0.2.10-1"}},
		},
		{
			name:    "of two alike one goes",
			wanted:  []configfs.Spec{a},
			present: []configfs.State{armed(a, "lastgasp-10.0.2.10-1", 6665), armed(a, "lastgasp-10.0.2.10-2", 6664)},
			want:    outcome{Keep: []string{"lastgasp-10.0.2.10-1"}, Drop: []string{"lastgasp-10.0.2.10-2"}},
		},
		{
			name:   "a target of somebody else's to the same listener has its own port",
			wanted: []configfs.Spec{a, b},
			others: []configfs.State{armed(moved, "netconsole0", 6665), armed(moved, "cmdline0", 6662)},
			want:   outcome{Arm: []string{"lastgasp-10.0.2.10-1 6664", "lastgasp-10.0.3.10-1 6665"}},
		},
		{
			name:    "ours is moved when somebody else takes its port",
			wanted:  []configfs.Spec{a},
			present: []configfs.State{armed(a, "lastgasp-10.0.2.10-1", 6665)},
			others:  []configfs.State{armed(moved, "netconsole0", 6665)},
			want:    outcome{Arm: []string{"lastgasp-10.0.2.10-2 6664"}, Drop: []string{"lastgasp-10.0.2.10-1"}},
		},
		{
			name:    "and then it stays",
			wanted:  []configfs.Spec{a},
			present: []configfs.State{armed(a, "lastgasp-10.0.2.10-2", 6664)},
			others:  []configfs.State{armed(moved, "netconsole0", 6665)},
			want:    outcome{Keep: []string{"lastgasp-10.0.2.10-2"}},
		},
		{
			name:    "where others have taken all ports ours stays, too",
			wanted:  []configfs.Spec{a},
			present: []configfs.State{armed(a, "lastgasp-10.0.2.10-1", 6665)},
			others:  []configfs.State{armed(moved, "a", 6665), armed(moved, "b", 6664), armed(moved, "c", 6663)},
			want:    outcome{Keep: []string{"lastgasp-10.0.2.10-1"}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlan(tt.wanted, tt.present, tt.others, 6665, false)
			got := outcome{Keep: names(p.Keep), Clear: p.Clear, Drop: names(p.Drop)}
			for _, s := range p.Arm {
				got.Arm = append(got.Arm, s.Name+" "+strconv.Itoa(int(s.LocalPort)))
				if err := s.Validate(); err != nil {
					t.Errorf("%s cannot be armed: %v", s.Name, err)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRollback(t *testing.T) {
	a, b := specTo("10.0.2.10:6666", gatewayMAC), specTo("10.0.3.10:6666", gatewayMAC)
	moved := specTo("10.0.2.10:6666", movedMAC)
	named := func(s configfs.Spec, name string) configfs.Spec { s.Name = name; return s }
	acked := func(names ...string) []canary.Proof {
		var list []canary.Proof
		for _, n := range names {
			list = append(list, canary.Proof{Target: n, Acked: true})
		}
		return list
	}
	before := &machine.State{Targets: []machine.TargetState{{Name: "old-dead"}, {Name: "old-alive", LastAckUptime: time.Hour}}}

	for _, tt := range []struct {
		name   string
		plan   Plan
		proofs []canary.Proof
		want   []string // that go
	}{
		{
			name: "a first target stays though it is not acknowledged",
			plan: Plan{Arm: []configfs.Spec{named(a, "new")}},
		},
		{
			name: "a new listener that does not answer goes, the old one stays",
			plan: Plan{Arm: []configfs.Spec{named(b, "new")}, Drop: []configfs.State{armed(a, "old", 6665)}},
			want: []string{"new"},
		},
		{
			name: "a new way to a silent listener stays beside the old one",
			plan: Plan{Arm: []configfs.Spec{named(moved, "new")}, Drop: []configfs.State{armed(a, "old", 6665)}},
		},
		{
			name: "of several old ways the one acknowledged last stays",
			plan: Plan{Arm: []configfs.Spec{named(moved, "new")},
				Drop: []configfs.State{armed(a, "old-dead", 6665), armed(a, "old-alive", 6664)}},
			want: []string{"old-dead"},
		},
		{
			name: "an acknowledged new way replaces the old one, whatever else failed",
			plan: Plan{Arm: []configfs.Spec{named(moved, "new"), named(b, "silent")},
				Drop: []configfs.State{armed(a, "old", 6665)}},
			proofs: acked("new"),
			want:   []string{"old", "silent"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, names(rollback(tt.plan, tt.proofs, before))); diff != "" {
				t.Errorf("removed (-want +got):\n%s", diff)
			}
		})
	}
}

func names(states []configfs.State) []string {
	var list []string
	for _, st := range states {
		list = append(list, st.Name)
	}
	return list
}
