package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"k8s.io/kubernetes/cmd/kubelet/app/options"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
)

// configuration is a kubelet's with its own defaults (heartbeats, lease, resync), less what needs cgroups, iptables or
// a port that several nodes of one machine would quarrel over.
func (n *node) configuration(labels map[string]string) (*options.KubeletFlags, *kubeletconfig.KubeletConfiguration, error) {
	flags := options.NewKubeletFlags()
	flags.RootDirectory = n.rootDir
	flags.HostnameOverride = n.name
	flags.NodeIP = n.ip
	flags.NodeLabels = labels

	config, err := options.NewKubeletConfiguration()
	if err != nil {
		return nil, nil, fmt.Errorf("default the kubelet's configuration: %w", err)
	}
	config.ProviderID = n.providerID
	if config.ProviderID == "" {
		config.ProviderID = "hollow://" + n.name
	}
	config.StaticPodPath = n.manifests
	config.PodLogsDir = filepath.Join(n.rootDir, "pod-logs")
	config.ClusterDNS = []string{"10.96.0.10"} // nobody asks it; without one every pod gets a warning
	config.ClusterDomain = "cluster.local"
	config.ResolverConfig = "" // pods get no resolv.conf of the machine's, which may have none
	config.EnableServer = false
	config.ReadOnlyPort = 0
	config.CgroupsPerQOS = false
	config.EnforceNodeAllocatable = nil
	config.MakeIPTablesUtilChains = false
	// Nobody uses memory or disk here, and nobody logs: without these it would complain of missing figures and files
	// every ten seconds.
	config.EvictionHard = nil
	config.LocalStorageCapacityIsolation = false
	config.ContainerLogMonitorInterval.Duration = time.Hour
	return flags, config, nil
}

// furnish makes the root folder, and the two files of /etc that a kubelet cannot do without and a machine of one
// program may lack: passwd, where user namespaces look up their user, and hosts, which pods on the host's network
// inherit. Files that are there stay as they are.
func furnish(rootDir, etc string) error {
	for _, dir := range []string{rootDir, etc} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	for _, name := range []string{"passwd", "hosts"} {
		file, err := os.OpenFile(filepath.Join(etc, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("make empty file: %w", err)
		}
		file.Close()
	}
	return nil
}
