package farewell

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// again is how soon a farewell is repeated that is not acknowledged.
const again = 150 * time.Millisecond

// say sends a farewell to every listener until each has acknowledged it or ctx ends, and returns how many have. With a key an
// acknowledgement must be signed.
func say(ctx context.Context, y netconsole.Bye, self Self, key ed25519.PublicKey) (acked int) {
	var nonce [16]byte
	rand.Read(nonce[:]) // never fails
	y.Nonce, y.Instance, y.Boot = hex.EncodeToString(nonce[:]), self.Identity.Instance, self.Identity.Boot
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, r := range self.Routes {
		all.Go(func() {
			to := y
			if r.Trusted {
				to.Secret = self.Secret
			}
			if sayTo(ctx, to, r, key) {
				mu.Lock()
				acked++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return acked
}

// sayTo sends a farewell to one listener, and reports whether it acknowledged it.
func sayTo(ctx context.Context, y netconsole.Bye, r Route, key ed25519.PublicKey) bool {
	conn, err := dial(r)
	if err != nil {
		return false
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	local, _ := netip.ParseAddrPort(conn.LocalAddr().String())
	origin := netconsole.Origin{Cluster: y.Cluster, Boot: y.Boot, Source: local}
	line, buf := []byte(y.Line()), make([]byte, 2048)
	for ctx.Err() == nil {
		_, _ = conn.Write(line) // an ICMP error of the datagram before, perhaps; the next one may arrive
		conn.SetReadDeadline(time.Now().Add(again))
		if ctx.Err() != nil {
			return false
		}
		for {
			n, err := conn.Read(buf)
			if err != nil {
				if timeout := net.Error(nil); !errors.As(err, &timeout) || !timeout.Timeout() {
					pause(ctx, again) // refused: a listener that restarts
				}
				break
			}
			ack, ok := netconsole.ParseAck(string(buf[:n]))
			if ok && ack.Nonce == y.Nonce && (key == nil || ack.Verify(key, origin)) {
				return true
			}
		}
	}
	return false
}

// dial connects from the target's own address and port, so that firewalls which let canaries' acknowledgements in let this
// one in. While a canary waits there it uses another port.
func dial(r Route) (*net.UDPConn, error) {
	remote := net.UDPAddrFromAddrPort(r.Remote)
	if r.Local.IsValid() {
		if conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(r.Local), remote); err == nil {
			return conn, nil
		}
		if conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.Local.Addr(), 0)), remote); err == nil {
			return conn, nil
		}
	}
	return net.DialUDP("udp", nil, remote)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
