//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/story"
	"github.com/lastgasp/lastgasp/listener/kube/v1alpha1"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

const (
	// forgedDatagrams is how many are sent at least, a third of each kind.
	forgedDatagrams = 1_050_000
	// mostForged ends the flood when the machine is slow to act on the true deaths.
	mostForged = 10 * forgedDatagrams
	// madeUpSecrets is how many made-up secrets each forgery comes with.
	madeUpSecrets = 64
	// portsPerHost is how many sockets each host sends from that is no node.
	portsPerHost = 16
	// mostQueued is how many bytes the kernel may have queued for the listener before the flood waits: enough that the
	// listener always has something to read. What the kernel drops when its queue is full, nobody can save.
	mostQueued = 512 << 10
	// paceEvery is after how many datagrams the queue is looked at.
	paceEvery = 64
	// lowPriority is the nice value of the threads that send: the flood comes from other machines, so sending it should take
	// little from the listener and the control plane.
	lowPriority = 10
)

// TestForgedDatagrams sends forged, replayed and re-sourced datagrams as fast as the machine can while pinned nodes die.
// Nothing may happen to a node that lives, and every true death is recorded and acted on. How long that took is printed beside
// the same before the flood, and while as many datagrams a second are sent to somebody else: one machine does all of this.
func TestForgedDatagrams(t *testing.T) {
	w := newHollowWorld(t, "limits: {nodes: 100}")
	idle, dying, living := w.armed(t, "idle", 3), w.armed(t, "dying", 4), w.armed(t, "living", 2)
	later := w.armed(t, "later", 3) // the flood says nothing about them
	rebooted := w.armed(t, "rebooted", 1)[0]
	old := rebooted.Identity
	rebooted.Kill()
	if err := rebooted.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	rebooted.arm(t)
	living = append(living, rebooted)

	died := map[string]time.Time{} // when each node's kernel said so
	die := func(v *bystander) {
		v.Kill()
		died[v.Name] = time.Now()
		if err := v.Panic(); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range idle {
		die(v)
		v.cleaned(t)
	}

	f := newFlood(t, w, dying, living, append(identities(idle), old))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	f.start(ctx)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s; the listener's log ends so:\n%s", f, w.listener().says())
		}
	})
	began := time.Now()
	for i, v := range dying {
		f.await(t, (i+1)*forgedDatagrams/(len(dying)+2))
		die(v)
	}
	for _, v := range dying {
		v.cleaned(t)
	}
	f.await(t, forgedDatagrams)
	stop()
	if err := f.stopped(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	t.Logf("%d datagrams in %s: %s", f.total(), took.Round(time.Millisecond), f)
	if heard := w.metrics(t)["lastgasp_datagrams_total"]; heard < 1_000_000 {
		t.Errorf("the listener received %.0f datagrams, want 1,000,000 at least", heard)
	}

	w.othersRefused(t, slices.Concat(idle, dying))
	ctx, stop = context.WithCancel(t.Context())
	defer stop()
	elsewhere := f.elsewhere(t, w, took)
	elsewhere.start(ctx)
	for _, v := range later {
		die(v)
		v.cleaned(t)
	}
	stop()
	if err := elsewhere.stopped(); err != nil {
		t.Fatal(err)
	}
	w.onlyTheDead(t, died, living)
	for _, v := range living {
		v.unharmed(t)
		if _, longest := w.earlyFences(t, v.Name); longest > policy.DefaultPolicy().Corroborate+busy {
			t.Errorf("node %s was fenced for %s, want act.corroborate and what a busy API server takes at most", v.Name, longest)
		}
	}
	w.logTimes(t, died, idle, later, dying)
}

// armed starts n nodes that have enrolled, each with a pod.
func (w *hollowWorld) armed(t *testing.T, name string, n int) []*bystander {
	t.Helper()
	all := make([]*bystander, n)
	for i := range all {
		all[i] = w.newBystander(t, fmt.Sprintf("%s-%d", name, i))
		all[i].start(t)
		all[i].arm(t)
	}
	return all
}

func identities(of []*bystander) (ids []netconsole.Identity) {
	for _, v := range of {
		ids = append(ids, v.Identity)
	}
	return ids
}

// cleaned waits until v's death is recorded on pinned authority and cleaned up.
func (v *bystander) cleaned(t *testing.T) {
	t.Helper()
	eventually(t, v.Name+" to be cleaned up", func() error {
		r, err := v.w.cluster.Death(t.Context(), v.deathName())
		if err == nil && (r.Phase != policy.Cleaned || r.Authority.String() != "pinned") {
			err = fmt.Errorf("phase %s on %s authority: %s", r.Phase, r.Authority, r.Decision)
		}
		return err
	})
}

// othersRefused waits until all that was recorded beside the true deaths is refused.
func (w *hollowWorld) othersRefused(t *testing.T, dead []*bystander) {
	t.Helper()
	eventually(t, "the forgeries to be refused", func() error {
		var list v1alpha1.NodeDeathList
		if err := json.Unmarshal([]byte(w.kubectl(t, "get", "nodedeaths", "--output=json")), &list); err != nil {
			return err
		}
		found := map[string]int{}
		for _, r := range list.Items {
			if !slices.ContainsFunc(dead, func(v *bystander) bool { return v.deathName() == r.Name }) {
				found[r.Status.Phase]++
			}
		}
		if found["Refused"] == 0 || len(found) != 1 {
			return fmt.Errorf("their phases are %v", found)
		}
		return nil
	})
}

// onlyTheDead checks in the audit log that the listener wrote nothing about pods and Nodes but of those that died, after
// they had, and but for the fence of those that live.
func (w *hollowWorld) onlyTheDead(t *testing.T, died map[string]time.Time, living []*bystander) {
	t.Helper()
	counts, acted := map[string]int{}, map[string]bool{}
	for _, e := range w.audit(t) {
		counts[e.what]++
		resource := strings.Fields(e.what)[1]
		since, dead := died[e.name]
		switch {
		case e.what == "patch nodes" && (dead || slices.ContainsFunc(living, func(v *bystander) bool { return v.Name == e.name })):
		case resource == "events" || resource == "leases" || strings.HasPrefix(resource, "nodedeaths"):
		case dead && e.received.After(since) && slices.Contains(actions, e.what):
			acted[e.what+" "+e.name] = true
		default:
			t.Errorf("the listener did %s %s", e.what, e.name)
		}
	}
	for name := range died {
		for _, what := range actions {
			if !acted[what+" "+name] {
				t.Errorf("the audit log has no %s %s after the panic", what, name)
			}
		}
	}
	t.Logf("the listener's writes: %v", counts)
}

// actions are what is done to a dead node's pod, which has the node's name, and to the Node.
var actions = []string{"patch pods/status", "patch nodes/status", "delete pods", "delete nodes"}

// logTimes prints how long after the panics the dead nodes' pods were failed and their Nodes deleted: before the flood, while it
// was sent elsewhere, and under it.
func (w *hollowWorld) logTimes(t *testing.T, died map[string]time.Time, idle, elsewhere, flooded []*bystander) {
	t.Helper()
	done := map[string]time.Time{}
	for _, e := range w.audit(t) {
		done[e.what+" "+e.name] = e.answered
	}
	median := func(what string, of []*bystander) time.Duration {
		var took []time.Duration
		for _, v := range of {
			took = append(took, done[what+" "+v.Name].Sub(died[v.Name]))
		}
		slices.Sort(took)
		return took[len(took)/2].Round(time.Millisecond)
	}
	for _, what := range []string{"patch pods/status", "delete nodes"} {
		before, busy, meanwhile := median(what, idle), median(what, elsewhere), median(what, flooded)
		t.Logf("%s after the panic, median: under the flood %s, %.1f times the %s before it, and %.1f times the %s with the flood sent elsewhere (goal: 2)",
			what, meanwhile, meanwhile.Seconds()/before.Seconds(), before, meanwhile.Seconds()/busy.Seconds(), busy)
	}
}

// metrics are those of the listener's metrics about datagrams and incidents that have no labels. They are printed, too.
func (w *hollowWorld) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	body := ask(t, func() (string, error) { _, body, err := w.listener().get(w.kubeWorld, "/metrics"); return body, err })
	values := map[string]float64{}
	for line := range strings.Lines(body) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !strings.HasPrefix(name, "lastgasp_datagrams_") && !strings.HasPrefix(name, "lastgasp_incidents_dropped") {
			continue
		}
		var err error
		if values[name], err = strconv.ParseFloat(text, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the listener's counters: %v", values)
	return values
}

// forgery is one datagram and what sends it.
type forgery struct {
	say     func(...[]byte) error
	payload []byte
}

// flood sends forgeries of three kinds, each kind from a goroutine of its own.
type flood struct {
	kinds [3]floodKind
	queue string // path of the listener's /proc/net/udp
	done  sync.WaitGroup
}

type floodKind struct {
	name      string
	forgeries []forgery     // sent over and over
	apart     time.Duration // mean interval between datagrams; 0: as fast as the listener reads
	sent      atomic.Int64
	err       error // valid once done
}

// newFlood makes forgeries about dying and living nodes. Spent are identities of boots that are over, whose last words are
// replayed. Of the nodes that live only the secret and the canary are: their last words would be true.
func newFlood(t *testing.T, w *hollowWorld, dying, living []*bystander, spent []netconsole.Identity) *flood {
	t.Helper()
	const own, named, secret = 0, 1, 2
	f := &flood{queue: fmt.Sprintf("/proc/%d/net/udp", w.fleet.Listener.PID())}
	for kind, name := range [3]string{"from the node's address and port", "naming its instance and boot", "with another node's secret"} {
		f.kinds[kind].name = name
	}
	add := func(kind int, say func(...[]byte) error, payloads ...[]byte) {
		for _, p := range payloads {
			f.kinds[kind].forgeries = append(f.kinds[kind].forgeries, forgery{say, p})
		}
	}
	for i, v := range slices.Concat(living, dying) {
		other := living[(i+1)%len(living)].Identity
		elsewhere := append(w.host(t, v.strange), v.shares)
		for round := range madeUpSecrets {
			say := elsewhere[round%len(elsewhere)].Say
			add(own, v.Say, story.BasicPanic()...)
			add(own, v.Say, story.Panic(netconsole.Identity{})...)
			add(own, v.Say, story.Panic(netconsole.Identity{Instance: v.Identity.Instance, Boot: rand.Text()})...)
			for _, id := range []netconsole.Identity{v.without(), withSecret(v, randomSecret())} {
				words := append(story.Panic(id), story.Canary(id, 100+round))
				words = append(words, fragments(words[1])...)
				add(own, v.Say, words...)
				add(named, say, words...)
			}
			for _, id := range append(spent, other) {
				mixed := withSecret(v, id.Secret)
				words := append(story.Panic(mixed), story.Canary(mixed, 100+round), story.Canary(id, 100+round))
				words = append(words, fragments(words[1])...)
				add(secret, say, words...)
				add(secret, v.Say, words...)
			}
			for _, id := range spent {
				add(secret, say, story.Panic(id)...)
				add(secret, v.Say, story.Panic(id)...)
			}
		}
	}
	return f
}

// withSecret is v's identity with a secret that is not its own.
func withSecret(v *bystander, secret netconsole.Secret) netconsole.Identity {
	id := v.without()
	id.Secret = secret
	return id
}

func randomSecret() netconsole.Secret {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return netconsole.Secret(base64.RawURLEncoding.EncodeToString(b))
}

// host is the sockets of a host that is no node.
func (w *hollowWorld) host(t *testing.T, addr netip.Addr) (all []*story.Voice) {
	t.Helper()
	for range portsPerHost {
		voice, err := w.fleet.Voice(w.fleet.Net.Node, addr)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, voice)
	}
	return all
}

// elsewhere is a flood of the same datagrams to somebody who does not read them, as many a second as f sent in the time it took.
func (f *flood) elsewhere(t *testing.T, w *hollowWorld, took time.Duration) *flood {
	t.Helper()
	to := netip.AddrPortFrom(w.fleet.Endpoint().Addr(), 0)
	nobody, err := lab.Listen(w.fleet.Net.Listener, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nobody.Close() })
	to = nobody.LocalAddr().(*net.UDPAddr).AddrPort()
	from, _ := w.address(t)
	other := &flood{queue: f.queue}
	for i := range f.kinds {
		conn, err := lab.Listen(w.fleet.Net.Node, netip.AddrPortFrom(from, 0))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		say := func(datagrams ...[]byte) error {
			_, err := conn.WriteToUDPAddrPort(datagrams[0], to)
			return err
		}
		k := &other.kinds[i]
		k.name, k.apart = f.kinds[i].name, took/time.Duration(f.kinds[i].sent.Load())
		for _, one := range f.kinds[i].forgeries {
			k.forgeries = append(k.forgeries, forgery{say, one.payload})
		}
	}
	return other
}

// start sends until ctx ends.
func (f *flood) start(ctx context.Context) {
	for i := range f.kinds {
		k := &f.kinds[i]
		f.done.Go(func() { k.err = f.send(ctx, k) })
	}
}

func (f *flood) send(ctx context.Context, k *floodKind) error {
	if err := giveWay(); err != nil {
		return err
	}
	began := time.Now()
	for i := 0; ctx.Err() == nil; i++ {
		if i == mostForged/3 {
			<-ctx.Done() // enough was sent; the slow API server gets what is left of the machine
			return nil
		}
		if i%paceEvery == 0 {
			if err := f.pace(ctx); err != nil {
				return err
			}
			time.Sleep(time.Until(began.Add(time.Duration(i) * k.apart)))
		}
		one := k.forgeries[i%len(k.forgeries)]
		if err := one.say(one.payload); err != nil {
			return err
		}
		k.sent.Add(1)
	}
	return nil
}

// giveWay has the calling goroutine run on a thread of its own, which shares one processor with the other senders and gives
// way to everybody else there. The thread ends with the goroutine.
func giveWay() error {
	runtime.LockOSThread() // never unlocked
	var allowed, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return fmt.Errorf("read the processors of a sender: %w", err)
	}
	cpu := 0
	for !allowed.IsSet(cpu) {
		cpu++
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("bind a sender to processor %d: %w", cpu, err)
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, lowPriority); err != nil {
		return fmt.Errorf("lower the priority of a sender: %w", err)
	}
	return nil
}

// pace waits until the listener has caught up, or ctx ends: the flood is as fast as the listener reads.
func (f *flood) pace(ctx context.Context) error {
	for ctx.Err() == nil {
		queued, err := queued(f.queue)
		if err != nil || queued < mostQueued {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// queued is the longest receive queue of a UDP socket, in bytes as the kernel counts them, by /proc/PID/net/udp (proc_net(5)).
func queued(file string) (longest int64, err error) {
	table, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("read the receive queues: %w", err)
	}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line) // sl local_address rem_address st tx_queue:rx_queue …
		if fields[0] == "sl" {
			continue
		}
		_, queue, _ := strings.Cut(fields[4], ":")
		n, err := strconv.ParseInt(queue, 16, 64)
		if err != nil {
			return 0, fmt.Errorf("read the receive queues: %w", err)
		}
		longest = max(longest, n)
	}
	return longest, nil
}

// await waits until so many datagrams were sent, a third of each kind.
func (f *flood) await(t *testing.T, datagrams int) {
	t.Helper()
	if err := within(t.Context(), 4*busy, func() error { // as fast as the listener reads, whatever else the machine does
		for i := range f.kinds {
			if n := f.kinds[i].sent.Load(); n < int64(datagrams/3) {
				return fmt.Errorf("%d %s", n, f.kinds[i].name)
			}
		}
		return nil
	}); err != nil {
		t.Fatalf("wait for %d datagrams to be sent: %v", datagrams, err)
	}
}

// stopped waits until nothing is sent any more.
func (f *flood) stopped() error {
	f.done.Wait()
	return errors.Join(f.kinds[0].err, f.kinds[1].err, f.kinds[2].err)
}

func (f *flood) total() (n int64) {
	for i := range f.kinds {
		n += f.kinds[i].sent.Load()
	}
	return n
}

// String is how many were sent of each kind.
func (f *flood) String() string {
	var parts []string
	for i := range f.kinds {
		parts = append(parts, fmt.Sprintf("%d %s", f.kinds[i].sent.Load(), f.kinds[i].name))
	}
	return strings.Join(parts, ", ")
}

// fragments cuts a record in two, as send_fragmented_body in drivers/net/netconsole.c does.
func fragments(record []byte) [][]byte {
	header, body, _ := bytes.Cut(record, []byte(";"))
	cut := len(body) / 2
	return [][]byte{
		fmt.Appendf(nil, "%s,ncfrag=0/%d;%s", header, len(body), body[:cut]),
		fmt.Appendf(nil, "%s,ncfrag=%d/%d;%s", header, cut, len(body), body[cut:]),
	}
}
