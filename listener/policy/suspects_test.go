package policy

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// suspectWorld is made of deaths of one bug, an hour apart, of which the last is judged.
type suspectWorld struct {
	d      Death
	pods   []Pod
	others []Death
}

// deathAt is a death of a bug on a node, with the pods given as "namespace/name kind/owner image".
func deathAt(node, bug string, at time.Duration, pods ...string) (Death, []Pod) {
	d := Death{Name: node + "-b", Node: node, NodeUID: "uid of " + node, Boot: "b", Fingerprint: bug, Time: noon.Add(at), Phase: Cleaned}
	var list []Pod
	for _, text := range pods {
		var p Pod
		var name, owner, image string
		fmt.Sscan(text, &name, &owner, &image)
		p.Namespace, p.Name, _ = strings.Cut(name, "/")
		p.Owner.Kind, p.Owner.Name, _ = strings.Cut(owner, "/")
		p.UID, p.Images = fmt.Sprint(node, name), []string{image}
		p.Created = noon.Add(at - 50*time.Minute)
		list = append(list, p)
	}
	d.NamePods(list)
	d.Packed = PackPods(d.Pods, d.Images)
	return d, list
}

func TestSuspects(t *testing.T) {
	const job, web, set, daemon = "batch/crunch-%s Job/crunch crunch:1", "shop/web-7d9f-%s ReplicaSet/web-7d9f web:2", "data/db-%s StatefulSet/db db:3", "kube-system/proxy-%s DaemonSet/proxy proxy:4"
	pod := func(form, suffix string) string { return fmt.Sprintf(form, suffix) }
	for _, tt := range []struct {
		name string
		make func() suspectWorld
		want []string // why
	}{
		{"the first death names nobody", func() (w suspectWorld) {
			w.d, w.pods = deathAt("n1", "bug", time.Hour, pod(job, "aaaaa"))
			return w
		}, nil},
		{"the replacement died with its next node", func() (w suspectWorld) {
			a, _ := deathAt("n1", "bug", 0, pod(job, "aaaaa"), pod(web, "aaaaa"))
			w.d, w.pods = deathAt("n2", "bug", time.Hour, pod(job, "bbbbb"))
			w.pods[0].Created = noon.Add(20 * time.Second)
			w.others = []Death{a}
			return w
		}, []string{"pods crunch of Job batch/crunch died with 2 nodes one after the other, each replacing the last"}},
		{"a replacement that had ended before is none, and its image proves nothing", func() (w suspectWorld) {
			for i := range 20 {
				o, _ := deathAt(fmt.Sprintf("m%d", i), "other", 0, pod(web, "aaaaa"))
				w.others = append(w.others, o)
			}
			for i := range 3 {
				a, _ := deathAt(fmt.Sprintf("n%d", i), "bug", 0, pod(job, "aaaaa"))
				w.others = append(w.others, a)
			}
			w.d, w.pods = deathAt("n9", "bug", time.Hour, pod(job, "bbbbb"))
			w.pods[0].Created, w.pods[0].Phase = noon.Add(20*time.Second), "Succeeded"
			return w
		}, nil},
		{"one that this death has failed already is one", func() (w suspectWorld) {
			a, _ := deathAt("n1", "bug", 0, pod(job, "aaaaa"))
			w.d, w.pods = deathAt("n2", "bug", time.Hour, pod(job, "bbbbb"))
			w.pods[0].Created, w.pods[0].Phase, w.pods[0].Death, w.pods[0].Marked = noon.Add(20*time.Second), "Failed", w.d.Name, true
			w.others = []Death{a}
			return w
		}, []string{"pods crunch of Job batch/crunch died with 2 nodes one after the other, each replacing the last"}},
		{"another pod of the owner, which was there before, is no replacement", func() (w suspectWorld) {
			a, _ := deathAt("n1", "bug", 0, pod(web, "aaaaa"))
			w.d, w.pods = deathAt("n2", "bug", time.Hour, pod(web, "bbbbb"))
			w.pods[0].Created = noon.Add(-time.Hour)
			w.others = []Death{a}
			return w
		}, nil},
		{"nor is one made long after", func() (w suspectWorld) {
			a, _ := deathAt("n1", "bug", 0, pod(web, "aaaaa"))
			w.d, w.pods = deathAt("n2", "bug", 5*time.Hour, pod(web, "bbbbb"))
			w.pods[0].Created = noon.Add(4 * time.Hour)
			w.others = []Death{a}
			return w
		}, nil},
		{"nor one whose node died of another bug", func() (w suspectWorld) {
			a, _ := deathAt("n1", "other", 0, pod(job, "aaaaa"))
			w.d, w.pods = deathAt("n2", "bug", time.Hour, pod(job, "bbbbb"))
			w.pods[0].Created = noon.Add(20 * time.Second)
			w.others = []Death{a}
			return w
		}, nil},
		{"a bug without a fingerprint is nobody's", func() (w suspectWorld) {
			a, _ := deathAt("n1", "", 0, pod(job, "aaaaa"))
			w.d, w.pods = deathAt("n2", "", time.Hour, pod(job, "bbbbb"))
			w.pods[0].Created = noon.Add(20 * time.Second)
			w.others = []Death{a}
			return w
		}, nil},
		{"a DaemonSet's pod dies with every node", func() (w suspectWorld) {
			a, _ := deathAt("n1", "bug", 0, pod(daemon, "aaaaa"))
			w.d, w.pods = deathAt("n2", "bug", time.Hour, pod(daemon, "bbbbb"))
			w.pods[0].Created = noon.Add(20 * time.Second)
			w.others = []Death{a}
			return w
		}, nil},
		{"a StatefulSet's pod keeps its name", func() (w suspectWorld) {
			a, _ := deathAt("n1", "bug", 0, pod(set, "0"))
			w.d, w.pods = deathAt("n2", "bug", time.Hour, pod(set, "0"), pod(set, "1"))
			w.pods[0].Created, w.pods[1].Created = noon.Add(20*time.Second), noon.Add(20*time.Second)
			w.others = []Death{a}
			return w
		}, []string{"pods db-0 of StatefulSet data/db died with 2 nodes one after the other, each replacing the last"}},
		{"an indexed Job's pod keeps its index", func() (w suspectWorld) {
			a, _ := deathAt("n1", "bug", 0, pod(job, "3-aaaaa"))
			w.d, w.pods = deathAt("n2", "bug", time.Hour, pod(job, "4-bbbbb"))
			w.pods[0].Created = noon.Add(20 * time.Second)
			w.others = []Death{a}
			return w
		}, nil},
		{"the same node again proves nothing", func() (w suspectWorld) {
			a, _ := deathAt("n1", "bug", 0, pod(job, "aaaaa"))
			w.d, w.pods = deathAt("n1", "bug", time.Hour, pod(job, "bbbbb"))
			w.d.Boot, w.d.Name = "c", "n1-c"
			w.pods[0].Created = noon.Add(20 * time.Second)
			w.others = []Death{a}
			return w
		}, nil},
		{"a refused death is none", func() (w suspectWorld) {
			a, _ := deathAt("n1", "bug", 0, pod(job, "aaaaa"))
			a.Phase = Refused
			w.d, w.pods = deathAt("n2", "bug", time.Hour, pod(job, "bbbbb"))
			w.pods[0].Created = noon.Add(20 * time.Second)
			w.others = []Death{a}
			return w
		}, nil},
		{"a chain grows, and the longest comes first", func() (w suspectWorld) {
			a, _ := deathAt("n2", "bug", 0, pod(job, "aaaaa"), pod(web, "aaaaa"))
			a.Suspects = []Suspect{{Rule: ByReplacement, Namespace: "batch", Kind: "Job", Name: "crunch", Pod: "crunch", Deaths: []string{"n1-b", "n2-b"}}}
			w.d, w.pods = deathAt("n3", "bug", time.Hour, pod(web, "bbbbb"), pod(job, "bbbbb"))
			w.pods[0].Created, w.pods[1].Created = noon.Add(20*time.Second), noon.Add(20*time.Second)
			w.others = []Death{a}
			return w
		}, []string{
			"pods crunch of Job batch/crunch died with 3 nodes one after the other, each replacing the last",
			"pods web-7d9f of ReplicaSet shop/web-7d9f died with 2 nodes one after the other, each replacing the last",
		}},
		{"of equal chains the one that the kernel names comes first", func() (w suspectWorld) {
			a, _ := deathAt("n1", "bug", 0, pod(job, "aaaaa"), pod(web, "aaaaa"))
			w.d, w.pods = deathAt("n2", "bug", time.Hour, pod(job, "bbbbb"), pod(web, "bbbbb"))
			w.pods[0].Created, w.pods[1].Created = noon.Add(20*time.Second), noon.Add(20*time.Second)
			w.d.Culprit = &Culprit{Namespace: "shop", Pod: "web-7d9f-bbbbb"}
			w.others = []Death{a}
			return w
		}, []string{
			"pods web-7d9f of ReplicaSet shop/web-7d9f died with 2 nodes one after the other, each replacing the last",
			"pods crunch of Job batch/crunch died with 2 nodes one after the other, each replacing the last",
		}},
		{"an image on the nodes that died of a bug, and on few others", func() (w suspectWorld) {
			for i := range 20 {
				o, _ := deathAt(fmt.Sprint("o", i), "other", 0, pod(web, fmt.Sprint(i)))
				w.others = append(w.others, o)
			}
			for i := range 2 {
				o, _ := deathAt(fmt.Sprint("n", i), "bug", 0, pod(web, "x"), pod(set, fmt.Sprint(i)))
				w.others = append(w.others, o)
			}
			w.d, w.pods = deathAt("n9", "bug", 10*time.Hour, pod(web, "y"), pod(set, "9"))
			return w
		}, []string{"db:3 was on 3 nodes that died of this bug, and on too few others for that to be chance"}},
		{"an image that is everywhere", func() (w suspectWorld) {
			for i := range 20 {
				o, _ := deathAt(fmt.Sprint("o", i), "other", 0, pod(set, fmt.Sprint(i)))
				w.others = append(w.others, o)
			}
			o, _ := deathAt("n1", "bug", 0, pod(set, "1"))
			w.others = append(w.others, o)
			w.d, w.pods = deathAt("n9", "bug", 10*time.Hour, pod(set, "9"))
			return w
		}, nil},
		{"where nothing else has died there is no base rate", func() (w suspectWorld) {
			for i := range 5 {
				o, _ := deathAt(fmt.Sprint("n", i), "bug", 0, pod(set, fmt.Sprint(i)))
				w.others = append(w.others, o)
			}
			w.d, w.pods = deathAt("n9", "bug", 10*time.Hour, pod(set, "9"))
			return w
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := tt.make()
			var got []string
			for _, s := range Suspects(w.d, w.pods, w.others) {
				got = append(got, s.Why())
				if last := s.Deaths[len(s.Deaths)-1]; last != w.d.Name {
					t.Errorf("its last death is %s, want %s", last, w.d.Name)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// The figures are those of R's fisher.test(…, alternative = "greater"), and of counting by hand.
func TestFisher(t *testing.T) {
	for _, tt := range []struct {
		a, n, b, m int
		want       float64
	}{
		{2, 2, 0, 10, 1.0 / 66}, // C(2,2)·C(10,0)/C(12,2)
		{3, 3, 0, 20, 1.0 / 1771},
		{3, 4, 1, 4, 17.0 / 70}, // Fisher's tea
		{1, 1, 20, 20, 1},
		{2, 2, 0, 0, 1},
	} {
		if got := fisher(tt.a, tt.n, tt.b, tt.m); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("%d of %d, %d of %d: %v, want %v", tt.a, tt.n, tt.b, tt.m, got, tt.want)
		}
	}
}

func TestHolds(t *testing.T) {
	chain := func(n int) []Suspect {
		return []Suspect{{Rule: ByReplacement, Namespace: "batch", Kind: "Job", Name: "crunch", Pod: "crunch", Deaths: make([]string, n)}}
	}
	job := Pod{Namespace: "batch", Name: "crunch-abcde", Owner: Owner{Kind: "Job", Name: "crunch"}}
	other := Pod{Namespace: "batch", Name: "other-abcde", Owner: Owner{Kind: "Job", Name: "other"}}
	for _, tt := range []struct {
		name     string
		hold     bool
		suspects []Suspect
		pod      Pod
		want     bool
	}{
		{"the third replacement", true, chain(4), job, true},
		{"the second", true, chain(3), job, false},
		{"where it is not asked for", false, chain(4), job, false},
		{"another's pod", true, chain(4), other, false},
		{"an image alone holds nobody", true, []Suspect{{Rule: ByImage, Image: "i", Deaths: make([]string, 9)}}, job, false},
		{"nobody is suspected", true, nil, job, false},
	} {
		if got := Holds(Policy{HoldSuspects: tt.hold}, tt.suspects, tt.pod); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
