package monitoring

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/util/teststorage"
	"sigs.k8s.io/yaml"
)

// healthy is a cluster of 100 nodes and two listeners behind a load balancer, so that each hears half of them.
const healthy = `
  lastgasp_build_info{pod="a"} 1x300
  lastgasp_build_info{pod="b"} 1x300
  lastgasp_ready{pod="a"} 1x300
  lastgasp_ready{pod="b"} 1x300
  lastgasp_last_death_timestamp_seconds{pod="a"} 0x300
  lastgasp_last_death_timestamp_seconds{pod="b"} 0x300
  lastgasp_deaths{pod="a",phase="Held"} 0x300
  lastgasp_deaths{pod="a",phase="Pending"} 0x300
  lastgasp_deaths{pod="a",phase="Cleaning"} 0x300
  lastgasp_deaths{pod="a",phase="Cleaned"} 7x300
  lastgasp_cleanups_total{pod="a",phase="Incomplete"} 0x300
  lastgasp_cleanups_total{pod="a",phase="Recorded"} 0x300
  lastgasp_nodes{pod="a",cover="covered"} 100x300
  lastgasp_nodes{pod="a",cover="unproven"} 0x300
  lastgasp_nodes{pod="a",cover="mute"} 0x300
  lastgasp_nodes{pod="a",cover="silent"} 0x300
  lastgasp_nodes{pod="a",cover="stranger"} 0x300
  lastgasp_nodes{pod="b",cover="covered"} 100x300
  lastgasp_nodes{pod="b",cover="unproven"} 0x300
  lastgasp_nodes{pod="b",cover="mute"} 0x300
  lastgasp_nodes{pod="b",cover="silent"} 0x300
  lastgasp_nodes{pod="b",cover="stranger"} 0x300
  lastgasp_datagrams_dropped_total{pod="a"} 0x300
  lastgasp_incidents_dropped_total{pod="a"} 0x300
  lastgasp_api_faults_total{pod="a"} 0x300
`

// world is healthy with some series replaced: each line is a series, a space and its values, one a minute; no values drop it.
func world(t *testing.T, changes ...string) string {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(healthy), "\n")
	for _, change := range changes {
		name, values, _ := strings.Cut(change, " ")
		i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(strings.TrimSpace(l), name+" ") })
		if i < 0 {
			t.Fatalf("no series %s", name)
		}
		lines[i] = "  " + name + " " + values
		if values == "" {
			lines = slices.Delete(lines, i, i+1)
		}
	}
	return "load 1m\n" + strings.Join(lines, "\n") + "\n"
}

// TestAlerts has Prometheus' own rule engine evaluate the rules every minute, and asks what fires at some of them.
func TestAlerts(t *testing.T) {
	const held, pending, cleaning = `lastgasp_deaths{pod="a",phase="Held"}`, `lastgasp_deaths{pod="a",phase="Pending"}`, `lastgasp_deaths{pod="a",phase="Cleaning"}`
	node := func(pod, cover, values string) string {
		return fmt.Sprintf("lastgasp_nodes{pod=%q,cover=%q} %s", pod, cover, values)
	}
	tested := map[string]bool{}
	for _, tt := range []struct {
		name    string
		changes []string
		minute  int
		want    []string // alerts that fire
	}{
		{"all is well", nil, 200, nil},
		{"a node died ten minutes ago", []string{`lastgasp_last_death_timestamp_seconds{pod="b"} 0x89 5400x200`}, 100, []string{"LastgaspNodeDied"}},
		{"a node died twenty minutes ago", []string{`lastgasp_last_death_timestamp_seconds{pod="b"} 0x89 5400x200`}, 110, nil},
		{
			"a death of an hour ago becomes known", []string{`lastgasp_last_death_timestamp_seconds{pod="b"} 60x300`, `lastgasp_cleanups_total{pod="a",phase="Recorded"} 0x90 1x300`},
			95, []string{"LastgaspNodeDied"},
		},
		{
			"it became known twenty minutes ago", []string{`lastgasp_last_death_timestamp_seconds{pod="b"} 60x300`, `lastgasp_cleanups_total{pod="a",phase="Recorded"} 0x90 1x300`},
			111, nil,
		},
		{"the last death is long ago", []string{`lastgasp_last_death_timestamp_seconds{pod="b"} 60x300`}, 100, nil},
		{"deaths are held", []string{held + " 0x50 4x300"}, 53, []string{"LastgaspDeathsHeld"}},
		{"deaths were held and released", []string{held + " 0x50 4x10 0x300"}, 70, nil},
		{"a cleanup is under way", []string{cleaning + " 0x50 1x300"}, 100, nil},
		{"a cleanup is stuck", []string{cleaning + " 0x50 1x300"}, 120, []string{"LastgaspCleanupStuck"}},
		{"a death goes from Pending to Cleaning and stays", []string{pending + " 1x60 0x300", cleaning + " 0x60 1x300"}, 90, []string{"LastgaspCleanupStuck"}},
		{"the first pods that could not be failed", []string{`lastgasp_cleanups_total{pod="a",phase="Incomplete"} 0x50 1x300`}, 55, []string{"LastgaspPodsNotFailed"}},
		{"and later", []string{`lastgasp_cleanups_total{pod="a",phase="Incomplete"} 0x50 1x300`}, 150, nil},
		{"no listener", []string{`lastgasp_build_info{pod="a"} 1x50`, `lastgasp_build_info{pod="b"} 1x50`}, 65, []string{"LastgaspListenerAbsent"}},
		{"one listener of two", []string{`lastgasp_build_info{pod="a"} 1x50`}, 65, nil},
		{"a listener is not ready", []string{`lastgasp_ready{pod="b"} 1x50 0x300`}, 60, []string{"LastgaspListenerNotReady"}},
		{"a listener has just started", []string{`lastgasp_ready{pod="b"} 1x50 0x2 1x300`}, 60, nil},
		{"a mute node", []string{node("a", "covered", "99x300"), node("a", "mute", "1x300")}, 90, []string{"LastgaspNodesMute"}},
		{"a node was mute for a while", []string{node("a", "covered", "99x300"), node("a", "mute", "1x300")}, 30, nil},
		{"a node that never sent a canary", []string{node("a", "unproven", "1x300"), node("b", "unproven", "1x300")}, 90, []string{"LastgaspNodesUnheard"}},
		{"a node that has become silent", []string{node("a", "silent", "1x300"), node("b", "silent", "1x300")}, 90, []string{"LastgaspNodesUnheard"}},
		{"a replica that has not heard the others yet", []string{node("b", "covered", "0x300"), node("b", "unproven", "100x300")}, 90, nil},
		{"a stranger", []string{node("b", "stranger", "2x300")}, 90, []string{"LastgaspStrangers"}},
		{"the first datagrams dropped", []string{`lastgasp_datagrams_dropped_total{pod="a"} 0x50 40x300`}, 55, []string{"LastgaspDatagramsDropped"}},
		{"incidents dropped", []string{`lastgasp_incidents_dropped_total{pod="a"} 0x50 3x300`}, 55, []string{"LastgaspIncidentsDropped"}},
		{"API calls repeated for long", []string{`lastgasp_api_faults_total{pod="a"} 0+120x300`}, 60, []string{"LastgaspAPIFaults"}},
		{"API calls repeated now and then", []string{`lastgasp_api_faults_total{pod="a"} 0+6x300`}, 60, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := firing(t, world(t, tt.changes...), tt.minute)
			if !slices.Equal(got, tt.want) {
				t.Errorf("firing: %v, want %v", got, tt.want)
			}
		})
		for _, name := range tt.want {
			tested[name] = true
		}
	}
	for _, r := range alerts(t) {
		if !tested[r.Alert] {
			t.Errorf("no case in which %s fires", r.Alert)
		}
	}
}

// firing evaluates all rules every minute up to the given one, and returns the names of the alerts that fire then.
func firing(t *testing.T, series string, minute int) (names []string) {
	t.Helper()
	groups := loadRules(t, promqltest.LoadedStorage(t, series))
	for i := range minute + 1 {
		names = evaluate(t, groups, time.Unix(int64(i)*60, 0))
	}
	return names
}

// loadRules has Prometheus' own rule engine read the rules, over what a storage holds.
func loadRules(t *testing.T, storage *teststorage.TestStorage) map[string]*rules.Group {
	t.Helper()
	engine := promqltest.NewTestEngine(t, false, 0, math.MaxInt32)
	manager := rules.NewManager(&rules.ManagerOptions{
		QueryFunc: rules.EngineQueryFunc(engine, storage), AppendableV2: storage, Queryable: storage, Context: t.Context(),
		Parser:     parser.NewParser(parser.Options{}),
		NotifyFunc: func(context.Context, string, ...*rules.Alert) {},
	})
	groups, errs := manager.LoadGroups(time.Minute, labels.EmptyLabels(), "", nil, false, ruleFile(t))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return groups
}

// evaluate evaluates all rules at one time, and returns the names of the alerts that fire.
func evaluate(t *testing.T, groups map[string]*rules.Group, at time.Time) (names []string) {
	t.Helper()
	for _, g := range groups {
		g.Eval(t.Context(), at)
		for _, r := range g.AlertingRules() {
			if r.State() == rules.StateFiring {
				names = append(names, r.Name())
			}
		}
	}
	return names
}

// ruleFile writes what the operator makes of the PrometheusRule, a file as Prometheus itself reads it.
func ruleFile(t *testing.T) string {
	t.Helper()
	var object struct{ Spec map[string]any }
	unmarshal(t, "rules.yaml", &object)
	data, err := yaml.Marshal(object.Spec)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
