package ec2

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/e2e/cloud/imds"
)

func TestInstance(t *testing.T) {
	client := startIMDS(t, &imds.Service{Instance: twoENIs()})
	got, err := client.Instance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := Instance{
		ID: "i-0123456789abcdef0", Region: "eu-west-1", ZoneName: "eu-west-1b", ZoneID: "euw1-az1",
		Interfaces: []Interface{
			{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 5}, Primary: true,
				Addrs: []netip.Addr{netip.MustParseAddr("10.0.1.5"), netip.MustParseAddr("10.0.1.6")}},
			{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9},
				Addrs: []netip.Addr{netip.MustParseAddr("2001:db8::77"), netip.MustParseAddr("10.0.1.77")}},
		},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("instance (-want +got):\n%s", diff)
	}
}

// The region is enough to ask Parameter Store, and for names without a zone.
func TestInstanceWithoutAZoneID(t *testing.T) {
	client := startIMDS(t, &imds.Service{Instance: twoENIs(), Fault: func(w http.ResponseWriter, r *http.Request) bool {
		switch r.URL.Path {
		case "/latest/meta-data/placement/":
			io.WriteString(w, "availability-zone\nregion")
		case "/latest/meta-data/placement/availability-zone-id":
			http.NotFound(w, r)
		default:
			return false
		}
		return true
	}})
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	defer cancel()
	if i, err := client.Instance(ctx); err != nil || i.Region != "eu-west-1" || i.ZoneName != "eu-west-1b" || i.ZoneID != "" || len(i.Interfaces) != 2 {
		t.Errorf("%+v, %v", i, err)
	}
}

func TestOneTokenServesAllRequests(t *testing.T) {
	svc := &imds.Service{Instance: twoENIs()}
	client := startIMDS(t, svc)
	for range 2 {
		if _, err := client.Instance(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(svc, "/latest/api/token"); n != 1 {
		t.Errorf("%d tokens were minted", n)
	}
}

func TestInstanceIsPatient(t *testing.T) {
	for _, tt := range []struct {
		name  string
		times int32 // the fault happens
		path  string
		fault func(w http.ResponseWriter, r *http.Request)
	}{
		{"what is not known yet", 2, "/latest/meta-data/placement/availability-zone-id", http.NotFound},
		{"a service that fails", 2, "/latest/meta-data/instance-id", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
		}},
		{"a connection that breaks", 1, "/latest/meta-data/mac", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				conn.Close()
			}
		}},
		{"a request that hangs", 1, "/latest/meta-data/instance-id", func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}},
		{"a token request that hangs", 1, "/latest/api/token", func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var faults atomic.Int32
			client := startIMDS(t, &imds.Service{Instance: twoENIs(), Fault: func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != tt.path || faults.Add(1) > tt.times {
					return false
				}
				tt.fault(w, r)
				return true
			}})
			ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
			defer cancel()
			if i, err := client.Instance(ctx); err != nil || i.ID == "" {
				t.Errorf("%+v, %v", i, err)
			}
			if faults.Load() <= tt.times {
				t.Error("the fault did not happen")
			}
		})
	}
}

func TestAnExpiredTokenIsReplaced(t *testing.T) {
	svc := &imds.Service{Instance: twoENIs()}
	client := startIMDS(t, svc)
	if _, err := client.Instance(t.Context()); err != nil {
		t.Fatal(err)
	}
	svc.Forget()
	if _, err := client.Instance(t.Context()); err != nil {
		t.Errorf("after the tokens were forgotten: %v", err)
	}
}

func TestVersion1IsNeverUsed(t *testing.T) {
	// The first version would answer.
	svc := &imds.Service{Instance: twoENIs(), Version1: true, Fault: func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/latest/api/token" {
			http.Error(w, "forbidden", http.StatusForbidden)
			return true
		}
		return false
	}}
	client := startIMDS(t, svc)
	if _, err := client.Instance(t.Context()); err == nil {
		t.Error("no error though no token was to be had")
	}
	for _, r := range svc.Requests() {
		if strings.HasPrefix(r, "GET ") {
			t.Errorf("%s without a token", r)
		}
	}
}

func TestInstanceEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	client := startIMDS(t, &imds.Service{Fault: func(w http.ResponseWriter, r *http.Request) bool {
		cancel() // the caller gives up while the service does not know anything
		http.NotFound(w, r)
		return true
	}})
	if _, err := client.Instance(ctx); err == nil {
		t.Error("no error")
	}
}
