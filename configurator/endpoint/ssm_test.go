package endpoint

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/configurator/ec2"
	"github.com/lastgasp/lastgasp/e2e/cloud/imds"
)

func TestSSMCandidates(t *testing.T) {
	candidates := []string{"/lastgasp/{cluster}/endpoint", "/lastgasp/{region}/{az-id}/endpoint", "/lastgasp/{region}/endpoint"}
	zoned := Place{Region: "eu-west-1", ZoneID: "euw1-az1"}
	for _, tt := range []struct {
		name   string
		place  Place
		there  []Parameter
		err    error // of the service
		asked  []string
		where  string
		host   string
		fails  error  // as errors.Is
		failed string // contains
	}{
		{name: "the first that exists wins", place: zoned,
			there: []Parameter{{Name: "/lastgasp/eu-west-1/endpoint", Value: "10.0.9.9:6666", Version: 1}, {Name: "/lastgasp/eu-west-1/euw1-az1/endpoint", Value: "10.0.2.10:6666", Version: 3}},
			asked: []string{"/lastgasp/eu-west-1/euw1-az1/endpoint", "/lastgasp/eu-west-1/endpoint"},
			where: "ssm /lastgasp/eu-west-1/euw1-az1/endpoint version 3", host: "10.0.2.10"},
		{name: "a later one if the first does not exist", place: zoned,
			there: []Parameter{{Name: "/lastgasp/eu-west-1/endpoint", Value: "10.0.9.9:6666", Version: 1}},
			asked: []string{"/lastgasp/eu-west-1/euw1-az1/endpoint", "/lastgasp/eu-west-1/endpoint"},
			where: "ssm /lastgasp/eu-west-1/endpoint version 1", host: "10.0.9.9"},
		{name: "what cannot be filled in is not asked for", place: Place{Region: "eu-west-1"},
			asked: []string{"/lastgasp/eu-west-1/endpoint"}, where: "ssm", fails: ErrAbsent, failed: "/lastgasp/eu-west-1/endpoint does not exist"},
		{name: "nothing can be filled in", where: "ssm", fails: ErrAbsent, failed: "can be filled in here"},
		{name: "a bad value names its parameter", place: Place{Region: "eu-west-1"},
			there: []Parameter{{Name: "/lastgasp/eu-west-1/endpoint", Value: "10.0.2.300:6666", Version: 7}},
			asked: []string{"/lastgasp/eu-west-1/endpoint"}, where: "ssm /lastgasp/eu-west-1/endpoint version 7", failed: `"10.0.2.300" is neither`},
		{name: "the service refuses", place: Place{Region: "eu-west-1"}, err: ErrThrottled,
			asked: []string{"/lastgasp/eu-west-1/endpoint"}, where: "ssm", fails: ErrThrottled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var asked []string
			s := SSM{
				Names: candidates,
				Place: func(context.Context) (Place, error) { return tt.place, nil },
				Get: func(_ context.Context, _ string, names []string) ([]Parameter, error) {
					if asked != nil {
						t.Error("asked twice")
					}
					asked = names
					return tt.there, tt.err
				},
			}
			got, where, err := s.Find(t.Context())
			if diff := cmp.Diff(tt.asked, asked); diff != "" {
				t.Errorf("asked for (-want +got):\n%s", diff)
			}
			if where != tt.where {
				t.Errorf("where %q, want %q", where, tt.where)
			}
			if tt.host != "" {
				if err != nil || len(got) != 1 || got[0].Host != tt.host {
					t.Errorf("%v, %v; want %s", got, err, tt.host)
				}
				return
			}
			if err == nil || tt.fails != nil && !errors.Is(err, tt.fails) || !strings.Contains(err.Error(), tt.failed) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// parameterStore speaks the service's protocol, AWS JSON 1.1, as far as GetParameters goes.
func parameterStore(t *testing.T, values map[string]string, fault func(w http.ResponseWriter) bool) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Names []string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Header.Get("X-Amz-Target") != "AmazonSSM.GetParameters" ||
			!strings.Contains(r.Header.Get("Authorization"), "/eu-west-1/ssm/aws4_request") {
			t.Errorf("request for %q, signed %q: %v", r.Header.Get("X-Amz-Target"), r.Header.Get("Authorization"), err)
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		if fault != nil && fault(w) {
			return
		}
		type parameter struct {
			Name, Type, Value, Selector string `json:",omitempty"`
			Version                     int64
		}
		var out struct {
			Parameters        []parameter
			InvalidParameters []string
		}
		slices.Sort(in.Names) // as the service orders its answers
		for _, full := range in.Names {
			name, label, labelled := strings.Cut(full, ":")
			value, ok := values[name]
			if !ok {
				out.InvalidParameters = append(out.InvalidParameters, full)
				continue
			}
			p := parameter{Name: name, Type: "String", Value: value, Version: 3}
			if value == "encrypted" {
				p.Type = "SecureString"
			}
			if labelled {
				p.Selector = ":" + label
			}
			out.Parameters = append(out.Parameters, p)
		}
		json.NewEncoder(w).Encode(out)
	}))
	t.Cleanup(server.Close)
	t.Setenv("AWS_ENDPOINT_URL_SSM", server.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "example")
}

// noMetadata is for credentials from the environment.
func noMetadata() *ec2.Client {
	panic("the metadata service was asked for credentials that are in the environment")
}

func TestGetParameters(t *testing.T) {
	parameterStore(t, map[string]string{"/lastgasp/a": "10.0.2.10:6666", "/lastgasp/b": "10.0.3.10:6666", "/lastgasp/c": "encrypted"}, nil)
	got, err := GetParameters(noMetadata)(t.Context(), "eu-west-1", []string{"/lastgasp/b:live", "/lastgasp/missing", "/lastgasp/a", "/lastgasp/c"})
	if err != nil {
		t.Fatal(err)
	}
	want := []Parameter{
		{Name: "/lastgasp/a", Value: "10.0.2.10:6666", Version: 3},
		{Name: "/lastgasp/b:live", Value: "10.0.3.10:6666", Version: 3},
		{Name: "/lastgasp/c", Value: "encrypted", Version: 3, Secure: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("parameters (-want +got):\n%s", diff)
	}
}

// TestSecureString: without decryption Parameter Store returns what the key management service made of the text.
func TestSecureString(t *testing.T) {
	s := SSM{
		Names: []string{"/lastgasp/endpoint"},
		Place: func(context.Context) (Place, error) { return Place{Region: "eu-west-1"}, nil },
		Get: func(context.Context, string, []string) ([]Parameter, error) {
			return []Parameter{{Name: "/lastgasp/endpoint", Value: "AQICAHhexample", Version: 1, Secure: true}}, nil
		},
	}
	const want = "it is a SecureString, which is not decrypted here; store it as a String"
	if _, where, err := s.Find(t.Context()); err == nil || err.Error() != want || where != "ssm /lastgasp/endpoint version 1" {
		t.Errorf("%s: %v, want %s", where, err, want)
	}
}

func TestGetParametersErrors(t *testing.T) {
	for _, tt := range []struct {
		name, code, message string
		throttled           bool
		want                string
	}{
		{name: "throttled", code: "ThrottlingException", message: "Rate exceeded", throttled: true, want: "throttled: Rate exceeded"},
		{name: "denied", code: "AccessDeniedException", message: "no identity-based policy allows it", want: "allow ssm:GetParameters to the instance's role"},
		{name: "anything else", code: "ValidationException", message: "bad name", want: "ValidationException: bad name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			requests := 0
			parameterStore(t, nil, func(w http.ResponseWriter) bool {
				requests++
				w.WriteHeader(http.StatusBadRequest)
				json.NewEncoder(w).Encode(map[string]string{"__type": tt.code, "message": tt.message})
				return true
			})
			_, err := GetParameters(noMetadata)(t.Context(), "eu-west-1", []string{"/lastgasp/a"})
			if err == nil || errors.Is(err, ErrThrottled) != tt.throttled || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v", err)
			}
			if requests != 1 {
				t.Errorf("%d requests: a fleet that repeats what was refused stays refused", requests)
			}
		})
	}
}

// On an instance the role's credentials come from its metadata service, which may not have them yet while it boots.
func TestGetParametersWithTheRoleOfAnInstance(t *testing.T) {
	parameterStore(t, map[string]string{"/lastgasp/a": "10.0.2.10:6666"}, nil)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	var asked atomic.Bool
	metadata := httptest.NewServer(&imds.Service{
		Instance: imds.Instance{Interfaces: []imds.Interface{{IPv4: []netip.Addr{netip.MustParseAddr("10.0.1.5")}}}},
		Credentials: func() (imds.Credentials, bool) {
			return imds.Credentials{
				Role: "node", AccessKeyID: "ASIAEXAMPLE", SecretKey: "example", Token: "session", Expires: time.Now().Add(time.Hour),
			}, asked.Swap(true)
		},
	})
	t.Cleanup(metadata.Close)
	got, err := GetParameters(func() *ec2.Client { return ec2.New(metadata.URL) })(t.Context(), "eu-west-1", []string{"/lastgasp/a"})
	if err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	if !asked.Load() {
		t.Error("nobody asked for the role")
	}
}

// An instance may have no role at all: then its metadata service never knows one, and the caller's deadline ends the
// waiting. What is known from before is used.
func TestWithoutARoleTheLastKnownGoodListenersCount(t *testing.T) {
	parameterStore(t, nil, func(http.ResponseWriter) bool {
		t.Error("Parameter Store was asked without credentials")
		return false
	})
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	ctx, cancel := context.WithCancel(t.Context())
	metadata := httptest.NewServer(&imds.Service{
		Instance: imds.Instance{Interfaces: []imds.Interface{{IPv4: []netip.Addr{netip.MustParseAddr("10.0.1.5")}}}},
		Fault: func(_ http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, "/latest/meta-data/iam/") {
				cancel() // the pass has waited long enough
			}
			return false
		},
	})
	t.Cleanup(metadata.Close)
	last := LastGood{File: filepath.Join(t.TempDir(), "endpoints.json"), Instance: "i-1", MACs: []string{"02:00:00:00:00:01"}}
	if err := last.Save(Found{Endpoints: list(t, "10.0.2.10:6666"), Where: "ssm /lastgasp/a version 1"}, "02:00:00:00:00:01", now); err != nil {
		t.Fatal(err)
	}
	f := Finder{Last: &last, Sources: []Source{SSM{
		Names: []string{"/lastgasp/a"},
		Place: func(context.Context) (Place, error) { return Place{Region: "eu-west-1"}, nil },
		Get:   GetParameters(func() *ec2.Client { return ec2.New(metadata.URL) }),
	}}}
	found, err := f.Find(ctx)
	if err != nil || !found.Stale || len(found.Endpoints) != 1 || found.Throttled {
		t.Errorf("found %+v, %v", found, err)
	}
	if len(found.Passed) != 1 || !strings.Contains(found.Passed[0], "ask ssm in eu-west-1 for /lastgasp/a: ") {
		t.Errorf("passed over: %q", found.Passed)
	}
}
