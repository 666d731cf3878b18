package listener

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

const (
	// reviewedFor is how long a token that may read goes on to do so without being asked about again.
	reviewedFor = 30 * time.Second
	// maxReviewed bounds the tokens that are remembered.
	maxReviewed = 1024
	// reviewsPerAddress and reviews bound the tokens that are reviewed in reviewWindow, from one address and in all. The API
	// server is asked for strangers, too.
	reviewsPerAddress, reviews = 60, 600
	reviewWindow               = time.Minute
	// reviewingPerAddress and reviewing bound the strangers' tokens that are under review at once, from one address and in all.
	reviewingPerAddress, reviewing = 4, 32
	// reviewFor is how long a review may take.
	reviewFor = 10 * time.Second
	// reviewAgain is how soon a reader's token is reviewed again after a review without an answer.
	reviewAgain = time.Second
	// maxToken bounds a token in bytes; a service account's has about one thousand.
	maxToken = 8 << 10
)

// Access is what a token is good for.
type Access int

const (
	// NoAnswer: the API server could not be asked.
	NoAnswer Access = iota
	// Unknown: it knows nobody by that token.
	Unknown
	// NoReader: its owner may not read NodeDeaths.
	NoReader
	// Reader: they may.
	Reader
	// TooMany: so many strangers' tokens were reviewed recently, or are now, that this one was not.
	TooMany
)

// PageServer serves the page of deaths to other machines: over TLS, for tokens of accounts that may read NodeDeaths.
type PageServer struct {
	Page http.Handler
	// Review says what a token is good for, and names its owner or the reason.
	Review func(ctx context.Context, token string) (a Access, who string)
	// CertFile and KeyFile are in PEM, and are read again whenever they change.
	CertFile, KeyFile string
	Log               *slog.Logger

	cert     certificate
	mu       sync.Mutex
	readers  map[[sha256.Size]byte]*reader // by the hash of their token
	limiter  policy.Limiter                // of strangers' reviews
	underway map[netip.Addr]int            // strangers' reviews, by address
	total    int                           // of those
}

// reader is what is known of a token that was a reader's at its last review. PageServer.mu guards it.
type reader struct {
	until  time.Time // it needs no review
	review *review   // the one that is under way or had no answer, nil for none
}

// review is one review of a reader's token. Whoever sends the token meanwhile shares it.
type review struct {
	began    time.Time
	done     chan struct{} // closed once access and who are set
	finished bool          // likewise; PageServer.mu guards it
	access   Access
	who      string
}

// Load reads the certificate.
func (s *PageServer) Load() error {
	_, err := s.cert.load(s.CertFile, s.KeyFile)
	return err
}

// Serve serves on ln until ctx ends.
func (s *PageServer) Serve(ctx context.Context, ln net.Listener) error {
	return serveHTTP(ctx, ln, s.Handler(), log.New(serverLog{s.Log}, "", 0), &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, err := s.cert.load(s.CertFile, s.KeyFile)
			if err != nil && cert != nil {
				s.Log.Warn("certificate of the page not read again; the old one is served", "err", err)
				return cert, nil
			}
			return cert, err
		},
	})
}

// serverLog takes what net/http logs. A failed handshake is left out: health checks and scanners would fill the log.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Write(line []byte) (int, error) {
	if !bytes.Contains(line, []byte("TLS handshake error")) {
		l.log.Error("page not served", "err", string(bytes.TrimSpace(line)))
	}
	return len(line), nil
}

// Handler is the page for readers only. Strangers take none of the readers' turns.
func (s *PageServer) Handler() http.Handler {
	forReaders := atMost(maxInFlight, s.Page.ServeHTTP)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Strict-Transport-Security", "max-age=31536000")
		token := tokenOf(r)
		access, who := Unknown, "send the token of a service account or user: Authorization: Bearer …, or as the password of any name (kubectl create token)"
		if token != "" && len(token) <= maxToken {
			access, who = s.reviewToken(r.Context(), r.RemoteAddr, token)
		}
		switch access {
		case Reader:
			preferConnection(r.Context())
			r.Header.Del("Authorization")
			forReaders(w, r)
		case NoReader:
			http.Error(w, who, http.StatusForbidden)
		case Unknown:
			w.Header().Add("WWW-Authenticate", "Bearer")
			w.Header().Add("WWW-Authenticate", `Basic realm="lastgasp: any name, and a token as password"`)
			http.Error(w, who, http.StatusUnauthorized)
		case TooMany:
			http.Error(w, "too many tokens were sent in the last minute; try again in a minute", http.StatusTooManyRequests)
		default:
			http.Error(w, "the token cannot be reviewed now: "+who, http.StatusServiceUnavailable)
		}
	})
}

// tokenOf is the token that a request has: a bearer's, or the password that a browser asks its user for.
func tokenOf(r *http.Request) string {
	if _, password, ok := r.BasicAuth(); ok {
		return password
	}
	kind, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(kind, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// reviewToken reviews a token, unless it was a reader's just before. Only readers' tokens are remembered, and only their hashes: one
// that does not suffice is asked about each time, and a right that is taken away ends within reviewedFor. A token that was a
// reader's at its last review is reviewed whatever strangers do, but once at a time.
func (s *PageServer) reviewToken(ctx context.Context, from, token string) (Access, string) {
	sum, now := sha256.Sum256([]byte(token)), time.Now()
	mine := &review{began: now, done: make(chan struct{})}
	until, shared, known := s.share(sum, mine)
	switch {
	case known && now.Before(until):
		return Reader, ""
	case shared != nil:
		select {
		case <-shared.done:
			return shared.access, shared.who
		case <-ctx.Done():
			return NoAnswer, ctx.Err().Error()
		}
	case known:
		ctx = context.WithoutCancel(ctx) // others share it
	default:
		addr, _ := netip.ParseAddrPort(from) // invalid ones share their bounds
		stranger := addr.Addr().Unmap()
		if !s.begin(stranger, now) {
			return TooMany, ""
		}
		defer s.end(stranger)
	}
	ctx, cancel := context.WithTimeout(ctx, reviewFor)
	defer cancel()
	mine.access, mine.who = s.Review(ctx, token)
	s.remember(sum, mine)
	return mine.access, mine.who
}

// share returns until when a token needs no review, if it was a reader's at its last one. Otherwise it returns the review to wait for,
// or notes mine as the one under way and returns nil.
func (s *PageServer) share(sum [sha256.Size]byte, mine *review) (until time.Time, shared *review, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, known := s.readers[sum]
	switch {
	case !known:
		return time.Time{}, nil, false
	case mine.began.Before(r.until):
		return r.until, nil, true
	case r.review != nil && (!r.review.finished || mine.began.Sub(r.review.began) < reviewAgain):
		return r.until, r.review, true
	}
	r.review = mine
	return r.until, nil, true
}

// remember remembers the answer to a review. No answer changes nothing.
func (s *PageServer) remember(sum [sha256.Size]byte, v *review) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.finished = true
	close(v.done)
	switch v.access {
	case Reader:
		if s.readers == nil || len(s.readers) >= maxReviewed {
			s.readers = make(map[[sha256.Size]byte]*reader)
		}
		s.readers[sum] = &reader{until: v.began.Add(reviewedFor)}
	case NoReader, Unknown:
		delete(s.readers, sum)
	}
}

// begin reports whether a stranger's token may be reviewed, and counts it until end.
func (s *PageServer) begin(from netip.Addr, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limiter.PerAddress, s.limiter.Total, s.limiter.Window = reviewsPerAddress, reviews, reviewWindow
	if s.total >= reviewing || s.underway[from] >= reviewingPerAddress || !s.limiter.Allow(now, from) {
		return false
	}
	if s.underway == nil {
		s.underway = make(map[netip.Addr]int)
	}
	s.underway[from]++
	s.total++
	return true
}

func (s *PageServer) end(from netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.underway[from]--; s.underway[from] == 0 {
		delete(s.underway, from)
	}
}

// certificate is a certificate and its key, read again when one of their files has changed.
type certificate struct {
	mu      sync.Mutex
	changed [2]time.Time // of the files that were read or tried last, zero if one of them was gone
	cert    *tls.Certificate
}

// load returns the certificate. If the files are bad it returns the former one, if any, and reports the error once for each change of
// the files.
func (c *certificate) load(certFile, keyFile string) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var changed [2]time.Time
	for i, file := range [...]string{certFile, keyFile} {
		info, err := os.Stat(file)
		if err != nil {
			if c.cert != nil && c.changed == ([2]time.Time{}) {
				return c.cert, nil
			}
			c.changed = [2]time.Time{}
			return c.cert, fmt.Errorf("read certificate: %w", err)
		}
		changed[i] = info.ModTime()
	}
	if c.cert != nil && changed == c.changed {
		return c.cert, nil
	}
	c.changed = changed
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return c.cert, fmt.Errorf("read certificate: %w; page.cert and page.key must be a certificate and its key in PEM", err)
	}
	if cert.Leaf != nil && time.Now().After(cert.Leaf.NotAfter) {
		err = errors.New("the certificate in page.cert has expired; renew it")
	}
	c.cert = &cert
	return c.cert, err
}
