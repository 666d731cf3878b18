//go:build e2e

package e2e

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

// TestConfiguratorBelievesTheKey runs a listener with the key, one without and one that relays to the first: only the first one
// learns the secret, and covers the node.
func TestConfiguratorBelievesTheKey(t *testing.T) {
	g := newGuest(t, "6.12", lab.VMSpec{})
	a := newFakeListener(t, g.net, lab.ListenerAddr.Addr())
	b := newFakeListener(t, g.net, lab.APIServerAddr.Addr())
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	public := base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
	g.write(t, config, fmt.Sprintf("cluster: prod-1\nendpoint: {key: %s}\ncanary: {timeout: 1s}\n", public))

	const unsigned = "but not with a signature of endpoint.key"
	g.runSaying(t, 1, unsigned, "apply", "--endpoint", b.String())
	if _, record := b.last(t); record.Identity().Secret != "" || record.Identity().Boot != g.vm.BootID() {
		t.Errorf("who has no key heard %+v", record.Identity())
	}

	a.sign(key)
	r := newRelay(t, g.net, netip.AddrPortFrom(lab.ListenerAddr.Addr(), 6667), netip.AddrPortFrom(lab.ListenerAddr.Addr(), 6666))
	g.runSaying(t, 1, unsigned, "apply", "--endpoint", r.at.String())
	if r.answers.Load() == 0 {
		t.Error("the relay got no answer: the test proves nothing")
	}
	if got := g.run(t, 1, "status"); strings.Contains(got.Stdout, "covered: ") {
		t.Errorf("through a relay, status:\n%s", got.Stdout)
	}

	g.run(t, 0, "apply", "--endpoint", a.String())
	canary, record := a.last(t)
	if canary.Cluster != "prod-1" {
		t.Errorf("the canary is of cluster %q", canary.Cluster)
	}
	secret := strings.Fields(g.read(t, "/run/lastgasp/gasp"))[1]
	if string(record.Identity().Secret) != secret {
		t.Errorf("after it has proved itself it heard %+v", record.Identity())
	}
	if r := g.run(t, 0, "status"); !strings.Contains(r.Stdout, "covered: ") {
		t.Errorf("status:\n%s", r.Stdout)
	}
	if r.heard(secret) {
		t.Error("the relay has heard the secret")
	}
	g.run(t, 0, "apply", "--endpoint", a.String())
	g.wantTargets(t, "lastgasp-10.77.2.10-1")
	if _, record := b.last(t); record.Identity().Secret != "" {
		t.Errorf("who has no key has the secret in the end")
	}
}

// relay passes datagrams on, in both directions, and remembers what it hears.
type relay struct {
	at      netip.AddrPort
	answers atomic.Int32

	mu   sync.Mutex
	said []byte
	from netip.AddrPort // of the latest datagram
}

func newRelay(t *testing.T, n *lab.Net, at, to netip.AddrPort) *relay {
	t.Helper()
	front := must(lab.Listen(n.Listener, at))
	back := must(lab.Listen(n.Listener, netip.AddrPortFrom(at.Addr(), 0)))
	r := &relay{at: at}
	var passing sync.WaitGroup
	passing.Go(func() {
		buf := make([]byte, 2048)
		for {
			size, from, err := front.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			r.mu.Lock()
			r.said, r.from = append(r.said, buf[:size]...), from
			r.mu.Unlock()
			back.WriteToUDPAddrPort(buf[:size], to) // what is lost is sent again
		}
	})
	passing.Go(func() {
		buf := make([]byte, 2048)
		for {
			size, _, err := back.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			r.answers.Add(1)
			r.mu.Lock()
			from := r.from
			r.mu.Unlock()
			front.WriteToUDPAddrPort(buf[:size], from)
		}
	})
	t.Cleanup(func() {
		front.Close()
		back.Close()
		passing.Wait()
	})
	return r
}

// heard reports whether the text was in what the relay has heard.
func (r *relay) heard(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Contains(r.said, []byte(text))
}
