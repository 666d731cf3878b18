package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestWrite(t *testing.T) {
	name := filepath.Join(t.TempDir(), "sub", "file")
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	check := func(want string, mode os.FileMode) {
		t.Helper()
		data, err := os.ReadFile(name)
		info, statErr := os.Stat(name)
		if err != nil || statErr != nil || string(data) != want || info.Mode() != mode {
			t.Errorf("%q, mode %v, %v, %v; want %q, mode %v", data, info.Mode(), err, statErr, want, mode)
		}
		if left, _ := filepath.Glob(name + "?*"); len(left) > 0 {
			t.Errorf("left behind: %s", strings.Join(left, " "))
		}
	}
	if err := Write(name, []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	check("one", 0o644)
	if err := os.WriteFile(name+".new", []byte("left by a crash, and longer"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := Write(name, []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("two", 0o600)
}

// What cannot be written leaves the old content, and nothing beside it.
func TestWriteFails(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.MkdirAll(filepath.Join(name, "full"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Write(name, []byte("one"), 0o644); err == nil {
		t.Error("a directory was replaced by a file")
	}
	if left, _ := filepath.Glob(name + "?*"); len(left) > 0 {
		t.Errorf("left behind: %s", strings.Join(left, " "))
	}
}

// A crash while a name was written that is not written again leaves nothing for ever, and files of others are left alone.
func TestClean(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.incident", "b.incident.new", "c.incident.new", "d.json.new", "notes.new", ".new"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Clean(dir, ".incident", ".txt"); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if want := strings.Split("a.incident d.json.new notes.new .new", " "); err != nil || len(left) != len(want) {
		t.Errorf("left: %q, %v; want %q", left, err, want)
	}
	if err := Clean(filepath.Join(dir, "none"), ".incident"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
}
