package cleanup

import "github.com/lastgasp/lastgasp/listener/detect"

// Authority is how far inc may be believed about n. An incident carries Text or Kernel, what its records prove by
// themselves; anything above was established before, by this function, and was read back from a Record.
func Authority(inc detect.Incident, n Node) detect.Authority {
	id := inc.Identity
	switch {
	case inc.Authority != detect.Kernel:
		return inc.Authority
	case id.Boot == "" || id.Boot != n.BootID:
		return detect.Kernel
	case n.Pin.Boot != id.Boot:
		return detect.Boot
	case id.Secret != "" && id.Secret.Sum() == n.Pin.Sum:
		return detect.Pinned
	}
	// The boot is pinned and this sender does not know its secret. The boot id, which any pod can read, then proves less
	// than nothing: leaving the secret out must not be a way around the pin.
	return detect.Kernel
}
