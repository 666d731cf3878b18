package monitoring

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

// group is the part of a rule group that these tests look at.
type group struct {
	Name  string `json:"name"`
	Rules []rule `json:"rules"`
}

type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// unmarshal reads a YAML or JSON file.
func unmarshal(t *testing.T, file string, into any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func alerts(t *testing.T) []rule {
	t.Helper()
	var object struct {
		Spec struct{ Groups []group }
	}
	unmarshal(t, "rules.yaml", &object)
	if len(object.Spec.Groups) != 1 {
		t.Fatalf("%d groups, want 1", len(object.Spec.Groups))
	}
	return object.Spec.Groups[0].Rules
}

// query is one expression, and where it stands.
type query struct{ where, expr string }

// queries are those of all alerts and panels. Grafana's variables have the values that Grafana would give them.
func queries(t *testing.T) []query {
	t.Helper()
	var out []query
	for _, r := range alerts(t) {
		out = append(out, query{"alert " + r.Alert, r.Expr})
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Annotations struct {
			List []struct{ Name, Expr string }
		}
		Templating struct {
			List []struct{ Name, Type, Query string }
		}
	}
	unmarshal(t, "dashboard.json", &board)
	variables := strings.NewReplacer("$__rate_interval", "5m", "$namespace", "lastgasp")
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			out = append(out, query{"panel " + p.Title, variables.Replace(target.Expr)})
		}
	}
	for _, a := range board.Annotations.List {
		out = append(out, query{"annotation " + a.Name, variables.Replace(a.Expr)})
	}
	for _, v := range board.Templating.List {
		if v.Type == "query" {
			expr, ok := strings.CutPrefix(v.Query, "label_values(")
			expr, _, _ = strings.Cut(expr, ",")
			if !ok {
				t.Errorf("variable %s: %q is not label_values(SELECTOR, LABEL)", v.Name, v.Query)
			}
			out = append(out, query{"variable " + v.Name, expr})
		}
	}
	return out
}

// exposed are the series of a listener that has heard nobody die.
func exposed(t *testing.T) []labels.Labels {
	t.Helper()
	data, err := os.ReadFile("metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out []labels.Labels
	p := textparse.NewPromParser(data, labels.NewSymbolTable(), false)
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if entry == textparse.EntrySeries {
			var l labels.Labels
			p.Labels(&l)
			out = append(out, l)
		}
	}
}

// ofTarget are the labels that Prometheus itself gives to what it scrapes.
var ofTarget = []string{"cluster", "namespace", "pod", "job", "instance"}

// Every selector of every query must find a series from the beginning: an alert on nothing never fires.
func TestQueriesNameWhatTheListenerExposes(t *testing.T) {
	series := exposed(t)
	if len(series) < 100 {
		t.Fatalf("only %d series in metrics.txt", len(series))
	}
	all := queries(t)
	if len(all) < 25 {
		t.Fatalf("only %d queries found", len(all))
	}
	for _, q := range all {
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(q.expr)
		if err != nil {
			t.Errorf("%s: %v", q.where, err)
			continue
		}
		selectors := parser.ExtractSelectors(expr)
		if len(selectors) == 0 {
			t.Errorf("%s: %s asks for no metric", q.where, q.expr)
		}
		for _, matchers := range selectors {
			if !slices.ContainsFunc(series, func(l labels.Labels) bool { return matches(l, matchers) }) {
				t.Errorf("%s: no series has %v", q.where, matchers)
			}
		}
	}
}

// matches reports whether the labels of a series match, those left out that the series gets when it is scraped.
func matches(l labels.Labels, all []*labels.Matcher) bool {
	for _, m := range all {
		if !slices.Contains(ofTarget, m.Name) && !m.Matches(l.Get(m.Name)) {
			return false
		}
	}
	return true
}

func TestQueriesThatAreWrong(t *testing.T) {
	series := exposed(t)
	for _, name := range []string{`lastgasp_panics_total`, `lastgasp_deaths{phase="held"}`, `lastgasp_deaths{reason="x"}`} {
		matchers, err := parser.NewParser(parser.Options{}).ParseMetricSelector(name)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(series, func(l labels.Labels) bool { return matches(l, matchers) }) {
			t.Errorf("%s is found, and does not exist", name)
		}
	}
}

// Every alert has a page, every page has an alert, and the page says what the alert's name is.
func TestRunbooks(t *testing.T) {
	const base = "https://github.com/lastgasp/lastgasp/blob/main/packaging/monitoring/"
	var want []string
	for _, r := range alerts(t) {
		page := "runbooks/" + r.Alert + ".md"
		want = append(want, page)
		if r.Annotations["runbook_url"] != base+page {
			t.Errorf("%s: runbook_url is %q, want %q", r.Alert, r.Annotations["runbook_url"], base+page)
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s has no summary or no description", r.Alert)
		}
		if !slices.Contains([]string{"info", "warning", "critical"}, r.Labels["severity"]) {
			t.Errorf("%s has severity %q", r.Alert, r.Labels["severity"])
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Error(err)
		}
		for _, part := range []string{"# " + r.Alert + "\n", "\n## What it means\n", "\n## What to do\n"} {
			if !strings.Contains(string(text), part) {
				t.Errorf("%s lacks %q", page, part)
			}
		}
	}
	got, err := filepath.Glob("runbooks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("pages %v, want %v", got, want)
	}
}

// The commands and metrics that a page names must exist.
func TestRunbooksNameRealMetrics(t *testing.T) {
	names := map[string]bool{}
	for _, l := range exposed(t) {
		names[l.Get(model.MetricNameLabel)] = true
	}
	metric := regexp.MustCompile(`lastgasp_[a-z_]+`)
	err := filepath.WalkDir(".", func(file string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(file) != ".md" {
			return err
		}
		text, err := os.ReadFile(file)
		for _, name := range metric.FindAllString(string(text), -1) {
			if !names[name] {
				t.Errorf("%s names %s, which does not exist", file, name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The PodMonitor must find the pods of the Deployment, and a port of theirs.
func TestPodMonitorFindsTheListeners(t *testing.T) {
	var monitor struct {
		Metadata struct{ Namespace string }
		Spec     struct {
			Selector            struct{ MatchLabels map[string]string }
			PodMetricsEndpoints []struct{ Port, Path string }
		}
	}
	unmarshal(t, "podmonitor.yaml", &monitor)
	data, err := os.ReadFile("../kubernetes/base/deployment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	document, _, _ := strings.Cut(string(data), "\n---\n")
	var deployment struct {
		Metadata struct{ Namespace string }
		Spec     struct {
			Template struct {
				Metadata struct{ Labels map[string]string }
				Spec     struct {
					Containers []struct{ Ports []struct{ Name string } }
				}
			}
		}
	}
	if err := yaml.Unmarshal([]byte(document), &deployment); err != nil {
		t.Fatal(err)
	}
	if monitor.Metadata.Namespace != deployment.Metadata.Namespace {
		t.Errorf("the PodMonitor looks in %s, the pods are in %s", monitor.Metadata.Namespace, deployment.Metadata.Namespace)
	}
	if len(monitor.Spec.Selector.MatchLabels) == 0 {
		t.Error("the PodMonitor selects every pod")
	}
	for k, v := range monitor.Spec.Selector.MatchLabels {
		if deployment.Spec.Template.Metadata.Labels[k] != v {
			t.Errorf("the pods have no label %s=%s", k, v)
		}
	}
	var ports []string
	for _, p := range deployment.Spec.Template.Spec.Containers[0].Ports {
		ports = append(ports, p.Name)
	}
	for _, e := range monitor.Spec.PodMetricsEndpoints {
		if !slices.Contains(ports, e.Port) {
			t.Errorf("the pods have ports %v and not %s", ports, e.Port)
		}
	}
}

// Grafana shows panels of equal id or place over each other.
func TestDashboardPanels(t *testing.T) {
	type place struct{ H, W, X, Y int }
	var board struct {
		UID    string
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos place
			Targets []json.RawMessage
		}
	}
	unmarshal(t, "dashboard.json", &board)
	ids, cells := map[int]bool{}, map[place]string{}
	for _, p := range board.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("%s: id %d is taken", p.Title, p.ID)
		}
		ids[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s ends in column %d of 24", p.Title, p.GridPos.X+p.GridPos.W)
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				cell := place{X: p.GridPos.X + x, Y: p.GridPos.Y + y}
				if other := cells[cell]; other != "" {
					t.Fatalf("%s covers %s", p.Title, other)
				}
				cells[cell] = p.Title
			}
		}
	}
	if board.UID == "" {
		t.Error("no uid: every import would make another dashboard")
	}
}
