// Package configfs arms netconsole: it turns a Spec into a directory of configfs and back. The kernel checks next to
// nothing of what is written there and says so with bare errno values, so every value is read back and compared before
// a target is enabled, and every errno is put into words.
//
// Targets are made and removed as a whole. Apart from userdata, which can be added at any time, nothing of them is changed:
// they would have to be disabled for it, and a machine that dies meanwhile is not heard. A different target is armed beside
// the old one, which is disarmed afterwards.
// The package does not lock; one process at a time may change targets.
package configfs

import (
	"net"
	"net/netip"
)

// Prefix starts the name of every target that is ours. Targets named otherwise are never touched.
const Prefix = "lastgasp-"

// Spec is one netconsole target as it is meant to be: a plain value that is built, printed, compared or refused before
// anything is written.
type Spec struct {
	Name       string // directory below /sys/kernel/config/netconsole, starts with Prefix
	Device     string // of the writer's network namespace
	LocalIP    netip.Addr
	LocalPort  uint16
	RemoteIP   netip.Addr
	RemotePort uint16
	RemoteMAC  net.HardwareAddr
	Extended   bool
	Release    bool    // only where the kernel has it, see Support
	Userdata   []Datum // only where the kernel has it, see Support
}

// Datum is one userdata item. Secret values live in files for root only and are shown as a placeholder.
type Datum struct {
	Key    string
	Value  string
	Secret bool
}

// String is key=value, without a secret value.
func (d Datum) String() string {
	if d.Secret {
		return d.Key + "=(secret)"
	}
	return d.Key + "=" + d.Value
}

// MarshalText is String: neither JSON nor a log shows a secret.
func (d Datum) MarshalText() ([]byte, error) { return []byte(d.String()), nil }
