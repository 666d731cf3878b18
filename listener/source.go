package listener

import (
	"net/netip"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	// quotaBurst datagrams of one source are taken at once, and quotaPerSecond from then on. A panic is some 140 within
	// milliseconds, but a lockup may have all of 400 CPUs print a backtrace before the line that says panic.
	quotaBurst     = 32768
	quotaPerSecond = 1024
	// acksBurst canaries of one address are answered at once, and acksPerSecond from then on.
	acksBurst     = 5
	acksPerSecond = 1
	// maxClaims bounds the boots of one source whose canaries are remembered: two, and whoever forges some.
	maxClaims = 4
)

// source is one sender: a kernel's netconsole target, or whoever else sends datagrams.
type source struct {
	addr   netip.AddrPort
	host   *host
	stream netconsole.Stream
	judge  *detect.Source
	seen   time.Time
	quota  bucket
	acks   bucket  // of a proven one; the strangers of an address share one
	kept   int     // bytes of log, as the table has booked them
	proven bool    // sent a canary that was answered
	dying  bool    // the alarm was given, the complete incident is still to come
	claims []claim // newest last

	waiting int      // incidents in the hand-over
	newest  *waiting // the last of them

	before, behind *source // in its queue of the table

	due   time.Time // zero: not in the heap
	index int       // in the heap
}

// ackBucket limits the answers to this source. Strangers of an address share one: a source port is made up in no time.
func (src *source) ackBucket() *bucket {
	if src.proven {
		return &src.acks
	}
	return &src.host.acks
}

// claim is what the canary of one boot says its kernel does after an oops. It counts for records that prove the same
// identity: else anybody who shares the node's address could have an oops that is survived taken for a death.
type claim struct {
	boot               string
	gasp               netconsole.Secret
	seq                uint64
	panicOnOops, kdump bool
}

// claim takes over what a canary says, unless it is older than what is known.
func (src *source) claim(c claim) {
	at := slices.IndexFunc(src.claims, func(old claim) bool { return old.boot == c.boot && old.gasp == c.gasp })
	switch {
	case at >= 0 && c.seq < src.claims[at].seq:
		return
	case at >= 0:
		src.claims = slices.Delete(src.claims, at, at+1)
	case len(src.claims) == maxClaims:
		src.claims = slices.Delete(src.claims, 0, 1)
	}
	src.claims = append(src.claims, c)
}

// fatal is what an oops means in a record of that identity. A record that lost what tells its identity is taken for one
// of the kernel that was heard last and could prove who it is.
func (src *source) fatal(r *netconsole.Record, fallback bool) (panicOnOops, kdump bool) {
	id := r.Identity()
	lost := r.Missing > 0 && id.Boot == "" && id.Secret == ""
	for i := len(src.claims) - 1; i >= 0; i-- {
		c := &src.claims[i]
		if c.boot == id.Boot && c.gasp == id.Secret || lost && c.gasp != "" {
			return c.panicOnOops, c.kdump
		}
	}
	return fallback, false
}
