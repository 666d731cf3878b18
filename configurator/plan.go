package configurator

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/configurator/nexthop"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// newSpec returns the target for one listener without name and source port, which depend on the targets that exist already.
// Every record carries the identity if the kernel can add it.
func newSpec(hop nexthop.Hop, listener netip.AddrPort, id machine.Identity, secret netconsole.Secret, support configfs.Support) configfs.Spec {
	s := configfs.Spec{
		Device:     hop.Device,
		LocalIP:    hop.Source,
		RemoteIP:   listener.Addr(),
		RemotePort: listener.Port(),
		RemoteMAC:  hop.NextHopMAC,
		Extended:   true,
		Release:    support.Release,
	}
	if support.Userdata {
		s.Userdata = []configfs.Datum{
			{Key: netconsole.KeyInstance, Value: id.Instance},
			{Key: netconsole.KeyBoot, Value: id.Boot},
			{Key: netconsole.KeySecret, Value: string(secret), Secret: true},
		}
	}
	return s
}

// Plan says what turns the kernel's targets into the wanted ones. It is a value: --dry-run prints it, apply carries it out.
type Plan struct {
	Keep  []configfs.State // wanted, and there already
	Clear []string         // ours but disabled: silent already, so removed first
	Arm   []configfs.Spec  // wanted, and not there yet
	Drop  []configfs.State // ours and armed but not wanted: removed last, when the wanted ones are proved
}

// Idle reports whether there is nothing to do.
func (p Plan) Idle() bool { return len(p.Clear)+len(p.Arm)+len(p.Drop) == 0 }

// newPlan compares the wanted specs with the targets present. Wanted specs have no name and no source port. Those that must
// be armed get a free name, and the first of the three ports from localPort downwards that no other target to the same listener uses,
// ours or not: otherwise an acknowledgement for that target would pass for one of the new target. One of our targets that shares its
// port with somebody else's, such as that of Debian's netconsole-setup, is replaced. withheld means that a target may lack its secret
// because its listener has not proved itself yet.
func newPlan(wanted []configfs.Spec, present, others []configfs.State, localPort uint16, withheld bool) Plan {
	var p Plan
	taken := make(map[string]bool)
	rest := slices.Clone(present)
	for _, st := range present {
		taken[st.Name] = true
	}
	rest = slices.DeleteFunc(rest, func(st configfs.State) bool {
		if !st.Enabled {
			p.Clear = append(p.Clear, st.Name)
		}
		return !st.Enabled
	})
	var missing []configfs.Spec
	for _, w := range wanted {
		i := slices.IndexFunc(rest, func(st configfs.State) bool {
			return same(w, st, localPort, withheld) && (!uses(others, w, st.LocalPort) || freePort(w, others, localPort) == st.LocalPort)
		})
		if i < 0 {
			missing = append(missing, w)
			continue
		}
		p.Keep = append(p.Keep, rest[i])
		rest = slices.Delete(rest, i, i+1)
	}
	p.Drop = rest
	for _, w := range missing {
		w.LocalPort = freePort(w, slices.Concat(present, others), localPort)
		for n := 1; w.Name == "" || taken[w.Name]; n++ {
			w.Name = fmt.Sprintf("%s%s-%d", configfs.Prefix, w.RemoteIP, n)
		}
		taken[w.Name] = true
		p.Arm = append(p.Arm, w)
	}
	return p
}

// sourcePorts is how many source ports we use: one for a target, one for its replacement, and one for the replacement's
// replacement while neither of the two has been acknowledged.
const sourcePorts = 3

// freePort returns the first of our ports that no armed target to w's listener uses, localPort if they all are.
func freePort(w configfs.Spec, present []configfs.State, localPort uint16) uint16 {
	for port := localPort; port > localPort-sourcePorts; port-- {
		if !uses(present, w, port) {
			return port
		}
	}
	return localPort
}

// uses reports whether an armed target sends to w's listener from a port.
func uses(present []configfs.State, w configfs.Spec, port uint16) bool {
	return slices.ContainsFunc(present, func(st configfs.State) bool {
		return st.Enabled && st.LocalPort == port && st.LocalIP == w.LocalIP && st.Remote() == w.Remote()
	})
}

// same reports whether st is what w asks for, apart from its name and which of our ports it uses.
func same(w configfs.Spec, st configfs.State, localPort uint16, withheld bool) bool {
	w.LocalPort = st.LocalPort
	if withheld && !hasSecret(st.Spec) {
		w = withoutSecret(w)
	}
	return st.Enabled && len(w.Diff(st)) == 0 && st.LocalPort <= localPort && st.LocalPort > localPort-sourcePorts
}

func isSecret(d configfs.Datum) bool { return d.Secret }

func hasSecret(s configfs.Spec) bool { return slices.ContainsFunc(s.Userdata, isSecret) }

// withoutSecret returns s as it is armed for a listener that has not proved itself.
func withoutSecret(s configfs.Spec) configfs.Spec {
	s.Userdata = slices.DeleteFunc(slices.Clone(s.Userdata), isSecret)
	return s
}
