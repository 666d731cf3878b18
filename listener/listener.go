package listener

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"runtime"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sync/errgroup"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// Listener hears datagrams on its addresses and hands incidents to a Sink.
type Listener struct {
	Addresses []string // ":6666"; ignored where systemd hands sockets over
	Judge     *detect.Config
	Sink      Sink
	Coverage  *Coverage
	Metrics   *Metrics
	Log       *slog.Logger

	conns []*net.UDPConn
}

// Listen binds the sockets, or takes those that systemd holds for us. After it returns no datagram is lost any more.
func (l *Listener) Listen(ctx context.Context) error {
	inherited, err := activation.PacketConns()
	if err != nil {
		return fmt.Errorf("take sockets from systemd: %w", err)
	}
	for _, pc := range inherited {
		conn, ok := pc.(*net.UDPConn)
		if !ok {
			return fmt.Errorf("take sockets from systemd: got a %T, want ListenDatagram=", pc)
		}
		l.conns = append(l.conns, conn)
	}
	if len(l.conns) > 0 {
		l.Log.Info("listening", "address", l.Addr(), "from", "systemd")
		return nil
	}
	for _, address := range l.Addresses {
		// One socket per CPU shares the port; the kernel keeps a source on one of them.
		for range runtime.GOMAXPROCS(0) {
			conn, granted, err := listen(ctx, address)
			if err != nil {
				l.Close()
				return err
			}
			l.conns = append(l.conns, conn)
			if granted < receiveBuffer {
				l.Log.Warn("receive buffer is small: a burst may overflow it; raise net.core.rmem_max or grant CAP_NET_ADMIN",
					"bytes", granted, "wanted", receiveBuffer)
			}
			if _, port, err := net.SplitHostPort(address); err == nil && port == "0" {
				break // every further socket would get a port of its own
			}
		}
		l.Log.Info("listening", "address", address)
	}
	return nil
}

// Addr is the address of the first socket.
func (l *Listener) Addr() net.Addr { return l.conns[0].LocalAddr() }

// Serve reads until ctx ends.
func (l *Listener) Serve(ctx context.Context) error {
	defer l.Close()
	var g errgroup.Group
	for _, conn := range l.conns {
		sh := newShard(l.Judge, l.Sink, l.Coverage, l.Metrics)
		g.Go(func() error { return serve(ctx, conn, sh) })
	}
	return g.Wait()
}

// Close closes the sockets.
func (l *Listener) Close() {
	for _, conn := range l.conns {
		conn.Close()
	}
}
