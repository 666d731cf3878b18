//go:build e2e

package e2e

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/story"
)

// TestPanicWhileTheAPIServerIsDown checks that the listener continues to receive, stores the incident, and acts when the API
// server is back. Malformed datagrams of every kind arrive at the same time.
func TestPanicWhileTheAPIServerIsDown(t *testing.T) {
	w, err := story.NewWorld(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	n, victims := populated(t, w, "6.12", lab.CrashSysrq, story.NodeSpec{Name: "node-1", Panic: 5})
	if err := w.AwaitPin(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	w.Cluster.StopAPIServer()
	noise(t, w)
	if err := n.VM.Crash(t.Context(), lab.CrashSysrq); err != nil {
		t.Fatal(err)
	}
	if err := n.VM.Wait(t.Context()); err != nil { // it has rebooted, so it has sent everything
		t.Fatal(err)
	}
	noise(t, w)
	if err := w.Listener.Died(); err != nil {
		t.Fatal(err)
	}
	if err := w.Cluster.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*busy)
	defer cancel()
	record, err := w.AwaitCleaned(ctx, n)
	if err != nil {
		w.Explain(t)
		t.Fatal(err)
	}
	// All but the static pod; the DaemonSets of other tests do not run here.
	if done := record.Status.Pods.Failed; done != len(victims)-1 {
		t.Errorf("%d pods failed, want %d", done, len(victims)-1)
	}
	if record.Spec.Authority != "pinned" || !strings.Contains(strings.Join(record.Spec.Trace, "\n"), "Kernel panic - not syncing") {
		t.Errorf("recorded authority %s and trace %q, want pinned and the panic", record.Spec.Authority, record.Spec.Trace)
	}
}

// noise sends what no kernel would: empty, short, oversized and random datagrams.
func noise(t *testing.T, w *story.World) {
	t.Helper()
	err := w.Net.Node.Do(func() error {
		conn, err := net.Dial("udp", w.Endpoint())
		if err != nil {
			return err
		}
		defer conn.Close()
		for _, payload := range []string{
			"", "6", "6,1,1", "6,1,1,-,ncfrag=5/2;x", "6,1,1,-,ncfrag=0/99999999;x",
			strings.Repeat("A", 60000), "\x00\xff\x7f\x80", "lastgasp: canary v1 nonce=",
		} {
			if _, err := conn.Write([]byte(payload)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
