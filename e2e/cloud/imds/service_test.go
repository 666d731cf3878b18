package imds

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func instance() Instance {
	return Instance{
		ID: "i-0123456789abcdef0", Type: "m7i.large", Image: "ami-0123456789abcdef0", Account: "123456789012",
		Region: "eu-west-1", ZoneName: "eu-west-1b", ZoneID: "euw1-az1", Hostname: "ip-10-0-1-5.eu-west-1.compute.internal",
		Started:  time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC),
		UserData: []byte("#cloud-config\n{}\n"),
		Interfaces: []Interface{
			{
				MAC: net.HardwareAddr{2, 0, 0, 0, 0, 5}, Subnet4: netip.MustParsePrefix("10.0.1.0/24"),
				IPv4: []netip.Addr{netip.MustParseAddr("10.0.1.5"), netip.MustParseAddr("10.0.1.6")},
			},
			{
				MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}, Subnet4: netip.MustParsePrefix("10.0.2.0/24"),
				IPv4:    []netip.Addr{netip.MustParseAddr("10.0.2.77")},
				Subnet6: netip.MustParsePrefix("2001:db8::/64"), IPv6: []netip.Addr{netip.MustParseAddr("2001:db8::77")},
			},
		},
	}
}

// call sends one request, headers as "Name: value".
func call(t *testing.T, s *Service, method, path string, headers ...string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(body)
}

const (
	askTTL = "X-aws-ec2-metadata-token-ttl-seconds: 60"
	token  = "X-aws-ec2-metadata-token: "
)

func TestTokens(t *testing.T) {
	for _, tt := range []struct {
		name     string
		disabled bool
		method   string
		headers  []string
		want     int
	}{
		{name: "by PUT", method: "PUT", headers: []string{askTTL}, want: 200},
		{name: "not by GET", method: "GET", headers: []string{askTTL}, want: 405},
		{name: "not without a time to live", method: "PUT", want: 400},
		{name: "not for no time", method: "PUT", headers: []string{"X-aws-ec2-metadata-token-ttl-seconds: 0"}, want: 400},
		{name: "not for more than six hours", method: "PUT", headers: []string{"X-aws-ec2-metadata-token-ttl-seconds: 21601"}, want: 400},
		{name: "not through a proxy", method: "PUT", headers: []string{askTTL, "X-Forwarded-For: 10.0.0.1"}, want: 403},
		{name: "not where the service is disabled", disabled: true, method: "PUT", headers: []string{askTTL}, want: 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := Service{Instance: instance(), Disabled: tt.disabled}
			code, body := call(t, &s, tt.method, "/latest/api/token", tt.headers...)
			if code != tt.want {
				t.Fatalf("answered with %d: %s; want %d", code, body, tt.want)
			}
			if code != 200 {
				return
			}
			if code, id := call(t, &s, "GET", "/latest/meta-data/instance-id", token+body); code != 200 || id != instance().ID {
				t.Errorf("with the token: %d %q", code, id)
			}
			s.Forget()
			if code, _ := call(t, &s, "GET", "/latest/meta-data/instance-id", token+body); code != 401 {
				t.Errorf("with a token that is no longer good: %d", code)
			}
		})
	}
}

func TestRequestsWithoutToken(t *testing.T) {
	for _, tt := range []struct {
		name     string
		version1 bool
		headers  []string
		want     int
	}{
		{name: "none where one is required", want: 401},
		{name: "none where none is required", version1: true, want: 200},
		{name: "a bad one where none is required", version1: true, headers: []string{token + "x"}, want: 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := Service{Instance: instance(), Version1: tt.version1}
			if code, _ := call(t, &s, "GET", "/latest/meta-data/mac", tt.headers...); code != tt.want {
				t.Errorf("answered with %d, want %d", code, tt.want)
			}
		})
	}
}

func TestTree(t *testing.T) {
	s := Service{Instance: instance(), Version1: true}
	for _, tt := range []struct{ path, want string }{
		{"/latest", "dynamic\nmeta-data\nuser-data"},
		{"/2021-03-23/meta-data/placement/", "availability-zone\navailability-zone-id\nregion"},
		{"/latest/meta-data/network/interfaces/macs/", "02:00:00:00:00:05/\n02:00:00:00:00:09/"},
		{"/latest/meta-data/network/interfaces/macs/02:00:00:00:00:05/local-ipv4s", "10.0.1.5\n10.0.1.6"},
		{"/latest/meta-data/network/interfaces/macs/02:00:00:00:00:09/ipv6s", "2001:db8::77"},
		{"/latest/user-data", "#cloud-config\n{}\n"},
	} {
		if code, got := call(t, &s, "GET", tt.path); code != 200 || got != tt.want {
			t.Errorf("%s: %d %q, want %q", tt.path, code, got, tt.want)
		}
	}
	for _, path := range []string{
		"/1999-01-01/meta-data/mac", "/latest/meta-data/nonsense", "/latest/meta-data/iam/security-credentials/",
		"/latest/meta-data/network/interfaces/macs/02:00:00:00:00:05/ipv6s", "/latest/meta-data/ma",
	} {
		if code, body := call(t, &s, "GET", path); code != 404 {
			t.Errorf("%s: %d %q, want 404", path, code, body)
		}
	}
}

func TestIdentityDocumentAgreesWithMetaData(t *testing.T) {
	s := Service{Instance: instance(), Version1: true}
	var document map[string]string
	_, text := call(t, &s, "GET", "/latest/dynamic/instance-identity/document")
	if err := json.Unmarshal([]byte(text), &document); err != nil {
		t.Fatal(err)
	}
	for key, path := range map[string]string{
		"instanceId": "instance-id", "instanceType": "instance-type", "imageId": "ami-id", "privateIp": "local-ipv4",
		"region": "placement/region", "availabilityZone": "placement/availability-zone",
	} {
		if _, want := call(t, &s, "GET", "/latest/meta-data/"+path); document[key] != want || want == "" {
			t.Errorf("%s is %q, %s is %q", key, document[key], path, want)
		}
	}
}

func TestCredentialsMayBeLate(t *testing.T) {
	known := false
	s := Service{Instance: instance(), Version1: true, Credentials: func() (Credentials, bool) {
		return Credentials{Role: "node", AccessKeyID: "ASIAEXAMPLE", SecretKey: "s", Token: "t", Expires: time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)}, known
	}}
	const folder = "/latest/meta-data/iam/security-credentials/"
	if code, _ := call(t, &s, "GET", folder); code != 404 {
		t.Errorf("before they are known: %d", code)
	}
	known = true
	if _, role := call(t, &s, "GET", folder); role != "node" {
		t.Errorf("role %q", role)
	}
	_, text := call(t, &s, "GET", folder+"node")
	var got map[string]string
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-11-22T00:00:00Z", "Expiration": "2026-11-22T06:00:00Z",
		"AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": "s", "Token": "t",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("credentials (-want +got):\n%s", diff)
	}
}

func TestAFaultComesFirst(t *testing.T) {
	s := Service{Instance: instance(), Version1: true, Fault: func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/mac") {
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return true
		}
		return false
	}}
	if code, _ := call(t, &s, "GET", "/latest/meta-data/mac"); code != 503 {
		t.Errorf("answered with %d", code)
	}
	if code, _ := call(t, &s, "GET", "/latest/meta-data/instance-id"); code != 200 {
		t.Errorf("another request is answered with %d", code)
	}
	if want := []string{"GET /latest/meta-data/mac", "GET /latest/meta-data/instance-id"}; !slices.Equal(s.Requests(), want) {
		t.Errorf("requests %q", s.Requests())
	}
}
