package imds

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"
)

type connKey struct{}

// Serve answers on ln until it is closed.
func (s *Service) Serve(ln net.Listener) error {
	server := http.Server{
		Handler:           s,
		ReadHeaderTimeout: time.Minute,
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	if err := server.Serve(ln); !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve instance metadata: %w", err)
	}
	return nil
}

// limitHops makes the answer to r die on its way after HopLimit hops, as the original does with tokens. Retransmissions have
// the same limit, so the connection ends with this answer.
func (s *Service) limitHops(w http.ResponseWriter, r *http.Request) {
	c, ok := r.Context().Value(connKey{}).(*net.TCPConn)
	if s.HopLimit == 0 || !ok {
		return
	}
	w.Header().Set("Connection", "close")
	raw, err := c.SyscallConn()
	if err != nil {
		return // closed: there will be no answer
	}
	raw.Control(func(fd uintptr) { // fails for a closed one only
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_TTL, s.HopLimit)
	})
}
