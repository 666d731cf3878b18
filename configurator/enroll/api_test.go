package enroll

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// api is an API server of one Node, as far as a kubelet's credentials go: lists, watches and merge patches.
type api struct {
	url string
	ca  []byte // PEM

	mu      sync.Mutex
	user    string
	groups  []string
	node    *object // nil: not registered
	version int
	uids    int
	history []entry
	changed chan struct{} // closed when history grows or something below changes
	// refusePatch answers patches with this code if it is not zero, refuse everything.
	refusePatch, refuse int
	oldest              int  // version before which history is forgotten
	cut                 int  // how often watches were cut off
	short               bool // watches end at once
	stale               bool // lists come from a cache that has not seen the last change
	patches             []string
	asked               map[string]int // by method
	serials             []int64        // of the client certificates, one for each connection
}

type object struct {
	UID         string
	Boot        string
	Annotations map[string]string
	Version     int
}

type entry struct {
	kind    string
	object  object
	version int
}

func (o object) json() map[string]any {
	return map[string]any{
		"kind": "Node", "apiVersion": "v1",
		"metadata": map[string]any{"name": "node-1", "uid": o.UID, "resourceVersion": strconv.Itoa(o.Version), "annotations": o.Annotations},
		"spec":     map[string]any{"providerID": "aws:///euw1-az1/i-0123456789abcdef0"},
		"status":   map[string]any{"nodeInfo": map[string]any{"bootID": o.Boot, "kernelVersion": "6.12.1"}},
	}
}

// newAPI starts it on a network without sockets, so that it may live in a synctest bubble. The function it returns dials
// it.
func newAPI(t *testing.T) (*api, func(context.Context, string, string) (net.Conn, error)) {
	t.Helper()
	a := &api{
		url: "https://10.0.0.10:6443", user: "system:node:node-1", groups: []string{"system:nodes", "system:authenticated"},
		version: 10, changed: make(chan struct{}), asked: map[string]int{},
	}
	authority, server := issue(t, nil, 1), (*issued)(nil)
	server = issue(t, authority, 2)
	a.ca = authority.cert
	pair, err := tls.X509KeyPair(server.cert, server.key)
	if err != nil {
		t.Fatal(err)
	}
	pipes := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	srv := &http.Server{Handler: a, ErrorLog: log.New(io.Discard, "", 0)}
	go srv.Serve(tls.NewListener(pipes, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert,
		VerifyConnection: func(s tls.ConnectionState) error {
			a.mu.Lock()
			defer a.mu.Unlock()
			for _, c := range s.PeerCertificates {
				a.serials = append(a.serials, c.SerialNumber.Int64())
			}
			return nil
		}}))
	t.Cleanup(func() { srv.Close() })
	return a, pipes.dial
}

// kubeconfig writes one with a client certificate in a file beside it, which may be replaced.
func (a *api) kubeconfig(t *testing.T) (file string, rotate func(serial int64)) {
	t.Helper()
	dir := t.TempDir()
	file = filepath.Join(dir, "kubelet.conf")
	authority := issue(t, nil, 1)
	rotate = func(serial int64) {
		pair := issue(t, authority, serial)
		if err := os.WriteFile(filepath.Join(dir, "client.pem"), append(pair.cert, pair.key...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rotate(100)
	text := fmt.Sprintf(`{"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
"clusters": [{"name": "c", "cluster": {"server": %q, "certificate-authority-data": %q}}],
"users": [{"name": "u", "user": {"client-certificate": "client.pem", "client-key": "client.pem"}}]}`, a.url, base64.StdEncoding.EncodeToString(a.ca))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, rotate
}

// change does something to the Node and tells those who watch.
func (a *api) change(kind string, change func(*object)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.changeLocked(kind, change)
}

func (a *api) changeLocked(kind string, change func(*object)) {
	a.version++
	if a.node == nil {
		a.uids++
		a.node = &object{UID: fmt.Sprintf("uid-%d", a.uids)}
	}
	next := *a.node
	next.Annotations = maps.Clone(next.Annotations)
	if next.Annotations == nil {
		next.Annotations = map[string]string{}
	}
	change(&next)
	next.Version = a.version
	a.history = append(a.history, entry{kind, next, a.version})
	a.node = &next
	if kind == "DELETED" {
		a.node = nil
	}
	a.signal()
}

func (a *api) signal() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// set changes how it behaves.
func (a *api) set(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
	a.signal()
}

func (a *api) register(boot string) { a.change("ADDED", func(o *object) { o.Boot = boot }) }
func (a *api) remove()              { a.change("DELETED", func(*object) {}) }
func (a *api) annotate(key, value string) {
	a.change("MODIFIED", func(o *object) { o.Annotations[key] = value })
}

// annotation of the Node as it is now, empty without a Node.
func (a *api) annotation(key string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.node == nil {
		return ""
	}
	return a.node.Annotations[key]
}

func (a *api) count(method string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked[method]
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	what := r.Method
	if r.URL.Query().Get("watch") != "" {
		what = "WATCH"
	}
	a.asked[what]++
	refuse := a.refuse
	a.mu.Unlock()
	if refuse != 0 {
		fail(w, refuse, "no\x1b[31m thanks\n")
		return
	}
	switch {
	case what == "POST" && r.URL.Path == "/apis/authentication.k8s.io/v1/selfsubjectreviews":
		answer(w, map[string]any{"status": map[string]any{"userInfo": map[string]any{"username": a.user, "groups": a.groups}}})
	case r.URL.Path == "/api/v1/nodes" && r.URL.Query().Get("fieldSelector") != "metadata.name=node-1":
		fail(w, http.StatusForbidden, "node \"node-1\" cannot read all nodes") // as the Node authorizer
	case what == "WATCH":
		a.watch(w, r)
	case what == "GET" && r.URL.Path == "/api/v1/nodes":
		a.list(w)
	case what == "PATCH" && r.URL.Path == "/api/v1/nodes/node-1" && r.Header.Get("Content-Type") == "application/merge-patch+json":
		a.patch(w, r)
	default:
		fail(w, http.StatusNotFound, r.Method+" "+r.URL.String())
	}
}

func (a *api) list(w http.ResponseWriter) {
	a.mu.Lock()
	defer a.mu.Unlock()
	items, version := []any{}, a.version
	if a.node != nil {
		items = append(items, a.node.json())
	}
	if a.stale {
		last := a.history[len(a.history)-2]
		items, version = []any{last.object.json()}, last.version
	}
	answer(w, map[string]any{"metadata": map[string]any{"resourceVersion": strconv.Itoa(version)}, "items": items})
}

func (a *api) patch(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var p struct {
		Metadata struct {
			UID         string
			Annotations map[string]string
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.patches = append(a.patches, string(body))
	switch err := json.Unmarshal(body, &p); {
	case err != nil:
		fail(w, http.StatusBadRequest, err.Error())
	case a.refusePatch != 0:
		fail(w, a.refusePatch, "nodes \"node-1\" is forbidden: policy lastgasp-pin denied request")
	case a.node == nil:
		fail(w, http.StatusNotFound, "nodes \"node-1\" not found")
	case p.Metadata.UID != a.node.UID:
		fail(w, http.StatusConflict, "the UID in the precondition is another")
	default:
		if !covers(a.node.Annotations, p.Metadata.Annotations) {
			a.changeLocked("MODIFIED", func(o *object) { maps.Copy(o.Annotations, p.Metadata.Annotations) })
		}
		answer(w, a.node.json())
	}
}

func covers(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

// watch sends what happened since the version asked for, and what happens, until its time is over.
func (a *api) watch(w http.ResponseWriter, r *http.Request) {
	since, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	seconds, _ := strconv.Atoi(r.URL.Query().Get("timeoutSeconds"))
	over := time.After(time.Duration(seconds) * time.Second)
	a.mu.Lock()
	cut, short := a.cut, a.short
	a.mu.Unlock()
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	if short {
		return
	}
	for {
		a.mu.Lock()
		if a.cut != cut {
			a.mu.Unlock()
			panic(http.ErrAbortHandler)
		}
		if since < a.oldest {
			event, _ := json.Marshal(map[string]any{"type": "ERROR", "object": map[string]any{"kind": "Status", "status": "Failure", "code": 410, "message": "too old resource version"}})
			a.mu.Unlock()
			w.Write(append(event, '\n'))
			return
		}
		var lines []byte
		for _, e := range a.history {
			if e.version > since {
				event, _ := json.Marshal(map[string]any{"type": e.kind, "object": e.object.json()})
				lines = append(append(lines, event...), '\n')
				since = e.version
			}
		}
		changed := a.changed
		a.mu.Unlock()
		if len(lines) > 0 {
			w.Write(lines)
			w.(http.Flusher).Flush()
		}
		select {
		case <-r.Context().Done():
			return
		case <-over:
			return
		case <-time.After(time.Minute):
			fmt.Fprintf(w, `{"type":"BOOKMARK","object":{"kind":"Node","metadata":{"resourceVersion":"%d"}}}`+"\n", since)
			w.(http.Flusher).Flush()
		case <-changed:
		}
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, code int, message string) {
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "status": "Failure", "message": message, "code": code})
}

// pipeListener accepts what dial dials.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, fmt.Errorf("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// issued is a certificate with its key, PEM.
type issued struct {
	cert, key []byte
	parsed    *x509.Certificate
	private   *ecdsa.PrivateKey
}

// issue makes a certificate of 10.0.0.10, by itself if there is no authority.
func issue(t *testing.T, by *issued, serial int64) *issued {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: fmt.Sprint(serial)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(10, 0, 0, 10)}, BasicConstraintsValid: true, IsCA: by == nil,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	i := &issued{private: private}
	signer := i
	if by != nil {
		signer = by
	} else {
		i.parsed = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.parsed, private.Public(), signer.private)
	if err != nil {
		t.Fatal(err)
	}
	if i.parsed, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	i.cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	i.key = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
	return i
}
