package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The reference receivers. They are processes of their own, to separate their cost from that of the load, and run until they
// are killed.
const (
	readOne   = "one-at-a-time" // what most people would write first
	doNothing = "do-nothing"    // the limit: what the kernel alone costs
)

// beReference runs one of them in this process, at an address of this machine. It writes what it finds into dir.
func beReference(name, address, dir string) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("be a reference: %w", err)
	}
	switch name {
	case readOne:
		return readOneByOne(to, dir)
	case doNothing:
		errs := make(chan error)
		for range sockets() {
			go func() { errs <- receiveAndForget(to) }()
		}
		return <-errs
	}
	return fmt.Errorf("no reference receiver is called %q", name)
}

// readOneByOne reads one datagram at a time, looks for a panic in it, and makes a file named after the sender.
func readOneByOne(at netip.AddrPort, dir string) error {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	buf := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		if bytes.Contains(buf[:n], []byte("Kernel panic")) {
			if err := os.WriteFile(filepath.Join(dir, from.String()), buf[:n], 0o600); err != nil {
				return err
			}
		}
	}
}

// What the listener asks for as well: listener/recvmmsg.go and listener/socket.go.
const (
	referenceBatch  = 64
	referenceBuffer = 32 << 20
)

// sockets is how many the listener opens: one for each processor it may use.
func sockets() int { return runtime.GOMAXPROCS(0) }

// receiveAndForget receives as the listener does, sources and drop counts included, and looks at nothing. It blocks in the
// kernel: no poller, no deadline.
func receiveAndForget(at netip.AddrPort) error {
	lc := net.ListenConfig{Control: controlReference}
	pc, err := lc.ListenPacket(context.Background(), "udp4", at.String())
	if err != nil {
		return err
	}
	file, err := pc.(*net.UDPConn).File() // a blocking descriptor
	if err != nil {
		return err
	}
	var (
		headers  [referenceBatch]unix.Mmsghdr
		vectors  [referenceBatch]unix.Iovec
		names    [referenceBatch]unix.RawSockaddrInet6
		controls [referenceBatch][64]byte
		payloads [referenceBatch][2048]byte
	)
	for i := range headers {
		vectors[i].Base = &payloads[i][0]
		vectors[i].SetLen(len(payloads[i]))
		headers[i].Hdr.Iov = &vectors[i]
		headers[i].Hdr.SetIovlen(1)
		headers[i].Hdr.Name = (*byte)(unsafe.Pointer(&names[i]))
		headers[i].Hdr.Control = &controls[i][0]
	}
	for fd := file.Fd(); ; {
		for i := range headers {
			headers[i].Hdr.Namelen = unix.SizeofSockaddrInet6
			headers[i].Hdr.SetControllen(len(controls[i]))
		}
		_, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd,
			uintptr(unsafe.Pointer(&headers)), referenceBatch, unix.MSG_WAITFORONE, 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return os.NewSyscallError("recvmmsg", errno)
		}
	}
}

func controlReference(_, _ string, raw syscall.RawConn) error {
	var err error
	controlErr := raw.Control(func(fd uintptr) {
		err = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1))
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, referenceBuffer) != nil { // not allowed
			err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, referenceBuffer))
		}
	})
	return errors.Join(controlErr, err)
}
