package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchSize is how many datagrams one system call sends at most.
	batchSize = 64
	// maxDatagram is what netconsole sends at most (MAX_PRINT_CHUNK in drivers/net/netconsole.c).
	maxDatagram = 1000
	// tick is the shortest pause between two system calls of a paced run.
	tick = 200 * time.Microsecond
)

// Limits of a Plan.
const (
	MaxCount  = 50_000_000
	MaxWithin = 2 * time.Minute
)

// Plan is how much to send and how fast.
type Plan struct {
	Count     int           // datagrams
	PerSecond float64       // 0: as fast as the machine can
	Within    time.Duration // when to give up, MaxWithin if zero
}

// Sent is the result of a run.
type Sent struct {
	Count   int
	Elapsed time.Duration
}

// PerSecond is the rate that was reached.
func (s Sent) PerSecond() float64 { return float64(s.Count) / s.Elapsed.Seconds() }

// Next gives the next datagram: who sends it, of 127.0.0.0/8, and up to 1000 bytes, which are copied at once.
type Next func() (from netip.Addr, payload []byte)

// Sender is one socket that sends many datagrams with one system call, each from an address of its own (IP_PKTINFO, ip(7)).
type Sender struct {
	fd      int
	headers [batchSize]unix.Mmsghdr
	vectors [batchSize]unix.Iovec
	to      unix.RawSockaddrInet4
	control [batchSize]pktinfo
	payload [batchSize][maxDatagram]byte
}

// pktinfo is a control message that chooses the source address.
type pktinfo struct {
	header unix.Cmsghdr
	info   unix.Inet4Pktinfo
	_      [4]byte // control messages are padded to a multiple of eight
}

// NewSender opens a sender towards a receiver on this machine; any address outside 127.0.0.0/8 is refused.
func NewSender(to netip.AddrPort) (*Sender, error) {
	if !to.Addr().Is4() || !to.Addr().IsLoopback() {
		return nil, fmt.Errorf("send load to %s: only addresses of 127.0.0.0/8 are allowed", to)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := setUp(fd); err != nil {
		unix.Close(fd)
		return nil, err
	}
	s := &Sender{fd: fd}
	s.to = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().As4()}
	port := (*[2]byte)(unsafe.Pointer(&s.to.Port))
	port[0], port[1] = byte(to.Port()>>8), byte(to.Port())
	for i := range s.headers {
		c := &s.control[i]
		c.header = unix.Cmsghdr{Level: unix.IPPROTO_IP, Type: unix.IP_PKTINFO}
		c.header.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
		s.vectors[i].Base = &s.payload[i][0]
		h := &s.headers[i].Hdr
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&s.to)), unix.SizeofSockaddrInet4
		h.Iov = &s.vectors[i]
		h.SetIovlen(1)
		h.Control = (*byte)(unsafe.Pointer(c))
		h.SetControllen(unix.CmsgSpace(unix.SizeofInet4Pktinfo))
	}
	return s, nil
}

// setUp ties the socket to lo. Acks come back to it and are dropped: its receive buffer is the smallest there is.
func setUp(fd int) error {
	if err := unix.BindToDevice(fd, "lo"); err != nil {
		return os.NewSyscallError("setsockopt SO_BINDTODEVICE", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0); err != nil {
		return os.NewSyscallError("setsockopt SO_RCVBUF", err)
	}
	return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrInet4{}))
}

// Close closes the socket.
func (s *Sender) Close() error { return unix.Close(s.fd) }

// Send sends what next returns until the plan is fulfilled or ctx ends. A run that takes longer than its plan allows is an error,
// because its figures would be meaningless.
func (s *Sender) Send(ctx context.Context, plan Plan, next Next) (Sent, error) {
	if plan.Within == 0 {
		plan.Within = MaxWithin
	}
	if plan.Count < 1 || plan.Count > MaxCount || plan.Within < 0 || plan.Within > MaxWithin || plan.PerSecond < 0 {
		return Sent{}, fmt.Errorf("send load: %+v is beyond the limits: %d datagrams, %s", plan, MaxCount, MaxWithin)
	}
	start := time.Now()
	done := func(n int) Sent { return Sent{n, time.Since(start)} }
	for sent := 0; sent < plan.Count; {
		elapsed := time.Since(start)
		if elapsed > plan.Within {
			return done(sent), fmt.Errorf("send load: only %d of %d datagrams within %s", sent, plan.Count, plan.Within)
		}
		n := min(plan.due(elapsed)-sent, batchSize)
		if n == 0 {
			select {
			case <-ctx.Done():
				return done(sent), ctx.Err()
			case <-time.After(tick):
			}
			continue
		}
		for i := range n {
			if err := s.fill(i, next); err != nil {
				return done(sent), err
			}
		}
		if err := s.flush(n); err != nil {
			return done(sent), err
		}
		sent += n
	}
	return done(plan.Count), ctx.Err()
}

// due is how many datagrams should have been sent after elapsed.
func (p Plan) due(elapsed time.Duration) int {
	if p.PerSecond == 0 {
		return p.Count
	}
	return min(p.Count, int(p.PerSecond*elapsed.Seconds())+1)
}

// fill makes the next datagram number i of the batch.
func (s *Sender) fill(i int, next Next) error {
	from, payload := next()
	if !from.Is4() || !from.IsLoopback() {
		return fmt.Errorf("send load from %s: only addresses of 127.0.0.0/8 are allowed", from)
	}
	if len(payload) > maxDatagram {
		return errors.New("send load: a datagram is longer than netconsole's")
	}
	s.control[i].info.Spec_dst = from.As4()
	s.vectors[i].SetLen(copy(s.payload[i][:], payload))
	return nil
}

// flush sends the first n datagrams of the batch.
func (s *Sender) flush(n int) error {
	for first := 0; first < n; {
		did, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.headers[first])), uintptr(n-first), 0, 0, 0)
		switch errno {
		case 0:
			first += int(did)
		case unix.EINTR:
		default:
			return os.NewSyscallError("sendmmsg", errno)
		}
	}
	return nil
}
