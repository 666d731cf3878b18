package endpoint

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// Choose picks the n endpoints that node sends to, best first: by priority, then those in the node's own zone (if that zone
// fails, so does the node), then by rendezvous hashing. Hashing spreads a fleet evenly, and a changed list moves only the
// nodes whose own endpoint went away or lost to a new one. An endpoint that is listed twice counts once.
//
// silent reports whether a listener failed to acknowledge recently; nil means that none failed. The next best of the list
// replaces it, and a silent one is picked only if the list has no other. The caller decides what "recently" is, and must forget
// silence after some time: a listener that is not picked gets no canary, so it has no other chance. Nodes whose listeners
// answer stay where they are.
func Choose(list []Endpoint, n int, zone, node string, silent func(Endpoint) bool) []Endpoint {
	ranked := slices.Clone(list)
	slices.SortStableFunc(ranked, func(a, b Endpoint) int {
		return cmp.Or(
			cmp.Compare(a.Priority, b.Priority),
			cmp.Compare(abroad(a, zone), abroad(b, zone)),
			cmp.Compare(weight(b, node), weight(a, node)),
			cmp.Compare(a.String(), b.String()),
		)
	})
	seen := make(map[string]bool)
	ranked = slices.DeleteFunc(ranked, func(e Endpoint) bool {
		twice := seen[e.String()]
		seen[e.String()] = true
		return twice
	})
	if silent != nil {
		slices.SortStableFunc(ranked, func(a, b Endpoint) int {
			switch sa, sb := silent(a), silent(b); {
			case sa == sb:
				return 0
			case sb:
				return -1
			}
			return 1
		})
	}
	return ranked[:min(n, len(ranked))]
}

func abroad(e Endpoint, zone string) int {
	if zone != "" && e.Zone == zone {
		return 0
	}
	return 1
}

// weight returns the rendezvous weight of e for node. It must never change, or nodes would move at an upgrade.
func weight(e Endpoint, node string) uint64 {
	sum := sha256.Sum256([]byte(node + "\x00" + e.String()))
	return binary.BigEndian.Uint64(sum[:])
}
