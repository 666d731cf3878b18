package listener

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/receive"
)

func TestAdmin(t *testing.T) {
	const loopback, elsewhere = "127.0.0.1:4000", "10.0.0.9:4000"
	waiting := errors.New("the Nodes have not been listed yet")
	for _, tt := range []struct {
		name, path, from string
		notReady         error
		unread           time.Duration // the sockets, for so long
		code             int
		body             string // part of it
	}{
		{"healthy", "/healthz", elsewhere, nil, 0, 200, "ok\n"},
		{"healthy though not ready", "/healthz", elsewhere, waiting, 0, 200, "ok\n"},
		{"stuck", "/healthz", elsewhere, nil, time.Minute, 503, "the sockets have not been read for 1m0s\n"},
		{"ready", "/readyz", elsewhere, nil, 0, 200, "ok\n"},
		{"not ready", "/readyz", elsewhere, waiting, 0, 503, "the Nodes have not been listed yet\n"},
		{"nodes", "/nodes", elsewhere, nil, 0, 200, `"node":"ip-10-0-1-5","address":"10.77.1.5","instance":"i-0abc","cover":"covered"`},
		{"coverage as a metric", "/metrics", elsewhere, nil, 0, 200, "lastgasp_nodes{cover=\"covered\"} 1\nlastgasp_nodes{cover=\"mute\"} 0\nlastgasp_nodes{cover=\"silent\"} 0\nlastgasp_nodes{cover=\"stranger\"} 0\nlastgasp_nodes{cover=\"unproven\"} 1\n"},
		{"state", "/debug/state", loopback, nil, 0, 200, `"ready":"yes","sockets":[{"address":"[::]:6666","bufferBytes":67108864,"sources":1,"verifiedNodes":0,"incidentsWaiting":0,"datagramsDropped":0}],"nodes":{"covered":1,"unproven":1}`},
		{"state over IPv6", "/debug/state", "[::1]:4000", waiting, 0, 200, `"ready":"the Nodes have not been listed yet"`},
		{"state from elsewhere", "/debug/state", elsewhere, nil, 0, 403, "only for requests from this machine"},
		{"profiles from elsewhere", "/debug/pprof/heap", elsewhere, nil, 0, 403, "only for requests from this machine"},
		{"profiles", "/debug/pprof/goroutine?debug=1", loopback, nil, 0, 200, "goroutine profile"},
		{"what there is", "/", elsewhere, nil, 0, 200, "\n/readyz        can it do its work? If not, why\n"},
		{"what there is, where there is a page", "/endpoints", elsewhere, nil, 0, 200, "\n/readyz        can it do its work? If not, why\n"},
		{"nothing else", "/deaths", loopback, nil, 0, 404, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			coverage := new(Coverage)
			roster := func() []RosterNode {
				return []RosterNode{
					{Name: "ip-10-0-1-5", Addresses: []netip.Addr{nodeA.Addr()}},
					{Name: "ip-10-0-1-6", Addresses: []netip.Addr{netip.MustParseAddr("10.77.1.6")}},
				}
			}
			registry.MustRegister(CoverMetric{coverage, roster})
			coverage.Canary(receive.Canary{Canary: canaryA(), At: time.Now(), From: nodeA.Addr(), Known: true})
			a := Admin{
				Gatherer: registry, Coverage: coverage, Roster: roster, Ready: func() error { return tt.notReady },
				LastRead: func() time.Time { return time.Now().Add(-tt.unread) },
				Sockets: func() []receive.SocketState {
					return []receive.SocketState{{Address: "[::]:6666", Buffer: 67108864, Sources: 1}}
				},
			}
			r := httptest.NewRequest(http.MethodGet, tt.path, nil)
			r.RemoteAddr, r.Host = tt.from, "127.0.0.1:9666"
			w := httptest.NewRecorder()
			a.Handler().ServeHTTP(w, r)
			body, _ := io.ReadAll(w.Body)
			if w.Code != tt.code || !strings.Contains(string(body), tt.body) {
				t.Errorf("%d %s\nwant %d and %s", w.Code, body, tt.code, tt.body)
			}
		})
	}
}

// The page names pods, and the admin address may be reached from elsewhere, for Prometheus and probes.
func TestPageIsForThisMachineOnly(t *testing.T) {
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "page ", r.URL.Path) })
	a := Admin{Gatherer: prometheus.NewRegistry(), Coverage: new(Coverage), Ready: func() error { return nil }, Page: page}
	for _, tt := range []struct {
		name, path, from, host string
		code                   int
		body                   string
	}{
		{"from this machine", "/", "127.0.0.1:4000", "127.0.0.1:9666", 200, "page /"},
		{"by its name", "/deaths/x", "127.0.0.1:4000", "localhost:9666", 200, "page /deaths/x"},
		{"over IPv6", "/page.css", "[::1]:4000", "[::1]", 200, "page /page.css"},
		{"from elsewhere", "/", "10.0.0.9:4000", "10.0.0.1:9666", 403, "only for requests from this machine"},
		{"from elsewhere, with a false name", "/", "10.0.0.9:4000", "localhost", 403, "only for requests from this machine"},
		{"a browser that was given another name for this machine", "/", "127.0.0.1:4000", "evil.example:9666", 403, "only for"},
		{"a name that begins with an address", "/", "127.0.0.1:4000", "127.0.0.1.evil.example", 403, "only for"},
		{"what is not the page's", "/readyz", "10.0.0.9:4000", "10.0.0.1:9666", 200, "ok"},
	} {
		r := httptest.NewRequest(http.MethodGet, tt.path, nil)
		r.RemoteAddr, r.Host = tt.from, tt.host
		w := httptest.NewRecorder()
		a.Handler().ServeHTTP(w, r)
		if w.Code != tt.code || !strings.HasPrefix(w.Body.String(), tt.body) {
			t.Errorf("%s: %d %s, want %d and %s", tt.name, w.Code, w.Body, tt.code, tt.body)
		}
	}
}

// Whoever opens connections and says nothing keeps nobody else from an answer.
func TestIdleConnectionsAreBounded(t *testing.T) {
	a := Admin{Gatherer: prometheus.NewRegistry(), Coverage: new(Coverage), LastRead: time.Now}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Serve(ctx, ln) }()
	dial := func(from string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: time.Minute}
		conn, err := d.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	for i := range 1000 {
		dial(fmt.Sprintf("127.0.1.%d", 1+i%10))
	}
	// One of them cannot close another's.
	for range 10 {
		probe := dial("127.0.0.1")
		for i := range 100 {
			dial(fmt.Sprintf("127.0.1.%d", 1+i%10))
		}
		fmt.Fprint(probe, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		answer, err := io.ReadAll(probe)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK") {
			t.Fatalf("answered %q, %v", answer, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("serve: %v", err)
	}
}

// Who has most connections loses the oldest of his own.
func TestWhoseConnectionGoes(t *testing.T) {
	l := new(boundedListener)
	var all []*boundedConn
	open := func(n int) *boundedConn {
		near, far := net.Pipe()
		t.Cleanup(func() { far.Close() })
		c := &boundedConn{Conn: near, client: node(n).Addr()}
		c.release = sync.OnceFunc(func() { l.remove(c) })
		all = append(all, c)
		if victim := l.add(c); victim != nil {
			if most := len(l.byClient[victim.client]); most < len(l.byClient[c.client]) {
				t.Errorf("a connection of an address with %d goes for one of an address with %d", most, len(l.byClient[c.client]))
			}
			victim.Close()
		}
		return c
	}
	first := open(0)
	for i := range 1000 {
		open(1 + i%5)
		if l.open > maxConnections {
			t.Fatalf("%d connections, want %d at most", l.open, maxConnections)
		}
	}
	for range 1000 {
		open(1)
	}
	if n := len(l.byClient[node(1).Addr()]); n > maxPerClient {
		t.Errorf("%d connections of one address, want %d at most", n, maxPerClient)
	}
	if len(l.byClient[first.client]) != 1 {
		t.Error("the connection of an address that has one is gone")
	}
	for _, c := range all {
		c.Close()
	}
	if l.open != 0 || len(l.byClient) != 0 {
		t.Errorf("%d connections of %d addresses are known though all are closed", l.open, len(l.byClient))
	}
}

// A reader's connection outlives strangers', from however many addresses they come, and from the reader's own.
func TestPreferredConnectionsGoLast(t *testing.T) {
	l, closed := new(boundedListener), map[*boundedConn]bool{}
	open := func(n int, preferred bool) *boundedConn {
		near, far := net.Pipe()
		t.Cleanup(func() { far.Close() })
		c := &boundedConn{Conn: near, client: node(n).Addr()}
		c.release = sync.OnceFunc(func() { l.remove(c) })
		if preferred {
			preferConnection(withConnection(t.Context(), c))
		}
		if victim := l.add(c); victim != nil {
			closed[victim] = true
			victim.Close()
		}
		return c
	}
	reader, other := open(1, true), open(2, true)
	for i := range 3 * maxConnections {
		open(10+i, false)
	}
	for range 3 * maxPerClient {
		open(1, false)
	}
	if closed[reader] || closed[other] {
		t.Error("a reader's connection was closed for a stranger's")
	}
	for range 2 * maxPerClient {
		open(1, true)
	}
	if !closed[reader] || closed[other] {
		t.Error("a reader with too many connections loses not the oldest of his own, but another's or none")
	}
	for i := range maxConnections {
		open(100+i, true)
	}
	if c := open(3, false); closed[c] {
		t.Error("a new connection was closed at once while readers had all the others")
	}
	if l.open > maxConnections {
		t.Errorf("%d connections, want %d at most", l.open, maxConnections)
	}
}

// TestMetricsAreBounded has many nodes do what nodes do: not one series more comes of it.
func TestMetricsAreBounded(t *testing.T) {
	registry := prometheus.NewRegistry()
	coverage := new(Coverage)
	m := NewMetrics(registry, new(detect.Config))
	registry.MustRegister(CoverMetric{Coverage: coverage})
	sh := receive.NewShard(&receive.Config{Judge: &detect.Config{}, Sink: new(sink), Canaries: coverage, Metrics: &m.Receive})
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
		sh.Receive(epoch, node(n), canaryDatagram(1, c, "\n"))
		sh.Receive(epoch, node(n), kernelRecord(8, "Kernel panic - not syncing: Fatal exception"))
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
