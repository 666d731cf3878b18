package cleanup

import (
	"maps"
	"time"
)

// Breaker counts the nodes that were cleaned up lately and says when that is too many to be true, or too many to take
// away at once. It owns no clock. Every replica counts what it hears itself and, a scan later, what the records of the
// others say: two that hear a storm in different orders may between them let through more than the limit, but never more
// than twice as many.
type Breaker struct {
	Nodes   int // that many in Window are fine
	Percent int // or that many percent of all nodes, if that is more
	Window  time.Duration

	deaths map[string]admission // by node
}

type admission struct {
	at     time.Time
	record string // of the death it was counted for
}

// Limit is how many nodes may be cleaned up within Window when there are total.
func (b *Breaker) Limit(total int) int { return max(b.Nodes, total*b.Percent/100) }

// Admit reports whether node may be cleaned up at now, and counts it for record if so. A node counts once, also if asked
// again; counted tells whether it was now.
func (b *Breaker) Admit(now time.Time, node, record string, total int) (admitted, counted bool) {
	b.forgetOld(now)
	if _, ok := b.deaths[node]; ok {
		return true, false
	}
	if len(b.deaths) >= b.Limit(total) {
		return false, false
	}
	b.Count(now, node, record)
	return true, true
}

// Room reports whether Admit would admit one more node.
func (b *Breaker) Room(now time.Time, total int) bool {
	b.forgetOld(now)
	return len(b.deaths) < b.Limit(total)
}

// Count counts a node whatever the limit: another replica, or a human, admitted it at that time.
func (b *Breaker) Count(at time.Time, node, record string) {
	if b.deaths == nil {
		b.deaths = map[string]admission{}
	}
	if was, ok := b.deaths[node]; !ok || at.After(was.at) {
		b.deaths[node] = admission{at, record}
	}
}

// Forget takes back a node that was admitted for record and then turned out to live. What was counted for another
// record stays: else whoever sends refused gasps from dead nodes' addresses would drain the breaker.
func (b *Breaker) Forget(node, record string) {
	if b.deaths[node].record == record {
		delete(b.deaths, node)
	}
}

func (b *Breaker) forgetOld(now time.Time) {
	maps.DeleteFunc(b.deaths, func(_ string, a admission) bool { return now.Sub(a.at) >= b.Window })
}
