package machine

import (
	"errors"
	"io/fs"
	"os"
	"testing"
)

func TestCrash(t *testing.T) {
	root := Root(t.TempDir())
	if err := root.Crash(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a kernel without sysrq: %v", err)
	}
	if err := os.MkdirAll(root.Path("proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root.Path("proc/sysrq-trigger"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := root.Crash(); err == nil {
		t.Error("it returned, and says that the kernel crashed")
	}
	if got, err := os.ReadFile(root.Path("proc/sysrq-trigger")); string(got) != "c" {
		t.Errorf("%q was written, %v; want c", got, err)
	}
}
