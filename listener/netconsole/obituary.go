package netconsole

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	obituaryStart = "lastgasp: died v1 nonce="

	// MaxObituary is the longest text of an obituary, in bytes. Of a longer text the end is sent.
	MaxObituary = 64 << 10
	// MaxParts is how many datagrams the longest obituary takes, every byte of it escaped.
	MaxParts = 512

	maxPart = 1400 // bytes of a datagram: it fits every path between nodes unfragmented
)

// Causes that an obituary has besides those that the records of the old kernel prove.
const (
	// CauseOrderly: a system shutdown ended the boot, and nobody died.
	CauseOrderly = "Orderly"
	// CauseUnexplained: the boot ended without a word.
	CauseUnexplained = "Unexplained"
)

// Obituary is what a node says, once it runs again, about how its previous boot ended. It is sent by the configurator, from
// the socket that waits for acknowledgements, in numbered parts.
type Obituary struct {
	Boot     string    // that ended; the boot that reports it is in the Identity
	Cause    string    // a stable word: CauseOrderly, CauseUnexplained, KernelPanic, Watchdog, HardwareError, …
	Evidence string    // where the node knows it from: ledger, pstore, kdump, watchdog, firmware, or none
	Kernel   string    // `uname -r` of the kernel that ended, empty if unknown
	Cluster  string    // whose listener is to acknowledge it; empty if the configuration names none
	Time     time.Time // when the boot ended, in whole seconds; zero if unknown
	Text     []byte    // the last lines of the old kernel, as pstore or kdump kept them; at most MaxObituary
}

// ObituaryPart is one datagram of an obituary. Each part repeats everything but the text.
type ObituaryPart struct {
	Obituary           // its Text is this part's only
	Nonce       string // of the whole obituary, the same for the same obituary: 32 lower-case hex digits
	Part, Parts int    // from 1 to Parts; the acknowledgement's Seq is Part
	Size        int    // bytes of text of all parts
}

// Datagrams returns the parts in order, ready to be sent, and their nonce. Each is acknowledged by an Ack of that nonce
// whose Seq is the number of the part, from 1. Words are shortened and cleaned as in a canary, the text loses secrets, and all
// but its last MaxObituary bytes.
func (o Obituary) Datagrams(id Identity) (nonce string, parts [][]byte) {
	o = o.clean()
	var chunks [][]byte
	room := maxPart - len(AppendRecord(nil, MaxParts, o.line(strings.Repeat("0", nonceLen), MaxParts, MaxParts, MaxObituary)+"\n", id))
	for rest := o.Text; len(rest) > 0; {
		n := fits(rest, room)
		chunks, rest = append(chunks, rest[:n]), rest[n:]
	}
	if len(chunks) == 0 {
		chunks = [][]byte{nil}
	}
	nonce = o.nonce(id)
	for i, chunk := range chunks {
		text := o.line(nonce, i+1, len(chunks), len(o.Text)) + "\n" + string(chunk)
		parts = append(parts, AppendRecord(nil, uint64(i+1), text, id))
	}
	return nonce, parts
}

// fits is how many bytes of text go into room bytes of a datagram.
func fits(text []byte, room int) int {
	for i, c := range text {
		if room -= escapedLen(c); room < 0 {
			return i
		}
	}
	return len(text)
}

// clean returns the obituary as the other side will have it.
func (o Obituary) clean() Obituary {
	o.Boot, o.Cause, o.Evidence = oneWord(o.Boot, maxToken), oneWord(o.Cause, maxToken), oneWord(o.Evidence, maxToken)
	o.Kernel, o.Cluster = oneWord(o.Kernel, maxToken), oneWord(o.Cluster, maxCluster)
	if !o.Time.IsZero() {
		o.Time = time.Unix(max(1, o.Time.Unix()), 0).UTC()
	}
	// A Stream hides what follows the key, and a part may end within the value.
	o.Text = bytes.ReplaceAll(redact(o.Text), []byte(KeySecret+"="), []byte(KeySecret+":"))
	o.Text = o.Text[max(0, len(o.Text)-MaxObituary):]
	return o
}

func (o Obituary) line(nonce string, part, parts, size int) string {
	return obituaryStart + nonce + fmt.Sprintf(" part=%d/%d size=%d", part, parts, size) + o.words()
}

// words is what the parts of an obituary repeat. Empty values are left out.
func (o Obituary) words() string {
	var w words
	w.add(KeyBoot, o.Boot)
	w.add("cause", o.Cause)
	w.add("by", o.Evidence)
	w.add("kernel", o.Kernel)
	w.add(keyCluster, o.Cluster)
	if !o.Time.IsZero() {
		w.add("time", strconv.FormatInt(o.Time.Unix(), 10))
	}
	return w.String()
}

// nonce is a digest of all of the obituary and the identity that sends it. Without the secret nobody can guess it, and
// parts of two obituaries never make one.
func (o Obituary) nonce(id Identity) string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %q ", id.Instance, id.Boot, string(id.Secret), o.words())
	h.Write(o.Text)
	return hex.EncodeToString(h.Sum(nil))[:nonceLen]
}

// Obituary is the part of an obituary in the record, if the configurator sent it and all of it is there. Its text points
// into the record. No kernel sends one: what is written to /dev/kmsg never is an obituary.
func (r *Record) Obituary() (ObituaryPart, bool) {
	if !r.FromConfigurator() || r.Partial || r.Assembled || r.Missing > 0 || !bytes.HasPrefix(r.Text, []byte(obituaryStart)) {
		return ObituaryPart{}, false
	}
	p, ok := parseObituary(r.Text)
	if !ok || r.Seq != uint64(p.Part) {
		return ObituaryPart{}, false
	}
	return p, true
}

// parseObituary reads the text of a record. It accepts only what line writes, except that words may be unknown or in any
// order.
func parseObituary(text []byte) (ObituaryPart, bool) {
	head, chunk, ok := bytes.Cut(text, []byte{'\n'})
	rest, is := strings.CutPrefix(string(head), obituaryStart)
	if !ok || !is || len(head) > maxLine || len(chunk) > maxPart {
		return ObituaryPart{}, false
	}
	p := ObituaryPart{Size: -1} // not said
	p.Nonce, rest, _ = strings.Cut(rest, " ")
	if !isNonce(p.Nonce) || !readWords(rest, p.set) || p.Parts == 0 || p.Boot == "" || p.Cause == "" || p.Evidence == "" || len(chunk) > p.Size {
		return ObituaryPart{}, false
	}
	p.Text = chunk
	return p, true
}

// set takes over one word of a part. It reports false if the value does not fit the key.
func (p *ObituaryPart) set(key, value string) (ok bool) {
	ok = true
	switch key {
	case "nonce":
		ok = false // a second one
	case "part":
		part, parts, _ := strings.Cut(value, "/")
		var okPart, okParts bool
		p.Part, okPart = integer(part)
		p.Parts, okParts = integer(parts)
		ok = okPart && okParts && 1 <= p.Part && p.Part <= p.Parts && p.Parts <= MaxParts
	case "size":
		p.Size, ok = integer(value)
		ok = ok && 0 <= p.Size && p.Size <= MaxObituary
	case KeyBoot:
		p.Boot = value
	case "cause":
		p.Cause = value
	case "by":
		p.Evidence = value
	case "kernel":
		p.Kernel = value
	case keyCluster:
		p.Cluster = value
	case "time":
		seconds, err := strconv.ParseInt(value, 10, 64)
		ok = err == nil && 0 < seconds && seconds < 1<<40 && strconv.FormatInt(seconds, 10) == value
		p.Time = time.Unix(seconds, 0).UTC()
	}
	return ok
}
