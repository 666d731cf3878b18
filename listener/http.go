package listener

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Admin is the HTTP side: metrics, health, who is covered, profiles. It binds to loopback unless told otherwise.
type Admin struct {
	Gatherer prometheus.Gatherer
	Coverage *Coverage
	// Ready says why the listener cannot do its work yet, nil when it can.
	Ready func() error
	// Roster lists the Nodes of the cluster; nil without a cluster.
	Roster func() []RosterNode
}

// Handler serves the admin endpoints.
func (a *Admin) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.Gatherer, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := a.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /nodes", func(w http.ResponseWriter, _ *http.Request) {
		var roster []RosterNode
		if a.Roster != nil {
			roster = a.Roster()
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(a.Coverage.Report(time.Now(), roster))
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
