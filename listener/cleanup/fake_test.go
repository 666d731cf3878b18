package cleanup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"github.com/lastgasp/lastgasp/listener/policy"
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

	mu        sync.Mutex
	version   int
	nodes     map[string]policy.Node
	renewed   map[string]time.Time  // Leases
	dead      map[string]bool       // machines whose kernel has panicked: what may be hit at all
	pods      map[string]policy.Pod // by namespace/name
	volumes   map[string]int        // attachments by node
	deaths    map[string]policy.Death
	ended     []policy.Node // for EndedBoots
	events    []Event
	health    map[string]policy.Health // conditions of Nodes
	nodeClaim error                    // answer to the deletion of a NodeClaim
	calls     []string                 // what changed something, in order
	failures  map[string]int           // pod UID → times it was failed
	counted   []string                 // pods whose failure counts
	created   int                      // deaths
	finds     int                      // look-ups of Nodes
	replicas  map[string]time.Time     // Leases of listeners
	farewells map[string]string        // by name of the pod
	latency   time.Duration
	lease     time.Duration // spec.leaseDurationSeconds of every Lease
	down      bool
	open      bool   // nobody can fence a node
	revived   string // a pod of that name cannot be failed: the API server keeps it as it was
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, nodes: map[string]policy.Node{}, renewed: map[string]time.Time{}, dead: map[string]bool{}, pods: map[string]policy.Pod{},
		volumes: map[string]int{}, deaths: map[string]policy.Death{}, failures: map[string]int{}, lease: 40 * time.Second,
		replicas: map[string]time.Time{}, farewells: map[string]string{}, health: map[string]policy.Health{},
	}
}

const (
	secret1 = netconsole.Secret("secret of node 1")
	boot1   = "11111111-0000-4000-8000-000000000001"
	boot2   = "11111111-0000-4000-8000-000000000002"
)

// testPolicy is the default one, but keeps no pods: most tests wait for the end of a cleanup.
func testPolicy() policy.Policy {
	p := policy.DefaultPolicy()
	p.KeepPods = 0
	return p
}

func address(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }

// addNode adds Ready node ni, running boot and pinned to secret.
func (w *world) addNode(i int, boot string, secret netconsole.Secret) policy.Node {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := policy.Node{
		Name: fmt.Sprintf("n%d", i), UID: fmt.Sprintf("uid-n%d", i), ProviderID: fmt.Sprintf("aws:///zone/i-%d", i),
		Addresses: []netip.Addr{address(i)}, BootID: boot, Ready: true,
	}
	if secret != "" {
		n.Pin = policy.Pin{Boot: boot, Sum: secret.Sum()}
	}
	n.ResourceVersion = w.next()
	w.nodes[n.Name] = n
	w.renewed[n.Name] = time.Now().Add(-3 * time.Second)
	return n
}

// addPod adds a pod that runs since a minute ago.
func (w *world) addPod(node, name, owner string, change func(*policy.Pod)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := policy.Pod{
		Namespace: "default", Name: name, UID: "uid-" + name, Node: node, Phase: "Running",
		Created: time.Now().Add(-time.Minute), Started: time.Now().Add(-time.Minute),
	}
	if api, kind, ok := strings.Cut(owner, " "); ok {
		p.Owner = policy.Owner{APIVersion: api, Kind: kind, Name: kind + "-of-" + name, UID: "uid-owner-" + name}
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
	w.addPod(node, node+"-db", "apps/v1 StatefulSet", func(p *policy.Pod) { p.Finalizers = []string{"example.com/backup"} })
	w.addPod(node, node+"-log", "apps/v1 DaemonSet", nil)
	w.addPod(node, node+"-sum", "batch/v1 Job", func(p *policy.Pod) { p.Finalizers = []string{jobTracking} })
	w.addPod(node, node+"-bare", "", nil)
	w.addPod(node, node+"-static", "v1 Node", func(p *policy.Pod) { p.Mirror = true })
	w.addPod(node, node+"-over", "batch/v1 Job", func(p *policy.Pod) { p.Phase = "Succeeded" })
	w.addPod(node, node+"-broken", "batch/v1 Job", func(p *policy.Pod) { p.Phase = "Failed" })
	return []string{node + "-bare", node + "-db", node + "-log", node + "-sum", node + "-web"}
}

// incident is what the kernel of node i makes known when it dies.
func incident(i int, boot string, secret netconsole.Secret) detect.Incident {
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

// loses makes the control plane lose node i: its Ready condition becomes Unknown.
func (w *world) loses(i int) {
	w.set(func() {
		if n, ok := w.nodes[fmt.Sprintf("n%d", i)]; ok {
			n.Ready, n.Silent, n.SilentSince, n.ResourceVersion = false, true, time.Now(), w.next()
			w.nodes[n.Name] = n
		}
	})
}

// reboots brings node i back on another boot.
func (w *world) reboots(i int, boot string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := fmt.Sprintf("n%d", i)
	n, ok := w.nodes[name]
	if !ok {
		return
	}
	w.ends(n)
	n.BootID, n.Ready, n.Silent, n.ResourceVersion = boot, true, false, w.next()
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
func (w *world) FindNode(ctx context.Context, who Sender) (policy.Node, error) {
	if err := w.enter(ctx); err != nil {
		return policy.Node{}, err
	}
	defer w.mu.Unlock()
	w.finds++
	found := w.matching(who.Instance, who.Addr)
	switch {
	case len(found) > 1:
		return policy.Node{}, ErrAmbiguous
	case len(found) == 0 || !slices.Contains(found[0].Addresses, who.Addr):
		return policy.Node{}, fmt.Errorf("find node of %s: %w", who.Addr, ErrNotFound)
	}
	return found[0], nil
}

func (w *world) matching(instance string, addr netip.Addr) (found []policy.Node) {
	for _, n := range w.nodes {
		if instance != "" && strings.HasSuffix(n.ProviderID, "/"+instance) || instance == "" && slices.Contains(n.Addresses, addr) {
			found = append(found, n)
		}
	}
	return found
}

func (w *world) Proves(boot, sum string) (detect.Authority, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.nodes {
		if known := (policy.Pin{Boot: boot, Sum: sum}); boot != "" && sum != "" && n.BootID == boot && n.Pin == known {
			return detect.Pinned, true
		}
	}
	return 0, false
}

func (w *world) Known(instance string, addr netip.Addr) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	found := w.matching(instance, addr)
	return len(found) > 0 && slices.Contains(found[0].Addresses, addr)
}

func (w *world) Node(ctx context.Context, name string) (policy.Node, error) {
	if err := w.enter(ctx); err != nil {
		return policy.Node{}, err
	}
	defer w.mu.Unlock()
	n, ok := w.nodes[name]
	if !ok {
		return policy.Node{}, ErrNotFound
	}
	return n, nil
}

// ends notes that the boot of n has ended. The caller holds mu.
func (w *world) ends(n policy.Node) {
	if n.Ours(n.BootID) {
		w.ended = append(w.ended, n)
	}
}

func (w *world) EndedBoots() []policy.Node {
	w.mu.Lock()
	defer w.mu.Unlock()
	ended := w.ended
	w.ended = nil
	return ended
}

func (w *world) SilentNodes(ctx context.Context) ([]policy.Node, error) {
	if err := w.enter(ctx); err != nil {
		return nil, err
	}
	defer w.mu.Unlock()
	all := slices.Collect(maps.Values(w.nodes))
	return slices.DeleteFunc(all, func(n policy.Node) bool { return !n.Silent }), nil
}

func (w *world) Unnamed() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.nodes {
		if !strings.HasPrefix(n.ProviderID, "aws://") {
			return n.Name
		}
	}
	return ""
}

func (w *world) NodeCount() int { w.mu.Lock(); defer w.mu.Unlock(); return len(w.nodes) }

func (w *world) LeaseRenewed(ctx context.Context, node string) (policy.Renewal, error) {
	if err := w.enter(ctx); err != nil {
		return policy.Renewal{}, err
	}
	defer w.mu.Unlock()
	at, ok := w.renewed[node]
	if !ok {
		return policy.Renewal{}, ErrNotFound
	}
	return policy.Renewal{At: at, Duration: w.lease, Version: at.String()}, nil
}

func (w *world) MarkedNodes(ctx context.Context) ([]policy.Node, error) {
	if err := w.enter(ctx); err != nil {
		return nil, err
	}
	defer w.mu.Unlock()
	marked := slices.Collect(maps.Values(w.nodes))
	return slices.DeleteFunc(marked, func(n policy.Node) bool {
		return !n.Fenced && n.Mark == (policy.Mark{}) && n.Unhealthy == ""
	}), nil
}

// writeNode changes the Node, if it is still as it was read.
func (w *world) writeNode(ctx context.Context, n policy.Node, change func(have *policy.Node)) (policy.Node, error) {
	if err := w.enter(ctx); err != nil {
		return policy.Node{}, err
	}
	defer w.mu.Unlock()
	have, err := w.asRead(n)
	if err != nil {
		return policy.Node{}, err
	}
	change(&have)
	have.ResourceVersion = w.next()
	w.nodes[n.Name] = have
	return have, nil
}

// asRead is the Node as it is, if it is still as it was read.
func (w *world) asRead(n policy.Node) (policy.Node, error) {
	have, ok := w.nodes[n.Name]
	switch {
	case !ok:
		return policy.Node{}, ErrNotFound
	case have.UID != n.UID || have.ResourceVersion != n.ResourceVersion:
		return policy.Node{}, ErrConflict
	}
	return have, nil
}

func (w *world) PatchNode(ctx context.Context, n policy.Node, p NodePatch) (policy.Node, error) {
	return w.writeNode(ctx, n, func(have *policy.Node) {
		if p.Fence != nil {
			have.Fenced = *p.Fence && !w.open
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
		if p.Claim != nil {
			if have.Claim.Boot == p.Claim.Boot || have.Pin.Boot == p.Claim.Boot || have.BootID != p.Claim.Boot {
				w.t.Errorf("boot %s claimed on %s: %+v", p.Claim.Boot, n.Name, *have)
			}
			have.Claim = *p.Claim
			w.did("claim %s", n.Name)
		}
		if p.Farewell != nil {
			have.Farewell = *p.Farewell
			w.did("farewell %s", n.Name)
		}
	})
}

func (w *world) SetHealth(ctx context.Context, n policy.Node, h policy.Health) (policy.Node, error) {
	return w.writeNode(ctx, n, func(have *policy.Node) {
		if h.Unhealthy != "" && h.Unhealthy != have.BootID {
			w.t.Errorf("node %s is called unhealthy on boot %s, but runs %s", n.Name, h.Unhealthy, have.BootID)
		}
		have.Unhealthy, w.health[n.Name] = h.Unhealthy, h
	})
}

func (w *world) CloseNode(ctx context.Context, n policy.Node) (policy.Node, error) {
	return w.writeNode(ctx, n, func(have *policy.Node) {
		if !have.Fenced || have.Closed || !w.dead[n.Name] {
			w.t.Errorf("node %s is closed: %+v", n.Name, *have)
		}
		have.Closed = true
		w.did("close %s", n.Name)
	})
}

func (w *world) DeleteNode(ctx context.Context, n policy.Node) error {
	if err := w.enter(ctx); err != nil {
		return err
	}
	defer w.mu.Unlock()
	have, err := w.asRead(n)
	if err != nil {
		return err
	}
	if !w.dead[n.Name] {
		w.t.Errorf("living node %s deleted", n.Name)
	}
	if a := w.attached(n.Name); a > 0 {
		w.t.Errorf("node %s deleted with %d volumes attached", n.Name, a)
	}
	w.did("delete %s", n.Name)
	if len(have.Finalizers) > 0 {
		have.Deleting, have.ResourceVersion = true, w.next()
		w.nodes[n.Name] = have
		return nil
	}
	w.ends(have)
	delete(w.nodes, n.Name)
	delete(w.renewed, n.Name)
	return nil
}

func (w *world) DeleteNodeClaim(ctx context.Context, n policy.Node, death string) error {
	if err := w.enter(ctx); err != nil {
		return err
	}
	defer w.mu.Unlock()
	if have := w.nodes[n.Name]; have.UID != n.UID || have.BootID != n.BootID {
		return ErrConflict
	}
	if !w.dead[n.Name] || death == "" {
		w.t.Errorf("nodeclaim of living node %s deleted for death %q", n.Name, death)
	}
	w.did("delete nodeclaim %s", n.NodeClaim.Name)
	return w.nodeClaim
}

func (w *world) CreateDeath(ctx context.Context, d policy.Death) (policy.Death, error) {
	if err := w.enter(ctx); err != nil {
		return policy.Death{}, err
	}
	defer w.mu.Unlock()
	if _, ok := w.deaths[d.Name]; ok {
		return policy.Death{}, ErrExists
	}
	d.Version, d.UID, d.Created = w.next(), "uid-"+d.Name+w.next(), time.Now()
	w.deaths[d.Name] = d
	w.created++
	w.did("create %s death", d.Phase)
	return d, nil
}

func (w *world) Death(ctx context.Context, name string) (policy.Death, error) {
	if err := w.enter(ctx); err != nil {
		return policy.Death{}, err
	}
	defer w.mu.Unlock()
	d, ok := w.deaths[name]
	if !ok {
		return policy.Death{}, ErrNotFound
	}
	return d, nil
}

// Deaths takes no time: it reads a cache.
func (w *world) Deaths(ctx context.Context) ([]policy.Death, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down || ctx.Err() != nil {
		return nil, cmp.Or(ctx.Err(), errors.New("connection refused"))
	}
	var all []policy.Death
	for _, d := range w.deaths {
		d.Packed = policy.PackPods(d.Pods, d.Images)
		d.Trace, d.Pods, d.Images = nil, nil, nil
		all = append(all, d)
	}
	return all, nil
}

// CachedDeath takes no time either.
func (w *world) CachedDeath(name string) (policy.Death, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d, ok := w.deaths[name]
	return d, ok
}

func (w *world) UpdateDeath(ctx context.Context, d policy.Death) (policy.Death, error) {
	if err := w.enter(ctx); err != nil {
		return policy.Death{}, err
	}
	defer w.mu.Unlock()
	have, ok := w.deaths[d.Name]
	switch {
	case !ok:
		return policy.Death{}, ErrNotFound
	case have.Version != d.Version || have.UID != d.UID:
		return policy.Death{}, ErrConflict
	}
	have.Version = w.next()
	have.Phase, have.Decision, have.Owner, have.Started, have.Completed = d.Phase, d.Decision, d.Owner, d.Started, d.Completed
	have.Conditions, have.Steps, have.Outcomes = d.Conditions, d.Steps, d.Outcomes
	have.PodsTotal, have.PodsFailed, have.Suspects = d.PodsTotal, d.PodsFailed, d.Suspects
	w.deaths[d.Name] = have
	return have, nil
}

func (w *world) AmendDeath(ctx context.Context, d policy.Death) (policy.Death, error) {
	if err := w.enter(ctx); err != nil {
		return policy.Death{}, err
	}
	defer w.mu.Unlock()
	have, ok := w.deaths[d.Name]
	if !ok || have.UID != d.UID {
		return policy.Death{}, ErrNotFound
	}
	changed := false
	if len(d.Trace) > len(have.Trace) {
		have.Trace, have.Cause, have.Reason, have.Fingerprint = d.Trace, d.Cause, d.Reason, d.Fingerprint
		have.Remedy, have.Release, changed = d.Remedy, d.Release, true
	}
	if have.ExplainedBy(d) {
		have.Cause, have.Reason, have.Fingerprint = d.Cause, d.Reason, d.Fingerprint
		have.Remedy, have.Release, changed = d.Remedy, d.Release, true
	}
	if evidence := policy.AddEvidence(have.Evidence, d.Evidence); !slices.Equal(evidence, have.Evidence) {
		have.Evidence, changed = evidence, true
	}
	if len(have.Pods) == 0 && len(d.Pods) > 0 {
		have.Pods, have.Images, have.PodsOmitted, changed = d.Pods, d.Images, d.PodsOmitted, true
	}
	if changed {
		have.Version = w.next()
		w.deaths[d.Name] = have
	}
	return have, nil
}

func (w *world) Replicas(ctx context.Context) (all []Replica, err error) {
	if err := w.enter(ctx); err != nil {
		return nil, err
	}
	defer w.mu.Unlock()
	for name, at := range w.replicas {
		all = append(all, Replica{name, at})
	}
	return all, nil
}

// renew renews the Lease of a listener until ctx ends, through the same connection as its calls.
func renew(ctx context.Context, w *world, before func(context.Context, string) error, replica string) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		if before == nil || before(ctx, "Renew") == nil {
			w.set(func() {
				if !w.down && ctx.Err() == nil {
					w.replicas[replica] = time.Now()
				}
			})
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (w *world) DeleteDeath(ctx context.Context, r policy.Death) error {
	if err := w.enter(ctx); err != nil {
		return err
	}
	defer w.mu.Unlock()
	if have, ok := w.deaths[r.Name]; !ok {
		return ErrNotFound
	} else if have.UID != r.UID || have.Version != r.Version {
		return ErrConflict
	}
	delete(w.deaths, r.Name)
	w.did("delete death")
	return nil
}

func (w *world) Pods(ctx context.Context, node string) ([]policy.Pod, error) {
	if err := w.enter(ctx); err != nil {
		return nil, err
	}
	defer w.mu.Unlock()
	var pods []policy.Pod
	for _, k := range slices.Sorted(maps.Keys(w.pods)) {
		if p := w.pods[k]; p.Node == node {
			pods = append(pods, p)
		}
	}
	return pods, nil
}

func (w *world) Pod(ctx context.Context, namespace, name string) (policy.Pod, error) {
	if err := w.enter(ctx); err != nil {
		return policy.Pod{}, err
	}
	defer w.mu.Unlock()
	p, ok := w.pods[namespace+"/"+name]
	if !ok {
		return policy.Pod{}, ErrNotFound
	}
	return p, nil
}

func (w *world) FailPod(ctx context.Context, p policy.Pod, notice policy.Notice) (policy.Pod, error) {
	return w.writePod(ctx, p, notice, func(have *policy.Pod) {
		if have.Finished() || have.Mirror || have.Started.After(notice.Time) {
			w.t.Errorf("pod %s failed: it must not be: %+v", have.Name, *have)
		}
		n, ok := w.nodes[p.Node]
		if ok && !n.Fenced && !w.open {
			w.t.Errorf("pod %s failed before node %s was fenced", p.Name, p.Node)
		}
		if ok && !w.dead[p.Node] {
			w.t.Errorf("pod %s on living node %s failed", p.Name, p.Node)
		}
		w.failures[p.UID]++
		if p.Name == w.revived {
			return
		}
		have.Phase = "Failed"
		if notice.Counts {
			w.counted = append(w.counted, p.Name)
		}
		w.did("fail %s", p.Name)
	})
}

func (w *world) AnnotatePod(ctx context.Context, p policy.Pod, n policy.Notice) (policy.Pod, error) {
	return w.writePod(ctx, p, n, func(have *policy.Pod) {
		if !have.Mirror {
			w.t.Errorf("pod %s annotated: it is no mirror", have.Name)
		}
		w.did("annotate %s", p.Name)
	})
}

// AnnotateFarewell needs no version of the pod, and changes nothing else of it.
func (w *world) AnnotateFarewell(ctx context.Context, p policy.Pod, f policy.Farewell) error {
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
	}
	w.farewells[p.Name] = f.String()
	return nil
}

func (w *world) UnreadyPod(ctx context.Context, p policy.Pod) error {
	if err := w.enter(ctx); err != nil {
		return err
	}
	defer w.mu.Unlock()
	have, ok := w.pods[p.Namespace+"/"+p.Name]
	switch {
	case !ok:
		return ErrNotFound
	case have.UID != p.UID || have.Phase != "Failed" || w.failures[p.UID] == 0:
		w.t.Errorf("pod %s marked not ready, which was not failed by us", p.Name)
	}
	w.did("unready %s", p.Name)
	return nil
}

func (w *world) writePod(ctx context.Context, p policy.Pod, n policy.Notice, change func(*policy.Pod)) (policy.Pod, error) {
	if err := w.enter(ctx); err != nil {
		return policy.Pod{}, err
	}
	defer w.mu.Unlock()
	have, ok := w.pods[p.Namespace+"/"+p.Name]
	switch {
	case !ok:
		return policy.Pod{}, ErrNotFound
	case have.UID != p.UID || have.ResourceVersion != p.ResourceVersion:
		return policy.Pod{}, ErrConflict
	}
	change(&have)
	have.Marked, have.Death, have.ResourceVersion = true, n.Death, w.next()
	w.pods[p.Namespace+"/"+p.Name] = have
	return have, nil
}

func (w *world) DeletePod(ctx context.Context, p policy.Pod) error {
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

func (w *world) Emit(e Event) { w.mu.Lock(); w.events = append(w.events, e); w.mu.Unlock() }

var _ Cluster = (*world)(nil)

// set changes the world from the test.
func (w *world) set(change func()) { w.mu.Lock(); defer w.mu.Unlock(); change() }

// change changes node 1.
func change(w *world, f func(n *policy.Node)) {
	w.set(func() {
		n := w.nodes["n1"]
		f(&n)
		n.ResourceVersion = w.next()
		w.nodes["n1"] = n
	})
}

// unpin takes away n1's pin: the cluster does not know its secret.
func (w *world) unpin() { change(w, func(n *policy.Node) { n.Pin = policy.Pin{} }) }

// claims makes n1's pin a claim, which a canary wrote.
func (w *world) claims() { change(w, func(n *policy.Node) { n.Claim, n.Pin = n.Pin, policy.Pin{} }) }

// only returns the one death there has to be.
func (w *world) only() policy.Death {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.deaths) != 1 {
		w.t.Fatalf("%d deaths, want 1: %v", len(w.deaths), slices.Collect(maps.Keys(w.deaths)))
	}
	for _, r := range w.deaths {
		return r
	}
	return policy.Death{}
}

// node, log and failed are what a test reads while engines run.
func (w *world) node(name string) policy.Node { w.mu.Lock(); defer w.mu.Unlock(); return w.nodes[name] }

func (w *world) log() []string { w.mu.Lock(); defer w.mu.Unlock(); return slices.Clone(w.calls) }

func (w *world) failed() int { w.mu.Lock(); defer w.mu.Unlock(); return len(w.failures) }

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
