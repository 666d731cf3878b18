package lab

import (
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestDeadProcessSaysWhy(t *testing.T) {
	log := filepath.Join(t.TempDir(), "etcd.log")
	p, err := startProcess("etcd", log, exec.Command("sh", "-c", "seq 100; echo listen tcp 127.0.0.1:2379: bind: address already in use >&2; exit 3"))
	if err != nil {
		t.Fatal(err)
	}
	<-p.done
	got := p.died().Error()
	for _, want := range []string{"etcd ended by itself: exit status 3", log, "\n100\n", "address already in use"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q does not say %q", got, want)
		}
	}
	if strings.Contains(got, "\n50\n") {
		t.Errorf("%q is longer than a reader wants", got)
	}
}

func TestKilledProcessIsGone(t *testing.T) {
	p, err := startProcess("sleep", filepath.Join(t.TempDir(), "log"), exec.Command("sleep", "600"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.died(); err != nil {
		t.Errorf("a living process: %v", err)
	}
	p.kill()
	p.kill() // harmless
	if err := p.cmd.Process.Signal(syscall.Signal(0)); err == nil {
		t.Error("a killed process can still be signalled")
	}
}
