//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/configurator/endpoint"
	"github.com/lastgasp/lastgasp/e2e/cloud"
	"github.com/lastgasp/lastgasp/e2e/cloud/imds"
	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/story"
	"github.com/lastgasp/lastgasp/listener/cleanup"
	listenercloud "github.com/lastgasp/lastgasp/listener/cloud"
)

// TestListenersAnnounceThemselves reads what listeners write, with the nodes' own parser.
func TestListenersAnnounceThemselves(t *testing.T) {
	bin, err := story.Build(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	n, err := lab.NewNet(t)
	if err != nil {
		t.Fatal(err)
	}
	if err := cloud.ServeIMDS(t, n.Router, &imds.Service{
		Instance: imds.Instance{
			ID: ec2ID, Region: "eu-west-1", ZoneName: "eu-west-1b", ZoneID: "euw1-az1",
			Interfaces: []imds.Interface{{IPv4: []netip.Addr{lab.ListenerAddr.Addr()}, Subnet4: lab.ListenerAddr}},
		},
		Credentials: func() (imds.Credentials, bool) {
			return imds.Credentials{
				Role: "listener", AccessKeyID: "ASIAEXAMPLE", SecretKey: "example", Token: "session", Expires: time.Now().Add(time.Hour),
			}, true
		},
	}); err != nil {
		t.Fatal(err)
	}
	moto, err := cloud.StartMoto(t.Context(), t, n.Router, netip.AddrPortFrom(lab.NodeGateway.Addr(), 5555))
	if err != nil {
		t.Fatal(err)
	}
	start := func(name, cluster string, ns *lab.NS, config string) {
		t.Helper()
		dir := t.TempDir()
		file := filepath.Join(dir, "listener.yaml")
		config = fmt.Sprintf("cluster: %s\nrecords: %s\n%s", cluster, dir, config)
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := ns.Command(t.Context(), filepath.Join(bin, "lastgasp-listener"), "run", "--config", file)
		cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL="+moto.URL)
		log := filepath.Join(dir, "listener.log")
		if _, err := lab.StartDaemon(t, name, log, cmd); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if said, err := os.ReadFile(log); t.Failed() {
				t.Logf("%s said (%v):\n%s", name, err, said)
			}
		})
	}
	const parameter = "announce: {ssm: '/lastgasp/{cluster}/{region}/endpoint'"
	first := endpoint.Endpoint{Host: "10.77.2.10", Port: 6666, Zone: "euw1-az1"}
	second := endpoint.Endpoint{Host: "10.77.1.6", Port: 6667, Zone: "euw1-az2"}
	foreign := endpoint.Endpoint{Host: "10.77.1.6", Port: 6669, Zone: "euw1-az1"}
	successor := endpoint.Endpoint{Host: "10.77.2.20", Port: 6668, Zone: "euw1-az1"}

	const ours, other = "prod-1", "prod-2"
	start("the first listener", ours, n.Listener, parameter+"}\n")
	awaitAnnounced(t, moto, ours, 1, first)
	start("one of another cluster", other, n.Node, parameter+"}\nlisten: [':6669']\nadmin: 127.0.0.1:9669\n")
	awaitAnnounced(t, moto, other, 1, foreign)
	start("one of another zone", ours, n.Node, parameter+", zone: euw1-az2}\nlisten: [':6667']\n")
	awaitAnnounced(t, moto, ours, 2, first, second)
	start("the first one's successor", ours, n.Listener, parameter+"}\nlisten: ['10.77.2.20:6668']\nadmin: 127.0.0.1:9667\n")
	awaitAnnounced(t, moto, ours, 3, successor, second)
	awaitAnnounced(t, moto, other, 1, foreign) // as it was: neither overwrites the other's
}

// awaitAnnounced waits for a version of a cluster's parameter, and wants these listeners in it.
func awaitAnnounced(t *testing.T, moto *cloud.Moto, cluster string, version int64, want ...endpoint.Endpoint) {
	t.Helper()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for range 3000 {
		out, err := moto.Parameters("eu-west-1").GetParameters(t.Context(), &ssm.GetParametersInput{Names: []string{"/lastgasp/" + cluster + "/eu-west-1/endpoint"}})
		if err != nil {
			t.Fatal(err)
		}
		if len(out.Parameters) == 0 || out.Parameters[0].Version < version {
			<-again.C
			continue
		}
		got, err := endpoint.ParseList(sdk.ToString(out.Parameters[0].Value))
		if err != nil {
			t.Fatalf("nodes cannot read %q: %v", sdk.ToString(out.Parameters[0].Value), err)
		}
		if diff := cmp.Diff(want, got); diff != "" || out.Parameters[0].Version != version {
			t.Errorf("announced in version %d (-want +got):\n%s", out.Parameters[0].Version, diff)
		}
		return
	}
	t.Fatalf("there is no version %d after five minutes", version)
}

// useMoto starts moto in ns, and makes this process and those it starts use it as AWS.
func useMoto(t *testing.T, ns *lab.NS) *cloud.Moto {
	t.Helper()
	moto, err := cloud.StartMoto(t.Context(), t, ns, netip.MustParseAddrPort("127.0.0.1:5555"))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ENDPOINT_URL", moto.URL)
	t.Setenv("AWS_REGION", region)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "example")
	return moto
}

// TestInstancesAreRebootedAndTerminated calls moto's EC2.
func TestInstancesAreRebootedAndTerminated(t *testing.T) {
	ns, err := lab.NewNS(t, "ec2")
	if err != nil {
		t.Fatal(err)
	}
	moto := useMoto(t, ns)
	client := awshttp.NewBuildableClient().WithTransportOptions(func(tr *http.Transport) { tr.DialContext = ns.Dial })
	instances := listenercloud.Instances{Account: listenercloud.NewAccount(client)}

	ids := runInstances(t, moto, 2)
	doomed, bystander := ids[0], ids[1]
	if err := instances.Reboot(t.Context(), doomed); err != nil {
		t.Error(err)
	}
	if got := stateOf(t, moto, doomed); got != "running" {
		t.Errorf("after a reboot it is %s", got)
	}
	for range 2 { // a replica that took over does not know whether its predecessor asked
		if err := instances.Terminate(t.Context(), doomed); err != nil {
			t.Error(err)
		}
	}
	if got := stateOf(t, moto, doomed); got != "terminated" {
		t.Errorf("it is %s", got)
	}
	if got := stateOf(t, moto, bystander); got != "running" {
		t.Errorf("the other one is %s", got)
	}
	if err := instances.Terminate(t.Context(), "i-0123456789abcdef0"); !errors.Is(err, cleanup.ErrNotFound) {
		t.Errorf("an instance that does not exist: error %v", err)
	}
	moto.Stop()
	if err := instances.Terminate(t.Context(), bystander); err == nil || errors.Is(err, cleanup.ErrNotFound) || errors.Is(err, cleanup.ErrDenied) {
		t.Errorf("an outage must be worth another try: error %v", err)
	}
}

func stateOf(t *testing.T, moto *cloud.Moto, id string) string {
	t.Helper()
	text := askEC2(t, moto, url.Values{"Action": {"DescribeInstances"}, "InstanceId.1": {id}})
	state := regexp.MustCompile(`(?s)<instanceState>.*?<name>([a-z-]+)</name>`).FindStringSubmatch(text)
	if state == nil {
		t.Fatalf("DescribeInstances answered %s", text)
	}
	return state[1]
}

// askEC2 plays the operator.
func askEC2(t *testing.T, moto *cloud.Moto, form url.Values) string {
	t.Helper()
	return askAWS(t, moto, "ec2", "2016-11-15", form)
}

// askAWS asks another service. Moto looks at the signature for the name of the service only.
func askAWS(t *testing.T, moto *cloud.Moto, service, version string, form url.Values) string {
	t.Helper()
	form.Set("Version", version)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, moto.URL, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-west-1/"+service+"/aws4_request, SignedHeaders=host, Signature=0")
	response, err := moto.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s answered with %s, %v: %s", form.Get("Action"), response.Status, err, text)
	}
	return string(text)
}
