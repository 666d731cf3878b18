//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/lastgasp/lastgasp/e2e/cloud"
	"github.com/lastgasp/lastgasp/e2e/cloud/imds"
	"github.com/lastgasp/lastgasp/e2e/lab"
)

const (
	ec2ID       = "i-0123456789abcdef0"
	zoned       = "/lastgasp/eu-west-1/euw1-az1/endpoint"
	regional    = "/lastgasp/eu-west-1/endpoint"
	byParameter = `
cluster: lab
endpoint:
  ssm: ["/lastgasp/{cluster}/endpoint", "/lastgasp/{region}/{az-id}/endpoint", "/lastgasp/{region}/endpoint"]
targets: 1
canary: {timeout: 1s}
`
	targetA, targetB = "lastgasp-10.77.2.10-1", "lastgasp-10.77.2.20-1"
)

// TestConfiguratorOnEC2 runs a guest that takes itself for an instance, with Parameter Store and the metadata service, both of
// which fail in turn. Whatever they do, what is armed stays.
func TestConfiguratorOnEC2(t *testing.T) {
	g := newInstance(t)
	a := newFakeListener(t, g.net, lab.ListenerAddr.Addr())
	b := newFakeListener(t, g.net, lab.APIServerAddr.Addr())
	g.write(t, config, byParameter)

	t.Run("no parameter is no listener", func(t *testing.T) {
		if r := g.run(t, 3, "apply"); !strings.Contains(r.Stderr, "/lastgasp/lab/endpoint, "+zoned+", "+regional+" does not exist") {
			t.Errorf("stderr: %s", r.Stderr)
		}
		g.wantTargets(t)
	})
	t.Run("late credentials and an expired token are waited for, the first parameter wins, the own zone first", func(t *testing.T) {
		putParameter(t, g.moto, regional, b.String())
		putParameter(t, g.moto, zoned, "- {address: "+b.String()+", zone: euw1-az2}\n- {address: "+a.String()+", zone: euw1-az1}\n")
		var requests, refused atomic.Int32
		g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/security-credentials/") && refused.Add(1) <= 2 {
				http.NotFound(w, r)
				return true
			}
			if requests.Add(1) == 4 {
				g.metadata.Forget()
			}
			return false
		})
		defer g.setFault(nil)
		g.run(t, 0, "apply")
		g.wantSource(t, "ssm "+zoned+" version 1")
		g.wantTargets(t, targetA)
		if canary, _ := a.last(t); canary.Instance != ec2ID {
			t.Errorf("the canary is of %s", canary.Instance)
		}
		if refused.Load() <= 2 {
			t.Errorf("asked %d times for credentials", refused.Load())
		}
		tokens := slices.DeleteFunc(g.metadata.Requests(), func(r string) bool { return r != "PUT /latest/api/token" })
		if len(tokens) < 3 { // one of the first pass, one of this, one more after it was forgotten
			t.Errorf("%d tokens were minted", len(tokens))
		}
	})
	t.Run("a proxy is not asked for metadata", func(t *testing.T) {
		g.run(t, 0, "apply", "HTTP_PROXY=http://10.77.1.99:3128", "http_proxy=http://10.77.1.99:3128", "NO_PROXY="+lab.NodeGateway.Addr().String())
	})
	t.Run("a reload follows the parameter", func(t *testing.T) {
		putParameter(t, g.moto, zoned, b.String())
		g.run(t, 0, "apply", "--reload")
		g.wantSource(t, "ssm "+zoned+" version 2")
		g.wantTargets(t, targetB)
	})
	t.Run("a bad value is named and changes nothing", func(t *testing.T) {
		putParameter(t, g.moto, zoned, "10.77.2.300:6666")
		if r := g.run(t, 3, "apply", "--reload"); !strings.Contains(r.Stderr, `ssm `+zoned+` version 3: "10.77.2.300:6666": "10.77.2.300" is neither`) {
			t.Errorf("stderr: %s", r.Stderr)
		}
		g.wantTargets(t, targetB)
	})
	t.Run("without the first parameter the next one counts", func(t *testing.T) {
		g.remove(t, zoned)
		g.run(t, 0, "apply", "--reload")
		g.wantSource(t, "ssm "+regional+" version 1")
		g.wantTargets(t, targetB)
	})
	t.Run("who may write the parameter redirects nobody out of endpoint.within, and disarms nobody", func(t *testing.T) {
		a.forget()
		g.write(t, config, strings.Replace(byParameter, "endpoint:\n", "endpoint:\n  within: ["+lab.APIServerAddr.Addr().String()+"/32]\n", 1))
		defer g.write(t, config, byParameter)
		for _, named := range []string{a.String(), a.String() + ", 198.51.100.7:6666", "- {address: " + a.String() + ", zone: euw1-az1}\n"} {
			putParameter(t, g.moto, zoned, named)
			if r := g.run(t, 3, "apply", "--reload"); !strings.Contains(r.Stderr, "listener "+a.String()+" is outside of endpoint.within") {
				t.Errorf("stderr: %s", r.Stderr)
			}
			g.wantTargets(t, targetB)
		}
		g.run(t, 0, "disarm") // as after a boot
		g.wantTargets(t)
		g.run(t, 0, "apply")
		g.wantSource(t, "last known good since ", "from ssm "+regional)
		g.wantTargets(t, targetB)
		if heard, _ := a.recall(); len(heard) > 0 {
			t.Errorf("who is outside of endpoint.within heard %q", heard)
		}
		g.remove(t, zoned)
	})
	t.Run("what was armed before endpoint.within was set goes with it", func(t *testing.T) {
		putParameter(t, g.moto, zoned, a.String())
		g.run(t, 0, "apply", "--reload")
		g.wantTargets(t, targetA)
		g.write(t, config, strings.Replace(byParameter, "endpoint:\n", "endpoint:\n  within: ["+lab.APIServerAddr.Addr().String()+"/32]\n", 1))
		defer g.write(t, config, byParameter)
		g.run(t, 3, "apply", "--reload")
		g.wantTargets(t)
		g.remove(t, zoned)
		g.run(t, 0, "apply", "--reload")
		g.wantTargets(t, targetB)
	})
	t.Run("without Parameter Store a reload fails, and the last known good listener stays", func(t *testing.T) {
		g.moto.Stop()
		g.run(t, 3, "apply", "--reload")
		g.wantTargets(t, targetB)
		g.run(t, 0, "apply")
		g.wantSource(t, "last known good since ", "from ssm "+regional+" version 1")
		g.wantTargets(t, targetB)
	})
	for _, broken := range []struct {
		name  string
		fault func(w http.ResponseWriter, r *http.Request) bool
	}{
		{"disabled", func(w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, "403 - Forbidden", http.StatusForbidden)
			return true
		}},
		{"that hangs", func(_ http.ResponseWriter, r *http.Request) bool {
			<-r.Context().Done()
			return true
		}},
	} {
		t.Run("a metadata service "+broken.name+" costs neither the last known good listener nor a static one", func(t *testing.T) {
			g.setFault(broken.fault)
			defer g.setFault(nil)
			g.run(t, 0, "apply")
			g.wantSource(t, "last known good since ")
			g.wantTargets(t, targetB)
			g.run(t, 0, "apply", "--endpoint", a.String())
			g.wantTargets(t, targetA)
			g.run(t, 0, "apply", "--endpoint", b.String())
		})
	}
}

// instance is a guest that takes itself for an EC2 instance, with the services it uses there.
type instance struct {
	*guest
	metadata   *imds.Service
	moto       *cloud.Moto
	parameters *ssm.Client
	fault      atomic.Pointer[func(w http.ResponseWriter, r *http.Request) bool]
}

func newInstance(t *testing.T) *instance {
	t.Helper()
	i := &instance{}
	i.guest = newGuest(t, "6.12", lab.VMSpec{SMBIOS: []string{
		"type=1,manufacturer=Amazon EC2,uuid=ec2f0000-0000-4000-8000-000000000005", "type=2,asset=" + ec2ID,
	}})
	i.metadata = &imds.Service{
		Instance: imds.Instance{
			ID: ec2ID, Account: "123456789012", Region: "eu-west-1", ZoneName: "eu-west-1b", ZoneID: "euw1-az1",
			Interfaces: []imds.Interface{{
				MAC:  net.HardwareAddr{0x52, 0x54, 0, 77, 1, 5}, // the lab's for GuestAddr
				IPv4: []netip.Addr{lab.GuestAddr.Addr()}, Subnet4: lab.GuestAddr,
			}},
		},
		HopLimit: 1,
		Credentials: func() (imds.Credentials, bool) {
			return imds.Credentials{
				Role: "node", AccessKeyID: "ASIAEXAMPLE", SecretKey: "example", Token: "session", Expires: time.Now().Add(time.Hour),
			}, true
		},
		Fault: func(w http.ResponseWriter, r *http.Request) bool {
			f := i.fault.Load()
			return f != nil && (*f)(w, r)
		},
	}
	if err := cloud.ServeIMDS(t, i.net.Router, i.metadata); err != nil {
		t.Fatal(err)
	}
	var err error
	i.moto, err = cloud.StartMoto(t.Context(), t, i.net.Router, netip.AddrPortFrom(lab.NodeGateway.Addr(), 5555))
	if err != nil {
		t.Fatal(err)
	}
	i.parameters = i.moto.Parameters("eu-west-1")
	return i
}

// setFault makes the metadata service fail in this way. Nil ends the fault.
func (i *instance) setFault(f func(w http.ResponseWriter, r *http.Request) bool) {
	if f == nil {
		i.fault.Store(nil)
		return
	}
	i.fault.Store(&f)
}

// run is the guest's with Parameter Store at hand. It never runs the configurator again: waiting is the configurator's part here.
// Arguments like NAME=value are environment.
func (i *instance) run(t *testing.T, exit int, args ...string) lab.Result {
	t.Helper()
	p := lab.Program{Argv: []string{"/usr/bin/lastgasp-configurator"}, Env: []string{"AWS_ENDPOINT_URL_SSM=" + i.moto.URL}}
	for _, a := range args {
		if name, _, ok := strings.Cut(a, "="); ok && !strings.HasPrefix(name, "-") {
			p.Env = append(p.Env, a)
		} else {
			p.Argv = append(p.Argv, a)
		}
	}
	if exit == 0 {
		p.Env = append(p.Env, "LASTGASP_CANARY_TIMEOUT=20s")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*busy) // a pass waits up to a minute
	defer cancel()
	r, err := i.vm.RunProgram(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	if r.Exit != exit {
		t.Fatalf("%q ended with %d instead of %d:\n%s%s", args, r.Exit, exit, r.Stdout, r.Stderr)
	}
	return r
}

// wantSource checks that the last pass says all of this about its listeners' source.
func (i *instance) wantSource(t *testing.T, want ...string) {
	t.Helper()
	var state struct {
		Source string `json:"endpointSource"`
	}
	if err := json.Unmarshal([]byte(i.read(t, "/run/lastgasp/state.json")), &state); err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		if !strings.Contains(state.Source, w) {
			t.Errorf("the listeners came from %q, want %q", state.Source, w)
		}
	}
}

func (i *instance) remove(t *testing.T, name string) {
	t.Helper()
	if _, err := i.parameters.DeleteParameter(t.Context(), &ssm.DeleteParameterInput{Name: &name}); err != nil {
		t.Fatal(err)
	}
}
