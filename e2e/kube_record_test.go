//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/detect"
)

// kubeRecord is a record as cleanup would write it.
func kubeRecord(name string) cleanup.Record {
	at := time.Date(2026, 11, 21, 10, 0, 0, 123456000, time.UTC)
	return cleanup.Record{
		Name: name, Node: "node-1", NodeUID: "uid-1", Instance: "i-0aaa", Boot: "boot-1",
		Source: netip.MustParseAddrPort("10.0.1.5:6665"), Time: at,
		Code: "KernelPanic", Title: "sysrq triggered crash", Fingerprint: "9f31c2d07a64", Remedy: "none", Release: "6.12.107",
		Authority: detect.Pinned, Trace: []string{"sysrq: Trigger a crash", "Kernel panic - not syncing: sysrq triggered crash"},
		Phase: cleanup.Claimed, Decision: "pinned gasp", Owner: "listener-0", OwnerSeen: at,
		Steps: []cleanup.StepStatus{{Name: "fence", Done: true, Time: at, Note: "fenced"}}, PodsTotal: 12, PodsDone: 3,
	}
}

var ignoreServerFields = cmpopts.IgnoreFields(cleanup.Record{}, "UID", "Version", "Created")

func (w *kubeWorld) checkRecords(t *testing.T) {
	ctx := t.Context()
	want := kubeRecord("ip-10-0-1-5-boot-1")
	created, err := w.cluster.CreateRecord(ctx, want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, created, sameRecord, ignoreServerFields); diff != "" {
		t.Errorf("created (-want +got):\n%s", diff)
	}
	read, err := w.cluster.Record(ctx, want.Name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(created, read, sameRecord); diff != "" {
		t.Errorf("read (-created +read):\n%s", diff)
	}
	if _, err := w.cluster.CreateRecord(ctx, want); !errors.Is(err, cleanup.ErrExists) {
		t.Errorf("claim it again: %v, want ErrExists", err)
	}
	if _, err := w.cluster.Record(ctx, "nobody"); !errors.Is(err, cleanup.ErrNotFound) {
		t.Errorf("read a record that is not: %v, want ErrNotFound", err)
	}

	update := read
	update.Phase, update.PodsDone, update.Steps = cleanup.Cleaned, 12, append(update.Steps, cleanup.StepStatus{Name: "fail"})
	updated, err := w.cluster.UpdateRecord(ctx, update)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(update, updated, sameRecord, ignoreServerFields); diff != "" {
		t.Errorf("updated (-want +got):\n%s", diff)
	}
	if g := w.generation(t, want.Name); g != 1 {
		t.Errorf("generation %d after a change of status, want 1: the spec was written again", g)
	}
	if _, err := w.cluster.UpdateRecord(ctx, update); !errors.Is(err, cleanup.ErrConflict) {
		t.Errorf("update from a stale version: %v, want ErrConflict", err)
	}

	// Whoever has it without its trace must not take the trace away; who, when and whence is written once.
	amend := updated
	amend.Title, amend.Fingerprint, amend.Trace, amend.Node = "null pointer dereference in foo", "000000000000", nil, "node-2"
	amended, err := w.cluster.UpdateRecord(ctx, amend)
	if err != nil {
		t.Fatal(err)
	}
	amend.Trace, amend.Node = want.Trace, want.Node
	if diff := cmp.Diff(amend, amended, sameRecord, ignoreServerFields); diff != "" {
		t.Errorf("amended (-want +got):\n%s", diff)
	}
	amend = amended
	amend.Trace = append(amend.Trace, "Call Trace:", " <TASK>")
	if amended, err = w.cluster.UpdateRecord(ctx, amend); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(amend, amended, sameRecord, ignoreServerFields); diff != "" {
		t.Errorf("with more trace (-want +got):\n%s", diff)
	}

	t.Run("released by a human", func(t *testing.T) {
		w.kubectl(t, "annotate", "kernelpanic", want.Name, "lastgasp.dev/release=true")
		if _, err := w.cluster.UpdateRecord(ctx, amended); !errors.Is(err, cleanup.ErrConflict) {
			t.Errorf("update over the human's word: %v, want ErrConflict", err)
		}
		if amended, err = w.cluster.Record(ctx, want.Name); err != nil || !amended.Released {
			t.Errorf("released: %v, %v", amended.Released, err)
		}
		if amended, err = w.cluster.UpdateRecord(ctx, amended); err != nil || !amended.Released {
			t.Errorf("released after an update: %v, %v", amended.Released, err)
		}
	})
	t.Run("history is not rewritten", func(t *testing.T) {
		for _, field := range []string{"node", "nodeUID", "instance", "boot", "source"} {
			_, err := w.lab.Kubectl(ctx, "patch", "kp", want.Name, "--type=merge", fmt.Sprintf(`--patch={"spec":{%q:"other"}}`, field))
			if err == nil || !strings.Contains(err.Error(), "is written once") {
				t.Errorf("change spec.%s: %v", field, err)
			}
		}
	})
	eventually(t, "the cache to follow", func() error {
		records, err := w.cluster.Records(ctx)
		if err != nil {
			return err
		}
		want := amended
		want.Trace = nil
		if diff := cmp.Diff([]cleanup.Record{want}, records, sameRecord); diff != "" {
			return fmt.Errorf("records (-want +got):\n%s", diff)
		}
		return nil
	})

	other := amended
	other.UID = "00000000-0000-0000-0000-000000000000"
	if err := w.cluster.DeleteRecord(ctx, other); !errors.Is(err, cleanup.ErrConflict) {
		t.Errorf("delete another uid: %v, want ErrConflict", err)
	}
	if err := w.cluster.DeleteRecord(ctx, amended); err != nil {
		t.Errorf("delete: %v", err)
	}
	if err := w.cluster.DeleteRecord(ctx, amended); !errors.Is(err, cleanup.ErrNotFound) {
		t.Errorf("delete again: %v, want ErrNotFound", err)
	}
	if _, err := w.cluster.UpdateRecord(ctx, amended); !errors.Is(err, cleanup.ErrNotFound) {
		t.Errorf("update a deleted record: %v, want ErrNotFound", err)
	}
}

// sameRecord compares times as instants, not as they are written.
var sameRecord = cmp.Options{
	cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

func (w *kubeWorld) checkRecordWithoutNode(t *testing.T) {
	want := cleanup.Record{
		Name: "refused-1", Source: netip.MustParseAddrPort("10.0.1.5:6665"), Time: time.Now(), Code: "KernelPanic", Title: "x",
		Phase: cleanup.Refused, Decision: "no node has address 10.0.1.5",
	}
	got, err := w.cluster.CreateRecord(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	if got.Phase != cleanup.Refused || got.Node != "" || got.Authority != detect.Text {
		t.Errorf("record: %+v", got)
	}
	if err := w.cluster.DeleteRecord(t.Context(), got); err != nil {
		t.Error(err)
	}
}

func (w *kubeWorld) checkTrace(t *testing.T) {
	line := strings.Repeat("ä", 500) + "\xff\x00"
	r := kubeRecord("long-trace")
	r.Trace = nil
	for range 5000 {
		r.Trace = append(r.Trace, line)
	}
	r.Trace[7] = strings.Repeat("x", 100_000)
	created, err := w.cluster.CreateRecord(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	for _, l := range created.Trace {
		size += len(l)
	}
	if size > 128<<10 || size < 120<<10 {
		t.Errorf("trace of %d bytes, want just below 128 KiB", size)
	}
	created.Trace = r.Trace
	if _, err := w.cluster.UpdateRecord(t.Context(), created); err != nil {
		t.Fatal(err)
	}
	if g := w.generation(t, r.Name); g != 1 {
		t.Errorf("generation %d: a trace that is there was written again", g)
	}
	long := make([]string, 0, 2049)
	for range 2049 {
		long = append(long, "a")
	}
	created, err = w.cluster.Record(t.Context(), r.Name)
	if err != nil {
		t.Fatal(err)
	}
	created.Trace = long
	if _, err := w.cluster.UpdateRecord(t.Context(), created); err != nil {
		t.Errorf("a trace of many short lines: %v", err)
	}
}

func (w *kubeWorld) checkKubectl(t *testing.T) {
	r := kubeRecord("ip-10-0-1-5-9f31")
	if _, err := w.cluster.CreateRecord(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(w.kubectl(t, "get", "kp", r.Name), "\n")
	if got, want := strings.Fields(lines[0]), []string{"NAME", "NODE", "REASON", "FINGERPRINT", "PODS", "PHASE", "AGE"}; !cmp.Equal(got, want) {
		t.Errorf("columns %v, want %v", got, want)
	}
	if want := []string{"ip-10-0-1-5-9f31", "node-1", "sysrq", "triggered", "crash", "9f31c2d07a64", "3/12", "Claimed"}; !cmp.Equal(strings.Fields(lines[1])[:8], want) {
		t.Errorf("row %q, want %v", lines[1], want)
	}
	t.Logf("kubectl get kp:\n%s", strings.Join(lines, "\n"))
	if got, want := w.kubectl(t, "get", "kp", r.Name, "-o", `jsonpath={range .spec.trace[*]}{@}{"\n"}{end}`), strings.Join(r.Trace, "\n")+"\n"; got != want {
		t.Errorf("trace %q, want %q", got, want)
	}
	for selector, want := range map[string]string{
		"spec.fingerprint=9f31c2d07a64,spec.node=node-1": "kernelpanic.lastgasp.dev/ip-10-0-1-5-9f31",
		"status.phase=Held": "",
	} {
		if got := w.kubectl(t, "get", "kp", "-o", "name", "--field-selector", selector); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("records with %s: %q, want %q", selector, got, want)
		}
	}
}

func (w *kubeWorld) generation(t *testing.T, record string) int {
	t.Helper()
	var g int
	if _, err := fmt.Sscan(w.kubectl(t, "get", "kp", record, "-o", "jsonpath={.metadata.generation}"), &g); err != nil {
		t.Fatal(err)
	}
	return g
}
