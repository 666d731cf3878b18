package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lastgasp/lastgasp/e2e/guest/control"
)

// Why a request gets no answer.
var (
	errGone     = errors.New("the guest is gone")
	errRebooted = errors.New("the guest has rebooted")
)

// controlLink is the host's end of the control channel to one guest, over all its boots.
type controlLink struct {
	conn   net.Conn
	closed chan struct{} // when nothing more will come

	sending sync.Mutex // one line at a time

	mu      sync.Mutex
	lastID  uint64
	pending map[uint64]chan<- control.Reply // closed without a reply if the guest reboots
	bootID  string                          // of the latest boot
	fresh   chan struct{}                   // holds a token while nobody has awaited the latest boot
}

func newControlLink(conn net.Conn) *controlLink {
	l := &controlLink{
		conn:    conn,
		closed:  make(chan struct{}),
		pending: map[uint64]chan<- control.Reply{},
		fresh:   make(chan struct{}, 1),
	}
	go l.receive()
	return l
}

func (l *controlLink) close() {
	l.conn.Close()
	<-l.closed
}

// receive passes replies to the callers that wait for them. A line that is not a reply was cut off by a reset.
func (l *controlLink) receive() {
	defer close(l.closed)
	for lines := bufio.NewReader(l.conn); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var r control.Reply
		if json.Unmarshal(line, &r) != nil {
			continue
		}
		l.mu.Lock()
		if r.BootID != "" {
			l.booted(r.BootID)
		} else if waiting, ok := l.pending[r.ID]; ok {
			delete(l.pending, r.ID)
			waiting <- r // has room for it
		}
		l.mu.Unlock()
	}
}

// booted records a new boot, which answers no request to the boot before. l.mu is held.
func (l *controlLink) booted(id string) {
	for _, waiting := range l.pending {
		close(waiting)
	}
	clear(l.pending)
	if id == l.bootID {
		return // not a new boot: only the guest's server was restarted
	}
	l.bootID = id
	select {
	case l.fresh <- struct{}{}:
	default: // the boot before was not awaited either
	}
}

func (l *controlLink) awaitBoot(ctx context.Context) error {
	select {
	case <-l.fresh:
		return nil
	case <-l.closed:
		return errGone
	case <-ctx.Done():
		return ctx.Err()
	}
}

// currentBoot returns the id of the latest boot.
func (l *controlLink) currentBoot() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bootID
}

// call asks the guest and waits for its answer.
func (l *controlLink) call(ctx context.Context, r control.Request) (control.Reply, error) {
	answer := make(chan control.Reply, 1)
	l.mu.Lock()
	l.lastID++
	r.ID = l.lastID
	l.pending[r.ID] = answer
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.pending, r.ID)
	}()
	if err := l.send(ctx, r); err != nil {
		return control.Reply{}, err
	}
	select {
	case reply, ok := <-answer:
		if !ok {
			return control.Reply{}, errRebooted
		}
		if reply.Err != "" {
			return control.Reply{}, errors.New(reply.Err)
		}
		return reply, nil
	case <-l.closed:
		return control.Reply{}, errGone
	case <-ctx.Done():
		return control.Reply{}, fmt.Errorf("wait for the guest's answer: %w", ctx.Err())
	}
}

// send writes one request. A guest that has crashed reads nothing more, and the write might block for ever: the end of ctx ends
// it, and the link.
func (l *controlLink) send(ctx context.Context, r control.Request) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode a request: %w", err)
	}
	l.sending.Lock()
	defer l.sending.Unlock()
	stop := context.AfterFunc(ctx, func() { l.conn.Close() })
	defer stop()
	if _, err := l.conn.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("send a request: %w", errors.Join(errGone, err))
	}
	return nil
}

// socketPair returns two ends of a stream: one to use here, one to hand to a process.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	here, there := os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control")
	defer here.Close() // FileConn has its own copy
	conn, err := net.FileConn(here)
	if err != nil {
		there.Close()
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	return conn, there, nil
}
