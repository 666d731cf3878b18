package listener

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// tokens is what the API server knows.
func tokens(asked *int) func(context.Context, string) (Access, string) {
	return func(_ context.Context, token string) (Access, string) {
		*asked++
		switch token {
		case "reader":
			return Reader, "u"
		case "stranger":
			return NoReader, "system:serviceaccount:default:default has no right to get nodedeaths"
		case "unlucky":
			return NoAnswer, "connection refused"
		}
		return Unknown, "the API server does not accept this token"
	}
}

func TestPageIsForReadersOnly(t *testing.T) {
	for _, tt := range []struct {
		name, authorization string
		code                int
		body                string
	}{
		{"no token", "", 401, "send the token"},
		{"a token that is unknown", "Bearer forged", 401, "the API server does not accept this token\n"},
		{"an empty token", "Bearer ", 401, "send the token"},
		{"a token of somebody without the right", "Bearer stranger", 403, "system:serviceaccount:default:default has no right to get nodedeaths\n"},
		{"while the API server is away", "Bearer unlucky", 503, "the token cannot be reviewed now: connection refused\n"},
		{"a token of a reader", "Bearer reader", 200, "page"},
		{"whatever the case", "bearer reader", 200, "page"},
		{"as the password of any name", "Basic bWU6cmVhZGVy", 200, "page"}, // me:reader
		{"as a name, without a password", "Basic cmVhZGVyOg==", 401, "send the token"},
		{"in another form", "Digest reader", 401, "send the token"},
		{"one too long to be any", "Bearer " + strings.Repeat("x", maxToken+1), 401, "send the token"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := 0
			s := PageServer{Review: tokens(&asked), Page: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "" {
					t.Error("the token went on to the page")
				}
				fmt.Fprint(w, "page")
			})}
			r := httptest.NewRequest(http.MethodGet, "/deaths/x", nil)
			if tt.authorization != "" {
				r.Header.Set("Authorization", tt.authorization)
			}
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, r)
			if w.Code != tt.code || !strings.HasPrefix(w.Body.String(), tt.body) {
				t.Errorf("%d %s, want %d and %s", w.Code, w.Body, tt.code, tt.body)
			}
			if (w.Code == 401) != (len(w.Header().Values("WWW-Authenticate")) == 2) {
				t.Errorf("header %v", w.Header())
			}
		})
	}
}

// The API server is not asked for every picture of a page, and a right that is taken away ends.
func TestReadersAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, allowed := 0, Reader
		s := PageServer{Review: func(context.Context, string) (Access, string) { asked++; return allowed, "" }}
		for range 3 {
			s.reviewToken(t.Context(), "192.0.2.1:1", "t")
		}
		if asked != 1 {
			t.Errorf("asked %d times for three pages, want once", asked)
		}
		allowed = NoReader
		time.Sleep(reviewedFor)
		for range 2 {
			if got, _ := s.reviewToken(t.Context(), "192.0.2.1:1", "t"); got != NoReader {
				t.Errorf("access %v after the right was taken away", got)
			}
		}
		if asked != 3 {
			t.Errorf("asked %d times, want each time for who may not read", asked)
		}
		allowed = Reader
		for i := range 3 * maxReviewed {
			if i%reviews == 0 {
				time.Sleep(reviewWindow)
			}
			s.reviewToken(t.Context(), fmt.Sprintf("10.0.%d.1:1", i/reviewsPerAddress), fmt.Sprint(i))
		}
		if len(s.readers) > maxReviewed {
			t.Errorf("%d tokens are remembered, at most %d may be", len(s.readers), maxReviewed)
		}
	})
}

// Whoever guesses tokens does not make the API server work as fast as it can, and keeps nobody out who sends from elsewhere.
func TestReviewsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		s := PageServer{Review: tokens(&asked), Page: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
		h := s.Handler()
		get := func(from, token string) int {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.RemoteAddr = from
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w.Code
		}
		if code := get("[fd00::1]:1", "reader"); code != 200 {
			t.Errorf("a reader: %d", code)
		}
		for i := range 10 * reviewsPerAddress {
			get(fmt.Sprintf("[fd00::1]:%d", 1000+i), fmt.Sprint("guess-", i))
		}
		if asked != reviewsPerAddress {
			t.Errorf("asked %d times, want %d", asked, reviewsPerAddress)
		}
		for _, tt := range []struct {
			what, from, token string
			code              int
		}{
			{"the next guess", "[fd00::1]:1", "guess", 429},
			{"a reader from there who is remembered", "[fd00::1]:1", "reader", 200},
			{"a reader from elsewhere", "[fd00::2]:1", "reader", 200},
		} {
			if code := get(tt.from, tt.token); code != tt.code {
				t.Errorf("%s: %d, want %d", tt.what, code, tt.code)
			}
		}
		for i := range 10 * reviews {
			get(fmt.Sprintf("[fd00::1:%x]:1", i), fmt.Sprint("guess-", i))
		}
		if asked != reviews {
			t.Errorf("asked %d times for guesses from everywhere, want %d", asked, reviews)
		}
		time.Sleep(reviewWindow)
		if code := get("[fd00::1]:1", "reader"); code != 200 {
			t.Errorf("a minute later: %d", code)
		}
	})
}

// Strangers' requests take nothing that a reader's need, while the API server answers no review of theirs.
func TestStrangersTakeNoTurnOfReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang, asked := make(chan struct{}), 0
		var mu sync.Mutex
		s := PageServer{
			Page: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					<-hang
				}
			}),
			Review: func(_ context.Context, token string) (Access, string) {
				if strings.HasPrefix(token, "reader") {
					return Reader, ""
				}
				mu.Lock()
				asked++
				mu.Unlock()
				<-hang
				return Unknown, ""
			},
		}
		h := s.Handler()
		get := func(from, path, token string) int {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.RemoteAddr = from
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w.Code
		}
		expect := func(what, from, token string, want int) {
			t.Helper()
			if code := get(from, "/", token); code != want {
				t.Errorf("%s: %d, want %d", what, code, want)
			}
		}
		expect("a reader, before", "10.0.0.1:1", "reader-1", 200)
		var waiting sync.WaitGroup
		for i := range 20 * maxInFlight {
			waiting.Go(func() { get("10.0.0.1:1", "/", fmt.Sprint("guess-", i)) })
		}
		synctest.Wait()
		if asked != reviewingPerAddress {
			t.Errorf("%d tokens of one address are under review, want %d", asked, reviewingPerAddress)
		}
		expect("a reader who is remembered, from the strangers' address", "10.0.0.1:1", "reader-1", 200)
		expect("a new reader, from elsewhere", "10.0.0.2:1", "reader-2", 200)
		for i := range 2 * reviews {
			waiting.Go(func() { get(fmt.Sprintf("10.0.%d.%d:1", 1+i/200, i%200), "/", fmt.Sprint("guess-", i)) })
		}
		synctest.Wait()
		if asked != reviewing {
			t.Errorf("%d tokens of all addresses are under review, want %d", asked, reviewing)
		}
		expect("a reader who is remembered, while strangers are everywhere", "10.0.0.1:1", "reader-1", 200)
		time.Sleep(reviewedFor)
		expect("a reader whose token must be reviewed again", "10.0.0.1:1", "reader-1", 200)

		for range maxInFlight {
			waiting.Go(func() { get("10.0.0.1:1", "/slow", "reader-1") })
		}
		synctest.Wait()
		expect("one reader too many at once", "10.0.0.2:1", "reader-2", 503)
		expect("somebody without a token, meanwhile", "10.0.0.1:1", "", 401)
		close(hang)
		waiting.Wait()
		expect("a reader, afterwards", "10.0.0.2:1", "reader-2", 200)
	})
}

// A reader is reviewed apart from strangers, whatever those have used up; one who no longer is, is a stranger.
func TestReadersAreReviewedApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answer Access
		s := PageServer{Review: func(_ context.Context, token string) (Access, string) {
			if token == "reader" {
				return answer, ""
			}
			return Unknown, ""
		}}
		exhaust := func() {
			time.Sleep(reviewWindow)
			for i := range 2 * reviews {
				s.reviewToken(t.Context(), fmt.Sprintf("10.0.%d.1:1", i/reviewsPerAddress), fmt.Sprint("guess-", i))
			}
		}
		for _, tt := range []struct {
			name         string
			answer, want Access
		}{
			{"one who has never been a reader", Reader, TooMany},
			{"a reader is let in", Reader, Reader},
			{"a reader, once it must be reviewed again", Reader, Reader},
			{"a reader while the API server is away", NoAnswer, NoAnswer},
			{"a reader once it is back", Reader, Reader},
			{"a reader whose right was taken away", NoReader, NoReader},
			{"who was a reader", Reader, TooMany},
		} {
			if tt.name != "a reader is let in" {
				exhaust()
			} else {
				time.Sleep(reviewWindow)
			}
			answer = tt.answer
			if got, _ := s.reviewToken(t.Context(), "10.0.0.1:1", "reader"); got != tt.want {
				t.Errorf("%s: access %v, want %v", tt.name, got, tt.want)
			}
		}
	})
}

// Whoever was a reader has no more reviews than anybody else: one at a time, and one a second while there is no answer.
func TestReviewsOfAReaderAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		asked, answer, takes := 0, Reader, time.Duration(0)
		s := PageServer{Review: func(context.Context, string) (Access, string) {
			mu.Lock()
			asked++
			mu.Unlock()
			time.Sleep(takes)
			return answer, "why"
		}}
		expect := func(what string, want Access, reviews int) {
			t.Helper()
			asked = 0
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() {
					if got, _ := s.reviewToken(t.Context(), "10.0.0.1:1", "reader"); got != want {
						t.Errorf("%s: access %v, want %v", what, got, want)
					}
				})
			}
			all.Wait()
			if asked != reviews {
				t.Errorf("%s: asked %d times, want %d", what, asked, reviews)
			}
		}
		s.reviewToken(t.Context(), "10.0.0.1:1", "reader")
		time.Sleep(reviewedFor)
		takes = 3 * time.Second
		expect("a reader, from many connections", Reader, 1)
		time.Sleep(reviewedFor)
		answer = NoAnswer
		expect("while the API server is slow and then fails", NoAnswer, 1)
		takes = 0
		expect("while it fails at once", NoAnswer, 1)
		expect("at once again", NoAnswer, 0)
		time.Sleep(reviewAgain)
		answer, takes = NoReader, time.Second
		expect("who is a reader no more", NoReader, 1)
		if got, _ := s.reviewToken(t.Context(), "10.0.0.1:1", "reader"); got != NoReader || len(s.readers) > 0 {
			t.Errorf("access %v, %d readers remembered; want none", got, len(s.readers))
		}
	})
}

// A review that hangs does not occupy the page for ever.
func TestReviewIsNotAwaitedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := PageServer{Review: func(ctx context.Context, _ string) (Access, string) {
			<-ctx.Done()
			return NoAnswer, ctx.Err().Error()
		}}
		if got, _ := s.reviewToken(t.Context(), "192.0.2.1:1", "t"); got != NoAnswer {
			t.Errorf("access %v without an answer", got)
		}
	})
}

// writeCertificate writes a certificate for 127.0.0.1 that is its own authority.
func writeCertificate(t *testing.T, dir string, serial int64, until time.Time) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: until.Add(-24 * time.Hour), NotAfter: until, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{"crt": {Type: "CERTIFICATE", Bytes: der}, "key": {Type: "PRIVATE KEY", Bytes: secret}} {
		path := filepath.Join(dir, "tls."+file)
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		stamp := time.Unix(1_000_000+serial, 0) // file systems' clocks are coarse
		if err := os.Chtimes(path, stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// servePage serves s on loopback until stop is called, which fails the test if it was served with an error.
func servePage(t *testing.T, s *PageServer) (address string, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- s.Serve(ctx, ln) }()
	return ln.Addr().String(), func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestPageCertificate(t *testing.T) {
	dir := t.TempDir()
	asked := 0
	s := &PageServer{
		Page:   http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "page") }),
		Review: tokens(&asked), CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"), Log: slog.New(slog.DiscardHandler),
	}
	if err := s.Load(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("load without files: %v", err)
	}
	address, stop := servePage(t, s)
	defer stop()
	// get asks for the page as a client that trusts cert, and returns the serial number that was served.
	get := func(cert *x509.Certificate, change func(*tls.Config)) (int64, error) {
		pool := x509.NewCertPool()
		pool.AddCert(cert)
		secure := &tls.Config{RootCAs: pool}
		if change != nil {
			change(secure)
		}
		client := http.Client{Transport: &http.Transport{TLSClientConfig: secure, DisableKeepAlives: true}}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer reader")
		resp, err := client.Do(r)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "page" || resp.Header.Get("Strict-Transport-Security") == "" {
			t.Errorf("%q %v %v", body, err, resp.Header)
		}
		return resp.TLS.PeerCertificates[0].SerialNumber.Int64(), nil
	}
	expect := func(what string, cert *x509.Certificate, want int64) {
		t.Helper()
		if serial, err := get(cert, nil); err != nil || serial != want {
			t.Errorf("%s: certificate %d, %v; want %d", what, serial, err, want)
		}
	}

	first := writeCertificate(t, dir, 1, time.Now().Add(time.Hour))
	expect("once there are files", first, 1)
	second := writeCertificate(t, dir, 2, time.Now().Add(time.Hour))
	expect("renewed", second, 2)
	if err := os.WriteFile(s.CertFile, []byte("half of"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect("while it is being written", second, 2)
	if _, err := get(second, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS11 }); err == nil {
		t.Error("TLS 1.1 is served")
	}

	old := writeCertificate(t, dir, 3, time.Now().Add(-time.Hour))
	var invalid x509.CertificateInvalidError
	if _, err := get(old, nil); !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
		t.Errorf("expired: %v, want the client to say so", err)
	}
	if err := new(PageServer{CertFile: s.CertFile, KeyFile: s.KeyFile}).Load(); err == nil || err.Error() != "the certificate in page.cert has expired; renew it" {
		t.Errorf("load an expired certificate: %v", err)
	}
	fourth := writeCertificate(t, dir, 4, time.Now().Add(time.Hour))
	expect("renewed after it had expired", fourth, 4)
}

// A reader's connection is still open after strangers have opened more than there may be, from the reader's address and others.
func TestReadersConnectionOutlivesStrangers(t *testing.T) {
	dir := t.TempDir()
	asked := 0
	s := &PageServer{
		Page: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), Review: tokens(&asked),
		CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"), Log: slog.New(slog.DiscardHandler),
	}
	pool := x509.NewCertPool()
	pool.AddCert(writeCertificate(t, dir, 1, time.Now().Add(time.Hour)))
	address, stop := servePage(t, s)
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	get := func() (reused bool) {
		t.Helper()
		trace := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
		r, err := http.NewRequestWithContext(trace, http.MethodGet, "https://"+address+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer reader")
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("status %d", resp.StatusCode)
		}
		return reused
	}
	get()
	for i := range 3 * maxConnections {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+i%200))}}
		if i%2 == 0 {
			d.LocalAddr = nil
		}
		conn, err := d.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if !get() {
		t.Error("the reader's connection was closed")
	}
	stop()
}

// Strangers' connections do not fill the log, whether it is their fault or that of the files.
func TestStrangersDoNotFillTheLog(t *testing.T) {
	dir := t.TempDir()
	var log strings.Builder
	s := &PageServer{
		Page: http.NotFoundHandler(), CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"),
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	}
	writeCertificate(t, dir, 1, time.Now().Add(time.Hour))
	if err := s.Load(); err != nil {
		t.Fatal(err)
	}
	address, stop := servePage(t, s)
	connect := func() {
		t.Helper()
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	connect()
	if err := os.Remove(s.CertFile); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		connect()
		if _, err := tls.Dial("tcp", address, &tls.Config{}); err == nil { // it does not know our authority
			t.Error("an unknown authority is trusted")
		}
	}
	stop()
	if got := strings.Count(log.String(), "\n"); got != 1 || !strings.Contains(log.String(), "not read again") {
		t.Errorf("%d lines, want one about the certificate:\n%s", got, log.String())
	}
}

func TestPageConfig(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"none", "", ""},
		{"whole", "kubernetes: true\npage: {address: ':9667', cert: /c, key: /k}\n", ""},
		{"no key", "kubernetes: true\npage: {address: ':9667', cert: /c}\n", "c.yaml:2: page: lacks cert or key; name the files of a certificate and its key in PEM"},
		{"no address", "kubernetes: true\npage: {cert: /c, key: /k}\n", `c.yaml:2: page: has no address; write one, for instance ":9667"`},
		{"no cluster", "page: {address: ':9667', cert: /c, key: /k}\n", "c.yaml:1: page.address: needs kubernetes: true; without a cluster nobody can say who may read"},
		{"a relative path", "kubernetes: true\npage: {address: ':9667', cert: c, key: /k}\n", `c.yaml:2: page.cert: "c" is not the path of a file, from / on`},
	} {
		_, err := parseConfig("c.yaml", []byte(tt.text))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
