package listener

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// Cover says whether a node could be heard dying.
type Cover string

const (
	// Covered: its canary arrived lately and nothing known keeps its panic from being heard.
	Covered Cover = "covered"
	// Mute: its canary arrived, and says that a panic would not be heard.
	Mute Cover = "mute"
	// Silent: its canaries have stopped.
	Silent Cover = "silent"
	// Unproven: a Node of the cluster that never sent one.
	Unproven Cover = "unproven"
)

const (
	// interval is the time between canaries that do not say it: the configurator's default.
	interval = 10 * time.Minute
	// slack is by how much a canary may be late: it waits for an answer, tries again, and is spread over time.
	slack = time.Minute
)

// Coverage is the book of canaries. It is written once a canary and read when somebody asks.
type Coverage struct {
	mu     sync.Mutex
	byAddr map[netip.Addr]heard
	swept  time.Time
}

// heard is the last canary of an address.
type heard struct {
	at     time.Time
	canary netconsole.Canary
	seq    uint64 // of its record
	gasp   string // SHA-256 of the secret it came with, empty if none
}

// silent reports whether three canaries in a row are missing.
func (h heard) silent(now time.Time) bool {
	return now.Sub(h.at) > 3*cmp.Or(h.canary.Interval, interval)+slack
}

// NodeCover is one row of `lastgasp-listener nodes`.
type NodeCover struct {
	Node     string     `json:"node,omitempty"` // Kubernetes name, empty if the sender is no Node of the cluster
	Address  netip.Addr `json:"address"`
	Instance string     `json:"instance,omitempty"`
	Cover    Cover      `json:"cover"`
	Why      string     `json:"why,omitempty"`
	Kernel   string     `json:"kernel,omitempty"`
	Canary   time.Time  `json:"canary,omitzero"` // arrival of the last one
}

// RosterNode is a Node of the cluster, as far as coverage cares.
type RosterNode struct {
	Name      string
	Addresses []netip.Addr
}

// heard books a canary that arrived at now. It is false if it proves nothing new: a second target of the node sends the
// same record, and so does whoever replays it; and a canary without a gasp is no word from a node whose canaries have one.
func (c *Coverage) heard(now time.Time, from netip.Addr, h heard) (fresh bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byAddr == nil {
		c.byAddr = make(map[netip.Addr]heard)
	}
	old, known := c.byAddr[from]
	switch {
	case known && old.gasp != "" && h.gasp == "" && !old.silent(now):
		return false
	case known && h.gasp != "" && h.gasp == old.gasp && h.canary.Boot == old.canary.Boot && h.seq <= old.seq:
		return false
	case !known && len(c.byAddr) >= maxSources && !c.sweep(now):
		return false
	}
	h.at = now
	c.byAddr[from] = h
	return true
}

// sweep makes room by forgetting who is long silent, and reports whether there is any. It looks no more than once a
// minute: it has to look at everybody.
func (c *Coverage) sweep(now time.Time) bool {
	if now.Sub(c.swept) >= time.Minute {
		c.swept = now
		maps.DeleteFunc(c.byAddr, func(_ netip.Addr, old heard) bool { return old.silent(now) })
	}
	return len(c.byAddr) < maxSources
}

// Report joins the canaries with the Nodes that exist, worst first, then by name and address.
func (c *Coverage) Report(now time.Time, roster []RosterNode) []NodeCover {
	rows := c.rows(now, roster)
	order := []Cover{Mute, Silent, Unproven, Covered}
	slices.SortFunc(rows, func(a, b NodeCover) int {
		return cmp.Or(
			cmp.Compare(slices.Index(order, a.Cover), slices.Index(order, b.Cover)),
			cmp.Compare(a.Node, b.Node), a.Address.Compare(b.Address))
	})
	return rows
}

// Count tells how many nodes there are of each Cover.
func (c *Coverage) Count(now time.Time, roster []RosterNode) map[Cover]int {
	counts := make(map[Cover]int)
	for _, row := range c.rows(now, roster) {
		counts[row.Cover]++
	}
	return counts
}

// rows are the rows of Report. The reading goroutines wait for the lock, so that it is held for a copy only.
func (c *Coverage) rows(now time.Time, roster []RosterNode) []NodeCover {
	c.mu.Lock()
	byAddr := maps.Clone(c.byAddr)
	c.mu.Unlock()
	var rows []NodeCover
	named := make(map[netip.Addr]bool)
	for _, n := range roster {
		row := NodeCover{Node: n.Name, Cover: Unproven, Why: "no canary ever arrived from it"}
		if len(n.Addresses) > 0 {
			row.Address = n.Addresses[0]
		}
		for _, addr := range n.Addresses {
			if l, ok := byAddr[addr]; ok {
				named[addr] = true
				row = l.row(now, addr)
				row.Node = n.Name
			}
		}
		rows = append(rows, row)
	}
	for addr, l := range byAddr {
		if !named[addr] {
			rows = append(rows, l.row(now, addr))
		}
	}
	return rows
}

func (l heard) row(now time.Time, addr netip.Addr) NodeCover {
	row := NodeCover{
		Address: addr, Instance: l.canary.Instance, Kernel: l.canary.Facts.Kernel,
		Cover: Covered, Canary: l.at,
	}
	if why := l.canary.Facts.Mute(); why != "" {
		row.Cover, row.Why = Mute, why
	}
	if l.silent(now) {
		row.Cover, row.Why = Silent, "its last canary came "+now.Sub(l.at).Round(time.Minute).String()+" ago"
	}
	return row
}
