package listener

import (
	"cmp"
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

// silentAfter is three canary intervals of the default configuration.
const silentAfter = 30 * time.Minute

// Coverage is the book of canaries. It is written once a canary and read when somebody asks.
type Coverage struct {
	mu     sync.Mutex
	byAddr map[netip.Addr]lastCanary
}

type lastCanary struct {
	at     time.Time
	canary netconsole.Canary
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

func (c *Coverage) heard(now time.Time, from netip.Addr, canary netconsole.Canary) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byAddr == nil {
		c.byAddr = make(map[netip.Addr]lastCanary)
	}
	if _, known := c.byAddr[from]; !known && len(c.byAddr) >= maxSources {
		for addr, l := range c.byAddr {
			if now.Sub(l.at) > silentAfter {
				delete(c.byAddr, addr)
			}
		}
		if len(c.byAddr) >= maxSources {
			return
		}
	}
	c.byAddr[from] = lastCanary{at: now, canary: canary}
}

// Report joins the canaries with the Nodes that exist, worst first, then by name and address.
func (c *Coverage) Report(now time.Time, roster []RosterNode) []NodeCover {
	c.mu.Lock()
	defer c.mu.Unlock()
	var rows []NodeCover
	named := make(map[netip.Addr]bool)
	for _, n := range roster {
		row := NodeCover{Node: n.Name, Cover: Unproven, Why: "no canary ever arrived from it"}
		if len(n.Addresses) > 0 {
			row.Address = n.Addresses[0]
		}
		for _, addr := range n.Addresses {
			if l, ok := c.byAddr[addr]; ok {
				named[addr] = true
				row = l.row(now, addr)
				row.Node = n.Name
			}
		}
		rows = append(rows, row)
	}
	for addr, l := range c.byAddr {
		if !named[addr] {
			rows = append(rows, l.row(now, addr))
		}
	}
	order := []Cover{Mute, Silent, Unproven, Covered}
	slices.SortFunc(rows, func(a, b NodeCover) int {
		return cmp.Or(
			cmp.Compare(slices.Index(order, a.Cover), slices.Index(order, b.Cover)),
			cmp.Compare(a.Node, b.Node), a.Address.Compare(b.Address))
	})
	return rows
}

func (l lastCanary) row(now time.Time, addr netip.Addr) NodeCover {
	row := NodeCover{
		Address: addr, Instance: l.canary.Instance, Kernel: l.canary.Facts.Kernel,
		Cover: Covered, Canary: l.at,
	}
	if why := l.canary.Facts.Mute(); why != "" {
		row.Cover, row.Why = Mute, why
	}
	if age := now.Sub(l.at); age > silentAfter {
		row.Cover, row.Why = Silent, "its last canary came "+age.Round(time.Minute).String()+" ago"
	}
	return row
}
