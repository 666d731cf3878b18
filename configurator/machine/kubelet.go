package machine

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"

	"github.com/lastgasp/lastgasp/listener/lazyregexp"
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

// kubeletConfigs returns the files in which distributions have a kubelet's configuration: kubeadm, kOps, kubespray, EKS on AL2023
// and AL2, k3s, RKE2, k0s, MicroK8s.
func (r Root) kubeletConfigs() []string {
	return r.glob(
		"var/lib/kubelet/config.yaml", "var/lib/kubelet/kubelet.conf", "var/lib/kubelet/kubeadm-flags.env",
		"etc/kubernetes/kubelet-config.yaml", "etc/kubernetes/kubelet/config.json", "etc/kubernetes/kubelet/config.json.d/*",
		"etc/kubernetes/kubelet/kubelet-config.json",
		"etc/rancher/k3s/config.yaml", "etc/rancher/k3s/config.yaml.d/*.yaml",
		"etc/rancher/rke2/config.yaml", "etc/rancher/rke2/config.yaml.d/*.yaml", "var/lib/rancher/*/agent/etc/kubelet.conf.d/*.conf",
		"var/lib/k0s/kubelet-config.yaml", "run/k0s/kubelet/config.yaml", "var/snap/microk8s/current/args/kubelet",
	)
}

// kubeletTraces returns files that a kubelet leaves when it runs, for one that is configured by flags alone.
func (r Root) kubeletTraces() []string {
	return r.glob("var/lib/kubelet/cpu_manager_state", "var/lib/rancher/*/agent/kubelet.kubeconfig")
}

// kubeletFlags returns the files that may hold its flags. Some of them exist as soon as it is installed.
func (r Root) kubeletFlags() []string {
	list := r.glob("etc/default/kubelet", "etc/sysconfig/kubelet", "etc/eksctl/kubelet.env", "etc/kubernetes/kubelet.env",
		"etc/default/k3s*", "etc/default/rke2-*", "etc/sysconfig/rke2-*", "usr/local/lib/systemd/system/rke2-*.env")
	for _, dir := range []string{"etc", "run", "usr/local/lib", "usr/lib", "lib"} { // systemd.unit(5)
		for _, unit := range []string{"kubelet", "k3s*", "rke2-*", "k0s*"} {
			list = append(list, r.glob(dir+"/systemd/system/"+unit+".service", dir+"/systemd/system/"+unit+".service.d/*.conf")...)
		}
	}
	return list
}

var (
	// protects matches the setting as a key of YAML or JSON, and as a flag, which is true without a value.
	protects = lazyregexp.New(`(?i)protect[-_]?kernel[-_]?defaults(?:["']?\s*[:=]\s*["']?(\w+))?`)
	// unprotected matches a value that is false in YAML, or for a flag.
	unprotected = lazyregexp.New(`(?i)^(false|f|no|n|off|0)$`)
	// cisProfile matches RKE2's CIS profile, which sets that flag, as a key, a flag and a variable.
	cisProfile = lazyregexp.New(`(?i)profile["']?(?:\s*[:=]\s*|\s+)["']?cis`)
	// absolutePath matches what may be the path of a file that the kubelet reads: its own, in --config, --config-dir or a variable
	// for them, or a unit's environment.
	absolutePath = lazyregexp.New(`/[\w.@+/-]*[\w]`)
)

// kubeletNamed is how many files a kubelet's unit may lead to, and kubeletLargest how many bytes one of them may have.
const kubeletNamed, kubeletLargest = 64, 1 << 20

// Kubelet reads this from files: a hardened unit cannot see the kubelet's process. One file that protects is enough, whatever
// another says, because which of them wins differs from distribution to distribution.
func (r Root) Kubelet() Kubelet {
	flags, configs := r.kubeletFlags(), r.kubeletConfigs()
	configured := len(configs) > 0 || len(r.kubeletTraces()) > 0
	protected := false
	files := slices.Concat(configs, flags)
	for i := 0; i < len(files) && i < kubeletNamed; i++ {
		text := withoutComments(files[i])
		protected = protected || protectsKernel(text)
		own := i >= len(configs) && i < len(configs)+len(flags)
		configured = configured || !own && bytes.Contains(text, []byte("KubeletConfiguration"))
		if i < len(configs) {
			continue // a configuration leads to certificates, and logs, and sockets
		}
		for _, name := range absolutePath.FindAll(text, -1) {
			for _, file := range r.named(string(name)) {
				if !slices.Contains(files, file) {
					files = append(files, file)
				}
			}
		}
	}
	switch {
	case protected:
		return KubeletProtects
	case configured:
		return KubeletSets
	case len(flags) > 0 || exists(r.Path("usr/bin/kubelet")):
		return KubeletExpected
	}
	return NoKubelet
}

// named returns the files of text that a path stands for: itself, or a directory's drop-ins, whose names must end in .conf
// (--config-dir).
func (r Root) named(name string) []string {
	var files []string
	for _, file := range append(r.glob(name+"/*.conf"), r.Path(name)) {
		// The files of /proc are of no length, and reading some of them never ends.
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Size() > 0 && info.Size() <= kubeletLargest {
			files = append(files, file)
		}
	}
	return files
}

// protectsKernel reports whether this configuration or command line sets protectKernelDefaults.
func protectsKernel(text []byte) bool {
	return cisProfile.Match(text) || slices.ContainsFunc(protects.FindAllSubmatch(text, -1), func(m [][]byte) bool {
		return !unprotected.Match(m[1])
	})
}

// withoutComments returns a file without the lines that are comments in YAML or in a unit.
func withoutComments(file string) []byte {
	data, _ := os.ReadFile(file)
	var kept []byte
	for line := range bytes.Lines(data) {
		if start := bytes.TrimSpace(line); !bytes.HasPrefix(start, []byte("#")) && !bytes.HasPrefix(start, []byte(";")) {
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
