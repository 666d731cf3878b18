package imds

import (
	"crypto/rand"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Headers of the token protocol.
const (
	tokenHeader = "X-Aws-Ec2-Metadata-Token"
	ttlHeader   = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
)

// maxTTL is the longest life of a token, seconds.
const maxTTL = 21600

// versions are those of the many dated versions that a known client requests. All return the same.
var versions = []string{"1.0", "2009-04-04", "2016-09-02", "2018-09-24", "2021-03-23", "2024-04-11", "latest"}

// Service is an http.Handler, ready with no more than an Instance. Its exported fields must not change while it serves.
type Service struct {
	Instance Instance
	// Version1 answers requests without a token, too (HttpTokens=optional).
	Version1 bool
	// Disabled answers everything with 403 (HttpEndpoint=disabled).
	Disabled bool
	// HopLimit is how many hops the answer with the token survives (HttpPutResponseHopLimit), 0 for any number. It works
	// through Serve only.
	HopLimit int
	// Credentials returns those of the role, or false while they are not known yet: then there is no iam folder. Nil means no
	// role.
	Credentials func() (Credentials, bool)
	// Fault is called first. It answers the request itself, or returns false.
	Fault func(w http.ResponseWriter, r *http.Request) bool

	mu       sync.Mutex
	tokens   map[string]time.Time // until when each is valid
	requests []string
}

var _ http.Handler = (*Service)(nil)

// ServeHTTP implements http.Handler.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	s.mu.Unlock()
	if s.Fault != nil && s.Fault(w, r) {
		return
	}
	w.Header().Set("Server", "EC2ws")
	w.Header().Set("Content-Type", "text/plain")
	switch {
	case s.Disabled:
		http.Error(w, "403 - Forbidden", http.StatusForbidden)
	case r.URL.Path == "/latest/api/token":
		s.mint(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		http.Error(w, "405 - Method Not Allowed", http.StatusMethodNotAllowed)
	case !s.admits(r.Header.Get(tokenHeader)):
		http.Error(w, "401 - Unauthorized", http.StatusUnauthorized)
	default:
		s.read(w, r)
	}
}

// mint answers a request for a token.
func (s *Service) mint(w http.ResponseWriter, r *http.Request) {
	ttl, err := strconv.Atoi(r.Header.Get(ttlHeader))
	switch {
	case r.Method != http.MethodPut:
		w.Header().Set("Allow", "OPTIONS, PUT")
		http.Error(w, "405 - Method Not Allowed", http.StatusMethodNotAllowed)
	case r.Header.Get("X-Forwarded-For") != "": // somebody's open proxy
		http.Error(w, "403 - Forbidden", http.StatusForbidden)
	case err != nil || ttl < 1 || ttl > maxTTL:
		http.Error(w, "400 - Bad Request", http.StatusBadRequest)
	default:
		token := rand.Text()
		s.mu.Lock()
		if s.tokens == nil {
			s.tokens = make(map[string]time.Time)
		}
		s.tokens[token] = time.Now().Add(time.Duration(ttl) * time.Second)
		s.mu.Unlock()
		s.limitHops(w, r)
		w.Header().Set(ttlHeader, strconv.Itoa(ttl))
		w.Write([]byte(token))
	}
}

// admits reports whether a request with that token, or none, is answered. A bad token is refused even if none is required.
func (s *Service) admits(token string) bool {
	if token == "" {
		return s.Version1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.tokens[token])
}

// read answers with a file or with a folder's listing.
func (s *Service) read(w http.ResponseWriter, r *http.Request) {
	version, path, _ := strings.Cut(strings.Trim(r.URL.Path, "/"), "/")
	if version == "" {
		w.Write([]byte(strings.Join(versions, "\n")))
		return
	}
	tree, err := s.tree()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer, ok := tree[path]
	if !ok {
		answer = list(tree, path)
	}
	if answer == "" || !slices.Contains(versions, version) {
		http.Error(w, "404 - Not Found", http.StatusNotFound)
		return
	}
	w.Write([]byte(answer))
}

func (s *Service) tree() (map[string]string, error) {
	tree := s.Instance.tree()
	if s.Credentials == nil {
		return tree, nil
	}
	c, ok := s.Credentials()
	if !ok {
		return tree, nil
	}
	role, err := c.entries(s.Instance.Account)
	maps.Copy(tree, role)
	return tree, err
}

// list names what is in a folder, one a line, folders with a slash at their end, save at the top. It is empty if there is
// no such folder.
func list(tree map[string]string, folder string) string {
	if folder != "" {
		folder += "/"
	}
	var names []string
	for path := range tree {
		rest, ok := strings.CutPrefix(path, folder)
		if !ok {
			continue
		}
		name, _, nested := strings.Cut(rest, "/")
		if nested && folder != "" {
			name += "/"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), "\n")
}

// Forget makes all tokens invalid, as if they had expired.
func (s *Service) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

// Requests are all requests so far, as in "GET /latest/meta-data/mac".
func (s *Service) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}
