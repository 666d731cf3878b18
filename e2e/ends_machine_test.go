//go:build e2e && ends

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lastgasp/lastgasp/e2e/cloud"
	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/listener/kube/v1alpha1"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// farewellKey is where the Node and its pods carry who ended a boot in good order.
const farewellKey = "lastgasp.dev/farewell"

// machineEnds are the ways that need a whole system: systemd, a login, a disk. The last one takes the machine away.
func machineEnds() []machineEnd {
	return []machineEnd{
		{way: "poweroff by a user", do: poweroffByUser, off: true, farewell: "powered off by alice (sudo poweroff) at "},
		{way: "systemctl reboot --force", do: func(t *testing.T, m *endsMachine) { m.start(t, "systemctl reboot --force") }, farewell: "rebooted at "},
		{way: "reboot -f", do: func(t *testing.T, m *endsMachine) { m.start(t, "reboot -f") },
			end: end{back: true, cause: "Unexplained", reason: "without a word", evidence: "none"}},
		{way: "power cut", do: func(_ *testing.T, m *endsMachine) { m.VM.Kill() }, off: true,
			end: end{back: true, cause: "Unexplained", reason: "without a word", evidence: "none"}},
		{way: "panic, kdump", do: panicWithKdump,
			end: end{back: true, cause: "KernelPanic", reason: "sysrq triggered crash", evidence: "kdump", acted: true}},
		{way: "spot interruption", do: spotInterruption, gone: true, farewell: "interrupted as a spot instance (terminate), due "},
	}
}

// machineEnd is a way to end a boot of a machine with a whole system. It ends with a farewell or a death.
type machineEnd struct {
	way  string
	do   func(t *testing.T, m *endsMachine)
	off  bool // it leaves the machine off
	gone bool // EC2 has taken it

	farewell string
	end
}

// poweroffByUser logs a user in, who then uses sudo.
func poweroffByUser(t *testing.T, m *endsMachine) {
	m.sh(t, `useradd --create-home alice && echo "alice ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/alice &&
		systemd-run --quiet -p PAMName=login -p User=alice sudo poweroff`)
}

// panicWithKdump loads the crash kernel, in which kdump-tools then saves a dump and the log, and panics.
func panicWithKdump(t *testing.T, m *endsMachine) {
	m.sh(t, `k=$(uname -r); kexec -s -p --initrd=/boot/initrd.img-$k /boot/vmlinuz-$k --command-line="$(sed 's/crashkernel=[^ ]*//' /proc/cmdline) `+
		`reset_devices systemd.unit=kdump-tools-dump.service nr_cpus=1"`)
	m.start(t, "echo c >/proc/sysrq-trigger")
}

// spotInterruption announces it. EC2 takes the machine when the node has said so.
func spotInterruption(t *testing.T, m *endsMachine) {
	m.spot.Store(time.Now().Add(2 * time.Minute).Unix())
}

// endsMachine is a machine that remembers: a node with a disk and systemd.
type endsMachine struct {
	*amiNode
	w     *endsWorld
	scope *testing.T // the machine outlives the test of each end
}

// start runs a script that the machine may not live to answer.
func (m *endsMachine) start(t *testing.T, script string) {
	t.Helper()
	if err := m.VM.Start(t.Context(), "sh", "-c", script); err != nil {
		t.Fatal(err)
	}
}

// tryMachine ends one boot after another of one machine, each in a way of machineEnds.
func (w *endsWorld) tryMachine(t *testing.T, instance string) {
	const name = "machine"
	ip := netip.MustParseAddr("10.77.1.200")
	disk, err := cloud.BuildImage(t.Context(), t, cloud.ImageSpec{
		Suite: "trixie", Debs: configuratorDeb(t), Kubelet: w.Cluster.HollowProgram(),
		Packages: []string{"kdump-tools", "libpam-systemd", "login", "makedumpfile", "sudo"},
		Files:    w.machineFiles(t, name, ip, instance),
	})
	if err != nil {
		t.Fatal(err)
	}
	a := &amiWorld{World: w.World}
	n := a.boot(t, bootSpec{
		name: name, ip: ip, disk: disk, instance: instance, userData: []byte{}, reboot: true, append: []string{"crashkernel=256M", "mitigations=off"},
	})
	_, blame := n.try(t, "systemd-analyze; systemd-analyze blame | head -n30")
	t.Logf("%s", blame)
	m := &endsMachine{amiNode: n, w: w, scope: t}
	w.consoles.show(instance, n.VM.Serial())
	for _, e := range machineEnds() {
		t.Run(e.way, func(t *testing.T) { m.try(t, e) })
	}
}

// machineFiles make a node of the machine without cloud-init, and take away what a node can do without. An emulated CPU beside others
// takes minutes for the boot of a whole Debian, and this is booted seven times.
func (w *endsWorld) machineFiles(t *testing.T, name string, ip netip.Addr, instance string) map[string]string {
	t.Helper()
	files := map[string]string{
		"/etc/cloud/cloud-init.disabled":                "",
		"/etc/hostname":                                 name + "\n",
		"/etc/machine-id":                               strings.Repeat("5a", 16) + "\n", // else each unit is enabled anew
		"/etc/systemd/network/10-lab.network":           "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nKeepConfiguration=dhcp-on-stop\n",
		"/etc/lastgasp/configurator.d/50-endpoint.yaml": fmt.Sprintf("endpoint: {static: [%q]}\n", w.Endpoint()),
		"/etc/kubernetes/kubelet.env":                   fmt.Sprintf("NAME=%s\nIP=%s\nPROVIDER_ID=aws:///%s/%s\n", name, ip, zone, instance),
		// The rest of the hardware loads modules that nobody uses.
		"/etc/systemd/system/systemd-udev-trigger.service.d/50-lab.conf": "[Service]\nExecStart=\n" +
			"ExecStart=udevadm trigger --action=add --subsystem-match=virtio --subsystem-match=net --subsystem-match=block\n",
		// Its shell takes minutes to load the crash kernel. Were it masked, its script would do nothing in the crash kernel, either.
		"/etc/systemd/system/kdump-tools.service.d/50-lab.conf": "[Unit]\nConditionPathExists=/nowhere\n",
		"/etc/default/kdump-tools":                              "USE_KDUMP=1\nKDUMP_COREDIR=/var/crash\nMAKEDUMP_ARGS=\"-F -d 31\"\n", // it does not compress
	}
	// An empty file masks a unit or generator.
	for _, unit := range []string{
		"console-getty.service", "dev-hugepages.mount", "dev-mqueue.mount", "e2scrub_reap.service", "getty@.service", "ldconfig.service",
		"modprobe@dm_mod.service", "modprobe@drm.service", "modprobe@efi_pstore.service", "modprobe@fuse.service", "modprobe@loop.service",
		"proc-sys-fs-binfmt_misc.automount", "serial-getty@.service", "sys-fs-fuse-connections.mount", "sys-kernel-debug.mount",
		"sys-kernel-tracing.mount", "systemd-binfmt.service", "systemd-firstboot.service", "systemd-hibernate-clear.service",
		"systemd-hwdb-update.service", "systemd-journal-catalog-update.service", "systemd-modules-load.service",
		"systemd-networkd-persistent-storage.service", "systemd-random-seed.service", "systemd-sysusers.service",
		"systemd-udev-load-credentials.service", "systemd-update-done.service",
	} {
		files["/etc/systemd/system/"+unit] = ""
	}
	for _, generator := range []string{
		"cloud-init-generator", "netplan", "systemd-getty-generator", "systemd-gpt-auto-generator", "systemd-hibernate-resume-generator",
		"systemd-rc-local-generator", "systemd-ssh-generator", "systemd-sysv-generator", "systemd-tpm2-generator",
	} {
		files["/etc/systemd/system-generators/"+generator] = ""
	}
	join, err := w.Join(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range join {
		files[path] = string(data)
	}
	return files
}

// configuratorDeb is the path of the configurator's package.
func configuratorDeb(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(buildDebs(t), func(path string) bool { return !strings.Contains(filepath.Base(path), "configurator") })
}

// try ends the boot that runs, and waits until it is known why, and the machine is a node again.
func (m *endsMachine) try(t *testing.T, e machineEnd) {
	outcome := "NOT REACHED"
	defer func() { m.w.row(e.way, outcome) }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	m.awaitArmed(t, ctx)
	pod := m.w.runPod(t, &m.Node)
	boot, ended := m.BootID, time.Now()
	e.do(t, m)

	if e.farewell != "" {
		if err := within(ctx, 2*time.Minute, func() error { return m.said(ctx, boot, e.farewell, pod) }); err != nil {
			m.w.Explain(t)
			t.Error(err) // the machine has to come back for the next end
		} else {
			outcome = fmt.Sprintf("%s\tfarewell\tannotated\t%.1f", e.farewell, time.Since(ended).Seconds())
		}
	}
	if e.acted { // what Kubernetes evicts after five minutes is gone when a slow machine is back
		eventually(t, "the pod to say why", func() error { return pod.saysWhy(ctx, e.end) })
	}
	m.comeBack(t, ctx, e)
	if e.farewell == "" {
		known, d, err := m.w.AwaitDeath(ctx, m.Name, boot, func(d v1alpha1.NodeDeath) error { return e.check(d, pod) })
		if err != nil {
			m.w.Explain(t)
			t.Fatal(err)
		}
		outcome = e.outcome(d, known.Sub(ended))
		t.Logf("%s: %s; %s", d.Spec.Cause, d.Spec.Reason, d.Status.Decision)
		return
	}
	if err := within(ctx, 4*time.Minute, func() error { return m.inGoodOrder(ctx, boot) }); err != nil {
		m.w.Explain(t)
		t.Error(err)
	}
}

// awaitArmed waits until the boot that runs is a node, pinned, and would send a farewell.
func (m *endsMachine) awaitArmed(t *testing.T, ctx context.Context) {
	t.Helper()
	if err := m.w.Cluster.AwaitNode(ctx, m.Name, m.BootID, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := within(ctx, 3*time.Minute, func() error {
		n, err := m.w.Cluster.Client().CoreV1().Nodes().Get(ctx, m.Name, metav1.GetOptions{})
		if err == nil && !strings.HasPrefix(n.Annotations[lab.PinKey], m.BootID+":") {
			err = fmt.Errorf("its pin is %q", n.Annotations[lab.PinKey])
		}
		return err
	}); err != nil {
		t.Fatalf("boot %s is not pinned: %v", m.BootID, err)
	}
	if err := within(ctx, 3*time.Minute, func() error { // on a busy machine systemd starts the first one anew
		exit, said := m.amiNode.try(t, "systemctl is-active lastgasp-farewell lastgasp-configurator-boot-end")
		if exit != 0 {
			return errors.New(said)
		}
		return nil
	}); err != nil {
		t.Fatalf("boot %s would send no farewell: %v", m.BootID, err)
	}
}

// comeBack boots the machine again if it does not do so itself.
func (m *endsMachine) comeBack(t *testing.T, ctx context.Context, e machineEnd) {
	t.Helper()
	switch {
	case e.gone:
		m.VM.Kill()
		askEC2(t, m.w.moto, url.Values{"Action": {"TerminateInstances"}, "InstanceId.1": {m.instance.ID}})
		// As the cloud's controller does, which the lab has not.
		if err := m.w.Cluster.Client().CoreV1().Nodes().Delete(ctx, m.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		return
	case e.off:
		if err := m.VM.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		if err := m.VM.PowerOn(ctx, m.scope); err != nil {
			t.Fatal(err)
		}
	default:
		for crashKernel := true; crashKernel; {
			if err := m.VM.WaitReady(ctx); err != nil {
				t.Fatal(err)
			}
			cmdline, err := m.VM.ReadFile(ctx, "/proc/cmdline")
			crashKernel = err != nil || strings.Contains(string(cmdline), "kdump-tools-dump.service") // it may be gone already
		}
	}
	m.BootID = m.VM.BootID()
}

// said returns nil if the Node and the pod carry the farewell of a boot, and an event of each says the same.
func (m *endsMachine) said(ctx context.Context, boot, text string, p endsPod) error {
	n, err := m.w.Cluster.Client().CoreV1().Nodes().Get(ctx, m.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	pod, err := m.w.Cluster.Client().CoreV1().Pods(p.pod.Namespace).Get(ctx, p.pod.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	onNode, onPod := n.Annotations[farewellKey], pod.Annotations[farewellKey]
	if !strings.HasPrefix(onNode, boot+": "+text) || !strings.HasPrefix(onPod, text) || pod.UID != p.pod.UID {
		return fmt.Errorf("the Node says %q, the pod %q; want %s", onNode, onPod, text)
	}
	events, err := m.w.Cluster.Client().EventsV1().Events(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for about, note := range map[string]string{m.Name: "this node was ", pod.Name: "node " + m.Name + " was "} {
		note += strings.TrimSuffix(text, " at ")
		if !slices.ContainsFunc(events.Items, func(e eventsv1.Event) bool {
			return e.Reason == "Farewell" && e.Regarding.Name == about && strings.HasPrefix(e.Note, note)
		}) {
			return fmt.Errorf("no event about %s says that %s", about, note)
		}
	}
	return nil
}

// inGoodOrder returns nil if the listener holds the boot for one that ended in good order.
func (m *endsMachine) inGoodOrder(ctx context.Context, boot string) error {
	name := policy.DeathName(m.Name, boot)
	_, err := m.w.Cluster.Client().Discovery().RESTClient().Get().AbsPath("/apis/lastgasp.dev/v1alpha1/nodedeaths", name).DoRaw(ctx)
	switch {
	case err == nil:
		return errors.New("it is on record as a death")
	case !apierrors.IsNotFound(err):
		return err
	}
	log, err := os.ReadFile(m.w.ListenerLog)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "boot ended in good order") && strings.Contains(line, boot) {
			return nil
		}
	}
	return errors.New("the listener's log does not say that the boot ended in good order")
}
