//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

func (w *kubeWorld) checkFind(t *testing.T) {
	ctx := t.Context()
	w.newNode(t, "ec2", func(n *corev1.Node) {
		n.Spec.ProviderID = "aws:///us-east-1a/i-0aaa"
		setAddresses(n, "10.9.0.1", "fd00::1", "10.9.1.1")
	})
	w.newNode(t, "metal", func(n *corev1.Node) {
		n.Status.NodeInfo.MachineID = "5f4dcc3b5aa765d61d8327deb882cf99"
		setAddresses(n, "10.9.0.2")
	})
	const cloned = "00000000000000000000000000c10bed"
	for _, name := range []string{"twin-a", "twin-b"} {
		w.newNode(t, name, func(n *corev1.Node) {
			n.Status.NodeInfo.MachineID = cloned
			n.Status.NodeInfo.BootID = name
			setAddresses(n, "10.9.0.3")
		})
	}
	for _, tt := range []struct {
		name, instance, addr, want string
		err                        error
	}{
		{name: "by instance", instance: "i-0aaa", addr: "10.9.0.1", want: "ec2"},
		{name: "by instance and its second address", instance: "i-0aaa", addr: "10.9.1.1", want: "ec2"},
		{name: "by machine id", instance: "5f4dcc3b5aa765d61d8327deb882cf99", addr: "10.9.0.2", want: "metal"},
		{name: "by address", addr: "10.9.0.2", want: "metal"},
		{name: "by ipv6 address", addr: "fd00::1", want: "ec2"},
		{name: "by address as a dual-stack socket reports it", addr: "::ffff:10.9.0.1", want: "ec2"},
		{name: "instance from an address not its own", instance: "i-0aaa", addr: "10.9.0.99", err: cleanup.ErrNotFound},
		{name: "instance from the address of a Node without an instance", instance: "i-0aaa", addr: "10.9.0.2", err: cleanup.ErrAmbiguous},
		{name: "unknown instance from a node's address", instance: "i-0bbb", addr: "10.9.0.1", err: cleanup.ErrNotFound},
		{name: "unknown address", addr: "10.9.0.99", err: cleanup.ErrNotFound},
		{name: "address of two nodes", addr: "10.9.0.3", err: cleanup.ErrAmbiguous},
		{name: "machine id of two nodes", instance: cloned, addr: "10.9.0.3", err: cleanup.ErrAmbiguous},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eventually(t, "the cache to follow", func() error {
				got, err := w.cluster.FindNode(ctx, cleanup.Sender{Instance: tt.instance, Addr: netip.MustParseAddr(tt.addr)})
				if !errors.Is(err, tt.err) || got.Name != tt.want {
					return fmt.Errorf("node %q, error %v; want %q, %v", got.Name, err, tt.want, tt.err)
				}
				return nil
			})
		})
	}
	t.Run("address of a node deleted just now", func(t *testing.T) {
		addr := netip.MustParseAddr("10.9.0.1")
		w.mustDeleteNode(t, "ec2")
		eventually(t, "the cache to forget", func() error { return wantErr(cleanup.ErrNotFound)(w.cluster.FindNode(ctx, cleanup.Sender{Addr: addr})) })

		// The name of an EC2 node is made of its address, so another machine comes by both.
		w.newNode(t, "ec2", func(n *corev1.Node) { n.Spec.ProviderID = "aws:///us-east-1a/i-0ccc"; setAddresses(n, "10.9.0.1") })
		eventually(t, "the cache to follow", func() error {
			return wantErr(cleanup.ErrAmbiguous)(w.cluster.FindNode(ctx, cleanup.Sender{Addr: addr}))
		})
		eventually(t, "the instance to tell", func() error {
			return wantErr(nil)(w.cluster.FindNode(ctx, cleanup.Sender{Instance: "i-0ccc", Addr: addr}))
		})
		w.mustDeleteNode(t, "ec2")
	})
	t.Run("address of a machine that registered again", func(t *testing.T) {
		again := func(n *corev1.Node) { n.Spec.ProviderID = "aws:///us-east-1a/i-0ddd"; setAddresses(n, "10.9.0.4") }
		w.newNode(t, "again", again)
		addr := netip.MustParseAddr("10.9.0.4")
		eventually(t, "the cache to follow", func() error { return wantErr(nil)(w.cluster.FindNode(ctx, cleanup.Sender{Addr: addr})) })
		w.mustDeleteNode(t, "again")
		uid := w.newNode(t, "again", again).UID
		eventually(t, "the cache to follow", func() error {
			n, err := w.cluster.FindNode(ctx, cleanup.Sender{Addr: addr})
			if err == nil && n.UID != string(uid) {
				err = errors.New("still the old one")
			}
			return err
		})
	})
}

func (w *kubeWorld) checkFence(t *testing.T) {
	ctx := t.Context()
	before := w.newNode(t, "fence", func(n *corev1.Node) {
		n.Labels = map[string]string{"team": "db"}
		n.Annotations = map[string]string{"example.com/a": "b"}
		n.Spec.Taints = []corev1.Taint{{Key: "dedicated", Value: "db", Effect: corev1.TaintEffectNoSchedule}}
	})
	mark := policy.Mark{Death: "fence-1", Boot: "11111111-2222", Reason: "sysrq triggered crash", OutOfService: true}
	on := w.patchNode(t, "fence", cleanup.NodePatch{Fence: ptr(true), OutOfService: ptr(true), Mark: &mark})
	if !on.Fenced || !on.OutOfService || on.Mark != mark {
		t.Errorf("fenced node: %+v", on)
	}
	if diff := cmp.Diff([]string{
		"dedicated=db:NoSchedule", "lastgasp.dev/dead=:NoSchedule", "node.kubernetes.io/out-of-service=node-death:NoSchedule",
	}, w.ownTaints(t, "fence")); diff != "" {
		t.Errorf("taints (-want +got):\n%s", diff)
	}
	eventually(t, "the node to be listed as marked", func() error {
		return w.isMarked(ctx, "fence", true)
	})

	t.Run("again", func(t *testing.T) {
		again := w.patchNode(t, "fence", cleanup.NodePatch{Fence: ptr(true), OutOfService: ptr(true), Mark: &mark})
		if !again.Fenced || !again.OutOfService || again.Mark != mark {
			t.Errorf("fenced again: %+v", again)
		}
		if got := w.ownTaints(t, "fence"); len(got) != 3 {
			t.Errorf("taints: %v, want the three of before", got)
		}
	})
	t.Run("stale", func(t *testing.T) {
		stale := w.readNode(t, "fence")
		stale.ResourceVersion = before.ResourceVersion
		_, err := w.cluster.PatchNode(ctx, stale, cleanup.NodePatch{Fence: ptr(false)})
		if !errors.Is(err, cleanup.ErrConflict) {
			t.Errorf("patch a node that changed: %v, want ErrConflict", err)
		}
		stale = w.readNode(t, "fence")
		stale.UID = "00000000-0000-0000-0000-000000000000"
		if _, err = w.cluster.PatchNode(ctx, stale, cleanup.NodePatch{Fence: ptr(false)}); !errors.Is(err, cleanup.ErrConflict) {
			t.Errorf("patch a node of another uid: %v, want ErrConflict", err)
		}
		stale.Name = "nobody"
		if _, err = w.cluster.PatchNode(ctx, stale, cleanup.NodePatch{Fence: ptr(false)}); !errors.Is(err, cleanup.ErrNotFound) {
			t.Errorf("patch a node that is gone: %v, want ErrNotFound", err)
		}
	})
	t.Run("change between decision and write", func(t *testing.T) {
		// The cache still holds the version decided on, so only the API server can tell.
		n := w.readNode(t, "fence")
		w.kubectl(t, "annotate", "node", "fence", "example.com/race=1")
		_, err := w.cluster.PatchNode(ctx, n, cleanup.NodePatch{Fence: ptr(false)})
		if !errors.Is(err, cleanup.ErrConflict) {
			t.Errorf("patch a node that changed: %v, want ErrConflict", err)
		}
	})

	off := w.patchNode(t, "fence", cleanup.NodePatch{Fence: ptr(false), OutOfService: ptr(false), Mark: &policy.Mark{}})
	if off.Fenced || off.OutOfService || off.Mark != (policy.Mark{}) {
		t.Errorf("unfenced node: %+v", off)
	}
	eventually(t, "the node to be listed no more", func() error { return w.isMarked(ctx, "fence", false) })
	after := w.getNode(t, "fence")
	if diff := cmp.Diff([]string{"dedicated=db:NoSchedule"}, w.ownTaints(t, "fence")); diff != "" {
		t.Errorf("taints (-want +got):\n%s", diff)
	}
	delete(after.Annotations, "node.alpha.kubernetes.io/ttl") // the TTL controller's
	if diff := cmp.Diff(map[string]string{"example.com/a": "b", "example.com/race": "1"}, after.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before.Labels, after.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}

// checkClaim tests how the listener claims; what others may not do with pins and claims is in kube_policy_test.go.
func (w *kubeWorld) checkClaim(t *testing.T) {
	w.newNode(t, "claim", nil)
	claim := policy.Pin{Boot: "boot-1", Sum: "aaaa"}
	if got := w.patchNode(t, "claim", cleanup.NodePatch{Claim: &claim}).Claim; got != claim {
		t.Errorf("claim: %+v, want %+v", got, claim)
	}
	w.newNode(t, "claim-early", nil)
	eventually(t, "the claim of a boot that the node does not run to be denied", func() error {
		_, err := w.cluster.PatchNode(t.Context(), w.readNode(t, "claim-early"), cleanup.NodePatch{Claim: &policy.Pin{Boot: "boot-2", Sum: "b"}})
		if errors.Is(err, cleanup.ErrConflict) {
			return err // the node lifecycle controller was faster
		}
		if !errors.Is(err, cleanup.ErrDenied) {
			t.Errorf("claim a boot that the node does not run: %v, want ErrDenied", err)
		}
		return nil
	})
	eventually(t, "the cache to follow", func() error {
		// All nodes of this test say that they run boot-1, which takes nothing away from the one whose secret it is.
		if authority, ok := w.cluster.Proves(claim.Boot, claim.Sum); !ok || authority != detect.Claimed {
			return fmt.Errorf("authority %v, %v", authority, ok)
		}
		return nil
	})
	w.setBoot(t, "claim", "boot-3")
	next := policy.Pin{Boot: "boot-3", Sum: "cccc"}
	if got := w.patchNode(t, "claim", cleanup.NodePatch{Claim: &next}).Claim; got != next {
		t.Errorf("claim of the next boot: %+v, want %+v", got, next)
	}
	eventually(t, "the claim to be found by its boot", func() error {
		if authority, ok := w.cluster.Proves(next.Boot, next.Sum); !ok || authority != detect.Claimed {
			return fmt.Errorf("authority %v, %v", authority, ok)
		}
		return nil
	})
}

func (w *kubeWorld) checkLease(t *testing.T) {
	want := time.Now().Add(-5 * time.Second).Truncate(time.Microsecond)
	seconds := int32(120)
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "leased"},
		Spec:       coordinationv1.LeaseSpec{RenewTime: &metav1.MicroTime{Time: want}, LeaseDurationSeconds: &seconds},
	}
	if _, err := w.admin.CoordinationV1().Leases("kube-node-lease").Create(t.Context(), lease, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := w.cluster.LeaseRenewed(t.Context(), "leased")
	if err != nil || !got.At.Equal(want) || got.Duration != 2*time.Minute || got.Version == "" {
		t.Errorf("lease: %+v, %v; want 2m0s, renewed at %v", got, err, want)
	}
	if _, err := w.cluster.LeaseRenewed(t.Context(), "unleased"); !errors.Is(err, cleanup.ErrNotFound) {
		t.Errorf("lease of a node without: %v, want ErrNotFound", err)
	}
}

func (w *kubeWorld) checkDeleteNode(t *testing.T) {
	ctx := t.Context()
	mark := &policy.Mark{Death: "r", Boot: "b", Reason: "x"}
	for _, tt := range []struct {
		name  string
		patch cleanup.NodePatch
		label string
		want  error
	}{
		{"unmarked", cleanup.NodePatch{}, "", cleanup.ErrDenied},
		{"marked and not fenced", cleanup.NodePatch{Mark: mark}, "", cleanup.ErrDenied},
		{"fenced and not marked", cleanup.NodePatch{Fence: ptr(true)}, "", cleanup.ErrDenied},
		{"control plane", cleanup.NodePatch{Mark: mark}, "node-role.kubernetes.io/control-plane", cleanup.ErrDenied},
		{"marked and fenced", cleanup.NodePatch{Fence: ptr(true), Mark: mark}, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := "delete-" + strings.ReplaceAll(tt.name, " ", "-")
			w.newNode(t, name, func(n *corev1.Node) {
				if tt.label != "" {
					n.Labels = map[string]string{tt.label: ""}
				}
			})
			n := w.patchNode(t, name, tt.patch)
			if n.ControlPlane != (tt.label != "") {
				t.Errorf("control plane: %v", n.ControlPlane)
			}
			err := w.deleteNode(ctx, n)
			if !errors.Is(err, tt.want) {
				t.Errorf("delete: %v, want %v", err, tt.want)
			}
			_, err = w.cluster.Node(ctx, name)
			if gone := errors.Is(err, cleanup.ErrNotFound); gone != (tt.want == nil) {
				t.Errorf("read after delete: %v", err)
			}
		})
	}
	t.Run("changed since it was read", func(t *testing.T) {
		w.newNode(t, "delete-stale", nil)
		n := w.patchNode(t, "delete-stale", cleanup.NodePatch{Fence: ptr(true), Mark: mark})
		w.kubectl(t, "label", "node", "delete-stale", "x=y")
		if err := w.cluster.DeleteNode(ctx, n); !errors.Is(err, cleanup.ErrConflict) {
			t.Errorf("delete: %v, want ErrConflict", err)
		}
		n = w.readNode(t, "delete-stale")
		n.UID = "00000000-0000-0000-0000-000000000000"
		if err := w.cluster.DeleteNode(ctx, n); !errors.Is(err, cleanup.ErrConflict) {
			t.Errorf("delete another uid: %v, want ErrConflict", err)
		}
	})
	count := len(must(w.admin.CoreV1().Nodes().List(ctx, metav1.ListOptions{})).Items)
	eventually(t, "the count to follow", func() error {
		if got := w.cluster.NodeCount(); got != count {
			return fmt.Errorf("%d nodes, want %d", got, count)
		}
		return nil
	})
}

// ownTaints returns a node's taints without those that the node lifecycle controller adds and removes.
func (w *kubeWorld) ownTaints(t *testing.T, name string) []string {
	t.Helper()
	var out []string
	for _, taint := range w.getNode(t, name).Spec.Taints {
		if taint.Key != corev1.TaintNodeNotReady && taint.Key != corev1.TaintNodeUnreachable {
			out = append(out, fmt.Sprintf("%s=%s:%s", taint.Key, taint.Value, taint.Effect))
		}
	}
	return out
}

func (w *kubeWorld) isMarked(ctx context.Context, name string, want bool) error {
	nodes, err := w.cluster.MarkedNodes(ctx)
	if err != nil {
		return err
	}
	got := false
	for _, n := range nodes {
		got = got || n.Name == name
	}
	if got != want {
		return fmt.Errorf("marked: %v, want %v", got, want)
	}
	return nil
}
