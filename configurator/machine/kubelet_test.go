package machine

import (
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
