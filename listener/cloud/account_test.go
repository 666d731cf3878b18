package cloud

import (
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/google/go-cmp/cmp"
)

// setEnvironment hides the machine's own AWS settings.
func setEnvironment(t *testing.T) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	none := filepath.Join(t.TempDir(), "none")
	t.Setenv("AWS_CONFIG_FILE", none)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", none)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_REGION", "eu-west-1")
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "example")
}

// hosts is an HTTP client that reaches nobody and remembers whom it was to reach.
type hosts []string

func (h *hosts) Do(r *http.Request) (*http.Response, error) {
	*h = append(*h, r.URL.Host)
	return nil, errors.New("no network")
}

func TestEndpointsFollowTheEnvironment(t *testing.T) {
	for _, tt := range []struct {
		name, region string
		env          map[string]string
		ec2, ssm     string
	}{
		{name: "a region", region: "eu-west-1", ec2: "ec2.eu-west-1.amazonaws.com", ssm: "ssm.eu-west-1.amazonaws.com"},
		{name: "a partition of its own", region: "cn-north-1",
			ec2: "ec2.cn-north-1.amazonaws.com.cn", ssm: "ssm.cn-north-1.amazonaws.com.cn"},
		{name: "the default region", env: map[string]string{"AWS_DEFAULT_REGION": "us-west-2"},
			ec2: "ec2.us-west-2.amazonaws.com", ssm: "ssm.us-west-2.amazonaws.com"},
		{name: "FIPS", region: "us-east-1", env: map[string]string{"AWS_USE_FIPS_ENDPOINT": "true"},
			ec2: "ec2-fips.us-east-1.amazonaws.com", ssm: "ssm-fips.us-east-1.amazonaws.com"},
		{name: "dual-stack", region: "us-east-1", env: map[string]string{"AWS_USE_DUALSTACK_ENDPOINT": "true"},
			ec2: "ec2.us-east-1.api.aws", ssm: "ssm.us-east-1.api.aws"},
		{name: "FIPS and dual-stack", region: "us-east-1",
			env: map[string]string{"AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true"},
			ec2: "ec2-fips.us-east-1.api.aws", ssm: "ssm-fips.us-east-1.api.aws"},
		{name: "VPC endpoints by service", region: "eu-west-1",
			env: map[string]string{"AWS_ENDPOINT_URL_SSM": "https://vpce-1.example", "AWS_ENDPOINT_URL": "https://vpce-2.example"},
			ec2: "vpce-2.example", ssm: "vpce-1.example"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setEnvironment(t)
			t.Setenv("AWS_REGION", tt.region)
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			var ec2Hosts hosts
			if err := (Instances{NewAccount(&ec2Hosts)}).Reboot(t.Context(), "i-0123456789abcdef0"); err == nil {
				t.Fatal("no error without a network")
			}
			var ssmHosts hosts
			c, err := NewAccount(&ssmHosts).clients(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := read(t.Context(), ssm.New(c.ssm.Options(), func(o *ssm.Options) { o.RetryMaxAttempts = 1 }), "/lastgasp"); err == nil {
				t.Fatal("no error without a network")
			}
			if diff := cmp.Diff([]string{tt.ec2, tt.ssm}, []string{ec2Hosts[0], ssmHosts[0]}); diff != "" {
				t.Errorf("hosts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWithoutARegionTheMetadataServiceIsAskedAgain(t *testing.T) {
	setEnvironment(t)
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "")
	up := false
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
		switch {
		case !up:
			w.WriteHeader(http.StatusForbidden) // the service is switched off
		case r.Method == http.MethodPut:
			io.WriteString(w, "token")
		case r.URL.Path == "/latest/dynamic/instance-identity/document":
			io.WriteString(w, `{"region": "ap-south-1"}`)
		case r.URL.Path == "/latest/meta-data/placement/availability-zone-id":
			io.WriteString(w, "aps1-az1")
		}
	}))
	defer metadata.Close()
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.URL)
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1") // no proxy reaches a link-local address

	a := NewAccount(nil)
	if _, err := a.clients(t.Context()); err == nil || !strings.Contains(err.Error(), "find the AWS account by environment (AWS_REGION, …) or instance metadata: ") {
		t.Errorf("error %v", err)
	}
	up = true
	c, err := a.clients(t.Context())
	if err != nil || c.region != "ap-south-1" {
		t.Errorf("region %+v, %v", c, err)
	}
	if zone, err := a.zone(t.Context()); err != nil || zone != "aps1-az1" {
		t.Errorf("zone %q, %v", zone, err)
	}
}

func TestACABundleIsHonoured(t *testing.T) {
	setEnvironment(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<Response/>") }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshake that must fail
	server.StartTLS()
	defer server.Close()
	t.Setenv("AWS_ENDPOINT_URL_EC2", server.URL)
	reboot := func() error { return Instances{NewAccount(nil)}.Reboot(t.Context(), "i-0123456789abcdef0") }
	if err := reboot(); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("without the bundle: error %v", err)
	}
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(bundle, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CA_BUNDLE", bundle)
	if err := reboot(); err != nil {
		t.Error(err)
	}
}

func TestAServiceAccountsRole(t *testing.T) {
	q := newQueryService(t)
	t.Setenv("AWS_ENDPOINT_URL_STS", os.Getenv("AWS_ENDPOINT_URL"))
	q.answer = `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>
<SessionToken>session</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>`
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("jwt"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", file)
	t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/listener")
	c, err := NewAccount(nil).clients(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := c.ec2.Options().Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if keys.AccessKeyID != "ASIAEXAMPLE" || keys.SecretAccessKey != "secret" || keys.SessionToken != "session" || keys.Expires.Year() != 2999 {
		t.Errorf("credentials %+v", keys)
	}
	want := url.Values{
		"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"}, "WebIdentityToken": {"jwt"},
		"RoleArn": {"arn:aws:iam::123456789012:role/listener"}, "RoleSessionName": q.form["RoleSessionName"],
	}
	if diff := cmp.Diff(want, q.form); diff != "" || q.authorization != "" {
		t.Errorf("request, signed %q (-want +got):\n%s", q.authorization, diff)
	}
}
