package listener

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// DeathMetric counts the NodeDeaths on record at every scrape. Each replica sees all of them.
type DeathMetric struct {
	// Deaths lists them. An error means that they are not known yet; then there is no metric.
	Deaths func() ([]policy.Death, error)
}

// Describe implements prometheus.Collector.
func (DeathMetric) Describe(out chan<- *prometheus.Desc) {
	out <- deathsDesc()
	out <- lastDeathDesc()
	out <- causesDesc()
	out <- kernelsDesc()
}

// Collect implements prometheus.Collector.
func (m DeathMetric) Collect(out chan<- prometheus.Metric) {
	deaths, err := m.Deaths()
	if err != nil {
		return
	}
	counts, causes, kernels := make(map[policy.Phase]int), make(map[[2]string]int), make(map[[2]string]int)
	last := 0.0 // none: 1970
	for _, d := range deaths {
		counts[d.Phase.OrPending()]++
		if d.Phase == policy.Refused {
			continue // nobody died
		}
		if !d.Time.IsZero() {
			last = max(last, float64(d.Time.Unix()))
		}
		countPair(causes, d.Cause, string(d.Best()))
		countPair(kernels, d.Release, d.Known())
	}
	for pair, n := range causes {
		out <- prometheus.MustNewConstMetric(causesDesc(), prometheus.GaugeValue, float64(n), pair[0], pair[1])
	}
	for pair, n := range kernels {
		out <- prometheus.MustNewConstMetric(kernelsDesc(), prometheus.GaugeValue, float64(n), pair[0], pair[1])
	}
	for _, phase := range [...]policy.Phase{
		policy.Pending, policy.Held, policy.Refused, policy.Cleaning, policy.Cleaned, policy.Incomplete, policy.Recorded,
	} {
		out <- prometheus.MustNewConstMetric(deathsDesc(), prometheus.GaugeValue, float64(counts[phase]), string(phase))
	}
	out <- prometheus.MustNewConstMetric(lastDeathDesc(), prometheus.GaugeValue, last)
}

// maxPairs bounds the series of one metric: nodes choose the words of their obituaries.
const maxPairs = 256

// countPair counts a pair of labels, as other where there are too many.
func countPair(counts map[[2]string]int, first, second string) {
	pair := [2]string{strings.ToValidUTF8(first, "_"), second}
	if _, known := counts[pair]; !known && len(counts) >= maxPairs {
		pair[0] = "other"
	}
	counts[pair]++
}

func causesDesc() *prometheus.Desc {
	return prometheus.NewDesc("lastgasp_deaths_by_cause", "NodeDeaths on record that were not refused, by cause and by the evidence that says most.",
		[]string{"cause", "evidence"}, nil)
}

func kernelsDesc() *prometheus.Desc {
	return prometheus.NewDesc("lastgasp_deaths_by_kernel",
		"NodeDeaths on record that were not refused, by kernel release and by when it was known how the boot ended: live, later or never. Recall is live ÷ all.",
		[]string{"release", "known"}, nil)
}

func deathsDesc() *prometheus.Desc {
	return prometheus.NewDesc("lastgasp_deaths", "NodeDeaths on record by phase; Held ones wait for a person.", []string{"phase"}, nil)
}

func lastDeathDesc() *prometheus.Desc {
	return prometheus.NewDesc("lastgasp_last_death_timestamp_seconds",
		"Time of the latest death on record that was not refused, 0 if there is none.", nil, nil)
}

// Describe implements prometheus.Collector: a Directory has the metrics of deaths that need no NodeDeaths.
func (d *Directory) Describe(out chan<- *prometheus.Desc) { out <- lastDeathDesc() }

// Collect implements prometheus.Collector.
func (d *Directory) Collect(out chan<- prometheus.Metric) {
	d.mu.Lock()
	latest := d.lastDeath
	d.mu.Unlock() // a scrape may be slow
	last := 0.0
	if !latest.IsZero() {
		last = float64(latest.Unix())
	}
	out <- prometheus.MustNewConstMetric(lastDeathDesc(), prometheus.GaugeValue, last)
}
