package ec2

import (
	"net"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/e2e/cloud/imds"
)

// startIMDS lets svc answer, and returns a client of it that is not as patient as on an instance.
func startIMDS(t *testing.T, svc *imds.Service) *Client {
	t.Helper()
	server := httptest.NewServer(svc)
	t.Cleanup(server.Close)
	return newClient(server.URL, 100*time.Millisecond, time.Millisecond)
}

// twoENIs is an instance with a secondary interface that has IPv6 as well.
func twoENIs() imds.Instance {
	return imds.Instance{
		ID: "i-0123456789abcdef0", Region: "eu-west-1", ZoneName: "eu-west-1b", ZoneID: "euw1-az1",
		Interfaces: []imds.Interface{
			{
				MAC: net.HardwareAddr{2, 0, 0, 0, 0, 5}, Subnet4: netip.MustParsePrefix("10.0.1.0/24"),
				IPv4: []netip.Addr{netip.MustParseAddr("10.0.1.5"), netip.MustParseAddr("10.0.1.6")},
			},
			{
				MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}, Subnet4: netip.MustParsePrefix("10.0.1.0/24"),
				IPv4:    []netip.Addr{netip.MustParseAddr("10.0.1.77")},
				Subnet6: netip.MustParsePrefix("2001:db8::/64"), IPv6: []netip.Addr{netip.MustParseAddr("2001:db8::77")},
			},
		},
	}
}

// count is how many requests, of any method, were for path.
func count(svc *imds.Service, path string) int {
	n := 0
	for _, r := range svc.Requests() {
		if strings.HasSuffix(r, " "+path) {
			n++
		}
	}
	return n
}

// waitTimeout bounds what a test waits for a service that gets well again: nothing is asserted about how long it took.
const waitTimeout = time.Minute
