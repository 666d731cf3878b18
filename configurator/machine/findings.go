package machine

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/lastgasp/lastgasp/configurator/configfs"
)

// Finding is one thing that prevents this node from being heard, or from being heard completely.
type Finding struct {
	// Mute means that a panic would not be heard at all. Otherwise only part of it is lost.
	Mute bool   `json:"mute"`
	What string `json:"what"` // what is wrong
	Cost string `json:"cost"` // what that costs
	Mend string `json:"mend"` // what mends it
}

// String returns the finding as one line.
func (f Finding) String() string { return f.What + ": " + f.Cost + "; " + f.Mend }

// Findings judges a node by its facts and the targets in its kernel. It is pure.
func Findings(f Facts, targets []configfs.State) []Finding {
	var found []Finding
	mute := func(what, cost, mend string) {
		found = append(found, Finding{Mute: true, What: what, Cost: cost, Mend: mend})
	}
	weak := func(what, cost, mend string) { found = append(found, Finding{What: what, Cost: cost, Mend: mend}) }

	switch {
	case f.Deferred() && f.Panic != 0:
		mute(fmt.Sprintf("kernel.panic is %d on kernel %s", f.Panic, f.Kernel),
			"kernels since 7.0 reboot before netconsole has sent anything, so a panic is not heard",
			"install lastgasp-dkms, or set panic.hold: true here (or kernel.panic=0) and let the listener or the cloud reboot the node")
	case f.Panic < 0 && !f.Unmuted: // the module waits for the card
		weak(fmt.Sprintf("kernel.panic is %d", f.Panic),
			"the machine resets at once and the end of the trace is lost in the network card",
			"set panic.timeout: 1 or more here")
	}
	switch {
	case f.Deferred() && f.Kdump:
		mute("a kdump kernel is loaded on kernel "+f.Kernel,
			"kernels since 7.0 start it before netconsole has sent anything, so a panic is not heard",
			"install lastgasp-dkms, or unload it (kdump-config unload) or have the crash kernel report")
	case f.Kdump && !f.KdumpNotifiers:
		weak("a kdump kernel is loaded without crash_kexec_post_notifiers",
			"an oops starts it before the line \"Kernel panic\" exists, so the listener hears only the oops",
			"set panic.kdumpNotifiers: true here")
	}
	if f.OopsOnly {
		mute("netconsole has oops_only=1",
			"it sends nothing before an oops, so neither canaries nor the cause of a panic are heard",
			"echo N > /sys/module/netconsole/parameters/oops_only")
	}
	if f.Devkmsg == "off" {
		weak("kernel.printk_devkmsg is off",
			"canaries are discarded, so nothing proves that the listener hears this node",
			"boot without printk.devkmsg=off")
	}
	if level, ok := f.CanaryLevel(); !ok {
		weak(fmt.Sprintf("the console level is %d", f.ConsoleLevel),
			"it hides every sign of sickness before a panic, and canaries, so nothing proves that the listener hears this node",
			"set kernel.printk=5 (sysctl) or boot with loglevel=5")
	} else if level < 4 {
		cost := fmt.Sprintf("a canary has to be logged at level %d, as if it were an error", level)
		if level < 3 {
			cost = "errors that precede a panic (level 3) are not heard, and " + cost
		}
		weak(fmt.Sprintf("the console level is %d", f.ConsoleLevel), cost, "set kernel.printk=5 (sysctl) or boot with loglevel=5")
	}
	return append(found, targetFindings(targets)...)
}

func targetFindings(targets []configfs.State) []Finding {
	if len(targets) == 0 {
		return []Finding{{Mute: true, What: "no target is armed", Cost: "a panic is not heard", Mend: "run lastgasp-configurator apply"}}
	}
	var found []Finding
	sends := slices.ContainsFunc(targets, func(t configfs.State) bool { return t.Enabled && configfs.UnfitMAC(t.RemoteMAC) == "" })
	for _, t := range targets {
		if !t.Enabled {
			found = append(found, Finding{Mute: !sends,
				What: t.Name + " is disabled", Cost: "its listener hears nothing",
				Mend: "run lastgasp-configurator apply, or watch to have it done at once"})
		}
		if configfs.UnfitMAC(t.RemoteMAC) != "" {
			found = append(found, Finding{Mute: !sends,
				What: fmt.Sprintf("%s sends to the hardware address %s", t.Name, t.RemoteMAC),
				Cost: "a VPC drops such frames", Mend: "run lastgasp-configurator apply"})
		}
	}
	if len(targets[0].Userdata) == 0 {
		found = append(found, Finding{
			What: "this kernel's netconsole has no userdata",
			Cost: "the listener knows this node by its address alone and waits for the witness before it acts",
			Mend: "run a kernel of 6.9 or later"})
	}
	return found
}

// LinkProblem says why nothing can be sent through a device at present, as the second half of a sentence, or "". netconsole stays
// enabled on such a device, and what it sends is lost without a word (netpoll_send_skb). A bridge has a carrier as long as a pod is
// plugged in: what counts are the network cards below it, if there are any.
func (r Root) LinkProblem(device string) string {
	if why := r.linkProblem(device); why != "" {
		return why
	}
	first := ""
	for _, d := range r.withLower([]string{device}) { // the device first: a card above another, such as Azure's, needs none
		if !exists(r.Path(netDir, d, "device")) {
			continue
		}
		why := r.linkProblem(d)
		if why == "" {
			return ""
		}
		first = cmp.Or(first, "sends through "+d+", which "+why)
	}
	return first
}

// linkProblem is LinkProblem of the device itself.
func (r Root) linkProblem(device string) string {
	const up = 1 // IFF_UP of include/uapi/linux/if.h
	flags, err := strconv.ParseUint(r.Text(path.Join(netDir, device, "flags")), 0, 32)
	switch {
	case err != nil: // it is gone, and the kernel disables its targets
		return ""
	case flags&up == 0:
		return "is down"
	case r.Text(path.Join(netDir, device, "carrier")) == "0":
		return "has no carrier"
	}
	return ""
}

// longestDatagram is what netconsole sends at most, with its headers: MAX_PRINT_CHUNK of drivers/net/netconsole.c, UDP, IPv6.
const longestDatagram = 1000 + 8 + 40

// MTUFindings returns a finding for each device whose MTU is too small for what netconsole sends through it.
func (r Root) MTUFindings(devices []string) []Finding {
	var found []Finding
	for _, device := range slices.Compact(slices.Sorted(slices.Values(devices))) {
		if mtu := r.number(path.Join(netDir, device, "mtu"), longestDatagram); mtu < longestDatagram {
			found = append(found, Finding{What: fmt.Sprintf("the MTU of %s is %d", device, mtu),
				Cost: fmt.Sprintf("netconsole sends packets of up to %d bytes, and those that are longer than the MTU are lost", longestDatagram),
				Mend: "set an MTU of 1280 or more"})
		}
	}
	return found
}

// HasNetconsole reports whether the running kernel has netconsole, loaded or not.
func (r Root) HasNetconsole() bool { return r.hasModule(r.kernelRelease(), "netconsole") }

// LacksNetconsole reports whether the running kernel's modules are listed, and netconsole is not among them. Where they are not listed,
// as in a container, nobody knows.
func (r Root) LacksNetconsole() bool {
	return exists(r.Path("lib/modules", r.kernelRelease(), "modules.dep")) && !r.HasNetconsole()
}

// NoNetconsole returns the finding for a machine where netconsole is not loaded.
func (r Root) NoNetconsole() Finding {
	if r.HasNetconsole() {
		return Finding{Mute: true, What: "netconsole is not loaded", Cost: "a panic is not heard",
			Mend: "run lastgasp-configurator apply, or modprobe netconsole to see why it cannot be loaded"}
	}
	if others := r.glob("lib/modules/*"); len(others) > 0 && !exists(r.Path("lib/modules", r.kernelRelease())) {
		return Finding{Mute: true, What: "the modules of the running kernel " + r.kernelRelease() + " are gone", Cost: "a panic is not heard",
			Mend: "reboot into the kernel that is installed"}
	}
	return Finding{Mute: true, What: "this kernel has no netconsole module", Cost: "a panic is not heard",
		Mend: netconsoleOn(r.distribution(), r.kernelRelease())}
}

// netconsoleOn says how to get a kernel with netconsole on a distribution (the ID of os-release).
func netconsoleOn(distribution, release string) string {
	switch distribution {
	case "ubuntu":
		return "apt install linux-modules-extra-" + release
	case "debian":
		return "boot one of Debian's own kernels, such as linux-image-cloud-amd64, which have it"
	case "rhel", "centos", "rocky", "almalinux", "fedora", "ol":
		return "dnf install kernel-modules-" + release + " kernel-modules-extra-" + release
	case "amzn", "bottlerocket":
		return "no kernel of this distribution is known to have it; let the listener read EC2's console output (cloud.fate), or use another image"
	}
	return "boot a kernel with CONFIG_NETCONSOLE=m and CONFIG_NETCONSOLE_DYNAMIC=y"
}

// hasModule reports whether the running kernel has a module, as a file or built in.
func (r Root) hasModule(release, name string) bool {
	for _, index := range []string{"modules.dep", "modules.builtin"} {
		for line := range strings.Lines(r.Text("lib/modules/" + release + "/" + index)) {
			file, _, _ := strings.Cut(line, ":")
			if module, _, _ := strings.Cut(path.Base(strings.TrimSpace(file)), ".ko"); module == name {
				return true
			}
		}
	}
	return false
}

// distribution returns the ID of os-release(5), empty if there is none.
func (r Root) distribution() string {
	for line := range strings.Lines(r.Text("etc/os-release")) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "ID="); ok {
			return strings.Trim(id, `"'`)
		}
	}
	return ""
}
