//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/kube"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// kernelHealth is our condition of a Node as "status reason: message", empty if it has none.
func kernelHealth(n *corev1.Node) string {
	for _, c := range n.Status.Conditions {
		if c.Type == policy.KernelHealthy {
			return fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message)
		}
	}
	return ""
}

// checkHealth writes the condition as the listener's account.
func (w *kubeWorld) checkHealth(t *testing.T) {
	ctx := t.Context()
	w.newNode(t, "health", nil)
	set := func(h policy.Health) (n policy.Node) {
		t.Helper()
		eventually(t, "the condition to be written", func() (err error) {
			n, err = w.cluster.SetHealth(ctx, w.readNode(t, "health"), h) // the lifecycle controller may be faster
			return err
		})
		return n
	}
	transition := func() (at string) {
		for _, c := range w.getNode(t, "health").Status.Conditions {
			if c.Type == policy.KernelHealthy {
				at = c.LastTransitionTime.String()
			}
		}
		return at
	}
	if n := set(policy.Health{Unhealthy: "boot-1", Reason: "NetdevRefcountLeak", Message: "leaked; reboot"}); n.Unhealthy != "boot-1" {
		t.Errorf("node: %+v", n)
	}
	if got, want := kernelHealth(w.getNode(t, "health")), "False NetdevRefcountLeak: leaked; reboot"; got != want {
		t.Errorf("condition %q, want %q", got, want)
	}
	sickSince := transition()
	eventually(t, "the node to be listed", func() error { return w.isMarked(ctx, "health", true) })
	set(policy.Health{Unhealthy: "boot-1", Reason: "KernelPanic", Message: "dead"})
	if got := transition(); got != sickSince {
		t.Errorf("last transition at %s, want %s: it was unhealthy before", got, sickSince)
	}
	if got := w.kubectl(t, "get", "node", "health", "-o", `jsonpath={.status.conditions[?(@.type=="lastgasp.dev/KernelHealthy")].reason}`); got != "KernelPanic" {
		t.Errorf("kubectl shows %q", got)
	}
	stale := w.readNode(t, "health")
	w.setBoot(t, "health", "boot-2")
	if _, err := w.cluster.SetHealth(ctx, stale, policy.Health{Unhealthy: "boot-1"}); !errors.Is(err, cleanup.ErrConflict) {
		t.Errorf("set the condition of a node that changed: %v, want ErrConflict", err)
	}
	set(policy.Health{Reason: "NewBoot", Message: "the node runs boot boot-2"})
	if got := kernelHealth(w.getNode(t, "health")); got != "True NewBoot: the node runs boot boot-2" {
		t.Errorf("condition on the new boot: %q", got)
	}
	if n := w.readNode(t, "health"); n.Unhealthy != "" {
		t.Errorf("node on the new boot: %+v", n)
	}
	ready := 0
	for _, c := range w.getNode(t, "health").Status.Conditions {
		if c.Type == corev1.NodeReady {
			ready++
		}
	}
	if ready != 1 {
		t.Errorf("%d conditions Ready, want the one that was there", ready)
	}
}

// kernelSays sends one line of the kernel of a node that runs on.
func (d *doomed) kernelSays(w *kubeWorld, to *replica, line string) error {
	return w.ns.Do(func() error {
		dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(d.addr, 6665))}
		conn, err := dialer.Dial("udp", to.listen.String())
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = fmt.Fprintf(conn, "6.12.117+deb13-cloud-amd64,0,%d,%d,-;%s\n instance=%s\n boot=%s\n gasp=%s\n",
			50, 6_000_000, line, d.instance, d.boot, string(d.secret))
		return err
	})
}

// checkSick tests a kernel that runs on and leaks, and the next boot.
func (w *kubeWorld) checkSick(t *testing.T, bin string) {
	d := newDoomed("sick", 30)
	w.join(t, d)
	r := w.startReplica(t, bin, "", anyNumber)
	eventually(t, "the listener to know the node", func() error { return r.knows(w, d.name) })
	if err := d.kernelSays(w, r, "unregister_netdevice: waiting for lo to become free. Usage count = 2"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the condition", func() error {
		got := kernelHealth(w.getNode(t, d.name))
		if !strings.HasPrefix(got, "False NetdevRefcountLeak: ") || !strings.Contains(got, "only a reboot frees it") {
			return fmt.Errorf("condition %q; the listener says:\n%s", got, r.says())
		}
		return nil
	})
	if n := w.readNode(t, d.name); n.Fenced || n.Mark != (policy.Mark{}) {
		t.Errorf("node %+v, want nothing but the condition", n)
	}
	for _, pod := range d.pods {
		if p := w.readPod(t, pod); p.Phase != "Running" || p.Marked {
			t.Errorf("pod %+v, want it untouched", p)
		}
	}
	w.setBoot(t, d.name, rebooted)
	eventually(t, "the condition to be true again", func() error {
		if diff := cmp.Diff("True NewBoot: the node runs boot "+rebooted, kernelHealth(w.getNode(t, d.name))); diff != "" {
			return fmt.Errorf("condition (-want +got):\n%s", diff)
		}
		return nil
	})
}

// checkSharedCoverage leaves coverage under the listener's account and reads it as another replica.
func (w *kubeWorld) checkSharedCoverage(t *testing.T) {
	ctx := t.Context()
	other := w.connect(t, kube.Config{REST: w.account, Namespace: w.namespace, Replica: "listener-1"})
	read := func(want ...string) {
		t.Helper()
		parts, err := other.SharedCoverage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range parts {
			got = append(got, string(p))
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("coverage (-want +got):\n%s", diff)
		}
	}
	for _, step := range []struct {
		name string
		do   func() error
		want []string
	}{
		{"two parts", func() error { return w.cluster.ShareCoverage(ctx, [][]byte{[]byte("a0"), []byte("a1")}) }, []string{"a0", "a1"}},
		{"another replica", func() error { return other.ShareCoverage(ctx, [][]byte{[]byte("b0")}) }, []string{"a0", "a1", "b0"}},
		{"the same again", func() error { return other.ShareCoverage(ctx, [][]byte{[]byte("b0")}) }, []string{"a0", "a1", "b0"}},
		{"one part is left", func() error { return w.cluster.ShareCoverage(ctx, [][]byte{[]byte("a2")}) }, []string{"a2", "b0"}},
		{"nothing is left", func() error { return w.cluster.ShareCoverage(ctx, nil) }, []string{"b0"}},
		{"a part of the size that is shared at most", func() error {
			return w.cluster.ShareCoverage(ctx, [][]byte{[]byte(strings.Repeat("c", 128<<10))})
		}, []string{"b0", strings.Repeat("c", 128<<10)}},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		read(step.want...)
	}
	if replicas, err := w.cluster.Replicas(ctx); err != nil || slices.ContainsFunc(replicas, func(r cleanup.Replica) bool { return strings.Contains(r.Name, "coverage") }) {
		t.Errorf("replicas %v, %v; want none made of coverage", replicas, err)
	}
	if err := errors.Join(w.cluster.ShareCoverage(ctx, nil), other.ShareCoverage(ctx, nil)); err != nil {
		t.Error(err)
	}
}
