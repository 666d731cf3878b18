package configurator

import (
	"container/heap"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/configurator/ec2"
	"github.com/lastgasp/lastgasp/configurator/endpoint"
)

// ssmQuota is what GetParameters allows a whole account, requests a second.
const ssmQuota = 40

// fleetParameter is the one that all nodes look up.
const fleetParameter = "/lastgasp/eu-west-1/endpoint"

// All nodes of a large fleet ask at once, as when somebody reloads them all. Those refused must spread out by themselves
// so far that the quota holds from then on, and all must have their answer within the ceiling. The time is made up, the
// rest is what runs on a node: its schedule, its Finder, and for one node in five hundred the SDK's client, which gets its
// refusals over HTTP.
func TestFleetSpreadsOutUnderSSMQuota(t *testing.T) {
	const nodes, sample = 20_000, 500
	for _, tt := range []struct {
		name  string
		known bool // nodes know a listener already
		// within is when the last node has its answer, settled from when on no second has more requests than the quota.
		within, settled time.Duration
	}{
		{"nodes that know a listener", true, 16 * time.Minute, time.Second},
		{"nodes that boot for the first time", false, 30 * time.Minute, 15 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			account := &parameterStore{perSecond: make(map[time.Duration]int)}
			overHTTP := account.serve(t)
			random := rand.New(rand.NewPCG(1, 2))
			queue := make(fleet, nodes)
			for i := range queue {
				n := &fleetNode{at: someTime, known: tt.known, get: account.get}
				if i%sample == 0 {
					n.get = overHTTP
				}
				n.schedule = &schedule{interval: 10 * time.Minute, lookup: time.Hour, chance: random.Float64}
				queue[i] = n
			}
			var answers []time.Duration // in their order
			for end := at(2 * time.Hour); queue[0].at.Before(end); heap.Fix(&queue, 0) {
				n := queue[0]
				account.now = n.at.Sub(someTime)
				if n.lookUp(t.Context()) {
					answers = append(answers, account.now)
				}
			}
			if len(answers) != nodes || answers[len(answers)-1] > tt.within {
				t.Fatalf("%d of %d nodes have their answer, the last after %s; want all within %s", len(answers), nodes, answers[len(answers)-1], tt.within)
			}
			if most := account.most(tt.settled); most > ssmQuota {
				t.Errorf("%d requests in one second later than %s, the quota is %d", most, tt.settled, ssmQuota)
			}
			if account.refusedOverHTTP == 0 {
				t.Error("the SDK's client was never refused")
			}
			t.Logf("of %d nodes that ask in the same second half have their answer after %s, nine in ten after %s, all after %s; "+
				"at most %d requests a second from %s on, at most %d from %s on",
				nodes, answers[nodes/2].Round(time.Second), answers[nodes*9/10].Round(time.Second), answers[nodes-1].Round(time.Second),
				account.most(tt.settled), tt.settled, account.most(tt.within), tt.within)
		})
	}
}

// fleetNode is what of a node looks listeners up.
type fleetNode struct {
	at       time.Time // of its next look-up
	schedule *schedule
	get      func(ctx context.Context, region string, names []string) ([]endpoint.Parameter, error)
	known    bool
	answered bool
}

// lookUp does what a Watcher does about its listeners when one is due, and reports whether it is the first that was
// answered.
func (n *fleetNode) lookUp(ctx context.Context) (first bool) {
	n.schedule.start(n.at)
	finder := endpoint.Finder{Sources: []endpoint.Source{endpoint.SSM{
		Names: []string{"/lastgasp/{region}/{az-id}/endpoint", "/lastgasp/{region}/endpoint"},
		Place: func(context.Context) (endpoint.Place, error) {
			return endpoint.Place{Region: "eu-west-1", ZoneID: "euw1-az1"}, nil
		},
		Get: n.get,
	}}}
	found, err := finder.Find(ctx)
	n.schedule.lookedUp(n.at, found, n.known)
	n.at = n.schedule.nextLookup
	first = err == nil && !n.answered
	n.answered = n.answered || err == nil
	n.known = n.known || err == nil
	return first
}

// parameterStore is SSM with the quota of one account.
type parameterStore struct {
	now             time.Duration // since the beginning
	perSecond       map[time.Duration]int
	refusedOverHTTP int
}

// admit counts a request.
func (p *parameterStore) admit() bool {
	second := p.now.Truncate(time.Second)
	p.perSecond[second]++
	return p.perSecond[second] <= ssmQuota
}

// most is the most requests, answered and refused, in any second from one on.
func (p *parameterStore) most(from time.Duration) int {
	most := 0
	for second, requests := range p.perSecond {
		if second >= from {
			most = max(most, requests)
		}
	}
	return most
}

// get is endpoint.SSM.Get without a network.
func (p *parameterStore) get(context.Context, string, []string) ([]endpoint.Parameter, error) {
	if !p.admit() {
		return nil, fmt.Errorf("%w: Rate exceeded", endpoint.ErrThrottled)
	}
	return []endpoint.Parameter{{Name: fleetParameter, Value: "10.0.2.10:6666", Version: 1}}, nil
}

// serve is get with a network, the SDK and the service's protocol in between.
func (p *parameterStore) serve(t *testing.T) func(ctx context.Context, region string, names []string) ([]endpoint.Parameter, error) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		if !p.admit() {
			p.refusedOverHTTP++
			w.WriteHeader(http.StatusBadRequest)
			json.NewEncoder(w).Encode(map[string]string{"__type": "ThrottlingException", "message": "Rate exceeded"})
			return
		}
		type parameter struct {
			Name, Value string
			Version     int64
		}
		json.NewEncoder(w).Encode(map[string][]parameter{"Parameters": {{fleetParameter, "10.0.2.10:6666", 1}}})
	}))
	t.Cleanup(server.Close)
	t.Setenv("AWS_ENDPOINT_URL_SSM", server.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "example")
	return endpoint.GetParameters(func() *ec2.Client { panic("credentials are in the environment") })
}

// fleet is a heap of nodes, the one whose look-up comes next first.
type fleet []*fleetNode

func (f fleet) Len() int           { return len(f) }
func (f fleet) Less(i, j int) bool { return f[i].at.Before(f[j].at) }
func (f fleet) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }
func (f fleet) Push(any)           { panic("never called") }
func (f fleet) Pop() any           { panic("never called") }
