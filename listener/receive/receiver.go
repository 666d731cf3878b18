package receive

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
)

// maxSockets bounds the sockets of one address: each takes a receive buffer, and one alone keeps up with hundreds of
// thousands of datagrams a second.
const maxSockets = 4

// Receiver reads datagrams from its addresses, each socket into a Shard of its own.
type Receiver struct {
	Addresses []string // ":6666"; ignored where systemd hands sockets over
	Config    Config
	Log       *slog.Logger

	sockets []*socket
}

// Listen binds the sockets, or takes over those that systemd holds. From here on the kernel queues what arrives.
func (r *Receiver) Listen(ctx context.Context) error {
	inherited, err := activation.PacketConns()
	if err != nil {
		return fmt.Errorf("take sockets from systemd: %w", err)
	}
	for _, pc := range inherited {
		s, err := adopt(pc)
		if err != nil {
			r.Close()
			return err
		}
		r.add(s, "systemd")
	}
	if len(r.sockets) > 0 {
		return nil
	}
	for _, address := range r.Addresses {
		// One socket per CPU shares the port; the kernel keeps a source on one of them.
		for i := range min(runtime.GOMAXPROCS(0), maxSockets) {
			s, err := listen(ctx, address, i == 0)
			if err != nil {
				r.Close()
				return err
			}
			r.add(s, "config")
			if _, port, err := net.SplitHostPort(address); err == nil && port == "0" {
				break // every further socket would get a port of its own
			}
		}
	}
	if len(r.sockets) == 0 {
		return errors.New("listen: no address; name one")
	}
	return nil
}

func (r *Receiver) add(s *socket, from string) {
	r.sockets = append(r.sockets, s)
	r.Config.Metrics.Buffer.Add(int64(s.granted))
	r.Log.Info("listening", "address", s.conn.LocalAddr().String(), "from", from, "buffer", s.granted)
	if s.granted < receiveBuffer {
		r.Log.Warn("receive buffer is small: a burst may overflow it; raise net.core.rmem_max or grant CAP_NET_ADMIN",
			"bytes", s.granted, "wanted", receiveBuffer)
	}
}

// Serve reads until ctx ends, and a few seconds longer if a death that was just received is not complete yet.
func (r *Receiver) Serve(ctx context.Context) error {
	defer r.Close()
	var g errgroup.Group
	for _, s := range r.sockets {
		sh := newShard(len(r.sockets), &r.Config)
		g.Go(func() error { return s.serve(ctx, sh) })
	}
	return g.Wait()
}

// Close closes the sockets.
func (r *Receiver) Close() {
	for _, s := range r.sockets {
		s.conn.Close()
	}
}

// SocketState is what one socket is doing.
type SocketState struct {
	Address string `json:"address"`
	Buffer  int    `json:"bufferBytes"` // as the kernel counts: twice the payload it holds
	Sources int64  `json:"sources"`
	Nodes   int64  `json:"verifiedNodes"`
	Waiting int64  `json:"incidentsWaiting"` // for the Sink to take them
	Dropped int64  `json:"datagramsDropped"` // by the kernel, since the socket was opened
}

// LastRead is the earliest time at which any of the sockets was last looked at: no more than a second ago, unless a reader
// is stuck. Before Serve it is in 1970. It may be called at any time after Listen.
func (r *Receiver) LastRead() time.Time {
	oldest := time.Now()
	for _, s := range r.sockets {
		if at := time.Unix(0, s.read.Load()); at.Before(oldest) {
			oldest = at
		}
	}
	return oldest
}

// State is what every socket is doing. It may be called at any time after Listen.
func (r *Receiver) State() []SocketState {
	var all []SocketState
	for _, s := range r.sockets {
		all = append(all, SocketState{
			Address: s.conn.LocalAddr().String(), Buffer: s.granted,
			Sources: s.sources.Load(), Nodes: s.nodes.Load(), Waiting: s.waiting.Load(), Dropped: s.dropped.Load(),
		})
	}
	return all
}
