package cleanup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// world is a cluster in memory: what the API server would hold, with resourceVersions and preconditions honoured. It
// fails the test by itself when something happens that must never happen.
type world struct {
	t *testing.T

	mu       sync.Mutex
	version  int
	nodes    map[string]Node
	renewed  map[string]time.Time // Leases
	dead     map[string]bool      // machines whose kernel has panicked: what may be hit at all
	pods     map[string]Pod       // by namespace/name
	volumes  map[string]int       // attachments by node
	records  map[string]Record
	events   []Event
	calls    []string       // what changed something, in order
	failures map[string]int // pod UID → times it was failed
	created  int            // records
	latency  time.Duration
	lease    time.Duration // spec.leaseDurationSeconds of every Lease
	down     bool
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, nodes: map[string]Node{}, renewed: map[string]time.Time{}, dead: map[string]bool{}, pods: map[string]Pod{},
		volumes: map[string]int{}, records: map[string]Record{}, failures: map[string]int{}, lease: 40 * time.Second,
	}
}

const (
	gaspOf1 = netconsole.Secret("secret of node 1")
	boot1   = "11111111-0000-4000-8000-000000000001"
	boot2   = "11111111-0000-4000-8000-000000000002"
)

func address(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }

// addNode adds Ready node ni, running boot and pinned to gasp.
func (w *world) addNode(i int, boot string, gasp netconsole.Secret) Node {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := Node{
		Name: fmt.Sprintf("n%d", i), UID: fmt.Sprintf("uid-n%d", i), ProviderID: fmt.Sprintf("aws:///zone/i-%d", i),
		Addresses: []netip.Addr{address(i)}, BootID: boot, Ready: true, Created: time.Now().Add(-time.Hour),
	}
	if gasp != "" {
		n.Pin = Pin{Boot: boot, Sum: gasp.Sum()}
	}
	n.ResourceVersion = w.next()
	w.nodes[n.Name] = n
	w.renewed[n.Name] = time.Now().Add(-3 * time.Second)
	return n
}

// addPod adds a pod that runs since a minute ago.
func (w *world) addPod(node, name, owner string, change func(*Pod)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := Pod{
		Namespace: "default", Name: name, UID: "uid-" + name, Node: node, Phase: "Running",
		Created: time.Now().Add(-time.Minute), Started: time.Now().Add(-time.Minute),
	}
	if api, kind, ok := strings.Cut(owner, " "); ok {
		p.Owner = Owner{APIVersion: api, Kind: kind, Name: kind + "-of-" + name, UID: "uid-owner-" + name}
	}
	if change != nil {
		change(&p)
	}
	p.ResourceVersion = w.next()
	w.pods[p.Namespace+"/"+p.Name] = p
}

// populate puts one pod of every kind on a node and returns the names of those that have to fail.
func (w *world) populate(node string) []string {
	w.addPod(node, node+"-web", "apps/v1 ReplicaSet", nil)
	w.addPod(node, node+"-db", "apps/v1 StatefulSet", func(p *Pod) { p.Finalizers = []string{"example.com/backup"} })
	w.addPod(node, node+"-log", "apps/v1 DaemonSet", nil)
	w.addPod(node, node+"-sum", "batch/v1 Job", func(p *Pod) { p.Finalizers = []string{jobTracking} })
	w.addPod(node, node+"-bare", "", nil)
	w.addPod(node, node+"-static", "v1 Node", func(p *Pod) { p.Mirror = true })
	w.addPod(node, node+"-over", "batch/v1 Job", func(p *Pod) { p.Phase = "Succeeded" })
	w.addPod(node, node+"-broken", "batch/v1 Job", func(p *Pod) { p.Phase = "Failed" })
	return []string{node + "-bare", node + "-db", node + "-log", node + "-sum", node + "-web"}
}

// gasp is the incident that the kernel of node i sends.
func gasp(i int, boot string, secret netconsole.Secret) detect.Incident {
	return detect.Incident{
		Source:   netip.AddrPortFrom(address(i), 6665),
		Identity: netconsole.Identity{Instance: fmt.Sprintf("i-%d", i), Boot: boot, Secret: secret},
		Time:     time.Now(), Verdict: detect.Dying, Authority: detect.Kernel, Cause: "KernelPanic",
		Title: "sysrq triggered crash", Fingerprint: "0123456789ab", Release: "6.12.0",
		Trace: []string{"sysrq: Trigger a crash", "Kernel panic - not syncing: sysrq triggered crash"},
	}
}

// panics stops node i's kubelet.
func (w *world) panics(i int) { w.mu.Lock(); w.dead[fmt.Sprintf("n%d", i)] = true; w.mu.Unlock() }

// reboots brings node i back on another boot.
func (w *world) reboots(i int, boot string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := fmt.Sprintf("n%d", i)
	n, ok := w.nodes[name]
	if !ok {
		return
	}
	n.BootID, n.Ready, n.ResourceVersion = boot, true, w.next()
	w.nodes[name] = n
	w.dead[name] = false
	for k, p := range w.pods {
		if p.Node == name && !p.Finished() {
			p.Started, p.ResourceVersion = time.Now(), w.next()
			w.pods[k] = p
		}
	}
}

// kubelets renews the Leases of what lives until ctx ends.
func (w *world) kubelets(ctx context.Context) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			w.mu.Lock()
			for name := range w.nodes {
				if !w.dead[name] && !w.down {
					w.renewed[name] = now
				}
			}
			w.mu.Unlock()
		}
	}
}

func (w *world) next() string { w.version++; return fmt.Sprint(w.version) }

// enter begins a call: it takes its time and may find the API server down.
func (w *world) enter(ctx context.Context) error {
	if w.latency > 0 {
		time.Sleep(w.latency)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	w.mu.Lock()
	if w.down {
		w.mu.Unlock()
		return errors.New("connection refused")
	}
	return nil
}

func (w *world) did(format string, args ...any) {
	w.calls = append(w.calls, fmt.Sprintf(format, args...))
}

// FindNode matches instance or address as the interface says.
func (w *world) FindNode(ctx context.Context, instance string, addr netip.Addr) (Node, error) {
	if err := w.enter(ctx); err != nil {
		return Node{}, err
	}
	defer w.mu.Unlock()
	var found []Node
	for _, n := range w.nodes {
		if instance != "" && strings.HasSuffix(n.ProviderID, "/"+instance) || instance == "" && slices.Contains(n.Addresses, addr) {
			found = append(found, n)
		}
	}
	switch {
	case len(found) > 1:
		return Node{}, ErrAmbiguous
	case len(found) == 0 || !slices.Contains(found[0].Addresses, addr):
		return Node{}, fmt.Errorf("find node of %s: %w", addr, ErrNotFound)
	}
	return found[0], nil
}

func (w *world) Node(ctx context.Context, name string) (Node, error) {
	if err := w.enter(ctx); err != nil {
		return Node{}, err
	}
	defer w.mu.Unlock()
	n, ok := w.nodes[name]
	if !ok {
		return Node{}, ErrNotFound
	}
	return n, nil
}

func (w *world) NodeCount() int { w.mu.Lock(); defer w.mu.Unlock(); return len(w.nodes) }

func (w *world) LeaseRenewed(ctx context.Context, node string) (time.Time, time.Duration, error) {
	if err := w.enter(ctx); err != nil {
		return time.Time{}, 0, err
	}
	defer w.mu.Unlock()
	at, ok := w.renewed[node]
	if !ok {
		return time.Time{}, 0, ErrNotFound
	}
	return at, w.lease, nil
}

func (w *world) MarkedNodes(ctx context.Context) ([]Node, error) {
	if err := w.enter(ctx); err != nil {
		return nil, err
	}
	defer w.mu.Unlock()
	marked := slices.Collect(maps.Values(w.nodes))
	return slices.DeleteFunc(marked, func(n Node) bool { return !n.Fenced && n.Mark == (Mark{}) }), nil
}

func (w *world) PatchNode(ctx context.Context, n Node, p NodePatch) (Node, error) {
	if err := w.enter(ctx); err != nil {
		return Node{}, err
	}
	defer w.mu.Unlock()
	have, ok := w.nodes[n.Name]
	switch {
	case !ok:
		return Node{}, ErrNotFound
	case have.UID != n.UID || have.ResourceVersion != n.ResourceVersion:
		return Node{}, ErrConflict
	}
	if p.Fence != nil {
		have.Fenced = *p.Fence
		w.did("%s %s", map[bool]string{true: "fence", false: "unfence"}[*p.Fence], n.Name)
	}
	if p.OutOfService != nil {
		if !*p.OutOfService && !have.Mark.OutOfService {
			w.t.Errorf("out-of-service taint of somebody else removed from %s", n.Name)
		}
		have.OutOfService = *p.OutOfService
		w.did("out-of-service=%v %s", *p.OutOfService, n.Name)
	}
	if p.Mark != nil {
		have.Mark = *p.Mark
	}
	if p.Pin != nil {
		if have.Pin.Boot == p.Pin.Boot && have.Pin != *p.Pin {
			w.t.Errorf("pin of boot %s replaced on %s", p.Pin.Boot, n.Name)
		}
		have.Pin = *p.Pin
		w.did("pin %s", n.Name)
	}
	have.ResourceVersion = w.next()
	w.nodes[n.Name] = have
	return have, nil
}

func (w *world) DeleteNode(ctx context.Context, n Node) error {
	if err := w.enter(ctx); err != nil {
		return err
	}
	defer w.mu.Unlock()
	have, ok := w.nodes[n.Name]
	switch {
	case !ok:
		return ErrNotFound
	case have.UID != n.UID || have.ResourceVersion != n.ResourceVersion:
		return ErrConflict
	}
	if !w.dead[n.Name] {
		w.t.Errorf("living node %s deleted", n.Name)
	}
	if a := w.attached(n.Name); a > 0 {
		w.t.Errorf("node %s deleted with %d volumes attached", n.Name, a)
	}
	delete(w.nodes, n.Name)
	delete(w.renewed, n.Name)
	w.did("delete %s", n.Name)
	return nil
}

func (w *world) CreateRecord(ctx context.Context, r Record) (Record, error) {
	if err := w.enter(ctx); err != nil {
		return Record{}, err
	}
	defer w.mu.Unlock()
	if _, ok := w.records[r.Name]; ok {
		return Record{}, ErrExists
	}
	if n := w.nodes[r.Node]; r.Phase == Claimed && !n.Fenced {
		w.t.Errorf("record %s claimed before node %s was fenced", r.Name, r.Node)
	}
	r.Version, r.UID, r.Created = w.next(), "uid-"+r.Name+w.next(), time.Now()
	w.records[r.Name] = r
	w.created++
	w.did("create %s record", r.Phase)
	return r, nil
}

func (w *world) Record(ctx context.Context, name string) (Record, error) {
	if err := w.enter(ctx); err != nil {
		return Record{}, err
	}
	defer w.mu.Unlock()
	r, ok := w.records[name]
	if !ok {
		return Record{}, ErrNotFound
	}
	return r, nil
}

func (w *world) Records(ctx context.Context) ([]Record, error) {
	if err := w.enter(ctx); err != nil {
		return nil, err
	}
	defer w.mu.Unlock()
	var all []Record
	for _, r := range w.records {
		r.Trace = nil
		all = append(all, r)
	}
	return all, nil
}

func (w *world) UpdateRecord(ctx context.Context, r Record) (Record, error) {
	if err := w.enter(ctx); err != nil {
		return Record{}, err
	}
	defer w.mu.Unlock()
	have, ok := w.records[r.Name]
	switch {
	case !ok:
		return Record{}, ErrNotFound
	case have.Version != r.Version:
		return Record{}, ErrConflict
	}
	r.Version, r.Released = w.next(), have.Released
	if len(r.Trace) == 0 {
		r.Trace = have.Trace
	}
	w.records[r.Name] = r
	return r, nil
}

func (w *world) DeleteRecord(ctx context.Context, r Record) error {
	if err := w.enter(ctx); err != nil {
		return err
	}
	defer w.mu.Unlock()
	if have, ok := w.records[r.Name]; !ok {
		return ErrNotFound
	} else if have.UID != r.UID {
		return ErrConflict
	}
	delete(w.records, r.Name)
	w.did("delete record")
	return nil
}

func (w *world) Pods(ctx context.Context, node string) ([]Pod, error) {
	if err := w.enter(ctx); err != nil {
		return nil, err
	}
	defer w.mu.Unlock()
	var pods []Pod
	for _, k := range slices.Sorted(maps.Keys(w.pods)) {
		if p := w.pods[k]; p.Node == node {
			pods = append(pods, p)
		}
	}
	return pods, nil
}

func (w *world) Pod(ctx context.Context, namespace, name string) (Pod, error) {
	if err := w.enter(ctx); err != nil {
		return Pod{}, err
	}
	defer w.mu.Unlock()
	p, ok := w.pods[namespace+"/"+name]
	if !ok {
		return Pod{}, ErrNotFound
	}
	return p, nil
}

func (w *world) FailPod(ctx context.Context, p Pod, d Death) (Pod, error) {
	return w.writePod(ctx, p, d, func(have *Pod) {
		if have.Finished() || have.Mirror || have.Created.After(d.Time) || have.Started.After(d.Time) {
			w.t.Errorf("pod %s failed: it must not be: %+v", have.Name, *have)
		}
		if n, ok := w.nodes[p.Node]; ok && !n.Fenced {
			w.t.Errorf("pod %s failed before node %s was fenced", p.Name, p.Node)
		}
		if !w.dead[p.Node] {
			w.t.Errorf("pod %s on living node %s failed", p.Name, p.Node)
		}
		have.Phase = "Failed"
		w.failures[p.UID]++
		w.did("fail %s", p.Name)
	})
}

func (w *world) AnnotatePod(ctx context.Context, p Pod, d Death) (Pod, error) {
	return w.writePod(ctx, p, d, func(have *Pod) {
		if !have.Mirror {
			w.t.Errorf("pod %s annotated: it is no mirror", have.Name)
		}
		w.did("annotate %s", p.Name)
	})
}

func (w *world) writePod(ctx context.Context, p Pod, d Death, change func(*Pod)) (Pod, error) {
	if err := w.enter(ctx); err != nil {
		return Pod{}, err
	}
	defer w.mu.Unlock()
	have, ok := w.pods[p.Namespace+"/"+p.Name]
	switch {
	case !ok:
		return Pod{}, ErrNotFound
	case have.UID != p.UID || have.ResourceVersion != p.ResourceVersion:
		return Pod{}, ErrConflict
	}
	change(&have)
	have.Marked, have.Record, have.ResourceVersion = true, d.Record, w.next()
	w.pods[p.Namespace+"/"+p.Name] = have
	return have, nil
}

func (w *world) DeletePod(ctx context.Context, p Pod) error {
	if err := w.enter(ctx); err != nil {
		return err
	}
	defer w.mu.Unlock()
	have, ok := w.pods[p.Namespace+"/"+p.Name]
	switch {
	case !ok:
		return ErrNotFound
	case have.UID != p.UID:
		return ErrConflict
	case have.Mirror || !have.Marked || w.failures[have.UID] == 0:
		w.t.Errorf("pod %s deleted, which was not failed by us", p.Name)
	}
	w.did("delete %s", p.Name)
	if slices.ContainsFunc(have.Finalizers, func(f string) bool { return f != jobTracking }) {
		have.Deleting, have.ResourceVersion = true, w.next()
		w.pods[p.Namespace+"/"+p.Name] = have
		return nil
	}
	delete(w.pods, p.Namespace+"/"+p.Name)
	return nil
}

func (w *world) Attachments(ctx context.Context, node string) (int, error) {
	if err := w.enter(ctx); err != nil {
		return 0, err
	}
	defer w.mu.Unlock()
	return w.attached(node), nil
}

// attached drops volumes as attach/detach does: out of service, and no live pod that wants them.
func (w *world) attached(node string) int {
	if w.nodes[node].OutOfService {
		for _, p := range w.pods {
			if p.Node == node && !p.Finished() && !p.Mirror && !p.Started.IsZero() {
				return w.volumes[node]
			}
		}
		w.volumes[node] = 0
	}
	return w.volumes[node]
}

func (w *world) Tell(e Event) { w.mu.Lock(); w.events = append(w.events, e); w.mu.Unlock() }

var _ Cluster = (*world)(nil)

// set changes the world from the test.
func (w *world) set(change func()) { w.mu.Lock(); defer w.mu.Unlock(); change() }

// only returns the one record there has to be.
func (w *world) only() Record {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.records) != 1 {
		w.t.Fatalf("%d records, want 1: %v", len(w.records), slices.Collect(maps.Keys(w.records)))
	}
	for _, r := range w.records {
		return r
	}
	return Record{}
}

// node, log and failed are what a test reads while engines run.
func (w *world) node(name string) Node { w.mu.Lock(); defer w.mu.Unlock(); return w.nodes[name] }

func (w *world) log() []string { w.mu.Lock(); defer w.mu.Unlock(); return slices.Clone(w.calls) }

func (w *world) failed() int { w.mu.Lock(); defer w.mu.Unlock(); return len(w.failures) }
