//go:build e2e

package e2e

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

// TestConfiguratorBelievesTheKey runs a listener with the key and one without: only the first one learns the secret, and covers
// the node.
func TestConfiguratorBelievesTheKey(t *testing.T) {
	g := newGuest(t, "6.12", lab.VMSpec{})
	a := newFakeListener(t, g.net, lab.ListenerAddr.Addr())
	b := newFakeListener(t, g.net, lab.APIServerAddr.Addr())
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	public := base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
	g.write(t, config, fmt.Sprintf("cluster: prod-1\nendpoint: {key: %s}\ncanary: {timeout: 1s}\n", public))

	if r := g.run(t, 1, "apply", "--endpoint", b.String()); !strings.Contains(r.Stderr, "but not with a signature of endpoint.key") {
		t.Errorf("stderr: %s", r.Stderr)
	}
	if _, record := b.last(t); record.Identity().Secret != "" || record.Identity().Boot != g.vm.BootID() {
		t.Errorf("who has no key heard %+v", record.Identity())
	}

	a.sign(key)
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
	g.run(t, 0, "apply", "--endpoint", a.String())
	g.wantTargets(t, "lastgasp-10.77.2.10-1")
	if _, record := b.last(t); record.Identity().Secret != "" {
		t.Errorf("who has no key has the secret in the end")
	}
}
