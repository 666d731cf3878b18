// Package farewell says who asked for the end of this boot, while the network is still there: to every listener, by a datagram
// that is acknowledged. It learns of the end from logind (a delay inhibitor and PrepareForShutdown), from systemd where
// somebody goes round logind, and from EC2's notices of spot interruptions, Auto Scaling and scheduled events.
//
// systemd does not say who asked (its issues 27847 and 14257). So the package listens to the calls of logind on the system bus
// (org.freedesktop.DBus.Monitoring, root only) and reads the login user of the caller's process, which survives sudo.
//
// Nobody can be named who asks without the bus: root whose `systemctl kexec`, `init 6` or `telinit 6` goes to process 1 through its private
// socket, a power button, EC2 itself. And nothing is heard of `reboot -f`, sysrq and kernels that die: these end a boot
// without an orderly shutdown.
package farewell
