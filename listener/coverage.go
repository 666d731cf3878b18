package listener

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
	"github.com/lastgasp/lastgasp/listener/receive"
)

// Cover says whether a node could be heard dying.
type Cover string

const (
	// Covered: its canary arrived recently and nothing known keeps its panic from being heard.
	Covered Cover = "covered"
	// Mute: its canary arrived, and says that a panic would not be heard.
	Mute Cover = "mute"
	// Silent: its canaries have stopped.
	Silent Cover = "silent"
	// Unproven: a Node of the cluster that has never sent a canary.
	Unproven Cover = "unproven"
	// Stranger: its canary arrived, but its sender is not a Node of the cluster: nothing would be done about its death.
	Stranger Cover = "stranger"
)

const (
	// interval is the time between canaries that do not name it: the configurator's default.
	interval = 10 * time.Minute
	// slack is how late a canary may be: the configurator waits for acks, retries, and spreads canaries over time.
	slack = time.Minute
	// maxCovered and maxStrangers bound the addresses whose canaries are remembered: those of Nodes, and others.
	maxCovered, maxStrangers = 72 << 10, 8 << 10
)

// Coverage remembers the last canary of each address. It is written once per canary and read on request. What other replicas
// have heard is kept apart, see KeepShared.
type Coverage struct {
	mu        sync.Mutex
	byAddr    map[netip.Addr]proof
	others    map[netip.Addr]proof
	strangers int // in byAddr
	swept     time.Time
}

// proof is the last canary of an address.
type proof struct {
	receive.Canary
	sum string // SHA-256 of the secret it came with, empty if none
	// shared says that another replica heard it, which knows what the pin says of it; sharedMute is its Facts.Mute.
	shared     bool
	sharedMute string
}

// mute says why a panic of the node would not be heard, empty if it would be.
func (p proof) mute() string {
	if p.shared {
		return p.sharedMute
	}
	return p.Facts.Mute()
}

// contradicts reports whether p came without the secret that its boot has pinned.
func (p proof) contradicts(pin policy.Pin) bool {
	return !p.shared && pin.Boot != "" && pin.Boot == p.Boot && pin.Sum != p.sum
}

// rank is how far p is to be believed: a stranger's canary least, one with the secret that is known of its boot most.
func (p proof) rank() int {
	switch {
	case p.Verified:
		return 2
	case p.Known:
		return 1
	}
	return 0
}

// silent reports whether three canaries in a row are missing.
func (p proof) silent(now time.Time) bool {
	return now.Sub(p.At) > 3*cmp.Or(p.Interval, interval)+slack
}

// NodeCover is one row of `lastgasp-listener nodes`.
type NodeCover struct {
	Node     string     `json:"node,omitempty"` // Kubernetes name, empty if the sender is no Node of the cluster
	Address  netip.Addr `json:"address"`
	Instance string     `json:"instance,omitempty"`
	Cover    Cover      `json:"cover"`
	Why      string     `json:"why,omitempty"`
	Kernel   string     `json:"kernel,omitempty"`
	Pinned   bool       `json:"pinned,omitempty"` // the Node has pinned the secret of the boot it runs
	Canary   time.Time  `json:"canary,omitzero"`  // arrival of the last one
}

// RosterNode is a Node of the cluster, as far as coverage cares.
type RosterNode struct {
	Name      string
	Addresses []netip.Addr
	Pin       policy.Pin // of the secret that its canaries must carry, see policy.Node.PinOnWire
	Pinned    bool       // it has pinned the secret of the boot it runs, whether or not its kernel can send it
}

// Canary implements receive.Canaries. A repeated record proves nothing new: a second target sends it, or somebody replays
// it. Nor does a canary without a secret from a node whose canaries have one, a stranger's from the address of a Node, or one
// with another secret than the node's.
func (c *Coverage) Canary(canary receive.Canary) (fresh bool) {
	p := proof{Canary: canary, sum: canary.Secret.Sum()}
	p.Secret = "" // only its sum is kept
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byAddr == nil {
		c.byAddr = make(map[netip.Addr]proof)
	}
	old, found := c.byAddr[p.From]
	switch {
	case found && !old.silent(p.At) && (old.sum != "" && p.sum == "" || p.rank() < old.rank()):
		return false
	case found && p.sum != "" && p.sum == old.sum && p.Boot == old.Boot && p.Seq <= old.Seq:
		return false
	case !found && !c.room(p) && !c.sweep(p.At, p):
		return false
	}
	if found && !old.Known {
		c.strangers--
	}
	if !p.Known {
		c.strangers++
	}
	c.byAddr[p.From] = p
	return true
}

// room reports whether there is room for one more address. Strangers never take the room of Nodes.
func (c *Coverage) room(p proof) bool {
	return len(c.byAddr)-c.strangers < maxCovered && p.Known || c.strangers < maxStrangers && !p.Known
}

// sweep makes room for p by forgetting addresses that have long been silent, and reports whether there is any. It runs at
// most once a minute, because it looks at all of them.
func (c *Coverage) sweep(now time.Time, p proof) bool {
	if now.Sub(c.swept) >= time.Minute {
		c.swept = now
		maps.DeleteFunc(c.byAddr, func(_ netip.Addr, old proof) bool {
			if old.silent(now) && !old.Known {
				c.strangers--
			}
			return old.silent(now)
		})
	}
	return c.room(p)
}

// Report joins the canaries with the Nodes that exist. The worst come first, then it sorts by name and address.
func (c *Coverage) Report(now time.Time, roster []RosterNode) []NodeCover {
	rows := c.rows(now, roster)
	order := []Cover{Mute, Silent, Unproven, Stranger, Covered}
	slices.SortFunc(rows, func(a, b NodeCover) int {
		return cmp.Or(
			cmp.Compare(slices.Index(order, a.Cover), slices.Index(order, b.Cover)),
			cmp.Compare(a.Node, b.Node), a.Address.Compare(b.Address))
	})
	return rows
}

// Count is how many nodes there are of each Cover.
func (c *Coverage) Count(now time.Time, roster []RosterNode) map[Cover]int {
	counts := make(map[Cover]int)
	for _, row := range c.rows(now, roster) {
		counts[row.Cover]++
	}
	return counts
}

// merged is what this replica and the others have heard, by address. The reading goroutines wait for the lock, so it is only
// held for a copy.
func (c *Coverage) merged() map[netip.Addr]proof {
	c.mu.Lock()
	byAddr, others := maps.Clone(c.byAddr), c.others // which is replaced as a whole
	c.mu.Unlock()
	if byAddr == nil {
		byAddr = make(map[netip.Addr]proof)
	}
	for addr, p := range others {
		if own, ok := byAddr[addr]; !ok || p.outweighs(own) {
			byAddr[addr] = p
		}
	}
	return byAddr
}

func (c *Coverage) rows(now time.Time, roster []RosterNode) []NodeCover {
	byAddr := c.merged()
	rows := []NodeCover{} // JSON's [], and not null
	named := make(map[netip.Addr]bool)
	for _, n := range roster {
		row := NodeCover{Node: n.Name, Cover: Unproven, Why: "no canary has arrived from it"}
		if len(n.Addresses) > 0 {
			row.Address = n.Addresses[0]
		}
		var best *proof // of its addresses: those that the node sends from no more say nothing of it
		for _, addr := range n.Addresses {
			if p, ok := byAddr[addr]; ok {
				named[addr] = true
				if best == nil || p.outweighs(*best) {
					best = &p
				}
			}
		}
		if best != nil {
			row = best.row(now)
			row.Node = n.Name
			if best.contradicts(n.Pin) {
				row.Cover, row.Why = Unproven, "its last canary did not carry the secret that the node has pinned; somebody else may have sent it"
			}
		}
		row.Pinned = n.Pinned
		rows = append(rows, row)
	}
	for addr, p := range byAddr {
		gone := len(roster) > 0 && p.silent(now) // its Node was deleted, or it was a stranger
		if !named[addr] && !gone {
			rows = append(rows, p.row(now))
		}
	}
	return rows
}

func (p proof) row(now time.Time) NodeCover {
	row := NodeCover{
		Address: p.From, Instance: p.Instance, Kernel: p.Facts.Kernel, Cover: Covered, Canary: p.At,
	}
	if !p.Known {
		row.Cover, row.Why = Stranger, "no Node of the cluster has this address and instance"
	}
	if why := p.mute(); why != "" {
		row.Cover, row.Why = Mute, why
	}
	if p.silent(now) {
		row.Cover, row.Why = Silent, "its last canary came "+now.Sub(p.At).Round(time.Minute).String()+" ago"
	}
	return row
}
