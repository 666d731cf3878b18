package policy

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestPolicyValidate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(p *Policy)
		want   string
	}{
		{name: "the default is valid", change: func(*Policy) {}},
		{name: "no nodes at all is valid: everything is held", change: func(p *Policy) { p.MaxNodes, p.MaxPercent = 0, 0 }},
		{"text is no authority to act on", func(p *Policy) { p.ActAt = detect.Text }, "act.at: text proves nothing; use kernel, boot or pinned"},
		{
			"silence shorter than a renewal proves nothing", func(p *Policy) { p.Corroborate = 5 * time.Second },
			"act.corroborate: 5s is too short: kubelets renew their Lease every 10s, so silence proves something after 12.4s only",
		},
		{"a negative distrust", func(p *Policy) { p.Distrust = -1 }, "act.distrust: -1ns is negative"},
		{"a negative limit", func(p *Policy) { p.MaxNodes = -1 }, "limits.nodes: -1 is negative"},
		{"more than all", func(p *Policy) { p.MaxPercent = 101 }, "limits.percent: 101 is not between 0 and 100"},
		{"no window", func(p *Policy) { p.Window = 0 }, "limits.window: 0s is no time"},
		{"an unknown verb", func(p *Policy) { p.NodeVerb = "reboot" }, `node: "reboot" is none of delete, await, annotate`},
		{"await without patience", func(p *Policy) { p.NodeVerb, p.AwaitTimeout = NodeAwait, 0 }, "await for 0s: no node comes back in that time"},
		{"negative keeping", func(p *Policy) { p.KeepPods = -time.Second }, "pods.keep: -1s is negative"},
		{"no records", func(p *Policy) { p.KeepRecords = 0 }, "keep.records: 0 is too few; keep 1 at least"},
		{
			"records gone before they are of use", func(p *Policy) { p.KeepRecordsFor = time.Minute },
			"keep.for: 1m0s is too short: the breaker and distrust live on records, keep them longer than 10m0s",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := DefaultPolicy()
			tt.change(&p)
			got := ""
			if err := p.Validate(); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRecordName(t *testing.T) {
	label := regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	seen := map[string]string{}
	for _, node := range []string{
		"ip-10-0-1-5", "ip-10-0-1-5.ec2.internal", "10.0.1.5", "fd00::1", "::", "", "UPPER", strings.Repeat("a", 253),
		strings.Repeat("a", 49) + "-b", "ünïcode",
	} {
		for _, boot := range []string{boot1, boot2, ""} {
			name := RecordName(node, boot)
			if !label.MatchString(name) || len(name) > 63 {
				t.Errorf("RecordName(%q, %q) = %q: no DNS-1123 label of at most 63 bytes", node, boot, name)
			}
			if was, ok := seen[name]; ok {
				t.Errorf("%q stands for %s and %s", name, was, node+"/"+boot)
			}
			seen[name] = node + "/" + boot
		}
	}
	if got, want := RecordName("ip-10-0-1-5.ec2.internal", boot1), "ip-10-0-1-5-ec2-internal-b18f0cf9e9ea"; got != want {
		t.Errorf("got %q, want %q: names must stay the same over versions, replicas are updated one by one", got, want)
	}
}

func TestBreaker(t *testing.T) {
	b := Breaker{Nodes: 2, Percent: 10, Window: 10 * time.Minute}
	for _, tt := range []struct {
		name  string
		at    time.Duration
		node  string
		total int
		want  bool
		again bool // admitted without being counted
	}{
		{"the first of few nodes", 0, "a", 10, true, false},
		{"a second", time.Minute, "b", 10, true, false},
		{"a third is too much", 2 * time.Minute, "c", 10, false, false},
		{"the first asked again", 2 * time.Minute, "a", 10, true, true},
		{"a third of many nodes", 2 * time.Minute, "c", 30, true, false},
		{"percent are rounded down", 2 * time.Minute, "d", 39, false, false},
		{"when the window has passed the first there is room", 10 * time.Minute, "d", 30, true, false},
		{"and no more", 10 * time.Minute, "e", 30, false, false},
	} {
		got, counted := b.Admit(noon.Add(tt.at), tt.node, "record of "+tt.node, tt.total)
		if got != tt.want || counted != (tt.want && !tt.again) {
			t.Errorf("%s: admitted %v, counted %v; want %v, %v", tt.name, got, counted, tt.want, tt.want && !tt.again)
		}
	}
	b.Forget("d", "record of another gasp")
	if b.Room(noon.Add(10*time.Minute), 30) {
		t.Error("room after a gasp was taken back that was not what counted")
	}
	b.Forget("d", "record of d")
	if !b.Room(noon.Add(10*time.Minute), 30) {
		t.Error("no room after one was taken back")
	}
	b.Count(noon.Add(10*time.Minute), "from another replica", "its record")
	if b.Room(noon.Add(10*time.Minute), 30) {
		t.Error("room although another replica took it")
	}
}

func TestDistrust(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	d := Distrust{For: 10 * time.Minute}
	d.Add(noon, a, detect.Kernel)
	for _, tt := range []struct {
		name string
		at   time.Duration
		src  netip.Addr
		auth detect.Authority
		want bool
	}{
		{"the same again", time.Minute, a, detect.Kernel, true},
		{"less than that", time.Minute, a, detect.Text, true},
		{"stronger evidence is heard", time.Minute, a, detect.Pinned, false},
		{"another source", time.Minute, b, detect.Kernel, false},
		{"when the time is over", 10 * time.Minute, a, detect.Kernel, false},
	} {
		if got := d.Has(noon.Add(tt.at), tt.src, tt.auth); got != tt.want {
			t.Errorf("%s: distrusted %v, want %v", tt.name, got, tt.want)
		}
	}
	for i := range 3 * distrustSources {
		d.Add(noon, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), detect.Kernel)
	}
	if len(d.sources) > distrustSources {
		t.Errorf("%d sources remembered, want at most %d", len(d.sources), distrustSources)
	}
	later := noon.Add(11 * time.Minute)
	d.Add(later, b, detect.Kernel)
	if len(d.sources) != 1 || !d.Has(later, b, detect.Kernel) {
		t.Errorf("%d sources remembered after the flood, want the new one", len(d.sources))
	}
}

func TestCareFor(t *testing.T) {
	for _, tt := range []struct {
		name string
		pod  Pod
		want care
	}{
		{"a running pod", Pod{Phase: "Running"}, fail},
		{"a pod that never started", Pod{Phase: "Pending"}, fail},
		{"a pod being deleted", Pod{Phase: "Running", Deleting: true}, fail},
		{"a pod that succeeded", Pod{Phase: "Succeeded"}, leave},
		{"a pod that failed by itself", Pod{Phase: "Failed"}, leave},
		{"a pod that failed by itself and bears an old mark", Pod{Phase: "Failed", Marked: true, Record: "other"}, leave},
		{"a pod we failed", Pod{Phase: "Failed", Marked: true, Record: "r"}, failed},
		{"a static pod's mirror", Pod{Phase: "Running", Mirror: true}, annotate},
		{"a mirror that is annotated already", Pod{Phase: "Running", Mirror: true, Marked: true, Record: "r"}, leave},
		{"a mirror of a pod started after the gasp", Pod{Phase: "Running", Mirror: true, Started: noon.Add(time.Second)}, leave},
		{"a pod created after the gasp", Pod{Phase: "Pending", Created: noon.Add(time.Second)}, leave},
		{"a pod restarted after the gasp", Pod{Phase: "Running", Started: noon.Add(time.Second)}, leave},
		{"a pod that bears the mark of an earlier death", Pod{Phase: "Running", Marked: true, Record: "other"}, fail},
	} {
		if got := careFor(tt.pod, "r", noon); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestPinFor(t *testing.T) {
	id := netconsole.Identity{Boot: boot1, Secret: gaspOf1}
	ours := Pin{boot1, gaspOf1.Sum()}
	for _, tt := range []struct {
		name string
		node Node
		id   netconsole.Identity
		want pinning
	}{
		{"the first canary of a boot", Node{BootID: boot1}, id, pinWrite},
		{"the next one", Node{BootID: boot1, Pin: ours}, id, pinKnown},
		{"the first canary of the next boot", Node{BootID: boot1, Pin: Pin{boot2, "x"}}, id, pinWrite},
		{"a second secret for a pinned boot", Node{BootID: boot1, Pin: Pin{boot1, "x"}}, id, pinRefused},
		{"a boot the kubelet has not reported yet", Node{BootID: boot2, Pin: Pin{boot2, "x"}}, id, pinWaits},
		{"a kernel without userdata", Node{BootID: boot1}, netconsole.Identity{}, pinRefused},
		{"somebody else on a kernel without userdata", Node{BootID: boot1, Kernel: "6.1.0-41-cloud-amd64"}, id, pinRefused},
		{"somebody else on one that is older still", Node{BootID: boot1, Kernel: "5.10.245-241.976.amzn2"}, id, pinRefused},
		{"the first kernel with userdata", Node{BootID: boot1, Kernel: "6.9.0"}, id, pinWrite},
		{"a kernel of the next major version", Node{BootID: boot1, Kernel: "7.0.1-rc2+"}, id, pinWrite},
		{"the kernel before the one of the canary's boot", Node{BootID: boot2, Kernel: "6.1.0"}, id, pinWaits},
	} {
		if got := pinFor(tt.node, tt.id); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestPlanPrints(t *testing.T) {
	p := DefaultPolicy()
	p.NodeVerb, p.KeepPods = NodeAwait, time.Minute
	got := NewPlan(p, Record{
		Name: "n1-0123", Node: "n1", Time: noon, Title: "sysrq triggered crash\nsecond line", Release: "6.12.0", Remedy: "update",
	})
	want := `node n1, sysrq triggered crash at 2026-03-01T12:00:00Z
1. fence   taint node n1, so that nothing more is scheduled to it
2. record  create kernelpanic n1-0123, the claim on everything below
3. list    list the pods on it
4. fail    mark them Failed, reason KernelPanic; leave alone what ended before or started after the gasp
5. tell    tell by events on the node and on the pods' owners
6. detach  if volumes are attached, taint the node out-of-service for at most 2m0s
7. delete  delete the Failed pods of Jobs
8. node    lift the fence when the node is Ready on a new boot, delete it if it is not back within 10m0s
9. expire  delete the other Failed pods 1m0s after the gasp
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	death := Death{
		Record: "n1-0123", Code: "KernelPanic", Reason: "sysrq triggered crash", Time: noon,
		Message: "sysrq triggered crash on node n1, kernel 6.12.0; update; see kernelpanic n1-0123",
	}
	if diff := cmp.Diff(death, got.Death); diff != "" {
		t.Errorf("death (-want +got):\n%s", diff)
	}
	if len(got.Steps) != len(NewPlan(DefaultPolicy(), Record{}).Steps)+1 {
		t.Error("nothing expires where nothing is kept")
	}
}

func TestRoster(t *testing.T) {
	rec := func(name, owner string, phase Phase, seen time.Duration) Record {
		return Record{Name: name, Owner: owner, Phase: phase, OwnerSeen: noon.Add(seen)}
	}
	var r roster
	for _, tt := range []struct {
		name    string
		at      time.Duration // by our clock, which is an hour behind the owners'
		records []Record
		want    string
	}{
		{
			"what bears our name is ours to go on with, others' is not", 0,
			[]Record{rec("r1", "b", Claimed, time.Hour), rec("r2", "b", Claimed, time.Hour), rec("r3", "me", Claimed, 0), rec("r4", "", "", 0)},
			"r3",
		},
		{
			"one sign of life is one for all of an owner's records", 5 * time.Second,
			[]Record{rec("r1", "b", Claimed, time.Hour), rec("r2", "b", Claimed, time.Hour+time.Second), rec("r4", "", "", 0)},
			"",
		},
		{
			"a record without a status is nobody's", 6 * time.Second,
			[]Record{rec("r1", "b", Claimed, time.Hour), rec("r2", "b", Claimed, time.Hour+time.Second), rec("r4", "", "", 0)},
			"r4",
		},
		{
			"an owner that fell silent loses everything unfinished", 11 * time.Second,
			[]Record{
				rec("r1", "b", Claimed, time.Hour), rec("r2", "b", Claimed, time.Hour+time.Second), rec("r5", "b", Cleaned, 0),
				rec("r6", "b", Held, 0), rec("r7", "b", Refused, 0),
			},
			"r1 r2",
		},
	} {
		var names []string
		for _, d := range r.due(noon.Add(tt.at), "me", tt.records) {
			names = append(names, d.Name)
		}
		if got := strings.Join(names, " "); got != tt.want {
			t.Errorf("%s: due %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestFencesOfTheRoster(t *testing.T) {
	mark := Mark{Record: "r", Boot: boot1}
	dead := Node{BootID: boot1, Mark: mark, Fenced: true}
	back := Node{BootID: boot2, Mark: mark, Fenced: true, Ready: true}
	for _, tt := range []struct {
		name  string
		node  Node
		phase Phase
		want  fenceAnswer
	}{
		{"a job is at it", back, Claimed, keep},
		{"a job was at it and is to be taken over", back, "", keep},
		{"refused", dead, Refused, lift},
		{"cleaned and still dead", dead, Cleaned, keep},
		{"cleaned and back", back, Cleaned, lift},
		{"held and back", back, Held, lift},
		{"held and dead", dead, Held, keep},
		{"back and not Ready", Node{BootID: boot2, Mark: mark, Fenced: true}, Cleaned, keep},
		{"Ready again on the boot that died", Node{BootID: boot1, Mark: mark, Fenced: true, Ready: true}, Cleaned, keep},
		{"a taint without our mark", Node{BootID: boot2, Fenced: true, Ready: true}, Cleaned, keep},
	} {
		var r roster
		if got := r.fence(noon, tt.node, []Record{{Name: "r", Phase: tt.phase}}); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
	var r roster
	if got := r.fence(noon, dead, nil); got != keep {
		t.Errorf("a fence whose record was not seen yet: %d, want %d", got, keep)
	}
	if got := r.fence(noon.Add(orphanAfter-1), dead, nil); got != keep {
		t.Errorf("a fence whose record may be on its way: %d, want %d", got, keep)
	}
	if got := r.fence(noon.Add(orphanAfter), dead, nil); got != adopt {
		t.Errorf("a fence without a record: %d, want %d", got, adopt)
	}
}

func TestExpired(t *testing.T) {
	p := DefaultPolicy()
	p.KeepRecords, p.KeepRecordsFor = 3, 24*time.Hour
	var records []Record
	for i, phase := range []Phase{Cleaned, Refused, Cleaned, Cleaned, Cleaned, Held, Claimed, Cleaned} {
		records = append(records, Record{Name: fmt.Sprint("r", i), Phase: phase, Created: noon.Add(-time.Duration(i) * time.Hour)})
	}
	records = append(records, Record{Name: "old", Phase: Cleaned, Created: noon.Add(-25 * time.Hour)})
	var got []string
	for _, r := range expired(noon, p, records, []Node{{Mark: Mark{Record: "r4"}}}) {
		got = append(got, r.Name)
	}
	if diff := cmp.Diff([]string{"r3", "r7", "old"}, got); diff != "" {
		t.Errorf("expired (-want +got); what is held, at work or fenced stays:\n%s", diff)
	}
	p.KeepRecords = 100
	if old := expired(noon, p, records, nil); len(old) != 1 || old[0].Name != "old" {
		t.Errorf("expired by age: %+v, want old", old)
	}
}
