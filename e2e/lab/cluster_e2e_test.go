//go:build e2e

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/vishvananda/netlink"
)

// workloads is one of every kind of pod owner. Both Deployment and StatefulSet spread over the nodes.
const workloads = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}
      containers: [{name: web, image: web}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers: [{name: db, image: db}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      containers: [{name: agent, image: agent}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: batch}
spec:
  template:
    metadata: {labels: {app: batch}}
    spec:
      restartPolicy: Never
      containers: [{name: batch, image: batch}]
`

const staticPod = `
apiVersion: v1
kind: Pod
metadata: {name: static, labels: {app: static}}
spec:
  hostNetwork: true
  containers: [{name: static, image: static}]
`

// bootA and bootB are the boot ids of node a before and after it is started again.
const (
	bootA = "aaaaaaaa-0000-4000-8000-000000000001"
	bootB = "aaaaaaaa-0000-4000-8000-000000000002"
)

func TestClusterSurvivesItsNodesAndItsAPIServer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces need root")
	}
	var ns *NS
	var c *Cluster
	var processes []*process
	t.Run("life", func(t *testing.T) {
		ctx := t.Context()
		start := time.Now()
		ns = clusterNamespace(t, "10.66.0.1/24", "10.66.0.11/24", "10.66.0.12/24")
		var err error
		c, err = StartCluster(ctx, t, ClusterSpec{NS: ns, Addr: netip.MustParseAddr("10.66.0.1"), Audit: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("control plane is up after %s", time.Since(start).Round(10*time.Millisecond))

		manifests := t.TempDir()
		if err := os.WriteFile(filepath.Join(manifests, "static.yaml"), []byte(staticPod), 0o644); err != nil {
			t.Fatal(err)
		}
		specA := HollowSpec{NS: ns, Name: "node-a", IP: netip.MustParseAddr("10.66.0.11"), BootID: bootA,
			ProviderID: "aws:///usw2-az1/i-0123456789abcdef0", ManifestDir: manifests}
		a, err := c.StartHollowNode(ctx, t, specA)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.StartHollowNode(ctx, t, HollowSpec{NS: ns, Name: "node-b", IP: netip.MustParseAddr("10.66.0.12")}); err != nil {
			t.Fatal(err)
		}
		t.Logf("both nodes are ready after %s", time.Since(start).Round(10*time.Millisecond))

		node := getNode(t, c, "node-a")
		if got := node.Status.NodeInfo.BootID; got != bootA {
			t.Errorf("boot id of node-a: %q, want %q", got, bootA)
		}
		if got := node.Spec.ProviderID; got != specA.ProviderID {
			t.Errorf("provider id of node-a: %q, want %q", got, specA.ProviderID)
		}

		if _, err := c.KubectlAs(ctx, c.admin, workloads, "apply", "-f", "-"); err != nil {
			t.Fatal(err)
		}
		awaitRunning(t, c, map[string][]string{
			"web":    {"node-a", "node-a", "node-b", "node-b"},
			"db":     {"node-a", "node-b"},
			"agent":  {"node-a", "node-b"},
			"batch":  nil,
			"static": {"node-a"},
		})
		t.Logf("all pods run after %s", time.Since(start).Round(10*time.Millisecond))
		processes = slices.Clone(c.running)

		t.Run("a client is who it says and may do what it may", func(t *testing.T) { checkAccess(t, c) })
		t.Run("a dead node's pods are replaced on the other", func(t *testing.T) { checkDeadNode(t, c, a) })
		t.Run("an API server comes back as it was", func(t *testing.T) { checkAPIServer(t, c) })
		t.Run("a node comes back on another boot", func(t *testing.T) {
			specA.BootID = bootB
			if _, err := c.StartHollowNode(t.Context(), t, specA); err != nil {
				t.Fatal(err)
			}
			if got := getNode(t, c, "node-a").Status.NodeInfo.BootID; got != bootB {
				t.Errorf("boot id of node-a: %q, want %q", got, bootB)
			}
			err := c.await(t.Context(), "the Rebooted event", func(ctx context.Context) (bool, error) {
				events, err := c.client.CoreV1().Events("").List(ctx, metav1.ListOptions{FieldSelector: "reason=Rebooted,involvedObject.name=node-a"})
				return err == nil && len(events.Items) > 0, err
			})
			if err != nil {
				t.Error(err)
			}
		})
	})
	if t.Failed() {
		return
	}
	for _, p := range processes {
		select {
		case <-p.done:
		default:
			t.Errorf("%s outlives its cluster", p.name)
		}
	}
	for _, path := range []string{c.dir, filepath.Join("/run/netns", ns.Name)} {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s outlives its cluster (%v)", path, err)
		}
	}
}

// clusterNamespace is a namespace with a bridge that has all the addresses.
func clusterNamespace(t *testing.T, addrs ...string) *NS {
	ns, err := NewNS(t, "cluster")
	if err != nil {
		t.Fatal(err)
	}
	var prefixes []netip.Prefix
	for _, addr := range addrs {
		prefixes = append(prefixes, netip.MustParsePrefix(addr))
	}
	err = ns.Do(func() error {
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}); err != nil {
			return fmt.Errorf("add bridge: %w", err)
		}
		_, err := bringUp(bridgeName, prefixes...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// checkAccess tries three callers: a service account without rights, a node at another's status, and nobody.
func checkAccess(t *testing.T, c *Cluster) {
	path, err := c.ServiceAccountKubeconfig(t.Context(), "default", "default")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.KubectlAs(t.Context(), path, "", "get", "nodes")
	if want := `User "system:serviceaccount:default:default" cannot list resource "nodes"`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a service account without rights: %v, want … %s …", err, want)
	}
	path, err = c.NodeKubeconfig("node-b")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.KubectlAs(t.Context(), path, "", "label", "node", "node-a", "x=y")
	if want := "node 'node-b' cannot read 'node-a', only its own Node object"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a node at another's object: %v, want … %s …", err, want)
	}
	nobody, err := kubernetes.NewForConfig(rest.AnonymousClientConfig(c.RESTConfig()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nobody.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("a client without credentials: %v, want Unauthorized", err)
	}
	audit, err := os.ReadFile(c.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(audit), `"username":"system:serviceaccount:default:default"`) {
		t.Error("the audit log does not know of the service account")
	}
}

// checkDeadNode kills node a and does by hand what the listener would do.
func checkDeadNode(t *testing.T, c *Cluster, a *HollowNode) {
	ctx := t.Context()
	a.Kill()
	for _, args := range [][]string{
		{"taint", "node", "node-a", "lastgasp.dev/dead:NoSchedule"},
		{"delete", "pods", "--field-selector=spec.nodeName=node-a", "--force", "--grace-period=0"},
	} {
		if _, err := c.Kubectl(ctx, args...); err != nil {
			t.Fatal(err)
		}
	}
	awaitRunning(t, c, map[string][]string{ // not the Job's, which waits ten seconds before it tries again
		"web": {"node-b", "node-b", "node-b", "node-b"},
		"db":  {"node-b", "node-b"},
	})
}

func checkAPIServer(t *testing.T, c *Cluster) {
	ctx := t.Context()
	uid := getNode(t, c, "node-b").UID
	c.StopAPIServer()
	if _, err := c.client.CoreV1().Nodes().Get(ctx, "node-b", metav1.GetOptions{}); err == nil {
		t.Error("a killed API server still answers")
	}
	start := time.Now()
	if err := c.StartAPIServer(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("API server is back after %s", time.Since(start).Round(10*time.Millisecond))
	if got := getNode(t, c, "node-b").UID; got != uid {
		t.Errorf("node-b is another one after the restart: %s, was %s", got, uid)
	}
	// That needs every component: the controllers, the scheduler and the kubelet must all have reconnected.
	if _, err := c.Kubectl(ctx, "scale", "deployment", "web", "--replicas=5"); err != nil {
		t.Fatal(err)
	}
	awaitRunning(t, c, map[string][]string{"web": {"node-b", "node-b", "node-b", "node-b", "node-b"}})
}

func getNode(t *testing.T, c *Cluster, name string) *corev1.Node {
	t.Helper()
	node, err := c.client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return node
}

// awaitRunning waits until the running pods of each app are on just these nodes; nil is one pod on any node.
func awaitRunning(t *testing.T, c *Cluster, want map[string][]string) {
	t.Helper()
	err := c.await(t.Context(), "the pods to run", func(ctx context.Context) (bool, error) {
		pods, err := c.client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		got := map[string][]string{}
		for _, pod := range pods.Items {
			if pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp == nil {
				app := pod.Labels["app"]
				got[app] = append(got[app], pod.Spec.NodeName)
			}
		}
		for app, nodes := range want {
			slices.Sort(got[app])
			if nodes == nil && len(got[app]) != 1 || nodes != nil && !slices.Equal(got[app], nodes) {
				return false, fmt.Errorf("%s runs on %v, want %v", app, got[app], nodes)
			}
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
