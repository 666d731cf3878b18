package page

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// newFor is how long a bug is new after its first death.
const newFor = day

// bug is what deaths with the same fingerprint have in common.
type bug struct {
	Fingerprint   string    `json:"fingerprint,omitempty"`
	Cause         string    `json:"cause"`
	Reason        string    `json:"reason"` // of the latest death
	Remedy        string    `json:"remedy,omitempty"`
	Deaths        int       `json:"deaths"`
	Nodes         []string  `json:"nodes"` // those that died latest first
	PodsFailed    int       `json:"podsFailed"`
	First         time.Time `json:"first"` // on record, whatever the filter
	Last          time.Time `json:"last"`
	New           bool      `json:"new"`
	Held          int       `json:"held,omitempty"`
	Kernels       []string  `json:"kernels"`
	Images        []string  `json:"images"`
	InstanceTypes []string  `json:"instanceTypes"`
	Suspects      []string  `json:"suspects,omitempty"`
}

// key is what d is grouped by. A death without fingerprint is grouped by what it says.
func key(d *policy.Death) string { return cmp.Or(d.Fingerprint, d.Cause+"\x00"+d.Reason) }

// dead leaves out refused deaths: a witness contradicted them, or nobody may judge them.
func dead(deaths []*policy.Death) []*policy.Death {
	return slices.DeleteFunc(deaths, func(d *policy.Death) bool { return d.Phase == policy.Refused })
}

// groups are the bugs of the deaths found, none of them refused, which are sorted latest first. all are the deaths on record.
func groups(all []policy.Death, found []*policy.Death, now time.Time) []*bug {
	first := make(map[string]time.Time)
	for i := range all {
		d := &all[i]
		if at, ok := first[key(d)]; d.Phase != policy.Refused && (!ok || d.Time.Before(at)) {
			first[key(d)] = d.Time
		}
	}
	byKey := make(map[string]*bug)
	var bugs []*bug
	for _, d := range found {
		b := byKey[key(d)]
		if b == nil {
			b = &bug{
				Fingerprint: d.Fingerprint, Cause: d.Cause, Reason: d.Reason, Last: d.Time, First: first[key(d)],
				New: now.Sub(first[key(d)]) < newFor,
			}
			byKey[key(d)] = b
			bugs = append(bugs, b)
		}
		b.Deaths++
		b.PodsFailed += d.PodsFailed
		b.Remedy = cmp.Or(b.Remedy, d.Remedy)
		if d.Phase == policy.Held {
			b.Held++
		}
		b.Nodes = add(b.Nodes, nodeOf(d))
		b.Kernels, b.Images = add(b.Kernels, d.Release), add(b.Images, d.NodeInfo.Image)
		b.InstanceTypes = add(b.InstanceTypes, d.NodeInfo.InstanceType)
		for _, s := range d.Suspects {
			b.Suspects = add(b.Suspects, s.String())
		}
	}
	return bugs
}

// maxNames bounds the names that a bug lists; nobody reads more.
const maxNames = 100

// add adds s to a list that has each value once.
func add(list []string, s string) []string {
	if s == "" || len(list) == maxNames || slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// overview is the first page.
type overview struct {
	Deaths24h int        `json:"deaths24h"`
	Deaths7d  int        `json:"deaths7d"`
	Held      []deathRow `json:"held"`
	// Incomplete counts the deaths of the last 24 hours whose pods could not all be failed.
	Incomplete int            `json:"incomplete"`
	AtWork     int            `json:"atWork"`
	Nodes      map[string]int `json:"nodes"` // by cover
	Found      int            `json:"found"` // deaths that the filter lets pass
	Bugs       []*bug         `json:"bugs"`
	Pods       []foundPod     `json:"pods,omitempty"`

	bugs   int
	filter filter
	causes []string
	none   bool // nothing is on record at all
}

func (p *Page) bugs(r *http.Request, now time.Time) (view, error) {
	all, found, pods, f, err := p.read(r, now)
	if err != nil {
		return nil, err
	}
	found = dead(found)
	v := overview{
		Held: []deathRow{}, Nodes: covers(p.Source.Fleet()), Found: len(found), Bugs: []*bug{}, Pods: pods,
		filter: f, causes: causes(all), none: len(all) == 0,
	}
	for i := range all {
		d := &all[i]
		if d.Phase.AtWork() {
			v.AtWork++
		}
		if d.Phase == policy.Held {
			v.Held = append(v.Held, rowOf(d))
		}
		if d.Phase == policy.Refused {
			continue
		}
		if now.Sub(d.Time) < day {
			v.Deaths24h++
			if d.Phase == policy.Incomplete {
				v.Incomplete++
			}
		}
		if now.Sub(d.Time) < 7*day {
			v.Deaths7d++
		}
	}
	bugs := groups(all, found, now)
	v.bugs = len(bugs)
	v.Bugs = append(v.Bugs, pageOf(bugs, f.Page)...)
	return v, nil
}

func causes(deaths []policy.Death) (list []string) {
	for i := range deaths {
		list = add(list, deaths[i].Cause)
	}
	slices.Sort(list)
	return list
}

// pageOf is one page of a list, the last one if it has not so many.
func pageOf[T any](list []T, page int) []T {
	from := min(page, max(len(list)-1, 0)/perPage) * perPage
	return list[from:min(from+perPage, len(list))]
}

func (v overview) title() string { return "Bugs" }

func (v overview) render(h *html) {
	h.raw("<h1>What kills our kernels</h1>")
	v.summary(h)
	v.filter.form(h, "/", v.causes)
	if v.none {
		h.raw(`<p class="empty"><strong>No death is on record.</strong> When a kernel dies it is listed here within a second. ` +
			`Whether it would be heard is on <a href="/fleet">Coverage</a>.</p>`)
		return
	}
	renderPods(h, v.filter, v.Pods)
	h.raw("<h2>%s, %s</h2>", count(v.bugs, "bug", "bugs"), count(v.Found, "death", "deaths"))
	if v.bugs == 0 {
		h.raw(`<p class="empty">No death matches. <a href="/">Show all</a>.</p>`)
		return
	}
	h.table("Deaths grouped by fingerprint, latest first", []literal{"What happened", "Deaths", "Pods failed", "Last", "First", "Kernels and machines"}, func() {
		for _, b := range v.Bugs {
			b.render(h)
		}
	})
	pages(h, "/", v.filter.values(), v.filter.Page, v.bugs)
}

// summary says in one line of tiles whether somebody has to get up.
func (v overview) summary(h *html) {
	h.raw(`<ul class="tiles">`)
	tile := func(state literal, n int, what, path literal, query url.Values) {
		h.raw(`<li class="`+state+`"><a href="%s"><b>%s</b> `+what+"</a></li>", address(path, "", query), grouped(n))
	}
	tile("", v.Deaths24h, "died in 24 hours", "/deaths", url.Values{"range": {"24h"}})
	tile("", v.Deaths7d, "died in 7 days", "/deaths", url.Values{"range": {"7d"}})
	state := literal("")
	if len(v.Held) > 0 {
		state = "bad"
	}
	tile(state, len(v.Held), "held for a person", "/deaths", url.Values{"phase": {string(policy.Held)}})
	tile("", v.AtWork, "being cleaned up", "/deaths", url.Values{"phase": {underWay}})
	nodes, unheard := 0, 0
	for cover, n := range v.Nodes {
		if nodes += n; cover != covered && cover != stranger {
			unheard += n
		}
	}
	if state = "good"; unheard > 0 {
		state = "warn"
	}
	if nodes == 0 {
		state = ""
	}
	what := literal("nodes would die unheard")
	if unheard == 1 {
		what = "node would die unheard"
	}
	tile(state, unheard, what, "/fleet", nil)
	h.raw("</ul>")
	if len(v.Held) > 0 {
		h.raw(`<div class="notice bad"><p><strong>Too many nodes died at once, so the rest is held.</strong> Their nodes are fenced; ` +
			`no pod was failed. If it is true, release them:</p>`)
		const most = 5
		for _, d := range v.Held[:min(len(v.Held), most)] {
			h.command("kubectl annotate nodedeath", d.Name, "lastgasp.dev/release=true")
		}
		if len(v.Held) > most {
			h.raw(`<p><a href="%s">All %s</a></p>`,
				address("/deaths", "", url.Values{"phase": {string(policy.Held)}}), count(len(v.Held), "held death", "held deaths"))
		}
		h.raw("</div>")
	}
	if v.Incomplete > 0 {
		h.raw(`<div class="notice bad"><p><strong>Some pods could not be failed.</strong> They wait for you: `+
			`<a href="%s">%s of the last 24 hours</a>.</p></div>`,
			address("/deaths", "", url.Values{"phase": {string(policy.Incomplete)}, "range": {"24h"}}), count(v.Incomplete, "death", "deaths"))
	}
}

// few is how many names a cell shows.
const few = 2

// names writes some of a list, with the number of the others.
func names(h *html, list []string) {
	for i, s := range list {
		if i == few {
			h.raw(` <span class="quiet">and %s more</span>`, grouped(len(list)-few))
			return
		}
		if i > 0 {
			h.raw(" ")
		}
		if i < min(len(list), few)-1 {
			s += ","
		}
		h.element("span", s, class("part"))
	}
}

func (b *bug) render(h *html) {
	h.row(func() {
		h.cell("What happened", func() {
			q := url.Values{"q": {cmp.Or(b.Fingerprint, b.Reason)}}
			if b.Fingerprint != "" {
				q.Set("in", "fingerprint")
			}
			h.element("a", b.Reason, class("what"), href("/deaths", "", q))
			h.raw(`<div class="tags"><span class="tag">%s</span>`, b.Cause)
			if b.New {
				h.raw(`<span class="tag new">new since `)
				h.ago(b.First)
				h.raw("</span>")
			}
			if b.Held > 0 {
				h.element("span", count(b.Held, "held", "held"), class("tag bad"))
			}
			if b.Fingerprint != "" {
				h.element("code", b.Fingerprint, class("quiet"))
			}
			h.raw("</div>")
			if b.Remedy != "" {
				h.raw(`<div class="remedy">Remedy: %s</div>`, b.Remedy)
			}
			if len(b.Suspects) > 0 {
				h.raw(`<div class="suspect">Suspect: `)
				names(h, b.Suspects)
				h.raw("</div>")
			}
		})
		h.cell("Deaths", func() {
			h.raw(`<b>%s</b> <span class="quiet">on %s</span>`, grouped(b.Deaths), count(len(b.Nodes), "node", "nodes"))
		})
		h.cell("Pods failed", func() { h.number(b.PodsFailed) })
		h.cell("Last", func() { h.ago(b.Last) })
		h.cell("First", func() { h.ago(b.First) })
		h.cell("Kernels and machines", func() {
			for _, line := range [][]string{b.Kernels, b.InstanceTypes, b.Images} {
				if len(line) > 0 {
					h.raw(`<div class="where">`)
					names(h, line)
					h.raw("</div>")
				}
			}
		})
	})
}
