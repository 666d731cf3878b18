//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/kube"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// kubeDeath returns a death as cleanup would write it.
func kubeDeath(name string) policy.Death {
	at := time.Date(2026, 11, 21, 10, 0, 0, 123456000, time.UTC)
	return policy.Death{
		Name: name, Node: "node-1", NodeUID: "uid-1", Instance: "i-0aaa", Boot: "boot-1",
		Source: netip.MustParseAddrPort("10.0.1.5:6665"), Time: at,
		Cause: "KernelPanic", Reason: "sysrq triggered crash", Fingerprint: "9f31c2d07a64", Remedy: "none", Release: "6.12.107",
		Evidence: []policy.Evidence{policy.ByNetconsole}, Authority: detect.Boot,
		Culprit:  &policy.Culprit{Comm: "bash", PID: 4711, CPU: 1, Namespace: "default", Pod: "web-1", PodUID: "pod-1"},
		NodeInfo: policy.NodeInfo{InstanceType: "m5.large", Zone: "us-east-1a", NodePool: "default", Image: "Debian 13"},
		Pods: []policy.DeadPod{
			{Namespace: "default", Name: "web-1", UID: "pod-1", OwnerKind: "ReplicaSet", OwnerName: "web", Images: []int{0}},
			{Namespace: "default", Name: "bare", UID: "pod-2", Images: []int{0}},
		},
		Images: []string{"registry.example.com/web:1"},
		Trace:  []string{"sysrq: Trigger a crash", "Kernel panic - not syncing: sysrq triggered crash"},
		Phase:  policy.Pending, Decision: "waits for a witness", Owner: "listener-0", Started: at,
		Conditions: []policy.Condition{{Type: policy.Fenced, Status: policy.True, Reason: "Tainted", Message: "fenced", Time: at.Truncate(time.Second)}},
		Steps:      []policy.StepStatus{{Name: "fence", Done: true, Time: at, Note: "fenced"}}, PodsTotal: 12, PodsFailed: 3,
	}
}

var ignoreServerFields = cmpopts.IgnoreFields(policy.Death{}, "UID", "Version", "Created")

// sameDeath compares times as instants, not as they are written.
var sameDeath = cmp.Options{
	cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

func (w *kubeWorld) checkDeaths(t *testing.T) {
	ctx := t.Context()
	want := kubeDeath("ip-10-0-1-5-boot-1")
	created, err := w.cluster.CreateDeath(ctx, want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, created, sameDeath, ignoreServerFields); diff != "" {
		t.Errorf("created (-want +got):\n%s", diff)
	}
	read, err := w.cluster.Death(ctx, want.Name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(created, read, sameDeath); diff != "" {
		t.Errorf("read (-created +read):\n%s", diff)
	}
	if _, err := w.cluster.CreateDeath(ctx, want); !errors.Is(err, cleanup.ErrExists) {
		t.Errorf("create it again: %v, want ErrExists", err)
	}
	if _, err := w.cluster.Death(ctx, "nobody"); !errors.Is(err, cleanup.ErrNotFound) {
		t.Errorf("read a death that is not: %v, want ErrNotFound", err)
	}

	update := read
	update.Phase, update.PodsFailed, update.Completed = policy.Incomplete, 11, want.Time.Add(time.Second)
	update.SetStep(policy.StepStatus{Name: "fail"})
	update.SetCondition(policy.Condition{Type: policy.Complete, Status: policy.True, Reason: "Done", Time: want.Time.Truncate(time.Second)})
	update.Outcomes = []policy.Outcome{{What: policy.PodFailed, Pods: []int{0}}, {What: policy.PodDenied, Pods: []int{1}}}
	update.Suspects = []policy.Suspect{
		{Rule: policy.ByReplacement, Namespace: "default", Kind: "ReplicaSet", Name: "web", Pod: "web", Deaths: []string{"before", update.Name}},
		{Rule: policy.ByImage, Image: "registry.example.com/web:1", Deaths: []string{"before", update.Name}},
	}
	updated, err := w.cluster.UpdateDeath(ctx, update)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(update, updated, sameDeath, ignoreServerFields); diff != "" {
		t.Errorf("updated (-want +got):\n%s", diff)
	}
	if g := w.generation(t, want.Name); g != 1 {
		t.Errorf("generation %d after a change of status, want 1: the spec was written again", g)
	}
	if _, err := w.cluster.UpdateDeath(ctx, update); !errors.Is(err, cleanup.ErrConflict) {
		t.Errorf("update from a stale version: %v, want ErrConflict", err)
	}
	w.kubectl(t, "wait", "nd/"+want.Name, "--for=condition=Complete", "--timeout=5m")

	t.Run("the rest of a trace cannot conflict", func(t *testing.T) {
		longer := want
		longer.UID, longer.Version, longer.Node = created.UID, created.Version, "node-2" // stale, and another node
		longer.Reason, longer.Fingerprint, longer.Trace = "null pointer dereference in foo", "000000000000", append(want.Trace, "Call Trace:")
		longer.Evidence = []policy.Evidence{policy.ByPstore}
		amended, err := w.cluster.AmendDeath(ctx, longer)
		if err != nil {
			t.Fatal(err)
		}
		expect := updated
		expect.Reason, expect.Fingerprint, expect.Trace = longer.Reason, longer.Fingerprint, longer.Trace
		expect.Evidence = []policy.Evidence{policy.ByNetconsole, policy.ByPstore}
		if read, err = w.cluster.Death(ctx, want.Name); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(expect, read, sameDeath, ignoreServerFields); diff != "" {
			t.Errorf("amended (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(read, amended, sameDeath); diff != "" {
			t.Errorf("as it was returned (-read +returned):\n%s", diff)
		}
		g := w.generation(t, want.Name)
		less := want
		less.UID = created.UID
		if _, err := w.cluster.AmendDeath(ctx, less); err != nil {
			t.Errorf("amend with less: %v", err)
		}
		longer.UID = "00000000-0000-0000-0000-000000000000"
		if _, err := w.cluster.AmendDeath(ctx, longer); !errors.Is(err, cleanup.ErrConflict) {
			t.Errorf("amend another uid: %v, want ErrConflict", err)
		}
		if now := w.generation(t, want.Name); now != g {
			t.Errorf("generation %d, want %d: nothing was to be written", now, g)
		}
	})
	t.Run("several replicas amend at once", func(t *testing.T) {
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				d := want
				d.UID = created.UID
				for range 10 + i {
					d.Trace = append(slices.Clone(d.Trace), "more")
				}
				d.Evidence = []policy.Evidence{[]policy.Evidence{policy.ByPstore, policy.ByKdump, policy.ByConsole, policy.ByCloud}[i%4]}
				if _, err := w.cluster.AmendDeath(ctx, d); err != nil {
					t.Errorf("amend: %v", err)
				}
			})
		}
		wg.Wait()
		if read, err = w.cluster.Death(ctx, want.Name); err != nil || len(read.Trace) != len(want.Trace)+17 || len(read.Evidence) != 5 {
			t.Errorf("%d lines, evidence %v, %v; want the longest trace and all evidence", len(read.Trace), read.Evidence, err)
		}
	})
	t.Run("released by a human", func(t *testing.T) {
		w.kubectl(t, "annotate", "nodedeath", want.Name, "lastgasp.dev/release=true")
		if _, err := w.cluster.UpdateDeath(ctx, read); !errors.Is(err, cleanup.ErrConflict) {
			t.Errorf("update over the human's word: %v, want ErrConflict", err)
		}
		if read, err = w.cluster.Death(ctx, want.Name); err != nil || !read.Released {
			t.Errorf("released: %v, %v", read.Released, err)
		}
		if read, err = w.cluster.UpdateDeath(ctx, read); err != nil || !read.Released {
			t.Errorf("released after an update: %v, %v", read.Released, err)
		}
	})
	t.Run("what was unexplained is explained", func(t *testing.T) {
		none := want
		none.Name, none.Cause, none.Evidence = "unexplained", netconsole.CauseUnexplained, []policy.Evidence{policy.ByNothing}
		d, err := w.cluster.CreateDeath(ctx, none)
		if err != nil {
			t.Fatal(err)
		}
		d.Cause, d.Trace, d.Evidence = "KernelPanic", d.Trace[:1], []policy.Evidence{policy.ByConsole}
		if d, err = w.cluster.AmendDeath(ctx, d); err != nil || d.Cause != "KernelPanic" || !slices.Equal(d.Evidence, []policy.Evidence{policy.ByConsole}) ||
			len(d.Trace) != len(none.Trace) {
			t.Errorf("%s by %v, %d lines, %v", d.Cause, d.Evidence, len(d.Trace), err)
		}
		w.kubectl(t, "delete", "nd", none.Name)
	})
	t.Run("history is not rewritten", func(t *testing.T) {
		for _, tt := range []struct{ name, value, says string }{
			{"node", `"other"`, "is written once"},
			{"nodeUID", `"other"`, "is written once"}, {"nodeUID", "null", "is written once"},
			{"instance", `"other"`, "is written once"}, {"instance", "null", "is written once"}, {"instance", `""`, "is written once"},
			{"boot", `"other"`, "is written once"}, {"boot", "null", "is written once"},
			{"source", `"other"`, "is written once"}, {"source", "null", "is written once"},
			{"time", `"2027-01-01T00:00:00Z"`, "is written once"}, {"time", "null", "Required value"}, {"node", "null", "Required value"},
			{"authority", `"text"`, "only rises"},
			{"evidence", `["kdump"]`, "is only added to"}, {"evidence", "null", "is only added to"},
			{"trace", `["a"]`, "only grows"}, {"trace", "null", "only grows"},
		} {
			// As the listener, so that it is the schema that denies.
			_, err := w.dynamic.Resource(deaths).Patch(ctx, want.Name, types.MergePatchType,
				[]byte(fmt.Sprintf(`{"spec":{%q:%s}}`, tt.name, tt.value)), metav1.PatchOptions{})
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("change spec.%s to %s: %v, want %q", tt.name, tt.value, err, tt.says)
			}
		}
		bare := want
		bare.Name, bare.Boot, bare.Instance, bare.NodeUID, bare.Source = "of-no-boot", "", "", "", netip.AddrPort{}
		if _, err := w.cluster.CreateDeath(ctx, bare); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"boot", "instance", "nodeUID", "source"} {
			_, err := w.dynamic.Resource(deaths).Patch(ctx, bare.Name, types.MergePatchType,
				[]byte(fmt.Sprintf(`{"spec":{%q:"late"}}`, name)), metav1.PatchOptions{})
			if err == nil || !strings.Contains(err.Error(), "is written once") {
				t.Errorf("add spec.%s late: %v", name, err)
			}
		}
		w.kubectl(t, "delete", "nd", bare.Name)
	})
	eventually(t, "the cache to follow", func() error {
		deaths, err := w.cluster.Deaths(ctx)
		if err != nil {
			return err
		}
		want := read
		want.Packed = policy.PackPods(read.Pods, read.Images)
		want.Trace, want.Pods, want.Images, want.Outcomes = nil, nil, nil, nil
		if diff := cmp.Diff([]policy.Death{want}, deaths, sameDeath); diff != "" {
			return fmt.Errorf("deaths (-want +got):\n%s", diff)
		}
		return nil
	})

	other := read
	other.UID = "00000000-0000-0000-0000-000000000000"
	if err := w.cluster.DeleteDeath(ctx, other); !errors.Is(err, cleanup.ErrConflict) {
		t.Errorf("delete another uid: %v, want ErrConflict", err)
	}
	if err := w.cluster.DeleteDeath(ctx, read); err != nil {
		t.Errorf("delete: %v", err)
	}
	if err := w.cluster.DeleteDeath(ctx, read); !errors.Is(err, cleanup.ErrNotFound) {
		t.Errorf("delete again: %v, want ErrNotFound", err)
	}
	// Kubernetes 1.33 answers with a conflict: its API server takes a custom resource that is gone for one without a UID.
	if _, err := w.cluster.UpdateDeath(ctx, read); !errors.Is(err, cleanup.ErrNotFound) && !errors.Is(err, cleanup.ErrConflict) {
		t.Errorf("update a deleted death: %v, want ErrNotFound or ErrConflict", err)
	}
	if _, err := w.cluster.AmendDeath(ctx, read); !errors.Is(err, cleanup.ErrNotFound) {
		t.Errorf("amend a deleted death: %v, want ErrNotFound", err)
	}
}

func (w *kubeWorld) checkDeathWithoutNode(t *testing.T) {
	want := policy.Death{
		Name: "refused-1", Source: netip.MustParseAddrPort("10.0.1.5:6665"), Time: time.Now(), Cause: "KernelPanic", Reason: "x",
		Phase: policy.Refused, Decision: "no node has address 10.0.1.5",
	}
	got, err := w.cluster.CreateDeath(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	if got.Phase != policy.Refused || got.Node != "" || got.Authority != detect.Text {
		t.Errorf("death: %+v", got)
	}
	if err := w.cluster.DeleteDeath(t.Context(), got); err != nil {
		t.Error(err)
	}
}

// checkLargestDeath writes the longest value of every field, and reads back how large the object is.
func (w *kubeWorld) checkLargestDeath(t *testing.T) {
	d := kubeDeath("largest")
	d.Pods, d.Images, d.Trace = nil, nil, nil
	var all []int
	for i := range policy.MaxPods {
		p := policy.DeadPod{
			Namespace: fmt.Sprintf("%063d", i), Name: fmt.Sprintf("%0253d", i), UID: fmt.Sprintf("%036d", i),
			OwnerKind: strings.Repeat("K", 63), OwnerName: strings.Repeat("o", 253),
		}
		for range 10 {
			p.Images = append(p.Images, len(d.Images))
			d.Images = append(d.Images, fmt.Sprintf("%0512d", len(d.Images)))
		}
		d.Pods, all = append(d.Pods, p), append(all, i)
	}
	for range 3000 {
		d.Trace = append(d.Trace, strings.Repeat("\x01\x1b[2J\u202e\xff\n<", 300))
	}
	d.Outcomes = []policy.Outcome{{What: policy.PodFailed, Pods: all}, {What: policy.PodDeleted, Pods: all}}
	for i := range d.Steps {
		d.Steps[i].Note = strings.Repeat("<", 9000)
	}
	d.Decision, d.Reason, d.Remedy = strings.Repeat("<", 9000), strings.Repeat("\x1b", 9000), strings.Repeat("\u202e", 9000)
	if _, err := w.cluster.CreateDeath(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	text, err := w.raw.RESTClient().Get().AbsPath("/apis/lastgasp.dev/v1alpha1/nodedeaths/largest").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the largest death is %d KiB", len(text)>>10)
	if len(text) > 512<<10 {
		t.Errorf("%d bytes, want at most 512 KiB", len(text))
	}
	got, err := w.cluster.Death(t.Context(), d.Name)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Pods)+got.PodsOmitted != policy.MaxPods || len(got.Trace)-1+got.TraceOmitted != 3000 || got.TraceOmitted == 0 {
		t.Errorf("%d pods and %d omitted, %d lines and %d omitted", len(got.Pods), got.PodsOmitted, len(got.Trace), got.TraceOmitted)
	}
	if i := strings.IndexFunc(w.kubectl(t, "get", "nd", "largest", "-o", "wide"), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
		t.Error("kubectl get prints control characters")
	}
	if i := strings.IndexFunc(w.kubectl(t, "get", "nd", "largest", "-o", `jsonpath={range .spec.trace[*]}{@}{"\n"}{end}`),
		func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
		t.Error("the trace has control characters")
	}
	w.kubectl(t, "delete", "nd", "largest")
}

func (w *kubeWorld) checkKubectl(t *testing.T) {
	d := kubeDeath("ip-10-0-1-5-9f31")
	d.Phase = policy.Cleaning
	if _, err := w.cluster.CreateDeath(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(w.kubectl(t, "get", "nd", d.Name), "\n")
	if got, want := strings.Fields(lines[0]), []string{"NAME", "NODE", "REASON", "FINGERPRINT", "PODS", "PHASE", "AGE"}; !cmp.Equal(got, want) {
		t.Errorf("columns %v, want %v", got, want)
	}
	if want := []string{"ip-10-0-1-5-9f31", "node-1", "sysrq", "triggered", "crash", "9f31c2d07a64", "3/12", "Cleaning"}; !cmp.Equal(strings.Fields(lines[1])[:8], want) {
		t.Errorf("row %q, want %v", lines[1], want)
	}
	t.Logf("kubectl get nd:\n%s", strings.Join(lines, "\n"))
	wide := strings.Split(w.kubectl(t, "get", "lastgasp", "-o", "wide"), "\n")
	if got, want := strings.Fields(wide[0])[7:], []string{"CAUSE", "AUTHORITY", "EVIDENCE", "BOOT"}; !cmp.Equal(got, want) {
		t.Errorf("columns of -o wide %v, want %v", got, want)
	}
	t.Logf("kubectl get lastgasp -o wide:\n%s", strings.Join(wide, "\n"))
	if got, want := w.kubectl(t, "get", "nd", d.Name, "-o", `jsonpath={range .spec.trace[*]}{@}{"\n"}{end}`), strings.Join(d.Trace, "\n")+"\n"; got != want {
		t.Errorf("trace %q, want %q", got, want)
	}
	for _, tt := range []struct {
		flag, selector string
		want           bool
	}{
		{"--field-selector", "spec.fingerprint=9f31c2d07a64,spec.node=node-1", true},
		{"--field-selector", "spec.cause=KernelPanic,spec.authority=boot,spec.boot=boot-1", true},
		{"--field-selector", "status.phase=Held", false},
		{"--selector", "lastgasp.dev/cause=KernelPanic,lastgasp.dev/authority=boot,lastgasp.dev/node=node-1", true},
		{"--selector", "lastgasp.dev/authority=pinned", false},
	} {
		got := w.kubectl(t, "get", "nd", "-o", "name", tt.flag, tt.selector)
		if want := "nodedeath.lastgasp.dev/ip-10-0-1-5-9f31\n"; tt.want && got != want || !tt.want && got != "" {
			t.Errorf("deaths with %s: %q, want one %v", tt.selector, got, tt.want)
		}
	}
}

// checkReplicas tests the Leases by which two listeners show that they are at work.
func (w *kubeWorld) checkReplicas(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	other, err := kube.New(kube.Config{REST: w.account, Replica: "Listener_1"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- other.Run(ctx) }()
	names := func() (map[string]time.Time, error) {
		replicas, err := w.cluster.Replicas(t.Context())
		out := map[string]time.Time{}
		for _, r := range replicas {
			out[r.Name] = r.Renewed
		}
		return out, err
	}
	var first map[string]time.Time
	eventually(t, "both replicas to be seen", func() error {
		var err error
		if first, err = names(); err != nil || len(first) != 2 || first["Listener_1"].IsZero() || first["listener-0"].IsZero() {
			return fmt.Errorf("replicas %v, %v", first, err)
		}
		return nil
	})
	eventually(t, "both leases to be renewed", func() error {
		now, err := names()
		for name, renewed := range first {
			if !now[name].After(renewed) {
				return fmt.Errorf("lease of %s renewed %v, %v", name, now[name], err)
			}
		}
		return err
	})
	t.Run("a lease that somebody deleted is made again", func(t *testing.T) {
		w.kubectl(t, "delete", "lease", "lastgasp-listener-listener-0", "--namespace=lastgasp")
		eventually(t, "the lease", func() error {
			now, err := names()
			if now["listener-0"].IsZero() {
				return fmt.Errorf("replicas %v, %v", now, err)
			}
			return nil
		})
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	eventually(t, "the lease of one that has ended to be gone", func() error {
		if now, err := names(); err != nil || len(now) != 1 {
			return fmt.Errorf("replicas %v, %v", now, err)
		}
		return nil
	})
}

func (w *kubeWorld) generation(t *testing.T, death string) int {
	t.Helper()
	var g int
	if _, err := fmt.Sscan(w.kubectl(t, "get", "nd", death, "-o", "jsonpath={.metadata.generation}"), &g); err != nil {
		t.Fatal(err)
	}
	return g
}
