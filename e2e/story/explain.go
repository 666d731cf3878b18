package story

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
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
		client := http.Client{Transport: &http.Transport{DialContext: ns.Dial, DisableKeepAlives: true}}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:9666/nodes", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var nodes []struct {
			Node   string
			Pinned bool
		}
		if err := json.NewDecoder(resp.Body).Decode(&nodes); err != nil {
			return err
		}
		for _, n := range nodes {
			if n.Node == node && n.Pinned {
				return nil
			}
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

// Dying is how many kernels the listener has heard die so far.
func (w *World) Dying(ctx context.Context) (n int, err error) {
	const incidents, dying = "lastgasp_incidents_total{", `verdict="dying"} `
	seen := false
	err = w.Net.Listener.Do(func() error {
		conn, err := net.Dial("tcp", "127.0.0.1:9666")
		if err != nil {
			return err
		}
		defer conn.Close()
		if deadline, ok := ctx.Deadline(); ok {
			conn.SetDeadline(deadline)
		}
		fmt.Fprint(conn, "GET /metrics HTTP/1.0\r\n\r\n")
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			labels, value, ok := strings.Cut(lines.Text(), dying)
			if !ok || !strings.HasPrefix(labels, incidents) {
				continue
			}
			seen = true
			count, err := strconv.Atoi(value)
			if err != nil {
				return err
			}
			n += count
		}
		if !seen {
			return fmt.Errorf("there is no %s…%s", incidents, dying)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("ask the listener for its metrics: %w", err)
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
