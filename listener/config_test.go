package listener

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/detect"
)

// Each invalid-*.yaml starts with a comment that is the exact error an operator sees, after "FILE:".
func TestInvalidConfigs(t *testing.T) {
	files, err := filepath.Glob("testdata/invalid-*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("found %d files, %v", len(files), err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(b), "\n")
			want := "c.yaml:" + strings.TrimPrefix(first, "# FILE:")
			_, err = ParseConfig("c.yaml", b)
			if err == nil {
				t.Fatalf("accepted, want %s", want)
			}
			if err.Error() != want {
				t.Errorf("got  %s\nwant %s", err, want)
			}
		})
	}
}

func TestEmptyConfigIsTheDefault(t *testing.T) {
	c, err := ParseConfig("c.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Kubernetes || c.Admin != "127.0.0.1:9666" || c.Records != "/var/lib/lastgasp" {
		t.Errorf("config %+v", c)
	}
	if diff := cmp.Diff([]string{":6666"}, c.Listen); diff != "" {
		t.Errorf("listen (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(cleanup.DefaultPolicy(), c.Policy); diff != "" {
		t.Errorf("policy (-want +got):\n%s", diff)
	}
}

func TestFullConfig(t *testing.T) {
	c, err := ParseConfig("c.yaml", []byte(`
listen: [":6666", "127.0.0.1:6667"]
admin: ""
cluster: kubernetes
act: {at: boot, corroborate: 20s, distrust: 1m}
limits: {nodes: 3, percent: 0, window: 1h}
node: await
pods: {keep: 5m}
annotations: {reason: pod.titus.netflix.com/pod-termination-reason}
`))
	if err == nil || !strings.HasPrefix(err.Error(), `c.yaml:3: "" is not an address`) {
		t.Fatalf("an empty admin address: %v", err)
	}
	c, err = ParseConfig("c.yaml", []byte(`
listen: [":6666", "127.0.0.1:6667"]
cluster: kubernetes
act: {at: boot, corroborate: 20s, distrust: 1m}
limits: {nodes: 3, percent: 0, window: 1h}
node: await
pods: {keep: 5m}
annotations: {reason: pod.titus.netflix.com/pod-termination-reason}
`))
	if err != nil {
		t.Fatal(err)
	}
	p := c.Policy
	if !c.Kubernetes || p.ActAt != detect.Boot || p.Corroborate != 20*time.Second || p.Distrust != time.Minute ||
		p.MaxNodes != 3 || p.MaxPercent != 0 || p.Window != time.Hour || p.NodeVerb != cleanup.NodeAwait ||
		p.KeepPods != 5*time.Minute || c.Annotations.Reason != "pod.titus.netflix.com/pod-termination-reason" ||
		len(c.Listen) != 2 {
		t.Errorf("config %+v", c)
	}
}
