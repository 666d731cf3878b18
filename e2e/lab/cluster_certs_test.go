package lab

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAuthorityIssuesWhatKubernetesReads(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ca, err := newAuthority(now)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca.pem) {
		t.Fatal("the authority's certificate is not PEM")
	}
	client, err := ca.client("system:node:node-a", "system:nodes")
	if err != nil {
		t.Fatal(err)
	}
	server, err := ca.server("kube-apiserver", []netip.Addr{netip.MustParseAddr("10.0.2.10")}, "kubernetes.default.svc")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		pair  keyPair
		opts  x509.VerifyOptions
		valid bool
	}{
		{"a client is a client", client, x509.VerifyOptions{KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, true},
		{"a client is not a server", client, x509.VerifyOptions{KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, false},
		{"a server is known by its address", server, x509.VerifyOptions{DNSName: "10.0.2.10"}, true},
		{"a server is known by its name", server, x509.VerifyOptions{DNSName: "kubernetes.default.svc"}, true},
		{"a server is not another address", server, x509.VerifyOptions{DNSName: "10.0.2.11"}, false},
		{"a clock may be a little behind", server, x509.VerifyOptions{CurrentTime: now.Add(-30 * time.Minute)}, true},
		{"a certificate ends with its life", server, x509.VerifyOptions{CurrentTime: now.Add(certificateLife + time.Minute)}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.opts.Roots = roots
			if test.opts.CurrentTime.IsZero() {
				test.opts.CurrentTime = now
			}
			_, err := leaf(t, test.pair).Verify(test.opts)
			if (err == nil) != test.valid {
				t.Errorf("verify: %v, want valid %t", err, test.valid)
			}
		})
	}
	subject := leaf(t, client).Subject
	if diff := cmp.Diff([]string{"system:node:node-a", "system:nodes"}, append([]string{subject.CommonName}, subject.Organization...)); diff != "" {
		t.Errorf("user and groups (-want +got):\n%s", diff)
	}
}

func leaf(t *testing.T, pair keyPair) *x509.Certificate {
	t.Helper()
	loaded, err := tls.X509KeyPair(pair.cert, pair.key)
	if err != nil {
		t.Fatal(err)
	}
	return loaded.Leaf
}
