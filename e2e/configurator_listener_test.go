//go:build e2e

package e2e

import (
	"crypto/ed25519"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// fakeListener is a minimal listener: it acknowledges canaries and remembers what it received.
type fakeListener struct {
	conn *net.UDPConn

	mu       sync.Mutex
	deaf     bool               // it ignores canaries
	stranger bool               // it knows no Node for any sender
	key      ed25519.PrivateKey // that signs acknowledgements, nil: none
	canary   netconsole.Canary
	record   netconsole.Record
	heard    []string // text of every record since the last forget
	size     int      // of their datagrams, in bytes

	obituaries netconsole.Obituaries
	died       []netconsole.Obituary // all that are whole
}

// newFakeListener listens in the listener subnet until t ends.
func newFakeListener(t *testing.T, n *lab.Net, at netip.Addr) *fakeListener {
	t.Helper()
	conn, err := lab.ListenToStorm(n.Listener, netip.AddrPortFrom(at, 6666))
	if err != nil {
		t.Fatal(err)
	}
	e := &fakeListener{conn: conn}
	var receiving sync.WaitGroup
	receiving.Go(e.receive)
	t.Cleanup(func() {
		e.conn.Close()
		receiving.Wait()
	})
	return e
}

func (e *fakeListener) String() string { return e.conn.LocalAddr().String() }

func (e *fakeListener) receive() {
	streams := make(map[netip.AddrPort]*netconsole.Stream)
	buf := make([]byte, 2048)
	for {
		n, from, err := e.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if streams[from] == nil {
			streams[from] = new(netconsole.Stream)
		}
		e.mu.Lock()
		e.size += n
		streams[from].Push(time.Now(), buf[:n], func(r *netconsole.Record) { e.take(r, from) })
		e.mu.Unlock()
	}
}

// take remembers one record and acknowledges it if it is a canary. e.mu is held.
func (e *fakeListener) take(r *netconsole.Record, from netip.AddrPort) {
	e.heard = append(e.heard, string(r.Text))
	if part, ok := r.Obituary(); ok && !e.deaf {
		e.mourn(r, part, from)
		return
	}
	canary, ok := netconsole.ParseCanary(string(r.Text))
	if !ok || e.deaf {
		return
	}
	e.canary, e.record = canary, *r
	e.record.Fields = slices.Clone(r.Fields)
	ack := netconsole.Ack{Nonce: canary.Nonce, Seq: r.Seq, Known: !e.stranger}
	if e.key != nil {
		ack = ack.Sign(e.key, netconsole.Origin{Cluster: canary.Cluster, Boot: canary.Boot, Source: from})
	}
	e.conn.WriteToUDPAddrPort([]byte(ack.Line()), from)
}

// mourn takes one part of an obituary. e.mu is held.
func (e *fakeListener) mourn(r *netconsole.Record, part netconsole.ObituaryPart, from netip.AddrPort) {
	whole, ack := e.obituaries.Add(time.Now(), r.Identity(), part)
	if whole != nil {
		e.died = append(e.died, *whole)
		e.obituaries.Done(part.Nonce, r.Identity())
	}
	if ack || whole != nil {
		e.conn.WriteToUDPAddrPort([]byte(netconsole.Ack{Nonce: part.Nonce, Seq: r.Seq, Known: !e.stranger}.Line()), from)
	}
}

// deaths are the obituaries that have arrived.
func (e *fakeListener) deaths() []netconsole.Obituary {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.died)
}

func (e *fakeListener) setDeaf(deaf bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.deaf = deaf
}

func (e *fakeListener) setStranger(stranger bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stranger = stranger
}

// sign makes e sign its acknowledgements.
func (e *fakeListener) sign(key ed25519.PrivateKey) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.key = key
}

// forget drops everything received so far.
func (e *fakeListener) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard, e.size = nil, 0
}

// recall returns the text of every record since the last forget, and how many bytes they were.
func (e *fakeListener) recall() (records []string, size int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.heard), e.size
}

// count is how many records were heard since the last forget.
func (e *fakeListener) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.heard)
}

// awaitQuiet is recall after nothing has arrived for two seconds.
func (e *fakeListener) awaitQuiet(t *testing.T) (records []string, size int) {
	t.Helper()
	again := time.NewTicker(2 * time.Second)
	defer again.Stop()
	for range 60 {
		<-again.C
		before := size
		if records, size = e.recall(); size == before {
			return records, size
		}
	}
	t.Fatal("records never stop arriving")
	return nil, 0
}

// last is the last canary that was acknowledged.
func (e *fakeListener) last(t *testing.T) (netconsole.Canary, netconsole.Record) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.canary.Nonce == "" {
		t.Fatal("no canary has arrived")
	}
	return e.canary, e.record
}
