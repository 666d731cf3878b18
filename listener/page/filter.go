package page

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// filter is what the reader asked for: everything in the query of an address.
type filter struct {
	Query string // what to look for
	In    string // where: one of searchable, empty for everywhere
	Cause string
	Range string    // one of ranges, empty for all
	From  time.Time // with To, instead of Range
	To    time.Time // exclusive
	Phase string    // a policy.Phase, or underWay
	Page  int       // from 0

	now time.Time
}

// timeRange is a choice of how far back deaths are shown.
type timeRange struct {
	value, name string
	span        time.Duration
}

const day = 24 * time.Hour

func ranges() []timeRange {
	return []timeRange{
		{"24h", "last 24 hours", day}, {"7d", "last 7 days", 7 * day}, {"30d", "last 30 days", 30 * day}, {"", "all on record", 0},
	}
}

func searchable() []string {
	return []string{"pod", "namespace", "image", "node", "kernel", "fingerprint"}
}

// date is the layout of a day in a query, as <input type=date> has it.
const date = "2006-01-02"

// maxQuery bounds the text to look for.
const maxQuery = 256

// filterFrom reads a query. What it does not know, it leaves out.
func filterFrom(q url.Values, now time.Time) filter {
	f := filter{Query: strings.TrimSpace(q.Get("q")), Cause: q.Get("cause"), Phase: q.Get("phase"), now: now}
	f.Query = strings.ToValidUTF8(f.Query[:min(len(f.Query), maxQuery)], "")
	if in := q.Get("in"); slices.Contains(searchable(), in) {
		f.In = in
	}
	if slices.ContainsFunc(ranges(), func(r timeRange) bool { return r.value == q.Get("range") }) {
		f.Range = q.Get("range")
	}
	if t, err := time.Parse(date, q.Get("from")); err == nil {
		f.From = t
	}
	if t, err := time.Parse(date, q.Get("to")); err == nil {
		f.To = t.Add(day) // that day, too
	}
	if n, err := strconv.Atoi(q.Get("page")); err == nil && n > 1 && n < 1_000_000 {
		f.Page = n - 1
	}
	return f
}

// values is f as a query, without what is not asked for.
func (f filter) values() url.Values {
	q := url.Values{}
	set := func(key, value string) {
		if value != "" {
			q.Set(key, value)
		}
	}
	set("q", f.Query)
	set("in", f.In)
	set("cause", f.Cause)
	set("phase", f.Phase)
	set("range", f.Range)
	if !f.From.IsZero() {
		q.Set("from", f.From.Format(date))
	}
	if !f.To.IsZero() {
		q.Set("to", f.To.Add(-day).Format(date))
	}
	if f.Page > 0 {
		q.Set("page", strconv.Itoa(f.Page+1))
	}
	return q
}

// start is the beginning of the time that is asked for, zero for all.
func (f filter) start() time.Time {
	if !f.From.IsZero() || !f.To.IsZero() {
		return f.From
	}
	for _, r := range ranges() {
		if r.value == f.Range && r.span > 0 {
			return f.now.Add(-r.span)
		}
	}
	return time.Time{}
}

// underWay stands for every phase in which a replica is at work.
const underWay = "under way"

// isIn reports whether d is in the phase that is asked for.
func (f filter) isIn(d *policy.Death) bool {
	return f.Phase == "" || f.Phase == string(d.Phase.OrPending()) || f.Phase == underWay && d.Phase.AtWork()
}

// within reports whether t is in the time that is asked for.
func (f filter) within(t time.Time) bool {
	return !t.Before(f.start()) && (f.To.IsZero() || t.Before(f.To))
}

// match returns the deaths that f asks for, latest first, and the pods in them that it looks for, maxPods at most.
func (f filter) match(deaths []policy.Death) (found []*policy.Death, pods []foundPod) {
	for i := range deaths {
		if d := &deaths[i]; f.within(d.Time) && (f.Cause == "" || d.Cause == f.Cause) && f.isIn(d) {
			found = append(found, d)
		}
	}
	slices.SortFunc(found, func(a, b *policy.Death) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(a.Name, b.Name))
	})
	if f.Query == "" {
		return found, nil
	}
	found = slices.DeleteFunc(found, func(d *policy.Death) bool {
		hits := f.pods(d, max(maxPods-len(pods), 1))
		if d.Phase != policy.Refused { // those pods live
			pods = append(pods, hits[:min(len(hits), maxPods-len(pods))]...)
		}
		return len(hits) == 0 && !f.names(d)
	})
	return found, pods
}

// foundPod is a pod that was looked for, and the death it died of.
type foundPod struct {
	Namespace string    `json:"namespace"`
	Pod       string    `json:"pod"`
	Owner     string    `json:"owner,omitempty"`
	Node      string    `json:"node"`
	Death     string    `json:"death"`
	Reason    string    `json:"reason"`
	Time      time.Time `json:"time"`
}

// pods are the first pods of d, most at most, that are looked for by their own name. Names and images are lower case, so the
// query is made so.
func (f filter) pods(d *policy.Death, most int) (found []foundPod) {
	if f.Query == "" || d.Packed == "" || f.In != "" && f.In != "pod" && f.In != "namespace" && f.In != "image" {
		return nil
	}
	text := strings.ToLower(f.Query)
	namespace, name, qualified := strings.Cut(text, "/")
	if !strings.Contains(string(d.Packed), text) && !(qualified && strings.Contains(string(d.Packed), name)) {
		return nil
	}
	for pod, images := range d.Packed.All() {
		isPod := strings.Contains(pod.Name, text) || qualified && pod.Namespace == namespace && strings.Contains(pod.Name, name)
		isNamespace := strings.Contains(pod.Namespace, text)
		isImage := slices.ContainsFunc(images, func(i string) bool { return strings.Contains(i, text) })
		if f.In == "pod" && isPod || f.In == "namespace" && isNamespace || f.In == "image" && isImage ||
			f.In == "" && (isPod || isNamespace || isImage) {
			found = append(found, foundPod{
				Namespace: pod.Namespace, Pod: pod.Name, Owner: ownerOf(pod), Node: nodeOf(d), Death: d.Name, Reason: d.Reason, Time: d.Time,
			})
		}
		if len(found) == most {
			break
		}
	}
	return found
}

// names reports whether d itself is looked for.
func (f filter) names(d *policy.Death) bool {
	text := strings.ToLower(f.Query)
	contains := func(s string) bool { return strings.Contains(strings.ToLower(s), text) }
	switch f.In {
	case "node":
		return contains(d.Node) || contains(d.Instance) || d.Source.IsValid() && contains(d.Source.Addr().String())
	case "kernel":
		return contains(d.Release)
	case "fingerprint":
		return contains(d.Fingerprint)
	case "image":
		return contains(d.NodeInfo.Image)
	case "":
		for _, s := range [...]string{d.Name, d.Node, d.Instance, d.Release, d.Fingerprint, d.Reason, d.Cause, d.NodeInfo.Image, d.NodeInfo.InstanceType} {
			if contains(s) {
				return true
			}
		}
		return d.Source.IsValid() && contains(d.Source.Addr().String())
	}
	return false
}

// nodeOf names the node of d, by its address where no Node answered.
func nodeOf(d *policy.Death) string {
	if d.Node == "" && d.Source.IsValid() {
		return d.Source.Addr().String()
	}
	return cmp.Or(d.Node, d.Instance, "unknown")
}

func ownerOf(p policy.DeadPod) string {
	if p.OwnerKind == "" {
		return ""
	}
	return p.OwnerKind + " " + p.OwnerName
}
