package story

import (
	"context"
	"fmt"
	"path/filepath"
)

// Join prepares the cluster for a machine that is to become the node called name: a namespace of that name for its
// workloads, credentials, and a static pod. It returns the files that the machine needs, by their path there.
func (w *World) Join(ctx context.Context, name string) (map[string][]byte, error) {
	files, err := w.Cluster.KubeletFiles(name)
	if err != nil {
		return nil, err
	}
	if _, err := w.Cluster.Kubectl(ctx, "create", "namespace", name); err != nil {
		return nil, fmt.Errorf("make namespace: %w", err)
	}
	files["/etc/kubernetes/manifests/static.yaml"] = fmt.Appendf(nil, staticPod, name)
	return files, nil
}

// Program is the path of one of our own two programs, as the world runs it.
func (w *World) Program(name string) string { return filepath.Join(w.bin, name) }
