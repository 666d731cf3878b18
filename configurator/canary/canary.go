// Package canary proves that listeners hear this kernel: it writes a line to the kernel log, which every target sends, and
// waits on the targets' own source ports for the acknowledgements. It knows nothing of configfs or netlink.
package canary

import (
	"context"
	"crypto/ed25519"
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

	"golang.org/x/sys/unix"

	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// attempts is how many canaries go unanswered before a target counts as not acknowledged: UDP may lose one, and a listener
// may be restarting.
const attempts = 3

// Route is what has to be known about a target to prove it.
type Route struct {
	Target string         // name of the target
	Local  netip.AddrPort // its source
	Remote netip.AddrPort // its listener
	// Optional means that an acknowledgement is noted, but not waited for.
	Optional bool
	// Own is for a kernel without netconsole: the canary is sent from the socket itself, with this identity. Nil means that the
	// kernel sends it.
	Own *netconsole.Identity
}

func (r Route) own() bool { return r.Own != nil }

// Proof is the outcome of the canaries for one target.
type Proof struct {
	Target   string         `json:"target"`
	Listener netip.AddrPort `json:"listener"`
	// Acked means that the armed address acknowledged: with a key, in an acknowledgement signed for this node's own source.
	Acked bool `json:"acked"`
	// Known means that the listener's cluster has a Node for this sender. Without one nobody acts on its death.
	Known   bool          `json:"known"`
	RTT     time.Duration `json:"rttNanoseconds,omitempty"` // from /dev/kmsg to the acknowledgement
	Seq     uint64        `json:"seq,omitempty"`            // printk sequence number of the acknowledged record
	Why     string        `json:"why,omitempty"`            // it was not acknowledged
	Reasons []string      `json:"likely,omitempty"`         // likely reasons for that, the likeliest first
}

// Prover writes canaries to the kernel log and waits, on the targets' own source ports, for the listeners to
// acknowledge them: the only proof that takes the path a panic will take.
type Prover struct {
	Root    machine.Root
	Timeout time.Duration // for each canary
	// Interval is announced as the time to the next canary, so that listeners know when one is overdue.
	Interval time.Duration
	Cluster  string            // only its listeners acknowledge; announced, too
	Key      ed25519.PublicKey // nil: acknowledgements need no signature
}

// Prove tries all routes with the same canaries: every target sends every record. It returns one Proof for each route, in
// the same order. An error means that it could not try, or was interrupted.
func (p Prover) Prove(ctx context.Context, id machine.Identity, facts machine.Facts, routes []Route) ([]Proof, error) {
	level, visible := facts.CanaryLevel()
	kernel := slices.ContainsFunc(routes, func(r Route) bool { return !r.own() })
	if kernel && !visible {
		return nil, fmt.Errorf("write canary: console level %d hides it; set kernel.printk=5 (sysctl)", facts.ConsoleLevel)
	}
	if kernel && facts.Devkmsg == "off" {
		return nil, errors.New("write canary: kernel.printk_devkmsg=off discards it; boot without printk.devkmsg=off")
	}
	var err error
	conns, failed := bind(routes)
	if len(conns) == 0 {
		return nil, failed[routes[0].Local]
	}
	arrivals := make(chan arrival)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for local, conn := range conns {
		readers.Go(func() { receive(conn, local, arrivals, done) })
	}
	var wire tap
	defer readers.Wait()
	defer func() {
		close(done)
		wire.Close()
		for _, conn := range conns {
			conn.Close()
		}
	}()

	tally := newTally(routes, p.Key, netconsole.Origin{Cluster: p.Cluster, Boot: id.Boot})
	tally.failed = failed
	for n := range attempts {
		if n == 1 { // something is wrong: look on the wire for the next acknowledgements
			if wire, err = openTap(routes); err == nil { // the tap only finds a reason, so go on without it
				readers.Go(func() { wire.receive(arrivals, done) })
			}
		}
		sayHello(conns, routes)
		canary := netconsole.Canary{
			Nonce: newNonce(), Instance: id.Instance, Boot: id.Boot, Cluster: p.Cluster, Facts: facts.Facts, Interval: p.Interval,
		}
		tally.sent[canary.Nonce] = time.Now()
		// Without netconsole the line is for other consoles: it says whose boot their text is of.
		if visible {
			if err := p.write(fmt.Sprintf("<%d>%s\n", level, canary.Line())); err != nil && kernel {
				return nil, err
			}
		}
		sendOwn(conns, routes, uint64(n+1), canary)
		timeout := time.NewTimer(p.Timeout)
		for expired := false; !expired && !tally.complete(); {
			select {
			case a := <-arrivals:
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

// sendOwn sends the canary to the listeners of routes that the kernel does not serve. A failure to send is ignored: the
// acknowledgement decides.
func sendOwn(conns map[netip.AddrPort]*net.UDPConn, routes []Route, seq uint64, c netconsole.Canary) {
	for _, r := range routes {
		if conn := conns[r.Local]; conn != nil && r.own() {
			_, _ = conn.WriteToUDPAddrPort(netconsole.AppendRecord(nil, seq, c.Line(), *r.Own), r.Remote)
		}
	}
}

// sayHello sends each listener a datagram from the socket that waits for its acknowledgement. netpoll bypasses conntrack,
// so without it a stateful firewall of this node would drop the acknowledgement as unsolicited. A failure to send is
// ignored: the canary decides.
func sayHello(conns map[netip.AddrPort]*net.UDPConn, routes []Route) {
	for _, r := range routes {
		if conn := conns[r.Local]; conn != nil {
			_, _ = conn.WriteToUDPAddrPort([]byte(netconsole.Hello), r.Remote)
		}
	}
}

// bind opens a socket on every source in routes, and returns the error for each where it cannot. netconsole uses no sockets,
// so the port it sends from is free.
func bind(routes []Route) (conns map[netip.AddrPort]*net.UDPConn, failed map[netip.AddrPort]error) {
	conns, failed = make(map[netip.AddrPort]*net.UDPConn), make(map[netip.AddrPort]error)
	for _, r := range routes {
		if conns[r.Local] != nil || failed[r.Local] != nil {
			continue
		}
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(r.Local))
		if err == nil {
			err = wantICMP(conn)
		}
		switch {
		case errors.Is(err, unix.EADDRINUSE):
			failed[r.Local] = fmt.Errorf("wait for acknowledgements: another program uses UDP port %d of %s; set localPort to one that is free, with the three below it",
				r.Local.Port(), r.Local.Addr())
		case errors.Is(err, unix.EADDRNOTAVAIL):
			failed[r.Local] = fmt.Errorf("wait for acknowledgements: %s is no longer an address of this node", r.Local.Addr())
		case err != nil:
			failed[r.Local] = fmt.Errorf("wait for acknowledgements: %w", err)
		default:
			conns[r.Local] = conn
		}
	}
	return conns, failed
}

// arrival is one datagram that may acknowledge a canary, or an ICMP error about one.
type arrival struct {
	local, from netip.AddrPort
	payload     string
	wire        bool   // seen by the tap, before the node's own firewall
	icmp        string // what is wrong with the listener at from; then there is no payload
}

// receive passes on what arrives at conn until it is closed.
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

func newNonce() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
