package netconsole

import (
	"bytes"
	"crypto/ed25519"
	"math"
	"net/netip"
	"strings"
	"testing"
)

// testKey is the listener's of these tests.
func testKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
}

var someOrigin = Origin{Cluster: "prod-1", Boot: someCanary.Boot, Source: netip.MustParseAddrPort("10.0.1.5:6665")}

func TestAckLine(t *testing.T) {
	signature := strings.Repeat("A", signatureLen)
	for _, tt := range []struct {
		line string
		want Ack
		ok   bool
	}{
		{"lastgasp: ack v1 nonce=" + nonce + " seq=512 node=known", Ack{nonce, 512, true, ""}, true},
		{"lastgasp: ack v1 nonce=" + nonce + " seq=0 node=unknown\n", Ack{nonce, 0, false, ""}, true},
		{"lastgasp: ack v1 nonce=" + nonce + " seq=18446744073709551615 node=known", Ack{nonce, math.MaxUint64, true, ""}, true},
		{"lastgasp: ack v2 nonce=" + nonce + " seq=7 node=known sig=" + signature, Ack{nonce, 7, true, signature}, true},
		{"lastgasp: ack v2 nonce=" + nonce + " seq=7 node=unknown sig=" + signature, Ack{nonce, 7, false, signature}, true},
		{"lastgasp: ack v1 nonce=" + nonce + " seq=18446744073709551616 node=known", Ack{}, false},
		{"lastgasp: ack v1 nonce=" + nonce + " seq=007 node=known", Ack{}, false},
		{"lastgasp: ack v1 nonce=" + nonce + " seq=+7 node=known", Ack{}, false},
		{"lastgasp: ack v1 nonce=" + nonce + " seq=7 x=1 node=known", Ack{}, false},
		{"lastgasp: ack v1 nonce=" + nonce + " seq=7 node=known x=1", Ack{}, false},
		{"lastgasp: ack v1 nonce=" + nonce + " seq=7 node=known\n\n", Ack{}, false},
		{"lastgasp: ack v1 nonce=" + nonce + " seq=7 node=", Ack{}, false},
		{"lastgasp: ack v1 nonce=" + nonce + " seq=7 node=maybe", Ack{}, false},
		{"lastgasp: ack v1 nonce=" + nonce + " seq=7", Ack{}, false},
		{"lastgasp: ack v1 nonce=" + nonce, Ack{}, false},
		{"lastgasp: ack v1 nonce=" + nonce[1:] + " seq=7 node=known", Ack{}, false},
		{"lastgasp: ack v1 nonce=" + strings.ToUpper(nonce) + " seq=7 node=known", Ack{}, false},
		{"lastgasp: ack v1 nonce=" + nonce + " seq=7 node=known sig=" + signature, Ack{}, false},
		{"lastgasp: ack v2 nonce=" + nonce + " seq=7 node=known", Ack{}, false},
		{"lastgasp: ack v2 nonce=" + nonce + " seq=7 node=known sig=" + signature[1:], Ack{}, false},
		{"lastgasp: ack v2 nonce=" + nonce + " seq=7 node=known sig=" + signature[1:] + "B", Ack{}, false}, // bits beyond the end
		{"lastgasp: ack v2 nonce=" + nonce + " seq=7 node=known sig=" + signature[1:] + "+", Ack{}, false},
		{"lastgasp: ack v2 nonce=" + nonce + " seq=7 node=known sig=" + signature[1:] + "\n", Ack{}, false},
		{"lastgasp: ack v3 nonce=" + nonce + " seq=7 node=known", Ack{}, false},
		{Hello, Ack{}, false},
		{"", Ack{}, false},
	} {
		got, ok := ParseAck(tt.line)
		if got != tt.want || ok != tt.ok {
			t.Errorf("ParseAck(%q) = %+v, %v, want %+v, %v", tt.line, got, ok, tt.want, tt.ok)
		}
		if ok && got.Line() != strings.TrimSuffix(tt.line, "\n") {
			t.Errorf("%q comes back as %q", tt.line, got.Line())
		}
	}
}

// Whoever relays a canary to the real listener sends it from another address or port.
func TestSignedAckIsBelievedOnlyForItsOrigin(t *testing.T) {
	key := testKey()
	public := key.Public().(ed25519.PublicKey)
	signed := Ack{Nonce: nonce, Seq: 7, Known: true}.Sign(key, someOrigin)
	with := func(change func(*Ack, *Origin)) (Ack, Origin) {
		a, o := signed, someOrigin
		change(&a, &o)
		return a, o
	}
	for _, tt := range []struct {
		name   string
		change func(*Ack, *Origin)
		want   bool
	}{
		{"as it was signed", func(*Ack, *Origin) {}, true},
		{"its address as an IPv4 address in IPv6", func(_ *Ack, o *Origin) { o.Source = netip.MustParseAddrPort("[::ffff:10.0.1.5]:6665") }, true},
		{"another nonce", func(a *Ack, _ *Origin) { a.Nonce = strings.Repeat("0", 32) }, false},
		{"another record", func(a *Ack, _ *Origin) { a.Seq++ }, false},
		{"unknown made known", func(a *Ack, _ *Origin) { *a = Ack{Nonce: nonce, Seq: 7}.Sign(key, someOrigin); a.Known = true }, false},
		{"another cluster", func(_ *Ack, o *Origin) { o.Cluster = "prod-2" }, false},
		{"another boot", func(_ *Ack, o *Origin) { o.Boot = "another" }, false},
		{"cluster and boot cut elsewhere", func(a *Ack, o *Origin) {
			*a = Ack{Nonce: nonce, Seq: 7}.Sign(key, Origin{Cluster: `a" boot="b`, Boot: "c", Source: o.Source})
			o.Cluster, o.Boot = "a", `b" boot="c`
		}, false},
		{"another address", func(_ *Ack, o *Origin) { o.Source = netip.MustParseAddrPort("10.0.1.6:6665") }, false},
		{"another port", func(_ *Ack, o *Origin) { o.Source = netip.MustParseAddrPort("10.0.1.5:6666") }, false},
		{"another key", func(a *Ack, _ *Origin) {
			*a = Ack{Nonce: nonce, Seq: 7, Known: true}.Sign(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), someOrigin)
		}, false},
		{"no signature", func(a *Ack, _ *Origin) { a.Signature = "" }, false},
		{"no base64", func(a *Ack, _ *Origin) { a.Signature = strings.Repeat("!", signatureLen) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, o := with(tt.change)
			if got := a.Verify(public, o); got != tt.want {
				t.Errorf("%+v of %+v is believed: %v, want %v", a, o, got, tt.want)
			}
		})
	}
	if signed.Verify(nil, someOrigin) || signed.Verify(public[1:], someOrigin) {
		t.Error("believed without a whole key")
	}
	if got, ok := ParseAck(signed.Line()); !ok || got != signed {
		t.Errorf("%+v comes back as %+v, %v", signed, got, ok)
	}
}

// TestAckNeverAmplifies: the shortest canary there can be is no shorter than the longest answer.
func TestAckNeverAmplifies(t *testing.T) {
	ack := Ack{Nonce: nonce, Seq: math.MaxUint64}.Sign(testKey(), someOrigin).Line()
	if len(ack) != maxAck {
		t.Errorf("the longest ack has %d bytes, want maxAck, %d", len(ack), maxAck)
	}
	for pad := range 2 * maxAck {
		text := "lastgasp: canary v1 nonce=" + nonce + " instance=i boot=b" + manyWords(pad/5) + strings.Repeat("v", pad%5)
		if _, ok := ParseCanary(text); ok != (len(text) >= maxAck) {
			t.Errorf("a canary of %d bytes is answered: %v; the answer may have %d", len(text), ok, maxAck)
		}
	}
	shortest := Canary{Nonce: nonce, Instance: "i", Boot: "b"}
	if n := len(shortest.Line()); n < maxAck {
		t.Errorf("the configurator's shortest canary has %d bytes, want %d", n, maxAck)
	}
	if _, ok := ParseCanary(shortest.Line()); !ok {
		t.Errorf("refused %q", shortest.Line())
	}
}

func TestValidCluster(t *testing.T) {
	for name, want := range map[string]bool{
		"prod-1": true, "a": true, "0": true, "eu.prod_1": true, strings.Repeat("c", 100): true,
		"": false, "-a": false, ".a": false, "a b": false, "a=b": false, "a/b": false, "é": false, "a\n": false, strings.Repeat("c", 101): false,
	} {
		if got := ValidCluster(name); got != want {
			t.Errorf("%q is valid: %v, want %v", name, got, want)
		}
		c := Canary{Nonce: nonce, Instance: "i", Boot: "b", Cluster: name}
		if got, ok := ParseCanary(c.Line()); want && (!ok || got != c) {
			t.Errorf("%+v comes back as %+v, %v", c, got, ok)
		}
	}
}

func FuzzAck(f *testing.F) {
	f.Add("lastgasp: ack v1 nonce=" + nonce + " seq=512 node=known")
	f.Add("lastgasp: ack v1 nonce=" + nonce + " seq=18446744073709551615 node=unknown\n")
	f.Add(Ack{Nonce: nonce, Seq: 1, Known: true}.Sign(testKey(), someOrigin).Line())
	f.Fuzz(func(t *testing.T, line string) {
		a, ok := ParseAck(line)
		if ok && a.Line() != strings.TrimSuffix(line, "\n") {
			t.Fatalf("%q comes back as %q", line, a.Line())
		}
		if ok && len(a.Line()) > maxAck {
			t.Fatalf("an ack of %d bytes, %d are the most", len(a.Line()), maxAck)
		}
		if !ok && a != (Ack{}) {
			t.Fatalf("refused, and told %+v", a)
		}
	})
}
