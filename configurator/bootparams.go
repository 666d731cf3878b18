package configurator

import (
	"errors"
	"fmt"
	"strings"

	"github.com/lastgasp/lastgasp/configurator/configfs"
)

// maxParam is how many bytes the kernel accepts in netconsole's parameter (MAX_PARAM_LENGTH is 256 with its NUL,
// drivers/net/netconsole.c).
const maxParam = 255

// BootParam returns the module parameter that makes netconsole send as soon as it is loaded, before we can run:
// [+][r]sport@sip/dev,dport@dip/mac for each target, separated by semicolons. Such targets carry no identity and we never
// change them, so an early record is identified by its source address alone. If not all specs fit, the parameter holds
// the first ones and the error says how many.
func BootParam(specs []configfs.Spec) (string, error) {
	var parts []string
	length := 0
	for i, s := range specs {
		format := "+"
		if s.Release {
			format = "+r"
		}
		part := fmt.Sprintf("%s%d@%s/%s,%d@%s/%s", format, s.LocalPort, s.LocalIP, s.Device, s.RemotePort, s.RemoteIP, s.RemoteMAC)
		if length+len(part) > maxParam {
			return strings.Join(parts, ";"), fmt.Errorf("%d of %d targets fit into the %d bytes that netconsole takes at boot; set targets: %d for it",
				i, len(specs), maxParam, i)
		}
		length += len(part) + 1
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		return "", errors.New("no target can be resolved, so there is nothing to cover early boot with")
	}
	return strings.Join(parts, ";"), nil
}

// CommandLine returns param for the kernel command line. The double quotes hide its semicolons from GRUB's shell. GRUB removes
// the quotes; where it does not, the kernel does (next_arg, lib/cmdline.c), for a module too: modprobe passes them on.
func CommandLine(param string) string { return `netconsole.netconsole="` + param + `"` }

// BootSpecs returns the wanted targets of a draft for early boot, whether they are armed already or not. They send from a
// port of their own, the next below localPort and its alternates: netconsole keeps them for as long as the machine runs, and
// an acknowledgement for one of them must not be taken for one of our own targets.
func (d Draft) BootSpecs(localPort uint16) []configfs.Spec {
	var list []configfs.Spec
	for _, w := range d.wanted {
		s := w.spec
		s.LocalPort = localPort - sourcePorts
		list = append(list, s)
	}
	return list
}
