package cloud

import (
	"cmp"
	"slices"
)

// outcome is what a look at the list led to.
type outcome int

const (
	present    outcome = iota + 1 // it is in the list
	superseded                    // another one has its place
	written                       // it has been put there just now
)

// place puts mine into its zone's place in list: instead of whoever is there if it takes over, else only if nobody is.
// Others' places are left as they are. It is pure.
func place(list []entry, mine entry, takeOver bool) ([]entry, outcome) {
	sameZone := func(e entry) bool { return e.Zone == mine.Zone }
	switch {
	case slices.Contains(list, mine):
		return list, present
	case slices.ContainsFunc(list, sameZone) && !takeOver:
		return list, superseded
	}
	list = slices.DeleteFunc(slices.Clone(list), func(e entry) bool { return sameZone(e) || e.Address == mine.Address })
	list = append(list, mine)
	slices.SortStableFunc(list, func(a, b entry) int { return cmp.Compare(a.Zone, b.Zone) })
	return list, written
}
