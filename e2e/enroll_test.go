//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lastgasp/lastgasp/configurator/enroll"
	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/story"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const secrets = "/run/lastgasp/gasp" // of this boot, in a guest

// enrolled is a guest with a real kubelet's credentials, beside a control plane without a listener: enrolment does not need one.
type enrolled struct {
	*guest
	cluster *lab.Cluster
	name    string // of the Node
}

// TestEnroll checks that a node pins its own Node on a real API server, whatever happens to either of them.
func TestEnroll(t *testing.T) {
	g := newGuest(t, "6.12", lab.VMSpec{})
	cluster, err := lab.StartCluster(t.Context(), t, lab.ClusterSpec{NS: g.net.Listener, Addr: lab.APIServerAddr.Addr(), Audit: true})
	if err != nil {
		t.Fatal(err)
	}
	w := &enrolled{guest: g, cluster: cluster, name: "node-1"}
	g.write(t, config, "endpoint: {static: ["+lab.ListenerAddr.Addr().String()+":6666]}\ncanary: {timeout: 100ms}\n")
	for _, dir := range []string{"/etc/kubernetes", "/var", "/var/lib", "/var/lib/kubelet", "/var/lib/kubelet/pki"} {
		if err := g.vm.Mkdir(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
	}
	defer g.startWatch(t)()

	t.Run("without credentials it says what it misses", func(t *testing.T) {
		w.awaitLine(t, "NO, so a death waits for a witness: this machine is not a Kubernetes node yet: /var/lib/kubelet/kubeconfig or ")
	})
	t.Run("without a Node it waits for it", func(t *testing.T) {
		w.writeCredentials(t)
		w.awaitLine(t, "NO, so a death waits for a witness: the Node is not registered yet")
	})
	t.Run("the kubelet's own Node is pinned", func(t *testing.T) {
		// The kubelet runs beside the guest, whose boot it reports: the credentials are what matters.
		if _, err := cluster.StartHollowNode(t.Context(), t, lab.HollowSpec{
			NS: g.net.Node, Name: w.name, IP: lab.NodeAddr.Addr(), BootID: g.vm.BootID()}); err != nil {
			t.Fatal(err)
		}
		w.awaitPin(t)
		w.awaitLine(t, "as node-1, with "+lab.KubeletConf)
		w.wantWriter(t)
	})
	t.Run("a pin that somebody removes comes back", func(t *testing.T) {
		w.annotate(t, `null`)
		w.awaitPin(t)
	})
	t.Run("a pin that somebody replaces comes back", func(t *testing.T) {
		w.annotate(t, `"`+g.vm.BootID()+`:forged"`)
		w.awaitPin(t)
	})
	t.Run("a Node of the same boot that is registered anew is pinned again", func(t *testing.T) {
		was := w.node(t)
		if err := cluster.Client().CoreV1().Nodes().Delete(t.Context(), w.name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.awaitLine(t, "NO, so a death waits for a witness: the Node is not registered yet")
		again := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: w.name}, Status: was.Status}
		made, err := cluster.Client().CoreV1().Nodes().Create(t.Context(), again, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		w.awaitPin(t)
		if now := w.node(t); now.UID != made.UID || now.UID == was.UID {
			t.Errorf("the Node is %s, made was %s, before it was %s", now.UID, made.UID, was.UID)
		}
	})
	t.Run("a second installation in the same boot has another secret, and the pin follows", func(t *testing.T) {
		w.newSecret(t)
		w.awaitPin(t)
	})
	t.Run("an outage of the API server and a rotated certificate are survived", func(t *testing.T) {
		cluster.StopAPIServer()
		w.awaitLine(t, "as node-1, but the Node cannot be watched: ")
		w.writeCredentials(t)
		if err := cluster.StartAPIServer(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.annotate(t, `null`)
		w.awaitPin(t)
		w.awaitLine(t, "as node-1, with "+lab.KubeletConf)
	})
	t.Run("its credentials pin no other Node", func(t *testing.T) {
		other, err := cluster.Client().CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-2"},
			Status: corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{BootID: g.vm.BootID()}}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		client, err := cluster.NodeClient(w.name)
		if err != nil {
			t.Fatal(err)
		}
		patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"forged"}}}`, enroll.PinKey)
		for _, subresources := range [][]string{nil, {"status"}} {
			_, err := client.CoreV1().Nodes().Patch(t.Context(), other.Name, types.MergePatchType, patch, metav1.PatchOptions{}, subresources...)
			if !apierrors.IsForbidden(err) {
				t.Errorf("patch of %s %v: %v; NodeRestriction forbids it", other.Name, subresources, err)
			}
		}
	})
	t.Run("with what we ship installed the node itself still may, and nobody else", func(t *testing.T) {
		root, err := lab.CheckoutRoot()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cluster.Kubectl(t.Context(), "apply", "--kustomize", filepath.Join(root, "packaging/kubernetes")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the policy to be in force", func() error {
			if err := w.tryAnnotate(t, `"`+g.vm.BootID()+`:forged"`); !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) {
				return fmt.Errorf("the administrator may replace the pin: %v", err)
			}
			return nil
		})
		if err := w.tryAnnotate(t, `null`); !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) {
			t.Errorf("the administrator may remove the pin: %v", err)
		}
		w.newSecret(t)
		w.awaitPin(t)
	})
	t.Run("credentials that are no node's are refused in words", func(t *testing.T) {
		path, err := cluster.Kubeconfig("admin", "system:masters")
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		g.write(t, "/etc/kubernetes/admin.conf", string(text))
		r, err := g.vm.RunProgram(t.Context(), lab.Program{Argv: []string{"/usr/bin/lastgasp-configurator", "enroll"},
			Env: []string{"LASTGASP_ENROLL_KUBECONFIG=/etc/kubernetes/admin.conf"}})
		if err != nil {
			t.Fatal(err)
		}
		want := `these credentials belong to "admin", which is not a node; set enroll.kubeconfig to the kubelet's own`
		if r.Exit != 1 || !strings.Contains(r.Stderr, want) {
			t.Errorf("exit %d, stderr %s; want %s", r.Exit, r.Stderr, want)
		}
	})
	t.Run("enroll says at once that it is", func(t *testing.T) {
		r := g.run(t, 0, "enroll")
		if want := "enrolled as node-1, with " + lab.KubeletConf + "\n"; r.Stdout != want {
			t.Errorf("it said %q, want %q", r.Stdout, want)
		}
	})
}

// TestNotEnrolled shows what happens if a node cannot pin its own Node: there is only a claim, and the death waits until the
// Lease has not been renewed for its whole duration.
func TestNotEnrolled(t *testing.T) {
	w, err := story.NewWorld(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := lab.FetchKernel(t.Context(), t, "6.12")
	if err != nil {
		t.Fatal(err)
	}
	n, err := w.BootNode(t.Context(), t, story.NodeSpec{Name: "node-1", Kernel: kernel, NoEnroll: true})
	if err != nil {
		w.Explain(t)
		t.Fatal(err)
	}
	eventually(t, "the claim", func() error {
		node, err := w.Cluster.Client().CoreV1().Nodes().Get(t.Context(), n.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if node.Annotations[enroll.PinKey] != "" {
			t.Fatal("somebody else has pinned it")
		}
		if !strings.HasPrefix(node.Annotations[enroll.ClaimKey], n.BootID+":") {
			return fmt.Errorf("it is %q", node.Annotations[enroll.ClaimKey])
		}
		return nil
	})
	if err := w.AwaitLease(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	victims, err := w.Deploy(t.Context(), n.Namespace, n.Name)
	if err != nil {
		w.Explain(t)
		t.Fatal(err)
	}
	d, err := w.Kill(t.Context(), n, lab.CrashSysrq, victims, 2*busy)
	if err != nil {
		w.Explain(t)
		t.Fatal(err)
	}
	if d.NodeDeath.Spec.Authority != "claimed" {
		t.Errorf("authority %s, want claimed", d.NodeDeath.Spec.Authority)
	}
	// The Lease lasts 40 s and was renewed at most 10 s before the panic.
	if waited := d.PodsFailed.Sub(d.Heard); waited < 30*time.Second {
		t.Errorf("pods were failed after %v, without a witness", waited)
	}
	t.Logf("fenced after %v, pods failed after %v", d.Fenced.Sub(d.Heard), d.PodsFailed.Sub(d.Heard))
}

// writeCredentials gives the guest's kubelet credentials, other ones every time.
func (w *enrolled) writeCredentials(t *testing.T) {
	t.Helper()
	files, err := w.cluster.KubeletFiles(w.name)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{lab.KubeletPEM, lab.KubeletConf} {
		if err := w.vm.WriteFile(t.Context(), path, files[path], 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *enrolled) node(t *testing.T) *corev1.Node {
	t.Helper()
	n, err := w.cluster.Client().CoreV1().Nodes().Get(t.Context(), w.name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// wantedPin returns the pin of the guest's secret.
func (w *enrolled) wantedPin(t *testing.T) string {
	t.Helper()
	boot, secret, ok := strings.Cut(w.read(t, secrets), " ")
	if !ok {
		t.Fatalf("%s holds no boot and secret", secrets)
	}
	return boot + ":" + netconsole.Secret(secret).Sum()
}

func (w *enrolled) awaitPin(t *testing.T) {
	t.Helper()
	eventually(t, "the pin", func() error {
		n, err := w.cluster.Client().CoreV1().Nodes().Get(t.Context(), w.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if got, want := n.Annotations[enroll.PinKey], w.wantedPin(t); got != want {
			return fmt.Errorf("it is %q, want %q", got, want)
		}
		return nil
	})
}

// newSecret makes another secret, as a second installation would.
func (w *enrolled) newSecret(t *testing.T) {
	t.Helper()
	was := w.wantedPin(t)
	if err := w.vm.Remove(t.Context(), secrets); err != nil {
		t.Fatal(err)
	}
	w.run(t, 1, "apply") // nobody acknowledges
	if is := w.wantedPin(t); is == was {
		t.Fatal("the secret is the same")
	}
}

// annotate sets the pin as the administrator, to JSON.
func (w *enrolled) annotate(t *testing.T, value string) {
	t.Helper()
	if err := w.tryAnnotate(t, value); err != nil {
		t.Fatal(err)
	}
}

func (w *enrolled) tryAnnotate(t *testing.T, value string) error {
	t.Helper()
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%s}}}`, enroll.PinKey, value)
	_, err := w.cluster.Client().CoreV1().Nodes().Patch(t.Context(), w.name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// awaitLine waits until status says this about enrolment, at the beginning of the line.
func (w *enrolled) awaitLine(t *testing.T, want string) {
	t.Helper()
	eventually(t, "the status line", func() error {
		r, err := w.vm.Run(t.Context(), "/usr/bin/lastgasp-configurator", "status")
		if err != nil {
			return err
		}
		for line := range strings.Lines(r.Stdout) {
			if rest, ok := strings.CutPrefix(line, "enrolled"); ok && strings.HasPrefix(strings.TrimSpace(rest), want) {
				return nil
			}
		}
		return fmt.Errorf("%q is not in\n%s", want, r.Stdout)
	})
}

// wantWriter checks in the audit log that it was the node itself who wrote the pin.
func (w *enrolled) wantWriter(t *testing.T) {
	t.Helper()
	f, err := os.Open(w.cluster.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var users []string
	for lines := bufio.NewReader(f); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break // a line without its end is still being written
		}
		var e struct {
			Verb, UserAgent string
			User            struct{ Username string }
			ObjectRef       struct{ Resource, Subresource, Name string }
			Status          struct{ Code int } `json:"responseStatus"`
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		if e.Verb == "patch" && e.ObjectRef.Resource == "nodes" && e.ObjectRef.Subresource == "" && e.ObjectRef.Name == w.name &&
			e.Status.Code == 200 && strings.HasPrefix(e.UserAgent, "lastgasp-configurator/") {
			users = append(users, e.User.Username)
		}
	}
	slices.Sort(users) // a write whose answer was late is done again
	if users = slices.Compact(users); len(users) != 1 || users[0] != "system:node:"+w.name {
		t.Errorf("the pin was written by %q, want system:node:%s", users, w.name)
	}
}
