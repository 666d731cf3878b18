package listener

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchSize is how many datagrams one system call may bring.
	batchSize = 64
	// maxDatagram is more than any netconsole sends: 1000 bytes (MAX_PRINT_CHUNK in drivers/net/netconsole.c).
	maxDatagram = 2048
	// controlSize has room for the count of SO_RXQ_OVFL.
	controlSize = 64
)

// batch receives many datagrams with one system call, and allocates for none of them. Neither the standard library nor
// golang.org/x/sys has recvmmsg(2), and golang.org/x/net allocates an address per datagram; BenchmarkReceive says what
// it is worth. This file is the only one with unsafe in it.
type batch struct {
	conn syscall.RawConn
	n    int // datagrams of the last read
	err  error

	headers  [batchSize]mmsghdr
	vectors  [batchSize]unix.Iovec
	names    [batchSize]unix.RawSockaddrInet6 // or a RawSockaddrInet4, which is shorter
	controls [batchSize][controlSize]byte
	payloads [batchSize][maxDatagram]byte
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	len uint32
}

func newBatch(conn *net.UDPConn) (*batch, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	b := &batch{conn: raw}
	for i := range b.headers {
		b.vectors[i].Base = &b.payloads[i][0]
		b.vectors[i].SetLen(maxDatagram)
		h := &b.headers[i]
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Iov = &b.vectors[i]
		h.SetIovlen(1)
		h.Control = &b.controls[i][0]
	}
	return b, nil
}

// read waits for datagrams until the connection's read deadline.
func (b *batch) read() error {
	b.n, b.err = 0, nil
	for i := range b.headers { // the kernel says here how much it wrote
		b.headers[i].Namelen = unix.SizeofSockaddrInet6
		b.headers[i].SetControllen(controlSize)
	}
	if err := b.conn.Read(b.receive); err != nil {
		return err
	}
	return os.NewSyscallError("recvmmsg", b.err)
}

// receive reports whether there was anything to receive.
func (b *batch) receive(fd uintptr) bool {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.headers)), batchSize, unix.MSG_DONTWAIT, 0, 0)
	switch {
	case errno == unix.EAGAIN:
		return false
	case errno != 0:
		b.err = errno
	default:
		b.n = int(n)
	}
	return true
}

// payload is datagram i, valid until the next read. It is false if the datagram was longer than maxDatagram.
func (b *batch) payload(i int) ([]byte, bool) {
	h := &b.headers[i]
	return b.payloads[i][:h.len], h.Flags&unix.MSG_TRUNC == 0
}

// control is what the kernel has to say beside datagram i.
func (b *batch) control(i int) []byte {
	return b.controls[i][:b.headers[i].Controllen]
}

// source is who sent datagram i.
func (b *batch) source(i int) netip.AddrPort {
	name := &b.names[i]
	port := uint16(name.Port)<<8 | uint16(name.Port)>>8 // in network order, on the little-endian machines Go has Linux for
	if name.Family == unix.AF_INET {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(four.Addr), port)
	}
	addr := netip.AddrFrom16(name.Addr).Unmap()
	if name.Scope_id != 0 && addr.IsLinkLocalUnicast() {
		addr = addr.WithZone(strconv.Itoa(int(name.Scope_id)))
	}
	return netip.AddrPortFrom(addr, port)
}

