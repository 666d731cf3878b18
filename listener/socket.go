package listener

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// receiveBuffer is asked of the kernel for each socket: a thousand panics at once are about 100,000 datagrams.
const receiveBuffer = 32 << 20

// idleTick bounds how long a socket waits without looking at the clock.
const idleTick = time.Second

// listen opens one UDP socket that may share its port with others. The second result is the receive buffer the kernel
// granted, in bytes as the kernel counts them (twice the payload asked for).
func listen(ctx context.Context, address string) (*net.UDPConn, int, error) {
	granted := 0
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		ctlErr := raw.Control(func(fd uintptr) { granted, err = setUp(int(fd)) })
		return errors.Join(ctlErr, err)
	}}
	pc, err := lc.ListenPacket(ctx, "udp", address)
	if err != nil {
		return nil, 0, fmt.Errorf("listen on %s: %w", address, err)
	}
	return pc.(*net.UDPConn), granted, nil
}

// setUp gives a socket its buffer and makes the kernel tell what it drops.
func setUp(fd int) (granted int, err error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return 0, os.NewSyscallError("setsockopt SO_REUSEPORT", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1); err != nil {
		return 0, os.NewSyscallError("setsockopt SO_RXQ_OVFL", err)
	}
	// FORCE goes beyond net.core.rmem_max but needs CAP_NET_ADMIN; without it the kernel grants what it may.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
			return 0, os.NewSyscallError("setsockopt SO_RCVBUF", err)
		}
	}
	granted, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	return granted, os.NewSyscallError("getsockopt SO_RCVBUF", err)
}

// serve reads datagrams from conn into sh until ctx ends. It is the only goroutine that touches sh.
func serve(ctx context.Context, conn *net.UDPConn, sh *shard) error {
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	payload := make([]byte, 64<<10)
	control := make([]byte, 64)
	var dropped uint32
	var waitUntil time.Time
	for {
		now := time.Now()
		if next := earliest(sh.tick(now), now.Add(idleTick)); !next.Equal(waitUntil) {
			waitUntil = next
			conn.SetReadDeadline(next)
		}
		if ctx.Err() != nil {
			return nil
		}
		n, nc, _, from, err := conn.ReadMsgUDPAddrPort(payload, control)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			// An ICMP error for an ack, or memory pressure: neither may end the reading.
			sh.metrics.ReadErrors.Inc()
			continue
		}
		if total, ok := overflow(control[:nc]); ok && total != dropped {
			sh.metrics.KernelDrops.Add(float64(total - dropped))
			dropped = total
		}
		if ack := sh.receive(time.Now(), from, payload[:n]); ack != nil {
			reply(conn, ack, from)
		}
	}
}

// reply sends an ack and forgets it: the configurator asks again if it is lost.
func reply(conn *net.UDPConn, ack []byte, to netip.AddrPort) {
	_, _ = conn.WriteToUDPAddrPort(ack, to)
}

// overflow finds the count of datagrams that the kernel dropped since the socket was opened (SO_RXQ_OVFL, socket(7)).
func overflow(control []byte) (uint32, bool) {
	for len(control) >= unix.CmsgLen(4) {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			return 0, false
		}
		if h.Level == unix.SOL_SOCKET && h.Type == unix.SO_RXQ_OVFL && len(data) >= 4 {
			return binary.NativeEndian.Uint32(data), true
		}
		control = rest
	}
	return 0, false
}
