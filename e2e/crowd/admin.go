package crowd

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/lastgasp/lastgasp/e2e/story"
)

// ready asks whether the listener is ready.
func (w *World) ready(ctx context.Context) bool {
	resp, err := story.Ask(ctx, w.ns, "/readyz")
	if err != nil {
		return false // not yet
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Unknown is how many nodes of c the listener does not know to be pinned: its own watch may be behind a Watcher.
func (w *World) Unknown(ctx context.Context, c Crowd) (int, error) {
	pinned, err := story.Pinned(ctx, w.ns)
	if err != nil {
		return 0, err
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
	resp, err := story.Ask(ctx, w.ns, "/metrics")
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
