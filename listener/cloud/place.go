package cloud

import (
	"cmp"
	"slices"
)

// outcome is the result of one turn of announcing.
type outcome int

const (
	present    outcome = iota + 1 // our entry is in the list
	superseded                    // another listener has our zone's entry
	written                       // our entry was written
)

// place puts own into list as its zone's entry. It replaces the zone's entry only if takeOver is set, and leaves the entries
// of other zones as they are. It is pure.
func place(list []entry, own entry, takeOver bool) ([]entry, outcome) {
	sameZone := func(e entry) bool { return e.Zone == own.Zone }
	switch {
	case slices.Contains(list, own):
		return list, present
	case slices.ContainsFunc(list, sameZone) && !takeOver:
		return list, superseded
	}
	list = slices.DeleteFunc(slices.Clone(list), func(e entry) bool { return sameZone(e) || e.Address == own.Address })
	list = append(list, own)
	slices.SortStableFunc(list, func(a, b entry) int { return cmp.Compare(a.Zone, b.Zone) })
	return list, written
}
