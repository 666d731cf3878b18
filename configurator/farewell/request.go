package farewell

import (
	"path"
	"slices"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	login1       = "org.freedesktop.login1"
	login1Path   = "/org/freedesktop/login1"
	login1Iface  = "org.freedesktop.login1.Manager"
	systemd1     = "org.freedesktop.systemd1"
	systemdPath  = "/org/freedesktop/systemd1"
	systemdIface = "org.freedesktop.systemd1.Manager"
)

// softReboot is the flag of RebootWithFlags that asks for nothing else. The flag for kexec only says that a kernel is started
// that way if one is loaded, and systemctl reboot always sets it (org.freedesktop.login1(5)).
const softReboot = 1 << 2

// endingTargets are the units that end a boot, with what their start means (systemd.special(7)).
var endingTargets = map[string]string{
	"reboot.target":      netconsole.ByeReboot,
	"soft-reboot.target": netconsole.ByeSoftReboot,
	"poweroff.target":    netconsole.ByePoweroff,
	"halt.target":        netconsole.ByeHalt,
	"kexec.target":       netconsole.ByeKexec,
}

// startUnit are systemd's calls that start a unit (org.freedesktop.systemd1(5)).
var startUnit = []string{"StartUnit", "StartUnitWithFlags"}

// causeOfType is what a type of ScheduleShutdown or PrepareForShutdownWithMetadata means, empty if it ends nothing.
func causeOfType(kind string) string {
	kinds := []string{netconsole.ByeReboot, netconsole.ByeSoftReboot, netconsole.ByePoweroff, netconsole.ByeHalt, netconsole.ByeKexec}
	if slices.Contains(kinds, kind) {
		return kind
	}
	return ""
}

// forcedEnding is how the boot is about to end if systemd is stopping no units but kills every process at once, as `systemctl
// reboot --force` asks for: process 1 is then systemd-shutdown, with the way as its first argument (systemd src/core/main.c,
// become_shutdown). It is empty otherwise.
func forcedEnding(root machine.Root) string {
	args := strings.Split(file(root, 1, "cmdline"), "\x00")
	if len(args) < 2 || path.Base(args[0]) != "systemd-shutdown" {
		return ""
	}
	return causeOfType(args[1])
}

// request is a call that asks for the end of the boot. It is zero if the call does not.
type request struct {
	cause string
	at    time.Time // of a scheduled one; zero: now
}

// requestOf reads a call on the bus.
func requestOf(iface, member string, body []any) request {
	if iface == systemdIface {
		if target, ok := argument[string](body, 0); ok && slices.Contains(startUnit, member) {
			return request{cause: endingTargets[target]}
		}
		return request{}
	}
	if iface != login1Iface {
		return request{}
	}
	flags, _ := argument[uint64](body, 0)
	switch member {
	case "Reboot", "RebootWithFlags":
		if flags&softReboot != 0 {
			return request{cause: netconsole.ByeSoftReboot}
		}
		return request{cause: netconsole.ByeReboot}
	case "PowerOff", "PowerOffWithFlags":
		return request{cause: netconsole.ByePoweroff}
	case "Halt", "HaltWithFlags":
		return request{cause: netconsole.ByeHalt}
	case "ScheduleShutdown":
		kind, _ := argument[string](body, 0)
		micros, _ := argument[uint64](body, 1)
		if cause := causeOfType(kind); cause != "" && micros < 1<<62 {
			return request{cause: cause, at: time.UnixMicro(int64(micros))}
		}
	}
	return request{}
}

// argument is the nth argument of a call, if there is one of that type.
func argument[T any](body []any, n int) (value T, ok bool) {
	if n < len(body) {
		value, ok = body[n].(T)
	}
	return value, ok
}
