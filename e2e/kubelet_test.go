//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/e2e/lab"
)

// kubeletNode is a root file system with a kubelet's files, and the kernel settings that a kubelet sets or requires. A real kubelet
// sees these in place of this machine's.
type kubeletNode struct {
	root    machine.Root
	program string
}

// kubeletTunables are what setupKernelTunables requires (pkg/kubelet/cm/container_manager_linux.go), and kernel.panic as a kernel has
// it that nobody has touched.
var kubeletTunables = map[string]string{
	"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "0", "kernel/panic_on_oops": "1",
	"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
}

// kubeletConfig is a kubelet that does nothing to this machine.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
enableServer: false
healthzPort: 0
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
failSwapOn: false
failCgroupV1: false
cgroupsPerQOS: false
enforceNodeAllocatable: [none]
localStorageCapacityIsolation: false
makeIPTablesUtilChains: false
resolvConf: ""
podLogsDir: /var/lib/logs
volumePluginDir: /var/lib/plugins
`

// newKubeletNode makes one. Files are in addition to /etc/kubernetes/kubelet.yaml and a unit that names it and the environment file
// /etc/kubelet-extra.
func newKubeletNode(t *testing.T, program string, files map[string]string) *kubeletNode {
	t.Helper()
	n := &kubeletNode{root: machine.Root(t.TempDir()), program: program}
	n.write(t, "etc/kubernetes/kubelet.yaml", kubeletConfig)
	n.write(t, "usr/lib/systemd/system/kubelet.service",
		"[Service]\nEnvironmentFile=-/etc/kubelet-extra\nExecStart=/usr/bin/kubelet --config=/etc/kubernetes/kubelet.yaml $KUBELET_EXTRA_ARGS\n")
	for name, text := range files {
		n.write(t, name, text)
	}
	for name, value := range kubeletTunables {
		n.write(t, "proc/sys/"+name, value)
	}
	return n
}

func (n *kubeletNode) write(t *testing.T, name, text string) {
	t.Helper()
	file := n.root.Path(name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (n *kubeletNode) panic(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(n.root.Path("proc/sys/kernel/panic"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// Lines of the kubelet's log, the first that says how its container manager has started.
const (
	kubeletRefuses = "invalid kernel flag: kernel/panic, expected value: 10, actual value: "
	kubeletWorks   = "Eviction manager: starting control loop"
)

// start runs the kubelet with the unit's flags until its container manager has started, and reports whether it has. What it sets
// is left as it is.
func (n *kubeletNode) start(t *testing.T, extra ...string) bool {
	t.Helper()
	script := "set -e; root=$1; shift; mount -t tmpfs tmpfs /var/lib\n"
	for name := range kubeletTunables {
		script += "mount --bind $root/proc/sys/" + name + " /proc/sys/" + name + "\n"
	}
	script += `exec "$@"`
	args := append([]string{"--mount", "sh", "-c", script, "sh", string(n.root), n.program,
		"--config=" + n.root.Path("etc/kubernetes/kubelet.yaml"), "--hostname-override=node", "--v=2"}, extra...)
	cmd := exec.CommandContext(t.Context(), "unshare", args...)
	var log lockedBuffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	works := false
	eventually(t, "the kubelet's container manager", func() error {
		select {
		case <-ended:
			ended <- nil
			if !strings.Contains(log.String(), kubeletRefuses) {
				t.Fatalf("the kubelet has ended; the end of its log:\n%s", log.last())
			}
			return nil
		default:
		}
		if works = strings.Contains(log.String(), kubeletWorks); !works {
			return errors.New("it has not started; the end of the log:\n" + log.last())
		}
		return nil
	})
	if works {
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	<-ended
	return works
}

// hold does what panic.hold does in a pass on a kernel 7.
func (n *kubeletNode) hold(t *testing.T) {
	t.Helper()
	var facts machine.Facts
	facts.Kernel = "7.3.4"
	if _, err := n.root.ApplySettings(machine.PanicSettings(machine.Panic{Hold: true}, facts, n.root.Kubelet())); err != nil {
		t.Fatal(err)
	}
}

// lockedBuffer is written by a process and read meanwhile.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// last returns the end of the log.
func (b *lockedBuffer) last() string {
	text := b.String()
	return text[max(0, len(text)-3000):]
}

// TestPanicHoldBesideAKubelet runs a real kubelet on a kernel.panic that panic.hold or panic.timeout has set before its first start,
// for each way of setting protectKernelDefaults. Whatever is configured, it must come up; and where it does not care, we must hold.
func TestPanicHoldBesideAKubelet(t *testing.T) {
	program, err := lab.BuildKubelet(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	const dropin = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nprotectKernelDefaults: true\n"
	for _, tt := range []struct {
		name     string
		files    map[string]string
		extra    []string // as the files say
		protects bool
	}{
		{name: "nothing"},
		{name: "its configuration", files: map[string]string{"etc/kubernetes/kubelet.yaml": kubeletConfig + "protectKernelDefaults: true\n"}, protects: true},
		{name: "its configuration, in other words", files: map[string]string{"etc/kubernetes/kubelet.yaml": kubeletConfig + "\"protectKernelDefaults\" :\n  yes\n"}, protects: true},
		{name: "a drop-in of its configuration", files: map[string]string{
			"etc/kubelet-extra": "KUBELET_EXTRA_ARGS=--config-dir=/etc/kubelet.d\n", "etc/kubelet.d/10-hard.conf": dropin,
		}, extra: []string{"--config-dir=ROOT/etc/kubelet.d"}, protects: true},
		{name: "a file beside the drop-ins that is none", files: map[string]string{
			"etc/kubelet-extra": "KUBELET_EXTRA_ARGS=--config-dir=/etc/kubelet.d\n", "etc/kubelet.d/10-hard.conf.bak": dropin,
		}, extra: []string{"--config-dir=ROOT/etc/kubelet.d"}},
		{name: "a flag", files: map[string]string{"etc/kubelet-extra": "KUBELET_EXTRA_ARGS=--protect-kernel-defaults\n"},
			extra: []string{"--protect-kernel-defaults"}, protects: true},
		{name: "a flag with a value", files: map[string]string{"etc/kubelet-extra": "KUBELET_EXTRA_ARGS=--protect-kernel-defaults=T\n"},
			extra: []string{"--protect-kernel-defaults=T"}, protects: true},
		{name: "a flag that is off", files: map[string]string{"etc/kubelet-extra": "KUBELET_EXTRA_ARGS=--protect-kernel-defaults=0\n"},
			extra: []string{"--protect-kernel-defaults=0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newKubeletNode(t, program, tt.files)
			var extra []string
			for _, arg := range tt.extra {
				extra = append(extra, strings.ReplaceAll(arg, "ROOT", string(n.root)))
			}
			if refuses := !n.start(t, extra...); refuses != tt.protects {
				t.Fatalf("with kernel.panic=0 the kubelet refuses to start: %t, want %t", refuses, tt.protects)
			}
			n.write(t, "proc/sys/kernel/panic", "10") // as distributions with such a kubelet have it
			n.hold(t)
			if !n.start(t, extra...) {
				t.Fatal("the kubelet does not start beside panic.hold")
			}
			n.hold(t) // as the watch does within seconds
			if want := map[bool]string{true: "10", false: "0"}[tt.protects]; n.panic(t) != want {
				t.Errorf("kernel.panic is %s, want %s", n.panic(t), want)
			}
		})
	}
	t.Run("its configuration is hardened later", func(t *testing.T) {
		n := newKubeletNode(t, program, nil)
		n.hold(t)
		if !n.start(t) {
			t.Fatal("the kubelet does not start")
		}
		n.hold(t)
		n.write(t, "etc/kubernetes/kubelet.yaml", kubeletConfig+"protectKernelDefaults: true\n")
		if n.panic(t) != "0" || n.start(t) {
			t.Fatalf("kernel.panic is %s, and the kubelet starts with it", n.panic(t))
		}
		n.hold(t) // the watch reads that file once a minute
		if !n.start(t) {
			t.Errorf("kernel.panic is %s, and the kubelet does not start with it", n.panic(t))
		}
	})
}
