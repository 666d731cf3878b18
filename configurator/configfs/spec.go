// Package configfs arms netconsole: it turns a Spec into a configfs directory and back. The kernel checks almost nothing of
// what is written there, and complains with bare errno values. So every value is read back and compared before a target
// is enabled, and every errno is put into words.
//
// Targets are made and removed as a whole. Only userdata can be added later. Any other change would require disabling the
// target, and a machine that dies meanwhile is not heard; so a different target is armed beside the old one, which is
// disarmed afterwards.
//
// The package does not lock. Only one process at a time may change targets.
package configfs

import (
	"net"
	"net/netip"
)

// Prefix starts the name of each of our targets. Targets with other names are never touched.
const Prefix = "lastgasp-"

// Spec is one netconsole target as it should be: a plain value that is built, printed, compared or refused before anything
// is written.
type Spec struct {
	Name       string // directory below /sys/kernel/config/netconsole, starts with Prefix
	Device     string // in the network namespace of this process
	LocalIP    netip.Addr
	LocalPort  uint16
	RemoteIP   netip.Addr
	RemotePort uint16
	RemoteMAC  net.HardwareAddr
	Extended   bool
	Release    bool    // only where the kernel has it, see Support
	Userdata   []Datum // only where the kernel has it, see Support
}

// Local returns the source of what the target sends.
func (s Spec) Local() netip.AddrPort { return netip.AddrPortFrom(s.LocalIP, s.LocalPort) }

// Remote returns the target's listener.
func (s Spec) Remote() netip.AddrPort { return netip.AddrPortFrom(s.RemoteIP, s.RemotePort) }

// Datum is one userdata item. The file of a secret value is readable by root only, and output shows a placeholder.
type Datum struct {
	Key    string
	Value  string
	Secret bool
}

// String returns key=value, with a placeholder for a secret value.
func (d Datum) String() string {
	if d.Secret {
		return d.Key + "=(secret)"
	}
	return d.Key + "=" + d.Value
}

// MarshalText returns String, so that neither JSON nor a log shows a secret.
func (d Datum) MarshalText() ([]byte, error) { return []byte(d.String()), nil }
