//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/kube"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// deaths is the resource, for clients that know no types.
var deaths = schema.GroupVersionResource{Group: "lastgasp.dev", Version: "v1alpha1", Resource: "nodedeaths"}

// kubeWorld is a control plane with packaging/kubernetes applied.
type kubeWorld struct {
	lab     *lab.Cluster
	net     *lab.Net
	ns      *lab.NS // of the control plane
	admin   kubernetes.Interface
	account *rest.Config          // of the listener's service account
	raw     *kubernetes.Clientset // the same, for what our own client would never send
	dynamic dynamic.Interface     // the same, for custom resources
	cluster *kube.Cluster

	namespace string // of the listener
	installed string // kustomization that was applied

	replicas atomic.Int32 // processes started, whose addresses must differ
}

// newKubeWorld installs packaging/kubernetes as it is.
func newKubeWorld(t *testing.T) *kubeWorld { return newKubeWorldIn(t, "lastgasp") }

// newKubeWorldIn installs into a namespace: another one than lastgasp is there before, and named by an overlay.
func newKubeWorldIn(t *testing.T, namespace string) *kubeWorld {
	w := startKubeWorld(t, namespace)
	if namespace != "lastgasp" {
		w.kubectl(t, "create", "namespace", namespace)
		w.installed = overlay(t, "namespace: "+namespace+"\n"+replacements(t))
	}
	w.kubectl(t, "apply", "-k", w.installed)
	w.signIn(t)
	w.cluster = w.connect(t, kube.Config{REST: w.account, Replica: "listener-0", Namespace: namespace})
	w.awaitPolicies(t)
	return w
}

// startKubeWorld starts a control plane on which nothing is installed yet.
func startKubeWorld(t *testing.T, namespace string) *kubeWorld {
	net, err := lab.NewNet(t)
	if err != nil {
		t.Fatal(err)
	}
	c, err := lab.StartCluster(t.Context(), t, lab.ClusterSpec{NS: net.Listener, Addr: lab.APIServerAddr.Addr(), Audit: true})
	if err != nil {
		t.Fatal(err)
	}
	return &kubeWorld{
		lab: c, net: net, ns: net.Listener, admin: c.Client(), namespace: namespace, installed: "../packaging/kubernetes",
	}
}

// signIn makes the clients of the listener's account, which has been installed.
func (w *kubeWorld) signIn(t *testing.T) {
	t.Helper()
	w.kubectl(t, "wait", "--for=condition=Established", "--timeout=5m", "crd/nodedeaths.lastgasp.dev")
	token, err := w.admin.CoreV1().ServiceAccounts(w.namespace).CreateToken(t.Context(), "listener",
		&authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.account = rest.AnonymousClientConfig(w.lab.RESTConfig())
	w.account.BearerToken = token.Status.Token
	w.raw = must(kubernetes.NewForConfig(w.account))
	w.dynamic = must(dynamic.NewForConfig(w.account))
}

// overlay is a kustomization on top of packaging/kubernetes/base, as a user would write it. PACKAGING in it is that path without
// base.
func overlay(t *testing.T, text string) string {
	t.Helper()
	base, err := filepath.Abs("../packaging/kubernetes/base")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if base, err = filepath.Rel(dir, base); err != nil { // kustomize wants it relative
		t.Fatal(err)
	}
	text = strings.ReplaceAll(text, "PACKAGING", filepath.Dir(base))
	text = "resources: [" + base + "]\n" + text + "\n"
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// replacements is what base/flowschema.yaml tells overlays to write.
func replacements(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../packaging/kubernetes/base/flowschema.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var says strings.Builder
	for line := range strings.Lines(string(text)) {
		if written, indented := strings.CutPrefix(line, "#   "); indented {
			says.WriteString(written)
		}
	}
	if !strings.HasPrefix(says.String(), "replacements:\n") {
		t.Fatalf("flowschema.yaml says %q", says.String())
	}
	return says.String()
}

// connect returns a running Cluster that has seen the nodes there are.
func (w *kubeWorld) connect(t *testing.T, cfg kube.Config) *kube.Cluster {
	t.Helper()
	c, err := kube.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if c.Synced() {
		t.Fatal("synced before Run")
	}
	if _, err := c.FindNode(t.Context(), cleanup.Sender{Addr: netip.MustParseAddr("10.0.0.1")}); err == nil || errors.Is(err, cleanup.ErrNotFound) {
		t.Fatalf("find a node before the cache is filled: %v, want an error that may pass", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	eventually(t, "the caches to fill", func() error {
		if !c.Synced() {
			return errors.New("not synced")
		}
		return nil
	})
	return c
}

// awaitPolicies waits until the API server enforces the policies, which it does some moments after it has them.
func (w *kubeWorld) awaitPolicies(t *testing.T) {
	pod := w.newPod(t, "canary", w.newNode(t, "canary", nil).Name, corev1.PodRunning, nil)
	node := w.readNode(t, "canary")
	eventually(t, "the policies to be in force", func() error {
		if err := w.cluster.DeletePod(t.Context(), pod); !errors.Is(err, cleanup.ErrDenied) {
			// It is gone now; another one will tell.
			pod = w.newPod(t, fmt.Sprintf("canary-%d", time.Now().UnixNano()), "canary", corev1.PodRunning, nil)
			return fmt.Errorf("delete an unmarked pod: %v", err)
		}
		err := w.cluster.DeleteNode(t.Context(), node)
		if errors.Is(err, cleanup.ErrDenied) {
			return nil
		}
		if err == nil {
			w.newNode(t, "canary", nil)
		}
		node = w.readNode(t, "canary")
		return fmt.Errorf("delete an unmarked node: %v", err)
	})
}

func (w *kubeWorld) newNode(t *testing.T, name string, change func(*corev1.Node)) *corev1.Node {
	t.Helper()
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			NodeInfo:   corev1.NodeSystemInfo{BootID: "boot-1"},
		},
	}
	if change != nil {
		change(n)
	}
	out, err := w.admin.CoreV1().Nodes().Create(t.Context(), n, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.admin.CoreV1().Nodes().Delete(context.Background(), name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(out.UID))})
	})
	return out
}

// setBoot writes what the kubelet of a rebooted node would.
func (w *kubeWorld) setBoot(t *testing.T, node, boot string) {
	t.Helper()
	_, err := w.admin.CoreV1().Nodes().Patch(t.Context(), node, types.StrategicMergePatchType,
		[]byte(fmt.Sprintf(`{"status":{"nodeInfo":{"bootID":%q}}}`, boot)), metav1.PatchOptions{}, "status")
	if err != nil {
		t.Fatal(err)
	}
}

func setAddresses(n *corev1.Node, addrs ...string) {
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: n.Name}}
	for _, a := range addrs {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
}

func (w *kubeWorld) newPod(t *testing.T, name, node string, phase corev1.PodPhase, change func(*corev1.Pod)) policy.Pod {
	t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			NodeName:                     node,
			AutomountServiceAccountToken: ptr(false),
			Containers:                   []corev1.Container{{Name: "main", Image: "none"}},
		},
	}
	if change != nil {
		change(p)
	}
	if _, err := w.admin.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.admin.CoreV1().Pods("default").Delete(context.Background(), name, metav1.DeleteOptions{GracePeriodSeconds: ptr(int64(0))})
	})
	w.setPhase(t, name, phase)
	return w.readPod(t, name)
}

// setPhase writes the status that a kubelet would.
func (w *kubeWorld) setPhase(t *testing.T, name string, phase corev1.PodPhase) {
	t.Helper()
	status := map[string]any{"phase": phase, "conditions": []map[string]string{
		{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}, {"type": "ContainersReady", "status": "True"},
	}}
	if phase == corev1.PodRunning {
		status["containerStatuses"] = []map[string]any{{
			"name": "main", "image": "none", "imageID": "", "ready": true, "restartCount": 0,
			"state": map[string]any{"running": map[string]any{"startedAt": "2026-11-21T09:00:00Z"}},
		}}
	}
	patch := must(json.Marshal(map[string]any{"status": status}))
	_, err := w.admin.CoreV1().Pods("default").Patch(t.Context(), name, types.StrategicMergePatchType, patch,
		metav1.PatchOptions{FieldManager: "kubelet"}, "status")
	if err != nil {
		t.Fatal(err)
	}
}

// patchNode patches a node as our client, again when somebody else (the node lifecycle controller) was faster.
func (w *kubeWorld) patchNode(t *testing.T, name string, p cleanup.NodePatch) policy.Node {
	t.Helper()
	for range 20 {
		n, err := w.cluster.PatchNode(t.Context(), w.readNode(t, name), p)
		if errors.Is(err, cleanup.ErrConflict) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	t.Fatalf("node %s changes all the time", name)
	return policy.Node{}
}

func (w *kubeWorld) deleteNode(ctx context.Context, n policy.Node) error {
	err := w.cluster.DeleteNode(ctx, n)
	for range 20 {
		if !errors.Is(err, cleanup.ErrConflict) {
			break
		}
		if n, err = w.cluster.Node(ctx, n.Name); err == nil {
			err = w.cluster.DeleteNode(ctx, n)
		}
	}
	return err
}

func (w *kubeWorld) readNode(t *testing.T, name string) policy.Node {
	t.Helper()
	return ask(t, func() (policy.Node, error) { return w.cluster.Node(t.Context(), name) })
}

func (w *kubeWorld) readPod(t *testing.T, name string) policy.Pod {
	t.Helper()
	return ask(t, func() (policy.Pod, error) { return w.cluster.Pod(t.Context(), "default", name) })
}

func (w *kubeWorld) getNode(t *testing.T, name string) *corev1.Node {
	t.Helper()
	return ask(t, func() (*corev1.Node, error) {
		return w.admin.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	})
}

func (w *kubeWorld) getPod(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	return ask(t, func() (*corev1.Pod, error) {
		return w.admin.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
	})
}

// ask reads until there is an answer: an API server on a busy machine may give none. That nothing is there is one, and ends
// the test.
func ask[T any](t *testing.T, read func() (T, error)) (out T) {
	t.Helper()
	eventually(t, "an answer of the API server", func() (err error) {
		if out, err = read(); apierrors.IsNotFound(err) || errors.Is(err, cleanup.ErrNotFound) {
			t.Fatal(err)
		}
		return err
	})
	return out
}

func (w *kubeWorld) mustDeleteNode(t *testing.T, name string) {
	t.Helper()
	if err := w.admin.CoreV1().Nodes().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (w *kubeWorld) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	for n := 1; ; n++ {
		out, err := w.lab.Kubectl(t.Context(), args...)
		if err == nil {
			return out
		}
		if !slices.ContainsFunc(noAnswer, func(text string) bool { return strings.Contains(err.Error(), text) }) || n == 10 {
			t.Fatal(err)
		}
		t.Logf("tried again: %v", err)
		time.Sleep(time.Second)
	}
}

// noAnswer is what kubectl says when an API server, or its etcd, is too busy.
var noAnswer = []string{
	"etcdserver: ", "TLS handshake timeout", "i/o timeout", "unexpected EOF", "context deadline exceeded", "Timeout: request did not complete",
	"the server was unable to return a response in the time allotted", "the server is currently unable to handle the request",
	"the server has received too many requests",
}

// busy bounds every wait for something that is to happen: many times what a busy machine needs.
const busy = 5 * time.Minute

// eventually asks until the answer is nil: things in a cluster follow each other, and how fast they do on a busy machine is not what
// these tests are about.
func eventually(t *testing.T, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(busy)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("wait for %s: %v", what, err)
		}
		<-tick.C
	}
}

// wantErr turns the answer to a read into an error unless it is want.
func wantErr(want error) func(any, error) error {
	return func(got any, err error) error {
		if !errors.Is(err, want) {
			return fmt.Errorf("%+v, error %v; want %v", got, err, want)
		}
		return nil
	}
}

func ptr[T any](v T) *T { return &v }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
