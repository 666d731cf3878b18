//go:build live

package configurator

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A /var that is read-only or full is a warning: the node is armed and proved, in this boot and at every later pass.
func TestLiveVarThatKeepsNothing(t *testing.T) {
	for _, tt := range []struct {
		name string
		fill bool
		then uintptr // flags of a remount
		want error
	}{
		{"read-only", false, unix.MS_RDONLY, unix.EROFS},
		{"full", true, 0, unix.ENOSPC},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			dir := w.root.Path("var")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
				t.Fatalf("mount: %v; run it as root", err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
					t.Error(err)
				}
			})
			if err := os.MkdirAll(filepath.Join(dir, "lib/lastgasp"), 0o755); err != nil {
				t.Fatal(err)
			}
			if tt.fill {
				if err := os.WriteFile(filepath.Join(dir, "log"), make([]byte, 1<<20), 0o644); !errors.Is(err, unix.ENOSPC) {
					t.Fatalf("fill: %v, want %v", err, unix.ENOSPC)
				}
			}
			if tt.then != 0 {
				if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT|tt.then, "size=64k"); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(dir, "probe"), make([]byte, 8192), 0o644); !errors.Is(err, tt.want) {
				t.Fatalf("the disk is not as it should be: %v, want %v", err, tt.want)
			}

			var log bytes.Buffer
			node := w.node(listenerA)
			node.Log = slog.New(slog.NewTextHandler(&log, nil))
			node.Textfile = w.root.Path("var/lib/lastgasp")
			for pass := range 2 {
				if _, err := node.Apply(t.Context()); err != nil {
					t.Errorf("pass %d: %v", pass, err)
				}
				if status, err := node.Status(nil); err != nil || status.Verdict != Covered {
					t.Errorf("pass %d: verdict %s, %v", pass, status.Verdict, err)
				}
			}
			for _, want := range []string{"would not find these", "metrics are not written", tt.want.Error()} {
				if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), want) {
					t.Errorf("the log does not say %q:\n%s", want, log.String())
				}
			}
		})
	}
}
