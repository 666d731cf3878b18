package listener

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// What a pool leaves out is as in the rest of the file, wherever that stands.
func TestPools(t *testing.T) {
	c, err := parseConfig("c.yaml", []byte(`
pools:
  - selector: {karpenter.sh/nodepool: gpu, team: 7}
    node: await
    nodeTimeout: 30m
  - selector: {kind: db}
    act: {at: boot, corroborate: 0s}
node: annotate
`))
	if err != nil {
		t.Fatal(err)
	}
	gpu, db := policy.DefaultPolicy(), policy.DefaultPolicy()
	gpu.NodeVerb, gpu.AwaitTimeout = policy.NodeAwait, 30*time.Minute
	db.NodeVerb, db.ActAt, db.Corroborate = policy.NodeAnnotate, detect.Boot, 0
	for want, labels := range map[*policy.Policy]map[string]string{
		&gpu: {"karpenter.sh/nodepool": "gpu", "team": "7"}, &db: {"kind": "db"},
	} {
		if diff := cmp.Diff(*want, c.Policy.PolicyFor(policy.Node{Labels: labels})); diff != "" {
			t.Errorf("policy of %v (-want +got):\n%s", labels, diff)
		}
	}
}

// TestShownPools takes what is commented out in the shown config for what an operator makes of it.
func TestShownPools(t *testing.T) {
	_, pools, ok := strings.Cut(string(read(t, "../cmd/lastgasp-listener/listener.yaml")), "# pools:")
	pools, _, more := strings.Cut(pools, "# annotations:")
	if !ok || !more {
		t.Fatal("no pools are shown")
	}
	c, err := parseConfig("c.yaml", []byte("pools:"+strings.ReplaceAll(pools, "\n# ", "\n")))
	if err != nil || len(c.Policy.Pools) != 1 {
		t.Errorf("%d pools, %v", len(c.Policy.Pools), err)
	}
}
