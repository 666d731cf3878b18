package listener

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeyIsReadFromItsFile(t *testing.T) {
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	_, own, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		file []byte // nil: there is none
		err  string // after the file's name
	}{
		{name: "as openssl writes it", file: pkcs8(own)},
		{name: "no file", err: "no such file or directory"},
		{name: "another kind of key", file: pkcs8(other), err: "is not an Ed25519 key; write one with: openssl genpkey -algorithm ed25519"},
		{name: "something else", file: []byte("secret"), err: "is not a private key in PEM; write one with: openssl genpkey -algorithm ed25519"},
		{name: "a damaged key", file: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("no DER")}), err: "write one with: openssl genpkey -algorithm ed25519"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			key, config := filepath.Join(dir, "listener.key"), filepath.Join(dir, "listener.yaml")
			if tt.file != nil {
				if err := os.WriteFile(key, tt.file, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(config, []byte("key: "+key+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := LoadConfig(config)
			switch {
			case tt.err == "" && (err != nil || !c.Key.Equal(own)):
				t.Errorf("another key, or error %v", err)
			case tt.err != "" && (err == nil || !strings.HasPrefix(err.Error(), "read key: ") || !strings.HasSuffix(err.Error(), tt.err) || !strings.Contains(err.Error(), key)):
				t.Errorf("error %v, want one that names the file and ends with %q", err, tt.err)
			}
		})
	}
}
