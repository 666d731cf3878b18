package configurator

import (
	"crypto/ed25519"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// With a key a listener learns the secret of this boot only after it has proved itself.
func TestSecretIsWithheldUntilTheListenerHasProvedItself(t *testing.T) {
	w := newWorld(t)
	node := w.node(listenerA)
	node.Config.Endpoint.Key = someKey.Public().(ed25519.PublicKey)
	a := netip.MustParseAddrPort(listenerA)
	secret := func() bool { return hasSecret(w.kernel.targets[0].Spec) }

	w.deaf[a] = true // or it answers without a valid signature
	w.during = func() {
		if secret() {
			t.Error("the first canary carries the secret")
		}
	}
	if _, err := node.Apply(t.Context()); !errors.Is(err, ErrUnproved) {
		t.Fatalf("error %v, want %v", err, ErrUnproved)
	}
	if secret() {
		t.Error("a listener that has not proved itself has the secret")
	}

	delete(w.deaf, a)
	w.strange = true
	if _, err := node.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if secret() {
		t.Error("a listener that knows no Node for this one has the secret")
	}

	w.strange, w.kernel.log = false, nil
	canaries := w.proved
	if _, err := node.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"add gasp to lastgasp-10.0.2.10-1"}, w.kernel.log); diff != "" {
		t.Errorf("what was done (-want +got):\n%s", diff)
	}
	if n := w.proved - canaries; n != 2 {
		t.Errorf("%d canaries, want one without the secret and one with it", n)
	}
	w.kernel.log = nil
	if _, err := node.Apply(t.Context()); err != nil || len(w.kernel.log) > 0 {
		t.Errorf("a later pass touches what is right: %v, %v", w.kernel.log, err)
	}

	// Whoever redirects the node to a listener of his own gets a target without the secret.
	evil := netip.MustParseAddrPort(listenerB)
	w.deaf[evil] = true
	hijacked := w.node(listenerB)
	hijacked.Config.Endpoint.Key = node.Config.Endpoint.Key
	w.during = func() {
		for _, st := range w.kernel.targets {
			if st.Remote() == evil && hasSecret(st.Spec) {
				t.Error("it is sent to the wrong listener")
			}
		}
	}
	if _, err := hijacked.Apply(t.Context()); !errors.Is(err, ErrUnproved) {
		t.Errorf("error %v, want %v", err, ErrUnproved)
	}
	if diff := cmp.Diff([]string{listenerA}, w.listeners()); diff != "" {
		t.Errorf("armed (-want +got):\n%s", diff)
	}
}
