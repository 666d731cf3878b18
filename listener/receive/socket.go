package receive

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// receiveBuffer is requested for each socket: a thousand panics at once are about 100,000 datagrams.
	receiveBuffer = 32 << 20
	// idleTick bounds how long a socket waits without looking at the clock.
	idleTick = time.Second
	// drainFor bounds how long reading goes on after ctx has ended, for deaths that were just heard.
	drainFor = 5 * time.Second
	// lastLook is how long a socket must then be empty.
	lastLook = 10 * time.Millisecond
)

// socket is one UDP socket and the sources it hears. One goroutine writes the counts; any may read them.
type socket struct {
	conn    *net.UDPConn
	granted int // bytes of receive buffer, as the kernel counts them: twice what was asked for

	overflow                         uint32 // the kernel's last count of dropped datagrams
	sources, nodes, waiting, dropped atomic.Int64
	read                             atomic.Int64 // Unix time of the latest turn of its loop, nanoseconds
}

// listen opens one UDP socket that shares its port with later ones of ours. The first socket of an address is bound before it
// may share (Linux asks both sides, udp_lib_lport_inuse in net/ipv4/udp.c), so that it fails where another listener is: the
// kernel would hand each of them a part of the nodes.
func listen(ctx context.Context, address string, first bool) (*socket, error) {
	granted := 0
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		ctlErr := raw.Control(func(fd uintptr) {
			if !first {
				err = sharePort(int(fd))
			}
			if err == nil {
				granted, err = setUp(int(fd))
			}
		})
		return errors.Join(ctlErr, err)
	}}
	pc, err := lc.ListenPacket(ctx, "udp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen on %s: %w; stop the other listener or choose another port", address, syscall.EADDRINUSE)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	s := &socket{conn: pc.(*net.UDPConn), granted: granted}
	if first {
		raw, err := s.conn.SyscallConn()
		if err == nil {
			ctlErr := raw.Control(func(fd uintptr) { err = sharePort(int(fd)) })
			err = errors.Join(ctlErr, err)
		}
		if err != nil {
			s.conn.Close()
			return nil, fmt.Errorf("listen on %s: %w", address, err)
		}
	}
	return s, nil
}

func sharePort(fd int) error {
	return os.NewSyscallError("setsockopt SO_REUSEPORT", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
}

// adopt takes a socket that systemd opened.
func adopt(pc net.PacketConn) (*socket, error) {
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		return nil, errors.New("take socket from systemd: it is not a UDP socket; write ListenDatagram= with a port")
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("take socket from systemd: %w", err)
	}
	s := &socket{conn: conn}
	ctlErr := raw.Control(func(fd uintptr) { s.granted, err = setUp(int(fd)) })
	if err := errors.Join(ctlErr, err); err != nil {
		return nil, fmt.Errorf("set up socket from systemd: %w", err)
	}
	return s, nil
}

// setUp gives a socket its buffer and makes the kernel count what it drops.
func setUp(fd int) (granted int, err error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1); err != nil {
		return 0, os.NewSyscallError("setsockopt SO_RXQ_OVFL", err)
	}
	// FORCE goes beyond net.core.rmem_max but needs CAP_NET_ADMIN; without it the kernel grants what it may. Neither takes
	// anything away: systemd may have asked for more.
	if had, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err == nil && had >= receiveBuffer {
		return had, nil
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
			return 0, os.NewSyscallError("setsockopt SO_RCVBUF", err)
		}
	}
	granted, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	return granted, os.NewSyscallError("getsockopt SO_RCVBUF", err)
}

// serve reads datagrams into sh until ctx ends, and then until the socket is empty and what was heard is handed over, for
// drainFor at most. It is the only goroutine that touches sh.
func (s *socket) serve(ctx context.Context, sh *Shard) error {
	in, err := newBatch(s.conn)
	if err != nil {
		return fmt.Errorf("read socket: %w", err)
	}
	wake := context.AfterFunc(ctx, func() { s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer wake()
	var wakeAt, stopAt time.Time
	empty := false
	for {
		now := time.Now()
		next := earliest(sh.Tick(now), now.Add(idleTick))
		s.read.Store(now.UnixNano())
		s.sources.Store(int64(sh.table.size()))
		s.nodes.Store(int64(len(sh.table.nodes)))
		s.waiting.Store(int64(sh.handover.size()))
		if ctx.Err() != nil {
			if stopAt.IsZero() {
				stopAt, empty = now.Add(drainFor), false
			}
			if empty && !sh.unfinished() || !now.Before(stopAt) {
				return nil
			}
			next = now.Add(lastLook)
		}
		// Waking up early does no harm, so under load the deadline stays as it is.
		if next.Before(wakeAt) || !wakeAt.After(now) {
			wakeAt = next
			s.conn.SetReadDeadline(wakeAt)
			if ctx.Err() != nil && stopAt.IsZero() {
				continue // ctx ended just now, and this may have overwritten its wake-up
			}
		}
		switch err := in.read(); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			wakeAt, empty = time.Time{}, !time.Now().Before(wakeAt) // unless the end of ctx cut the wait short
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			// An ICMP error for an ack, or memory pressure: neither may end the reading.
			sh.metrics.ReadErrors.Add(1)
		}
		now = time.Now()
		for i := range in.n {
			s.take(now, sh, in, i)
		}
	}
}

// take gives datagram i to the shard and answers it.
func (s *socket) take(now time.Time, sh *Shard, in *batch, i int) {
	if total, ok := overflow(in.control(i)); ok && total != s.overflow {
		sh.metrics.KernelDrops.Add(int64(total - s.overflow))
		sh.lost(now)
		s.overflow = total
		s.dropped.Store(int64(total))
	}
	payload, whole := in.payload(i)
	if !whole {
		sh.metrics.Datagrams.Add(1)
		sh.metrics.Malformed.Add(1)
		return
	}
	alarms := sh.alarms
	if ack := sh.Receive(now, in.source(i), payload); ack != nil {
		in.reply(i, ack)
	}
	if sh.alarms != alarms && sh.metrics.Judged != nil {
		sh.metrics.Judged(time.Since(now))
	}
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
