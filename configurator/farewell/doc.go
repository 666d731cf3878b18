// Package farewell says who asked for the end of this boot, while the network is still there: to every listener, by a datagram
// that is acknowledged. It learns of the end from logind (a delay inhibitor and PrepareForShutdown), from systemd where a
// request bypasses logind, and from EC2's notices of spot interruptions, Auto Scaling and scheduled events.
//
// systemd does not say who asked (its issues 27847 and 14257). So the package monitors the calls to logind on the system bus
// (org.freedesktop.DBus.Monitoring, root only) and reads the login user of the caller's process, which survives sudo.
//
// A request that does not come over the bus names nobody: `systemctl kexec`, `init 6` or `telinit 6` of root, which go to
// process 1 through its private socket, a power button, EC2 itself. Nor does `systemctl reboot --force`, which stops no unit:
// it is announced when systemd-shutdown ends this process. That also ends systemd-networkd, which takes an address that came by
// DHCP with it, perhaps before the datagram is out, unless its network file has KeepConfiguration=dhcp-on-stop. `reboot -f`,
// sysrq and kernels that die end a boot without any of that, so they are not announced.
package farewell
