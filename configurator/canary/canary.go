// Package canary proves that listeners hear this kernel: it writes a line to the kernel log, which every target sends, and
// waits on the targets' own source ports for the acknowledgements. It knows nothing of configfs or netlink.
package canary

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// attempts is how many canaries are written before a target counts as unheard: UDP may lose one, and a listener
// may be restarting.
const attempts = 3

// Route is a target as far as proving it is concerned.
type Route struct {
	Target string         // name of the target
	Local  netip.AddrPort // its source
	Remote netip.AddrPort // its listener
}

// Proof is what a canary said about one target.
type Proof struct {
	Target   string         `json:"target"`
	Listener netip.AddrPort `json:"listener"`
	Acked    bool           `json:"acked"`
	RTT      time.Duration  `json:"rttNanoseconds,omitempty"` // from /dev/kmsg to the acknowledgement
	Seq      uint64         `json:"seq,omitempty"`            // printk sequence number of the acknowledged record
	Why      string         `json:"why,omitempty"`            // not acknowledged
	Reasons  []string       `json:"likely,omitempty"`         // for that, the likeliest first
}

// Prover writes canaries to the kernel log and waits, on the targets' own source ports, for the listeners to
// acknowledge them: the only proof that takes the path a panic will take.
type Prover struct {
	Root    machine.Root
	Timeout time.Duration // for each canary
	// Interval is announced as the time to the next canary, so that listeners know when to miss it.
	Interval time.Duration
}

// Prove tries all routes with the same canaries: every target sends every record. It returns one Proof for each route,
// in their order; the error is about what kept it from trying at all.
func (p Prover) Prove(ctx context.Context, id machine.Identity, facts machine.Facts, routes []Route) ([]Proof, error) {
	level, ok := facts.CanaryLevel()
	if !ok {
		return nil, fmt.Errorf("write canary: console level %d hides it; set kernel.printk=5 (sysctl)", facts.ConsoleLevel)
	}
	if facts.Devkmsg == "off" {
		return nil, errors.New("write canary: kernel.printk_devkmsg=off throws it away; boot without printk.devkmsg=off")
	}
	conns, err := bind(routes)
	if err != nil {
		return nil, err
	}
	acks := make(chan arrival)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for local, conn := range conns {
		readers.Go(func() { receive(conn, local, acks, done) })
	}
	defer readers.Wait()
	defer func() {
		close(done)
		for _, conn := range conns {
			conn.Close()
		}
	}()

	tally := newTally(routes)
	for range attempts {
		nonce := newNonce()
		canary := netconsole.Canary{Nonce: nonce, Instance: id.Instance, Boot: id.Boot, Facts: facts.Facts, Interval: p.Interval}
		tally.sent[nonce] = time.Now()
		if err := p.write(fmt.Sprintf("<%d>%s\n", level, canary.Line())); err != nil {
			return nil, err
		}
		timeout := time.NewTimer(p.Timeout)
		for expired := false; !expired && !tally.complete(); {
			select {
			case a := <-acks:
				tally.add(a, time.Now())
			case <-timeout.C:
				expired = true
			case <-ctx.Done():
				timeout.Stop()
				return nil, fmt.Errorf("wait for acknowledgement: %w", ctx.Err())
			}
		}
		timeout.Stop()
		if tally.complete() {
			break
		}
	}
	return tally.proofs(attempts * p.Timeout), nil
}

// write puts line into the kernel log with one write(2), which makes it one record. Without the newline the record
// would stay open, and unsent, until the next one.
func (p Prover) write(line string) error {
	f, err := os.OpenFile(p.Root.Path("dev/kmsg"), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("write canary: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteString(line); err != nil {
		return fmt.Errorf("write canary: %w", err)
	}
	return nil
}

// bind opens a socket on every source that occurs in routes. netconsole does not use sockets, so the port is free while
// it sends from there.
func bind(routes []Route) (map[netip.AddrPort]*net.UDPConn, error) {
	conns := make(map[netip.AddrPort]*net.UDPConn)
	for _, r := range routes {
		if conns[r.Local] != nil {
			continue
		}
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(r.Local))
		if err == nil {
			err = wantICMP(conn)
		}
		if err != nil {
			for _, c := range conns {
				c.Close()
			}
			return nil, fmt.Errorf("wait for acknowledgements: %w", err)
		}
		conns[r.Local] = conn
	}
	return conns, nil
}

// arrival is one datagram that may acknowledge a canary, or an ICMP error about one.
type arrival struct {
	local, from netip.AddrPort
	payload     string
	icmp        string // what is wrong with the listener at from; no payload then
}

// receive hands on what arrives at conn until it is closed.
func receive(conn *net.UDPConn, local netip.AddrPort, to chan<- arrival, done <-chan struct{}) {
	pass := func(a arrival) {
		select {
		case to <- a:
		case <-done:
		}
	}
	buf := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			for listener, reason := range icmpErrors(conn) {
				pass(arrival{local: local, from: listener, icmp: reason})
			}
		default:
			from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			pass(arrival{local: local, from: from, payload: string(buf[:n])})
		}
	}
}

// tally is the pure part: which route is acknowledged by what arrived.
type tally struct {
	routes []Route
	sent   map[string]time.Time // nonce → written
	acked  []Proof              // by route, zero until acknowledged
	icmp   []string             // by route, what an ICMP error said
}

func newTally(routes []Route) *tally {
	return &tally{routes: routes, sent: make(map[string]time.Time), acked: make([]Proof, len(routes)), icmp: make([]string, len(routes))}
}

// add counts a for the route that it answers. Targets may share a source port, so the listener's address decides.
func (t *tally) add(a arrival, now time.Time) {
	if a.icmp != "" {
		for i, r := range t.routes {
			if r.Local == a.local && r.Remote == a.from {
				t.icmp[i] = a.icmp
			}
		}
		return
	}
	ack, ok := netconsole.ParseAck(a.payload)
	if !ok {
		return
	}
	written, ours := t.sent[ack.Nonce]
	if !ours {
		return
	}
	for i, r := range t.routes {
		if r.Local == a.local && r.Remote == a.from && !t.acked[i].Acked {
			t.acked[i] = Proof{Acked: true, RTT: now.Sub(written), Seq: ack.Seq}
		}
	}
}

func (t *tally) complete() bool {
	return !slices.ContainsFunc(t.acked, func(p Proof) bool { return !p.Acked })
}

// proofs says for each route how it went, after waiting so long.
func (t *tally) proofs(waited time.Duration) []Proof {
	proofs := slices.Clone(t.acked)
	for i, r := range t.routes {
		p := &proofs[i]
		p.Target, p.Listener = r.Target, r.Remote
		if p.Acked {
			continue
		}
		p.Why = fmt.Sprintf("no acknowledgement of %d canaries within %s", len(t.sent), waited)
		if t.icmp[i] != "" {
			p.Why += ": " + t.icmp[i]
		}
		p.Reasons = t.reasons(i)
	}
	return proofs
}

// reasons are the likely ones for a route that was not acknowledged, the likeliest first.
func (t *tally) reasons(i int) []string {
	r := t.routes[i]
	absent := fmt.Sprintf("no lastgasp-listener runs at %s", r.Remote)
	blocked := fmt.Sprintf("a security group, network ACL or firewall drops UDP from %s to %s, or the answer", r.Local, r.Remote)
	moved := "the gateway or the listener has another hardware address now; run lastgasp-configurator apply"
	others := slices.ContainsFunc(t.acked, func(p Proof) bool { return p.Acked })
	switch {
	case t.icmp[i] != "":
		return []string{t.icmp[i], absent}
	case others: // canaries do leave this machine
		return []string{absent, blocked, moved}
	default:
		return []string{blocked, absent, moved}
	}
}

func newNonce() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
