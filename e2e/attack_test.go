//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lastgasp/lastgasp/e2e/load"
	"github.com/lastgasp/lastgasp/e2e/story"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// TestAttacks does to a listener what other attackers than those of TestWrongNode, TestForgedDatagrams and TestKube could: pods,
// a kubelet, whoever holds the listener's token, strangers on the network. True deaths among it are acted on, nothing else is.
func TestAttacks(t *testing.T) {
	w := newAttackWorld(t)
	t.Run("on the listener of the cluster", func(t *testing.T) {
		t.Run("a pod is the first to send a canary", func(t *testing.T) { w.firstCanary(t, "first-canary", false) })
		t.Run("whoever may write Nodes' status calls a living node silent", func(t *testing.T) { w.forgedWitness(t, "called-silent", w.callSilent) })
		t.Run("whoever may write Leases shortens a kubelet's", func(t *testing.T) { w.forgedWitness(t, "shortened-lease", w.shortenLease) })
		t.Run("and sets it back whenever it is renewed", func(t *testing.T) { w.forgedWitness(t, "set-back-lease", w.setLeaseBack) })
		t.Run("and the Node is registered anew within its boot", func(t *testing.T) { w.firstCanary(t, "anew", true) })
		t.Run("an old kernel dies after a pod's lie", w.oldKernel)
		t.Run("a node back already dies among its address's lies", w.refusalsUsedUp)
		t.Run("a kubelet names another node's death", w.foreignMark)
		t.Run("the listener's token makes up deaths", w.madeUpDeaths)
		t.Run("canaries of made-up ports", w.canaryFlood)
		t.Run("a node's log storm", w.logStorm)
		t.Run("identities of 128 KiB", w.bigIdentities)
		t.Run("control characters in each field", w.controlCharacters)
		t.Run("secrets in every form of a record", w.oddRecords)
	})
	t.Run("on listeners of their own", func(t *testing.T) {
		t.Run("connections to the admin port", w.connections)
		t.Run("asked to end while the API server is away", w.endedInAnOutage)
		t.Run("a dry run that is faster", w.fasterDryRun)
		t.Run("a lie to one replica and the truth to the other", w.lieToOneReplica)
		t.Run("a replay after a restart", w.replayAfterRestart)
		t.Run("a pod that takes no annotation", w.fullPod)
		t.Run("made-up deaths without a cluster", w.withoutCluster)
		t.Run("a full disk without a cluster", w.fullDisk)
	})
	w.ask(t, w.listener())
	w.withinMemory(t, w.fleet.Listener.PID())
	t.Run("refused deaths push out no true ones", w.refusedPushOutNone)
	w.onlyTheDeadTouched(t)
	seen := w.seen(t)
	nothingRaw(t, seen)
	w.noSecrets(t, seen)
}

// firstCanary has a pod claim the boot of a node that has not enrolled yet. The claim is worth a witness; the pin that the node
// writes later is worth more.
func (w *attackWorld) firstCanary(t *testing.T, name string, anew bool) {
	addr, kernel := w.address(t)
	pod := w.voice(t, addr)
	t.Parallel()
	joined := func(n *corev1.Node) { setAddresses(n, addr.String()) }
	id := w.member(t, name, joined)
	id.Secret = randomSecret()
	if anew {
		w.enroll(t, name, id)
		w.mustDeleteNode(t, name)
		eventually(t, "the listener to forget the Node", func() error {
			if w.listener().knows(w.kubeWorld, name) == nil {
				return errors.New("it knows it")
			}
			return nil
		})
		w.member(t, name, joined)
	}
	w.keepLease(t, name, longLease, renewSoon)
	forged := id
	forged.Secret = randomSecret()
	if err := pod.Prove(t.Context(), story.Canary(forged, 1)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the claim", func() error {
		n := w.getNode(t, name)
		if got := n.Annotations["lastgasp.dev/claim"]; got != forged.Boot+":"+forged.Secret.Sum() || n.Annotations["lastgasp.dev/pin"] != "" {
			return fmt.Errorf("claim %q, pin %q", got, n.Annotations["lastgasp.dev/pin"])
		}
		return nil
	})
	if err := pod.Say(story.Panic(forged)...); err != nil {
		t.Fatal(err)
	}
	w.refused(t, refusal{policy.DeathName(name, id.Boot), "claimed", true, "renewed its Lease"})
	w.enroll(t, name, id)
	if err := kernel.Prove(t.Context(), story.Canary(id, 2)); err != nil {
		t.Fatal(err)
	}
	w.dies(t, name, id, kernel)
}

// forgedWitness lies about a living node that has not enrolled, while an accomplice with a right that others have, too, forges
// its witness over and over.
func (w *attackWorld) forgedWitness(t *testing.T, name string, forge func(ctx context.Context, name string) error) {
	addr, _ := w.address(t)
	pod := w.voice(t, addr)
	t.Parallel()
	id := w.member(t, name, func(n *corev1.Node) { setAddresses(n, addr.String()) })
	w.keepLease(t, name, leaseSeconds, renewEvery)
	w.newPod(t, name, name, corev1.PodRunning, nil)
	if err := pod.Say(story.Panic(id)...); err != nil {
		t.Fatal(err)
	}
	death := policy.DeathName(name, id.Boot)
	eventually(t, "the lie to be judged", func() error { _, err := w.cluster.Death(t.Context(), death); return err })
	tick, end := time.NewTicker(forgeEvery), time.After(forgedFor)
	defer tick.Stop()
	var d policy.Death
	forged := 0
	for over := false; !over && d.Phase != policy.Refused; {
		select {
		case <-end:
			over = true
		case <-tick.C:
		}
		if err := forge(t.Context(), name); err != nil { // others write the same object, and the API server is busy
			t.Logf("not forged: %v", err)
			continue
		}
		forged++
		d = ask(t, func() (policy.Death, error) { return w.cluster.Death(t.Context(), death) })
	}
	if forged == 0 {
		t.Error("nothing was forged: the test proves nothing")
	}
	if d.Phase != policy.Refused && d.Phase != policy.Pending {
		t.Errorf("the death is %s: %s", d.Phase, d.Decision)
	}
	if p := w.getPod(t, name); p.Status.Phase != corev1.PodRunning || len(p.Annotations) > 0 {
		t.Errorf("its pod is %s, annotations %v", p.Status.Phase, p.Annotations)
	}
	w.getNode(t, name) // it is there
}

const (
	// forgedFor is longer than a kubelet's Lease lasts, and forgeEvery short: nobody looks between two forgeries.
	forgedFor  = 50 * time.Second
	forgeEvery = 100 * time.Millisecond
)

// callSilent writes what the control plane writes of a node that it does not hear from.
func (w *attackWorld) callSilent(ctx context.Context, name string) error {
	return patchNode(ctx, w.kubeWorld.admin, name, fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":"Unknown",
		"reason":"NodeStatusUnknown","lastTransitionTime":%q}]}}`, time.Now().UTC().Format(time.RFC3339)), "status")()
}

// shortenLease has the Lease end a second after it is renewed. A kubelet renews what it finds.
func (w *attackWorld) shortenLease(ctx context.Context, name string) error {
	return w.patchLease(ctx, name, `{"spec":{"leaseDurationSeconds":1}}`)
}

func (w *attackWorld) setLeaseBack(ctx context.Context, name string) error {
	return w.patchLease(ctx, name, `{"spec":{"renewTime":"2026-01-01T00:00:00.000000Z"}}`)
}

// oldKernel lies about a node whose kernel can send no secret, and then has it die: its Lease is the witness.
func (w *attackWorld) oldKernel(t *testing.T) {
	addr, kernel := w.address(t)
	pod := w.voice(t, addr)
	t.Parallel()
	const name = "old-and-dying"
	id := w.member(t, name, func(n *corev1.Node) {
		setAddresses(n, addr.String())
		n.Status.NodeInfo.KernelVersion = "6.1.0-41-cloud-amd64"
	})
	silence := w.keepLease(t, name, leaseSeconds, renewSoon)
	if err := pod.Say(story.Panic(id)...); err != nil {
		t.Fatal(err)
	}
	death := policy.DeathName(name, id.Boot)
	w.refused(t, refusal{death, "boot", true, "renewed its Lease"})
	silence()
	w.mayDie(name)
	if err := kernel.Say(story.Panic(netconsole.Identity{})...); err != nil {
		t.Fatal(err)
	}
	w.cleaned(t, death, "kernel")
}

// refusalsUsedUp lies 40 times from a node's own address, whose kernel's last words come when the node is back already.
func (w *attackWorld) refusalsUsedUp(t *testing.T) {
	addr, kernel := w.address(t)
	pod := w.voice(t, addr)
	t.Parallel()
	const name = "back-already"
	id := w.member(t, name, func(n *corev1.Node) { setAddresses(n, addr.String()) })
	id.Secret = randomSecret()
	w.enroll(t, name, id)
	w.keepLease(t, name, longLease, renewSoon)
	if err := kernel.Prove(t.Context(), story.Canary(id, 1)); err != nil {
		t.Fatal(err)
	}
	w.setBoot(t, name, "next-boot-of-"+name)
	for i := range 40 {
		lie := netconsole.Identity{Instance: id.Instance, Boot: fmt.Sprintf("made-up-%d", i)}
		if err := pod.Say(story.Panic(lie)...); err != nil {
			t.Fatal(err)
		}
	}
	if err := kernel.Say(story.Panic(id)...); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the death to be on record", func() error {
		d, err := w.cluster.Death(t.Context(), policy.DeathName(name, id.Boot))
		if err == nil && d.Phase != policy.Recorded {
			err = fmt.Errorf("phase %s: %s", d.Phase, d.Decision)
		}
		return err
	})
}

// foreignMark has a node's own kubelet write the mark of another node's future death to its Node. That node's death is acted on.
func (w *attackWorld) foreignMark(t *testing.T) {
	marked, _ := w.address(t)
	addr, kernel := w.address(t)
	t.Parallel()
	w.member(t, "marks-another", func(n *corev1.Node) { setAddresses(n, marked.String()) })
	id := w.member(t, "marked-elsewhere", func(n *corev1.Node) { setAddresses(n, addr.String()) })
	id.Secret = randomSecret()
	w.enroll(t, "marked-elsewhere", id)
	mark := fmt.Sprintf(`{"metadata":{"annotations":{"lastgasp.dev/death":%q,"lastgasp.dev/boot":%q,"lastgasp.dev/reason":"x"}}}`,
		policy.DeathName("marked-elsewhere", id.Boot), id.Boot)
	if err := patchNode(t.Context(), w.kubelet(t, "marks-another"), "marks-another", mark)(); err != nil {
		t.Fatal(err)
	}
	if err := kernel.Prove(t.Context(), story.Canary(id, 1)); err != nil {
		t.Fatal(err)
	}
	w.dies(t, "marked-elsewhere", id, kernel)
}

// madeUpDeaths has whoever stole the listener's token write NodeDeaths of living nodes. What this replica has not heard itself
// waits for a witness, and a Lease that is renewed contradicts it.
func (w *attackWorld) madeUpDeaths(t *testing.T) {
	t.Parallel()
	for i, tt := range []struct{ name, time, status string }{
		{"without a status", "2026-01-01T00:00:00.000000Z", ""},
		{"in the future", "2036-01-01T00:00:00.000000Z", ""},
		{"decided by a replica that is gone", time.Now().UTC().Format(metav1.RFC3339Micro), `{"phase":"Cleaning","owner":"gone","decision":"pinned authority"}`},
		{"held by a replica that is gone", time.Now().UTC().Format(metav1.RFC3339Micro), `{"phase":"Held","owner":"gone"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			name := fmt.Sprintf("made-up-%d", i)
			node := w.newNode(t, name, func(n *corev1.Node) { n.Status.NodeInfo.BootID = "boot-of-" + name })
			w.keepLease(t, name, longLease, renewSoon)
			w.newPod(t, name, name, corev1.PodRunning, nil)
			death := policy.DeathName(name, node.Status.NodeInfo.BootID)
			u := &unstructured.Unstructured{}
			text := fmt.Sprintf(`{"apiVersion":"lastgasp.dev/v1alpha1","kind":"NodeDeath","metadata":{"name":%q},
				"spec":{"node":%q,"nodeUID":%q,"boot":%q,"time":%q,"cause":"KernelPanic","reason":"x","authority":"pinned"},
				"status":{"phase":"Cleaning","owner":"gone"}}`, death, name, node.UID, node.Status.NodeInfo.BootID, tt.time)
			if err := u.UnmarshalJSON([]byte(text)); err != nil {
				t.Fatal(err)
			}
			stolen := w.dynamic.Resource(deaths)
			made, err := stolen.Create(t.Context(), u, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if phase, _, _ := unstructured.NestedString(made.Object, "status", "phase"); phase != "" {
				t.Errorf("it was created with phase %s; a status is written by itself", phase)
			}
			if tt.status != "" {
				w.setStatus(t, death, tt.status)
			}
			w.refused(t, refusal{death, "pinned", true, "renewed its Lease"})
			if p := w.getPod(t, name); p.Status.Phase != corev1.PodRunning || len(p.Annotations) > 0 {
				t.Errorf("its pod is %s, annotations %v", p.Status.Phase, p.Annotations)
			}
		})
	}
}

// setStatus writes the status of a death with the listener's own token.
func (w *attackWorld) setStatus(t *testing.T, death, status string) {
	t.Helper()
	var to map[string]any
	if err := json.Unmarshal([]byte(status), &to); err != nil {
		t.Fatal(err)
	}
	stolen := w.dynamic.Resource(deaths)
	eventually(t, "the status to be written", func() error { // the listener may write in between
		have, err := stolen.Get(t.Context(), death, metav1.GetOptions{})
		if err != nil {
			return err
		}
		have.Object["status"] = to
		_, err = stolen.UpdateStatus(t.Context(), have, metav1.UpdateOptions{})
		return err
	})
}

// canaryFlood sends canaries from made-up ports of two nodes' addresses. The true ones are acknowledged nevertheless.
func (w *attackWorld) canaryFlood(t *testing.T) {
	type node struct {
		id     netconsole.Identity
		kernel *story.Voice
		pod    []*story.Voice
	}
	nodes := make([]node, 2)
	addrs := make([]netip.Addr, len(nodes))
	for i := range nodes {
		addrs[i], nodes[i].kernel = w.address(t)
		nodes[i].pod = w.voices(t, addrs[i], 64)
	}
	t.Parallel()
	for i := range nodes {
		name := fmt.Sprintf("canaries-%d", i)
		nodes[i].id = w.member(t, name, func(n *corev1.Node) { setAddresses(n, addrs[i].String()) })
		nodes[i].id.Secret = randomSecret()
		if i == 0 { // the other one has no pin
			w.enroll(t, name, nodes[i].id)
		}
	}
	stop := w.flood(t, 5, func(i int) error {
		n := nodes[i%len(nodes)]
		forged := n.id
		forged.Secret = randomSecret()
		return n.pod[i/len(nodes)%len(n.pod)].Say(story.Canary(forged, i))
	})
	for i := range 10 {
		for j, n := range nodes {
			began := time.Now()
			if err := n.kernel.Prove(t.Context(), story.Canary(n.id, 1_000_000+i)); err != nil {
				t.Errorf("canary %d of node %d: %v", i, j, err)
			}
			if i == 0 {
				t.Logf("node %d: acknowledged after %s", j, time.Since(began).Round(time.Millisecond))
			}
		}
	}
	stop(t)
}

// logStorm has root on one node, which is pinned, print as fast as the listener reads. Another node dies meanwhile.
func (w *attackWorld) logStorm(t *testing.T) {
	loud, _ := w.address(t)
	root := w.voices(t, loud, 4)
	addr, kernel := w.address(t)
	t.Parallel()
	storm := w.member(t, "storming", func(n *corev1.Node) { setAddresses(n, loud.String()) })
	quiet := w.member(t, "beside-the-storm", func(n *corev1.Node) { setAddresses(n, addr.String()) })
	storm.Secret, quiet.Secret = randomSecret(), randomSecret()
	w.enroll(t, "storming", storm)
	w.enroll(t, "beside-the-storm", quiet)
	if err := kernel.Prove(t.Context(), story.Canary(quiet, 1)); err != nil {
		t.Fatal(err)
	}
	stop := w.flood(t, 0, func(i int) error {
		text := "usb 1-1: device descriptor read/64, error -110"
		if i%50 == 0 {
			text = fmt.Sprintf("watchdog: BUG: soft lockup - CPU#%d stuck for 22s! [stress:%d]", i%64, i)
		}
		return root[i%len(root)].Say(load.Record(nil, 3, i, text, userdata(storm)))
	})
	w.dies(t, "beside-the-storm", quiet, kernel)
	stop(t)
}

// bigIdentities sends records in fragments whose boot is as long as a record can be.
func (w *attackWorld) bigIdentities(t *testing.T) {
	addr, _ := w.address(t)
	pod := w.voices(t, addr, 8)
	t.Parallel()
	const total, piece = 120 << 10, 1800
	record := "Kernel panic - not syncing: big\n boot=" + strings.Repeat("b", total)
	pieces := (total + piece - 1) / piece
	stop := w.flood(t, 40_000, func(i int) error {
		seq, at := i/pieces, i%pieces*piece
		d := fmt.Appendf(nil, "6.12.0,0,%d,%d,-,ncfrag=%d/%d;%s", seq, seq, at, total, record[at:min(at+piece, total)])
		return pod[seq%len(pod)].Say(d)
	})
	stop(t)
	for _, n := range []int{64, 128, 129, 255, 256, 900} { // what fits one datagram
		long := strings.Repeat("x", n)
		for _, id := range []netconsole.Identity{{Instance: long, Boot: "b"}, {Instance: "i", Boot: long}, {Instance: "i", Boot: "b", Secret: netconsole.Secret(long)}} {
			if err := pod[0].Say(load.Record(nil, 0, 9_000_000+n, "Kernel panic - not syncing: long", userdata(id))); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// raw is what must not reach a terminal, a log line or a label as it is.
const raw = "\x1b[2J\x1b]0;owned\x07\u202egnp.exe\u2066\r\x7f\u0085\u2028\xff\xfe"

// controlCharacters sends panics with them in every field that a datagram has, from a node's address and from a stranger's.
func (w *attackWorld) controlCharacters(t *testing.T) {
	addr, node := w.address(t)
	_, stranger := w.address(t)
	t.Parallel()
	id := w.member(t, "printed", func(n *corev1.Node) { setAddresses(n, addr.String()) })
	w.keepLease(t, "printed", longLease, renewSoon)
	for i, d := range [][]byte{
		load.Record(nil, 0, 1, "Kernel panic - not syncing: "+raw, userdata(id)),
		load.Record(nil, 0, 2, "Kernel panic - not syncing: a", userdata(netconsole.Identity{Instance: "i-" + raw, Boot: id.Boot})),
		load.Record(nil, 0, 3, "Kernel panic - not syncing: b", userdata(netconsole.Identity{Instance: id.Instance, Boot: "b" + raw})),
		load.Record(nil, 0, 4, "Kernel panic - not syncing: c", userdata(netconsole.Identity{Instance: id.Instance, Boot: id.Boot, Secret: raw})),
		fmt.Appendf(nil, "6.12%s,0,5,5,-,caller=%s;Kernel panic - not syncing: d\n boot=e%s\n x%s=%s\n", "\u202e\x1b", raw, raw, raw, raw),
		[]byte("Kernel panic - not syncing: " + raw + "\n"),
		load.Record(nil, 4, 6, `lastgasp: canary v1 nonce=00112233445566778899aabbccddeeff instance=i`+raw+` boot=`+raw, userdata(netconsole.Identity{})),
		load.Record(nil, 3, 7, "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! ["+raw+":1]", userdata(id)),
	} {
		for _, v := range []*story.Voice{node, stranger} {
			if err := v.Say(d); err != nil {
				t.Fatalf("datagram %d: %v", i, err)
			}
		}
	}
	w.refused(t, refusal{policy.DeathName("printed", id.Boot), "boot", true, "renewed its Lease"})
}

// oddRecords sends a node's secret in records that no kernel of today writes. It is never printed.
func (w *attackWorld) oddRecords(t *testing.T) {
	addr, node := w.address(t)
	t.Parallel()
	id := w.member(t, "odd", func(n *corev1.Node) { setAddresses(n, addr.String()) })
	id.Secret = randomSecret()
	w.enroll(t, "odd", id)
	w.keepLease(t, "odd", longLease, renewSoon)
	w.hide(id.Secret)
	userdata := userdata(id)
	const text = "Kernel panic - not syncing: odd\n"
	for i, d := range []string{
		"6.12 custom,0,1,1,-;" + text + userdata,
		"6.12.0,0,2,2,x;" + text + userdata,
		"6.12.0,0,3,3,-,new=flag,another;" + text + userdata,
		"6.12.0,0,4,-;" + text + userdata,
		"6.12.0,0,5,5,-," + text + userdata,
		"\ufeff6.12.0,0,6,6,-;" + text + userdata,
		"<0>[    1.0] " + text + userdata,
		text + userdata,
		"gasp=" + string(id.Secret) + " " + text,
		"6.12.0,99999,7,7,-;" + text + userdata,
		"6.12.0,0,8,8,-;" + text + strings.ReplaceAll(userdata, "\n", "\r\n"),
		"6.12.0,0,9,9,-;" + text + strings.ReplaceAll(userdata, " gasp=", "\tgasp="),
		"6.12.0,0,10,10,-;" + text + strings.ReplaceAll(userdata, " gasp=", " gasp ="),
		"6.12.0,0,11,11,-;" + text + userdata + userdata,
		"** replaying previous printk message **\n6.12 custom,0,12,12,-;" + text + userdata,
	} {
		if err := node.Say([]byte(d)); err != nil {
			t.Fatalf("datagram %d: %v", i, err)
		}
	}
	// One of them is a true death by the book, if it is read so: then it is the node's own word.
	w.mayDie("odd")
	eventually(t, "something of it to be on record", func() error {
		if !strings.Contains(w.kubectl(t, "get", "nodedeaths", "--output=json"), addr.String()) {
			return errors.New("nothing")
		}
		return nil
	})
}

// refusedPushOutNone fills what is kept with lies: true deaths stay on record.
func (w *attackWorld) refusedPushOutNone(t *testing.T) {
	if err := w.fleet.Listen(t.Context(), "limits: {nodes: 100}\nkeep: {records: 10}\n"); err != nil {
		t.Fatal(err)
	}
	addr, kernel := w.address(t)
	id := w.member(t, "kept", func(n *corev1.Node) { setAddresses(n, addr.String()) })
	id.Secret = randomSecret()
	w.enroll(t, "kept", id)
	if err := kernel.Prove(t.Context(), story.Canary(id, 1)); err != nil {
		t.Fatal(err)
	}
	w.dies(t, "kept", id, kernel)
	for range 20 {
		_, stranger := w.address(t)
		for i := range 3 {
			if err := stranger.Say(story.Panic(netconsole.Identity{Instance: "i-nobody", Boot: fmt.Sprintf("lie-%d", i)})...); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "the lies to be bounded", func() error {
		refused := strings.Count(w.kubectl(t, "get", "nodedeaths", "--no-headers", "--field-selector=status.phase=Refused"), "\n")
		if refused == 0 || refused > 10 {
			return fmt.Errorf("%d refused ones are on record", refused)
		}
		return nil
	})
	if d, err := w.cluster.Death(t.Context(), policy.DeathName("kept", id.Boot)); err != nil || d.Phase != policy.Cleaned {
		t.Errorf("the true death: phase %s, %v", d.Phase, err)
	}
}
