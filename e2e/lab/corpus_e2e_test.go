//go:build e2e

package lab

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var update = flag.Bool("update", false, "capture the fixtures of listener/detect anew")

const fixtures = "../../listener/detect/testdata"

// TestCaptureCorpus checks that listener/detect has fixtures of every scenario on every kernel (of some of them on arm64):
//
//	captures/KERNEL-SCENARIO.ext.jsonl, .basic.jsonl   what netconsole sent in either format, unless it is mute
//	logs/KERNEL-SCENARIO.log                           what the serial console showed after the boot; of poweroff: all
//
// `make fixtures` captures them again; the machine should be otherwise idle.
func TestCaptureCorpus(t *testing.T) {
	// Scenarios in which arm64's kernels log something of their own. Debian's arm64 kernels do not count preemption, so they notice
	// neither sleeping while atomic nor an RCU stall of one CPU. If a CPU of the emulated machine has its interrupts off, 6.1
	// reports an RCU stall, 6.12 a hard lockup, and 7 nothing in two minutes.
	arm64 := pick(t, "sysrq", "sysrq-panic5", "init-exit", "panic-multiline", "burst", "null-deref", "null-deref-panic5", "err-ptr", "gpf",
		"bug", "stack-overflow", "oops-in-irq", "softlockup", "hung-task", "panic-on-warn", "panic-on-oom",
		"null-deref-survived", "gpf-survived", "softlockup-survived", "hung-task-survived", "warn", "oom")
	for _, k := range []struct {
		kernel    string
		scenarios []scenario
	}{
		{"6.1", allScenarios()}, {"6.12", allScenarios()}, {"7", allScenarios()},
		{"6.1-arm64", slices.Concat(arm64, pick(t, "irqs-off"))}, {"6.12-arm64", slices.Concat(arm64, pick(t, "hardlockup"))}, {"7-arm64", arm64},
	} {
		kernel := k.kernel
		for _, sc := range k.scenarios {
			sc, ok := sc.on(kernel)
			if !ok {
				continue
			}
			name := kernel + "-" + sc.name
			t.Run(name, func(t *testing.T) {
				files := corpusFiles{log: filepath.Join(fixtures, "logs", name+".log")}
				if !sc.mute(kernel) {
					files.basic = filepath.Join(fixtures, "captures", name+".basic.jsonl")
					files.extended = filepath.Join(fixtures, "captures", name+".ext.jsonl")
				}
				if *update {
					files.capture(t, kernel, sc)
				}
				files.check(t)
			})
		}
	}
}

// corpusFiles are the paths of a fixture. Without basic and extended it is mute.
type corpusFiles struct {
	basic, extended, log string
}

func (f corpusFiles) capture(t *testing.T, kernel string, sc scenario) {
	t.Helper()
	g := captureScenario(t, kernel, sc)
	g.vm.Kill() // nothing more is to come
	for path, c := range map[string]*Capture{f.basic: g.basic, f.extended: g.extended} {
		if path == "" {
			continue
		}
		if err := WriteCapture(path, c.Datagrams()); err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.ReadFile(g.vm.Serial())
	if err != nil {
		t.Fatal(err)
	}
	log = bytes.ReplaceAll(log, []byte("\r\n"), []byte("\n"))
	ready := []byte("lab: serve: READY\n")
	boot, after, found := bytes.Cut(log, ready)
	if !found {
		t.Fatal("the serial log does not say when the guest was ready")
	}
	if sc.name == "poweroff" { // the one log of a whole boot that ends well
		after = slices.Concat(boot, after)
	}
	if err := os.WriteFile(f.log, after, 0o644); err != nil {
		t.Fatal(err)
	}
}

// check fails for a fixture that is missing, or too long to be read.
func (f corpusFiles) check(t *testing.T) {
	t.Helper()
	for _, path := range []string{f.basic, f.extended, f.log} {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if info.Size() == 0 || info.Size() > 60<<10 {
			t.Errorf("%s has %d bytes", path, info.Size())
		}
	}
}
