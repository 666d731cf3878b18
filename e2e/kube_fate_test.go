//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// TestKubeFate shows how deaths become known that netconsole does not send, on a real control plane with moto as EC2: a kernel
// without netconsole panics, and only EC2 has its serial console; a node says on its next boot how the last one ended.
func TestKubeFate(t *testing.T) {
	w := newHollowWorld(t, "")
	moto := useMoto(t, w.ns)
	ids := runInstances(t, moto, 2)
	mute := bootMute(t, w, ids[0])
	serveConsoles(t, w.ns, moto).show(ids[0], mute.vm.Serial())
	if err := w.fleet.Listen(t.Context(), "cloud: {fate: true}\n"); err != nil {
		t.Fatal(err)
	}
	listener := w.listener()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the listener says:\n%s", listener.says())
		}
	})
	crashed := time.Now()
	if err := mute.vm.Crash(t.Context(), lab.CrashSysrq); err != nil {
		t.Fatal(err)
	}

	// The control plane takes most of a minute to miss the node.
	t.Run("a node says on its next boot how the last one ended", func(t *testing.T) { w.checkObituary(t, ids[1]) })

	t.Run("a panic that only the serial console has is acted on once the node is silent", func(t *testing.T) {
		var d policy.Death
		if err := within(t.Context(), busy, func() (err error) {
			if d, err = w.cluster.Death(t.Context(), policy.DeathName(mute.name, mute.vm.BootID())); err == nil && d.Phase != policy.Cleaned {
				err = fmt.Errorf("phase %s: %s", d.Phase, d.Decision)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		t.Logf("%-12s %-10s acted on %s after the panic, cleaned after %s", d.Cause, d.Evidence,
			d.Started.Sub(crashed).Round(100*time.Millisecond), d.Completed.Sub(crashed).Round(100*time.Millisecond))
		if d.Reason != "sysrq triggered crash" || d.Authority != detect.Cloud || !slices.Equal(d.Evidence, []policy.Evidence{policy.ByConsole}) ||
			d.Instance != ids[0] || d.PodsFailed != 1 || len(d.Trace) < 5 || !strings.Contains(d.Decision, "no longer hears from node") {
			t.Errorf("death: %+v", d)
		}
		if _, err := w.admin.CoreV1().Nodes().Get(t.Context(), mute.name, metav1.GetOptions{}); err == nil {
			t.Error("the Node is still there")
		}
	})
}

// muteNode is a node without netconsole: a microVM whose console EC2 keeps.
type muteNode struct {
	name string
	vm   *lab.VM
}

// bootMute boots it, with a pod, a pin and a canary on its console.
func bootMute(t *testing.T, w *hollowWorld, instance string) muteNode {
	t.Helper()
	ctx, name := t.Context(), "mute"
	kernel, err := lab.FetchKernel(ctx, t, "6.12")
	if err != nil {
		t.Fatal(err)
	}
	files, err := w.lab.KubeletFiles(name)
	if err != nil {
		t.Fatal(err)
	}
	spec := lab.VMSpec{
		Kernel: kernel, Net: w.fleet.Net, Name: name, MemoryMiB: 1024, Sysctls: map[string]string{"kernel.panic": "0"},
		Files: map[string]lab.GuestFile{"/usr/bin/kubelet": {Host: w.lab.HollowProgram(), Mode: 0o755}},
	}
	for path, data := range files {
		spec.Files[path] = lab.GuestFile{Data: data, Mode: 0o600}
	}
	n := muteNode{name: name}
	if n.vm, err = lab.BootVM(ctx, t, spec); err != nil {
		t.Fatal(err)
	}
	if err := n.vm.Start(ctx, "/usr/bin/kubelet", "--kubeconfig=/etc/kubernetes/kubelet.conf", "--name="+name,
		"--node-ip="+lab.GuestAddr.Addr().String(), "--provider-id=aws:///lab-1a/"+instance, "--root-dir=/var/lib/kubelet"); err != nil {
		t.Fatal(err)
	}
	if err := w.lab.AwaitNode(ctx, name, n.vm.BootID(), time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := w.lab.Enroll(ctx, name, n.vm.BootID(), netconsole.Secret("never on any wire").Sum()); err != nil {
		t.Fatal(err)
	}
	canary := netconsole.Canary{Nonce: strings.Repeat("0", 32), Instance: instance, Boot: n.vm.BootID()}
	if err := n.vm.WriteFile(ctx, "/dev/kmsg", []byte("<4>"+canary.Line()+"\n"), 0); err != nil {
		t.Fatal(err)
	}
	runPod(t, w, name)
	return n
}

// runPod makes a pod on the node and waits until it runs.
func runPod(t *testing.T, w *hollowWorld, node string) {
	t.Helper()
	pods := w.admin.CoreV1().Pods(metav1.NamespaceDefault)
	if _, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "pod-of-" + node},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "lab/c"}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pod on "+node+" to run", func() error {
		p, err := pods.Get(t.Context(), "pod-of-"+node, metav1.GetOptions{})
		if err == nil && p.Status.Phase != corev1.PodRunning {
			err = fmt.Errorf("it is %s", p.Status.Phase)
		}
		return err
	})
}

// checkObituary reboots a hollow node, which then says how its last boot ended.
func (w *hollowWorld) checkObituary(t *testing.T, instance string) {
	ctx := t.Context()
	h, err := w.fleet.NewHollow("teller")
	if err != nil {
		t.Fatal(err)
	}
	h.Identity.Instance = instance
	if err := errors.Join(h.Start(ctx), h.Arm(ctx)); err != nil {
		t.Fatal(err)
	}
	old := h.Identity.Boot
	h.Kill()
	if err := errors.Join(h.Reboot(ctx), h.Arm(ctx)); err != nil {
		t.Fatal(err)
	}
	obituary := netconsole.Obituary{
		Boot: old, Cause: "KernelPanic", Evidence: "pstore", Kernel: "6.12.0", Time: time.Now(),
		Text: []byte("<6>[   90.000000] sysrq: Trigger a crash\n<0>[   90.100000] Kernel panic - not syncing: sysrq triggered crash\n"),
	}
	_, parts := obituary.Datagrams(h.Identity)
	forged := h.Identity
	forged.Secret = "made up"
	wrong := obituary
	wrong.Boot, wrong.Text = "another boot", []byte("<0>[ 1.000000] Kernel panic - not syncing: a lie\n")
	_, lies := wrong.Datagrams(forged)
	var d policy.Death
	eventually(t, "the death of the last boot", func() error {
		if err := errors.Join(h.Say(lies...), h.Say(parts...)); err != nil {
			t.Fatal(err)
		}
		if d, err = w.cluster.Death(ctx, policy.DeathName(h.Name, old)); err == nil && d.Phase == "" {
			err = errors.New("its status is not written yet")
		}
		return err
	})
	if d.Phase != policy.Recorded || d.Cause != "KernelPanic" || d.Reason != "sysrq triggered crash" || d.Authority != detect.Pinned ||
		!slices.Equal(d.Evidence, []policy.Evidence{policy.ByPstore}) || d.Release != "6.12.0" || d.Boot != old {
		t.Errorf("death: %+v", d)
	}
	if _, err := w.cluster.Death(ctx, policy.DeathName(h.Name, "another boot")); !errors.Is(err, cleanup.ErrNotFound) {
		t.Errorf("a lie is on record: %v", err)
	}
	n, err := w.cluster.Node(ctx, h.Name)
	if err != nil || n.Fenced || n.Mark != (policy.Mark{}) || !n.Ready {
		t.Errorf("an obituary changed the Node: %+v, %v", n, err)
	}
	eventually(t, "the event on the node", func() error {
		events, err := w.admin.EventsV1().Events(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.Regarding.Name == h.Name && e.Reason == "KernelPanic" && strings.Contains(e.Note, "see nodedeath "+d.Name) {
				return nil
			}
		}
		return errors.New("there is none")
	})
}
