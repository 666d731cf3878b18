//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

// guest is a microVM with our configurator.
type guest struct {
	vm     *lab.VM
	net    *lab.Net
	kernel *lab.Kernel
}

// newGuest boots it with spec, whose empty fields it fills in.
func newGuest(t *testing.T, kernel string, spec lab.VMSpec) *guest {
	t.Helper()
	k, err := lab.FetchKernel(t.Context(), t, kernel)
	if err != nil {
		t.Fatal(err)
	}
	n, err := lab.NewNet(t)
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "lastgasp-configurator")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin,
		"github.com/lastgasp/lastgasp/cmd/lastgasp-configurator")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+k.Arch)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	spec.Kernel, spec.Net = k, n
	if spec.Files == nil {
		spec.Files = make(map[string]lab.GuestFile)
	}
	maps.Copy(spec.Files, map[string]lab.GuestFile{
		"/usr/bin/lastgasp-configurator":  {Host: bin, Mode: 0o755},
		"/etc/lastgasp/configurator.yaml": {Data: []byte("# nothing yet\n")},
		// What the test writes later needs a folder to be there.
		"/etc/lastgasp/configurator.d/00-empty.yaml": {Data: []byte("# nothing\n")},
	})
	vm, err := lab.BootVM(t.Context(), t, spec)
	if err != nil {
		t.Fatal(err)
	}
	return &guest{vm: vm, net: n, kernel: k}
}

// unresolved is the exit code of a configurator whose next hop did not answer within a second, or whose listeners are not named
// anywhere: what asks to be tried again.
const unresolved = 3

// run runs the configurator, which must end with an exit code. If that is 0, canaries have all the time that a guest needs on a busy
// machine; where a listener must not answer, the configuration's timeout says how long to wait for it. A next hop that must answer has
// another second, a few times.
func (g *guest) run(t *testing.T, exit int, args ...string) lab.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*busy)
	defer cancel()
	program := lab.Program{Argv: append([]string{"/usr/bin/lastgasp-configurator"}, args...)}
	if exit == 0 {
		program.Env = []string{"LASTGASP_CANARY_TIMEOUT=20s"}
	}
	r, err := g.vm.RunProgram(ctx, program)
	for range 10 {
		if exit != unresolved && err == nil && r.Exit == unresolved {
			t.Logf("%q is tried again: %s", args, r.Stderr)
			r, err = g.vm.RunProgram(ctx, program)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if r.Exit != exit {
		t.Fatalf("%q ended with %d instead of %d:\n%s%s", args, r.Exit, exit, r.Stdout, r.Stderr)
	}
	return r
}

// runSaying is run until standard error has a text that depends on an answer which a busy machine may give too late, a few times.
func (g *guest) runSaying(t *testing.T, exit int, says string, args ...string) {
	t.Helper()
	var r lab.Result
	for range 5 {
		if r = g.run(t, exit, args...); strings.Contains(r.Stderr, says) {
			return
		}
	}
	t.Errorf("%q does not say %q, but: %s", args, says, r.Stderr)
}

func (g *guest) write(t *testing.T, name, text string) {
	t.Helper()
	if err := g.vm.WriteFile(t.Context(), name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (g *guest) read(t *testing.T, name string) string {
	t.Helper()
	data, err := g.vm.ReadFile(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// guestStatus is the part of `status -o json` that tests read.
type guestStatus struct {
	Verdict string
	Targets []struct {
		Name, Device, RemoteMAC string
		Enabled                 bool
	}
	ChangedSettings []struct{ File, Was, Set string }
}

func (g *guest) status(t *testing.T) guestStatus {
	t.Helper()
	r, err := g.vm.Run(t.Context(), "/usr/bin/lastgasp-configurator", "status", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var s guestStatus
	if err := json.Unmarshal([]byte(r.Stdout), &s); err != nil {
		t.Fatalf("%v in %s%s", err, r.Stdout, r.Stderr)
	}
	return s
}

// targets returns the names of our enabled targets, according to status.
func (g *guest) targets(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, ts := range g.status(t).Targets {
		if ts.Enabled {
			names = append(names, ts.Name)
		}
	}
	return names
}

// startWatch starts `watch`. Defer the function it returns: after a failure it shows watch's log.
func (g *guest) startWatch(t *testing.T) (explain func()) {
	t.Helper()
	if err := g.vm.Start(t.Context(), "/usr/bin/lastgasp-configurator", "watch"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if t.Failed() {
			t.Logf("watch said:\n%s", g.read(t, lab.LogPath("lastgasp-configurator")))
		}
	}
}

func (g *guest) wantTargets(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, g.targets(t)); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
}

// awaitTargets waits until exactly the targets named are armed.
func (g *guest) awaitTargets(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, "targets", func() error {
		if got := g.targets(t); !slices.Equal(got, want) {
			return fmt.Errorf("targets are %v, want %v", got, want)
		}
		return nil
	})
}

// hideModule removes netconsole's module until restore is called.
func (g *guest) hideModule(t *testing.T) (restore func()) {
	t.Helper()
	index := "/lib/modules/" + g.kernel.Release + "/modules.dep"
	dep := g.read(t, index)
	var rest []string
	for _, line := range strings.Split(dep, "\n") {
		if !strings.Contains(strings.SplitN(line, ":", 2)[0], "netconsole") {
			rest = append(rest, line)
		}
	}
	if len(rest) == len(strings.Split(dep, "\n")) {
		t.Fatalf("no netconsole in %s:\n%s", index, dep)
	}
	g.write(t, index, strings.Join(rest, "\n")+"\n")
	return func() { g.write(t, index, dep+"\n") }
}
