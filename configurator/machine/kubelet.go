package machine

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Kubelet is how this node's kubelet treats kernel.panic.
type Kubelet int

const (
	// NoKubelet: none is installed.
	NoKubelet Kubelet = iota
	// KubeletExpected: one is installed, but not configured yet.
	KubeletExpected
	// KubeletSets: it sets kernel.panic=10 when it starts, and does not check it later.
	KubeletSets
	// KubeletProtects: it has protectKernelDefaults, and does not start unless kernel.panic is 10 already
	// (setupKernelTunables, pkg/kubelet/cm/container_manager_linux.go).
	KubeletProtects
)

// kubeletPanic is the value of kernel.panic that a kubelet sets, or requires.
const kubeletPanic = 10

// kubeletConfigs returns the files in which distributions have a kubelet's configuration: kubeadm, EKS on AL2023 and AL2, k3s,
// RKE2.
func (r Root) kubeletConfigs() []string {
	return r.glob(
		"var/lib/kubelet/config.yaml", "var/lib/kubelet/kubeadm-flags.env",
		"etc/kubernetes/kubelet/config.json", "etc/kubernetes/kubelet/config.json.d/*", "etc/kubernetes/kubelet/kubelet-config.json",
		"etc/rancher/k3s/config.yaml", "etc/rancher/k3s/config.yaml.d/*.yaml",
		"etc/rancher/rke2/config.yaml", "etc/rancher/rke2/config.yaml.d/*.yaml",
	)
}

// kubeletFlags returns the files that may hold its flags. Some of them exist as soon as it is installed.
func (r Root) kubeletFlags() []string {
	return r.glob(
		"etc/default/kubelet", "etc/sysconfig/kubelet", "etc/eksctl/kubelet.env",
		"etc/systemd/system/kubelet.service", "etc/systemd/system/kubelet.service.d/*.conf",
		"usr/lib/systemd/system/kubelet.service", "usr/lib/systemd/system/kubelet.service.d/*.conf",
		"etc/systemd/system/k3s*.service", "usr/lib/systemd/system/k3s*.service",
		"etc/systemd/system/rke2-*.service", "usr/lib/systemd/system/rke2-*.service", "usr/local/lib/systemd/system/rke2-*.service",
	)
}

var (
	// protects matches the setting as a key of YAML or JSON, and as a flag, which is true without a value.
	protects = regexp.MustCompile(`(?i)protect-?kernel-?defaults(?:["']?\s*[:=]\s*["']?(\w+))?`)
	// cisProfile matches RKE2's CIS profile, which sets that flag.
	cisProfile = regexp.MustCompile(`(?m)^\s*profile:\s*["']?cis`)
	// configFlag matches the flag that names another configuration file.
	configFlag = regexp.MustCompile(`--config[= ]["']?(/[^\s"']+)`)
)

// Kubelet reads this from files: a hardened unit cannot see the kubelet's process.
func (r Root) Kubelet() Kubelet {
	flags, configs := r.kubeletFlags(), r.kubeletConfigs()
	var texts [][]byte
	for _, file := range flags {
		text := withoutComments(file)
		texts = append(texts, text)
		for _, m := range configFlag.FindAllSubmatch(text, -1) {
			if file := r.Path(string(m[1])); !slices.Contains(configs, file) && exists(file) {
				configs = append(configs, file)
			}
		}
	}
	for _, file := range configs {
		texts = append(texts, withoutComments(file))
	}
	switch {
	case slices.ContainsFunc(texts, protectsKernel):
		return KubeletProtects
	case len(configs) > 0:
		return KubeletSets
	case len(flags) > 0 || exists(r.Path("usr/bin/kubelet")):
		return KubeletExpected
	}
	return NoKubelet
}

// protectsKernel reports whether this configuration or command line sets protectKernelDefaults.
func protectsKernel(text []byte) bool {
	return cisProfile.Match(text) || slices.ContainsFunc(protects.FindAllSubmatch(text, -1), func(m [][]byte) bool {
		return len(m[1]) == 0 || strings.EqualFold(string(m[1]), "true")
	})
}

// withoutComments returns a file without the lines that begin with #.
func withoutComments(file string) []byte {
	data, _ := os.ReadFile(file)
	var kept []byte
	for line := range bytes.Lines(data) {
		if !bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")) {
			kept = append(kept, line...)
		}
	}
	return kept
}

// glob returns the files below the root that match one of the patterns.
func (r Root) glob(patterns ...string) []string {
	var files []string
	for _, p := range patterns {
		found, _ := filepath.Glob(r.Path(p)) // the patterns are good
		files = append(files, found...)
	}
	return files
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
