//go:build e2e

package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/story"
	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// newReplicaWorld is a kubeWorld for listeners that are processes of their own: nothing of ours is scheduled, and
// volumes are detached as attach/detach and a CSI driver do it.
func newReplicaWorld(t *testing.T) *kubeWorld {
	w := newKubeWorld(t)
	w.kubectl(t, "--namespace=lastgasp", "scale", "deployment", "listener", "--replicas=0")
	go w.detach(t.Context())
	return w
}

// detach detaches the volumes of nodes that are out of service until ctx ends. A watch that broke, because the API server was
// away, is started again and shows all of them.
func (w *kubeWorld) detach(ctx context.Context) {
	for tick := time.Tick(time.Second); ctx.Err() == nil; <-tick {
		nodes, err := w.admin.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{TimeoutSeconds: ptr(int64(60))})
		if err != nil {
			continue
		}
		for ev := range nodes.ResultChan() {
			if n, ok := ev.Object.(*corev1.Node); ok && slices.ContainsFunc(n.Spec.Taints, isOutOfService) {
				// Not found: it was detached before.
				w.admin.StorageV1().VolumeAttachments().Delete(ctx, n.Name, metav1.DeleteOptions{})
			}
		}
	}
}

// replica is a lastgasp-listener at work.
type replica struct {
	*lab.Daemon
	listen netip.AddrPort
	admin  string
	log    string
}

// anyNumber is the policy of a listener whose breaker never opens.
const anyNumber = "limits: {nodes: 1000}"

// startReplica starts a listener that reaches the API server by kubeconfig, or directly if that is empty.
func (w *kubeWorld) startReplica(t *testing.T, bin, kubeconfig, policy string, args ...string) *replica {
	t.Helper()
	return w.startReplicaWith(t, story.ListenerSpec{Binary: bin + "/lastgasp-listener", Kubeconfig: kubeconfig, Policy: policy, Args: args})
}

// startReplicaWith fills in where it runs.
func (w *kubeWorld) startReplicaWith(t *testing.T, spec story.ListenerSpec) *replica {
	t.Helper()
	r := w.newReplica()
	spec.NS, spec.Cluster, spec.Listen = w.ns, w.lab, r.listen.String()
	spec.Policy = fmt.Sprintf("admin: %s\n%s", r.admin, spec.Policy)
	var err error
	if r.Daemon, r.log, err = story.StartListener(t.Context(), t, spec); err != nil {
		t.Fatal(err)
	}
	return r
}

// newReplica is one with addresses of its own that has not been started.
func (w *kubeWorld) newReplica() *replica {
	n := w.replicas.Add(1)
	return &replica{
		listen: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(10000+n)), admin: fmt.Sprintf("127.0.0.1:%d", 20000+n),
	}
}

// knows reports whether the replica has the node in its cache, with its pin if it has one.
func (r *replica) knows(w *kubeWorld, node string) error {
	if err := r.Died(); err != nil {
		return err
	}
	_, body, err := r.get(w, "/nodes")
	if err != nil {
		return err
	}
	var cached []struct {
		Node   string
		Pinned bool
	}
	if err := json.Unmarshal([]byte(body), &cached); err != nil {
		return fmt.Errorf("read its nodes: %w: %s", err, body)
	}
	for _, c := range cached {
		if c.Node != node {
			continue
		}
		n, err := w.admin.CoreV1().Nodes().Get(context.Background(), node, metav1.GetOptions{})
		if err == nil && strings.HasPrefix(n.Annotations[lab.PinKey], n.Status.NodeInfo.BootID+":") && !c.Pinned {
			err = fmt.Errorf("the pin of node %s is not in its cache", node)
		}
		return err
	}
	return fmt.Errorf("node %s is not in its cache; it says:\n%s", node, r.says())
}

// get asks its admin server.
func (r *replica) get(w *kubeWorld, path string) (code int, body string, err error) {
	client := http.Client{Transport: &http.Transport{DialContext: w.ns.Dial, DisableKeepAlives: true}, Timeout: time.Minute}
	resp, err := client.Get("http://" + r.admin + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// terminate ends it as systemd and the kubelet do, and waits until it has ended.
func (r *replica) terminate(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(r.PID(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the listener to end", func() error {
		if r.Died() == nil {
			return errors.New("it runs")
		}
		return nil
	})
}

// says returns the end of its log.
func (r *replica) says() string {
	text, err := os.ReadFile(r.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// doomed is a node that will die. It is an API object with an address of its own that a datagram can come from.
type doomed struct {
	name, instance, boot string
	secret               netconsole.Secret
	addr                 netip.Addr
	pods                 []string
	death                string // name of the NodeDeath; empty: that of node and boot
}

// newDoomed makes number i of them. It has not joined the cluster yet.
func newDoomed(name string, i int) *doomed {
	return &doomed{
		name: name, instance: fmt.Sprintf("i-%017x", i), boot: fmt.Sprintf("%08x-0000-4000-8000-000000000001", i),
		secret: netconsole.Secret(fmt.Sprintf("%022d", i)), addr: netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}),
	}
}

// join makes d a Node of the cluster, pinned, with pods and a volume.
func (w *kubeWorld) join(t *testing.T, d *doomed) {
	t.Helper()
	w.newNode(t, d.name, func(n *corev1.Node) { d.register(n, d.boot) })
	if err := w.lab.Enroll(t.Context(), d.name, d.boot, d.secret.Sum()); err != nil {
		t.Fatal(err)
	}
	for _, pod := range []string{"a", "b", "c"} {
		pod = d.name + "-" + pod
		w.newPod(t, pod, d.name, corev1.PodRunning, nil)
		d.pods = append(d.pods, pod)
	}
	_, err := w.admin.StorageV1().VolumeAttachments().Create(t.Context(), &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: d.name},
		Spec: storagev1.VolumeAttachmentSpec{
			Attacher: "csi.example.com", NodeName: d.name,
			Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: ptr("pv-of-" + d.name)},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// register fills n as d's kubelet would on that boot.
func (d *doomed) register(n *corev1.Node, boot string) {
	n.Spec.ProviderID = "aws:///zone/" + d.instance
	n.Status.NodeInfo.BootID = boot
	setAddresses(n, d.addr.String())
}

func (d *doomed) deathName() string { return cmp.Or(d.death, policy.DeathName(d.name, d.boot)) }

// panics sends what the kernel sends when it dies, from the node's own address.
func (d *doomed) panics(w *kubeWorld, to ...*replica) error {
	return w.ns.Do(func() error {
		for _, r := range to {
			dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(d.addr, 6665))}
			conn, err := dialer.Dial("udp", r.listen.String())
			if err != nil {
				return err
			}
			for i, line := range []string{
				"sysrq: Trigger a crash", "Kernel panic - not syncing: sysrq triggered crash", "Kernel Offset: disabled",
			} {
				_, err = fmt.Fprintf(conn, "6.12.117+deb13-cloud-amd64,0,%d,%d,-;%s\n instance=%s\n boot=%s\n gasp=%s\n",
					100+i, 7_000_000+i, line, d.instance, d.boot, string(d.secret))
				if err != nil {
					break
				}
			}
			conn.Close()
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// rebooted is the boot that a doomed node comes back on.
const rebooted = "ffffffff-0000-4000-8000-000000000002"

// comesBack makes d's kubelet report a new boot, in the existing Node or in a new one, and run a new pod.
func (w *kubeWorld) comesBack(ctx context.Context, d *doomed) error {
	patch := fmt.Sprintf(`{"status":{"nodeInfo":{"bootID":%q},"conditions":[{"type":"Ready","status":"True"}]}}`, rebooted)
	_, err := w.admin.CoreV1().Nodes().Patch(ctx, d.name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: d.name}}
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		d.register(n, rebooted)
		_, err = w.admin.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{})
	}
	if err != nil {
		return err
	}
	_, err = w.admin.CoreV1().Pods("default").Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: d.name + "-new"},
		Spec: corev1.PodSpec{
			NodeName: d.name, AutomountServiceAccountToken: ptr(false), Containers: []corev1.Container{{Name: "main", Image: "none"}},
		},
	}, metav1.CreateOptions{})
	return err
}

// ended waits for the end of d's cleanup and returns its NodeDeath.
func (w *kubeWorld) ended(ctx context.Context, d *doomed) (policy.Death, error) {
	r, err := w.cluster.Death(ctx, d.deathName())
	switch {
	case err != nil:
		return r, err
	case r.Phase.AtWork():
		return r, fmt.Errorf("phase %q, owner %s, steps %+v", r.Phase, r.Owner, r.Steps)
	}
	return r, nil
}

// gone returns what is left of d as an error, nil if nothing is.
func (w *kubeWorld) gone(ctx context.Context, d *doomed) error {
	if n, err := w.cluster.Node(ctx, d.name); !errors.Is(err, cleanup.ErrNotFound) {
		return fmt.Errorf("node %+v is left, %v", n, err)
	}
	for _, pod := range d.pods {
		if p, err := w.cluster.Pod(ctx, "default", pod); !errors.Is(err, cleanup.ErrNotFound) {
			return fmt.Errorf("pod %+v is left, %v", p, err)
		}
	}
	return nil
}

// untouched returns how the node that came back was touched, nil if it is in service with its pod running.
func (w *kubeWorld) untouched(ctx context.Context, d *doomed) error {
	n, err := w.cluster.Node(ctx, d.name)
	if err != nil {
		return err
	}
	pod, err := w.cluster.Pod(ctx, "default", d.name+"-new")
	if err != nil {
		return err
	}
	if n.BootID != rebooted || n.Fenced || n.OutOfService || n.Mark != (policy.Mark{}) || pod.Finished() || pod.Deleting || pod.Marked {
		return fmt.Errorf("node %+v, pod %+v; want it in service", n, pod)
	}
	return nil
}

func isOutOfService(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService }

// within asks until the answer is nil or d is over, from any goroutine.
func within(ctx context.Context, d time.Duration, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
