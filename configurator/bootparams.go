package configurator

import (
	"errors"
	"fmt"
	"strings"

	"github.com/lastgasp/lastgasp/configurator/configfs"
)

// maxParam is what the kernel takes for netconsole's parameter (MAX_PARAM_LENGTH 256 with its NUL,
// drivers/net/netconsole.c).
const maxParam = 255

// BootParam is the parameter that has netconsole send from its loading on, before we can run: [+][r]sport@sip/dev,
// dport@dip/mac for each target, separated by semicolons. Such targets carry no identity and are never touched by us,
// so each early record is known by its source address alone. The error says which specs did not fit in; the parameter
// then holds the others.
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

// CommandLine is param for the kernel command line. The double quotes keep GRUB's shell from its semicolons. GRUB takes them
// away; where it does not, the kernel does (next_arg, lib/cmdline.c), also for a module: modprobe passes them on to it.
func CommandLine(param string) string { return `netconsole.netconsole="` + param + `"` }

// BootSpecs are the wanted targets of a draft as they are for early boot, whether they are armed already or not. They
// send from a port of their own, the next below localPort and its alternates: netconsole keeps them for as long as the
// machine runs, and an acknowledgement must not be taken for that of one of ours.
func (d Draft) BootSpecs(localPort uint16) []configfs.Spec {
	var list []configfs.Spec
	for _, w := range d.wanted {
		s := w.spec
		s.LocalPort = localPort - sourcePorts
		list = append(list, s)
	}
	return list
}
