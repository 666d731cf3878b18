package listener

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const secret1 = netconsole.Secret("secret of node 1")

// death is that of the nth node, as it is first heard.
func death(n int) detect.Incident {
	return detect.Incident{
		Source: netip.AddrPortFrom(node(n).Addr(), 6665), Time: epoch, Verdict: detect.Dying, Authority: detect.Kernel,
		Identity: netconsole.Identity{Instance: fmt.Sprintf("i-%d", n), Boot: "7f3c", Secret: secret1},
		Cause:    "KernelPanic", Title: "sysrq triggered crash", Fingerprint: "0123456789ab", Release: "6.12.0",
		Trace: []string{"Kernel panic - not syncing: sysrq triggered crash", "CPU: 1 UID: 0 PID: 1 Comm: init"},
	}
}

// sickness is a report of the nth node, which lives.
func sickness(n int) detect.Incident {
	inc := death(n)
	inc.Verdict, inc.Cause, inc.Complete = detect.Sick, "TaskHung", true
	return inc
}

// store writes incidents into a directory that keeps so much, one after the other, and returns its files.
func store(t *testing.T, path string, keep Keep, incidents ...detect.Incident) map[string]map[string]any {
	t.Helper()
	d := NewDirectory(path, keep, nil)
	d.now = func() time.Time { return epoch }
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it writes what was offered before it ends
	for len(incidents) > 0 {
		for len(incidents) > 0 && d.Offer(incidents[0]) {
			incidents = incidents[1:]
		}
		if err := d.Run(ctx); err != nil {
			t.Fatal(err)
		}
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

// about are the files about a node's death.
func about(files map[string]map[string]any, n int) (names []string) {
	for name, v := range files {
		if v["instance"] == fmt.Sprintf("i-%d", n) && v["verdict"] == "dying" {
			names = append(names, name)
		}
	}
	return names
}

// The alert on a death asks for its time. It is known after a restart, too, and reports are no deaths.
func TestDirectoryLastDeath(t *testing.T) {
	path := t.TempDir()
	last := func() string {
		t.Helper()
		d := NewDirectory(path, Keep{1000, time.Hour}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := d.Run(ctx); err != nil {
			t.Fatal(err)
		}
		registry := prometheus.NewRegistry()
		registry.MustRegister(d)
		_, value, _ := strings.Cut(exposition(registry), "# TYPE lastgasp_last_death_timestamp_seconds gauge\n")
		return value
	}
	if got, want := last(), "lastgasp_last_death_timestamp_seconds 0\n"; got != want {
		t.Errorf("nobody has died: %q, want %q", got, want)
	}
	later, found := death(2), sickness(1)
	later.Time, found.Time = epoch.Add(time.Minute), epoch.Add(time.Hour)
	store(t, path, Keep{1000, 2 * time.Hour}, later, death(1), found)
	if got, want := last(), fmt.Sprintf("lastgasp_last_death_timestamp_seconds %v\n", float64(later.Time.Unix())); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestDirectory(t *testing.T) {
	inc := death(1)
	whole := inc
	whole.Complete, whole.Title = true, "sysrq triggered crash in foo"
	whole.Trace = append([]string{"before"}, inc.Trace...)
	forged := inc // from the node's address, without its secret
	forged.Identity.Secret = ""
	old := death(2) // another panic of a kernel without userdata, of another node
	old.Identity = netconsole.Identity{}
	again := old // and its next one, a minute later
	again.Time = epoch.Add(time.Minute)
	oops := old // a third machine's oops, which becomes a panic
	oops.Source, oops.Verdict, oops.Cause = node(3), detect.Oops, "KernelOops"
	panics := oops
	panics.Verdict, panics.Cause, panics.Complete, panics.Time = detect.Dying, "KernelPanic", true, epoch.Add(time.Second)

	path := filepath.Join(t.TempDir(), "not/there/yet")
	files := store(t, path, Keep{1000, time.Hour}, inc, old, sickness(1), oops, whole, forged, again, panics)
	want := map[string]any{
		"time": "2026-11-21T03:00:00Z", "source": "10.0.0.1:6665", "instance": "i-1", "boot": "7f3c", "verdict": "dying",
		"authority": "kernel", "code": "KernelPanic", "title": "sysrq triggered crash in foo", "fingerprint": "0123456789ab",
		"release": "6.12.0", "complete": true, "trace": []any{"before", whole.Trace[1], whole.Trace[2]},
	}
	name := fileName(inc)
	if diff := cmp.Diff(want, files[name]); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
	if !strings.HasPrefix(name, "20261121T030000.000Z_10-0-0-1_i-1-") || !strings.HasSuffix(name, ".death.json") {
		t.Errorf("the file of a death is called %s", name)
	}
	if len(files) != 6 {
		t.Errorf("%d files, want 6: one for each incident", len(files))
	}
	for name := range files {
		if data, _ := os.ReadFile(filepath.Join(path, name)); strings.Contains(string(data), string(secret1)) {
			t.Errorf("the secret is in %s", name)
		}
	}
}

// What is kept is bounded, and who sends much pays for it himself.
func TestDirectoryIsBounded(t *testing.T) {
	const keep = 10
	var flood, forgeries, sick, lives []detect.Incident
	for i := range 5 * keep {
		inc := death(99)
		inc.Time = epoch.Add(time.Duration(i) * time.Millisecond)
		inc.Identity.Boot = fmt.Sprint(i)
		flood = append(flood, inc)
		inc.Source = netip.AddrPortFrom(inc.Source.Addr(), uint16(10000+i))
		forgeries = append(forgeries, inc)
		report := sickness(100 + i)
		report.Time = inc.Time
		sick = append(sick, report)
		old := death(100 + i)
		old.Time = epoch.Add(time.Duration(i) * time.Millisecond)
		lives = append(lives, old)
	}
	for _, tt := range []struct {
		name  string
		keep  Keep
		after []detect.Incident
		there bool
		most  int // files in all
	}{
		{"nothing else", Keep{keep, time.Hour}, nil, true, 1},
		{"deaths made up by another address", Keep{keep, time.Hour}, flood, true, keep},
		{"deaths made up by ports of another address", Keep{keep, time.Hour}, forgeries, true, keep},
		{"reports of many", Keep{keep, time.Hour}, sick, true, 1 + keep},
		{"as many deaths of other nodes", Keep{keep, time.Hour}, lives, false, keep},
		{"deaths within the time", Keep{1000, time.Hour}, lives, true, 1 + len(lives)},
		{"deaths, and its time is over", Keep{1000, time.Second}, lives, false, len(lives)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first := death(1)
			first.Time = epoch.Add(-time.Minute)
			files := store(t, t.TempDir(), tt.keep, append([]detect.Incident{first}, tt.after...)...)
			if there := len(about(files, 1)) > 0; there != tt.there || len(files) != tt.most {
				t.Errorf("the death is on record: %v, in %d files; want %v and %d", there, len(files), tt.there, tt.most)
			}
		})
	}
}

func TestDirectoryLeavesOtherFilesAlone(t *testing.T) {
	path := t.TempDir()
	for _, name := range []string{"notes.json", "20200101T000000.000Z-x.json", "a_b_c.txt"} {
		if err := os.WriteFile(filepath.Join(path, name), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if files := store(t, path, Keep{1, time.Second}, death(1), death(2), death(3)); len(files) != 4 {
		t.Errorf("%d files, want three that are not ours and a death", len(files))
	}
}

// A crash during a write leaves a file whose name is written once only.
func TestDirectoryRemovesWhatACrashLeft(t *testing.T) {
	path := t.TempDir()
	left := filepath.Join(path, "20260101T000000.000Z_10-0-0-1_i-1-0123456789ab"+deathFile+".new")
	if err := os.WriteFile(left, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if files := store(t, path, Keep{1, time.Second}, death(1)); len(files) != 1 {
		t.Errorf("files %q, want the death", files)
	}
}

// What makes room on a full disk: reports, and then deaths of an address that has several.
func TestLeastMissed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files []detect.Incident
		want  int // index in files, -1: nothing
	}{
		{"nothing of an empty directory", nil, -1},
		{"a report before a death", []detect.Incident{death(1), sickness(2)}, 1},
		{"no death of which there is one for the address", []detect.Incident{death(1), death(2)}, -1},
		{"a death of which there are two for the address", []detect.Incident{death(1), death(2), func() detect.Incident {
			inc := death(2)
			inc.Time = epoch.Add(time.Minute)
			return inc
		}()}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var x index
			for _, inc := range tt.files {
				x.add(fileName(inc))
			}
			name, ok := x.leastMissed(fileName(death(9)))
			if ok != (tt.want >= 0) || ok && name != fileName(tt.files[tt.want]) {
				t.Errorf("%q %v goes, want number %d", name, ok, tt.want)
			}
		})
	}
}

func TestDirectoryThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := NewDirectory(filepath.Join(file, "records"), Keep{1, time.Hour}, nil).Run(t.Context())
	if want := fmt.Sprintf("create records directory: mkdir %s: not a directory", file); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestReadyWhereRecordsCanBeWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	d := NewDirectory(path, Keep{Records: 1, For: time.Hour}, nil)
	if err := d.Ready(); err == nil {
		t.Error("ready, and there is no directory")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if err := d.Ready(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(path); err != nil || len(left) > 0 {
		t.Errorf("asking has left %v, %v", left, err)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := d.Ready(); err == nil || !strings.HasPrefix(err.Error(), "create record: open "+path+"/.new-") {
		t.Errorf("the directory is gone: %v", err)
	}
}
