package cleanup

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

func TestRoster(t *testing.T) {
	death := func(name, owner string, phase policy.Phase) policy.Death {
		return policy.Death{Name: name, Owner: owner, Phase: phase}
	}
	ofB := []policy.Death{
		death("d1", "b", policy.Pending), death("d2", "b", policy.Cleaning), death("d3", "me", policy.Cleaning), death("d4", "", ""),
		death("d5", "b", policy.Cleaned), death("d6", "b", policy.Held), death("d7", "b", policy.Refused), death("d8", "gone", policy.Pending),
	}
	var r roster
	for _, tt := range []struct {
		name   string
		at     time.Duration // by our clock, which is an hour behind b's
		leases []Replica
		want   string
	}{
		{"what bears our name is ours to go on with, others' is not", 0, []Replica{{"b", noon.Add(time.Hour)}}, "d3"},
		{"a Lease that is renewed is a sign of life", 5 * time.Second, []Replica{{"b", noon.Add(time.Hour + time.Second)}}, "d3"},
		{
			"a death without a status is nobody's, and so is that of an owner without a Lease", 6 * time.Second,
			[]Replica{{"b", noon.Add(time.Hour + time.Second)}}, "d3 d4 d8",
		},
		{"an owner that fell silent loses everything it works on", 11 * time.Second, []Replica{{"b", noon.Add(time.Hour + time.Second)}}, "d1 d2 d3 d4 d8"},
		{"one whose Lease is gone is seen anew", 12 * time.Second, nil, "d3 d4 d8"},
		{"and loses it, too", 18 * time.Second, nil, "d1 d2 d3 d4 d8"},
	} {
		var names []string
		for _, d := range r.due(noon.Add(tt.at), "me", ofB, tt.leases) {
			names = append(names, d.Name)
		}
		if got := strings.Join(names, " "); got != tt.want {
			t.Errorf("%s: due %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestFencesOfTheRoster(t *testing.T) {
	mark := policy.Mark{Death: "d", Boot: boot1}
	dead := policy.Node{Name: "n1", BootID: boot1, Mark: mark, Fenced: true, Silent: true}
	back := policy.Node{Name: "n1", BootID: boot2, Mark: mark, Fenced: true}
	for _, tt := range []struct {
		name  string
		node  policy.Node
		phase policy.Phase
		want  fenceAnswer
	}{
		{"somebody is at work", back, policy.Cleaning, keepFence},
		{"somebody was at work and is to be taken over from", back, "", keepFence},
		{"a witness is awaited", dead, policy.Pending, keepFence},
		{"refused", dead, policy.Refused, liftFence},
		{"only recorded, of a node that is left out", dead, policy.Recorded, liftFence},
		{"cleaned and still dead", dead, policy.Cleaned, sweepNode},
		{"cleaned as far as possible and still dead", dead, policy.Incomplete, sweepNode},
		{"cleaned and back, Ready or not", back, policy.Cleaned, liftFence},
		{"held and back", back, policy.Held, liftFence},
		{"held and dead", dead, policy.Held, keepFence},
		{"Ready again on the boot that died", policy.Node{BootID: boot1, Mark: mark, Fenced: true, Ready: true}, policy.Cleaned, keepFence},
		{"not ready, says its kubelet", policy.Node{BootID: boot1, Mark: mark, Fenced: true}, policy.Incomplete, keepFence},
		{"a taint without our mark", policy.Node{BootID: boot2, Fenced: true, Ready: true}, policy.Cleaned, keepFence},
	} {
		var r roster
		if got := r.fence(noon, tt.node, policy.Death{Name: "d", Phase: tt.phase, Time: noon}); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
	var r roster
	if got := r.fence(noon.Add(sweepFor), dead, policy.Death{Name: "d", Phase: policy.Cleaned, Time: noon}); got != keepFence {
		t.Errorf("cleaned a day ago and still dead: %d, want %d", got, keepFence)
	}
	if got := r.fence(noon, dead, policy.Death{}); got != keepFence {
		t.Errorf("a fence whose death was not seen yet: %d, want %d", got, keepFence)
	}
	if got := r.fence(noon.Add(orphanAfter-1), dead, policy.Death{}); got != keepFence {
		t.Errorf("a fence whose death may be on its way: %d, want %d", got, keepFence)
	}
	if got := r.fence(noon.Add(orphanAfter), dead, policy.Death{}); got != adoptFence {
		t.Errorf("a fence without a death: %d, want %d", got, adoptFence)
	}
}

func TestExpired(t *testing.T) {
	p := testPolicy()
	p.KeepRecords, p.KeepRecordsFor = 3, 24*time.Hour
	var deaths []policy.Death
	for i, phase := range []policy.Phase{
		policy.Cleaned, policy.Recorded, policy.Cleaned, policy.Incomplete, policy.Cleaned, policy.Held, policy.Pending, policy.Cleaned,
	} {
		deaths = append(deaths, policy.Death{Name: fmt.Sprint("d", i), Node: "n", Phase: phase, Created: noon.Add(-time.Duration(i) * time.Hour)})
	}
	for i := range 5 { // refused, and younger: they push out none but each other
		deaths = append(deaths, policy.Death{Name: fmt.Sprint("r", i), Phase: policy.Refused, Created: noon.Add(-time.Duration(i) * time.Minute)})
	}
	deaths = append(deaths, policy.Death{Name: "old", Phase: policy.Cleaned, Created: noon.Add(-25 * time.Hour)})
	names := func(old []policy.Death) (names []string) {
		for _, d := range old {
			names = append(names, d.Name)
		}
		return names
	}
	marked := []policy.Node{{Name: "n", Mark: policy.Mark{Death: "d4"}}, {Name: "another", Mark: policy.Mark{Death: "d3"}}}
	if diff := cmp.Diff([]string{"old", "r4", "r3", "d7", "d3"}, names(expired(noon, p, deaths, marked))); diff != "" {
		t.Errorf("expired (-want +got); what is held, at work or fenced stays:\n%s", diff)
	}
	p.KeepRecords = 100
	if diff := cmp.Diff([]string{"old"}, names(expired(noon, p, deaths, nil))); diff != "" {
		t.Errorf("expired by age (-want +got):\n%s", diff)
	}
}

// Root on one node can have its Node report ever new boots, pin them, and let them die.
func TestOneNodePushesOutNoOthersDeaths(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var deaths []policy.Death
	add := func(name, node string, source netip.Addr, phase policy.Phase) {
		deaths = append(deaths, policy.Death{
			Name: name, Node: node, Phase: phase, Source: netip.AddrPortFrom(source, 6665),
			Created: noon.Add(time.Duration(len(deaths)-1000) * time.Second),
		})
	}
	add("true", "n1", address(1), policy.Cleaned)
	add("refused", "", address(2), policy.Refused)
	for i := range 50 {
		add(fmt.Sprint("false ", i), "n9", address(9), policy.Recorded)
		add(fmt.Sprint("stranger ", i), "", address(8), policy.Refused)
	}
	p := policy.DefaultPolicy()
	p.KeepRecords = 30
	old := expired(noon, p, deaths, nil)
	for _, d := range old {
		if d.Name == "true" || d.Name == "refused" {
			t.Errorf("%s pushed out by those of one node or address", d.Name)
		}
	}
	if want := 2 * (51 - 30); len(old) != want {
		t.Errorf("%d pushed out, want %d", len(old), want)
	}
}

// One gasp from each of many addresses that no Node has pushes out nothing that is known of a Node.
func TestManyAddressesPushOutNoNodesDeaths(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	refused := func(name, node string, i int) policy.Death {
		return policy.Death{
			Name: name, Node: node, Phase: policy.Refused, Source: netip.AddrPortFrom(address(i), 6665),
			Created: noon.Add(time.Duration(i-1000) * time.Second),
		}
	}
	deaths := []policy.Death{refused("first", "control-plane", 1), refused("second", "control-plane", 2)}
	for i := range 50 {
		deaths = append(deaths, refused(fmt.Sprint("stranger ", i), "", 100+i))
	}
	p := policy.DefaultPolicy()
	p.KeepRecords = 30
	old := expired(noon, p, deaths, nil)
	if want := len(deaths) - 30; len(old) != want {
		t.Errorf("%d pushed out, want %d", len(old), want)
	}
	for _, d := range old {
		if d.Node != "" {
			t.Errorf("%s pushed out by strangers", d.Name)
		}
	}
}

// A node is left out while a witness is awaited. The replica that has put its death on record dies before it has lifted the fence:
// nothing follows from the death on any other replica either.
func TestFenceOfANodeThatIsLeftOut(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.panics(1)
		w.loses(1)
		d := policy.NewDeath(incident(1, boot1, secret1), detect.Pinned, w.node("n1"))
		d.Phase, d.Owner, d.UID, d.Created, d.Version = policy.Recorded, "gone", "uid-death", time.Now(), "1"
		d.SetStep(policy.StepStatus{Name: policy.StepCondition, Done: true})
		d.SetCondition(policy.Condition{Type: policy.Complete, Status: policy.True, Reason: policy.NodeExcluded})
		w.set(func() { w.deaths[d.Name], w.health["n1"] = d, policy.HealthOf(d) })
		change(w, func(n *policy.Node) {
			n.Labels = map[string]string{policy.ExcludeLabel: ""}
			n.Fenced, n.Mark, n.Unhealthy = true, policy.Mark{Death: d.Name, Boot: boot1}, boot1
		})
		run(t, testPolicy(), w, "a")
		pass(time.Minute)
		if n := w.node("n1"); n.Fenced || n.Closed || w.failed() > 0 {
			t.Errorf("fenced %t, closed %t, %d pods failed; want nothing done", n.Fenced, n.Closed, w.failed())
		}
		if got := w.healthOf(); got.Unhealthy != "" || got.Reason != policy.NodeExcluded {
			t.Errorf("condition %+v, want it taken back", got)
		}
	})
}

// A true death that may not be created is created later, also where nothing follows from it: its node is left out, or back.
func TestDeniedRecordOfATrueDeath(t *testing.T) {
	exclude := func(n *policy.Node) { n.Labels = map[string]string{policy.ExcludeLabel: ""} }
	for _, tt := range []struct {
		name         string
		before, then func(w *world)
		reason       string
	}{
		{"a node that is left out", func(w *world) { change(w, exclude) }, func(*world) {}, policy.NodeExcluded},
		{"a node that is left out meanwhile", func(*world) {}, func(w *world) { change(w, exclude) }, policy.NodeExcluded},
		{"a node that is back meanwhile", func(*world) {}, func(w *world) { w.reboots(1, boot2) }, string(policy.Recorded)},
		{"a node that is left out no more", func(w *world) { change(w, exclude) },
			func(w *world) { change(w, func(n *policy.Node) { n.Labels = nil }) }, string(policy.Cleaned)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				tt.before(w)
				w.panics(1)
				until := time.Now().Add(time.Minute)
				e, _ := run(t, testPolicy(), faulty{world: w, before: func(_ context.Context, call string) error {
					if call == "CreateDeath" && time.Now().Before(until) {
						return ErrDenied
					}
					return nil
				}}, "a")
				offer(t, w, incident(1, boot1, secret1), e)
				pass(20 * time.Second)
				tt.then(w)
				pass(30 * time.Second)
				if n := w.node("n1"); tt.reason != string(policy.Cleaned) && n.Fenced {
					t.Error("fenced while the death waits to be created")
				}
				pass(2 * time.Minute)
				if c := w.only().Condition(policy.Complete); c.Status != policy.True || c.Reason != tt.reason {
					t.Errorf("condition Complete is %+v, want its reason %s", c, tt.reason)
				}
			})
		})
	}
}
