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

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/story"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// TestWrongNode tries everything we could think of to have a living node cleaned up. At the end a kernel that does die sends the
// same records. According to the API server's audit log its node is cleaned up, and the others never were.
func TestWrongNode(t *testing.T) {
	// No forgery may use up what there is for the one real death. No node is silent here, so nothing may call one that: on a busy machine
	// a kubelet may be late.
	w := newHollowWorldOf(t, lab.ClusterSpec{Audit: true, NodeGrace: 10 * time.Minute}, "limits: {nodes: 1, percent: 0}")
	dying := w.newBystander(t, "dying")
	t.Run("refused", func(t *testing.T) {
		w.forgeries(t)
		t.Run("an old boot's panic after the reboot", w.replayAfterReboot)
		t.Run("a forged panic while the kubelet is being restarted", func(t *testing.T) { w.silentKubelet(t, "restarting", 0) })
		t.Run("a forged panic while the kubelet is starved", func(t *testing.T) { w.silentKubelet(t, "starved", 25*time.Second) })
		t.Run("a pin that somebody else was faster to ask for", w.forgedPin)
		t.Run("a canary with another secret", w.secondSecret)
		t.Run("a secret of a kernel that can have none", w.impossibleSecret)
		t.Run("an address that another node has by now", w.reusedAddress)
		t.Run("a deleted node's identity, from its address", w.departedIdentity)
		t.Run("an address that two nodes have", w.sharedAddress)
		t.Run("an identity that two nodes have", w.clonedMachine)
		t.Run("a node of the control plane", w.controlPlane)
		t.Run("forged panics of many nodes at once", w.manyAtOnce)
	})
	for _, e := range w.audit(t) {
		if e.what == "delete pods" || e.what == "delete nodes" || e.what == "patch pods/status" {
			t.Errorf("the listener did %s %s", e.what, e.name)
		}
	}
	t.Run("acted on when true", func(t *testing.T) { w.trueDeath(t, dying) })
}

// forgeries are panics in the name of a living node.
func (w *hollowWorld) forgeries(t *testing.T) {
	const alive, unknown = "renewed its Lease", "no Node answers to "
	for i, tt := range []struct {
		name     string
		unpinned bool
		say      func(v *bystander) error
		want     func(v *bystander) refusal
	}{
		{
			name: "plain text from the node's own address",
			say:  func(v *bystander) error { return v.shares.Say(story.BasicPanic()...) },
			want: func(v *bystander) refusal { return refusal{v.deathName(), "text", false, "plain text"} },
		},
		{
			name: "a kernel's record from the node's own address",
			say:  func(v *bystander) error { return v.shares.Say(story.Panic(netconsole.Identity{})...) },
			want: func(v *bystander) refusal { return refusal{v.deathName(), "kernel", true, alive} },
		},
		{
			name: "and with its boot id, but not the secret",
			say:  func(v *bystander) error { return v.shares.Say(story.Panic(v.without())...) },
			want: func(v *bystander) refusal { return refusal{v.deathName(), "kernel", true, alive} },
		},
		{
			name: "and with a made-up secret",
			say:  func(v *bystander) error { return v.shares.Say(story.Panic(v.madeUp())...) },
			want: func(v *bystander) refusal { return refusal{v.deathName(), "kernel", true, alive} },
		},
		{
			name:     "with the boot id of a node that is not pinned",
			unpinned: true,
			say:      func(v *bystander) error { return v.shares.Say(story.Panic(v.without())...) },
			want:     func(v *bystander) refusal { return refusal{v.deathName(), "boot", true, alive} },
		},
		{
			name: "plain text from another host",
			say:  func(v *bystander) error { return v.stranger.Say(story.BasicPanic()...) },
			want: func(v *bystander) refusal {
				return refusal{policy.DeathName(v.strange.String(), ""), "text", false, unknown + "address " + v.strange.String()}
			},
		},
		{
			name: "a kernel's record from another host",
			say:  func(v *bystander) error { return v.stranger.Say(story.Panic(netconsole.Identity{})...) },
			want: func(v *bystander) refusal {
				return refusal{policy.DeathName(v.strange.String(), ""), "kernel", false, unknown + "address " + v.strange.String()}
			},
		},
		{
			name: "the true secret from another host",
			say:  func(v *bystander) error { return v.stranger.Say(story.Panic(v.Identity)...) },
			want: func(v *bystander) refusal {
				return refusal{policy.DeathName(v.strange.String(), v.Identity.Boot), "kernel", false, unknown + "instance " + v.Identity.Instance}
			},
		},
	} {
		v := w.newBystander(t, fmt.Sprintf("forged-%d", i))
		t.Run(tt.name, func(t *testing.T) {
			v.start(t)
			if !tt.unpinned {
				v.arm(t)
			}
			t.Parallel() // by now many kubelets have renewed their Leases
			if err := tt.say(v); err != nil {
				t.Fatal(err)
			}
			w.refused(t, tt.want(v))
			v.unharmed(t)
		})
	}
}

// replayAfterReboot replays what was captured of the boot before: its canary, and its panic from two addresses.
func (w *hollowWorld) replayAfterReboot(t *testing.T) {
	v := w.newBystander(t, "rebooted")
	t.Parallel()
	v.start(t)
	v.arm(t)
	old := v.Identity
	v.Kill()
	if err := v.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.arm(t)
	if err := v.shares.Prove(t.Context(), story.Canary(old, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := v.stranger.Say(story.Panic(old)...); err != nil {
		t.Fatal(err)
	}
	if err := v.Say(story.Panic(old)...); err != nil {
		t.Fatal(err)
	}
	w.refused(t, refusal{policy.DeathName(v.strange.String(), old.Boot), "kernel", false, "no Node answers to instance"})
	w.refused(t, refusal{policy.DeathName(v.Name, old.Boot), "kernel", false, "runs boot " + v.Identity.Boot})
	if pin := w.getNode(t, v.Name).Annotations["lastgasp.dev/pin"]; pin != v.Pin() {
		t.Errorf("pin %q, want %q", pin, v.Pin())
	}
	v.unharmed(t)
}

// silentKubelet forges while no kubelet renews the Lease, for that long at least.
func (w *hollowWorld) silentKubelet(t *testing.T, name string, silence time.Duration) {
	v := w.newBystander(t, name)
	v.start(t)
	v.arm(t)
	t.Parallel()
	eventually(t, "the Lease", func() error {
		renewed, err := w.lab.Heartbeat(t.Context(), v.Name)
		if err == nil && renewed.IsZero() {
			err = errors.New("there is none")
		}
		return err
	})
	// A kubelet keeps the duration that it finds. With its default there would be seconds left to start another one.
	if err := w.patchLease(t.Context(), v.Name, fmt.Sprintf(`{"spec":{"leaseDurationSeconds":%d}}`, longLease)); err != nil {
		t.Fatal(err)
	}
	v.Kill()
	if err := v.shares.Say(story.Panic(v.without())...); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Lease to grow old", func() error {
		renewed, err := w.lab.Heartbeat(t.Context(), v.Name)
		if age := time.Since(renewed); err == nil && age < silence {
			err = fmt.Errorf("it was renewed %s ago", age)
		}
		return err
	})
	if err := v.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.refused(t, refusal{v.deathName(), "kernel", true, "renewed its Lease"})
	v.unharmed(t)
}

// forgedPin sends a canary from another host for a node that has not joined yet.
func (w *hollowWorld) forgedPin(t *testing.T) {
	v := w.newBystander(t, "forged-pin")
	t.Parallel()
	if err := v.stranger.Prove(t.Context(), story.Canary(v.madeUp(), 1)); err != nil {
		t.Fatal(err)
	}
	v.start(t)
	v.arm(t) // waits for the true pin
	if err := v.shares.Say(story.Panic(v.madeUp())...); err != nil {
		t.Fatal(err)
	}
	w.refused(t, refusal{v.deathName(), "kernel", true, "renewed its Lease"})
	v.unharmed(t)
}

// secondSecret sends a canary with another secret from a pod of the node.
func (w *hollowWorld) secondSecret(t *testing.T) {
	v := w.newBystander(t, "second-secret")
	t.Parallel()
	v.start(t)
	v.arm(t)
	if err := v.shares.Prove(t.Context(), story.Canary(v.madeUp(), 1)); err != nil {
		t.Fatal(err)
	}
	w.pinRefused(t, v.Name)
	if pin := w.getNode(t, v.Name).Annotations["lastgasp.dev/pin"]; pin != v.Pin() {
		t.Errorf("pin %q, want %q", pin, v.Pin())
	}
	v.unharmed(t)
}

// impossibleSecret sends a canary from a pod of a node whose kernel cannot have a secret, and a panic with that secret.
func (w *hollowWorld) impossibleSecret(t *testing.T) {
	addr, voice := w.address(t)
	t.Parallel()
	id := w.member(t, "old-kernel", func(n *corev1.Node) {
		setAddresses(n, addr.String())
		n.Status.NodeInfo.KernelVersion = "6.1.0-41-cloud-amd64"
	})
	w.keepLease(t, "old-kernel", longLease, renewSoon)
	id.Secret = "bWFkZSB1cCBieSBhIHBvZA"
	if err := voice.Prove(t.Context(), story.Canary(id, 1)); err != nil {
		t.Fatal(err)
	}
	w.pinRefused(t, "old-kernel")
	if err := voice.Say(story.Panic(id)...); err != nil {
		t.Fatal(err)
	}
	w.refused(t, refusal{policy.DeathName("old-kernel", id.Boot), "boot", true, "renewed its Lease"})
}

func (w *hollowWorld) reusedAddress(t *testing.T) {
	addr, voice := w.address(t)
	t.Parallel()
	w.exchange(t, "reused", addr)
	if err := voice.Say(story.Panic(netconsole.Identity{})...); err != nil {
		t.Fatal(err)
	}
	w.refused(t, refusal{policy.DeathName(addr.String(), ""), "kernel", false, "more than one Node answers to address"})
}

func (w *hollowWorld) departedIdentity(t *testing.T) {
	addr, voice := w.address(t)
	t.Parallel()
	old := w.exchange(t, "departed", addr)
	if err := voice.Say(story.Panic(old)...); err != nil {
		t.Fatal(err)
	}
	w.refused(t, refusal{policy.DeathName(addr.String(), old.Boot), "kernel", false, "no Node answers to instance " + old.Instance})
}

// exchange moves an address from a Node, whose identity it returns, to another.
func (w *hollowWorld) exchange(t *testing.T, name string, addr netip.Addr) netconsole.Identity {
	t.Helper()
	first := w.member(t, name+"-1", func(n *corev1.Node) { setAddresses(n, addr.String()) })
	if err := w.admin.CoreV1().Nodes().Delete(t.Context(), name+"-1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.member(t, name+"-2", func(n *corev1.Node) { setAddresses(n, addr.String()) })
	return first
}

func (w *hollowWorld) sharedAddress(t *testing.T) {
	addr, voice := w.address(t)
	t.Parallel()
	for _, name := range []string{"shared-1", "shared-2"} {
		w.member(t, name, func(n *corev1.Node) { setAddresses(n, addr.String()) })
	}
	if err := voice.Say(story.Panic(netconsole.Identity{})...); err != nil {
		t.Fatal(err)
	}
	w.refused(t, refusal{policy.DeathName(addr.String(), ""), "kernel", false, "more than one Node answers to address"})
}

func (w *hollowWorld) clonedMachine(t *testing.T) {
	addr, voice := w.address(t)
	t.Parallel()
	const machine = "7b4f0c5e9d3a41d28c6f1e2a3b4c5d6e"
	var id netconsole.Identity
	for _, name := range []string{"cloned-1", "cloned-2"} {
		id = w.member(t, name, func(n *corev1.Node) {
			n.Status.NodeInfo.MachineID = machine
			if name == "cloned-2" {
				setAddresses(n, addr.String())
			}
		})
	}
	id.Instance, id.Boot = machine, "" // the boot id would tell which
	if err := voice.Say(story.Panic(id)...); err != nil {
		t.Fatal(err)
	}
	w.refused(t, refusal{policy.DeathName(addr.String(), ""), "kernel", false, "more than one Node answers to instance " + machine})
}

func (w *hollowWorld) controlPlane(t *testing.T) {
	addr, voice := w.address(t)
	t.Parallel()
	id := w.member(t, "control-plane", func(n *corev1.Node) {
		setAddresses(n, addr.String())
		n.Labels = map[string]string{"node-role.kubernetes.io/control-plane": ""}
	})
	w.keepLease(t, "control-plane", longLease, renewSoon)
	if err := voice.Say(story.Panic(id)...); err != nil {
		t.Fatal(err)
	}
	w.refused(t, refusal{policy.DeathName("control-plane", id.Boot), "boot", false, "renewed its Lease"})
}

// manyAtOnce forges a panic of each of many nodes. Some are fenced, within the breaker's limit, and none for longer than its
// kubelet takes to renew its Lease.
func (w *hollowWorld) manyAtOnce(t *testing.T) {
	const many = 20
	voices := make([]*story.Voice, many)
	addrs := make([]netip.Addr, many)
	for i := range voices {
		addrs[i], voices[i] = w.address(t)
	}
	t.Parallel()
	records := make([]string, many)
	for i := range many {
		name := fmt.Sprintf("many-%d", i)
		id := w.member(t, name, func(n *corev1.Node) { setAddresses(n, addrs[i].String()) })
		records[i] = policy.DeathName(name, id.Boot)
		w.keepLease(t, name, longLease, renewSoon)
	}
	for _, v := range voices {
		if err := v.Say(story.Panic(netconsole.Identity{})...); err != nil {
			t.Fatal(err)
		}
	}
	for _, record := range records {
		w.refused(t, refusal{record, "kernel", true, "renewed its Lease"})
	}
	fenced, longest := w.earlyFences(t, "many-")
	t.Logf("%d of %d nodes were fenced, the longest for %s", fenced, many, longest)
}

// earlyFences returns how many Nodes of that prefix were fenced, and the longest time for which one was, according to the audit
// log.
func (w *hollowWorld) earlyFences(t *testing.T, prefix string) (nodes int, longest time.Duration) {
	t.Helper()
	fenced := map[string]time.Time{}
	for _, e := range w.audit(t) {
		if e.what != "patch nodes" || !strings.HasPrefix(e.name, prefix) {
			continue
		}
		if since, ok := fenced[e.name]; ok {
			longest = max(longest, e.answered.Sub(since))
		} else {
			fenced[e.name] = e.answered
		}
	}
	return len(fenced), longest
}

// trueDeath makes a node die, with the same records that were forged before.
func (w *hollowWorld) trueDeath(t *testing.T, v *bystander) {
	v.start(t)
	v.arm(t)
	v.Kill()
	if err := v.Panic(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the node to be cleaned up", func() error {
		r, err := w.cluster.Death(t.Context(), v.deathName())
		if err == nil && r.Phase != policy.Cleaned {
			err = fmt.Errorf("phase %s: %s", r.Phase, r.Decision)
		}
		return err
	})
	did := map[string]bool{}
	for _, e := range w.audit(t) {
		did[e.what+" "+e.name] = true
	}
	for _, want := range []string{"patch pods/status dying", "delete pods dying", "delete nodes dying"} {
		if !did[want] {
			t.Errorf("the audit log has no %s", want)
		}
	}
}

// address makes an address for a Node without a kubelet, and a Voice at it.
func (w *hollowWorld) address(t *testing.T) (netip.Addr, *story.Voice) {
	t.Helper()
	addr, err := w.fleet.Address()
	if err != nil {
		t.Fatal(err)
	}
	voice, err := w.fleet.Voice(w.fleet.Net.Node, addr)
	if err != nil {
		t.Fatal(err)
	}
	return addr, voice
}

// member makes a Node without a kubelet that the listener knows.
func (w *hollowWorld) member(t *testing.T, name string, change func(*corev1.Node)) netconsole.Identity {
	t.Helper()
	id := netconsole.Identity{Instance: "i-" + name, Boot: "boot-of-" + name}
	w.newNode(t, name, func(n *corev1.Node) {
		n.Spec.ProviderID = "aws:///lab-1a/" + id.Instance
		n.Status.NodeInfo.BootID = id.Boot
		change(n)
	})
	eventually(t, "the listener to know "+name, func() error { return w.listener().knows(w.kubeWorld, name) })
	return id
}

const (
	// leaseSeconds is how long a kubelet's Lease lasts by default, and renewEvery how often it is renewed.
	leaseSeconds = 40
	renewEvery   = leaseSeconds * time.Second / 4
	// longLease, in seconds, outlasts any pause of a busy machine between renewals. With renewSoon a Lease contradicts a forged death
	// within seconds.
	longLease = 120
	renewSoon = 3 * time.Second
)

func (w *kubeWorld) patchLease(ctx context.Context, name, patch string) error {
	_, err := w.admin.CoordinationV1().Leases(corev1.NamespaceNodeLease).Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

// keepLease renews a Node's Lease, as a kubelet does, until the test or what it returns ends.
func (w *kubeWorld) keepLease(t *testing.T, name string, seconds int32, every time.Duration) (silence func()) {
	t.Helper()
	ctx, silence := context.WithCancel(t.Context())
	t.Cleanup(silence)
	leases := w.admin.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	now := func() *metav1.MicroTime { return ptr(metav1.NowMicro()) }
	_, err := leases.Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: &seconds, RenewTime: now()},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for tick := time.Tick(every); ; {
			select {
			case <-tick:
				renewal := fmt.Appendf(nil, `{"spec":{"renewTime":%q}}`, now().UTC().Format(metav1.RFC3339Micro))
				leases.Patch(ctx, name, types.MergePatchType, renewal, metav1.PatchOptions{}) // if it fails, the next one counts
			case <-ctx.Done():
				return
			}
		}
	}()
	return silence
}
