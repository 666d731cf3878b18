package policy

import (
	"maps"
	"time"
)

// Breaker counts the nodes that were acted on recently and says when they are too many to be true, or too many to take away
// at once. It owns no clock. Every replica counts its own decisions at once and those of the others one scan later, so two
// replicas that hear a storm in different orders may together exceed the limit, but never by more than a factor of two.
type Breaker struct {
	Nodes   int // that many in Window are fine
	Percent int // or that many percent of all nodes, if that is more
	Window  time.Duration

	counted map[string]admission // by node
}

type admission struct {
	at    time.Time
	death string // for which the node was counted
}

// Limit is how many nodes may be acted on within Window when there are total. A share of them, however small, is one node at least.
func (b *Breaker) Limit(total int) int { return max(b.Nodes, total*b.Percent/100, min(b.Percent, 1)) }

// Room reports whether node may be acted on at now. A node that is counted already has its room.
func (b *Breaker) Room(now time.Time, node string, total int) bool {
	b.forgetOld(now)
	_, ok := b.counted[node]
	return ok || len(b.counted) < b.Limit(total)
}

// Count counts a node whatever the limit.
func (b *Breaker) Count(at time.Time, node, death string) {
	if b.counted == nil {
		b.counted = map[string]admission{}
	}
	if was, ok := b.counted[node]; !ok || at.After(was.at) {
		b.counted[node] = admission{at, death}
	}
}

// Forget takes back a node that was counted for death and then turned out to be alive. What was counted for another death
// stays: otherwise a sender of incidents that are refused could drain the breaker from the addresses of dead nodes.
func (b *Breaker) Forget(node, death string) {
	if b.counted[node].death == death {
		delete(b.counted, node)
	}
}

func (b *Breaker) forgetOld(now time.Time) {
	maps.DeleteFunc(b.counted, func(_ string, a admission) bool { return now.Sub(a.at) >= b.Window })
}
