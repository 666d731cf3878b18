package listener

import (
	"errors"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

var update = flag.Bool("update", false, "write packaging/monitoring/metrics.txt")

// sample is a sample's name and labels, and its value.
var sample = regexp.MustCompile(`(?m)^([a-z_]+(?:\{.*\})?) .*$`)

// exposition is what Prometheus would read.
func exposition(r *prometheus.Registry) string {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// TestMetricsOfAFreshListener holds packaging/monitoring/metrics.txt, by which alerts and dashboard are checked, to what a
// listener exposes before anybody has died.
func TestMetricsOfAFreshListener(t *testing.T) {
	const file = "../packaging/monitoring/metrics.txt"
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m := NewMetrics(registry, new(detect.Config))
	m.Observe(registry, cleanup.Observer{})
	m.Describe(registry, "1.2.3", "0123456789ab", func() error { return nil })
	registry.MustRegister(CoverMetric{Coverage: new(Coverage)}, DeathMetric{func() ([]policy.Death, error) { return nil, nil }})
	got := sample.ReplaceAllString(strings.ReplaceAll(exposition(registry), runtime.Version(), "go"), "$1 0")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("go test ./listener -run FreshListener -update rewrites %s (-want +got):\n%s", file, diff)
	}
}

// The first death of each kind must be an increase of a counter that was there.
func TestFirstIncidentIsAnIncrease(t *testing.T) {
	registry := prometheus.NewRegistry()
	rule := detect.Rule{Cause: "Teapot", Verdict: detect.Oops, Match: "I'm a teapot", Examples: []string{"I'm a teapot"}}
	judge := &detect.Config{Rules: []detect.Rule{rule}}
	if err := judge.Compile(); err != nil {
		t.Fatal(err)
	}
	m := NewMetrics(registry, judge)
	count := func() int { return strings.Count(exposition(registry), "lastgasp_incidents_total{") }
	before := count()
	for _, f := range []detect.Finding{
		{Verdict: detect.Dying, Cause: "KernelPanic"}, {Verdict: detect.Dying, Cause: "KernelOops"}, {Verdict: detect.Oops, Cause: "KernelOops"},
		{Verdict: detect.Sick, Cause: "HardLockup"}, {Verdict: detect.Oops, Cause: "Teapot"}, {Verdict: detect.Dying, Cause: "Teapot"},
	} {
		m.Receive.Incident(f.Verdict, f.Cause)
	}
	if after := count(); after != before {
		t.Errorf("%d series became %d", before, after)
	}
}

func TestDeathMetric(t *testing.T) {
	at := func(seconds int64) time.Time { return time.Unix(seconds, 0) }
	collector := DeathMetric{func() ([]policy.Death, error) {
		return []policy.Death{
			{Time: at(100), Phase: policy.Cleaned, Cause: "KernelPanic", Release: "6.12.0", Evidence: []policy.Evidence{policy.ByNetconsole, policy.ByPstore}},
			{Time: at(300), Phase: policy.Held, Cause: "KernelPanic", Release: "7.0.0", Evidence: []policy.Evidence{policy.ByConsole}},
			{Time: at(200), Cause: "Unexplained", Release: "7.0.0", Evidence: []policy.Evidence{policy.ByNothing}},
			{Time: at(250), Phase: policy.Recorded, Cause: "KernelPanic", Release: "7.0.0", Evidence: []policy.Evidence{policy.ByNothing, policy.ByPstore}},
			{Time: at(260), Phase: policy.Recorded, Cause: "KernelPanic", Release: "7.0.0", Evidence: []policy.Evidence{policy.ByConsole}},
			{Time: at(400), Phase: policy.Refused, Cause: "KernelPanic"}, // nobody died
		}, nil
	}}
	want := `
# HELP lastgasp_deaths NodeDeaths on record by phase; Held ones wait for a person.
# TYPE lastgasp_deaths gauge
lastgasp_deaths{phase="Cleaned"} 1
lastgasp_deaths{phase="Cleaning"} 0
lastgasp_deaths{phase="Held"} 1
lastgasp_deaths{phase="Incomplete"} 0
lastgasp_deaths{phase="Pending"} 1
lastgasp_deaths{phase="Recorded"} 2
lastgasp_deaths{phase="Refused"} 1
# HELP lastgasp_deaths_by_cause NodeDeaths on record that were not refused, by cause and by the evidence that says most.
# TYPE lastgasp_deaths_by_cause gauge
lastgasp_deaths_by_cause{cause="KernelPanic",evidence="console"} 2
lastgasp_deaths_by_cause{cause="KernelPanic",evidence="netconsole"} 1
lastgasp_deaths_by_cause{cause="KernelPanic",evidence="pstore"} 1
lastgasp_deaths_by_cause{cause="Unexplained",evidence="none"} 1
# HELP lastgasp_deaths_by_kernel NodeDeaths on record that were not refused, by kernel release and by when it was known how the boot ended: live, later or never. Recall is live ÷ all.
# TYPE lastgasp_deaths_by_kernel gauge
lastgasp_deaths_by_kernel{known="later",release="7.0.0"} 2
lastgasp_deaths_by_kernel{known="live",release="6.12.0"} 1
lastgasp_deaths_by_kernel{known="live",release="7.0.0"} 1
lastgasp_deaths_by_kernel{known="never",release="7.0.0"} 1
# HELP lastgasp_last_death_timestamp_seconds Time of the latest death on record that was not refused, 0 if there is none.
# TYPE lastgasp_last_death_timestamp_seconds gauge
lastgasp_last_death_timestamp_seconds 300
`
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector)
	if diff := cmp.Diff(want[1:], exposition(registry)); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	registry = prometheus.NewRegistry()
	registry.MustRegister(DeathMetric{func() ([]policy.Death, error) { return nil, errors.New("not listed yet") }})
	if got := exposition(registry); got != "" {
		t.Errorf("metrics before the deaths are known: %s", got)
	}
}

func TestReadyMetric(t *testing.T) {
	registry := prometheus.NewRegistry()
	var ready error
	NewMetrics(registry, new(detect.Config)).Describe(registry, "v", "c", func() error { return ready })
	for _, tt := range []struct {
		err  error
		want string
	}{{nil, "1"}, {errors.New("policies are not in force"), "0"}} {
		ready = tt.err
		if got := exposition(registry); !strings.Contains(got, "\nlastgasp_ready "+tt.want+"\n") {
			t.Errorf("ready: %v: want %s in\n%s", tt.err, tt.want, got)
		}
	}
}
