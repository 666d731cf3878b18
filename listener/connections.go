package listener

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxConnections and maxPerClient bound the connections of the admin server, in all and from one address.
	maxConnections, maxPerClient = 128, 32
	// headerTimeout, idleTimeout and requestTimeout bound what a connection may take. A CPU profile takes 30 s by default.
	headerTimeout, idleTimeout, requestTimeout = 5 * time.Second, 30 * time.Second, 2 * time.Minute
	// maxInFlight bounds concurrent requests whose answer grows with the fleet.
	maxInFlight = 4
)

// Serve serves the admin endpoints on ln until ctx ends.
func (a *Admin) Serve(ctx context.Context, ln net.Listener) error {
	return serveHTTP(ctx, ln, a.Handler(), nil, nil)
}

// serveHTTP serves h on ln until ctx ends, over TLS where secure is not nil. What it has to say goes to log, nil for standard error.
func serveHTTP(ctx context.Context, ln net.Listener, h http.Handler, log *log.Logger, secure *tls.Config) error {
	srv := &http.Server{
		Handler: h, TLSConfig: secure, ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, WriteTimeout: requestTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: 16 << 10, ErrorLog: log, ConnContext: withConnection,
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	serve := srv.Serve
	if secure != nil {
		serve = func(ln net.Listener) error { return srv.ServeTLS(ln, "", "") }
	}
	if err := serve(&boundedListener{Listener: ln}); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// atMost refuses requests beyond n at once.
func atMost(n int, h http.HandlerFunc) http.HandlerFunc {
	slots := make(chan struct{}, n)
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			h(w, r)
		default:
			http.Error(w, "too many requests at once; try again", http.StatusServiceUnavailable)
		}
	}
}

// boundedListener closes a connection when there are too many: the oldest one of the address that has most. A client that
// opens thousands closes its own, and a health check always gets in. Preferred connections go last.
type boundedListener struct {
	net.Listener

	mu       sync.Mutex
	open     int
	byClient map[netip.Addr][]*boundedConn // oldest first
}

type boundedConn struct {
	net.Conn
	client    netip.Addr
	preferred atomic.Bool
	release   func()
}

// connectionKey is the key of a request's *boundedConn.
type connectionKey struct{}

func withConnection(ctx context.Context, conn net.Conn) context.Context {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	return context.WithValue(ctx, connectionKey{}, conn)
}

// preferConnection has the connection of a request outlive those of strangers when there are too many.
func preferConnection(ctx context.Context) {
	if c, ok := ctx.Value(connectionKey{}).(*boundedConn); ok {
		c.preferred.Store(true)
	}
}

// Close closes the connection and stops counting it.
func (c *boundedConn) Close() error {
	c.release()
	return c.Conn.Close()
}

// Accept waits for the next connection.
func (l *boundedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &boundedConn{Conn: conn}
	if from, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil {
		c.client = from.Addr().Unmap()
	}
	c.release = sync.OnceFunc(func() { l.remove(c) })
	if victim := l.add(c); victim != nil {
		victim.Close()
	}
	return c, nil
}

// add counts a connection and returns one that must be closed for it, or nil.
func (l *boundedListener) add(c *boundedConn) *boundedConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byClient == nil {
		l.byClient = make(map[netip.Addr][]*boundedConn)
	}
	l.open++
	own := append(l.byClient[c.client], c)
	l.byClient[c.client] = own
	switch {
	case len(own) > maxPerClient:
		return leastPreferred(own[:len(own)-1])
	case l.open > maxConnections:
		most := own[:len(own)-1]
		for client, conns := range l.byClient {
			if d := strangers(conns) - strangers(most); client != c.client && (d > 0 || d == 0 && len(conns) > len(most)) {
				most = conns
			}
		}
		return leastPreferred(most)
	}
	return nil
}

func strangers(conns []*boundedConn) (n int) {
	for _, c := range conns {
		if !c.preferred.Load() {
			n++
		}
	}
	return n
}

// leastPreferred is the oldest connection that is not preferred, or else the oldest.
func leastPreferred(conns []*boundedConn) *boundedConn {
	for _, c := range conns {
		if !c.preferred.Load() {
			return c
		}
	}
	return conns[0]
}

func (l *boundedListener) remove(c *boundedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	conns := slices.DeleteFunc(l.byClient[c.client], func(other *boundedConn) bool { return other == c })
	l.byClient[c.client] = conns
	if len(conns) == 0 {
		delete(l.byClient, c.client)
	}
	l.open--
}
