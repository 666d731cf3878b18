package policy

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestPolicyValidate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(p *Policy)
		want   string
	}{
		{name: "the default is valid", change: func(*Policy) {}},
		{name: "no nodes at all is valid: everything is held", change: func(p *Policy) { p.MaxNodes, p.MaxPercent = 0, 0 }},
		{name: "never is valid: all wait for the witness", change: func(p *Policy) { p.ActAt = Never }},
		{name: "no early fence at all is valid", change: func(p *Policy) { p.Corroborate = 0 }},
		{"text is no authority to act on", func(p *Policy) { p.ActAt = detect.Text }, "act.at: text proves nothing; use kernel, boot, claimed, pinned or never"},
		{"nor is the cloud's word", func(p *Policy) { p.ActAt = detect.Cloud }, "act.at: cloud proves nothing; use kernel, boot, claimed, pinned or never"},
		{"a negative corroborate", func(p *Policy) { p.Corroborate = -time.Second }, "act.corroborate: -1s is negative"},
		{"a negative distrust", func(p *Policy) { p.Distrust = -1 }, "act.distrust: -1ns is negative"},
		{"a negative limit", func(p *Policy) { p.MaxNodes = -1 }, "limits.nodes: -1 is negative"},
		{"more than all", func(p *Policy) { p.MaxPercent = 101 }, "limits.percent: 101 is not between 0 and 100"},
		{"no window", func(p *Policy) { p.Window = 0 }, "limits.window: 0s is not positive; write a time like 10m"},
		{"an unknown verb", func(p *Policy) { p.NodeVerb = "reboot" }, `node: "reboot" is unknown; write delete, nodeclaim, await or annotate`},
		{"await without a time", func(p *Policy) { p.NodeVerb, p.AwaitTimeout = NodeAwait, 0 }, "nodeTimeout: 0s is not positive; write how long node: await may wait, like 10m"},
		{"negative keeping", func(p *Policy) { p.KeepPods = -time.Second }, "pods.keep: -1s is negative"},
		{"no records", func(p *Policy) { p.KeepRecords = 0 }, "keep.records: 0 is too few; keep at least 1"},
		{
			"records gone before they are of use", func(p *Policy) { p.KeepRecordsFor = time.Minute },
			"keep.for: 1m0s is too short: the breaker and distrust are read from NodeDeaths; keep them for at least 10m0s",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := DefaultPolicy()
			tt.change(&p)
			got := ""
			if err := p.Validate(); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestDeathName(t *testing.T) {
	label := regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	seen := map[string]string{}
	for _, node := range []string{
		"ip-10-0-1-5", "ip-10-0-1-5.ec2.internal", "10.0.1.5", "fd00::1", "::", "", "UPPER", strings.Repeat("a", 253),
		strings.Repeat("a", 49) + "-b", "ünïcode",
	} {
		for _, boot := range []string{boot1, boot2, ""} {
			name := DeathName(node, boot)
			if !label.MatchString(name) || len(name) > 63 {
				t.Errorf("DeathName(%q, %q) = %q: no DNS-1123 label of at most 63 bytes", node, boot, name)
			}
			if was, ok := seen[name]; ok {
				t.Errorf("%q stands for %s and %s", name, was, node+"/"+boot)
			}
			seen[name] = node + "/" + boot
		}
	}
	if got, want := DeathName("ip-10-0-1-5.ec2.internal", boot1), "ip-10-0-1-5-ec2-internal-b18f0cf9e9ea"; got != want {
		t.Errorf("got %q, want %q: names must stay the same over versions, replicas are updated one by one", got, want)
	}
}

func TestBreaker(t *testing.T) {
	b := Breaker{Nodes: 2, Percent: 10, Window: 10 * time.Minute}
	for _, tt := range []struct {
		name  string
		at    time.Duration
		node  string
		total int
		want  bool
	}{
		{"the first of few nodes", 0, "a", 10, true},
		{"a second", time.Minute, "b", 10, true},
		{"a third is too much", 2 * time.Minute, "c", 10, false},
		{"the first asked again", 2 * time.Minute, "a", 10, true},
		{"a third of many nodes", 2 * time.Minute, "c", 30, true},
		{"percent are rounded down", 2 * time.Minute, "d", 39, false},
		{"when the window has passed the first there is room", 12 * time.Minute, "d", 30, true},
		{"and no more", 12 * time.Minute, "e", 10, true},
		{"than the limit", 12 * time.Minute, "f", 10, false},
	} {
		got := b.Room(noon.Add(tt.at), tt.node, tt.total)
		if got != tt.want {
			t.Errorf("%s: room %v, want %v", tt.name, got, tt.want)
		}
		if got {
			b.Count(noon.Add(tt.at), tt.node, "death of "+tt.node)
		}
	}
	at := noon.Add(12 * time.Minute)
	b.Forget("d", "another death")
	if b.Room(at, "f", 10) {
		t.Error("room after a death was taken back that was not what counted")
	}
	b.Forget("d", "death of d")
	if !b.Room(at, "f", 10) {
		t.Error("no room after one was taken back")
	}
	b.Count(at, "from another replica", "its death")
	if b.Room(at, "f", 10) {
		t.Error("room although another replica took it")
	}
}

func TestBreakerLimit(t *testing.T) {
	for _, tt := range []struct{ nodes, percent, total, want int }{
		{5, 10, 3, 5},
		{5, 10, 1000, 100},
		{0, 10, 3, 1}, // a share is one node at least, or none of a small cluster would ever be cleaned up
		{0, 10, 1, 1},
		{0, 1, 250, 2},
		{0, 0, 3, 0}, // everything is held
		{2, 0, 1000, 2},
	} {
		b := Breaker{Nodes: tt.nodes, Percent: tt.percent}
		if got := b.Limit(tt.total); got != tt.want {
			t.Errorf("%d nodes or %d %% of %d: %d, want %d", tt.nodes, tt.percent, tt.total, got, tt.want)
		}
	}
}

func TestLimiter(t *testing.T) {
	a, b, c := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	l := Limiter{PerAddress: 2, Total: 3, Window: time.Minute}
	for _, tt := range []struct {
		name string
		at   time.Duration
		src  netip.Addr
		want bool
	}{
		{"the first", 0, a, true},
		{"the second", 0, a, true},
		{"a third of one address is too much", time.Second, a, false},
		{"another address has its own", time.Second, b, true},
		{"all together have a bound, too", time.Second, c, false},
		{"in the next window all begin anew", time.Minute, a, true},
	} {
		if got := l.Allow(noon.Add(tt.at), tt.src); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestDistrust(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	d := Distrust{For: 10 * time.Minute}
	d.Add(noon, a, detect.Kernel)
	for _, tt := range []struct {
		name string
		at   time.Duration
		src  netip.Addr
		auth detect.Authority
		want bool
	}{
		{"the same again", time.Minute, a, detect.Kernel, true},
		{"less than that", time.Minute, a, detect.Text, true},
		{"stronger evidence is heard", time.Minute, a, detect.Pinned, false},
		{"another source", time.Minute, b, detect.Kernel, false},
		{"when the time is over", 10 * time.Minute, a, detect.Kernel, false},
	} {
		if got := d.Has(noon.Add(tt.at), tt.src, tt.auth); got != tt.want {
			t.Errorf("%s: distrusted %v, want %v", tt.name, got, tt.want)
		}
	}
	for i := range 3 * distrustSources {
		d.Add(noon, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), detect.Kernel)
	}
	if len(d.sources) > distrustSources {
		t.Errorf("%d sources remembered, want at most %d", len(d.sources), distrustSources)
	}
	later := noon.Add(11 * time.Minute)
	d.Add(later, b, detect.Kernel)
	if len(d.sources) != 1 || !d.Has(later, b, detect.Kernel) {
		t.Errorf("%d sources remembered after the flood, want the new one", len(d.sources))
	}
}

func TestCareFor(t *testing.T) {
	for _, tt := range []struct {
		name string
		pod  Pod
		want Care
	}{
		{"a running pod", Pod{Phase: "Running"}, Fail},
		{"a pod that never started", Pod{Phase: "Pending"}, Fail},
		{"a pod being deleted", Pod{Phase: "Running", Deleting: true}, Fail},
		{"a pod that succeeded", Pod{Phase: "Succeeded"}, Leave},
		{"a pod that failed by itself", Pod{Phase: "Failed"}, Leave},
		{"a pod that failed by itself and bears an old mark", Pod{Phase: "Failed", Marked: true, Death: "other"}, Leave},
		{"a pod we failed", Pod{Phase: "Failed", Marked: true, Death: "d"}, Failed},
		{"a static pod's mirror", Pod{Phase: "Running", Mirror: true}, Annotate},
		{"a mirror that is annotated already", Pod{Phase: "Running", Mirror: true, Marked: true, Death: "d"}, Leave},
		{"a mirror of a pod started after the panic", Pod{Phase: "Running", Mirror: true, Started: noon.Add(6 * time.Second)}, Leave},
		{"a mirror that came after the panic", Pod{Phase: "Pending", Mirror: true, Created: noon.Add(time.Second)}, Leave},
		{"a pod bound to the node after the panic", Pod{Phase: "Pending", Created: noon.Add(time.Second)}, Fail},
		{
			"a DaemonSet's pod that came after the panic",
			Pod{Phase: "Pending", Created: noon.Add(time.Second), Owner: Owner{Kind: "DaemonSet"}}, Leave,
		},
		{"a pod restarted after the panic", Pod{Phase: "Running", Started: noon.Add(6 * time.Second)}, Leave},
		{"a pod started just before the panic, by a clock that is ahead", Pod{Phase: "Running", Started: noon.Add(5 * time.Second)}, Fail},
		{"a static pod started just before the panic, by such a clock", Pod{Phase: "Running", Mirror: true, Started: noon.Add(5 * time.Second)}, Annotate},
		{"a pod that bears the mark of an earlier death", Pod{Phase: "Running", Marked: true, Death: "other"}, Fail},
	} {
		if got := CareFor(tt.pod, "d", noon); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestKeptTill(t *testing.T) {
	failed := noon.Add(40 * time.Second)
	now, learnt, kept := time.Time{}, failed.Add(30*time.Second), noon.Add(10*time.Minute)
	for _, tt := range []struct {
		name  string
		owner Owner
		want  time.Time
	}{
		{"a ReplicaSet's", Owner{APIVersion: "apps/v1", Kind: "ReplicaSet"}, now},
		{"a StatefulSet's", Owner{APIVersion: "apps/v1", Kind: "StatefulSet"}, now},
		{"a DaemonSet's", Owner{APIVersion: "apps/v1", Kind: "DaemonSet"}, now},
		{"a Job's", Owner{APIVersion: "batch/v1", Kind: "Job"}, now},
		{"a ReplicationController's", Owner{APIVersion: "v1", Kind: "ReplicationController"}, now},
		{"nobody's, as of Airflow, Jenkins and GitLab's runner", Owner{}, kept},
		{"Argo's", Owner{APIVersion: "argoproj.io/v1alpha1", Kind: "Workflow"}, learnt},
		{"Tekton's", Owner{APIVersion: "tekton.dev/v1", Kind: "TaskRun"}, learnt},
		{"GitHub's runner", Owner{APIVersion: "actions.github.com/v1alpha1", Kind: "EphemeralRunner"}, learnt},
		{"a Spark executor, which its driver owns", Owner{APIVersion: "v1", Kind: "Pod"}, learnt},
		{"Flink's TaskManager, which a Deployment owns directly", Owner{APIVersion: "apps/v1", Kind: "Deployment"}, learnt},
		{"Volcano's, whose Jobs are others", Owner{APIVersion: "batch.volcano.sh/v1alpha1", Kind: "Job"}, learnt},
		{"Kruise's, whose StatefulSets are others", Owner{APIVersion: "apps.kruise.io/v1beta1", Kind: "StatefulSet"}, learnt},
		{"a database's, of a fixed name", Owner{APIVersion: "postgresql.cnpg.io/v1", Kind: "Cluster"}, learnt},
	} {
		p := DefaultPolicy()
		pod := Pod{Owner: tt.owner}
		if got := NewPlan(p, Death{Time: noon}, Node{}).KeptTill(pod, failed); !got.Equal(tt.want) {
			t.Errorf("%s: kept until %s, want %s", tt.name, got, tt.want)
		}
		p.KeepPods = 0
		if got := NewPlan(p, Death{Time: noon}, Node{}).KeptTill(pod, failed); !got.IsZero() {
			t.Errorf("%s: kept until %s although none are kept", tt.name, got)
		}
	}
}

func TestClaimFor(t *testing.T) {
	id := netconsole.Identity{Boot: boot1, Secret: secret1}
	ours := Pin{boot1, secret1.Sum()}
	for _, tt := range []struct {
		name string
		node Node
		id   netconsole.Identity
		want Claiming
	}{
		{"the first canary of a boot", Node{BootID: boot1}, id, ClaimWrite},
		{"the next one", Node{BootID: boot1, Claim: ours}, id, ClaimKnown},
		{"one of a boot that the node pinned itself", Node{BootID: boot1, Pin: ours}, id, ClaimKnown},
		{"a second secret for a pinned boot", Node{BootID: boot1, Pin: Pin{boot1, "x"}}, id, ClaimRefused},
		{"also where it was claimed before", Node{BootID: boot1, Pin: Pin{boot1, "x"}, Claim: ours}, id, ClaimRefused},
		{"the first canary of the next boot", Node{BootID: boot1, Pin: Pin{boot2, "x"}, Claim: Pin{boot2, "x"}}, id, ClaimWrite},
		{"a second secret for a claimed boot", Node{BootID: boot1, Claim: Pin{boot1, "x"}}, id, ClaimRefused},
		{"a boot the kubelet has not reported yet", Node{BootID: boot2, Claim: Pin{boot2, "x"}}, id, ClaimWaits},
		{"a kernel without userdata", Node{BootID: boot1}, netconsole.Identity{}, ClaimRefused},
		{"somebody else on a kernel without userdata", Node{BootID: boot1, Kernel: "6.1.0-41-cloud-amd64"}, id, ClaimRefused},
		{"somebody else on one that is older still", Node{BootID: boot1, Kernel: "5.10.245-241.976.amzn2"}, id, ClaimRefused},
		{"the first kernel with userdata", Node{BootID: boot1, Kernel: "6.9.0"}, id, ClaimWrite},
		{"a kernel of the next major version", Node{BootID: boot1, Kernel: "7.0.1-rc2+"}, id, ClaimWrite},
		{"the kernel before the one of the canary's boot", Node{BootID: boot2, Kernel: "6.1.0"}, id, ClaimWaits},
	} {
		if got := ClaimFor(tt.node, tt.id); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestPlanPrints(t *testing.T) {
	p := DefaultPolicy()
	p.NodeVerb, p.KeepPods = NodeAwait, time.Minute
	got := NewPlan(p, Death{
		Name: "n1-0123", Node: "n1", Time: noon, Reason: "sysrq triggered crash\nsecond line", Release: "6.12.0", Remedy: "update",
	}, Node{})
	want := `node n1, sysrq triggered crash at 2026-03-01T12:00:00Z
1. fence     taint node n1, so that nothing more is scheduled to it
2. list      list the pods on it
3. fail      mark them Failed, reason KernelPanic; leave alone what ended before or started after the panic
4. events    emit events on the node, on the pods and on their owners
5. condition set the node's condition: its kernel is not healthy
6. detach    if volumes are attached, taint the node out-of-service for at most 2m0s
7. delete    delete the Failed pods that Kubernetes replaces, those of Jobs first
8. node      lift the fence when the node is back on a new boot, delete it if it is not back within 10m0s
9. expire    delete those of other controllers 30s after they failed, the rest 1m0s after the panic
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	notice := Notice{
		Death: "n1-0123", Cause: "KernelPanic", Reason: "sysrq triggered crash", Time: noon,
		Message: "sysrq triggered crash on node n1, kernel 6.12.0; update; see nodedeath n1-0123",
	}
	if diff := cmp.Diff(notice, got.Notice); diff != "" {
		t.Errorf("notice (-want +got):\n%s", diff)
	}
	p.KeepPods = 0
	if len(got.Steps) != len(NewPlan(p, Death{}, Node{}).Steps)+1 {
		t.Error("something expires where nothing is kept")
	}
	p.NodeVerb = NodeDelete
	if got := NewPlan(p, Death{}, Node{Quarantined: true}).Verb; got != NodeAwait {
		t.Errorf("a node in quarantine: %s, want await: it would come back without its cordon", got)
	}
	p.NodeVerb = NodeDeleteClaim
	if got := NewPlan(p, Death{}, Node{Quarantined: true}).Verb; got != NodeAwait {
		t.Errorf("a node in quarantine without a NodeClaim: %s, want await: it would come back without its cordon", got)
	}
	if got := NewPlan(p, Death{}, Node{Quarantined: true, NodeClaim: Owner{Name: "c"}}).Verb; got != NodeDeleteClaim {
		t.Errorf("a node in quarantine with a NodeClaim: %s, want nodeclaim: another one takes its place", got)
	}
}

func TestNamePods(t *testing.T) {
	var pods []Pod
	for i := range MaxPods + 5 {
		pods = append(pods, Pod{Namespace: "default", Name: fmt.Sprint("p", i), UID: fmt.Sprint("u", i), Images: []string{"app", fmt.Sprint("side", i%2)}})
	}
	var d Death
	d.NamePods(pods)
	if len(d.Pods) != MaxPods || d.PodsOmitted != 5 {
		t.Errorf("%d pods and %d omitted, want %d and 5", len(d.Pods), d.PodsOmitted, MaxPods)
	}
	if diff := cmp.Diff([]string{"app", "side0", "side1"}, d.Images); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int{0, 2}, d.Pods[1].Images); diff != "" {
		t.Errorf("images of the second (-want +got):\n%s", diff)
	}
	d.SetOutcome(map[string]string{"u0": PodDeleted, "u1": PodFailed, "u2": PodDeleted, "u304": PodDenied})
	if diff := cmp.Diff([]Outcome{{PodFailed, []int{1}}, {PodDeleted, []int{0, 2}}}, d.Outcomes); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
}

// Whoever may create pods can bind any number to a node, and they end at once. They take no other pod's place on record.
func TestNamePodsAmongManyThatHadEnded(t *testing.T) {
	var pods []Pod
	for i := range 2 * MaxPods {
		pods = append(pods, Pod{Name: fmt.Sprint("ended", i), UID: fmt.Sprint("ended", i), Phase: "Failed"})
	}
	pods = append(pods, Pod{Name: "died", Phase: "Failed", Marked: true, Death: "d"}, Pod{Name: "left", Phase: "Running"})
	d := Death{Name: "d"}
	d.NamePods(pods)
	if len(d.Pods) != MaxPods || d.PodsOmitted != MaxPods+2 || d.Pods[0].Name != "died" || d.Pods[1].Name != "left" || d.Pods[2].Name != "ended0" {
		t.Errorf("%d pods from %s, %s and %s on, %d omitted", len(d.Pods), d.Pods[0].Name, d.Pods[1].Name, d.Pods[2].Name, d.PodsOmitted)
	}
}

func TestCulprit(t *testing.T) {
	const uid = "0f3c1f0e-5a55-4a1e-9a63-1c2d3e4f5a6b"
	for _, tt := range []struct {
		name, cgroup, want string
	}{
		{"a pod under systemd", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0f3c1f0e_5a55_4a1e_9a63_1c2d3e4f5a6b.slice/cri-containerd-1.scope", uid},
		{"a pod under cgroupfs", "/kubepods/besteffort/pod" + uid + "/1", uid},
		{"a static pod, whose UID is another", "/kubepods/pod0123456789abcdef0123456789abcdef/1", ""},
		{"a service", "/system.slice/sshd.service", ""},
		{"nothing", "", ""},
	} {
		inc := detect.Incident{Culprit: detect.Culprit{Comm: "stress", PID: 42, CPU: 1, Cgroup: tt.cgroup}}
		if got := NewDeath(inc, detect.Kernel, Node{}).Culprit; got == nil || got.Comm != "stress" || got.PodUID != tt.want {
			t.Errorf("%s: %+v, want pod %q", tt.name, got, tt.want)
		}
	}
	if got := NewDeath(detect.Incident{}, detect.Kernel, Node{}).Culprit; got != nil {
		t.Errorf("%+v, want none where the text names none", got)
	}
}

// The time of a condition is that of the last change of its status, and a copy of a death keeps its own.
func TestSetCondition(t *testing.T) {
	var d Death
	d.SetCondition(Condition{Type: Fenced, Status: True, Reason: "A", Time: noon})
	before := d
	d.SetCondition(Condition{Type: Fenced, Status: True, Reason: "B", Time: noon.Add(time.Hour)})
	if c := d.Conditions[0]; c.Reason != "B" || !c.Time.Equal(noon) || before.Conditions[0].Reason != "A" {
		t.Errorf("condition %+v, copy %+v", c, before.Conditions[0])
	}
	d.SetCondition(Condition{Type: Fenced, Status: False, Reason: "C", Time: noon.Add(time.Hour)})
	if c := d.Conditions[0]; len(d.Conditions) != 1 || !c.Time.Equal(noon.Add(time.Hour)) {
		t.Errorf("conditions %+v", d.Conditions)
	}
}
