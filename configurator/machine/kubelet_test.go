package machine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKubelet(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  Kubelet
	}{
		{"none", nil, NoKubelet},
		{"installed, not configured", map[string]string{"usr/bin/kubelet": "\x7fELF"}, KubeletExpected},
		{"a unit, not configured", map[string]string{"etc/systemd/system/kubelet.service": "ExecStart=/usr/bin/kubelet --config /var/lib/kubelet/config.yaml"}, KubeletExpected},
		{"kubeadm's configuration", map[string]string{"var/lib/kubelet/config.yaml": "kind: KubeletConfiguration\nstaticPodPath: /etc"}, KubeletSets},
		{"kubeadm's, protected", map[string]string{"var/lib/kubelet/config.yaml": "kind: KubeletConfiguration\nprotectKernelDefaults: true"}, KubeletProtects},
		{"said to be off", map[string]string{"var/lib/kubelet/config.yaml": "protectKernelDefaults: false"}, KubeletSets},
		{"a comment", map[string]string{"var/lib/kubelet/config.yaml": "# protectKernelDefaults: true"}, KubeletSets},
		{"EKS on AL2023", map[string]string{"etc/kubernetes/kubelet/config.json": `{"protectKernelDefaults":true,"a":1}`}, KubeletProtects},
		{"EKS on AL2023, a drop-in", map[string]string{
			"etc/kubernetes/kubelet/config.json":                `{"a":1}`,
			"etc/kubernetes/kubelet/config.json.d/40-user.conf": `{"protectKernelDefaults": true}`,
		}, KubeletProtects},
		{"a flag in kubeadm's environment", map[string]string{"var/lib/kubelet/kubeadm-flags.env": `KUBELET_KUBEADM_ARGS="--protect-kernel-defaults=true"`}, KubeletProtects},
		{"a flag without value in a drop-in of the unit", map[string]string{
			"etc/systemd/system/kubelet.service.d/10-hard.conf": "[Service]\nExecStart=/usr/bin/kubelet --protect-kernel-defaults --v=2",
		}, KubeletProtects},
		{"a flag that is off", map[string]string{"etc/default/kubelet": "KUBELET_EXTRA_ARGS=--protect-kernel-defaults=false"}, KubeletExpected},
		{"a configuration elsewhere, named by a flag", map[string]string{
			"etc/systemd/system/kubelet.service": "ExecStart=/usr/bin/kubelet --config=/opt/kubelet.yaml",
			"opt/kubelet.yaml":                   "protectKernelDefaults: true",
		}, KubeletProtects},
		{"k3s", map[string]string{"etc/rancher/k3s/config.yaml": "kubelet-arg:\n  - protect-kernel-defaults=true"}, KubeletProtects},
		{"RKE2 by its profile", map[string]string{"etc/rancher/rke2/config.yaml": "profile: cis-1.23"}, KubeletProtects},
		{"RKE2 by a key", map[string]string{"etc/rancher/rke2/config.yaml.d/50-x.yaml": "protect-kernel-defaults: true"}, KubeletProtects},
		{"RKE2", map[string]string{"etc/rancher/rke2/config.yaml": "token: x"}, KubeletSets},
		{"RKE2 by a variable", map[string]string{"etc/default/rke2-agent": "RKE2_CIS_PROFILE=cis"}, KubeletProtects},
		{"RKE2 by a flag", map[string]string{"usr/local/lib/systemd/system/rke2-server.service": "ExecStart=/usr/local/bin/rke2 server --profile cis"}, KubeletProtects},
		{"k3s by flags in its unit", map[string]string{
			"etc/systemd/system/k3s.service": "[Service]\nExecStart=/usr/local/bin/k3s \\\n    server \\\n\t'--kubelet-arg' \\\n\t'protect-kernel-defaults=true' \\\n",
		}, KubeletProtects},
		{"k3s by a flag of its own", map[string]string{"etc/systemd/system/k3s-agent.service": "ExecStart=/usr/local/bin/k3s agent --protect-kernel-defaults"}, KubeletProtects},
		{"k3s without a configuration, not started yet", map[string]string{"etc/systemd/system/k3s.service": "ExecStart=/usr/local/bin/k3s server"}, KubeletExpected},
		{"k3s without a configuration", map[string]string{
			"etc/systemd/system/k3s.service":               "ExecStart=/usr/local/bin/k3s server",
			"var/lib/rancher/k3s/agent/kubelet.kubeconfig": "kind: Config",
		}, KubeletSets},
		{"what k3s writes for its kubelet", map[string]string{
			"var/lib/rancher/k3s/agent/etc/kubelet.conf.d/00-k3s-defaults.conf": "kind: KubeletConfiguration\nprotectKernelDefaults: true",
		}, KubeletProtects},
		{"k0s", map[string]string{"var/lib/k0s/kubelet-config.yaml": "kind: KubeletConfiguration\nprotectKernelDefaults: true"}, KubeletProtects},
		{"MicroK8s", map[string]string{"var/snap/microk8s/current/args/kubelet": "--protect-kernel-defaults=true\n--v=1"}, KubeletProtects},
		{"kubespray", map[string]string{"etc/kubernetes/kubelet-config.yaml": "protectKernelDefaults: true"}, KubeletProtects},
		{"a directory of drop-ins, named by a flag", map[string]string{
			"usr/lib/systemd/system/kubelet.service": "ExecStart=/usr/bin/kubelet --config-dir=/etc/kubelet.d --config /opt/kubelet.yaml",
			"opt/kubelet.yaml":                       "kind: KubeletConfiguration",
			"etc/kubelet.d/10-hard.conf":             "kind: KubeletConfiguration\nprotectKernelDefaults: true",
		}, KubeletProtects},
		{"what the kubelet does not read in such a directory", map[string]string{
			"usr/lib/systemd/system/kubelet.service": "ExecStart=/usr/bin/kubelet --config-dir=/etc/kubelet.d --config /opt/kubelet.yaml",
			"opt/kubelet.yaml":                       "kind: KubeletConfiguration",
			"etc/kubelet.d/10-hard.conf.bak":         "protectKernelDefaults: true",
		}, KubeletSets},
		{"extra arguments in the environment of a drop-in", map[string]string{
			"usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf": "[Service]\nEnvironmentFile=-/etc/kubelet-extra\nExecStart=\nExecStart=/usr/bin/kubelet $KUBELET_EXTRA_ARGS",
			"etc/kubelet-extra": `KUBELET_EXTRA_ARGS="--v=2 --protect-kernel-defaults=1"`,
		}, KubeletProtects},
		{"a configuration named by a variable of the environment", map[string]string{
			"etc/systemd/system/kubelet.service": "EnvironmentFile=/etc/kubelet-extra\nExecStart=/usr/bin/kubelet --config=$CONFIG",
			"etc/kubelet-extra":                  "CONFIG=/opt/kubelet.yaml",
			"opt/kubelet.yaml":                   "protectKernelDefaults: yes",
		}, KubeletProtects},
		{"a script that starts it", map[string]string{
			"run/systemd/system/kubelet.service": "ExecStart=/opt/start-kubelet",
			"opt/start-kubelet":                  "#!/bin/sh\nexec kubelet --protect-kernel-defaults",
		}, KubeletProtects},
		{"a drop-in of the running system", map[string]string{"run/systemd/system/kubelet.service.d/x.conf": "Environment=A=--protect-kernel-defaults=t"}, KubeletProtects},
		{"a comment of a unit", map[string]string{"etc/systemd/system/kubelet.service": "; --protect-kernel-defaults\n"}, KubeletExpected},
		{"configured by flags alone", map[string]string{
			"etc/systemd/system/kubelet.service": "ExecStart=/usr/bin/kubelet --kubeconfig=/etc/x",
			"var/lib/kubelet/cpu_manager_state":  "{}",
		}, KubeletSets},
		{"JSON over several lines", map[string]string{"etc/kubernetes/kubelet/config.json": "{\n  \"protectKernelDefaults\" :\n    true\n}"}, KubeletProtects},
		{"off, as YAML has it", map[string]string{"var/lib/kubelet/config.yaml": "protectKernelDefaults: off"}, KubeletSets},
		{"a unit that names a file which does not exist", map[string]string{"etc/systemd/system/kubelet.service": "ExecStart=/usr/bin/kubelet --config=/nowhere.yaml"}, KubeletExpected},
		{"a unit that names a huge file", map[string]string{
			"etc/systemd/system/kubelet.service": "ExecStart=/usr/bin/kubelet",
			"usr/bin/kubelet":                    strings.Repeat("protectKernelDefaults: true\n", 1<<16),
		}, KubeletExpected},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			for file, text := range tt.files {
				w.write(t, file, text)
			}
			if got := w.root.Kubelet(); got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
		})
	}
}

func TestPanicFindings(t *testing.T) {
	nbcon := goodFacts
	nbcon.Kernel = "7.3.4"
	five, ten := 5, 10
	for _, tt := range []struct {
		name    string
		panic   Panic
		facts   Facts
		kubelet Kubelet
		want    string
	}{
		{"nothing asked for", Panic{}, nbcon, KubeletProtects, ""},
		{"hold, and no kubelet", Panic{Hold: true}, nbcon, NoKubelet, ""},
		{"hold beside a kubelet that does not care", Panic{Hold: true}, nbcon, KubeletSets, ""},
		{"hold beside a kubelet that would not start", Panic{Hold: true}, nbcon, KubeletProtects, "panic.hold is refused"},
		{"hold before the kubelet is configured", Panic{Hold: true}, nbcon, KubeletExpected, "panic.hold waits for the kubelet to be configured"},
		{"a timeout that the kubelet wants", Panic{Timeout: &ten}, goodFacts, KubeletProtects, ""},
		{"a timeout that it does not", Panic{Timeout: &five}, goodFacts, KubeletProtects, "panic.timeout is refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			for _, f := range PanicFindings(tt.panic, tt.facts, tt.kubelet) {
				got += f.What
			}
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// A unit may name anything. Files of /proc are not read: some never end.
func TestKubeletPassesOverProc(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/proc/version", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if files := Root(dir).named("/link"); files != nil {
		t.Errorf("%q is read, want nothing", files)
	}
}
