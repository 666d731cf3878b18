//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/story"
	"github.com/lastgasp/lastgasp/listener/kube"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// hollowWorld is a kubeWorld with hollow nodes and a listener that hears them.
type hollowWorld struct {
	*kubeWorld
	fleet *story.Fleet
}

// newHollowWorld starts it with the listener's policy, as YAML.
func newHollowWorld(t *testing.T, policy string) *hollowWorld {
	return newHollowWorldOf(t, lab.ClusterSpec{Audit: true}, policy)
}

// newHollowWorldOf is newHollowWorld on a control plane as spec says.
func newHollowWorldOf(t *testing.T, spec lab.ClusterSpec, policy string) *hollowWorld {
	f, err := story.NewFleet(t.Context(), t, spec)
	if err != nil {
		t.Fatal(err)
	}
	w := &hollowWorld{fleet: f, kubeWorld: &kubeWorld{
		lab: f.Cluster, net: f.Net, ns: f.Net.Listener, admin: f.Cluster.Client(), namespace: "lastgasp", installed: "../packaging/kubernetes",
	}}
	w.signIn(t)
	w.cluster = w.connect(t, kube.Config{REST: f.Cluster.RESTConfig(), Replica: "the test"})
	if err := f.Listen(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	return w
}

// bystander is a living node with a pod, which must not be touched.
type bystander struct {
	*story.Hollow
	w        *hollowWorld
	node     types.UID
	pod      types.UID
	stranger *story.Voice // of a host that is not a node
	shares   *story.Voice // of a pod that shares the node's address
	strange  netip.Addr
}

// newBystander makes one that has not joined the cluster; start does that.
func (w *hollowWorld) newBystander(t *testing.T, name string) *bystander {
	t.Helper()
	h, err := w.fleet.NewHollow(name)
	if err != nil {
		t.Fatal(err)
	}
	v := &bystander{Hollow: h, w: w}
	if v.shares, err = w.fleet.Voice(w.fleet.Net.Node, v.Addr); err != nil {
		t.Fatal(err)
	}
	v.strange, v.stranger = w.address(t)
	return v
}

// listener returns the running listener.
func (w *hollowWorld) listener() *replica {
	return &replica{Daemon: w.fleet.Listener, log: w.fleet.ListenerLog, admin: "127.0.0.1:9666"}
}

// pinRefused waits until the listener logs that it refuses a canary's claim.
func (w *hollowWorld) pinRefused(t *testing.T, node string) {
	t.Helper()
	eventually(t, "the canary to be refused", func() error {
		log, err := os.ReadFile(w.fleet.ListenerLog)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, "canary refused") && strings.Contains(line, " node="+node+" ") {
				return nil
			}
		}
		return errors.New("the listener's log has nothing of it")
	})
}

// deathName returns the name of the NodeDeath of the node's present boot.
func (v *bystander) deathName() string { return policy.DeathName(v.Name, v.Identity.Boot) }

// without returns the node's identity without the secret, which every pod of the node can know.
func (v *bystander) without() netconsole.Identity {
	return netconsole.Identity{Instance: v.Identity.Instance, Boot: v.Identity.Boot}
}

// madeUp returns the same with an invented secret.
func (v *bystander) madeUp() netconsole.Identity {
	id := v.without()
	id.Secret = "bWFkZSB1cCBieSBhIHBvZA"
	return id
}

// start starts the kubelet with one pod.
func (v *bystander) start(t *testing.T) {
	t.Helper()
	if err := v.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.node = v.w.getNode(t, v.Name).UID
	pod, err := v.w.admin.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: v.Name},
		Spec: corev1.PodSpec{
			NodeName: v.Name, AutomountServiceAccountToken: ptr(false),
			Containers: []corev1.Container{{Name: "main", Image: "none"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	v.pod = pod.UID
	eventually(t, v.Name+"'s pod to run", func() error {
		if p := v.w.getPod(t, v.Name); p.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("it is %s", p.Status.Phase)
		}
		return nil
	})
}

// arm proves the node to the listener and has it pinned.
func (v *bystander) arm(t *testing.T) {
	t.Helper()
	if err := v.Arm(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// unharmed checks that the node is in service with its pod running.
func (v *bystander) unharmed(t *testing.T) {
	t.Helper()
	n, pod := v.w.getNode(t, v.Name), v.w.getPod(t, v.Name)
	_, marked := n.Annotations["lastgasp.dev/death"]
	if n.UID != v.node || marked || slices.ContainsFunc(n.Spec.Taints, isOurs) {
		t.Errorf("node %s, annotations %v, taints %v; want it as it was", n.UID, n.Annotations, n.Spec.Taints)
	}
	if pod.UID != v.pod || pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil || len(pod.Annotations) != 0 {
		t.Errorf("pod %s is %s, annotations %v; want it as it was", pod.UID, pod.Status.Phase, pod.Annotations)
	}
}

func isOurs(t corev1.Taint) bool {
	return strings.HasPrefix(t.Key, "lastgasp.dev/") || t.Key == corev1.TaintNodeOutOfService
}

// refusal is how a forged panic is refused.
type refusal struct {
	record    string
	authority string
	fenced    bool // the node may be fenced until a witness contradicts the incident
	why       string
}

// refused waits until the NodeDeath says so and the fence is lifted.
func (w *hollowWorld) refused(t *testing.T, want refusal) {
	t.Helper()
	var r policy.Death
	eventually(t, "the refusal", func() (err error) {
		if r, err = w.cluster.Death(t.Context(), want.record); err != nil {
			return err
		}
		if r.Phase != policy.Refused {
			return fmt.Errorf("phase %s: %s", r.Phase, r.Decision)
		}
		return nil
	})
	fenced := done(r, policy.StepFence)
	if got := r.Authority.String(); got != want.authority || fenced && !want.fenced || !strings.Contains(r.Decision, want.why) {
		t.Errorf("refused on %s authority, fenced %t: %s; want %s, %t, …%s…", got, fenced, r.Decision, want.authority, want.fenced, want.why)
	}
	if r.Node == "" {
		return
	}
	eventually(t, "the event", func() error {
		list, err := w.admin.EventsV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "regarding.name=" + r.Node})
		if err != nil {
			return err
		}
		for _, e := range list.Items {
			if e.Reason == "KernelPanicRefused" && e.Note == r.Decision {
				return nil
			}
		}
		return fmt.Errorf("none of %d events tells of it", len(list.Items))
	})
	eventually(t, "the fence to be lifted", func() error {
		n, err := w.cluster.Node(t.Context(), r.Node)
		if err == nil && (n.Fenced || n.Mark != (policy.Mark{})) {
			err = errors.New("it is there")
		}
		return err
	})
}
