package canary

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

var (
	someSender   = netconsole.Identity{Instance: someone.Instance, Boot: someone.Boot, Secret: "c2VjcmV0c2VjcmV0c2VjcmV0"}
	someObituary = netconsole.Obituary{
		Boot: "old", Cause: "KernelPanic", Evidence: "pstore", Cluster: "prod-1",
		Text: bytes.Repeat([]byte("<6>[    1.000000] a line\n"), 800),
	}
)

// serve plays a listener on conn: answer says what becomes of each record, by its how-manieth datagram it is.
func serve(t *testing.T, conn *net.UDPConn, answer func(n int, from netip.AddrPort, r *netconsole.Record)) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		var s netconsole.Stream
		buf := make([]byte, 2048)
		for n := 0; ; n++ {
			size, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			_ = s.Push(time.Now(), buf[:size], func(r *netconsole.Record) { answer(n, from, r) })
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
}

func TestDeliverSurvivesLoss(t *testing.T) {
	local := freePortOf(t, "127.0.0.1")
	conn, remote := loopback(t, "127.0.0.2")
	var s netconsole.Obituaries
	whole := make(chan netconsole.Obituary, 1)
	serve(t, conn, func(n int, from netip.AddrPort, r *netconsole.Record) {
		p, ok := r.Obituary()
		if !ok || n%11 == 0 {
			return // lost, every eleventh
		}
		o, ack := s.Add(time.Now(), r.Identity(), p)
		if o != nil {
			s.Done(p.Nonce, r.Identity())
			whole <- *o
		}
		if ack && n%13 != 0 { // or the acknowledgement is, every thirteenth
			known := s.Recorded(p.Nonce, r.Identity())
			conn.WriteToUDPAddrPort([]byte(netconsole.Ack{Nonce: p.Nonce, Seq: r.Seq, Known: known}.Line()), from)
		}
	})
	p := Prover{Timeout: 300 * time.Millisecond}
	var err error
	for range 20 { // as the watch does
		if err = p.Deliver(t.Context(), someSender, someObituary, []Route{{Local: local, Remote: remote}}); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	got := <-whole
	if diff := cmp.Diff(someObituary, got); diff != "" {
		t.Errorf("obituary (-want +got):\n%s", diff)
	}
}

func TestDeliverGoesOnToTheNextListener(t *testing.T) {
	local := freePortOf(t, "127.0.0.1")
	_, deaf := loopback(t, "127.0.0.2")
	conn, remote := loopback(t, "127.0.0.3")
	serve(t, conn, func(_ int, from netip.AddrPort, r *netconsole.Record) {
		p, _ := r.Obituary()
		conn.WriteToUDPAddrPort([]byte(netconsole.Ack{Nonce: p.Nonce, Seq: r.Seq, Known: true}.Line()), from)
	})
	p := Prover{Timeout: time.Second}
	if err := p.Deliver(t.Context(), someSender, someObituary, []Route{{Local: local, Remote: deaf}, {Local: local, Remote: remote}}); err != nil {
		t.Error(err)
	}
}

func TestDeliverBelievesOnlyItsListener(t *testing.T) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	public := key.Public().(ed25519.PublicKey)
	stranger, _ := loopback(t, "127.0.0.4")
	local := freePortOf(t, "127.0.0.1")
	origin := netconsole.Origin{Cluster: "prod-1", Boot: someone.Boot, Source: local}
	for _, tt := range []struct {
		name string
		key  ed25519.PublicKey
		ack  func(a netconsole.Ack) netconsole.Ack
		from *net.UDPConn // nil: the listener
		want bool
	}{
		{"its acknowledgement", nil, func(a netconsole.Ack) netconsole.Ack { return a }, nil, true},
		{"its signature", public, func(a netconsole.Ack) netconsole.Ack { return a.Sign(key, origin) }, nil, true},
		{"no signature", public, func(a netconsole.Ack) netconsole.Ack { return a }, nil, false},
		{"a stranger's", nil, func(a netconsole.Ack) netconsole.Ack { return a }, stranger, false},
		{"another nonce", nil, func(a netconsole.Ack) netconsole.Ack { a.Nonce = strings.Repeat("0", 32); return a }, nil, false},
		{"parts that are held, and nothing recorded: it was started anew", nil, func(a netconsole.Ack) netconsole.Ack { a.Known = false; return a }, nil, false},
		{"a part that there is not", nil, func(a netconsole.Ack) netconsole.Ack { a.Seq = 0; return a }, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, remote := loopback(t, "127.0.0.2")
			from := conn
			if tt.from != nil {
				from = tt.from
			}
			serve(t, conn, func(_ int, sender netip.AddrPort, r *netconsole.Record) {
				p, _ := r.Obituary()
				from.WriteToUDPAddrPort([]byte(tt.ack(netconsole.Ack{Nonce: p.Nonce, Seq: r.Seq, Known: true}).Line()), sender)
			})
			o := someObituary
			o.Text = []byte("short\n")
			p := Prover{Timeout: 50 * time.Millisecond, Key: tt.key}
			if tt.want {
				p.Timeout = time.Minute // it ends with the acknowledgement
			}
			if err := p.Deliver(t.Context(), someSender, o, []Route{{Local: local, Remote: remote}}); (err == nil) != tt.want {
				t.Errorf("error %v, want delivered: %v", err, tt.want)
			}
		})
	}
}

func TestDeliverEndsWithItsContext(t *testing.T) {
	local := freePortOf(t, "127.0.0.1")
	_, deaf := loopback(t, "127.0.0.2")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := Prover{Timeout: time.Hour}.Deliver(ctx, someSender, someObituary, []Route{{Local: local, Remote: deaf}, {Local: local, Remote: deaf}})
	if err == nil || !strings.HasSuffix(err.Error(), context.Canceled.Error()) {
		t.Errorf("error %v", err)
	}
	if err := (Prover{}).Deliver(t.Context(), someSender, someObituary, nil); err == nil || err.Error() != "send obituary: no listener is known" {
		t.Errorf("error %v", err)
	}
}

// TestProveWithoutNetconsole: the configurator sends the canary itself, even where the kernel log takes none.
func TestProveWithoutNetconsole(t *testing.T) {
	local := freePortOf(t, "127.0.0.1")
	conn, remote := loopback(t, "127.0.0.2")
	heard := make(chan netconsole.Canary, attempts)
	serve(t, conn, func(_ int, from netip.AddrPort, r *netconsole.Record) {
		c, ok := r.Canary()
		if !ok || r.Identity() != someSender {
			return
		}
		heard <- c
		conn.WriteToUDPAddrPort([]byte(netconsole.Ack{Nonce: c.Nonce, Seq: r.Seq, Known: true}.Line()), from)
	})
	facts := goodFacts
	facts.NoNetconsole, facts.Devkmsg, facts.ConsoleLevel = true, "off", 1
	got, err := Prover{Root: machine.Root(t.TempDir()), Timeout: time.Minute, Cluster: "prod-1"}.Prove(t.Context(), someone, facts,
		[]Route{{Target: "a", Local: local, Remote: remote, Own: &someSender}})
	if err != nil || !got[0].Acked || !got[0].Known || got[0].Seq != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	if c := <-heard; !c.Facts.NoNetconsole || c.Cluster != "prod-1" {
		t.Errorf("heard %+v", c)
	}
}
