package cleanup

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// stored offers incidents to a Directory and returns its files after it has ended.
func stored(t *testing.T, path string, incidents ...detect.Incident) map[string]map[string]any {
	t.Helper()
	d := NewDirectory(path, nil)
	for _, inc := range incidents {
		if !d.Offer(inc) {
			t.Fatal("incident not taken")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it writes what was offered before it ends
	if err := d.Run(ctx); err != nil {
		t.Fatal(err)
	}
	files := map[string]map[string]any{}
	list, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		data, err := os.ReadFile(filepath.Join(path, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		var v map[string]any
		if err := json.Unmarshal(data, &v); err != nil {
			t.Fatalf("%s: %v", f.Name(), err)
		}
		files[f.Name()] = v
	}
	return files
}

func TestDirectory(t *testing.T) {
	inc := incident(1, boot1, secret1)
	inc.Time = noon
	whole := inc
	whole.Complete, whole.Title = true, "sysrq triggered crash in foo"
	whole.Trace = append([]string{"before"}, inc.Trace...)
	old := inc // another panic of a kernel without userdata, of another node
	old.Identity.Instance, old.Identity.Boot = "", ""
	old.Source = incident(2, "", "").Source
	again := old // and its next one, a minute later
	again.Time = noon.Add(time.Minute)
	sick := inc // another trouble of the first, at the same time
	sick.Verdict, sick.Cause, sick.Complete = detect.Sick, "TaskHung", true
	oops := old // a third machine's oops, which becomes a panic
	oops.Source, oops.Verdict, oops.Cause = incident(3, "", "").Source, detect.Oops, "KernelOops"
	panics := oops
	panics.Verdict, panics.Cause, panics.Complete, panics.Time = detect.Dying, "KernelPanic", true, noon.Add(time.Second)

	path := filepath.Join(t.TempDir(), "not/there/yet")
	files := stored(t, path, inc, old, sick, oops, whole, again, panics)
	want := map[string]any{
		"time": "2026-03-01T12:00:00Z", "source": "10.0.0.1:6665", "instance": "i-1", "boot": boot1, "verdict": "dying",
		"authority": "kernel", "code": "KernelPanic", "title": "sysrq triggered crash in foo", "fingerprint": "0123456789ab",
		"release": "6.12.0", "complete": true, "trace": []any{"before", whole.Trace[1], whole.Trace[2]},
	}
	name := "20260301T120000.000Z-" + policy.DeathName("i-1", boot1+"/KernelPanic") + ".json"
	if diff := cmp.Diff(want, files[name]); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
	if len(files) != 5 {
		t.Errorf("%d files, want 5: one for each incident", len(files))
	}
	data, _ := os.ReadFile(filepath.Join(path, name))
	if strings.Contains(string(data), string(secret1)) {
		t.Error("the secret is in the file")
	}
}

func TestDirectoryIsBounded(t *testing.T) {
	path := t.TempDir()
	for i := range directoryFiles {
		name := noon.Add(-time.Duration(i+1)*time.Minute).Format("20060102T150405.000Z") + "-x.json"
		if err := os.WriteFile(filepath.Join(path, name), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	oldest := noon.Add(-directoryFiles*time.Minute).Format("20060102T150405.000Z") + "-x.json"
	inc := incident(1, boot1, secret1)
	inc.Time = noon
	files := stored(t, path, inc)
	if _, ok := files[oldest]; ok || len(files) != directoryFiles {
		t.Errorf("%d files, the oldest there: %v; want %d without it", len(files), ok, directoryFiles)
	}
}

func TestDirectoryThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := NewDirectory(filepath.Join(file, "records"), nil).Run(t.Context())
	if want := fmt.Sprintf("create records directory: mkdir %s: not a directory", file); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
