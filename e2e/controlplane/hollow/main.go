// Command hollow is a real kubelet on a fake container runtime: it registers its Node, renews its Lease, runs the
// pods bound to it and reports their status as any kubelet does, but no container is ever started. It can be the only
// program of a machine, and several can share one.
//
// It needs nothing but /proc, /sys and a folder to write to.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace/noop"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	remote "k8s.io/cri-client/pkg"
	fakecri "k8s.io/cri-client/pkg/fake"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/cm"
	"k8s.io/kubernetes/pkg/kubemark"
)

func main() {
	// Half the usual head room: the guests this runs in are small, and it allocates little.
	debug.SetGCPercent(50)

	n := bindFlags(flag.CommandLine)
	flag.Parse()
	if err := n.run(context.Background()); err != nil {
		fmt.Fprintf(os.Stderr, "hollow: %v\n", err)
		os.Exit(1)
	}
}

// node is one hollow kubelet as its flags describe it.
type node struct {
	kubeconfig, name, ip, providerID, rootDir, manifests, labels string
	machine                                                      machine
}

func bindFlags(fs *flag.FlagSet) *node {
	n := &node{}
	fs.StringVar(&n.kubeconfig, "kubeconfig", "", "kubeconfig `file` of system:node:<name> (required)")
	fs.StringVar(&n.name, "name", "", "`name` of the Node (required)")
	fs.StringVar(&n.ip, "node-ip", "", "`address` of the Node, which must be on an interface and not on lo (required)")
	fs.StringVar(&n.providerID, "provider-id", "", "spec.providerID of the Node (default hollow://<name>)")
	fs.StringVar(&n.rootDir, "root-dir", "/var/lib/hollow", "`folder` for the kubelet's files and the runtime's socket")
	fs.StringVar(&n.manifests, "pod-manifest-path", "", "`folder` of static pods")
	fs.StringVar(&n.labels, "labels", "", "labels of the Node, as `key=value,…`")
	fs.StringVar(&n.machine.bootID, "boot-id", "", "nodeInfo.bootID (default /proc/sys/kernel/random/boot_id)")
	fs.StringVar(&n.machine.kernelRelease, "kernel-release", "", "nodeInfo.kernelVersion (default /proc/sys/kernel/osrelease)")
	fs.StringVar(&n.machine.machineID, "machine-id", "", "nodeInfo.machineID and systemUUID (default /etc/machine-id, where there is one)")
	return n
}

// run serves until the process is killed.
func (n *node) run(ctx context.Context) error {
	if n.kubeconfig == "" || n.name == "" || n.ip == "" {
		return fmt.Errorf("--kubeconfig, --name and --node-ip are required")
	}
	if err := n.machine.complete(); err != nil {
		return err
	}
	labels, err := parseLabels(n.labels)
	if err != nil {
		return err
	}
	if err := furnish(n.rootDir, "/etc"); err != nil {
		return err
	}
	flags, config, err := n.configuration(labels)
	if err != nil {
		return err
	}
	client, heartbeat, err := clients(n.kubeconfig, config.NodeStatusUpdateFrequency.Duration)
	if err != nil {
		return err
	}

	// A socket of our own below the root folder: the fake's own choice is a fixed folder shared by all, where a killed
	// node leaves it behind.
	path := filepath.Join(n.rootDir, "cri.sock")
	if len(path) > 107 { // unix(7)
		return fmt.Errorf("start container runtime: a socket cannot have a name as long as %s: choose a shorter --root-dir", path)
	}
	socket := "unix://" + path
	runtime := fakecri.NewFakeRemoteRuntime()
	if err := runtime.Start(socket); err != nil {
		return fmt.Errorf("start container runtime: %w", err)
	}
	service, err := remote.NewRemoteRuntimeService(ctx, socket, 15*time.Second, noop.NewTracerProvider(), false)
	if err != nil {
		return fmt.Errorf("connect to container runtime: %w", err)
	}

	kubelet := kubemark.NewHollowKubelet(flags, config, client, heartbeat, &cadvisor{machine: n.machine},
		runtime.ImageService, service, cm.NewStubContainerManager())
	kubelet.KubeletDeps.VolumePlugins = newVolumes().instead(kubelet.KubeletDeps.VolumePlugins)
	if kmsg, err := os.Open("/dev/kmsg"); err == nil {
		// Without a recorder the kubelet makes a real one, for its event about a reboot. A real one comes with an OOM watcher,
		// which insists on /dev/kmsg.
		kmsg.Close()
		kubelet.KubeletDeps.Recorder = nil
		kubelet.KubeletDeps.EventClient = client.CoreV1()
	}
	klog.InfoS("Hollow kubelet starts", "node", n.name, "bootID", n.machine.bootID, "kernel", n.machine.kernelRelease)
	kubelet.Run(ctx)
	return nil
}

// clients makes the two clients of a kubelet: one for work, and one for status and Lease that no queue delays and that gives up
// before the next heartbeat is due.
func clients(kubeconfig string, heartbeatEvery time.Duration) (work, heartbeat *kubernetes.Clientset, err error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.QPS, config.Burst = 50, 100 // the kubelet's own defaults
	config.UserAgent = "hollow-kubelet"
	if work, err = kubernetes.NewForConfig(config); err != nil {
		return nil, nil, fmt.Errorf("make client: %w", err)
	}
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.Timeout = heartbeatEvery
	if heartbeat, err = kubernetes.NewForConfig(config); err != nil {
		return nil, nil, fmt.Errorf("make heartbeat client: %w", err)
	}
	return work, heartbeat, nil
}

func parseLabels(s string) (map[string]string, error) {
	labels := map[string]string{}
	for pair := range strings.SplitSeq(s, ",") {
		if pair == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("parse --labels: %q is not key=value", pair)
		}
		labels[key] = value
	}
	return labels, nil
}
