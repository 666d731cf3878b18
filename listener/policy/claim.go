package policy

import (
	"fmt"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// Claiming is what to do about a canary.
type Claiming string

const (
	ClaimWrite   Claiming = "claimed"
	ClaimKnown   Claiming = "known"    // pinned or claimed already
	ClaimWaits   Claiming = "waiting"  // for the Node to report the canary's boot
	ClaimRefused Claiming = "refused"  // the boot has another secret, or cannot have one
	ClaimGivenUp Claiming = "given up" // it waited too long
)

// ClaimFor judges the canary id of Node n. The first canary of a boot claims it, where the node has not pinned the boot
// itself, and that boot has to be the one that the Node's kubelet reports: otherwise an invented boot could replace the
// claim of the real one. A claim lasts as long as its boot.
func ClaimFor(n Node, id netconsole.Identity) Claiming {
	for _, known := range []Pin{n.Pin, n.Claim} {
		switch {
		case id.Boot == "" || id.Secret == "":
			return ClaimRefused
		case known.Boot == id.Boot && known.Sum == id.Secret.Sum():
			return ClaimKnown
		case known.Boot == id.Boot:
			return ClaimRefused
		}
	}
	switch {
	case n.BootID != id.Boot:
		return ClaimWaits
	case !hasUserdata(n.Kernel):
		return ClaimRefused // this kernel sends no secret, so the canary is somebody else's
	}
	return ClaimWrite
}

// hasUserdata reports whether netconsole of that release can carry a secret, which it can since Linux 6.9
// (Documentation/networking/netconsole.rst). A release that cannot be read is taken to be new enough. Where a distribution
// has backported userdata, incidents wait for a witness unless the node pins its secret itself.
func hasUserdata(release string) bool {
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n < 2 {
		return true
	}
	return major > 6 || major == 6 && minor >= 9
}
