package listener

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

func TestAdmin(t *testing.T) {
	const loopback, elsewhere = "127.0.0.1:4000", "10.0.0.9:4000"
	waiting := errors.New("the Nodes have not been listed yet")
	for _, tt := range []struct {
		name, path, from string
		notReady         error
		code             int
		body             string // part of it
	}{
		{"healthy", "/healthz", elsewhere, nil, 200, "ok\n"},
		{"healthy though not ready", "/healthz", elsewhere, waiting, 200, "ok\n"},
		{"ready", "/readyz", elsewhere, nil, 200, "ok\n"},
		{"not ready", "/readyz", elsewhere, waiting, 503, "the Nodes have not been listed yet\n"},
		{"nodes", "/nodes", elsewhere, nil, 200, `"node":"ip-10-0-1-5","address":"10.77.1.5","instance":"i-0abc","cover":"covered"`},
		{"coverage as a metric", "/metrics", elsewhere, nil, 200, "lastgasp_nodes{cover=\"covered\"} 1\nlastgasp_nodes{cover=\"mute\"} 0\nlastgasp_nodes{cover=\"silent\"} 0\nlastgasp_nodes{cover=\"unproven\"} 1\n"},
		{"state", "/debug/state", loopback, nil, 200, `"ready":"yes","sockets":[{"address":"[::]:6666","bufferBytes":67108864,"sources":1,"incidentsWaiting":0,"datagramsDropped":0}],"nodes":{"covered":1,"unproven":1}`},
		{"state over IPv6", "/debug/state", "[::1]:4000", waiting, 200, `"ready":"the Nodes have not been listed yet"`},
		{"state from elsewhere", "/debug/state", elsewhere, nil, 403, "only from this machine"},
		{"profiles from elsewhere", "/debug/pprof/heap", elsewhere, nil, 403, "only from this machine"},
		{"profiles", "/debug/pprof/goroutine?debug=1", loopback, nil, 200, "goroutine profile"},
		{"nothing else", "/", loopback, nil, 404, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			coverage := new(Coverage)
			roster := func() []RosterNode {
				return []RosterNode{{"ip-10-0-1-5", []netip.Addr{nodeA.Addr()}}, {"ip-10-0-1-6", []netip.Addr{netip.MustParseAddr("10.77.1.6")}}}
			}
			registry.MustRegister(CoverMetric{coverage, roster})
			coverage.heard(time.Now(), nodeA.Addr(), heard{canary: canaryA(true)})
			a := Admin{
				Gatherer: registry, Coverage: coverage, Roster: roster, Ready: func() error { return tt.notReady },
				Sockets: func() []SocketState { return []SocketState{{Address: "[::]:6666", Buffer: 67108864, Sources: 1}} },
			}
			r := httptest.NewRequest(http.MethodGet, tt.path, nil)
			r.RemoteAddr = tt.from
			w := httptest.NewRecorder()
			a.Handler().ServeHTTP(w, r)
			body, _ := io.ReadAll(w.Body)
			if w.Code != tt.code || !strings.Contains(string(body), tt.body) {
				t.Errorf("%d %s\nwant %d and %s", w.Code, body, tt.code, tt.body)
			}
		})
	}
}

// TestMetricsAreBounded has many nodes do what nodes do: not one series more comes of it.
func TestMetricsAreBounded(t *testing.T) {
	registry := prometheus.NewRegistry()
	coverage := new(Coverage)
	m := NewMetrics(registry)
	registry.MustRegister(CoverMetric{Coverage: coverage})
	sh := newShard(1, &detect.Config{}, new(sink), coverage, m)
	series := func() (n int) {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			n += len(f.GetMetric())
			for _, metric := range f.GetMetric() {
				for _, l := range metric.GetLabel() {
					if l.GetName() != "verdict" && l.GetName() != "code" && l.GetName() != "cover" {
						t.Errorf("%s has a label %s", f.GetName(), l.GetName())
					}
				}
			}
		}
		return n
	}
	die := func(n int) {
		c := netconsole.Canary{Nonce: strings.Repeat("ab", 16), Instance: "i-1", Boot: "b-1"}
		sh.receive(epoch, node(n), canaryDatagram(1, c, "\n"))
		sh.receive(epoch, node(n), kernelRecord(8, "Kernel panic - not syncing: Fatal exception"))
	}
	die(0)
	before := series()
	for n := range 500 {
		die(n)
	}
	if after := series(); after != before {
		t.Errorf("%d series became %d", before, after)
	}
}
