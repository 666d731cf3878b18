package listener

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// CoverMetric counts the nodes of each Cover at every scrape: all of the cluster, whichever replica has heard them.
type CoverMetric struct {
	Coverage *Coverage
	Roster   func() []RosterNode // nil without a cluster
}

// Describe implements prometheus.Collector.
func (c CoverMetric) Describe(out chan<- *prometheus.Desc) { out <- c.desc() }

// Collect implements prometheus.Collector.
func (c CoverMetric) Collect(out chan<- prometheus.Metric) {
	var roster []RosterNode
	if c.Roster != nil {
		roster = c.Roster()
	}
	counts := c.Coverage.Count(time.Now(), roster)
	for _, cover := range [...]Cover{Covered, Unproven, Mute, Silent, Stranger} {
		out <- prometheus.MustNewConstMetric(c.desc(), prometheus.GaugeValue, float64(counts[cover]), string(cover))
	}
}

func (CoverMetric) desc() *prometheus.Desc {
	return prometheus.NewDesc("lastgasp_nodes",
		"Nodes by whether they could be heard dying, the same on every replica: covered, unproven, mute, silent, or a stranger that is not a Node.", []string{"cover"}, nil)
}
