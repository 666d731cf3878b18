package endpoint

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// Choose picks the n endpoints that node shall send to, best first: by priority, then those of the node's own zone (whose
// failure takes the node with it anyway), then by rendezvous hashing. Hashing spreads a fleet evenly, and a changed list
// moves only the nodes whose own endpoint went away or lost to the new one. An endpoint that is listed twice counts once.
//
// silent reports that a listener did not acknowledge lately; nil means that none did not. The next best of the list takes
// its place, and a silent one is picked only where the list has nobody else. What is "lately" is for the caller to decide,
// by no more than a few canary intervals: a listener that is not picked is sent no canary, so that only forgetting its
// silence gives it another trial. All others stay where they are, for as long as they answer.
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

// weight is the rendezvous weight of e for node: the same everywhere, for good, or nodes would move at an upgrade.
func weight(e Endpoint, node string) uint64 {
	sum := sha256.Sum256([]byte(node + "\x00" + e.String()))
	return binary.BigEndian.Uint64(sum[:])
}
