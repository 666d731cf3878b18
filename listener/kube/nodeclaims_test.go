package kube

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// Some versions of Kubernetes let a kubelet write its Node's owners, whose names become paths. One that leads elsewhere is no NodeClaim.
func TestClaimOf(t *testing.T) {
	for _, tt := range []struct {
		version, name string
		want          bool
	}{
		{"karpenter.sh/v1", "gpu-x", true},
		{"karpenter.sh/v1beta1", "gpu-x.example", true},
		{"karpenter.k8s.aws/v1", "gpu-x", false},
		{"karpenter.sh/v1", "../../../../api/v1/nodes/victim", false},
		{"karpenter.sh/v1", "gpu-x/status", false},
		{"karpenter.sh/v1", "gpu-x?dryRun=", false},
		{"karpenter.sh/v1", "", false},
		{"karpenter.sh/..", "gpu-x", false},
		{"karpenter.sh/", "gpu-x", false},
	} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{
			{APIVersion: tt.version, Kind: "NodeClaim", Name: tt.name, UID: "u"}}}}
		want := policy.Owner{}
		if tt.want {
			want = policy.Owner{APIVersion: tt.version, Kind: "NodeClaim", Name: tt.name, UID: "u"}
		}
		if got := claimOf(n); got != want {
			t.Errorf("%s %q: %+v, want %+v", tt.version, tt.name, got, want)
		}
	}
}

// A NodeClaim is deleted only if it says itself that the Node is its own, whatever the Node says.
func TestDeleteNodeClaim(t *testing.T) {
	n := policy.Node{
		Name: "n1", UID: "u", BootID: "b", ProviderID: "aws:///use1-az1/i-0123456789abcdef0",
		NodeClaim: policy.Owner{APIVersion: "karpenter.sh/v1", Kind: "NodeClaim", Name: "gpu-x", UID: "u"},
	}
	const path, node = "/apis/karpenter.sh/v1/nodeclaims/gpu-x", "/api/v1/nodes/n1"
	// The Node is read, too: in this answer it is the same object.
	own := func(uid, boot string) string {
		return `{"kind":"Node","apiVersion":"v1","metadata":{"name":"n1","uid":"` + uid + `","resourceVersion":"7"},
			"status":{"nodeName":"n1","providerID":"aws:///use1-az1/i-0123456789abcdef0","nodeInfo":{"bootID":"` + boot + `"}}}`
	}
	marked := []string{"GET " + path, "PATCH " + path + "?fieldManager=lastgasp-listener", "GET " + node}
	for _, tt := range []struct {
		name, claim string
		want        error
		requests    []string
	}{
		{"its own", own("u", "b"), nil, append(slices.Clone(marked), "DELETE "+path)},
		{"its own, and the machine is back", own("u", "later"), cleanup.ErrConflict, marked},
		{"on its way", `{"metadata":{"uid":"u","deletionTimestamp":"2026-03-01T12:00:00Z"},"status":{"nodeName":"n1","providerID":"aws:///use1-az1/i-0123456789abcdef0"}}`,
			nil, []string{"GET " + path}},
		{"another node's", `{"metadata":{"uid":"u"},"status":{"nodeName":"n2","providerID":"aws:///use1-az1/i-0123456789abcdef0"}}`,
			cleanup.ErrDenied, []string{"GET " + path}},
		{"another machine's", `{"metadata":{"uid":"u"},"status":{"nodeName":"n1","providerID":"aws:///use1-az1/i-0fff"}}`,
			cleanup.ErrDenied, []string{"GET " + path}},
		{"one of no machine yet", `{"metadata":{"uid":"u"},"status":{"nodeName":"n1"}}`, cleanup.ErrDenied, []string{"GET " + path}},
		{"another one of that name", `{"metadata":{"uid":"v"},"status":{"nodeName":"n1","providerID":"aws:///use1-az1/i-0123456789abcdef0"}}`,
			cleanup.ErrNotFound, []string{"GET " + path}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, c := newAPI(t, http.StatusOK, tt.claim)
			c.proof.note(nil)
			if err := c.DeleteNodeClaim(t.Context(), n, "n1-0123"); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			var got []string
			for _, r := range s.requests() {
				got = append(got, r.Method+" "+r.Path)
				if r.Method == http.MethodPatch && !strings.Contains(r.Body, `"annotations":{"lastgasp.dev/death":"n1-0123"}`) ||
					r.Method == http.MethodDelete && (r.Type != "application/json" || !strings.Contains(r.Body, `"kind":"DeleteOptions","apiVersion":"v1"`)) ||
					r.Method != http.MethodGet && (!strings.Contains(r.Body, `"uid":"u"`) || !strings.Contains(r.Body, `"resourceVersion":"7"`)) {
					t.Errorf("%s %s", r.Method, r.Body)
				}
			}
			if strings.Join(got, ", ") != strings.Join(tt.requests, ", ") {
				t.Errorf("requests %q, want %q", got, tt.requests)
			}
		})
	}
}
