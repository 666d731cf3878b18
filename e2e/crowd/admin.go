package crowd

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// ready asks whether the listener is ready.
func (w *World) ready(ctx context.Context) bool {
	resp, err := w.ask(ctx, "/readyz")
	if err != nil {
		return false // not yet
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Unknown is how many nodes of c the listener does not know to be pinned: its own watch may be behind a Watcher.
func (w *World) Unknown(ctx context.Context, c Crowd) (int, error) {
	resp, err := w.ask(ctx, "/nodes")
	if err != nil {
		return 0, fmt.Errorf("ask the listener for its nodes: %w", err)
	}
	defer resp.Body.Close()
	var nodes []struct {
		Node   string
		Pinned bool
	}
	if err := json.NewDecoder(resp.Body).Decode(&nodes); err != nil {
		return 0, fmt.Errorf("read the listener's nodes: %w", err)
	}
	pinned := map[string]bool{}
	for _, n := range nodes {
		pinned[n.Node] = n.Pinned
	}
	unknown := 0
	for _, name := range c.Names() {
		if !pinned[name] {
			unknown++
		}
	}
	return unknown, nil
}

// Metric is one of the listener's, by its name without labels.
func (w *World) Metric(ctx context.Context, name string) (value float64, err error) {
	resp, err := w.ask(ctx, "/metrics")
	if err != nil {
		return 0, fmt.Errorf("ask the listener for its metrics: %w", err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			_, err := fmt.Sscan(text, &value)
			return value, err
		}
	}
	return 0, fmt.Errorf("the listener has no metric %s", name)
}

// ask opens a page of the listener's HTTP side, which is on its default address.
func (w *World) ask(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:9666"+path, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{DialContext: w.ns.Dial, DisableKeepAlives: true}}
	return client.Do(req)
}
