//go:build e2e && rollout

package e2e

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

// TestRolloutDaemonSet is a node whose image nobody changed: containerd and runc run the DaemonSet's container on it. The container arms
// the host's kernel, leaves the host as it found it when the DaemonSet is deleted, and when it is back and the kernel panics, that is
// heard, with the boot's secret.
func TestRolloutDaemonSet(t *testing.T) {
	archives := t.TempDir()
	build := exec.CommandContext(t.Context(), "../packaging/build", archives, "image")
	build.Env = append(os.Environ(), "ARCHES=amd64")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("make image: %v\n%s", err, out)
	}
	found, err := filepath.Glob(filepath.Join(archives, "lastgasp-configurator_*_oci.tar"))
	if err != nil || len(found) != 1 {
		t.Fatalf("archives: %q, %v", found, err)
	}
	files := map[string]lab.GuestFile{
		"/image.tar": {Host: found[0]}, "/var/log/empty": {}, "/var/lib/empty": {},
		"/etc/hosts": {Data: []byte("127.0.0.1 localhost\n")}, "/etc/resolv.conf": {}, // ctr mounts them, as a kubelet does
	}
	for pkg, programs := range map[string][]string{
		"containerd": {"/usr/bin/containerd", "/usr/bin/containerd-shim-runc-v2", "/usr/bin/ctr"}, "runc": {"/usr/sbin/runc"},
	} {
		fetched, err := lab.FetchPrograms(t.Context(), t, "bookworm", pkg, programs...)
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(files, fetched)
	}
	g := newGuest(t, "6.12", lab.VMSpec{MemoryMiB: 1024, Files: files, Sysctls: map[string]string{"kernel.panic": "10"}})
	a := newFakeListener(t, g.net, lab.ListenerAddr.Addr())
	if err := g.vm.Start(t.Context(), "/usr/bin/containerd"); err != nil {
		t.Fatal(err)
	}
	ctr := func(args ...string) (string, error) {
		r, err := g.vm.Run(t.Context(), append([]string{"/usr/bin/ctr"}, args...)...)
		if err == nil && r.Exit != 0 {
			err = fmt.Errorf("ctr %q ended with %d: %s%s", args, r.Exit, r.Stdout, r.Stderr)
		}
		return r.Stdout, err
	}
	do := func(args ...string) string {
		t.Helper()
		out, err := ctr(args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	eventually(t, "containerd", func() error { _, err := ctr("version"); return err })
	do("images", "import", "--base-name", "configurator", "--snapshotter", "native", "/image.tar")
	image := strings.TrimSpace(do("images", "ls", "-q"))
	run := append([]string{"run", "--detach", "--snapshotter", "native", "--log-uri", "file:///var/log/configurator.log", "--no-pivot"}, // from an initramfs
		daemonSet(t, image, "LASTGASP_ENDPOINT_STATIC="+a.String())...)
	t.Cleanup(func() {
		if t.Failed() {
			log, err := g.vm.ReadFile(t.Context(), "/var/log/configurator.log")
			t.Logf("the container said: %s%v", log, err)
		}
	})
	start := func() {
		t.Helper()
		a.forget()
		do(run...)
		eventually(t, "a canary", func() error {
			if !a.heardCanary() {
				return fmt.Errorf("none has arrived")
			}
			return nil
		})
		if s := g.status(t); len(s.Targets) != 1 || !s.Targets[0].Enabled {
			t.Errorf("the host is not armed: %+v", s)
		}
	}
	// What the configurator changes on a host.
	settings := func() (out []string) {
		t.Helper()
		for _, file := range []string{
			"/proc/sys/kernel/printk", "/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops", "/proc/sys/kernel/printk_devkmsg",
			"/sys/class/net/eth0/queues/tx-0/byte_queue_limits/limit_min",
		} {
			text, err := g.vm.ReadFile(t.Context(), file)
			if err == nil {
				out = append(out, file+" "+strings.TrimSpace(string(text)))
			}
		}
		return out
	}
	before := settings()

	start()
	do("task", "kill", "--signal", "SIGTERM", "configurator")
	eventually(t, "the container to end", func() error {
		list, err := ctr("task", "ls")
		if err == nil && !strings.Contains(list, "STOPPED") {
			err = fmt.Errorf("tasks: %s", list)
		}
		return err
	})
	do("task", "rm", "configurator") // fails if it ended with another exit code than 0
	do("container", "rm", "configurator")
	if diff := cmp.Diff(before, settings()); diff != "" {
		t.Errorf("what is left of it on the host (-before +after):\n%s", diff)
	}
	if s := g.status(t); len(s.Targets) != 0 || len(s.ChangedSettings) != 0 {
		t.Errorf("the host is still armed: %+v", s)
	}

	start()
	canary, _ := a.last(t)
	if canary.Boot != g.vm.BootID() {
		t.Errorf("the canary is of boot %s, the host's is %s", canary.Boot, g.vm.BootID())
	}
	if err := g.vm.Crash(t.Context(), lab.CrashSysrq); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the panic to be heard", func() error {
		records, _ := a.recall()
		if !slices.ContainsFunc(records, func(r string) bool { return strings.Contains(r, "Kernel panic - not syncing: sysrq triggered crash") }) {
			return fmt.Errorf("%d records were heard", len(records))
		}
		return nil
	})
}

// daemonSet is how ctr runs an image as the DaemonSet's pod says, with env instead of the ConfigMap.
func daemonSet(t *testing.T, image, env string) []string {
	t.Helper()
	text, err := os.ReadFile("../packaging/kubernetes/nodes/daemonset.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, manifest, ok := strings.Cut(string(text), "\n---\n")
	var set appsv1.DaemonSet
	if err := yaml.UnmarshalStrict([]byte(manifest), &set); !ok || err != nil {
		t.Fatalf("read the DaemonSet: %v", err)
	}
	pod := set.Spec.Template.Spec
	c, mount, volume := pod.Containers[0], pod.Containers[0].VolumeMounts[0], pod.Volumes[0]
	if !pod.HostNetwork || !*c.SecurityContext.Privileged || len(c.Command) > 0 || len(c.VolumeMounts) != 1 || volume.HostPath == nil ||
		*mount.MountPropagation != corev1.MountPropagationBidirectional {
		t.Fatalf("this test does not run such a pod: %+v", pod)
	}
	return append([]string{
		"--privileged", "--net-host", "--mount", fmt.Sprintf("type=bind,src=%s,dst=%s,options=rbind:rw", volume.HostPath.Path, mount.MountPath),
		"--env", env, image, "configurator", "/usr/bin/lastgasp-configurator",
	}, c.Args...)
}
