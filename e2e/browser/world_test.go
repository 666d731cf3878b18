package browser

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener"
	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/page"
	"github.com/lastgasp/lastgasp/listener/policy"
	"github.com/lastgasp/lastgasp/listener/receive"
)

// noon is when the page is looked at.
var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// world is a page.Source made of kernels that have really died: the captures of listener/detect.
type world struct {
	deaths []policy.Death
	fleet  []page.Node
}

func (w *world) Deaths(context.Context) ([]policy.Death, error) {
	out := make([]policy.Death, 0, len(w.deaths))
	for _, d := range w.deaths {
		d.Packed = policy.PackPods(d.Pods, d.Images)
		d.Pods, d.Images, d.Trace, d.Outcomes = nil, nil, nil, nil
		out = append(out, d)
	}
	return out, nil
}

func (w *world) Death(_ context.Context, name string) (policy.Death, error) {
	for _, d := range w.deaths {
		if d.Name == name {
			return d, nil
		}
	}
	return policy.Death{}, page.ErrNotFound
}

func (w *world) Fleet() []page.Node { return w.fleet }

// heard collects the incidents of a capture.
type heard struct{ incidents []detect.Incident }

func (h *heard) Offer(inc detect.Incident) bool {
	if inc.Complete && inc.Verdict == detect.Dying {
		h.incidents = append(h.incidents, inc)
	}
	return true
}

func (h *heard) Canary(netip.Addr, netconsole.Identity, time.Time) bool { return true }

// incidents judges the captures as the listener would.
func incidents(t *testing.T) (out []detect.Incident) {
	t.Helper()
	files, err := filepath.Glob("../../listener/detect/testdata/captures/*.ext.jsonl")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d captures, %v", len(files), err)
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		h := new(heard)
		shard := receive.NewShard(&receive.Config{Judge: new(detect.Config), Sink: h, Metrics: new(receive.Metrics), Replay: true})
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var d listener.Datagram
			if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
				t.Fatal(err)
			}
			at := noon.Add(time.Duration(d.T * 1e9))
			for next := shard.Next(); !next.IsZero() && !next.After(at); next = shard.Next() {
				shard.Tick(next)
			}
			shard.Receive(at, d.Src, d.Payload)
		}
		for next := shard.Next(); !next.IsZero(); next = shard.Next() {
			shard.Tick(next)
		}
		out = append(out, h.incidents...)
	}
	return out
}

// newWorld is a fleet of 400 nodes on which n died within a month, the latest of them minutes ago. It is the same each time.
func newWorld(t *testing.T, n int) *world {
	t.Helper()
	kinds := incidents(t)
	r := rand.New(rand.NewPCG(1, 2))
	w := new(world)
	types := []string{"m6i.4xlarge", "c7g.2xlarge", "r6i.8xlarge"}
	for i := range 400 {
		node := page.Node{
			Name: fmt.Sprintf("ip-10-0-%d-%d.eu-west-1.compute.internal", i/250, i%250), Address: fmt.Sprintf("10.0.%d.%d", i/250, i%250),
			Cover: "covered", Kernel: kinds[i%len(kinds)].Release, Image: "Debian GNU/Linux 13 (trixie)", InstanceType: types[i%3],
			Created: noon.Add(-time.Duration(r.IntN(60*24)) * time.Hour), Canary: noon.Add(-time.Duration(r.IntN(600)) * time.Second),
		}
		switch {
		case i < 3:
			node.Cover, node.Why = "mute", "its kernel is 7.0 or later and reboots before it sends; install lastgasp's kernel module"
		case i == 3:
			node.Cover, node.Why, node.Canary = "silent", "its last canary came 47m0s ago", noon.Add(-47*time.Minute)
		case i < 7:
			node.Cover, node.Why, node.Canary = "unproven", "no canary has arrived from it", time.Time{}
		}
		w.fleet = append(w.fleet, node)
	}
	for i := range n {
		k := min(r.IntN(len(kinds)), r.IntN(len(kinds))) // some bugs are more common than others
		inc := kinds[k]
		node := w.fleet[r.IntN(len(w.fleet))]
		ago := float64(i) / float64(n)
		inc.Time = noon.Add(-4*time.Minute - time.Duration(ago*ago*float64(30*24*time.Hour)))
		inc.Identity.Boot = fmt.Sprintf("7f3c2f6e-0000-4000-8000-%012x", i)
		inc.Identity.Instance = fmt.Sprintf("i-0%016x", i)
		inc.Source = netip.AddrPortFrom(netip.MustParseAddr(node.Address), 6665)
		d := policy.NewDeath(inc, detect.Pinned, policy.Node{
			Name: node.Name, UID: fmt.Sprint(i), BootID: inc.Identity.Boot, OSImage: node.Image,
			Labels: map[string]string{
				"node.kubernetes.io/instance-type": node.InstanceType, "topology.kubernetes.io/zone": "eu-west-1a", "karpenter.sh/nodepool": "batch",
			},
		})
		w.furnish(&d, i)
		w.deaths = append(w.deaths, d)
	}
	return w
}

// furnish gives a death pods and a cleanup.
func (w *world) furnish(d *policy.Death, i int) {
	var pods []policy.Pod
	pod := func(namespace, name, kind, owner, image string) {
		pods = append(pods, policy.Pod{
			Namespace: namespace, Name: name, UID: fmt.Sprint(i, len(pods)), Owner: policy.Owner{Kind: kind, Name: owner},
			Images: []string{"123456789012.dkr.ecr.eu-west-1.amazonaws.com/" + image},
		})
	}
	for j := range 6 + i%17 {
		pod("shop", fmt.Sprintf("checkout-7d9f8c6b5-%05x", i*31+j), "ReplicaSet", "checkout-7d9f8c6b5", "shop/checkout:2026.11.3")
	}
	pod("batch", fmt.Sprintf("nightly-report-%05x", i*17), "Job", "nightly-report", "batch/report:41")
	pod("data", fmt.Sprintf("cassandra-%d", i%9), "StatefulSet", "cassandra", "data/cassandra:5.0.2")
	pod("kube-system", fmt.Sprintf("kube-proxy-%05x", i), "DaemonSet", "kube-proxy", "eks/kube-proxy:v1.34.1")
	d.NamePods(pods)
	became := make(map[string]string)
	for j, p := range pods {
		became[p.UID] = policy.PodDeleted
		if j == 0 && i == 2 {
			became[p.UID] = policy.PodDenied
		}
	}
	after := func(ms int) time.Time { return d.Time.Add(time.Duration(ms) * time.Millisecond) }
	d.Phase, d.Decision, d.PodsTotal, d.PodsFailed = policy.Cleaned, "the dying kernel proved itself with the secret that its node pinned", len(pods), len(pods)
	d.Owner, d.Completed = "listener-6d5f7c9b8-x2x4q-1", after(4210)
	d.Steps = []policy.StepStatus{
		{Name: policy.StepFence, Done: true, Time: after(31), Note: "tainted lastgasp.dev/dead:NoSchedule"},
		{Name: policy.StepList, Done: true, Time: after(44), Note: fmt.Sprintf("%d pods: %d to fail", len(pods), len(pods))},
		{Name: policy.StepFail, Done: true, Time: after(180), Note: fmt.Sprintf("%d failed", len(pods))},
		{Name: policy.StepEvents, Done: true, Time: after(182), Note: fmt.Sprintf("node, %d pods and 4 owners", len(pods))},
		{Name: policy.StepDetach, Done: true, Time: after(710), Note: "2 volumes detached"},
		{Name: policy.StepDelete, Done: true, Time: after(930), Note: fmt.Sprintf("%d deleted", len(pods))},
		{Name: policy.StepNode, Done: true, Time: after(4200), Note: "deleted"},
	}
	d.SetCondition(policy.Condition{Type: policy.Fenced, Status: policy.True, Reason: "Tainted", Message: "nothing more is scheduled to the node", Time: after(31)})
	d.SetCondition(policy.Condition{Type: policy.PodsFailed, Status: policy.True, Reason: "Failed", Message: fmt.Sprintf("%d failed", len(pods)), Time: after(180)})
	d.SetCondition(policy.Condition{Type: policy.Complete, Status: policy.True, Reason: "Cleaned", Time: after(4210)})
	switch i {
	case 0, 1: // the latest are under way, or wait for a person
		became = nil
		d.Phase, d.Decision, d.Completed, d.Steps, d.PodsFailed = policy.Held, "5 nodes have died in 10 minutes, which is all that limits.nodes allows", time.Time{}, d.Steps[:1], 0
		d.Conditions = d.Conditions[:1]
	case 2:
		d.Phase, d.PodsFailed = policy.Incomplete, len(pods)-1
	case 3:
		for uid := range became {
			became[uid] = policy.PodFailed
		}
		d.Phase, d.Completed, d.Steps = policy.Cleaning, time.Time{}, append(d.Steps[:4:4], policy.StepStatus{Name: policy.StepDetach, Time: after(190), Note: "2 volumes are still attached"})
		d.Conditions = d.Conditions[:2]
	case 4:
		d.Suspects = []policy.Suspect{{
			Rule: policy.ByReplacement, Namespace: "batch", Kind: "Job", Name: "nightly-report", Pod: "nightly-report",
			Deaths: []string{w.deaths[2].Name, w.deaths[3].Name, d.Name},
		}}
	}
	d.SetOutcome(became)
}

// hardWorld has what is hard to show: every state and many causes, names as long as they may be, texts of every script, held deaths
// that are many, and what is not known.
func hardWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, 24)
	long := func(n int) string { return strings.Repeat("a-very-long-name-", n)[:n-1] + "z" }
	states := []struct {
		phase                 policy.Phase
		cause, reason, decide string
		evidence              policy.Evidence
		authority             detect.Authority
	}{
		{policy.Incomplete, "HardLockup", "hard LOCKUP in " + long(200), "the dying kernel proved itself with the secret that its node pinned", policy.ByNetconsole, detect.Pinned},
		{policy.Pending, "KernelPanic", "Fatal exception in interrupt", "only the node's address speaks for it, so its Lease is watched", policy.ByNetconsole, detect.Kernel},
		{policy.Refused, "KernelPanic", "שלום 123 in مرحبا 456", "the node renewed its Lease after it was said to have died", policy.ByNetconsole, detect.Text},
		{policy.Recorded, "Unexplained", "the boot ended without a word", "the node is back on a new boot", policy.ByNothing, detect.Boot},
		{policy.Recorded, "HardwareError", "Machine check: Processor context corrupt", "the node is back on a new boot", policy.ByFirmware, detect.Pinned},
		{policy.Recorded, "Watchdog", "the watchdog reset the machine", "the node is back on a new boot", policy.ByWatchdog, detect.Pinned},
		{policy.Cleaned, "Terminated", "Server.SpotInstanceTermination", "EC2 says that the instance is terminated", policy.ByCloud, detect.Cloud},
		{"", "SoftLockup", "soft lockup in \u4f60\u597d\u4e16\u754c_worker", "", policy.ByPstore, detect.Claimed},
	}
	for i := range w.deaths {
		d := &w.deaths[i]
		if i >= len(states) {
			d.Phase, d.Steps, d.Conditions, d.PodsFailed, d.Completed = policy.Held, d.Steps[:1], d.Conditions[:1], 0, time.Time{}
			d.Decision = "5 nodes have died in 10 minutes, which is all that limits.nodes allows"
			d.SetOutcome(nil)
			continue
		}
		s := states[i]
		d.Phase, d.Cause, d.Reason, d.Decision, d.Evidence, d.Authority = s.phase, s.cause, s.reason, s.decide, []policy.Evidence{s.evidence}, s.authority
		d.Fingerprint = fmt.Sprintf("%012x", i)
		if s.phase != policy.Incomplete && s.phase != policy.Cleaned {
			d.PodsFailed, d.Steps, d.Conditions = 0, d.Steps[:1], d.Conditions[:1]
			d.SetOutcome(nil)
		}
		if s.evidence == policy.ByNothing || s.evidence == policy.ByCloud {
			d.Trace, d.Pods, d.Images, d.Culprit, d.Steps, d.Conditions, d.Fingerprint = nil, nil, nil, nil, nil, nil, ""
			d.PodsTotal, d.PodsFailed, d.Source, d.NodeInfo, d.Release, d.Instance = 0, 0, netip.AddrPort{}, policy.NodeInfo{}, "", ""
		}
	}
	hard := &w.deaths[0]
	hard.Node, hard.Release, hard.Instance, hard.Boot, hard.Owner = long(253), long(64), long(64), long(64), long(63)
	hard.NodeInfo = policy.NodeInfo{InstanceType: long(63), Zone: long(63), NodePool: long(63), Image: "نظام التشغيل 24.04 " + long(120)}
	hard.Remedy = "update the driver " + long(100) + ", or do without it"
	hard.Culprit = &policy.Culprit{Comm: "עברית", PID: 4194304, CPU: 511, Cgroup: "/kubepods.slice/" + long(240), Pod: long(253), Namespace: long(63)}
	hard.NamePods([]policy.Pod{
		{Namespace: long(63), Name: long(253), UID: "u", Owner: policy.Owner{Kind: long(63), Name: long(253)}, Images: []string{"registry.example/" + long(220) + "@sha256:" + strings.Repeat("0f", 32)}},
		{Namespace: "x", Name: "y", UID: "v"},
	})
	hard.PodsOmitted, hard.TraceOmitted = 12_345, 678
	hard.SetOutcome(map[string]string{"u": policy.PodDenied})
	hard.Trace = append([]string{"[    1.000000] " + long(900), "[    1.000001] עברית 12 مرحبا 34", "\x1b[31m\u202e\x00"}, hard.Trace...)
	hard.Suspects = []policy.Suspect{
		{Rule: policy.ByReplacement, Namespace: long(63), Kind: "ReplicaSet", Name: long(253), Pod: long(253), Deaths: []string{w.deaths[1].Name, hard.Name}},
		{Rule: policy.ByImage, Image: "registry.example/" + long(220), Deaths: []string{w.deaths[1].Name, w.deaths[2].Name, hard.Name}},
	}
	w.fleet[0] = page.Node{Name: hard.Node, Address: "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", Cover: "mute", Why: "its console level is 4; " + long(120), Kernel: hard.Release, Image: hard.NodeInfo.Image, InstanceType: long(63)}
	w.fleet[1] = page.Node{Address: "192.0.2.1", Cover: "stranger", Why: "no Node of this cluster has this address"}
	return w
}

// awayWorld is a cluster that cannot be asked.
type awayWorld struct{ *world }

func (awayWorld) Deaths(context.Context) ([]policy.Death, error) {
	return nil, errors.New("list nodedeaths: the API server has not answered yet")
}
