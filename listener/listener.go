package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sync/errgroup"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// maxSockets bounds the sockets of one address: each takes a receive buffer, and one alone keeps up with hundreds of
// thousands of datagrams a second.
const maxSockets = 4

// Listener hears datagrams on its addresses and hands incidents to a Sink.
type Listener struct {
	Addresses []string // ":6666"; ignored where systemd hands sockets over
	Judge     *detect.Config
	Sink      Sink
	Coverage  *Coverage
	Metrics   *Metrics
	Ship      *Shipper // nil: records are not shipped
	Log       *slog.Logger

	sockets []*socket
}

// Listen binds the sockets, or takes those that systemd holds for us. From here on the kernel keeps what arrives.
func (l *Listener) Listen(ctx context.Context) error {
	inherited, err := activation.PacketConns()
	if err != nil {
		return fmt.Errorf("take sockets from systemd: %w", err)
	}
	for _, pc := range inherited {
		s, err := adopt(pc)
		if err != nil {
			l.Close()
			return err
		}
		l.add(s, "systemd")
	}
	if len(l.sockets) > 0 {
		return nil
	}
	for _, address := range l.Addresses {
		// One socket per CPU shares the port; the kernel keeps a source on one of them.
		for range min(runtime.GOMAXPROCS(0), maxSockets) {
			s, err := listen(ctx, address)
			if err != nil {
				l.Close()
				return err
			}
			l.add(s, "config")
			if _, port, err := net.SplitHostPort(address); err == nil && port == "0" {
				break // every further socket would get a port of its own
			}
		}
	}
	if len(l.sockets) == 0 {
		return errors.New("listen: no address")
	}
	return nil
}

func (l *Listener) add(s *socket, from string) {
	l.sockets = append(l.sockets, s)
	l.Metrics.Buffer.Add(float64(s.granted))
	l.Log.Info("listening", "address", s.conn.LocalAddr().String(), "from", from, "buffer", s.granted)
	if s.granted < receiveBuffer {
		l.Log.Warn("receive buffer is small: a burst may overflow it; raise net.core.rmem_max or grant CAP_NET_ADMIN",
			"bytes", s.granted, "wanted", receiveBuffer)
	}
}

// Addr is the address of the first socket.
func (l *Listener) Addr() net.Addr { return l.sockets[0].conn.LocalAddr() }

// Serve reads until ctx ends, and a few seconds longer if that lets a death just heard be told to its end.
func (l *Listener) Serve(ctx context.Context) error {
	defer l.Close()
	var g errgroup.Group
	for _, s := range l.sockets {
		sh := newShard(len(l.sockets), l.Judge, l.Sink, l.Coverage, l.Metrics)
		sh.ship = l.Ship
		g.Go(func() error { return s.serve(ctx, sh) })
	}
	return g.Wait()
}

// Close closes the sockets.
func (l *Listener) Close() {
	for _, s := range l.sockets {
		s.conn.Close()
	}
}

// SocketState is what one socket is doing.
type SocketState struct {
	Address string `json:"address"`
	Buffer  int    `json:"bufferBytes"` // as the kernel counts: twice the payload it holds
	Sources int64  `json:"sources"`
	Waiting int64  `json:"incidentsWaiting"` // for cleanup to take them
	Dropped int64  `json:"datagramsDropped"` // by the kernel, since the socket was opened
}

// Turned is when the sockets have last looked around, by the one that has not for longest: no more than a second ago, where
// all is well. Before Serve it is 1970. It may be called at any time after Listen.
func (l *Listener) Turned() time.Time {
	oldest := time.Now()
	for _, s := range l.sockets {
		if at := time.Unix(0, s.turned.Load()); at.Before(oldest) {
			oldest = at
		}
	}
	return oldest
}

// State tells of every socket. It may be called at any time after Listen.
func (l *Listener) State() []SocketState {
	var all []SocketState
	for _, s := range l.sockets {
		all = append(all, SocketState{
			Address: s.conn.LocalAddr().String(), Buffer: s.granted,
			Sources: s.sources.Load(), Waiting: s.waiting.Load(), Dropped: s.dropped.Load(),
		})
	}
	return all
}
