package listener

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lastgasp/lastgasp/listener/receive"
)

// stuckAfter is how long a reader may leave its socket alone. It looks at it every second.
const stuckAfter = 10 * time.Second

// Admin is the HTTP server for metrics, health, coverage and profiles. It binds to loopback unless configured otherwise, and
// /debug/ and the page of deaths answer loopback only even then: a profile costs processor time, a trace shows what is in
// memory, and the page names pods.
type Admin struct {
	Gatherer prometheus.Gatherer
	Coverage *Coverage
	// Ready says why the listener cannot do its work, nil when it can.
	Ready func() error
	// Roster lists the Nodes of the cluster; nil without a cluster.
	Roster func() []RosterNode
	// Sockets is what the sockets are doing.
	Sockets func() []receive.SocketState
	// LastRead is when all of them were last looked at.
	LastRead func() time.Time
	// Page is for people: the deaths on record. Nil without a cluster.
	Page http.Handler
	// Version is the program's.
	Version string
	// Started is when it began.
	Started time.Time
}

// Handler serves the admin endpoints.
func (a *Admin) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.Gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: maxInFlight}))
	mux.HandleFunc("GET /endpoints", a.index)
	if a.Page == nil {
		mux.HandleFunc("GET /{$}", a.index)
	} else {
		mux.Handle("/", fromLoopback(atMost(maxInFlight, a.Page.ServeHTTP)))
	}
	mux.HandleFunc("GET /healthz", a.health)
	mux.HandleFunc("GET /readyz", a.ready)
	mux.HandleFunc("GET /nodes", atMost(maxInFlight, func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, a.Coverage.Report(time.Now(), a.roster()))
	}))
	debug := http.NewServeMux()
	debug.HandleFunc("GET /debug/state", a.state)
	debug.HandleFunc("GET /debug/pprof/", pprof.Index)
	debug.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	debug.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.Handle("/debug/", fromLoopback(debug))
	return mux
}

func (a *Admin) roster() []RosterNode {
	if a.Roster == nil {
		return nil
	}
	return a.Roster()
}

func (a *Admin) index(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(w, `lastgasp-listener %s

/              the deaths on record, with Kubernetes; from this machine only
/endpoints     this list
/metrics       for Prometheus
/healthz       are the sockets read?
/readyz        can it do its work? If not, why
/nodes         which nodes could be heard dying
/debug/state   sockets, memory, readiness; from this machine only
/debug/pprof/  profiles; from this machine only
`, a.Version)
}

// health fails if a socket is not read: nothing is heard then, and only a restart helps.
func (a *Admin) health(w http.ResponseWriter, _ *http.Request) {
	if since := time.Since(a.LastRead()); since > stuckAfter {
		http.Error(w, "the sockets have not been read for "+since.Round(time.Second).String(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

func (a *Admin) ready(w http.ResponseWriter, _ *http.Request) {
	if err := a.Ready(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// state is an overview for somebody who has to find out what is going on.
func (a *Admin) state(w http.ResponseWriter, _ *http.Request) {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	ready := "yes"
	if err := a.Ready(); err != nil {
		ready = err.Error()
	}
	writeJSON(w, struct {
		Version    string                `json:"version"`
		Up         string                `json:"up"`
		Ready      string                `json:"ready"`
		Sockets    []receive.SocketState `json:"sockets"`
		Nodes      map[Cover]int         `json:"nodes"`
		Goroutines int                   `json:"goroutines"`
		HeapBytes  uint64                `json:"heapBytes"`
	}{
		a.Version, time.Since(a.Started).Round(time.Second).String(), ready, a.Sockets(),
		a.Coverage.Count(time.Now(), a.roster()), runtime.NumGoroutine(), mem.HeapAlloc,
	})
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // an error means that the client is gone
}

// fromLoopback refuses requests from other machines, and those that a browser on this one makes for a site which has given
// its own name this machine's address (DNS rebinding).
func fromLoopback(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isLoopback(r.RemoteAddr) || !isLoopback(r.Host) {
			http.Error(w, "only for requests from this machine; use kubectl port-forward, or curl 127.0.0.1", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// isLoopback reports whether an address, with or without a port, is this machine's loopback.
func isLoopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]")
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}
