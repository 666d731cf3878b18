//go:build e2e

// Package e2e tests lastgasp as a whole, on real kernels and a real control plane.
package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/story"
)

// TestPanic makes real kernels die in every way that we promise to handle, and expects the whole story each time.
func TestPanic(t *testing.T) {
	w, err := story.NewWorld(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		kernel    string
		crash     lab.Crash
		panic     int
		authority string
		reason    string
	}{
		{"6.12", lab.CrashSysrq, 0, "pinned", "sysrq triggered crash"},
		{"6.12", lab.CrashSysrq, 5, "pinned", "sysrq triggered crash"},
		{"6.12", lab.CrashNullDeref, 0, "pinned", "NULL pointer dereference"},
		{"6.12", lab.CrashNullDeref, 5, "pinned", "NULL pointer dereference"},
		// 6.1 has no userdata: only the address identifies it, and the witness must agree.
		{"6.1", lab.CrashSysrq, 0, "kernel", "sysrq triggered crash"},
		{"6.1", lab.CrashSysrq, 5, "kernel", "sysrq triggered crash"},
		{"6.1", lab.CrashNullDeref, 0, "kernel", "NULL pointer dereference"},
		{"6.1", lab.CrashNullDeref, 5, "kernel", "NULL pointer dereference"},
		{"7", lab.CrashSysrq, 0, "pinned", "sysrq triggered crash"},
		{"7", lab.CrashNullDeref, 0, "pinned", "NULL pointer dereference"},
		{"6.12-arm64", lab.CrashSysrq, 0, "pinned", "sysrq triggered crash"},
	} {
		t.Run(fmt.Sprintf("%s %s panic=%d", c.kernel, c.crash, c.panic), func(t *testing.T) {
			n, victims := populated(t, w, c.kernel, c.crash, story.NodeSpec{Name: fmt.Sprintf("node-%d", i), Panic: c.panic})
			await := w.AwaitLease
			if c.authority == "pinned" {
				await = w.AwaitPin
			}
			if err := await(t.Context(), n); err != nil {
				t.Fatal(err)
			}
			d, err := w.Kill(t.Context(), n, c.crash, victims, 2*busy)
			if err != nil {
				w.Explain(t)
				t.Fatal(err)
			}
			if err := d.Check(); err != nil {
				t.Error(err)
			}
			spec := d.NodeDeath.Spec
			if spec.Authority != c.authority || spec.Boot != n.BootID || !strings.Contains(spec.Reason, c.reason) {
				t.Errorf("recorded authority %s, boot %s, reason %q; want %s, %s, %q",
					spec.Authority, spec.Boot, spec.Reason, c.authority, n.BootID, c.reason)
			}
			if c.authority == "pinned" && spec.Release != n.Kernel.Release { // 6.1 does not send it with each record
				t.Errorf("recorded release %q, want %q", spec.Release, n.Kernel.Release)
			}
			t.Logf("fenced after %v, pods failed after %v, replaced after %v",
				d.Fenced.Sub(d.Heard), d.PodsFailed.Sub(d.Heard), d.Replaced.Sub(d.Heard))
		})
	}
	t.Run("7 panic=5 is heard with our module", func(t *testing.T) { unmuted(t, w) })
	t.Run("7 panic=5 is mute and says so", func(t *testing.T) { mute(t, w) })
}

// mute shows that no death is heard of kernels since 7.0 that reboot after a panic, so nothing may be promised. Process 1 ends
// there: what sysrq says before its panic is sent while the kernel lives, if the thread that prints gets a CPU in time.
func mute(t *testing.T, w *story.World) {
	n, victims := populated(t, w, "7", lab.CrashInitExit, story.NodeSpec{Name: "node-mute", Panic: 5})
	status, err := n.VM.Run(t.Context(), "/usr/bin/lastgasp-configurator", "status")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(status.Stdout, "kernel.panic") || !strings.Contains(strings.ToLower(status.Stdout), "mute") {
		t.Errorf("status did not warn that the node is mute:\n%s", status.Stdout)
	}
	before, err := w.Dying(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := n.VM.Crash(t.Context(), lab.CrashInitExit); err != nil {
		t.Fatal(err)
	}
	if err := n.VM.Wait(t.Context()); err != nil { // QEMU ends when the guest reboots, and then it has sent everything
		t.Fatal(err)
	}
	after, err := w.Dying(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after != before {
		t.Errorf("the listener has heard %d kernels die, and %d before the mute node's panic", after, before)
	}
	pods, err := w.Cluster.Client().CoreV1().Pods(n.Namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	untouched := 0
	for _, p := range pods.Items {
		if p.Spec.NodeName == n.Name && p.Status.Phase == corev1.PodRunning {
			untouched++
		}
	}
	if untouched != len(victims) {
		t.Errorf("%d of %d pods are still Running: somebody acted without having heard anything", untouched, len(victims))
	}
}

// unmuted shows that lastgasp's kernel module makes such a kernel heard, and names who killed it.
func unmuted(t *testing.T, w *story.World) {
	k, err := lab.FetchKernel(t.Context(), t, "7")
	if err != nil {
		t.Fatal(err)
	}
	module, err := lab.BuildModule(t.Context(), t, k, "lastgasp", os.DirFS("../packaging/kernel"))
	if err != nil {
		t.Fatal(err)
	}
	n, victims := populated(t, w, "7", lab.CrashSysrq, story.NodeSpec{Name: "node-heard", Module: module, Panic: 5})
	if err := w.AwaitPin(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	status, err := n.VM.Run(t.Context(), "/usr/bin/lastgasp-configurator", "status")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(status.Stdout, "MUTE") {
		t.Errorf("status calls the node mute:\n%s", status.Stdout)
	}
	d, err := w.Kill(t.Context(), n, lab.CrashSysrq, victims, 2*busy)
	if err != nil {
		w.Explain(t)
		t.Fatal(err)
	}
	if err := d.Check(); err != nil {
		t.Error(err)
	}
	if c := d.NodeDeath.Spec.Culprit; c == nil || c.Comm == "" || c.Cgroup == "" {
		t.Errorf("recorded culprit %+v, want a task and its cgroup", c)
	}
}

// populated boots a node that is to die of crash, arms it and runs the workloads there.
func populated(t *testing.T, w *story.World, kernel string, crash lab.Crash, spec story.NodeSpec) (*story.Node, []corev1.Pod) {
	t.Helper()
	var err error
	if spec.Kernel, err = lab.FetchKernel(t.Context(), t, kernel); err != nil {
		t.Fatal(err)
	}
	if crash != lab.CrashSysrq && crash != lab.CrashInitExit { // they need no module, and so no compilers for another architecture
		if spec.CrashModule, err = lab.BuildCrashModule(t.Context(), t, spec.Kernel); err != nil {
			t.Fatal(err)
		}
	}
	n, err := w.BootNode(t.Context(), t, spec)
	if err != nil {
		w.Explain(t)
		t.Fatal(err)
	}
	victims, err := w.Deploy(t.Context(), n.Namespace, n.Name)
	if err != nil {
		w.Explain(t)
		t.Fatal(err)
	}
	return n, victims
}
