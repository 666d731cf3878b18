//go:build e2e

package e2e

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/e2e/cloud"
	"github.com/lastgasp/lastgasp/e2e/lab"
)

// consoles is EC2 as moto plays it, but for the consoles of instances: those are the guests' own.
type consoles struct {
	moto   *cloud.Moto
	client *http.Client // of moto

	mu    sync.Mutex
	files map[string]string // by instance
}

// serveConsoles serves it in ns, to whatever is started from now on.
func serveConsoles(t *testing.T, ns *lab.NS, moto *cloud.Moto) *consoles {
	t.Helper()
	var ln net.Listener
	if err := ns.Do(func() (err error) {
		ln, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	c := &consoles{moto: moto, client: moto.Client(), files: map[string]string{}}
	server, done := &http.Server{Handler: c}, make(chan struct{})
	go func() { _ = server.Serve(ln); close(done) }()
	t.Cleanup(func() { server.Close(); <-done })
	t.Setenv("AWS_ENDPOINT_URL", "http://"+ln.Addr().String())
	return c
}

// show makes a file the console of an instance.
func (c *consoles) show(instance, file string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files[instance] = file
}

// read returns the last 64 KiB of an instance's console, as EC2 keeps them.
func (c *consoles) read(instance string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	text, err := os.ReadFile(c.files[instance])
	if err != nil {
		return nil
	}
	return text[max(0, len(text)-64<<10):]
}

// ServeHTTP implements http.Handler.
func (c *consoles) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if form, _ := url.ParseQuery(string(body)); form.Get("Action") == "GetConsoleOutput" {
		id := form.Get("InstanceId")
		fmt.Fprintf(out, "<GetConsoleOutputResponse><instanceId>%s</instanceId><timestamp>%s</timestamp><output>%s</output></GetConsoleOutputResponse>",
			id, time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), base64.StdEncoding.EncodeToString(c.read(id)))
		return
	}
	on, err := http.NewRequestWithContext(r.Context(), r.Method, c.moto.URL+r.URL.Path, bytes.NewReader(body))
	if err != nil {
		return
	}
	on.Header = r.Header.Clone()
	answer, err := c.client.Do(on)
	if err != nil {
		out.WriteHeader(http.StatusBadGateway)
		return
	}
	defer answer.Body.Close()
	out.Header().Set("Content-Type", answer.Header.Get("Content-Type"))
	out.WriteHeader(answer.StatusCode)
	_, _ = io.Copy(out, answer.Body)
}
