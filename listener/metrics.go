package listener

import (
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
	"github.com/lastgasp/lastgasp/listener/receive"
)

// Metrics are what the listener counts. No label ever names a node: a fleet's worth of label values would outlive it.
type Metrics struct {
	Receive receive.Metrics

	shipped, shipDropped prometheus.Counter
}

// NewMetrics makes the metrics and registers them with r. Every series is there from the start: increase() does not see a
// counter that appears at 1, and an alert on a metric that does not exist never fires.
func NewMetrics(r prometheus.Registerer, judge *detect.Config) *Metrics {
	m := new(Metrics)
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "lastgasp", Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	for _, c := range []struct {
		value      *atomic.Int64
		name, help string
	}{
		{&m.Receive.Datagrams, "datagrams_total", "Datagrams received."},
		{&m.Receive.Verified, "datagrams_verified_total", "Datagrams that carried the secret of their boot."},
		{&m.Receive.Malformed, "datagrams_malformed_total", "Datagrams or canaries that are not what netconsole sends; dropped."},
		{&m.Receive.Refused, "datagrams_refused_total", "Datagrams from sources beyond the table's bounds; dropped."},
		{&m.Receive.OverQuota, "datagrams_over_quota_total", "Datagrams dropped because their node or address sent too many."},
		{&m.Receive.ReadErrors, "read_errors_total", "Errors while reading a socket."},
		{&m.Receive.KernelDrops, "datagrams_dropped_total", "Datagrams the kernel dropped because the receive buffer was full."},
		{&m.Receive.Records, "records_total", "Kernel log records joined from datagrams."},
		{&m.Receive.Canaries, "canaries_total", "Canaries received."},
		{&m.Receive.CanariesRepeated, "canaries_repeated_total", "Canaries that proved nothing new: of a second target, replayed or without identity."},
		{&m.Receive.CanariesForeign, "canaries_foreign_total", "Canaries not answered because they name another cluster."},
		{&m.Receive.CanariesStranger, "canaries_stranger_total", "Canaries answered whose sender is not a Node of the cluster."},
		{&m.Receive.Acks, "acks_total", "Canaries answered."},
		{&m.Receive.AcksLimited, "acks_limited_total", "Canaries not answered because their node or address sent too many."},
		{&m.Receive.Obituaries, "obituaries_total", "Whole obituaries received: what nodes say about how their previous boot ended."},
		{&m.Receive.ObituariesStranger, "obituaries_stranger_total", "Parts of obituaries that did not carry the secret of a Node's boot; dropped."},
		{&m.Receive.HandoverFull, "handover_full_total", "Times an incident had to wait because cleanup was busy."},
		{&m.Receive.IncidentsDropped, "incidents_dropped_total", "Incidents given up because their node or address had too many waiting."},
		{&m.Receive.Evicted, "sources_evicted_total", "Sources forgotten to make room for others."},
		{&m.Receive.Cramped, "records_cramped_total", "Times a source's lines were dropped at once to stay within the memory for them."},
	} {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "lastgasp", Name: c.name, Help: c.help},
			func() float64 { return float64(c.value.Load()) }))
	}
	for _, g := range []struct {
		value      *atomic.Int64
		name, help string
	}{
		{&m.Receive.Sources, "sources", "Sources in the table."},
		{&m.Receive.Nodes, "verified_nodes", "Nodes in the table whose secret is known."},
		{&m.Receive.Waiting, "incidents_waiting", "Incidents that wait because cleanup is busy."},
		{&m.Receive.Buffer, "receive_buffer_bytes", "Receive buffer the kernel granted, all sockets together."},
	} {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "lastgasp", Name: g.name, Help: g.help},
			func() float64 { return float64(g.value.Load()) }))
	}
	m.shipped = counter("records_shipped_total", "Records written to where they are shipped to.")
	m.shipDropped = counter("records_ship_dropped_total", "Records not shipped because their reader is slow or gone.")
	incidents := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "lastgasp", Name: "incidents_total", Help: "Incidents by verdict and code.",
	}, []string{"verdict", "code"})
	judged := prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "lastgasp", Name: "verdict_seconds", Help: "From reading a datagram to handing its incident over.",
		Buckets: prometheus.ExponentialBuckets(10e-6, 4, 10),
	})
	r.MustRegister(incidents, judged)
	for _, f := range judge.Findings() {
		incidents.WithLabelValues(f.Verdict.String(), f.Cause)
	}
	m.Receive.Incident = func(v detect.Verdict, cause string) { incidents.WithLabelValues(v.String(), cause).Inc() }
	m.Receive.Judged = func(after time.Duration) { judged.Observe(after.Seconds()) }
	return m
}

// Describe registers metrics for the build of this process and for its readiness with r.
func (m *Metrics) Describe(r prometheus.Registerer, version, commit string, ready func() error) {
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "lastgasp", Name: "build_info", Help: "1, with what the listener was built from.",
		ConstLabels: prometheus.Labels{"version": version, "commit": commit, "goversion": runtime.Version()},
	})
	build.Set(1)
	r.MustRegister(build, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "lastgasp", Name: "ready", Help: "1 while /readyz says ok. 0 means that deaths are recorded at most, and nothing is done about them.",
	}, func() float64 {
		if ready() != nil {
			return 0
		}
		return 1
	}))
}

// Observe makes the metrics of cleanup, registers them with r and returns o with the functions that feed them.
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
	farewells := vec("farewells_total", "Farewells of nodes that end a boot in good order, by result.", "result")
	faults := prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "lastgasp", Name: "api_faults_total", Help: "API calls that had to be repeated."})
	for _, phase := range []policy.Phase{policy.Refused, policy.Cleaned, policy.Incomplete, policy.Recorded} {
		finished.WithLabelValues(string(phase))
	}
	for _, result := range []policy.Claiming{
		policy.ClaimWrite, policy.ClaimKnown, policy.ClaimWaits, policy.ClaimRefused, policy.ClaimGivenUp,
	} {
		claimed.WithLabelValues(string(result))
	}
	for _, result := range cleanup.FarewellResults() {
		farewells.WithLabelValues(string(result))
	}
	atWork := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "lastgasp", Name: "cleanups_at_work", Help: "Deaths being worked on."})
	r.MustRegister(faults, atWork)

	o.Fenced = func(after time.Duration) { fenced.Observe(after.Seconds()) }
	o.PodFailed = func(after time.Duration) { failed.Observe(after.Seconds()) }
	o.Finished = func(phase policy.Phase, _ time.Duration) { finished.WithLabelValues(string(phase)).Inc() }
	o.Claimed = func(result policy.Claiming) { claimed.WithLabelValues(string(result)).Inc() }
	o.Farewell = func(result cleanup.FarewellResult) { farewells.WithLabelValues(string(result)).Inc() }
	o.Fault = faults.Inc
	o.AtWork = func(n int) { atWork.Set(float64(n)) }
	return o
}
