//go:build e2e

package cloud

import (
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/vishvananda/netlink"

	"github.com/lastgasp/lastgasp/e2e/cloud/imds"
	"github.com/lastgasp/lastgasp/e2e/lab"
)

func TestMain(m *testing.M) {
	if os.Getuid() != 0 {
		os.Stderr.WriteString("these tests make network namespaces: run them as root\n")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestMotoKeepsParameters(t *testing.T) {
	ns, err := lab.NewNS(t, "moto")
	if err != nil {
		t.Fatal(err)
	}
	moto, err := StartMoto(t.Context(), t, ns, netip.MustParseAddrPort("127.0.0.1:5555"))
	if err != nil {
		t.Fatal(err)
	}
	client := moto.Parameters("eu-west-1")
	if _, err := client.PutParameter(t.Context(), &ssm.PutParameterInput{
		Name: aws.String("/lastgasp/endpoint"), Value: aws.String("10.0.2.10:6666"), Type: types.ParameterTypeString,
	}); err != nil {
		t.Fatal(err)
	}
	out, err := client.GetParameters(t.Context(), &ssm.GetParametersInput{Names: []string{"/lastgasp/nowhere", "/lastgasp/endpoint"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Parameters) != 1 || aws.ToString(out.Parameters[0].Value) != "10.0.2.10:6666" || len(out.InvalidParameters) != 1 {
		t.Errorf("parameters %+v, invalid %q", out.Parameters, out.InvalidParameters)
	}
	moto.Stop()
	if _, err := moto.Client().Get(moto.URL); err == nil {
		t.Error("it answers although it was stopped")
	}
}

// TestTokensDieOfTheirHopLimit requests a token from a namespace behind a router, as a container does.
func TestTokensDieOfTheirHopLimit(t *testing.T) {
	for _, tt := range []struct {
		name  string
		limit int
		far   bool // the service is behind the router
		fails bool
	}{
		{"one hop is enough for a neighbour", 1, false, false},
		{"one hop is not enough through a router", 1, true, true},
		{"two are", 2, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, err := lab.NewNet(t)
			if err != nil {
				t.Fatal(err)
			}
			at := n.Router
			if tt.far {
				at = n.Listener // pretends to be the host: the route of MetadataAddr ends there
				if err := n.Router.Do(routeToListener); err != nil {
					t.Fatal(err)
				}
			}
			svc := &imds.Service{Instance: anInstance(), HopLimit: tt.limit}
			if err := ServeIMDS(t, at, svc); err != nil {
				t.Fatal(err)
			}
			wait := time.Minute
			if tt.fails {
				wait = 2 * time.Second
			}
			client := &http.Client{Transport: &http.Transport{
				DialContext: n.Node.Dial, DisableKeepAlives: true, ResponseHeaderTimeout: wait,
			}}
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+MetadataAddr.Addr().String()+"/latest/api/token", nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("X-aws-ec2-metadata-token-ttl-seconds", "60")
			response, err := client.Do(request)
			if err == nil {
				response.Body.Close()
			}
			if (err != nil) != tt.fails {
				t.Errorf("error %v", err)
			}
			got := svc.Requests()
			for range 600 {
				if len(got) > 0 {
					break
				}
				time.Sleep(100 * time.Millisecond)
				got = svc.Requests()
			}
			if len(got) == 0 || !strings.HasPrefix(got[0], "PUT ") {
				t.Errorf("requests %q: the question has to arrive in any case", got)
			}
		})
	}
}

// routeToListener sends requests for metadata on from the router.
func routeToListener() error {
	return netlink.RouteAdd(&netlink.Route{
		Dst: &net.IPNet{IP: MetadataAddr.Addr().AsSlice(), Mask: net.CIDRMask(32, 32)},
		Gw:  lab.ListenerAddr.Addr().AsSlice(),
	})
}

// anInstance is an instance whose details do not matter.
func anInstance() imds.Instance {
	return imds.Instance{
		ID: "i-0123456789abcdef0", Region: "eu-west-1", ZoneName: "eu-west-1b", ZoneID: "euw1-az1", Started: time.Now(),
		Interfaces: []imds.Interface{{
			MAC: net.HardwareAddr{0x52, 0x54, 0, 77, 1, 5}, IPv4: []netip.Addr{lab.GuestAddr.Addr()}, Subnet4: lab.GuestAddr,
		}},
	}
}
