package ec2

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// standIn is a stand-in for an instance's metadata service with the real protocol of version 2: a token by PUT with a time
// to live, 401 without one, listings for folders, 404 for what is not there.
type standIn struct {
	tree map[string]string // path below latest/meta-data → content
	// fault is asked before each request. It answers by itself, or not, and then returns false.
	fault func(w http.ResponseWriter, r *http.Request) bool

	mu       sync.Mutex
	tokens   map[string]bool
	requests []string
}

func startIMDS(t *testing.T, tree map[string]string) (*standIn, *Client) {
	t.Helper()
	m := &standIn{tree: tree, tokens: make(map[string]bool)}
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	return m, newClient(server.URL, 100*time.Millisecond, time.Millisecond)
}

func (m *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	m.requests = append(m.requests, r.Method+" "+r.URL.Path)
	m.mu.Unlock()
	if m.fault != nil && m.fault(w, r) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.URL.Path == "/latest/api/token" {
		m.token(w, r)
		return
	}
	if !m.tokens[r.Header.Get("X-aws-ec2-metadata-token")] {
		http.Error(w, "unauthorized", http.StatusUnauthorized)
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/latest/meta-data/")
	if !ok {
		http.NotFound(w, r)
		return
	}
	if content, ok := m.tree[path]; ok {
		w.Write([]byte(content))
		return
	}
	listing := m.list(path)
	if len(listing) == 0 {
		http.NotFound(w, r)
		return
	}
	w.Write([]byte(strings.Join(listing, "\n")))
}

func (m *standIn) token(w http.ResponseWriter, r *http.Request) {
	ttl, err := strconv.Atoi(r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds"))
	switch {
	case r.Method != http.MethodPut:
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	case r.Header.Get("X-Forwarded-For") != "":
		http.Error(w, "forbidden", http.StatusForbidden)
	case err != nil || ttl < 1 || ttl > 21600:
		http.Error(w, "bad ttl", http.StatusBadRequest)
	default:
		token := "token-" + strconv.Itoa(len(m.tokens))
		m.tokens[token] = true
		w.Header().Set("X-aws-ec2-metadata-token-ttl-seconds", strconv.Itoa(ttl))
		w.Write([]byte(token))
	}
}

// list names what is in a folder, subfolders with a slash.
func (m *standIn) list(folder string) []string {
	var names []string
	for path := range m.tree {
		rest, ok := strings.CutPrefix(path, strings.TrimSuffix(folder, "/")+"/")
		if !ok {
			continue
		}
		name, _, nested := strings.Cut(rest, "/")
		if nested {
			name += "/"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// forget makes all tokens invalid.
func (m *standIn) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.tokens)
}

// count is how many requests for path there were.
func (m *standIn) count(path string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, r := range m.requests {
		if strings.HasSuffix(r, path) {
			n++
		}
	}
	return n
}

// twoENIs is an instance with a secondary interface that has IPv6 as well.
func twoENIs() map[string]string {
	return map[string]string{
		"instance-id":                    "i-0123456789abcdef0",
		"placement/region":               "eu-west-1",
		"placement/availability-zone":    "eu-west-1b",
		"placement/availability-zone-id": "euw1-az1",
		"mac":                            "02:00:00:00:00:05",
		"network/interfaces/macs/02:00:00:00:00:05/device-number": "0",
		"network/interfaces/macs/02:00:00:00:00:05/local-ipv4s":   "10.0.1.5\n10.0.1.6",
		"network/interfaces/macs/02:00:00:00:00:09/device-number": "1",
		"network/interfaces/macs/02:00:00:00:00:09/local-ipv4s":   "10.0.1.77",
		"network/interfaces/macs/02:00:00:00:00:09/ipv6s":         "2001:db8::77",
	}
}

// patience bounds what a test waits for a service that gets well again: nothing is asserted about how long it took.
const patience = time.Minute
