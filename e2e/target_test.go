//go:build e2e

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

// TestTargetOnEveryKernel runs the live tests of configurator/configfs in guests with each kernel whose netconsole differs. The
// tests load netconsole themselves; the lab does not.
func TestTargetOnEveryKernel(t *testing.T) {
	program := filepath.Join(t.TempDir(), "target.test")
	build := exec.Command("go", "test", "-c", "-tags=live", "-o", program, "../configurator/configfs")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the live tests: %v\n%s", err, out)
	}
	for _, name := range []string{"6.1", "6.12", "7"} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			kernel, err := lab.FetchKernel(ctx, t, name)
			if err != nil {
				t.Fatal(err)
			}
			network, err := lab.NewNet(t)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string]lab.GuestFile{"bin/target.test": {Host: program}}
			env := []string{"LAB_GUEST=" + kernel.Release}
			vm, err := lab.BootVM(ctx, t, lab.VMSpec{
				Kernel: kernel, Net: network, Name: "target", Files: files, Modules: []string{"llc", "stp", "bridge", "veth"},
			})
			if err != nil {
				t.Fatal(err)
			}
			r, err := vm.RunProgram(ctx, lab.Program{
				Argv: []string{"/bin/target.test", "-test.v", "-test.run=^TestLive"},
				Env:  env,
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("in the guest:\n%s%s", r.Stdout, r.Stderr)
			if r.Exit != 0 {
				t.Errorf("the live tests end with exit code %d", r.Exit)
			}
			for line := range strings.Lines(r.Stdout) {
				if strings.HasPrefix(line, "--- SKIP") {
					t.Errorf("nothing else may be skipped here: %s", line)
				}
			}
		})
	}
}
