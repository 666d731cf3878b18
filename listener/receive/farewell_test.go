package receive

import (
	"bytes"
	"crypto/ed25519"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// farewells notes what it is given.
type farewells struct {
	full bool
	got  []netconsole.Bye
	from []netip.Addr
	ver  []bool
}

func (f *farewells) Farewell(src netip.Addr, y netconsole.Bye, _ time.Time, verified bool) bool {
	if f.full {
		return false
	}
	f.got, f.from, f.ver = append(f.got, y), append(f.from, src), append(f.ver, verified)
	return true
}

func TestFarewell(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	bye := netconsole.Bye{
		Nonce: strings.Repeat("0123456789abcdef", 2), Cause: netconsole.ByeReboot, By: "alice", Command: "reboot", Sudo: true,
		Instance: "i-0abc", Boot: bootA, Cluster: "prod-1", Secret: secretA,
	}
	with := func(change func(*netconsole.Bye)) netconsole.Bye { y := bye; change(&y); return y }
	for _, tt := range []struct {
		name     string
		from     netip.AddrPort
		bye      netconsole.Bye
		key      ed25519.PrivateKey
		full     bool
		ack      string // nonce and signature left out; empty: none
		taken    bool
		verified bool
	}{
		{"of the node", nodeA, bye, nil, false, "lastgasp: ack v1 nonce= seq=0 node=known", true, true},
		{"of the node, signed", nodeA, bye, key, false, "lastgasp: ack v2 nonce= seq=0 node=known sig=", true, true},
		{"of the node, and no room", nodeA, bye, nil, true, "", false, false},
		{"without secret", nodeA, with(func(y *netconsole.Bye) { y.Secret = "" }), nil, false,
			"lastgasp: ack v1 nonce= seq=0 node=known", true, false},
		{"with a made-up secret", nodeA, with(func(y *netconsole.Bye) { y.Secret = "made-up" }), nil, false,
			"lastgasp: ack v1 nonce= seq=0 node=known", true, false},
		{"with the secret of another boot", nodeA, with(func(y *netconsole.Bye) { y.Boot = "another" }), nil, false,
			"lastgasp: ack v1 nonce= seq=0 node=known", true, false},
		{"with the secret, from an address of no Node", nth(9), bye, key, false, "lastgasp: ack v2 nonce= seq=0 node=unknown sig=", true, false},
		{"of another cluster", nodeA, with(func(y *netconsole.Bye) { y.Cluster = "prod-2" }), nil, false, "", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, f := new(sink), &farewells{full: tt.full}
			sh := NewShard(&Config{
				Judge: &detect.Config{}, Sink: s, Metrics: new(Metrics), Farewells: f, Nodes: nodes{nodeA.Addr()}, Cluster: "prod-1",
				Key: tt.key, Pins: pins{bootA: netconsole.Secret(secretA).Sum()},
			})
			got := string(sh.Receive(epoch, tt.from, []byte(tt.bye.Line())))
			ack, _ := netconsole.ParseAck(got)
			if plain := strings.Replace(strings.Replace(got, ack.Signature, "", 1), bye.Nonce, "", 1); plain != tt.ack && got != tt.ack {
				t.Errorf("answered %q, want %q", got, tt.ack)
			}
			if tt.key != nil && !ack.Verify(key.Public().(ed25519.PublicKey), netconsole.Origin{Cluster: "prod-1", Boot: bootA, Source: tt.from}) {
				t.Error("the signature is not believed")
			}
			want := &farewells{full: tt.full}
			if tt.taken {
				want.got, want.from, want.ver = []netconsole.Bye{tt.bye}, []netip.Addr{tt.from.Addr()}, []bool{tt.verified}
			}
			if diff := cmp.Diff(want, f, cmp.AllowUnexported(farewells{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("handed over (-want +got):\n%s", diff)
			}
			if len(s.incidents) > 0 || sh.metrics.Malformed.Load() > 0 {
				t.Errorf("incidents %+v, %d malformed", s.incidents, sh.metrics.Malformed.Load())
			}
		})
	}
}

// Whoever floods a listener with farewells keeps out none of a node that knows its secret, not even from the same address
// and port.
func TestFarewellAmongForgedOnes(t *testing.T) {
	f := new(farewells)
	sh := NewShard(&Config{
		Judge: &detect.Config{}, Sink: new(sink), Metrics: new(Metrics), Farewells: f, Nodes: nodes{nodeA.Addr()},
		Pins: pins{bootA: netconsole.Secret(secretA).Sum()},
	})
	true_ := netconsole.Bye{Nonce: strings.Repeat("a", 32), Cause: "reboot", Instance: "i-0abc", Boot: bootA, Secret: secretA}
	forged := true_
	forged.Secret = "made-up"
	for range 50_000 {
		sh.Receive(epoch, nodeA, []byte(forged.Line()))
	}
	if n := len(f.got); n > acksBurst {
		t.Errorf("%d forged farewells handed over, want %d at most", n, acksBurst)
	}
	// The wrong secrets for this boot have used up what is hashed for it in a second, unless the node was heard before.
	if ack := sh.Receive(epoch.Add(time.Second), nodeA, []byte(true_.Line())); ack == nil || !f.ver[len(f.ver)-1] {
		t.Errorf("the true one was answered %q", ack)
	}
}

func TestMalformedFarewell(t *testing.T) {
	s := new(sink)
	sh, _ := clusterShard(s, 0)
	if ack := sh.Receive(epoch, nodeA, []byte("lastgasp: bye v1 cause=reboot")); ack != nil || sh.metrics.Malformed.Load() != 1 {
		t.Errorf("answered %q, %d malformed", ack, sh.metrics.Malformed.Load())
	}
}
