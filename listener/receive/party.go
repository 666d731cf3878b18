package receive

import (
	"crypto/subtle"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	// quotaBurst datagrams of one source, or of one node, are taken at once, and quotaPerSecond from then on. A panic is some
	// 140 within milliseconds, but in a lockup all of 400 CPUs may print a backtrace before the line that says panic.
	quotaBurst     = 32768
	quotaPerSecond = 1024
	// youngFor is how long a new source also counts against the quota of its address: it may be a port that was made up.
	youngFor = time.Minute

	// acksBurst canaries of one source or node are answered at once, and acksPerSecond from then on; the made-up ports of
	// an address share strangerAcksBurst and strangerAcksPerSecond. No ack is longer than its canary: it is not amplified.
	acksBurst, acksPerSecond                 = 5, 1
	strangerAcksBurst, strangerAcksPerSecond = 512, 128
	// signaturesPerSecond bounds, for one shard, the acks that are signed for senders that are not Nodes: each takes 30 µs.
	signaturesPerSecond = 500

	// offersBurst incidents of one party are handed over at once, and offersPerSecond from then on. One death is two.
	offersBurst, offersPerSecond = 32, 1

	// maxPerBoot bounds the secrets that are known of one boot: root on a node may pin one after the other, for whatever boot.
	maxPerBoot = 4
	// checkAfter is how soon the pin of a node is looked up again, and pinGrace how long it still counts after it is gone: the
	// Node may be deleted while its kernel is still printing its trace.
	checkAfter, pinGrace = time.Second, time.Minute
)

// party is what shares a quota: one node, or the strangers of one address.
type party struct {
	sources []*source
	quota   bucket
	acks    bucket
	offers  bucket
	parts   bucket              // of obituaries
	kept    int                 // bytes of log, as the table has booked them
	lossy   time.Time           // until then one of its datagrams may be missing, dropped over quota
	waiting [classes][]*waiting // in the hand-over
	waits   lane                // where they wait

	node *node // nil: strangers
}

// node is a boot whose secret the cluster knows.
type node struct {
	boot      string
	secret    []byte
	sum       string    // of the secret, as Pins has it
	checked   time.Time // when Pins was asked last
	confirmed time.Time // when Pins agreed last
}

func (p *party) lane() lane {
	if p.node != nil {
		return verified
	}
	return strangers
}

func (p *party) maxSources() int {
	if p.node != nil {
		return maxPerNode
	}
	return maxPerAddress
}

// proves reports, in constant time, whether that is the node's secret.
func (n *node) proves(secret []byte) bool { return subtle.ConstantTimeCompare(n.secret, secret) == 1 }

// verify returns the party of the node that a datagram with that boot and secret comes from, nil if it proves nothing. The
// secret of a node is hashed once.
func (t *table) verify(now time.Time, boot, secret []byte) *party {
	for i := 0; i < len(t.nodes[string(boot)]); {
		p := t.nodes[string(boot)][i]
		switch proves := p.node.proves(secret); {
		case !t.current(now, p.node):
			t.drop(p)
		case proves:
			return p
		default:
			i++
		}
	}
	n := &node{boot: string(boot), secret: append([]byte(nil), secret...), checked: now, confirmed: now}
	n.sum = netconsole.Secret(secret).Sum()
	if !t.pins.Pinned(n.boot, n.sum) {
		return nil
	}
	if known := t.nodes[n.boot]; len(known) >= maxPerBoot {
		gone := slices.IndexFunc(known, func(p *party) bool { return !t.pins.Pinned(n.boot, p.node.sum) })
		t.drop(known[max(gone, 0)])
	}
	p := &party{node: n}
	t.nodes[n.boot] = append(t.nodes[n.boot], p)
	return p
}

// refusal is a wrong secret that a stranger sent, so that it need not be looked up for each of its datagrams.
type refusal struct {
	boot   string
	secret []byte
	at     time.Time
}

// stands reports whether it is too early to look that secret up again.
func (r *refusal) stands(now time.Time, boot, secret []byte) bool {
	return now.Sub(r.at) < checkAfter && r.boot == string(boot) && subtle.ConstantTimeCompare(r.secret, secret) == 1
}

// note remembers a secret that was refused, unless another one was a moment ago: then the sender changes it all the time.
func (r *refusal) note(now time.Time, boot, secret []byte) {
	if now.Sub(r.at) >= checkAfter {
		*r = refusal{string(boot), append(r.secret[:0], secret...), now}
	}
}

// current reports whether the cluster still knows the node's secret, or did so a moment ago.
func (t *table) current(now time.Time, n *node) bool {
	if now.Sub(n.checked) >= checkAfter {
		n.checked = now
		if t.pins.Pinned(n.boot, n.sum) {
			n.confirmed = now
		}
	}
	return now.Sub(n.confirmed) < pinGrace
}

// drop forgets a node, because the cluster no longer knows its secret, or too many of its boot. Its sources go when they are idle.
func (t *table) drop(p *party) {
	boot := p.node.boot
	t.nodes[boot] = slices.DeleteFunc(t.nodes[boot], func(other *party) bool { return other == p })
	if len(t.nodes[boot]) == 0 {
		delete(t.nodes, boot)
	}
}
