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

// serveHTTP serves h on ln until ctx ends, by TLS where secure is not nil. What it has to say goes to log, nil for standard error.
func serveHTTP(ctx context.Context, ln net.Listener, h http.Handler, log *log.Logger, secure *tls.Config) error {
	srv := &http.Server{
		Handler: h, TLSConfig: secure, ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, WriteTimeout: requestTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: 16 << 10, ErrorLog: log,
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
// opens thousands closes its own, and a health check always gets in.
type boundedListener struct {
	net.Listener

	mu       sync.Mutex
	open     int
	byClient map[netip.Addr][]*boundedConn // oldest first
}

type boundedConn struct {
	net.Conn
	client  netip.Addr
	release func()
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
	for _, victim := range l.add(c) {
		victim.Close()
	}
	return c, nil
}

// add counts a connection and returns those that must be closed for it.
func (l *boundedListener) add(c *boundedConn) (victims []*boundedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byClient == nil {
		l.byClient = make(map[netip.Addr][]*boundedConn)
	}
	l.open++
	l.byClient[c.client] = append(l.byClient[c.client], c)
	switch {
	case len(l.byClient[c.client]) > maxPerClient:
		victims = append(victims, l.byClient[c.client][0])
	case l.open > maxConnections:
		var most []*boundedConn
		for _, conns := range l.byClient {
			if len(conns) > len(most) {
				most = conns
			}
		}
		victims = append(victims, most[0])
	}
	return victims
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
