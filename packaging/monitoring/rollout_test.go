//go:build rollout

package monitoring

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"
)

// TestRollout scrapes the listener at ROLLOUT_METRICS each second, has the rules evaluated over that, and wants the alerts that
// ROLLOUT_ALERTS names to fire, and no others, three times in a row. e2e's TestRollout runs it, before and after a death.
func TestRollout(t *testing.T) {
	url, want := os.Getenv("ROLLOUT_METRICS"), strings.Fields(os.Getenv("ROLLOUT_ALERTS"))
	if url == "" {
		t.Fatal("ROLLOUT_METRICS is not set; make rollout sets it")
	}
	db := teststorage.New(t)
	groups := loadRules(t, db)
	deadline := time.Now().Add(time.Minute)
	for inRow := 0; inRow < 3; time.Sleep(time.Second) {
		at := time.Now()
		n, err := scrape(t, db, url, at)
		if err != nil {
			t.Fatal(err)
		}
		got := evaluate(t, groups, at)
		t.Logf("%d samples; firing: %q", n, got)
		if inRow++; !slices.Equal(got, want) {
			inRow = 0
		}
		if at.After(deadline) {
			t.Fatalf("firing: %q, want %q", got, want)
		}
	}
}

// scrape stores what is exposed at url, with the labels that Prometheus gives to a target, and returns the number of samples.
func scrape(t *testing.T, db *teststorage.TestStorage, url string, at time.Time) (n int, err error) {
	resp, err := http.Get(url)
	if err != nil {
		return 0, fmt.Errorf("scrape: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("scrape: %s, %v", resp.Status, err)
	}
	app := db.AppenderV2(t.Context())
	symbols := labels.NewSymbolTable()
	for p := textparse.NewPromParser(text, symbols, false); ; {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return n, app.Commit()
		}
		if err != nil {
			return n, fmt.Errorf("parse metrics: %w", err)
		}
		if entry != textparse.EntrySeries {
			continue
		}
		var series labels.Labels
		_, _, value := p.Series()
		p.Labels(&series)
		series = labels.NewBuilder(series).Set("namespace", "lastgasp").Set("pod", "listener-0").Set("instance", url).Labels()
		if _, err := app.Append(0, series, 0, at.UnixMilli(), value, nil, nil, storage.AppendV2Options{}); err != nil {
			return n, fmt.Errorf("store %s: %w", series, err)
		}
		n++
	}
}
