package page

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// deathRow is one death of a list.
type deathRow struct {
	Name        string    `json:"name"`
	Node        string    `json:"node"`
	Instance    string    `json:"instance,omitempty"`
	Time        time.Time `json:"time"`
	Cause       string    `json:"cause"`
	Reason      string    `json:"reason"`
	Fingerprint string    `json:"fingerprint,omitempty"`
	Phase       string    `json:"phase"`
	Evidence    []string  `json:"evidence"`
	Authority   string    `json:"authority"`
	Kernel      string    `json:"kernel,omitempty"`
	Image       string    `json:"image,omitempty"`
	Type        string    `json:"instanceType,omitempty"`
	PodsFailed  int       `json:"podsFailed"`
	PodsTotal   int       `json:"podsTotal"`
}

func rowOf(d *policy.Death) deathRow {
	r := deathRow{
		Name: d.Name, Node: nodeOf(d), Instance: d.Instance, Time: d.Time, Cause: d.Cause, Reason: d.Reason, Fingerprint: d.Fingerprint,
		Phase: string(d.Phase.OrPending()), Evidence: []string{}, Authority: d.Authority.String(), Kernel: d.Release, Image: d.NodeInfo.Image,
		Type: d.NodeInfo.InstanceType, PodsFailed: d.PodsFailed, PodsTotal: d.PodsTotal,
	}
	for _, e := range d.Evidence {
		r.Evidence = append(r.Evidence, string(e))
	}
	return r
}

// unexplained reports whether nothing is known but that the boot ended. Nobody had to be believed about that.
func (d deathRow) unexplained() bool {
	return slices.Equal(d.Evidence, []string{string(policy.ByNothing)})
}

// list is the page of single deaths.
type list struct {
	Found  int        `json:"found"`
	Deaths []deathRow `json:"deaths"`
	Pods   []foundPod `json:"pods,omitempty"`

	filter filter
	causes []string
	remedy string // of the bug, if only one is shown
}

func (p *Page) deaths(r *http.Request, now time.Time) (view, error) {
	all, found, pods, f, err := p.read(r, now)
	if err != nil {
		return nil, err
	}
	v := list{Found: len(found), Deaths: []deathRow{}, Pods: pods, filter: f, causes: causes(all)}
	for _, d := range pageOf(found, f.Page) {
		v.Deaths = append(v.Deaths, rowOf(d))
	}
	if f.In == "fingerprint" && len(found) > 0 {
		v.remedy = found[0].Remedy
	}
	return v, nil
}

func (v list) title() string { return "Deaths" }

func (v list) render(h *html) {
	h.raw("<h1>Deaths</h1>")
	v.filter.form(h, "/deaths", v.causes)
	if v.remedy != "" {
		h.raw(`<div class="notice"><p><strong>Remedy:</strong> %s</p></div>`, v.remedy)
	}
	if v.filter.In != "fingerprint" {
		renderPods(h, v.filter, v.Pods)
	}
	h.element("h2", count(v.Found, "death", "deaths"))
	if v.Found == 0 {
		h.raw(`<p class="empty">No death matches. <a href="/deaths">Show all</a>.</p>`)
		return
	}
	h.table("Deaths, latest first", []literal{"When", "Node", "What happened", "State", "Pods failed", "Kernel and machine"}, func() {
		for _, d := range v.Deaths {
			d.render(h)
		}
	})
	pages(h, "/deaths", v.filter.values(), v.filter.Page, v.Found)
	h.raw(`<details><summary>What the states mean</summary><dl class="states">`)
	for _, p := range phases() {
		h.raw("<div><dt>")
		state(h, string(p))
		h.raw("</dt><dd>" + phaseMeans(p) + "</dd></div>")
	}
	h.raw("</dl></details>")
}

// phases are the states of a death, those that want a person first.
func phases() []policy.Phase {
	return []policy.Phase{policy.Held, policy.Incomplete, policy.Pending, policy.Cleaning, policy.Cleaned, policy.Recorded, policy.Refused}
}

func phaseMeans(p policy.Phase) literal {
	switch p {
	case policy.Held:
		return "too many nodes died at once. The node is fenced and no pod was failed; a person must release it"
	case policy.Incomplete:
		return "everything is done, but some pods could not be failed; a person must remove what is in the way, or delete them"
	case policy.Pending:
		return "nothing was failed yet; the listener waits for a witness"
	case policy.Cleaning:
		return "the pods are being failed over"
	case policy.Cleaned:
		return "everything is done"
	case policy.Recorded:
		return "the node died, and there was nothing to clean up: it was back or gone already, or it is left out"
	case policy.Refused:
		return "the node lives, or is not of this cluster; nothing was failed or deleted"
	}
	return ""
}

func (d deathRow) render(h *html) {
	h.row(func() {
		h.cell("When", func() {
			h.ago(d.Time)
			h.raw(` <div class="quiet stamp">%s</div>`, d.Time.UTC().Format("01-02 15:04:05"))
		})
		h.cell("Node", func() { h.link(href("/deaths/", d.Name, nil), d.Node) })
		h.cell("What happened", func() {
			known := slices.Clone(d.Evidence)
			if !d.unexplained() && !slices.Contains(known, d.Authority) {
				known = append(known, d.Authority)
			}
			h.raw(`%s<div class="tags"><span class="tag">%s</span><span class="quiet">%s</span></div>`, d.Reason, d.Cause, strings.Join(known, ", "))
		})
		h.cell("State", func() { state(h, d.Phase) })
		h.cell("Pods failed", func() {
			if d.PodsTotal > 0 {
				h.raw(`<span class="figure">%s of %s</span>`, grouped(d.PodsFailed), grouped(d.PodsTotal))
			} else {
				h.raw(`<span class="quiet">none</span>`)
			}
		})
		h.cell("Kernel and machine", func() {
			h.raw(`%s<div class="quiet">%s</div>`, d.Kernel, strings.Join(strings.Fields(d.Type+" "+d.Image), " "))
		})
	})
}

// state writes a phase, in a colour that says whether somebody has to do something.
func state(h *html, phase string) {
	names := "tag"
	switch policy.Phase(phase) {
	case policy.Held, policy.Incomplete:
		names = "tag bad"
	case policy.Pending, policy.Cleaning:
		names = "tag warn"
	case policy.Cleaned:
		names = "tag good"
	}
	h.element("span", phase, class(names))
}

// renderPods answers "what became of this pod?"
func renderPods(h *html, f filter, pods []foundPod) {
	if len(pods) == 0 {
		return
	}
	title := count(len(pods), "pod", "pods") + " on dead nodes"
	if len(pods) == maxPods {
		title = "The latest " + title
	}
	h.element("h2", title)
	h.table("Pods that match “"+f.Query+"”, and the death of their node", []literal{"Pod", "Owner", "Died with", "When"}, func() {
		for _, p := range pods {
			h.row(func() {
				h.cell("Pod", func() { h.raw(`<span class="quiet">%s/</span>%s`, p.Namespace, p.Pod) })
				h.textCell("Owner", p.Owner)
				h.cell("Died with", func() {
					h.link(href("/deaths/", p.Death, nil), p.Node)
					h.raw("<div>%s</div>", p.Reason)
				})
				h.cell("When", func() { h.ago(p.Time) })
			})
		}
	})
	if len(pods) == maxPods {
		h.raw(`<p class="quiet">To find others, type more of the name, or namespace/name.</p>`)
	}
}

func (f filter) form(h *html, action literal, causes []string) {
	h.raw(`<form role="search" aria-label="Deaths" method="get" action="`+action+`"><div class="field wide"><label for="q">Find</label>`+
		`<input id="q" name="q" type="search" autocomplete="off" spellcheck="false" placeholder="pod, ns/pod, image, node, fingerprint" value="%s"></div>`,
		f.Query)
	choose := func(id, label literal, options []choice, chosen string) {
		if !slices.ContainsFunc(options, func(c choice) bool { return c.value == chosen }) {
			options = append(options, choice{chosen, chosen})
		}
		h.raw(`<div class="field"><label for="` + id + `">` + label + `</label><select id="` + id + `" name="` + id + `">`)
		for _, o := range options {
			attrs := []attr{{"value", o.value}}
			if o.value == chosen {
				attrs = append(attrs, attr{"selected", ""})
			}
			h.element("option", o.name, attrs...)
		}
		h.raw("</select></div>")
	}
	choose("in", "In", choices("anything", searchable()), f.In)
	choose("cause", "Cause", choices("any cause", causes), f.Cause)
	choose("phase", "State", choices("any state", append([]policy.Phase{underWay}, phases()...)), f.Phase)
	var when []choice
	for _, r := range ranges() {
		when = append(when, choice{r.value, r.name})
	}
	choose("range", "When", when, f.Range)
	open := literal("")
	if !f.From.IsZero() || !f.To.IsZero() {
		open = " open"
	}
	q := f.values()
	h.raw("<details"+open+`><summary>Dates</summary><div class="dates"><div class="field"><label for="from">From</label>`+
		`<input type="date" id="from" name="from" value="%s"></div><div class="field"><label for="to">To, inclusive</label>`+
		`<input type="date" id="to" name="to" value="%s"></div></div></details><div class="field"><button>Find</button></div>`, q.Get("from"), q.Get("to"))
	if len(q) > 0 {
		h.raw(`<div class="field"><a class="clear" href="` + action + `">Clear</a></div>`)
	}
	h.raw("</form>")
}

// choice is one of those that a <select> offers.
type choice struct{ value, name string }

// choices are one for each of the values, behind that of all.
func choices[T ~string](all string, values []T) []choice {
	list := []choice{{"", all}}
	for _, v := range values {
		list = append(list, choice{string(v), string(v)})
	}
	return list
}

// pages links to the other pages of the list that q asks for.
func pages(h *html, path literal, q url.Values, page, total int) {
	last := (total - 1) / perPage
	if last <= 0 {
		return
	}
	page = min(page, last)
	h.raw(`<nav class="pages" aria-label="Pages of this list">`)
	link := func(name string, to int) {
		q.Set("page", strconv.Itoa(to+1))
		h.element("a", name, href(path, "", q))
	}
	if page > 0 {
		link("← Previous", page-1)
	}
	h.raw("<span>Page %s of %s</span>", grouped(page+1), grouped(last+1))
	if page < last {
		link("Next →", page+1)
	}
	h.raw("</nav>")
}

func sameBug(fingerprint string) url.Values {
	return url.Values{"q": {fingerprint}, "in": {"fingerprint"}}
}
