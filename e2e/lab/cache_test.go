package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestCached(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("LAB_CACHE", cache)
	builds := 0
	build := func(dir string) error {
		builds++
		return os.WriteFile(filepath.Join(dir, "thing"), []byte("built"), 0o644)
	}
	broken := errors.New("no network")

	if _, err := Cached(t.Context(), "a/b", func(dir string) error { return errors.Join(build(dir), broken) }); !errors.Is(err, broken) {
		t.Fatalf("a failed build returned %v, want %v", err, broken)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "a/b*")); len(left) != 1 { // the lock
		t.Errorf("a failed build left %q", left)
	}
	for range 2 {
		dir, err := Cached(t.Context(), "a/b", build)
		if err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(filepath.Join(dir, "thing")); err != nil || string(data) != "built" {
			t.Errorf("read %q, %v", data, err)
		}
	}
	if builds != 2 {
		t.Errorf("built %d times, want once broken and once for good", builds)
	}
}

func TestCachedStartsOverAfterAKill(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("LAB_CACHE", cache)
	if err := os.MkdirAll(filepath.Join(cache, "key.partial/half"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := Cached(t.Context(), "key", func(dir string) error {
		if found, _ := os.ReadDir(dir); len(found) != 0 {
			t.Errorf("the folder to fill holds %v", found)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCacheLockIsExclusive(t *testing.T) {
	t.Setenv("LAB_CACHE", t.TempDir())
	unlock, err := lockCache(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lockCache(ended, "key"); !errors.Is(err, context.Canceled) {
		t.Errorf("a second lock returned %v, want %v", err, context.Canceled)
	}
	unlock()
	unlock, err = lockCache(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}
