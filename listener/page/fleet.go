package page

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The covers of senders that would be heard dying: Nodes, and what is not a Node of the cluster.
const covered, stranger = "covered", "stranger"

// coverOrder lists the covers; those that need a person come first.
func coverOrder() []string { return []string{"mute", "silent", "unproven", stranger, covered} }

// covers counts the nodes by cover. A cover without nodes counts 0.
func covers(nodes []Node) map[string]int {
	counts := make(map[string]int)
	for _, c := range coverOrder() {
		counts[c] = 0
	}
	for _, n := range nodes {
		counts[n.Cover]++
	}
	return counts
}

// fleetView is the page of the fleet's coverage.
type fleetView struct {
	Counts map[string]int `json:"counts"`
	Found  int            `json:"found"`
	Nodes  []Node         `json:"nodes"` // those that would not be heard first

	cover, query string
	page         int
}

func (p *Page) fleet(r *http.Request, now time.Time) (view, error) {
	nodes := p.Source.Fleet()
	f := filterFrom(r.URL.Query(), now)
	v := fleetView{Counts: covers(nodes), Nodes: []Node{}, query: f.Query, page: f.Page}
	if c := r.URL.Query().Get("cover"); slices.Contains(coverOrder(), c) {
		v.cover = c
	}
	text := strings.ToLower(f.Query)
	nodes = slices.DeleteFunc(slices.Clone(nodes), func(n Node) bool {
		if v.cover != "" && n.Cover != v.cover {
			return true
		}
		for _, s := range [...]string{n.Name, n.Address, n.Kernel, n.Image, n.InstanceType, n.Why} {
			if strings.Contains(strings.ToLower(s), text) {
				return false
			}
		}
		return true
	})
	order := coverOrder()
	slices.SortStableFunc(nodes, func(a, b Node) int { return slices.Index(order, a.Cover) - slices.Index(order, b.Cover) })
	v.Found = len(nodes)
	v.Nodes = append(v.Nodes, pageOf(nodes, f.Page)...)
	return v, nil
}

func (v fleetView) values() url.Values {
	q := url.Values{}
	if v.cover != "" {
		q.Set("cover", v.cover)
	}
	if v.query != "" {
		q.Set("q", v.query)
	}
	return q
}

func (v fleetView) title() string { return "Coverage" }

func (v fleetView) render(h *html) {
	h.raw(`<h1>Would we hear a node die?</h1><p>All replicas show the same: once a minute they exchange which canaries have arrived.</p><ul class="tiles">`)
	for _, cover := range coverOrder() {
		state, n := literal("warn"), v.Counts[cover]
		if cover == covered {
			state = "good"
		}
		if n == 0 {
			state = ""
		}
		h.raw(`<li class="` + state + `">`)
		attrs := []attr{href("/fleet", "", url.Values{"cover": {cover}})}
		if cover == v.cover {
			attrs = append(attrs, attr{"aria-current", "true"})
		}
		h.open("a", attrs...)
		h.raw(`<b>%s</b> %s<span class="quiet">`+coverMeans(cover)+"</span></a></li>", grouped(n), cover)
	}
	h.raw(`</ul><form role="search" aria-label="Nodes" method="get" action="/fleet"><div class="field wide"><label for="q">Find</label>`+
		`<input id="q" name="q" type="search" autocomplete="off" spellcheck="false" placeholder="node, address, kernel, image, reason" value="%s"></div>`,
		v.query)
	if v.cover != "" {
		h.raw(`<input type="hidden" name="cover" value="%s">`, v.cover)
	}
	h.raw(`<div class="field"><button>Find</button></div>`)
	if len(v.values()) > 0 {
		h.raw(`<div class="field"><a class="clear" href="/fleet">Clear</a></div>`)
	}
	h.raw("</form>")
	h.element("h2", count(v.Found, "node", "nodes"))
	if v.Found == 0 {
		if len(v.values()) == 0 {
			h.raw(`<p class="empty">No node is known yet: the cluster has no Nodes, or they have not been listed, and no canary has arrived.</p>`)
		} else {
			h.raw(`<p class="empty">No node matches. <a href="/fleet">Show all</a>.</p>`)
		}
		return
	}
	h.table("Nodes, those that would not be heard first", []literal{"Node", "Cover", "Why", "Kernel and machine", "Last canary"}, func() {
		for _, n := range v.Nodes {
			h.row(func() {
				h.cell("Node", func() {
					if n.Name == "" {
						h.text(n.Address)
						return
					}
					h.link(href("/deaths", "", url.Values{"q": {n.Name}, "in": {"node"}}), n.Name)
					h.raw(`<div class="quiet">%s</div>`, n.Address)
				})
				h.cell("Cover", func() {
					kind := "tag warn"
					if n.Cover == covered {
						kind = "tag good"
					}
					h.element("span", n.Cover, class(kind))
				})
				h.textCell("Why", n.Why)
				h.cell("Kernel and machine", func() {
					h.text(n.Kernel)
					if machine := strings.TrimSpace(n.InstanceType + " " + n.Image); machine != "" {
						h.element("div", machine, class("quiet"))
					}
				})
				h.cell("Last canary", func() {
					if n.Canary.IsZero() {
						h.raw("never")
						return
					}
					h.ago(n.Canary)
				})
			})
		}
	})
	pages(h, "/fleet", v.values(), v.page, v.Found)
}

func coverMeans(cover string) literal {
	switch cover {
	case "mute":
		return "their canary says that a panic would not be heard"
	case "silent":
		return "their canaries have stopped"
	case "unproven":
		return "no canary has arrived"
	case stranger:
		return "not Nodes of this cluster"
	}
	return "a panic would be heard"
}
