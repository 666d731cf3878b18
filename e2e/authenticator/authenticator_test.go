package authenticator

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"sigs.k8s.io/aws-iam-authenticator/pkg/token"

	"github.com/lastgasp/lastgasp/configurator/ec2"
	"github.com/lastgasp/lastgasp/configurator/enroll"
	"github.com/lastgasp/lastgasp/e2e/cloud/imds"
)

const (
	instance = "i-0123456789abcdef0"
	boot     = "5a2e4e5c-8a3e-4a3d-9d5b-0f5a5c1e7f11"
)

// role holds the credentials that the metadata service returns, and with which STS checks signatures.
var role = aws.Credentials{AccessKeyID: "ASIAEXAMPLE", SecretAccessKey: "wJalrXUtnFEMI", SessionToken: "session/token+=="}

// fakeSTS answers GetCallerIdentity over HTTP as STS does: only if the signature is that of the request as it arrives,
// with the headers that were signed.
type fakeSTS struct{ asked []string }

func (s *fakeSTS) RoundTrip(r *http.Request) (*http.Response, error) {
	s.asked = append(s.asked, r.URL.Host)
	answer := func(code int, body string) (*http.Response, error) {
		return &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
	q := r.URL.Query()
	at, err := time.Parse("20060102T150405Z", q.Get("X-Amz-Date"))
	if err != nil {
		return answer(http.StatusBadRequest, err.Error())
	}
	scope := strings.Split(q.Get("X-Amz-Credential"), "/") // key, date, region, service
	if len(scope) != 5 || scope[0] != role.AccessKeyID || r.URL.Host != "sts."+scope[2]+".amazonaws.com" || scope[3] != "sts" {
		return answer(http.StatusForbidden, "InvalidClientTokenId")
	}
	again := r.Clone(r.Context())
	again.Header = http.Header{}
	for _, name := range strings.Split(q.Get("X-Amz-SignedHeaders"), ";") {
		if name != "host" {
			again.Header.Set(name, r.Header.Get(name))
		}
	}
	unsigned := again.URL.Query()
	for key := range q {
		if strings.HasPrefix(key, "X-Amz-") && key != "X-Amz-Expires" {
			unsigned.Del(key)
		}
	}
	again.URL.RawQuery = unsigned.Encode()
	empty := sha256.Sum256(nil)
	signed, _, err := v4.NewSigner().PresignHTTP(r.Context(), role, again, hex.EncodeToString(empty[:]), "sts", scope[2], at)
	if err != nil {
		return answer(http.StatusBadRequest, err.Error())
	}
	if want := signature(signed); want != q.Get("X-Amz-Signature") {
		return answer(http.StatusForbidden, "SignatureDoesNotMatch")
	}
	return answer(http.StatusOK, fmt.Sprintf(`{"GetCallerIdentityResponse": {"GetCallerIdentityResult": {
		"Account": "111122223333", "Arn": "arn:aws:sts::111122223333:assumed-role/nodes/%[1]s", "UserId": "AROAEXAMPLE:%[1]s"}}}`, instance))
}

func signature(signed string) string {
	_, after, _ := strings.Cut(signed, "X-Amz-Signature=")
	s, _, _ := strings.Cut(after, "&")
	return s
}

// eks is an API server that authenticates with aws-iam-authenticator's verifier.
type eks struct {
	verifier token.Verifier

	mu     sync.Mutex
	denied []string // why
	pin    string
}

func (e *eks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	id, err := e.verifier.Verify(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	if err != nil {
		e.denied = append(e.denied, err.Error())
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"message":"Unauthorized"}`)
		return
	}
	// EKS' mapping of a node role is system:node:{{EC2PrivateDNSName}}; the session's name is the instance's id.
	node := fmt.Sprintf(`{"metadata":{"name":"ip-10-0-1-5","uid":"u","resourceVersion":"1","annotations":{%q:%q}},"status":{"nodeInfo":{"bootID":%q}}}`,
		enroll.PinKey, e.pin, boot)
	switch {
	case id.SessionName != instance || id.CanonicalARN != "arn:aws:iam::111122223333:role/nodes":
		w.WriteHeader(http.StatusForbidden)
	case r.Method == http.MethodPost:
		fmt.Fprint(w, `{"status":{"userInfo":{"username":"system:node:ip-10-0-1-5","groups":["system:bootstrappers","system:nodes"]}}}`)
	case r.Method == http.MethodPatch:
		var patch struct {
			Metadata struct{ Annotations map[string]string }
		}
		if err := json.NewDecoder(r.Body).Decode(&patch); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		e.pin = patch.Metadata.Annotations[enroll.PinKey]
		fmt.Fprint(w, strings.Replace(node, `""`, `"`+e.pin+`"`, 1))
	default:
		fmt.Fprintf(w, `{"metadata":{"resourceVersion":"1"},"items":[%s]}`, node)
	}
}

// TestVerifier enrols an EKS node: with role credentials from the metadata service and a token that we make and
// aws-iam-authenticator verifies. Only STS is faked, and only its HTTP side.
func TestVerifier(t *testing.T) {
	for _, tt := range []struct {
		name    string
		exec    string // of the kubeconfig
		cluster string // that the API server is of
		denied  string // why, empty: it is taken
	}{
		{"aws eks get-token", `{"command":"aws","args":["eks","get-token","--cluster-name","prod-1","--region","eu-west-1"]}`, "prod-1", ""},
		{"aws-iam-authenticator token", `{"command":"/usr/bin/aws-iam-authenticator","args":["token","-i","prod-1","--region","eu-west-1"]}`, "prod-1", ""},
		{"the region of the instance", `{"command":"aws","args":["eks","get-token","--cluster-name","prod-1"]}`, "prod-1", ""},
		{"a token for another cluster is worth nothing", `{"command":"aws","args":["eks","get-token","--cluster-name","prod-2","--region","eu-west-1"]}`, "prod-1",
			"SignatureDoesNotMatch"},
		{"nor is one of another partition", `{"command":"aws","args":["eks","get-token","--cluster-name","prod-1","--region","cn-north-1"]}`, "prod-1",
			`unexpected hostname "sts.cn-north-1.amazonaws.com.cn"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, v := range []string{"AWS_ACCESS_KEY_ID", "HTTPS_PROXY", "https_proxy"} {
				t.Setenv(v, "")
			}
			sts := &fakeSTS{}
			was := http.DefaultTransport
			http.DefaultTransport = sts // the verifier's
			t.Cleanup(func() { http.DefaultTransport = was })

			api := &eks{verifier: token.NewVerifier(tt.cluster, "aws", "eu-west-1")}
			server := httptest.NewTLSServer(api)
			t.Cleanup(server.Close)
			file := kubeconfig(t, server, tt.exec)
			e := enroll.Enroller{
				Kubeconfigs: func() ([]string, error) { return []string{file}, nil },
				Pin:         func() (enroll.Pin, error) { return enroll.Pin{Boot: boot, Sum: "sum"}, nil },
				Metadata:    sync.OnceValue(func() *ec2.Client { return ec2.New(metadata(t)) }),
				StateFile:   filepath.Join(t.TempDir(), "enroll.json"),
				Log:         slog.New(slog.DiscardHandler),
			}
			s, err := e.Once(t.Context())
			if tt.denied != "" {
				if err == nil || len(api.denied) == 0 || !strings.Contains(api.denied[0], tt.denied) || api.pin != "" {
					t.Errorf("%v; denied because of %q, want %q", err, api.denied, tt.denied)
				}
				return
			}
			if err != nil {
				t.Fatalf("%v; denied because of %q", err, api.denied)
			}
			if !s.Enrolled || s.Node != "ip-10-0-1-5" || api.pin != boot+":sum" {
				t.Errorf("state %+v, pin %q", s, api.pin)
			}
			for _, host := range sts.asked {
				if host != "sts.eu-west-1.amazonaws.com" {
					t.Errorf("STS was asked at %s", host)
				}
			}
		})
	}
}

func kubeconfig(t *testing.T, server *httptest.Server, exec string) string {
	t.Helper()
	dir := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	var text bytes.Buffer
	fmt.Fprintf(&text, `{"current-context":"kubelet","contexts":[{"name":"kubelet","context":{"cluster":"kubernetes","user":"kubelet"}}],
"clusters":[{"name":"kubernetes","cluster":{"server":%q,"certificate-authority":"ca.crt"}}],"users":[{"name":"kubelet","user":{"exec":%s}}]}`, server.URL, exec)
	for name, data := range map[string][]byte{"ca.crt": ca, "kubeconfig": text.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "kubeconfig")
}

// metadata starts the instance's metadata service and returns its URL.
func metadata(t *testing.T) string {
	service := httptest.NewServer(&imds.Service{
		Instance: imds.Instance{
			ID: instance, Type: "m7i.large", Image: "ami-1", Account: "111122223333", Region: "eu-west-1", ZoneName: "eu-west-1a", ZoneID: "euw1-az1",
			Interfaces: []imds.Interface{{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 5}, IPv4: []netip.Addr{netip.MustParseAddr("10.0.1.5")},
				Subnet4: netip.MustParsePrefix("10.0.1.0/24")}},
		},
		Credentials: func() (imds.Credentials, bool) {
			return imds.Credentials{Role: "nodes", AccessKeyID: role.AccessKeyID, SecretKey: role.SecretAccessKey, Token: role.SessionToken,
				Expires: time.Now().Add(6 * time.Hour)}, true
		},
	})
	t.Cleanup(service.Close)
	return service.URL
}
