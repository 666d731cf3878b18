package listener

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// Metrics are the listener's counters. No label ever names a node: a fleet's worth of label values would outlive it.
type Metrics struct {
	Datagrams, Malformed, Refused, OverQuota, ReadErrors, KernelDrops prometheus.Counter
	Records, Shipped, ShipDropped                                     prometheus.Counter
	Canaries, CanariesRepeated, Acks, AcksLimited                     prometheus.Counter
	Incidents                                                         *prometheus.CounterVec
	HandoverFull, IncidentsDropped                                    prometheus.Counter
	Sources, Waiting, Buffer                                          prometheus.Gauge
	Evicted, Cramped                                                  prometheus.Counter
	Verdict                                                           prometheus.Histogram
}

// NewMetrics makes the counters and registers them with r.
func NewMetrics(r prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "lastgasp", Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "lastgasp", Name: name, Help: help})
		r.MustRegister(g)
		return g
	}
	m := &Metrics{
		Datagrams:        counter("datagrams_total", "Datagrams received."),
		Malformed:        counter("datagrams_malformed_total", "Datagrams or canaries that are not what netconsole sends; dropped."),
		Refused:          counter("datagrams_refused_total", "Datagrams from sources beyond the table's bounds; dropped."),
		OverQuota:        counter("datagrams_over_quota_total", "Datagrams dropped because their source sent too many."),
		ReadErrors:       counter("read_errors_total", "Errors while reading a socket."),
		KernelDrops:      counter("datagrams_dropped_total", "Datagrams the kernel dropped because the receive buffer was full."),
		Records:          counter("records_total", "Kernel log records joined from datagrams."),
		Shipped:          counter("records_shipped_total", "Records written to where they are shipped to."),
		ShipDropped:      counter("records_ship_dropped_total", "Records not shipped because whoever reads them is slow or gone."),
		CanariesRepeated: counter("canaries_repeated_total", "Canaries that proved nothing new: of a second target, replayed or without identity."),
		Canaries:         counter("canaries_total", "Canaries received."),
		Acks:             counter("acks_total", "Canaries answered."),
		AcksLimited:      counter("acks_limited_total", "Canaries not answered because their source sent too many."),
		HandoverFull:     counter("handover_full_total", "Times an incident had to wait because cleanup was busy."),
		IncidentsDropped: counter("incidents_dropped_total", "Findings given up because their source had too many waiting."),
		Evicted:          counter("sources_evicted_total", "Sources forgotten to make room for others."),
		Cramped:          counter("records_cramped_total", "Times a source's lines were given up at once because all memory for them was in use."),
		Incidents: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "lastgasp", Name: "incidents_total", Help: "Incidents by verdict and code.",
		}, []string{"verdict", "code"}),
		Sources: gauge("sources", "Sources in the table."),
		Waiting: gauge("incidents_waiting", "Incidents that wait because cleanup is busy."),
		Buffer:  gauge("receive_buffer_bytes", "Receive buffer the kernel granted, all sockets together."),
		Verdict: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "lastgasp", Name: "verdict_seconds", Help: "From reading a datagram to handing its incident over.",
			Buckets: prometheus.ExponentialBuckets(10e-6, 4, 10),
		}),
	}
	r.MustRegister(m.Incidents, m.Verdict)
	return m
}

// Observe makes the metrics of cleanup, registers them with r and returns the functions that feed them. What they do not
// cover stays as in o.
func (m *Metrics) Observe(r prometheus.Registerer, o cleanup.Observer) cleanup.Observer {
	histogram := func(name, help string) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "lastgasp", Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.002, 2, 16),
		})
		r.MustRegister(h)
		return h
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "lastgasp", Name: name, Help: help}, []string{label})
		r.MustRegister(c)
		return c
	}
	fenced := histogram("fence_seconds", "From hearing an incident to the fence on its Node.")
	failed := histogram("pod_failed_seconds", "From hearing an incident to a pod being Failed.")
	finished := vec("cleanups_total", "Deaths that came to an end, by phase.", "phase")
	claimed := vec("claims_total", "Canaries offered as claims, by result.", "result")
	faults := prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "lastgasp", Name: "api_faults_total", Help: "API calls that had to be repeated."})
	atWork := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "lastgasp", Name: "cleanups_at_work", Help: "Deaths being worked on."})
	r.MustRegister(faults, atWork)

	o.Fenced = func(after time.Duration) { fenced.Observe(after.Seconds()) }
	o.PodFailed = func(after time.Duration) { failed.Observe(after.Seconds()) }
	o.Finished = func(phase policy.Phase, _ time.Duration) { finished.WithLabelValues(string(phase)).Inc() }
	o.Claimed = func(result policy.Claiming) { claimed.WithLabelValues(string(result)).Inc() }
	o.Fault = faults.Inc
	o.AtWork = func(n int) { atWork.Set(float64(n)) }
	return o
}

// nopRegisterer lets a replay count without publishing.
type nopRegisterer struct{}

func (nopRegisterer) Register(prometheus.Collector) error  { return nil }
func (nopRegisterer) MustRegister(...prometheus.Collector) {}
func (nopRegisterer) Unregister(prometheus.Collector) bool { return true }
