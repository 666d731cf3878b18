package endpoint

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// Choose picks the n endpoints that node shall gasp to, best first: by priority, then those of the node's own zone
// (whose failure takes the node with it anyway), then by rendezvous hashing. Hashing spreads a fleet evenly, and a
// changed list moves only the nodes whose own endpoint went away or lost to the new one. An endpoint that is listed
// twice counts once.
func Choose(list []Endpoint, n int, zone, node string) []Endpoint {
	chosen := slices.Clone(list)
	slices.SortStableFunc(chosen, func(a, b Endpoint) int {
		return cmp.Or(
			cmp.Compare(a.Priority, b.Priority),
			cmp.Compare(abroad(a, zone), abroad(b, zone)),
			cmp.Compare(weight(b, node), weight(a, node)),
			cmp.Compare(a.String(), b.String()),
		)
	})
	seen := make(map[string]bool)
	chosen = slices.DeleteFunc(chosen, func(e Endpoint) bool {
		twice := seen[e.String()]
		seen[e.String()] = true
		return twice
	})
	return chosen[:min(n, len(chosen))]
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
