package policy

import "github.com/lastgasp/lastgasp/listener/detect"

// Never is the Policy.ActAt that makes every authority wait for the witness.
const Never = detect.Pinned + 1

// Authority is how far inc may be believed about n. An incident carries Text, Cloud or Kernel, what it proves by itself.
// Sum is the SHA-256 of the secret that came with it, empty if there was none.
func Authority(inc detect.Incident, sum string, n Node) detect.Authority {
	boot := inc.Identity.Boot
	switch {
	case inc.Authority != detect.Kernel || boot == "" || boot != n.BootID:
		return inc.Authority
	// The node's own word about its secret outweighs a canary's: where there is a pin, a claim says nothing.
	case n.Pin.Boot == boot && sum != "" && sum == n.Pin.Sum:
		return detect.Pinned
	case n.Pin.Boot == boot:
		return detect.Kernel
	case n.Claim.Boot == boot && sum != "" && sum == n.Claim.Sum:
		return detect.Claimed
	case n.Claim.Boot == boot:
		return detect.Kernel
	}
	// Where the boot's secret is known and the sender does not know it, the boot id, which any pod can read, proves
	// nothing. Leaving the secret out must not be a way around the pin.
	return detect.Boot
}
