package listener

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// Each invalid-*.yaml starts with a comment that is the exact error an operator sees, after "FILE:".
func TestInvalidConfigs(t *testing.T) {
	for _, name := range invalidConfigs(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(b), "\n")
			want := "c.yaml:" + strings.TrimPrefix(first, "# FILE:")
			_, err = parseConfig("c.yaml", b)
			if err == nil {
				t.Fatalf("accepted, want %s", want)
			}
			if err.Error() != want {
				t.Errorf("got  %s\nwant %s", err, want)
			}
		})
	}
}

func invalidConfigs(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/invalid-*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatalf("found %d files, %v", len(files), err)
	}
	return files
}

func TestEmptyConfigIsTheDefault(t *testing.T) {
	c, err := parseConfig("c.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Kubernetes || c.Admin != "127.0.0.1:9666" || c.Records != "/var/lib/lastgasp" {
		t.Errorf("config %+v", c)
	}
	if diff := cmp.Diff([]string{":6666"}, c.Listen); diff != "" {
		t.Errorf("listen (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(policy.DefaultPolicy(), c.Policy); diff != "" {
		t.Errorf("policy (-want +got):\n%s", diff)
	}
}

func TestFullConfig(t *testing.T) {
	c, err := parseConfig("c.yaml", []byte(`
listen: [":6666", "127.0.0.1:6667"]
admin: ""
cluster: prod-1
kubernetes: true
act: {at: boot, corroborate: 20s, distrust: 1m}
limits: {nodes: 3, percent: 0, window: 1h}
node: await
pods: {keep: 5m}
annotations: {reason: pod.titus.netflix.com/pod-termination-reason}
`))
	if err == nil || !strings.HasPrefix(err.Error(), `c.yaml:3: admin: "" is not an address`) {
		t.Fatalf("an empty admin address: %v", err)
	}
	c, err = parseConfig("c.yaml", []byte(`
listen: [":6666", "127.0.0.1:6667"]
cluster: prod-1
kubernetes: true
act: {at: boot, corroborate: 20s, distrust: 1m}
limits: {nodes: 3, percent: 0, window: 1h}
node: await
nodeTimeout: 20m
pods: {keep: 5m}
keep: {records: 50, for: 48h}
annotations: {reason: pod.titus.netflix.com/pod-termination-reason}
ship: {to: stdout}
rules:
  - cause: NVMeDead
    verdict: sick
    match: 'nvme (nvme\d+): I/O \d+ QID \d+ timeout, disable controller'
    title: "$1 does not answer"
    examples: ["nvme nvme0: I/O 5 QID 3 timeout, disable controller"]
`))
	if err != nil {
		t.Fatal(err)
	}
	p := c.Policy
	if c.Cluster != "prod-1" || !c.Kubernetes || p.ActAt != detect.Boot || p.Corroborate != 20*time.Second || p.Distrust != time.Minute ||
		p.MaxNodes != 3 || p.MaxPercent != 0 || p.Window != time.Hour || p.NodeVerb != policy.NodeAwait ||
		p.KeepPods != 5*time.Minute || p.AwaitTimeout != 20*time.Minute || c.Annotations.Reason != "pod.titus.netflix.com/pod-termination-reason" ||
		p.KeepRecords != 50 || p.KeepRecordsFor != 48*time.Hour || len(c.Listen) != 2 || c.Ship != Stdout {
		t.Errorf("config %+v", c)
	}
	var out strings.Builder
	log := "[    9.000000] nvme nvme1: I/O 7 QID 1 timeout, disable controller\n"
	if _, err := Replay(strings.NewReader(log), &out, &c.Judge, Log); err != nil || !strings.Contains(out.String(), `"title":"nvme1 does not answer"`) {
		t.Errorf("the user's rule found %q, %v", out.String(), err)
	}
}

func TestConfigFiles(t *testing.T) {
	if _, err := LoadConfig(filepath.Join(t.TempDir(), "gone.yaml")); err == nil || !strings.Contains(err.Error(), "gone.yaml") {
		t.Errorf("a file that is named and not there: %v", err)
	}
	shown, err := LoadConfig("../cmd/lastgasp-listener/listener.yaml")
	if err != nil {
		t.Fatalf("the config that run --help shows: %v", err)
	}
	empty, err := parseConfig("c.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	compiled := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".table" }, cmp.Ignore())
	if diff := cmp.Diff(empty, shown, compiled); diff != "" {
		t.Errorf("run --help shows other defaults (-default +shown):\n%s", diff)
	}
}

// TestShownRule takes what is commented out in the shown config for what an operator makes of it.
func TestShownRule(t *testing.T) {
	b := read(t, "../cmd/lastgasp-listener/listener.yaml")
	_, rules, ok := strings.Cut(string(b), "# rules:")
	if !ok {
		t.Fatal("no rules are shown")
	}
	c, err := parseConfig("c.yaml", []byte("rules:"+strings.ReplaceAll(rules, "\n# ", "\n")))
	if err != nil || len(c.Judge.Rules) != 1 {
		t.Errorf("%d rules, %v", len(c.Judge.Rules), err)
	}
}
