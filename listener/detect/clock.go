package detect

import (
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	// disorder bounds how far uptimes go back within a boot: records that waited for their fragments arrive up to
	// netconsole.WireTimeout late, and the clocks of CPUs differ.
	disorder = 2 * netconsole.WireTimeout
	// pause is a gap between arrivals after which no late record arrives. No machine boots in less.
	pause = netconsole.WireTimeout * 3 / 2
)

// A clock is how far a kernel's log has got.
type clock struct {
	seq    uint64
	uptime time.Duration
	at     time.Time // of the last record
	known  bool
}

// behind reports whether the record is from a later boot: its sequence number and uptime have gone back further than
// datagrams overtake each other.
func (c *clock) behind(now time.Time, r *netconsole.Record) bool {
	if !c.known || r.Uptime < 0 || r.Uptime >= c.uptime || r.Extended && r.Seq >= c.seq {
		return false
	}
	return c.uptime-r.Uptime > disorder || c.paused(now)
}

// paused reports whether the last record arrived some time ago.
func (c *clock) paused(now time.Time) bool { return c.known && now.Sub(c.at) > pause }

// set takes the record's time. Late records do not turn it back.
func (c *clock) set(now time.Time, r *netconsole.Record) {
	c.at = now
	if r.Uptime >= 0 {
		c.known = true
		c.seq, c.uptime = max(c.seq, r.Seq), max(c.uptime, r.Uptime)
	}
}
