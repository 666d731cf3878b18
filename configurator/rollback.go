package configurator

import (
	"cmp"
	"slices"

	"github.com/lastgasp/lastgasp/configurator/canary"
	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/machine"
)

// rollback returns the targets to remove after a pass that could not prove everything it wanted. It is pure.
//
// Old targets stay, and a new target that was not acknowledged is removed again. There are two exceptions, because no
// coverage is worse than doubtful coverage. A new target stays if it was not meant to replace anything. And if it differs from
// an old one only in the way to the same listener, both stay: its next hop has just answered on the wire, but the old way may
// still work. Of several such old targets only the one acknowledged last stays.
func rollback(p Plan, proofs []canary.Proof, before *machine.State) []configfs.State {
	proved := make(map[string]bool)
	for _, proof := range proofs {
		proved[proof.Target] = proof.Acked
	}
	olds := slices.Clone(p.Drop)
	slices.SortStableFunc(olds, func(a, b configfs.State) int {
		return cmp.Or(cmp.Compare(before.LastAck(b.Name), before.LastAck(a.Name)), cmp.Compare(a.Name, b.Name))
	})
	var drop []configfs.State
	for _, spec := range p.Arm {
		same := slices.DeleteFunc(slices.Clone(olds), func(st configfs.State) bool { return st.Remote() != spec.Remote() })
		switch {
		case proved[spec.Name]:
			drop = append(drop, same...)
		case len(same) > 0:
			drop = append(drop, same[1:]...)
		case len(olds) > 0:
			drop = append(drop, configfs.State{Spec: spec})
		}
	}
	return drop
}
