package receive

import (
	"net/netip"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// maxFacts bounds the boots of one source whose canaries are remembered: two, and two that may be forged.
const maxFacts = 4

// source is what one party sends from one address and port: a kernel's netconsole target, or whoever else sends datagrams.
type source struct {
	addr    netip.AddrPort
	party   *party
	sibling *source // of another party, with the same address and port
	stream  netconsole.Stream
	judge   *detect.Source
	first   time.Time // heard
	last    time.Time // heard
	quota   bucket
	acks    bucket
	kept    int             // bytes of log, as the table has booked them
	proven  bool            // verified, or a stranger that sent a canary that was answered
	dying   bool            // the alarm was given, the complete incident is still to come
	facts   []fact          // newest last
	refusal refusal         // of a stranger
	seal    netconsole.Seal // of a node

	waiting int      // incidents in the hand-over
	newest  *waiting // the last of them

	before, behind *source // in its queue of the table

	due   time.Time // zero: not in the heap
	index int       // in the heap
}

// fact is what the canary of one boot says its kernel does after an oops. It counts for records that prove the same
// identity: otherwise anybody who shares the node's address could pass off a survived oops as a death.
type fact struct {
	boot               string
	secret             netconsole.Secret
	seq                uint64
	panicOnOops, kdump bool
}

// learn remembers what a canary says, unless a newer one of its boot is known.
func (src *source) learn(f fact) {
	at := slices.IndexFunc(src.facts, func(old fact) bool { return old.boot == f.boot && old.secret == f.secret })
	switch {
	case at >= 0 && f.seq < src.facts[at].seq:
		return
	case at >= 0:
		src.facts = slices.Delete(src.facts, at, at+1)
	case len(src.facts) == maxFacts:
		src.facts = slices.Delete(src.facts, 0, 1)
	}
	src.facts = append(src.facts, f)
}

// fatal is what an oops in a record of that identity leads to. A record that lost its identity is taken for one of the
// kernel that last proved its own.
func (src *source) fatal(r *netconsole.Record) (panicOnOops, kdump bool) {
	id := r.Identity()
	lost := r.Missing > 0 && id.Boot == "" && id.Secret == ""
	for i := len(src.facts) - 1; i >= 0; i-- {
		f := &src.facts[i]
		if f.boot == id.Boot && f.secret == id.Secret || lost && f.secret != "" {
			return f.panicOnOops, f.kdump
		}
	}
	return false, false
}

func (src *source) busy() bool { return !src.due.IsZero() }

// idle reports whether the source has been silent for long and has nothing in hand.
func (src *source) idle(now time.Time) bool {
	after := idleAfter
	if src.proven {
		after = provenIdleAfter
	}
	return !src.busy() && now.Sub(src.last) >= after
}

// young reports whether the source may be a port that was made up just now.
func (src *source) young(now time.Time) bool { return now.Sub(src.first) < youngFor }
