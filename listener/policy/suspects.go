package policy

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// SuspectRule is why a workload is suspected of killing nodes.
type SuspectRule string

const (
	// ByReplacement: a pod died with its node, and the pod that replaced it died with the next one, of the same bug.
	ByReplacement SuspectRule = "Replacement"
	// ByImage: an image was on the nodes that died of a bug, and is on few of those that died of others.
	ByImage SuspectRule = "Image"
)

// Suspect is a workload or an image that may be what kills nodes. It is a reason to look, and proves nothing.
type Suspect struct {
	Rule SuspectRule
	// Namespace, Kind and Name are the owner of the pods, and Pod is what their names have in common; empty for an image.
	Namespace, Kind, Name, Pod string
	Image                      string
	// Deaths names the NodeDeaths that it had a part in, oldest first, the one that says so last.
	Deaths []string
}

// String names the suspect.
func (s Suspect) String() string {
	if s.Rule == ByImage {
		return "image " + s.Image
	}
	return s.Kind + " " + s.Namespace + "/" + s.Name
}

// Why says in one sentence why it is suspected.
func (s Suspect) Why() string {
	n := strconv.Itoa(len(s.Deaths))
	if s.Rule == ByImage {
		return s.Image + " was on " + n + " nodes that died of this bug, and on too few others for that to be chance"
	}
	return "pods " + s.Pod + " of " + s.String() + " died with " + n + " nodes one after the other, each replacing the last"
}

const (
	// replacedWithin is how soon after a death its pods are replaced: a Job's after 10 minutes of back-off at most
	// (kubernetes pkg/controller/job/backoff_utils.go).
	replacedWithin = 30 * time.Minute
	// suspectWithin is how far back deaths count.
	suspectWithin = 7 * 24 * time.Hour
	// maxSuspects bounds what a death names.
	maxSuspects = 5
	// chance is the probability below which it is taken for no chance that an image was on the dead nodes.
	chance = 0.05
	// holdFrom is from how many deaths before on a replacement's failure counts, see Holds.
	holdFrom = 3
)

// Suspects finds who may be to blame for d. pods are those that were on its node, as they were read, and others are the other
// deaths on record, as they are listed. Those of the longest chain of replacements come first, then images.
func Suspects(d Death, pods []Pod, others []Death) []Suspect {
	if d.Fingerprint == "" {
		return nil // what is not known to be the same bug has no common cause
	}
	others = slices.DeleteFunc(slices.Clone(others), func(o Death) bool {
		return o.Name == d.Name || o.Node == d.Node && o.Boot == d.Boot || o.Phase == Refused ||
			o.Time.After(d.Time) || d.Time.Sub(o.Time) > suspectWithin
	})
	slices.SortFunc(others, func(a, b Death) int { return b.Time.Compare(a.Time) })                             // latest first
	pods = slices.DeleteFunc(slices.Clone(pods), func(p Pod) bool { return p.Finished() && p.Death != d.Name }) // had ended before
	found := replacements(d, pods, others)
	found = append(found, commonImages(d, pods, others)...)
	return found[:min(len(found), maxSuspects)]
}

// place is what a pod and the one that replaces it have in common.
type place struct{ namespace, kind, owner, pod string }

// placeOf is the place of a pod that a controller replaces elsewhere. A StatefulSet's keeps its name, those of others end in
// random characters, after the index if they are of an indexed Job. A DaemonSet's pod dies with every node: it has no place.
func placeOf(namespace, name, kind, owner string) (p place, ok bool) {
	if kind == "" || kind == "DaemonSet" || kind == "Node" {
		return place{}, false
	}
	p = place{namespace, kind, owner, name}
	if at := strings.LastIndexByte(name, '-'); kind != "StatefulSet" && at > 0 {
		p.pod = name[:at]
	}
	return p, true
}

// replacements finds the pods on d's node that were made for pods that died with another node, of the same bug.
func replacements(d Death, pods []Pod, others []Death) (found []Suspect) {
	var same []Death
	for _, o := range others {
		if o.Fingerprint == d.Fingerprint && (o.Node != d.Node || o.NodeUID != d.NodeUID) {
			same = append(same, o)
		}
	}
	if len(same) == 0 {
		return nil
	}
	unpacked := make([]map[place]bool, len(same)) // most deaths are too old for any pod of d
	had := func(i int) map[place]bool {
		if unpacked[i] == nil {
			unpacked[i] = make(map[place]bool)
			for pod := range same[i].Packed.All() {
				if p, ok := placeOf(pod.Namespace, pod.Name, pod.OwnerKind, pod.OwnerName); ok {
					unpacked[i][p] = true
				}
			}
		}
		return unpacked[i]
	}
	seen := make(map[place]bool)
	for _, pod := range pods {
		p, ok := placeOf(pod.Namespace, pod.Name, pod.Owner.Kind, pod.Owner.Name)
		if !ok || seen[p] {
			continue
		}
		i := slices.IndexFunc(same, func(o Death) bool {
			after := pod.Created.Sub(o.Time)
			return after > -time.Second && after < replacedWithin // Created has whole seconds
		})
		if i < 0 || !had(i)[p] {
			continue
		}
		seen[p] = true
		s := Suspect{Rule: ByReplacement, Namespace: p.namespace, Kind: p.kind, Name: p.owner, Pod: p.pod}
		s.Deaths = append(chainOf(same[i], s), d.Name)
		found = append(found, s)
	}
	slices.SortStableFunc(found, func(a, b Suspect) int {
		return cmp.Or(cmp.Compare(len(b.Deaths), len(a.Deaths)), cmp.Compare(named(d, b), named(d, a)))
	})
	return found
}

// chainOf is the chain of replacements that led to death o, by o's own record.
func chainOf(o Death, s Suspect) []string {
	for _, before := range o.Suspects {
		if before.Rule == s.Rule && before.Namespace == s.Namespace && before.Kind == s.Kind && before.Name == s.Name && before.Pod == s.Pod {
			return slices.Clone(before.Deaths)
		}
	}
	return []string{o.Name}
}

// named is 1 if the kernel named a pod of s. That alone means little, and so only decides who comes first.
func named(d Death, s Suspect) int {
	if c := d.Culprit; c != nil && !c.Bystander && c.Pod != "" && c.Namespace == s.Namespace && strings.HasPrefix(c.Pod, s.Pod) {
		return 1
	}
	return 0
}

// commonImages finds the images that the nodes which died of d's bug have in common, and the others have not. The nodes that
// died of other bugs stand for the fleet. Images of DaemonSets are on every node and are left out.
func commonImages(d Death, pods []Pod, others []Death) (found []Suspect) {
	images := make(map[string]bool)
	for _, pod := range pods {
		if pod.Owner.Kind == "DaemonSet" || pod.Mirror {
			continue
		}
		for _, image := range pod.Images {
			images[image] = true
		}
	}
	same, rest := 1, 0
	type tally struct {
		deaths []string // of the same bug, oldest first
		rest   int      // how many other deaths have it
	}
	tallies := make(map[string]*tally, len(images))
	for image := range images {
		tallies[image] = &tally{}
	}
	for _, o := range slices.Backward(others) {
		if o.Packed == "" {
			continue // nobody knows what was there
		}
		bug := o.Fingerprint == d.Fingerprint
		if bug {
			same++
		} else {
			rest++
		}
		for _, image := range o.Packed.Images() {
			switch t := tallies[image]; {
			case t == nil:
			case bug:
				t.deaths = append(t.deaths, o.Name)
			default:
				t.rest++
			}
		}
	}
	p := make(map[string]float64)
	for image, t := range tallies {
		if len(t.deaths) == 0 {
			continue
		}
		// So many images are tried that some would pass by chance: the limit is divided among them (Bonferroni).
		p[image] = fisher(len(t.deaths)+1, same, t.rest, rest)
		if p[image]*float64(len(images)) <= chance {
			found = append(found, Suspect{Rule: ByImage, Image: image, Deaths: append(t.deaths, d.Name)})
		}
	}
	slices.SortFunc(found, func(a, b Suspect) int {
		return cmp.Or(cmp.Compare(p[a.Image], p[b.Image]), cmp.Compare(a.Image, b.Image))
	})
	return found
}

// fisher is the probability that, if a+b of n+m nodes have an image whatever they died of, a or more of the n have it: Fisher's
// exact test, one-sided.
func fisher(a, n, b, m int) (p float64) {
	choose := func(n, k int) float64 { // its logarithm
		lg := func(n int) float64 { v, _ := math.Lgamma(float64(n + 1)); return v }
		return lg(n) - lg(k) - lg(n-k)
	}
	for k := a; k <= min(n, a+b); k++ {
		if rest := a + b - k; rest <= m {
			p += math.Exp(choose(n, k) + choose(m, rest) - choose(n+m, a+b))
		}
	}
	return min(p, 1)
}

// Holds reports whether the failure of pod must count, because it is the third replacement in a row that died with its node:
// its pods do not carry DisruptionTarget then, and a Job's back-off limit ends it.
func Holds(p Policy, suspects []Suspect, pod Pod) bool {
	if !p.HoldSuspects {
		return false
	}
	at, ok := placeOf(pod.Namespace, pod.Name, pod.Owner.Kind, pod.Owner.Name)
	return ok && slices.ContainsFunc(suspects, func(s Suspect) bool {
		return s.Rule == ByReplacement && len(s.Deaths) > holdFrom && at == place{s.Namespace, s.Kind, s.Name, s.Pod}
	})
}
