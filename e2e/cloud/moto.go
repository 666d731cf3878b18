package cloud

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

// Moto is a server that speaks the protocols of AWS and keeps everything in memory: Parameter Store, EC2, STS and more.
type Moto struct {
	// URL is where it answers: the value of AWS_ENDPOINT_URL. Region and account are whatever a request says.
	URL string

	daemon *lab.Daemon
	ns     *lab.NS
}

// motoStart bounds how long moto takes to answer: 1.5 s on an idle machine.
const motoStart = 5 * time.Minute

// StartMoto runs Debian's moto at addr in ns until s ends, and returns when it answers. The namespace must have the
// address.
func StartMoto(ctx context.Context, s lab.Scope, ns *lab.NS, addr netip.AddrPort) (*Moto, error) {
	root, err := Root(ctx, s, "trixie", "python3-moto", "python3-flask-cors", "python3-yaml") // bookworm has no moto
	if err != nil {
		return nil, err
	}
	logs, err := os.MkdirTemp("", "lastgasp-moto-")
	if err != nil {
		return nil, fmt.Errorf("start moto: %w", err)
	}
	s.Cleanup(func() { os.RemoveAll(logs) })
	cmd := ns.Command(context.Background(), "chroot", root, "moto_server", "-H", addr.Addr().String(), "-p", fmt.Sprint(addr.Port()))
	m := &Moto{URL: "http://" + addr.String(), ns: ns}
	if m.daemon, err = lab.StartDaemon(s, "moto", filepath.Join(logs, "moto.log"), cmd); err != nil {
		return nil, err
	}
	if err := m.await(ctx); err != nil {
		return nil, fmt.Errorf("start moto: %w", err)
	}
	return m, nil
}

// Stop ends it at once, as an outage would. Its data is lost.
func (m *Moto) Stop() { m.daemon.Kill() }

// Client connects from inside the namespace, wherever it is used.
func (m *Moto) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: m.ns.Dial}}
}

// await returns when moto answers.
func (m *Moto) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, motoStart)
	defer cancel()
	client := m.Client()
	defer client.CloseIdleConnections()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.URL+"/moto-api/", nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err == nil {
			response.Body.Close()
			return nil
		}
		if died := m.daemon.Died(); died != nil {
			return died
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no answer within %s: %w", motoStart, err)
		case <-again.C:
		}
	}
}
