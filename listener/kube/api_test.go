package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// request is what the API server is asked, bodies as JSON however they were sent.
type request struct{ Method, Path, Type, Body string }

// apiServer answers every request the same way and remembers what it was asked.
type apiServer struct {
	code int
	body []byte

	mu   sync.Mutex
	seen []request
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	contentType := r.Header.Get("Content-Type")
	if contentType == runtime.ContentTypeProtobuf {
		obj, _, err := clientscheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
		if err == nil {
			body, err = json.Marshal(obj)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	s.mu.Lock()
	s.seen = append(s.seen, request{r.Method, r.URL.RequestURI(), contentType, strings.TrimSpace(string(body))})
	s.mu.Unlock()
	if json.Valid(s.body) {
		w.Header().Set("Content-Type", runtime.ContentTypeJSON)
	}
	w.WriteHeader(s.code)
	w.Write(s.body)
}

func (s *apiServer) requests() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// newAPI connects a Cluster to a server that answers code and body.
func newAPI(t *testing.T, code int, body string) (*apiServer, *Cluster) {
	t.Helper()
	s := &apiServer{code: code, body: []byte(body)}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	c, err := New(Config{REST: &rest.Config{Host: server.URL}})
	if err != nil {
		t.Fatal(err)
	}
	c.proof.note(nil)
	return s, c
}

func TestRequests(t *testing.T) {
	pod := policy.Pod{Namespace: "ns", Name: "web", UID: "u", ResourceVersion: "7", Phase: "Running"}
	node := policy.Node{Name: "n", UID: "u", ResourceVersion: "7"}
	death := policy.Death{Name: "r", UID: "u", Version: "7", Phase: policy.Cleaned}
	for _, tt := range []struct {
		name   string
		answer string
		do     func(*Cluster) error
		want   request
	}{
		{
			name:   "pods of a node are listed consistently by field",
			answer: `{"kind":"PodList","apiVersion":"v1"}`,
			do:     func(c *Cluster) error { _, err := c.Pods(t.Context(), "n"); return err },
			want:   request{Method: "GET", Path: "/api/v1/pods?fieldSelector=spec.nodeName%3Dn"},
		},
		{
			name:   "a pod is annotated through its status",
			answer: `{"kind":"Pod","apiVersion":"v1"}`,
			do: func(c *Cluster) error {
				_, err := c.AnnotatePod(t.Context(), pod, policy.Notice{Death: "r", Cause: "KernelPanic", Reason: "x"})
				return err
			},
			want: request{"PATCH", "/api/v1/namespaces/ns/pods/web/status?fieldManager=lastgasp-listener", "application/strategic-merge-patch+json",
				`{"metadata":{"uid":"u","resourceVersion":"7","annotations":{"lastgasp.dev/death":"r","lastgasp.dev/termination-by":"lastgasp-listener",` +
					`"lastgasp.dev/termination-code":"KernelPanic","lastgasp.dev/termination-reason":"x"}}}`},
		},
		{
			name:   "a farewell is all that changes of a pod",
			answer: `{"kind":"Pod","apiVersion":"v1"}`,
			do: func(c *Cluster) error {
				at := time.Date(2026, 11, 26, 18, 50, 0, 0, time.UTC)
				return c.AnnotateFarewell(t.Context(), pod, policy.Farewell{Boot: "b", Text: "rebooted by alice\x1b", At: at})
			},
			want: request{"PATCH", "/api/v1/namespaces/ns/pods/web/status?fieldManager=lastgasp-listener", "application/strategic-merge-patch+json",
				`{"metadata":{"uid":"u","annotations":{"lastgasp.dev/farewell":"rebooted by alice\\x1b at 2026-11-26T18:50:00Z, says the node"}}}`},
		},
		{
			name:   "a pod is deleted at once and by uid",
			answer: `{"kind":"Status","apiVersion":"v1","status":"Success"}`,
			do:     func(c *Cluster) error { return c.DeletePod(t.Context(), pod) },
			want: request{"DELETE", "/api/v1/namespaces/ns/pods/web", runtime.ContentTypeProtobuf,
				`{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0,"preconditions":{"uid":"u"}}`},
		},
		{
			name:   "a node is deleted by uid and version",
			answer: `{"kind":"Status","apiVersion":"v1","status":"Success"}`,
			do:     func(c *Cluster) error { return c.DeleteNode(t.Context(), node) },
			want: request{"DELETE", "/api/v1/nodes/n", runtime.ContentTypeProtobuf,
				`{"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"u","resourceVersion":"7"}}`},
		},
		{
			name:   "a death's status is written without its spec's content",
			answer: `{"kind":"NodeDeath","apiVersion":"lastgasp.dev/v1alpha1","spec":{"authority":"text"}}`,
			do:     func(c *Cluster) error { _, err := c.UpdateDeath(t.Context(), death); return err },
			want: request{"PUT", "/apis/lastgasp.dev/v1alpha1/nodedeaths/r/status?fieldManager=lastgasp-listener", runtime.ContentTypeJSON,
				`{"kind":"NodeDeath","apiVersion":"lastgasp.dev/v1alpha1","metadata":{"name":"r","uid":"u","resourceVersion":"7"},` +
					`"spec":{"node":"","time":null,"cause":"","reason":"","authority":""},` +
					`"status":{"phase":"Cleaned","pods":{"total":0,"failed":0,"summary":"0/0"}}}`},
		},
		{
			name:   "a death is deleted by uid and version",
			answer: `{"kind":"Status","apiVersion":"v1","status":"Success"}`,
			do:     func(c *Cluster) error { return c.DeleteDeath(t.Context(), death) },
			want: request{"DELETE", "/apis/lastgasp.dev/v1alpha1/nodedeaths/r", runtime.ContentTypeJSON,
				`{"kind":"DeleteOptions","apiVersion":"lastgasp.dev/v1alpha1","preconditions":{"uid":"u","resourceVersion":"7"}}`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, c := newAPI(t, http.StatusOK, tt.answer)
			if err := tt.do(c); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]request{tt.want}, s.requests()); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLeaseRenewed(t *testing.T) {
	at := time.Date(2026, 11, 21, 10, 0, 0, 123456000, time.UTC)
	for _, tt := range []struct {
		name, spec string
		want       policy.Renewal
		err        error
	}{
		{"as kubelets write it", `{"leaseDurationSeconds":120,"renewTime":"2026-11-21T10:00:00.123456Z"}`, policy.Renewal{At: at, Duration: 2 * time.Minute, Version: "7"}, nil},
		{"without a duration", `{"renewTime":"2026-11-21T10:00:00.123456Z"}`, policy.Renewal{At: at, Version: "7"}, nil},
		{"never renewed", `{"leaseDurationSeconds":40}`, policy.Renewal{}, cleanup.ErrNotFound},
	} {
		_, c := newAPI(t, http.StatusOK, `{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"resourceVersion":"7"},"spec":`+tt.spec+`}`)
		got, err := c.LeaseRenewed(t.Context(), "n")
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tt.name, diff)
		}
	}
}

func TestFailPodRefusesWithoutAsking(t *testing.T) {
	for _, p := range []policy.Pod{{Phase: "Succeeded"}, {Phase: "Failed"}, {Phase: "Running", Mirror: true}} {
		s, c := newAPI(t, http.StatusOK, `{"kind":"Pod","apiVersion":"v1"}`)
		if _, err := c.FailPod(t.Context(), p, policy.Notice{}); !errors.Is(err, cleanup.ErrDenied) {
			t.Errorf("fail %+v: %v, want ErrDenied", p, err)
		}
		if seen := s.requests(); len(seen) > 0 {
			t.Errorf("fail %+v: asked %v", p, seen)
		}
	}
}

func TestPatchNodeReadsOnlyWhatTheCacheLacks(t *testing.T) {
	cached := load(t, "node-kubelet-1.36.json")
	node := nodeFrom(cached)
	older := node
	older.ResourceVersion = "340"
	fence := true
	for _, tt := range []struct {
		name  string
		node  policy.Node
		cache bool
		want  []string
		err   error
	}{
		{"cache holds the version decided on", node, true, []string{"PATCH"}, nil},
		{"cache is empty", node, false, []string{"GET", "PATCH"}, nil},
		{"cache is ahead", older, true, []string{"GET"}, cleanup.ErrConflict},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, c := newAPI(t, http.StatusOK, string(read(t, "node-kubelet-1.36.json")))
			if tt.cache {
				cacheNode(t, c, cached)
			}
			if _, err := c.PatchNode(t.Context(), tt.node, cleanup.NodePatch{Fence: &fence}); !errors.Is(err, tt.err) {
				t.Errorf("patch node: %v, want %v", err, tt.err)
			}
			var got []string
			for _, r := range s.requests() {
				got = append(got, r.Method)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

// TestAnswers lets a server give the answers that a real one gave (Kubernetes 1.36; testdata/answers, named by status
// code and request).
func TestAnswers(t *testing.T) {
	want := map[string]error{
		"400-bad-request.json":      cleanup.ErrDenied,
		"403-patch-policy.json":     cleanup.ErrDenied,
		"403-patch-rbac.json":       cleanup.ErrDenied,
		"404-create-no-crd.txt":     nil, // the CRD may yet come
		"404-patch-gone.json":       cleanup.ErrNotFound,
		"409-create-exists.json":    cleanup.ErrExists,
		"409-delete-other-uid.json": cleanup.ErrConflict,
		"409-patch-stale.json":      cleanup.ErrConflict,
		"422-create-invalid.json":   cleanup.ErrDenied,
		"422-patch-other-uid.json":  cleanup.ErrConflict,
	}
	files, err := os.ReadDir("testdata/answers")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(want) {
		t.Errorf("%d answers, want %d", len(files), len(want))
	}
	for _, f := range files {
		t.Run(f.Name(), func(t *testing.T) {
			code, err := strconv.Atoi(f.Name()[:3])
			if err != nil {
				t.Fatal(err)
			}
			_, c := newAPI(t, code, string(read(t, filepath.Join("answers", f.Name()))))
			_, err = c.CreateDeath(t.Context(), policy.Death{Name: "r"})
			if err == nil {
				t.Fatal("no error")
			}
			for _, s := range []error{cleanup.ErrNotFound, cleanup.ErrExists, cleanup.ErrConflict, cleanup.ErrDenied, cleanup.ErrAmbiguous} {
				if got := errors.Is(err, s); got != (s == want[f.Name()]) {
					t.Errorf("%v: is %q: %v", err, s, got)
				}
			}
			if !strings.HasPrefix(err.Error(), "create death r: ") {
				t.Errorf("error %q does not say what was tried", err)
			}
		})
	}
}

// TestDenialsOfAdmission has webhooks and policies of others deny a write with every code that they may choose. What they say is no
// answer about the object.
func TestDenialsOfAdmission(t *testing.T) {
	hook, other := `admission webhook "pods.example.com" denied the request: not here`, `pods "web" is gone`
	policed := `pods "web" is forbidden: ValidatingAdmissionPolicy 'tenants' with binding 'tenants' denied request: not here`
	for _, tt := range []struct {
		code    int32
		reason  metav1.StatusReason
		message string
		want    error // nil: it may pass
	}{
		{400, "", hook, cleanup.ErrDenied},
		{401, metav1.StatusReasonUnauthorized, hook, cleanup.ErrDenied},
		{403, metav1.StatusReasonForbidden, hook, cleanup.ErrDenied},
		{404, metav1.StatusReasonNotFound, hook, cleanup.ErrDenied},
		{404, "", hook, cleanup.ErrDenied},
		{405, "", hook, cleanup.ErrDenied},
		{409, metav1.StatusReasonConflict, hook, cleanup.ErrDenied},
		{409, metav1.StatusReasonAlreadyExists, hook, cleanup.ErrDenied},
		{410, metav1.StatusReasonGone, hook, cleanup.ErrDenied},
		{422, metav1.StatusReasonInvalid, `admission webhook "pods.example.com" denied the request without explanation`, cleanup.ErrDenied},
		{500, metav1.StatusReasonInternalError, hook, nil},
		{503, "", hook, nil},
		{401, metav1.StatusReasonUnauthorized, policed, cleanup.ErrDenied},
		{403, metav1.StatusReasonForbidden, policed, cleanup.ErrDenied},
		{403, metav1.StatusReasonForbidden, strings.ReplaceAll(policed, "tenants", "lastgasp-listener-pods"), cleanup.ErrForbidden},
		{403, metav1.StatusReasonForbidden, `pods "web" is forbidden: User "x" cannot patch resource "pods/status"`, cleanup.ErrForbidden},
		{413, metav1.StatusReasonRequestEntityTooLarge, policed, cleanup.ErrDenied},
		{401, metav1.StatusReasonUnauthorized, "Unauthorized", nil}, // the token has expired: the next one is read
		{404, metav1.StatusReasonNotFound, other, cleanup.ErrNotFound},
		{409, metav1.StatusReasonConflict, other, cleanup.ErrConflict},
	} {
		t.Run(fmt.Sprintf("%d %s %.20s", tt.code, tt.reason, tt.message), func(t *testing.T) {
			status, err := json.Marshal(metav1.Status{
				TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: tt.code, Reason: tt.reason, Message: tt.message,
			})
			if err != nil {
				t.Fatal(err)
			}
			_, c := newAPI(t, int(tt.code), string(status))
			_, err = c.FailPod(t.Context(), policy.Pod{Namespace: "ns", Name: "web", UID: "u"}, policy.Notice{})
			if got := sentinel(err); got != tt.want {
				t.Errorf("%v is %v, want %v", err, got, tt.want)
			}
		})
	}
}

// What is as large as etcd takes can be written no more, however often: whoever may make a pod can make it so. The API server passes
// on etcd's words as a fault of its own (isTooLargeError in k8s.io/apiserver/pkg/endpoints/handlers/rest.go).
func TestObjectsAsLargeAsEtcdTakes(t *testing.T) {
	for message, want := range map[string]bool{
		"etcdserver: request is too large": true,
		"rpc error: code = ResourceExhausted desc = trying to send message larger than max (2097160 vs. 2097152)": true,
		"etcdserver: request timed out": false,
	} {
		status, err := json.Marshal(metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: 500, Message: message,
		})
		if err != nil {
			t.Fatal(err)
		}
		_, c := newAPI(t, 500, string(status))
		_, err = c.AnnotatePod(t.Context(), policy.Pod{Namespace: "ns", Name: "p", UID: "u"}, policy.Notice{})
		if err == nil || errors.Is(err, cleanup.ErrFull) != want {
			t.Errorf("%v: is %q: %t, want %t", err, cleanup.ErrFull, !want, want)
		}
	}
}

func TestNewRefusesAnnotationKeys(t *testing.T) {
	for key, want := range map[string]string{
		"pod.titus.netflix.com/pod-termination-reason": "",
		"no spaces": `annotation key "no spaces": `,
		"a/b/c":     `annotation key "a/b/c": `,
	} {
		_, err := New(Config{REST: &rest.Config{Host: "http://127.0.0.1:1"}, Annotations: Annotations{By: key}})
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("New with key %q: %v, want %q", key, err, want)
		}
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A listener that cannot list says why: the definition or a right is missing, or there is no answer.
func TestReadySaysWhatCannotBeListed(t *testing.T) {
	for _, tt := range []struct {
		name string
		code int
		body string
		node bool // Nodes are listed
		want string
	}{
		{"not yet asked", 0, "", false, "the Nodes have not been listed yet"},
		{"no right", 403, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"nodes is forbidden"}`, false,
			"the Nodes cannot be listed: failed to list *v1.Node: nodes is forbidden"},
		{"no definition", 404, "404 page not found", true,
			"the NodeDeaths cannot be listed: apply packaging/kubernetes/base/crd.yaml: failed to list *v1alpha1.NodeDeath: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, c := newAPI(t, tt.code, tt.body)
			if tt.code == 0 {
				if err := c.Ready(); err == nil || err.Error() != tt.want {
					t.Fatalf("%v, want %s", err, tt.want)
				}
				return
			}
			if tt.node {
				c.nodes = listed{c.nodes}
			}
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { _ = c.Run(ctx) })
			t.Cleanup(func() { cancel(); running.Wait() })
			for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
				err := c.Ready()
				if err != nil && strings.HasPrefix(err.Error(), tt.want) {
					return
				}
				if time.Now().After(end) {
					t.Fatalf("%v, want %s…", err, tt.want)
				}
			}
		})
	}
}

// listed is an informer that has listed.
type listed struct{ cache.SharedIndexInformer }

func (listed) HasSynced() bool { return true }
