package policy

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

func TestPolicyFor(t *testing.T) {
	none := time.Duration(0)
	p := DefaultPolicy()
	p.Pools = []Pool{
		{Selector: map[string]string{"pool": "gpu", "team": "ml"}, NodeVerb: NodeAwait, AwaitTimeout: time.Hour},
		{Selector: map[string]string{"pool": "gpu"}, ActAt: Never, Corroborate: &none},
	}
	ml, gpu, rest := DefaultPolicy(), DefaultPolicy(), DefaultPolicy()
	ml.NodeVerb, ml.AwaitTimeout = NodeAwait, time.Hour
	gpu.ActAt, gpu.Corroborate = Never, 0
	for _, tt := range []struct {
		name   string
		labels map[string]string
		want   Policy
	}{
		{"every label of the first pool", map[string]string{"pool": "gpu", "team": "ml", "zone": "a"}, ml},
		{"some labels of the first pool, all of the second", map[string]string{"pool": "gpu"}, gpu},
		{"a label with another value", map[string]string{"pool": "web", "team": "ml"}, rest},
		{"no labels", nil, rest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, p.PolicyFor(Node{Labels: tt.labels})); diff != "" {
				t.Errorf("policy (-want +got):\n%s", diff)
			}
		})
	}
}

// Decision and plan are those of the node's pool.
func TestPoolsDecide(t *testing.T) {
	p := DefaultPolicy()
	p.Pools = []Pool{{Selector: map[string]string{"pool": "db"}, ActAt: Never, NodeVerb: NodeAnnotate}}
	inc := detect.Incident{Authority: detect.Kernel, Time: noon}
	inc.Identity.Boot, inc.Identity.Secret = "b", "s"
	for _, tt := range []struct {
		name   string
		labels map[string]string
		want   Answer
		why    string
		verb   NodeVerb
	}{
		{"in the pool", map[string]string{"pool": "db"}, Wait, "pinned authority, waiting for a witness", NodeAnnotate},
		{"in no pool", nil, Act, "pinned authority", NodeDelete},
		{"left out", map[string]string{ExcludeLabel: ""}, Record,
			"pinned authority; node n1 is left out by its label lastgasp.dev/exclude-from-cleanup, so nothing follows", NodeDelete},
		{"left out, in the pool", map[string]string{"pool": "db", ExcludeLabel: "false"}, Wait, "pinned authority, waiting for a witness", NodeAnnotate},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := Node{Name: "n1", UID: "u", BootID: "b", Pin: Pin{"b", inc.Identity.Secret.Sum()}, Ready: true, Labels: tt.labels}
			d := p.Decide(inc, View{
				Now: noon, Judged: noon, Node: n, First: n, Heard: true, Sum: inc.Identity.Secret.Sum(), Room: true, Early: true,
			})
			if d.Answer != tt.want || d.Why != tt.why || d.Distrust {
				t.Errorf("%v: %s, distrust %v; want %v: %s", d.Answer, d.Why, d.Distrust, tt.want, tt.why)
			}
			if got := NewPlan(p, Death{}, n).Verb; got != tt.verb {
				t.Errorf("the plan's verb is %s, want %s", got, tt.verb)
			}
		})
	}
}

func TestInvalidPools(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Policy)
		want   string
	}{
		{"without labels", func(p *Policy) { p.Pools = []Pool{{NodeVerb: NodeAwait}} },
			"pools: pool 1 selects every node; name the labels of its nodes in selector"},
		{"that contradicts what is done with the machine", func(p *Policy) {
			p.AfterPanic = TerminateInstance
			p.Pools = []Pool{{Selector: map[string]string{"a": "b"}}, {Selector: map[string]string{"c": "d"}, NodeVerb: NodeAwait}}
		}, "pools: pool 2: ec2.afterPanic: terminate contradicts node: await, because a terminated instance does not come back; change one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := DefaultPolicy()
			tt.change(&p)
			if err := p.Validate(); err == nil || err.Error() != tt.want {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}

func TestCallsSick(t *testing.T) {
	const secret = netconsole.Secret("s")
	healthy := Node{Name: "n1", BootID: "b", Pin: Pin{"b", secret.Sum()}}
	for _, tt := range []struct {
		name   string
		change func(p *Policy, inc *detect.Incident, n *Node)
		want   bool
	}{
		{"with the pinned secret and a remedy", func(*Policy, *detect.Incident, *Node) {}, true},
		{"without a remedy", func(_ *Policy, inc *detect.Incident, _ *Node) { inc.Remedy = "" }, false},
		{"with another secret", func(_ *Policy, inc *detect.Incident, _ *Node) { inc.Identity.Secret = "x" }, false},
		{"of a boot before, where every kernel is believed", func(p *Policy, inc *detect.Incident, _ *Node) {
			p.ActAt, inc.Identity.Boot = detect.Kernel, "a"
		}, false},
		{"of a kernel that cannot say its boot, where every kernel is believed", func(p *Policy, inc *detect.Incident, _ *Node) {
			p.ActAt, inc.Identity = detect.Kernel, netconsole.Identity{}
		}, true},
		{"in a pool whose deaths wait", func(p *Policy, _ *detect.Incident, n *Node) {
			p.Pools, n.Labels = []Pool{{Selector: map[string]string{"a": "b"}, ActAt: Never}}, map[string]string{"a": "b"}
		}, false},
		{"of a node that is left out", func(_ *Policy, _ *detect.Incident, n *Node) { n.Labels = map[string]string{ExcludeLabel: ""} }, false},
		{"of the control plane", func(_ *Policy, _ *detect.Incident, n *Node) { n.ControlPlane = true }, false},
		{"of the control plane, which is allowed", func(p *Policy, _ *detect.Incident, n *Node) { n.ControlPlane, p.ControlPlane = true, true }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, n := DefaultPolicy(), healthy
			inc := detect.Incident{Verdict: detect.Sick, Authority: detect.Kernel, Remedy: "reboot"}
			inc.Identity = netconsole.Identity{Boot: "b", Secret: secret}
			tt.change(&p, &inc, &n)
			if got := p.CallsSick(inc, inc.Identity.Secret.Sum(), n); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}
