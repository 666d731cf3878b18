// Package cloud makes the parts of AWS that a node and a listener meet, in the lab's namespaces: an instance's metadata
// service, Systems Manager and EC2 by moto, roots of Debian to run programs of another release in, and instances that
// boot such a root as a whole.
package cloud

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/lastgasp/lastgasp/e2e/cloud/imds"
	"github.com/lastgasp/lastgasp/e2e/lab"
)

// MetadataAddr is where instances find their metadata.
var MetadataAddr = netip.MustParseAddrPort("169.254.169.254:80")

// ServeIMDS makes svc answer at MetadataAddr in ns until s ends. Whatever uses ns as its router reaches it.
func ServeIMDS(s lab.Scope, ns *lab.NS, svc *imds.Service) error {
	var ln net.Listener
	err := ns.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		addr := &net.IPNet{IP: MetadataAddr.Addr().AsSlice(), Mask: net.CIDRMask(32, 32)}
		if err := netlink.AddrReplace(lo, &netlink.Addr{IPNet: addr}); err != nil {
			return err
		}
		ln, err = net.Listen("tcp", MetadataAddr.String())
		return err
	})
	if err != nil {
		return fmt.Errorf("serve instance metadata in %s: %w", ns.Name, err)
	}
	served := make(chan error)
	go func() { served <- svc.Serve(ln) }()
	s.Cleanup(func() {
		ln.Close()
		if err := <-served; err != nil {
			s.Logf("%v", err)
		}
	})
	return nil
}
