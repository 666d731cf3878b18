package canary

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// wantICMP makes the kernel queue ICMP errors on conn. They are about netconsole's datagrams, which no socket sent, but the
// kernel finds the socket by the addresses that the error quotes (__udp4_lib_err, net/ipv4/udp.c).
func wantICMP(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		if local, _ := netip.ParseAddrPort(conn.LocalAddr().String()); local.Addr().Is4() {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVERR, 1)
		} else {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
		}
	})
	return errors.Join(err, set)
}

// icmpErrors drains the queue of errors: what is wrong, by destination.
func icmpErrors(conn *net.UDPConn) map[netip.AddrPort]string {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil
	}
	found := make(map[netip.AddrPort]string)
	raw.Control(func(fd uintptr) {
		var payload [1]byte
		var oob [512]byte
		for range 64 { // a few canaries cannot fill the queue, but a storm of kernel records can
			_, n, _, from, err := unix.Recvmsg(int(fd), payload[:], oob[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			if err != nil {
				return
			}
			if to, ok := addrPort(from); ok {
				found[to] = icmpReason(oob[:n])
			}
		}
	})
	return found
}

// addrPort returns the destination of the datagram that an error is about.
func addrPort(sa unix.Sockaddr) (netip.AddrPort, bool) {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), true
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port)), true
	}
	return netip.AddrPort{}, false
}

// icmpReason says what an error means. Its errno is the first field of struct sock_extended_err (linux/errqueue.h).
func icmpReason(oob []byte) string {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return "an ICMP error came back"
	}
	for _, m := range messages {
		if len(m.Data) < 4 {
			continue
		}
		switch errno := syscall.Errno(binary.NativeEndian.Uint32(m.Data)); errno {
		case unix.ECONNREFUSED:
			return "its machine answers that nothing listens on that port"
		case unix.EHOSTUNREACH:
			return "a router answers that the machine cannot be reached"
		case unix.EACCES:
			return "a firewall on the way answers that this is not allowed"
		case unix.ENETUNREACH:
			return "a router answers that there is no route to it"
		default:
			return fmt.Sprintf("an ICMP error came back: %v", errno)
		}
	}
	return "an ICMP error came back"
}
