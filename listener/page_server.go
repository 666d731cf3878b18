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
	// reviewFor is how long a review may take.
	reviewFor = 10 * time.Second
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
	// TooMany: so many tokens were reviewed lately that this one was not.
	TooMany
)

// PageServer serves the page of deaths to other machines: by TLS, to whoever has a token of somebody who may read NodeDeaths.
type PageServer struct {
	Page http.Handler
	// Review says what a token is good for, and names its owner or the reason.
	Review func(ctx context.Context, token string) (a Access, who string)
	// CertFile and KeyFile are in PEM, and are read again whenever they change.
	CertFile, KeyFile string
	Log               *slog.Logger

	cert     certificate
	mu       sync.Mutex
	reviewed map[[sha256.Size]byte]time.Time // tokens of readers, by hash: until when
	limiter  policy.Limiter                  // of reviews
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

// Handler is the page for readers only.
func (s *PageServer) Handler() http.Handler {
	return atMost(maxInFlight, func(w http.ResponseWriter, r *http.Request) {
		refuse := func(code int, why string) {
			w.Header().Set("Cache-Control", "no-store")
			w.Header().Set("Strict-Transport-Security", "max-age=31536000")
			http.Error(w, why, code)
		}
		token := tokenOf(r)
		access, who := Unknown, "send the token of a service account or user: Authorization: Bearer …, or as the password of any name (kubectl create token)"
		if token != "" && len(token) <= maxToken {
			access, who = s.review(r.Context(), r.RemoteAddr, token)
		}
		switch access {
		case Reader:
			w.Header().Set("Strict-Transport-Security", "max-age=31536000")
			r.Header.Del("Authorization")
			s.Page.ServeHTTP(w, r)
		case NoReader:
			refuse(http.StatusForbidden, who)
		case Unknown:
			w.Header().Add("WWW-Authenticate", "Bearer")
			w.Header().Add("WWW-Authenticate", `Basic realm="lastgasp: any name, and a token as password"`)
			refuse(http.StatusUnauthorized, who)
		case TooMany:
			refuse(http.StatusTooManyRequests, "too many tokens were sent in the last minute; try again in a minute")
		default:
			refuse(http.StatusServiceUnavailable, "the token cannot be reviewed now: "+who)
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

// review reviews a token, unless it was a reader's just before. Only those are remembered, and only their hashes: a token that
// does not suffice is asked about each time, and a right that is taken away ends within reviewedFor.
func (s *PageServer) review(ctx context.Context, from, token string) (Access, string) {
	sum, now := sha256.Sum256([]byte(token)), time.Now()
	if s.isReader(sum, now) {
		return Reader, ""
	}
	if !s.mayAsk(from, now) {
		return TooMany, ""
	}
	ctx, cancel := context.WithTimeout(ctx, reviewFor)
	defer cancel()
	access, who := s.Review(ctx, token)
	s.mu.Lock()
	defer s.mu.Unlock()
	if access != Reader {
		delete(s.reviewed, sum)
		return access, who
	}
	if s.reviewed == nil || len(s.reviewed) >= maxReviewed {
		s.reviewed = make(map[[sha256.Size]byte]time.Time)
	}
	s.reviewed[sum] = now.Add(reviewedFor)
	return access, who
}

// isReader reports whether a token was a reader's just before.
func (s *PageServer) isReader(sum [sha256.Size]byte, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	until, ok := s.reviewed[sum]
	return ok && now.Before(until)
}

// mayAsk reports whether a token from an address may be reviewed, and counts it.
func (s *PageServer) mayAsk(from string, now time.Time) bool {
	addr, _ := netip.ParseAddrPort(from) // one that is none shares its bound with others
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limiter.PerAddress, s.limiter.Total, s.limiter.Window = reviewsPerAddress, reviews, reviewWindow
	return s.limiter.Allow(now, addr.Addr().Unmap())
}

// certificate is a certificate and its key, read again when one of their files has changed.
type certificate struct {
	mu      sync.Mutex
	changed [2]time.Time // of the files that were read or tried last, zero if one of them was gone
	cert    *tls.Certificate
}

// load returns the certificate. With an error it returns the one that was valid before, if there is one; it says so once for
// each change of the files.
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
