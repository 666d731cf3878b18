package canary

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// burst is how many parts are sent in one go, and pace the pause behind them: a listener serves many nodes, and a power cut lets
// all of them send at once.
const (
	burst = 8
	pace  = 5 * time.Millisecond
)

// tries is how often the parts that are missing are sent, and tryFor how long each waits for acknowledgements at most. A pass may
// wait for all of it, and the kubelet for the pass.
const (
	tries  = 2
	tryFor = 2 * time.Second
)

// Deliver sends an obituary to the routes' listeners, one after the other, until one has acknowledged every part of it. It repeats
// what is not acknowledged, once only: the caller may try again later, when the listener still has the parts that it took.
// Its socket is the one that waits for acknowledgements, so no pass may run beside it.
func (p Prover) Deliver(ctx context.Context, id netconsole.Identity, o netconsole.Obituary, routes []Route) error {
	if len(routes) == 0 {
		return errors.New("send obituary: no listener is known")
	}
	nonce, parts := o.Datagrams(id)
	var errs []error
	for _, r := range routes {
		err := p.deliver(ctx, &delivery{
			parts: parts, nonce: nonce, acked: make([]bool, len(parts)), key: p.Key, remote: r.Remote,
			origin: netconsole.Origin{Cluster: o.Cluster, Boot: id.Boot, Source: r.Local},
		}, r)
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("send obituary to %s: %w", r.Remote, err))
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// delivery is an obituary on its way to one listener.
type delivery struct {
	parts [][]byte
	nonce string
	acked []bool
	// recorded means that the listener has the whole: its acknowledgement says known. One that was restarted in between holds
	// only what came since.
	recorded bool
	key      ed25519.PublicKey // nil: acknowledgements need no signature
	remote   netip.AddrPort
	origin   netconsole.Origin
}

func (d *delivery) missing() int {
	n := 0
	for _, acked := range d.acked {
		if !acked {
			n++
		}
	}
	return n
}

// acknowledge notes a datagram that may acknowledge a part.
func (d *delivery) acknowledge(from netip.AddrPort, payload string) {
	ack, ok := netconsole.ParseAck(payload)
	if !ok || from != d.remote || ack.Nonce != d.nonce || ack.Seq < 1 || ack.Seq > uint64(len(d.acked)) ||
		d.key != nil && !ack.Verify(d.key, d.origin) {
		return
	}
	d.acked[ack.Seq-1] = true
	d.recorded = d.recorded || ack.Known
}

// deliver sends what is missing, tries times.
func (p Prover) deliver(ctx context.Context, d *delivery, r Route) error {
	conns, failed := bind([]Route{r})
	conn := conns[r.Local]
	if conn == nil {
		return failed[r.Local]
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	for range tries {
		sent := 0
		for i, part := range d.parts {
			if d.acked[i] {
				continue
			}
			if _, err := conn.WriteToUDPAddrPort(part, d.remote); err != nil && sent == 0 {
				return err
			}
			if sent++; sent%burst == 0 {
				d.receive(conn, time.Now().Add(pace))
			}
		}
		if ctx.Err() == nil {
			d.receive(conn, time.Now().Add(min(tryFor, p.Timeout)))
		}
		switch {
		case d.missing() == 0 && d.recorded:
			return nil
		case d.missing() == 0:
			clear(d.acked)
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
	return fmt.Errorf("%d of %d parts are not acknowledged", d.missing(), len(d.parts))
}

// receive takes acknowledgements until none is missing or it is late.
func (d *delivery) receive(conn *net.UDPConn, late time.Time) {
	_ = conn.SetReadDeadline(late) // fails only for a closed socket, which is read no longer
	buf := make([]byte, 2048)
	for d.missing() > 0 { // the last part is acknowledged once the whole is recorded
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, net.ErrClosed):
			return
		case err != nil: // an ICMP error about what was sent
			icmpErrors(conn) // empties the queue
			if time.Now().After(late) {
				return
			}
		default:
			d.acknowledge(netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), string(buf[:n]))
		}
	}
}
