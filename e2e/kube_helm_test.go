//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lastgasp/lastgasp/e2e/story"
	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/kube"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// TestKubeHelm installs, upgrades and removes the chart with Helm itself, and lifts the fences that a listener left.
func TestKubeHelm(t *testing.T) {
	bin, err := story.Build(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	w := startKubeWorld(t, "observability")
	ctx := t.Context()
	helm := w.helm(t)
	const chart = "../packaging/helm/lastgasp"
	helm("install", "lastgasp", chart, "--create-namespace", "--set=config.cluster=prod-1")
	w.signIn(t)
	node := w.newNode(t, "worker", func(n *corev1.Node) { n.Labels = map[string]string{corev1.LabelOSStable: "linux"} })
	stop := w.runListener(t)
	w.newPod(t, "web", "worker", corev1.PodRunning, nil)
	eventually(t, "the policies to be proved", func() error { return w.cluster.Prove(ctx) })
	eventually(t, "the listener to be ready", w.cluster.Ready)
	w.checkFlowSchema(t)
	eventually(t, "the chart's pods to be admitted", func() error {
		list, err := w.admin.CoreV1().Pods(w.namespace).List(ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) != 2 {
			err = fmt.Errorf("%d pods", len(list.Items))
		}
		return err
	})

	w.kubectl(t, "apply", "-k", "../packaging/kubernetes/nodes")
	eventually(t, "the configurator's pod to be admitted on the node", func() error {
		list, err := w.admin.CoreV1().Pods("lastgasp-nodes").List(ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) != 1 {
			err = fmt.Errorf("%d pods", len(list.Items))
		}
		return err
	})
	w.kubectl(t, "delete", "-k", "../packaging/kubernetes/nodes", "--wait=false")

	// An older definition: the upgrade brings back what it lacks.
	w.kubectl(t, "patch", "crd", "nodedeaths.lastgasp.dev", "--type=json", `-p=[{"op":"remove","path":"/spec/names/shortNames"}]`)
	helm("upgrade", "lastgasp", chart, "--set=config.node=await,replicas=1")
	if got := w.kubectl(t, "get", "crd", "nodedeaths.lastgasp.dev", "-o=jsonpath={.spec.names.shortNames}"); got != `["nd"]` {
		t.Errorf("short names after the upgrade: %s", got)
	}
	if got := w.kubectl(t, "--namespace="+w.namespace, "get", "configmap", "listener", "-o=jsonpath={.data}"); !strings.Contains(got, "node: await") {
		t.Errorf("listener.yaml after the upgrade: %s", got)
	}
	if got := w.kubectl(t, "--namespace="+w.namespace, "get", "deployment", "listener", "-o=jsonpath={.spec.replicas}"); got != "1" {
		t.Errorf("%s replicas after the upgrade", got)
	}

	// What a listener leaves that is stopped in the middle of its work.
	death := kubeDeath("worker-boot-1")
	if _, err := w.cluster.CreateDeath(ctx, death); err != nil {
		t.Fatal(err)
	}
	yes := true
	eventually(t, "the node to be marked, once the client's own proof of the policies is noted", func() error {
		_, err := w.cluster.PatchNode(ctx, w.readNode(t, "worker"), cleanup.NodePatch{Fence: &yes, OutOfService: &yes,
			Mark: &policy.Mark{Death: death.Name, Boot: "boot-1", Reason: "x", OutOfService: true}})
		return err
	})
	if err := w.lab.Enroll(ctx, "worker", "boot-1", strings.Repeat("a", 64)); err != nil {
		t.Fatal(err)
	}
	patch := `{"status":{"conditions":[{"type":"lastgasp.dev/KernelHealthy","status":"False","reason":"KernelPanic"}]}}`
	if _, err := w.raw.CoreV1().Nodes().Patch(ctx, "worker", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}

	uninstall := func(args ...string) (string, error) {
		return w.listener(t, bin, append([]string{"uninstall"}, args...)...)
	}
	if out, err := uninstall("--namespace=" + w.namespace); err == nil || !strings.Contains(out, "would fence nodes again; stop it") {
		t.Fatalf("with a replica at work: %v\n%s", err, out)
	}
	stop()
	if out, err := uninstall("--namespace="+w.namespace, "--dry-run"); err != nil || !strings.Contains(out, "would: node worker: removed the fence") {
		t.Fatalf("dry run: %v\n%s", err, out)
	}
	if taints := w.ownTaints(t, "worker"); len(taints) != 2 {
		t.Errorf("taints after a dry run: %v", taints)
	}
	if out, err := uninstall("--namespace=" + w.namespace); err != nil || !strings.Contains(out, "node worker: removed the fence, the out-of-service taint") {
		t.Fatalf("%v\n%s", err, out)
	}
	clean := w.getNode(t, "worker")
	for key := range clean.Annotations {
		if strings.HasPrefix(key, "lastgasp.dev/") {
			t.Errorf("annotation %s is still there", key)
		}
	}
	for _, c := range clean.Status.Conditions {
		if strings.HasPrefix(string(c.Type), "lastgasp.dev/") {
			t.Errorf("condition %s is still there", c.Type)
		}
	}
	if taints := w.ownTaints(t, "worker"); len(taints) > 0 || clean.UID != node.UID {
		t.Errorf("taints %v", taints)
	}

	helm("uninstall", "lastgasp")
	if got := w.kubectl(t, "get", "validatingadmissionpolicies,clusterroles,clusterrolebindings,flowschemas", "-o=name"); strings.Contains(got, "lastgasp") {
		t.Errorf("left after helm uninstall:\n%s", got)
	}
	if out, err := w.listener(t, bin, "deaths", "-o", "wide"); err != nil || !strings.Contains(out, death.Name) {
		t.Errorf("the NodeDeath is gone with the chart: %v\n%s", err, out)
	}
	if out, err := uninstall("--namespace=" + w.namespace); err != nil || out != "lastgasp has left nothing on any Node\n" {
		t.Errorf("again: %v\n%s", err, out)
	}
	if out, err := uninstall("--namespace="+w.namespace, "--records"); err != nil || out != "all NodeDeaths deleted\n" {
		t.Errorf("records: %v\n%s", err, out)
	}
	eventually(t, "the NodeDeaths to be gone", func() error {
		out, err := w.listener(t, bin, "deaths")
		if err == nil && out != "no node has died\n" {
			err = errors.New(out)
		}
		return err
	})
}

// helm builds Helm, and returns a function that runs it as an administrator in the listener's namespace.
func (w *kubeWorld) helm(t *testing.T) func(args ...string) {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "helm"), "helm.sh/helm/v4/cmd/helm")
	build.Dir = "../packaging/helm"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build helm: %v\n%s", err, out)
	}
	config := must(w.lab.Kubeconfig("helm", "system:masters"))
	return func(args ...string) {
		t.Helper()
		cmd := w.ns.Command(t.Context(), filepath.Join(dir, "helm"), append(args, "--namespace="+w.namespace)...)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+config, "HOME="+dir, "HELM_CACHE_HOME="+dir, "HELM_CONFIG_HOME="+dir, "HELM_DATA_HOME="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// listener runs a command of lastgasp-listener as an administrator and returns what it prints.
func (w *kubeWorld) listener(t *testing.T, bin string, args ...string) (string, error) {
	t.Helper()
	config := must(w.lab.Kubeconfig("operator", "system:masters"))
	cmd := w.ns.Command(t.Context(), filepath.Join(bin, "lastgasp-listener"), append(args, "--kubeconfig="+config)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// runListener lets the listener's Cluster run until stop is called, when its Lease is gone.
func (w *kubeWorld) runListener(t *testing.T) (stop func()) {
	t.Helper()
	c, err := kube.New(kube.Config{REST: w.account, Replica: "listener-0", Namespace: w.namespace})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(stop)
	w.cluster = c
	eventually(t, "the caches to fill", func() error {
		if !c.Synced() {
			return errors.New("not synced")
		}
		return nil
	})
	return stop
}
