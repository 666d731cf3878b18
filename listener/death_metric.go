package listener

import (
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
}

// Collect implements prometheus.Collector.
func (m DeathMetric) Collect(out chan<- prometheus.Metric) {
	deaths, err := m.Deaths()
	if err != nil {
		return
	}
	counts := make(map[policy.Phase]int)
	last := 0.0 // none: 1970
	for _, d := range deaths {
		if d.Phase == "" { // its status was never written
			d.Phase = policy.Pending
		}
		counts[d.Phase]++
		if d.Phase != policy.Refused && !d.Time.IsZero() {
			last = max(last, float64(d.Time.Unix()))
		}
	}
	for _, phase := range [...]policy.Phase{
		policy.Pending, policy.Held, policy.Refused, policy.Cleaning, policy.Cleaned, policy.Incomplete, policy.Recorded,
	} {
		out <- prometheus.MustNewConstMetric(deathsDesc(), prometheus.GaugeValue, float64(counts[phase]), string(phase))
	}
	out <- prometheus.MustNewConstMetric(lastDeathDesc(), prometheus.GaugeValue, last)
}

func deathsDesc() *prometheus.Desc {
	return prometheus.NewDesc("lastgasp_deaths", "NodeDeaths on record by phase; Held ones wait for a person.", []string{"phase"}, nil)
}

func lastDeathDesc() *prometheus.Desc {
	return prometheus.NewDesc("lastgasp_last_death_timestamp_seconds",
		"When the latest node died of those with a NodeDeath that was not refused, 0 if none did.", nil, nil)
}
