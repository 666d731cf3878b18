package story

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

// AwaitPin waits until the node has pinned its boot, and the listener has seen that.
func (w *World) AwaitPin(ctx context.Context, n *Node) error {
	ctx, cancel := context.WithTimeoutCause(ctx, busy, fmt.Errorf("%s was not pinned within %s", n.Name, busy))
	defer cancel()
	watcher, err := Watch(ctx, w.Cluster.RESTConfig(), n.Namespace)
	if err != nil {
		return err
	}
	_, err = watcher.Await(ctx, "the pin of "+n.Name, func(seen []Sighting) bool {
		node := node(seen, n.Name)
		return node != nil && node.Annotations[lab.PinKey] != ""
	})
	if err != nil {
		return err
	}
	return awaitPinned(ctx, w.Net.Listener, n.Name)
}

// awaitPinned waits until the listener in ns has seen a Node's pin: its own watch may be behind the caller's.
func awaitPinned(ctx context.Context, ns *lab.NS, node string) error {
	return await(ctx, "the listener to know the pin of "+node, func(ctx context.Context) error {
		pinned, err := Pinned(ctx, ns)
		if err != nil || pinned[node] {
			return err
		}
		return errors.New("it does not")
	})
}

// Explain logs what helps to explain a failed story: the end of the listener's log and the NodeDeaths.
func (w *World) Explain(s lab.Scope) {
	if text, err := os.ReadFile(w.ListenerLog); err == nil {
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		s.Logf("the listener's log ends so:\n%s", strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if out, err := w.Cluster.Kubectl(ctx, "get", "nodedeaths,nodes,pods", "--all-namespaces", "-o", "wide"); err == nil {
		s.Logf("the cluster:\n%s", out)
	}
}

// Pinned says of each node that the listener in ns knows whether it is pinned.
func Pinned(ctx context.Context, ns *lab.NS) (map[string]bool, error) {
	resp, err := Ask(ctx, ns, "/nodes")
	if err != nil {
		return nil, fmt.Errorf("ask the listener for its nodes: %w", err)
	}
	defer resp.Body.Close()
	var nodes []struct {
		Node   string
		Pinned bool
	}
	if err := json.NewDecoder(resp.Body).Decode(&nodes); err != nil {
		return nil, fmt.Errorf("read the listener's nodes: %w", err)
	}
	pinned := map[string]bool{}
	for _, n := range nodes {
		pinned[n.Node] = n.Pinned
	}
	return pinned, nil
}

// Ask opens a page of the HTTP side of the listener in ns, which is on its default address.
func Ask(ctx context.Context, ns *lab.NS, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:9666"+path, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{DialContext: ns.Dial, DisableKeepAlives: true}}
	return client.Do(req)
}

// Dying is how many kernels the listener has heard die so far.
func (w *World) Dying(ctx context.Context) (n int, err error) {
	const incidents, dying = "lastgasp_incidents_total{", `verdict="dying"} `
	resp, err := Ask(ctx, w.Net.Listener, "/metrics")
	if err != nil {
		return 0, fmt.Errorf("ask the listener for its metrics: %w", err)
	}
	defer resp.Body.Close()
	seen := false
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		labels, value, ok := strings.Cut(lines.Text(), dying)
		if !ok || !strings.HasPrefix(labels, incidents) {
			continue
		}
		seen = true
		count, err := strconv.Atoi(value)
		if err != nil {
			return 0, fmt.Errorf("read the listener's metrics: %w", err)
		}
		n += count
	}
	if !seen {
		return 0, fmt.Errorf("the listener has no metric %s…%s", incidents, dying)
	}
	return n, nil
}

// AwaitLease waits until the node's kubelet has renewed its Lease once, ten seconds after its start. A node that cannot be pinned
// needs it as the witness.
func (w *World) AwaitLease(ctx context.Context, n *Node) error {
	ctx, cancel := context.WithTimeoutCause(ctx, busy, fmt.Errorf("%s had no Lease within %s", n.Name, busy))
	defer cancel()
	for tick := time.Tick(200 * time.Millisecond); ; {
		renewed, err := w.Cluster.Heartbeat(ctx, n.Name)
		if err != nil {
			return err
		}
		if !renewed.IsZero() {
			return nil
		}
		select {
		case <-tick:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
