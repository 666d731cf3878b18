package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/kube/v1alpha1"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

var at = time.Date(2026, 11, 21, 10, 0, 0, 123456000, time.UTC)

func fullDeath() policy.Death {
	return policy.Death{
		Name: "r", UID: "u", Version: "7", Created: at.Truncate(time.Second),
		Node: "n", NodeUID: "nu", Instance: "i-1", Boot: "b", Source: netip.MustParseAddrPort("10.0.0.1:6665"), Time: at,
		Cause: "KernelPanic", Reason: "sysrq triggered crash", Fingerprint: "9f31c2d07a64", Remedy: "m", Release: "6.12",
		Evidence: []policy.Evidence{policy.ByNetconsole, policy.ByPstore}, Authority: detect.Claimed,
		Culprit:  &policy.Culprit{Comm: "bash", PID: 7, CPU: 1, Cgroup: "/x", Namespace: "ns", Pod: "p", PodUID: "pu", Bystander: true},
		NodeInfo: policy.NodeInfo{InstanceType: "m5.large", Zone: "z", NodePool: "np", Image: "Debian"},
		Pods: []policy.DeadPod{
			{Namespace: "ns", Name: "p", UID: "pu", OwnerKind: "Job", OwnerName: "j", Images: []int{0, 1}},
			{Namespace: "ns", Name: "q", UID: "qu", Images: []int{1}},
		},
		Images: []string{"a", "b"}, PodsOmitted: 3, Trace: []string{"a", "", "b"}, TraceOmitted: 4,
		Phase: policy.Held, Decision: "d", Owner: "o", Started: at, Completed: at.Add(time.Second),
		Conditions: []policy.Condition{{Type: policy.Fenced, Status: policy.True, Reason: "Tainted", Message: "m", Time: at.Truncate(time.Second)}},
		Steps:      []policy.StepStatus{{Name: "fence", Done: true, Time: at, Note: "x"}, {Name: "fail"}},
		PodsTotal:  12, PodsFailed: 3,
		Outcomes: []policy.Outcome{{What: policy.PodFailed, Pods: []int{0}}, {What: policy.PodLeft, Pods: []int{1}}},
		Suspects: []policy.Suspect{
			{Rule: policy.ByReplacement, Namespace: "ns", Kind: "Job", Name: "j", Pod: "j", Deaths: []string{"q", "r"}},
			{Rule: policy.ByImage, Image: "a", Deaths: []string{"q", "r"}},
		},
		Released: true,
	}
}

var sameAddrPort = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

func objectOf(d policy.Death) *v1alpha1.NodeDeath {
	nd := &v1alpha1.NodeDeath{
		ObjectMeta: metav1.ObjectMeta{
			Name: d.Name, UID: types.UID(d.UID), ResourceVersion: d.Version, CreationTimestamp: metav1.NewTime(d.Created),
			Labels: labelsOf(d),
		},
		Spec:   specFrom(d),
		Status: statusFrom(d),
	}
	if d.Released {
		nd.Annotations = map[string]string{v1alpha1.ReleaseAnnotation: "true"}
	}
	return nd
}

func TestDeathIsReadAsItWasWritten(t *testing.T) {
	for name, want := range map[string]policy.Death{
		"full":        fullDeath(),
		"of no node":  {Name: "r", Created: at.Truncate(time.Second), Time: at, Cause: "KernelPanic", Phase: policy.Refused, Trace: []string{}},
		"just phased": {Name: "r", Created: at.Truncate(time.Second), Time: at, Cause: "Unexplained", Phase: policy.Pending, Trace: []string{}},
	} {
		text, err := json.Marshal(objectOf(want))
		if err != nil {
			t.Fatal(err)
		}
		nd := &v1alpha1.NodeDeath{}
		if err := json.Unmarshal(text, nd); err != nil {
			t.Fatal(err)
		}
		if len(want.Trace) == 0 {
			want.Trace = nil
		}
		got := deathFrom(nd)
		if diff := cmp.Diff(want, got, sameAddrPort, cmp.Comparer(time.Time.Equal)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// A creation that got through although its answer did not is finished at the next attempt. What another replica has created is not.
func TestCreationWhoseAnswerWasLost(t *testing.T) {
	mine := policy.Death{Name: "r", Node: "n", Boot: "b", Time: at.Add(999), Cause: "KernelPanic", Phase: policy.Cleaning, Owner: "me"}
	for _, tt := range []struct {
		name   string
		change func(have *v1alpha1.NodeDeath)
		want   error
	}{
		{"without a status", func(*v1alpha1.NodeDeath) {}, nil},
		{"that another replica took over", func(have *v1alpha1.NodeDeath) { have.Status.Owner = "other" }, cleanup.ErrExists},
		{"of another replica, which heard it later", func(have *v1alpha1.NodeDeath) {
			have.Spec.Time = metav1.NewMicroTime(at.Add(time.Millisecond))
		}, cleanup.ErrExists},
	} {
		t.Run(tt.name, func(t *testing.T) {
			have := objectOf(mine)
			have.UID, have.ResourceVersion, have.Status = "u", "7", v1alpha1.NodeDeathStatus{}
			tt.change(have)
			written := v1alpha1.NodeDeath{}
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				switch r.Method {
				case http.MethodPost:
					w.WriteHeader(http.StatusConflict)
					fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"AlreadyExists","code":409}`)
				case http.MethodGet:
					_ = json.NewEncoder(w).Encode(have)
				case http.MethodPut:
					_ = json.NewDecoder(r.Body).Decode(&written)
					_ = json.NewEncoder(w).Encode(written)
				}
			}))
			t.Cleanup(server.Close)
			c, err := New(Config{REST: &rest.Config{Host: server.URL}})
			if err != nil {
				t.Fatal(err)
			}
			d, err := c.CreateDeath(t.Context(), mine)
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Fatalf("%v, want %v", err, tt.want)
			}
			if tt.want == nil && (d.UID != "u" || d.Owner != "me" || written.ResourceVersion != "7") {
				t.Errorf("created %+v by a status for version %s; want that of u, version 7", d, written.ResourceVersion)
			}
		})
	}
}

func TestWhatTheSchemaWouldNotAdmitReadsAsTheWeakest(t *testing.T) {
	got := deathFrom(&v1alpha1.NodeDeath{Spec: v1alpha1.NodeDeathSpec{Authority: "hearsay", Source: "nowhere"}})
	if got.Authority != detect.Text || got.Source.IsValid() {
		t.Errorf("authority %v, source %v; want the weakest and none", got.Authority, got.Source)
	}
}

func TestAmendment(t *testing.T) {
	have := fullDeath()
	have.Trace, have.TraceOmitted, have.Pods, have.Images, have.PodsOmitted = []string{"a", "b"}, 0, nil, nil, 0
	for _, tt := range []struct {
		name   string
		change func(*policy.Death)
		want   string // the patch, empty for none
	}{
		{"the same", func(*policy.Death) {}, ""},
		{"another node and boot", func(d *policy.Death) { d.Node, d.Boot, d.NodeUID = "m", "c", "v" }, ""},
		{"a headline without a longer trace", func(d *policy.Death) { d.Reason = "y" }, ""},
		{"a shorter trace", func(d *policy.Death) { d.Trace, d.Reason = []string{"a"}, "y" }, ""},
		{"evidence that is there", func(d *policy.Death) { d.Evidence = d.Evidence[:1] }, ""},
		{"a longer trace", func(d *policy.Death) {
			d.Trace, d.Cause, d.Reason, d.Culprit = []string{"a", "b", "c"}, "HardLockup", "y", nil
		}, `{"metadata":{"labels":{"lastgasp.dev/authority":"claimed","lastgasp.dev/cause":"HardLockup","lastgasp.dev/node":"n"},"uid":"u"},` +
			`"spec":{"cause":"HardLockup","culprit":null,"reason":"y","trace":["a","b","c"]}}`},
		{"new evidence", func(d *policy.Death) { d.Evidence = []policy.Evidence{policy.ByKdump} },
			`{"metadata":{"labels":{"lastgasp.dev/authority":"claimed","lastgasp.dev/cause":"KernelPanic","lastgasp.dev/node":"n"},"uid":"u"},` +
				`"spec":{"evidence":["netconsole","pstore","kdump"]}}`},
		{"pods", func(d *policy.Death) {
			d.Pods, d.Images = []policy.DeadPod{{Namespace: "ns", Name: "p", UID: "x", Images: []int{0}}}, []string{"i"}
		}, `{"metadata":{"labels":{"lastgasp.dev/authority":"claimed","lastgasp.dev/cause":"KernelPanic","lastgasp.dev/node":"n"},"uid":"u"},` +
			`"spec":{"images":["i"],"pods":[{"namespace":"ns","name":"p","uid":"x","images":[0]}]}}`},
	} {
		d := have
		tt.change(&d)
		patch, err := amendment(objectOf(have), d)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, string(patch)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	unexplained, d := have, have
	unexplained.Cause, unexplained.Evidence = netconsole.CauseUnexplained, []policy.Evidence{policy.ByNothing}
	d.Reason, d.Trace, d.Evidence = "y", []string{"a"}, []policy.Evidence{policy.ByConsole}
	patch, err := amendment(objectOf(unexplained), d)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"metadata":{"labels":{"lastgasp.dev/authority":"claimed","lastgasp.dev/cause":"KernelPanic","lastgasp.dev/node":"n"},"uid":"u"},` +
		`"spec":{"cause":"KernelPanic","evidence":["console"],"reason":"y"}}`
	if diff := cmp.Diff(want, string(patch)); diff != "" {
		t.Errorf("what was unexplained (-want +got):\n%s", diff)
	}
}

// TestLargestDeathFits is about the bytes that the API server stores: whatever was sent, they are no more than 512 KiB.
func TestLargestDeathFits(t *testing.T) {
	crowd := func(pods, containers int, distinct bool) policy.Death {
		d := policy.Death{Time: at}
		for i := range pods {
			p := policy.DeadPod{
				Namespace: fmt.Sprintf("%063d", i), Name: fmt.Sprintf("%0253d", i), UID: fmt.Sprintf("%036d", i),
				OwnerKind: strings.Repeat("K", 63), OwnerName: strings.Repeat("o", 253),
			}
			for j := range containers {
				image := j
				if distinct {
					image = i*containers + j
				}
				if image == len(d.Images) {
					d.Images = append(d.Images, fmt.Sprintf("%0512d", image))
				}
				p.Images = append(p.Images, image)
			}
			d.Pods = append(d.Pods, p)
		}
		return d
	}
	for _, tt := range []struct {
		name     string
		pods     policy.Death
		line     string
		lines    int
		wantPods int // exactly, -1 for fewer than there are
	}{
		{"a trace of control bytes", policy.Death{Time: at}, strings.Repeat("\x01\x1b\xff\n", 200), 2000, 0},
		{"a trace of angle brackets", policy.Death{Time: at}, strings.Repeat("<", 900), 2000, 0},
		{"a trace of backslashes", policy.Death{Time: at}, strings.Repeat("\\", 900), 2000, 0},
		{"300 pods of 10 containers, longest names", crowd(300, 10, false), strings.Repeat("\x01", 900), 2000, 300},
		{"300 pods of 10 containers with images of their own", crowd(300, 10, true), strings.Repeat("\x01", 900), 2000, -1},
		{"400 pods", crowd(400, 1, false), "x", 10, 300},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := tt.pods
			d.Name, d.Phase = strings.Repeat("n", 63), policy.Cleaning
			for range tt.lines {
				d.Trace = append(d.Trace, tt.line)
			}
			for i := range 16 {
				long := strings.Repeat("<", 9000)
				d.Conditions = append(d.Conditions, policy.Condition{Type: fmt.Sprintf("C%d", i%5), Status: policy.True, Reason: long, Message: long})
				d.Steps = append(d.Steps, policy.StepStatus{Name: fmt.Sprintf("s%d", i%8), Note: long})
			}
			d.Conditions, d.Steps = d.Conditions[:5], d.Steps[:8]
			var all []int
			for i := range tt.pods.Pods {
				all = append(all, i)
			}
			d.Outcomes = []policy.Outcome{{What: policy.PodFailed, Pods: all}, {What: policy.PodDeleted, Pods: all}}
			nd := objectOf(d)
			if size := jsonSize(nd); size > 512<<10 {
				t.Errorf("%d bytes, want at most 512 KiB", size)
			}
			if got := len(nd.Spec.Pods); tt.wantPods >= 0 && got != tt.wantPods || tt.wantPods < 0 && (got == 0 || got == len(d.Pods)) {
				t.Errorf("%d pods of %d, want %d", got, len(d.Pods), tt.wantPods)
			}
			if got := len(nd.Spec.Pods) + nd.Spec.PodsOmitted; got != len(d.Pods) {
				t.Errorf("%d pods named or counted, want %d", got, len(d.Pods))
			}
			if got := linesOf(nd.Spec.Trace, nd.Spec.TraceOmitted); got != tt.lines {
				t.Errorf("%d lines kept or counted, want %d", got, tt.lines)
			}
			if tt.lines > 100 && (len(nd.Spec.Trace) < 3 || nd.Spec.TraceOmitted == 0) {
				t.Errorf("%d lines of the trace, %d left out", len(nd.Spec.Trace), nd.Spec.TraceOmitted)
			}
			for _, p := range nd.Spec.Pods {
				for _, i := range p.Images {
					if i >= len(nd.Spec.Images) {
						t.Fatalf("pod %s names image %d of %d", p.Name, i, len(nd.Spec.Images))
					}
				}
			}
			// What was read is written again as it is.
			if diff := cmp.Diff(nd.Spec, specFrom(deathFrom(nd))); diff != "" {
				t.Errorf("written again (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLabels(t *testing.T) {
	for node, want := range map[string]string{"ip-10-0-0-1.ec2.internal": "ip-10-0-0-1.ec2.internal", "": "", strings.Repeat("x", 64): ""} {
		got := labelsOf(policy.Death{Node: node, Cause: "KernelPanic", Authority: detect.Pinned})
		if got[v1alpha1.LabelNode] != want || got[v1alpha1.LabelCause] != "KernelPanic" || got[v1alpha1.LabelAuthority] != "pinned" {
			t.Errorf("labels of a death of node %q: %v", node, got)
		}
	}
}

func TestBoundTrace(t *testing.T) {
	numbered := func(n, size int) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = fmt.Sprintf("%06d%s", i, strings.Repeat(".", size-6))
		}
		return out
	}
	for _, tt := range []struct {
		name  string
		lines []string
		whole bool
	}{
		{"short", numbered(10, 80), true},
		{"just fits", numbered(1000, 128), true},
		{"much too long", numbered(10_000, 100), false},
		{"many short lines", numbered(5000, 6), false},
		{"few long lines", numbered(100, 4096), false},
		{"just as many lines as may be", numbered(2048, 10), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, omitted := boundTrace(tt.lines, traceSize)
			if tt.whole {
				if diff := cmp.Diff(tt.lines, got); diff != "" || omitted != 0 {
					t.Errorf("%d lines left out; trace (-want +got):\n%s", omitted, diff)
				}
				return
			}
			gap := -1
			for i, l := range got {
				if strings.HasPrefix(l, "[…") {
					gap = i
				}
			}
			if size := jsonSize(got); size > traceSize || len(got) > traceLines {
				t.Errorf("%d bytes in %d lines", size, len(got))
			}
			if gap < 0 {
				t.Fatal("nothing says that lines are missing")
			}
			tail := len(got) - gap - 1
			if diff := cmp.Diff(tt.lines[:gap], got[:gap]); diff != "" {
				t.Errorf("beginning (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.lines[len(tt.lines)-tail:], got[gap+1:]); diff != "" {
				t.Errorf("end (-want +got):\n%s", diff)
			}
			if want := len(tt.lines) - gap - tail; omitted != want || got[gap] != fmt.Sprintf("[… %d lines left out …]", want) {
				t.Errorf("%d lines left out, gap %q; want %d", omitted, got[gap], want)
			}
		})
	}
	if got, _ := boundTrace([]string{strings.Repeat("x", 5000), "a\xffb"}, traceSize); len(got[0]) != traceLineSize || got[1] != `a\xffb` {
		t.Errorf("line of %d bytes, line %q", len(got[0]), got[1])
	}
}

// The cache keeps a death without trace and pods, except the names of the pods, by which people look for it.
func TestDeathAsItIsKept(t *testing.T) {
	want := fullDeath()
	want.Packed = policy.PackPods(want.Pods, want.Images)
	want.Trace, want.Pods, want.Images, want.Outcomes = nil, nil, nil, nil
	inf, err := newDeathInformer(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := Cluster{deathCache: inf}
	if err := inf.GetStore().Add(keep(objectOf(fullDeath()))); err != nil {
		t.Fatal(err)
	}
	got := c.keptDeaths()
	if diff := cmp.Diff([]policy.Death{want}, got, sameAddrPort, cmp.Comparer(time.Time.Equal)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	one, ok := c.CachedDeath(want.Name)
	if diff := cmp.Diff(want, one, sameAddrPort, cmp.Comparer(time.Time.Equal)); !ok || diff != "" {
		t.Errorf("found %t by its name (-want +got):\n%s", ok, diff)
	}
	if d, ok := c.CachedDeath("another"); ok {
		t.Errorf("another is %+v, want none", d)
	}
}

// BenchmarkKeptDeaths lists 10,000 deaths of 30 pods each from the cache. heap-MiB is what the cache takes.
func BenchmarkKeptDeaths(b *testing.B) {
	inf, err := newDeathInformer(nil)
	if err != nil {
		b.Fatal(err)
	}
	d := fullDeath()
	d.Pods, d.Trace = nil, make([]string, 200)
	for i := range 30 {
		d.Pods = append(d.Pods, policy.DeadPod{
			Namespace: "shop", Name: fmt.Sprintf("cart-7d9f8c6b5-%05x", i), UID: "7f3c2f6e-0000-4000-8000-000000000001",
			OwnerKind: "ReplicaSet", OwnerName: "cart-7d9f8c6b5", Images: []int{0, 1},
		})
	}
	for _, step := range []string{"list", "events", "detach", "delete", "node"} {
		d.SetStep(policy.StepStatus{Name: step, Done: true, Time: at, Note: "12 failed, 1 mirror annotated"})
	}
	for _, kind := range []string{policy.PodsFailed, policy.VolumesDetached, policy.Settled, policy.Complete} {
		d.SetCondition(policy.Condition{Type: kind, Status: policy.True, Reason: "Done", Message: "12 failed, 1 mirror annotated", Time: at})
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 10_000 {
		d.Name = fmt.Sprintf("ip-10-0-%d-%d", i/250, i%250)
		text, err := json.Marshal(objectOf(d))
		if err != nil {
			b.Fatal(err)
		}
		nd := &v1alpha1.NodeDeath{}
		if err := json.Unmarshal(text, nd); err != nil {
			b.Fatal(err)
		}
		if err := inf.GetStore().Add(keep(nd)); err != nil {
			b.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	c := Cluster{deathCache: inf}
	b.ReportAllocs()
	for b.Loop() {
		if n := len(c.keptDeaths()); n != 10_000 {
			b.Fatal(n)
		}
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "heap-MiB")
}
