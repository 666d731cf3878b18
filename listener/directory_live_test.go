//go:build live

package listener

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLiveFullDisk fills the file system that the directory is on (root).
func TestLiveFullDisk(t *testing.T) {
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatalf("mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Errorf("unmount it: %v", err)
		}
	})
	path := filepath.Join(disk, "records")
	store(t, path, Keep{1000, time.Hour}, sickness(1), death(1))
	filler := filepath.Join(disk, "filler")
	fill := func() {
		f, err := os.Create(filler)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
	}
	var log bytes.Buffer
	d := NewDirectory(path, Keep{1000, time.Hour}, slog.New(slog.NewTextHandler(&log, nil)))
	d.now = func() time.Time { return epoch }
	if err := d.index.load(path); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // one attempt each
	has := func(n int, class string) bool {
		files, err := filepath.Glob(filepath.Join(path, "*_i-"+string(rune('0'+n))+"-*"+class))
		return err == nil && len(files) == 1
	}

	fill()
	d.write(ctx, fileName(death(2)), death(2))
	if !has(2, deathFile) || has(1, reportFile) || d.Ready() != nil {
		t.Errorf("the death is on record: %v, the report still: %v, ready: %v; want a report to make room", has(2, deathFile), has(1, reportFile), d.Ready())
	}

	fill()
	d.write(ctx, fileName(death(3)), death(3))
	if err := d.Ready(); err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("ready: %v, want it to say that the disk is full", err)
	}
	if !has(1, deathFile) || !has(2, deathFile) {
		t.Error("a death made room for another")
	}
	if !strings.Contains(log.String(), `\"instance\": \"i-3\"`) {
		t.Errorf("what could not be written is not in the log:\n%s", log.String())
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	d.write(ctx, fileName(death(3)), death(3))
	if !has(3, deathFile) || d.Ready() != nil {
		t.Errorf("the death is on record: %v, ready: %v, once there is room", has(3, deathFile), d.Ready())
	}
}
