package page

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// world is a Source with what it is given.
type world struct {
	deaths []policy.Death
	fleet  []Node
	err    error
}

func (w world) Deaths(context.Context) ([]policy.Death, error) {
	out := make([]policy.Death, 0, len(w.deaths))
	for _, d := range w.deaths {
		if d.Packed == "" {
			d.Packed = policy.PackPods(d.Pods, d.Images)
		}
		d.Pods, d.Images, d.Trace, d.Outcomes = nil, nil, nil, nil
		out = append(out, d)
	}
	return out, w.err
}

func (w world) Death(_ context.Context, name string) (policy.Death, error) {
	for _, d := range w.deaths {
		if d.Name == name {
			return d, w.err
		}
	}
	if strings.Contains(name, "/") { // as client-go does
		return policy.Death{}, errors.New("invalid resource name")
	}
	return policy.Death{}, ErrNotFound
}

func (w world) Fleet() []Node { return w.fleet }

// died is a death of one of two bugs, n hours ago.
func died(n int) policy.Death {
	d := policy.Death{
		Name: fmt.Sprintf("ip-10-0-0-%d-b1", n), Node: fmt.Sprintf("ip-10-0-0-%d", n), Instance: fmt.Sprintf("i-%d", n), Boot: "b1",
		Time: now.Add(-time.Duration(n) * time.Hour), Source: netip.MustParseAddrPort(fmt.Sprintf("10.0.0.%d:6665", n%250)),
		Cause: "KernelPanic", Reason: "null pointer dereference in foo_write", Fingerprint: "0123456789ab", Release: "6.12.1",
		Evidence: []policy.Evidence{policy.ByNetconsole}, Authority: detect.Pinned,
		NodeInfo: policy.NodeInfo{InstanceType: "m6i.large", Zone: "euw1-az1", NodePool: "batch", Image: "Debian 13"},
		Pods: []policy.DeadPod{
			{Namespace: "shop", Name: fmt.Sprintf("cart-7d9f-%04d", n), UID: "u1", OwnerKind: "ReplicaSet", OwnerName: "cart-7d9f", Images: []int{0}},
			{Namespace: "batch", Name: fmt.Sprintf("crunch-%04d", n), UID: "u2", OwnerKind: "Job", OwnerName: "crunch", Images: []int{1}},
		},
		Images: []string{"registry/cart:1", "registry/crunch:2"},
		Trace:  []string{"BUG: kernel NULL pointer dereference", "RIP: 0010:foo_write+0x12/0x40", " vfs_write+0x1/0x2"},
		Phase:  policy.Cleaned, Decision: "the kernel said so with its secret", PodsTotal: 2, PodsFailed: 2,
		Steps: []policy.StepStatus{{Name: "fence", Done: true, Time: now.Add(-time.Duration(n)*time.Hour + 40*time.Millisecond), Note: "tainted"}},
	}
	if n%2 == 1 {
		d.Cause, d.Reason, d.Fingerprint = "HardLockup", "hard LOCKUP in bar_spin", "ba9876543210"
	}
	return d
}

// get asks for an address of a Page on w.
func get(t *testing.T, w world, path, accept string) (int, string, http.Header) {
	t.Helper()
	p := Page{Source: w, Cluster: "prod-1", Version: "v1", Now: func() time.Time { return now }}
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("Accept", accept)
	out := httptest.NewRecorder()
	p.Handler().ServeHTTP(out, r)
	return out.Code, out.Body.String(), out.Header()
}
