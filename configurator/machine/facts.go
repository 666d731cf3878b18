package machine

import (
	"golang.org/x/sys/unix"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// Facts decide whether a panic of this node can be heard. Every canary carries the part that the listener must know.
type Facts struct {
	netconsole.Facts
	// KdumpNotifiers is crash_kexec_post_notifiers: an oops goes through panic() even if a crash kernel is loaded.
	KdumpNotifiers bool `json:"kdumpNotifiers"`
	// Devkmsg is kernel.printk_devkmsg: on, off or ratelimit.
	Devkmsg string `json:"devkmsg"`
	// IgnoreLoglevel means that consoles print every level, whatever ConsoleLevel says.
	IgnoreLoglevel bool `json:"ignoreLoglevel"`
	// OopsOnly is netconsole's own parameter: nothing but an oops in progress is sent.
	OopsOnly bool `json:"oopsOnly"`
}

// Facts reads the facts; version is the configurator's. What cannot be read is the kernel's default: 7 for the console level,
// zero for the rest. kernel.ftrace_enabled=0, and debugfs's kprobes/enabled=0, disable the probes that lastgasp's kernel module
// needs (kernel/kprobes.c).
func (r Root) Facts(version string) Facts {
	return Facts{
		Facts: netconsole.Facts{
			Kernel:      r.kernelRelease(),
			Panic:       r.number("proc/sys/kernel/panic", 0),
			PanicOnOops: r.number("proc/sys/kernel/panic_on_oops", 0) != 0,
			Kdump:       r.flag("sys/kernel/kexec_crash_loaded"),
			Unmuted: r.flag("sys/module/lastgasp/parameters/unmutes") && r.number("proc/sys/kernel/ftrace_enabled", 1) != 0 &&
				r.number("sys/kernel/debug/kprobes/enabled", 1) != 0,
			ConsoleLevel: r.number("proc/sys/kernel/printk", 7),
			Version:      version,
		},
		KdumpNotifiers: r.flag(kdumpNotifiersFile),
		Devkmsg:        r.Text("proc/sys/kernel/printk_devkmsg"),
		IgnoreLoglevel: r.flag("sys/module/printk/parameters/ignore_loglevel"),
		OopsOnly:       r.flag("sys/module/netconsole/parameters/oops_only"),
	}
}

// kernelRelease returns `uname -r`, if possible from /proc, so that it belongs to the same root as everything else.
func (r Root) kernelRelease() string {
	if t := r.Text("proc/sys/kernel/osrelease"); t != "" {
		return t
	}
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// CanaryLevel returns the least severe level at which a line in /dev/kmsg passes the console filter. A message is printed if
// its level is below the console's (suppress_message_printing, kernel/printk/printk.c). Level 0 is never used: journald
// shows it on every terminal. False means that no other level passes.
func (f Facts) CanaryLevel() (int, bool) {
	const debug = 7
	if f.IgnoreLoglevel {
		return debug, true
	}
	level := min(debug, f.ConsoleLevel-1)
	return level, level >= 1
}
