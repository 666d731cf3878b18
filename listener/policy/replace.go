package policy

import (
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// GivesWay reports whether d, which is on record, is deleted so that o, another death of the same boot, can take its name:
//
//   - A refused one gives way, unless o is what was refused: every replica hears it.
//   - One on which nothing was decided, or that is only recorded, gives way to what was known on more authority while the node was dead.
//   - One that is only recorded gives way to what the node says afterwards, if it has pinned its secret. Where d is somebody's word on
//     a claim, who may have been faster than the node and made it up, any word of the node will do. What was known while the node was
//     dead gives way only to the kernel's own words, if they tell of another death.
//
// A death that was acted on stays.
func (d Death) GivesWay(o Death) bool {
	weaker := d.Authority < o.Authority
	switch {
	case d.Phase == Refused:
		// Stored times are rounded. The clock of who refused it may be ahead of ours.
		return weaker || o.Best() != d.Best() || o.Time.Sub(d.Time).Abs() > time.Second
	case !weaker || !slices.Contains([]Phase{"", Pending, Held, Recorded}, d.Phase):
		return false
	case o.Known() == KnownLive:
		return true
	case o.Authority != detect.Pinned || d.Phase != Recorded:
		return false
	case d.OnlyRecorded():
		return d.Authority == detect.Claimed
	}
	return (o.Best() == ByPstore || o.Best() == ByKdump) && o.Fingerprint != d.Fingerprint
}

// Inherit adds to d what was known while the node was dead of the recorded death whose name d takes.
func (d *Death) Inherit(before Death) {
	var live []Evidence
	for _, e := range before.Evidence {
		if before.Phase == Recorded && (e == ByNetconsole || e == ByConsole) {
			live = append(live, e)
		}
	}
	d.Evidence = AddEvidence(live, d.Evidence)
}
