package netconsole

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

const (
	ackStart       = "lastgasp: ack v1 nonce="
	signedAckStart = "lastgasp: ack v2 nonce="
	ackSeq         = " seq="
	ackNode        = " node="
	ackSignature   = " sig="

	nodeKnown, nodeUnknown = "known", "unknown"

	signatureLen = (8*ed25519.SignatureSize + 5) / 6 // characters of base64url

	// maxAck is the length of the longest acknowledgement, in bytes.
	maxAck = len(signedAckStart) + nonceLen + len(ackSeq) + len("18446744073709551615") +
		len(ackNode) + len(nodeUnknown) + len(ackSignature) + signatureLen
)

// Ack is the listener's answer to a canary.
type Ack struct {
	Nonce string // the canary's
	Seq   uint64 // printk sequence number of the record that carried it, 0 in the basic format
	// Known says that the listener's cluster has a Node with the address and the identity of the canary. Without one nobody
	// would act on the sender's death.
	Known bool
	// Signature is what Sign adds, in base64url: the acknowledgement is then version 2.
	Signature string
}

// Origin is the part of what is signed that an acknowledgement does not repeat: both sides know it.
type Origin struct {
	Cluster, Boot string         // as in the canary
	Source        netip.AddrPort // of the canary, as the listener saw it and as the node knows it to be its own
}

// Line is the acknowledgement as it is sent, one datagram with no newline.
func (a Ack) Line() string {
	start, node := ackStart, nodeUnknown
	if a.Known {
		node = nodeKnown
	}
	line := a.Nonce + ackSeq + strconv.FormatUint(a.Seq, 10) + ackNode + node
	if a.Signature != "" {
		start, line = signedAckStart, line+ackSignature+a.Signature
	}
	return start + line
}

// Sign returns the acknowledgement with a signature that ties it to o.
func (a Ack) Sign(key ed25519.PrivateKey, o Origin) Ack {
	a.Signature = base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, a.signed(o)))
	return a
}

// Verify reports whether the owner of the key's private half signed the acknowledgement for o. One that was relayed has
// another source, and is not believed.
func (a Ack) Verify(key ed25519.PublicKey, o Origin) bool {
	signature, err := base64.RawURLEncoding.Strict().DecodeString(a.Signature)
	return err == nil && len(key) == ed25519.PublicKeySize && ed25519.Verify(key, a.signed(o), signature)
}

// signed is what the signature is over. Everything that could contain a space is quoted, so that no two acknowledgements
// read the same.
func (a Ack) signed(o Origin) []byte {
	node := nodeUnknown
	if a.Known {
		node = nodeKnown
	}
	source := netip.AddrPortFrom(o.Source.Addr().Unmap().WithZone(""), o.Source.Port())
	return fmt.Appendf(nil, "lastgasp: ack v2 nonce=%q seq=%d cluster=%q boot=%q node=%s source=%s",
		a.Nonce, a.Seq, o.Cluster, o.Boot, node, source)
}

// ParseAck reads a datagram. It accepts only what Line writes, with or without a newline at the end.
func ParseAck(line string) (Ack, bool) {
	line = strings.TrimSuffix(line, "\n")
	rest, signed := strings.CutPrefix(line, signedAckStart)
	if !signed {
		rest, _ = strings.CutPrefix(line, ackStart)
	}
	nonce, rest, _ := strings.Cut(rest, ackSeq)
	seq, rest, _ := strings.Cut(rest, ackNode)
	node, signature, _ := strings.Cut(rest, ackSignature)
	n, err := strconv.ParseUint(seq, 10, 64)
	a := Ack{Nonce: nonce, Seq: n, Known: node == nodeKnown, Signature: signature}
	if err != nil || !isNonce(nonce) || signed != isSignature(signature) || a.Line() != line {
		return Ack{}, false
	}
	return a, true
}

// isSignature reports whether s is base64url of the length of a signature.
func isSignature(s string) bool {
	_, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil && len(s) == signatureLen && !strings.ContainsAny(s, "\r\n")
}
