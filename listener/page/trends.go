package page

import (
	"cmp"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// rate is how often nodes of one kind die.
type rate struct {
	Name     string  `json:"name"`
	Nodes    int     `json:"nodes"` // now
	NodeDays float64 `json:"nodeDays"`
	Deaths   int     `json:"deaths"`
	Heard    int     `json:"heard"` // of Deaths, those that the dying kernel itself announced
	// PerThousand is deaths per 1,000 node-days, 0 where no node of that kind is left to count days of.
	PerThousand float64 `json:"deathsPer1000NodeDays"`
}

// trendsView is the page of rates.
type trendsView struct {
	From     time.Time  `json:"from"`
	To       time.Time  `json:"to"`
	Days     []dayCount `json:"days"`
	ByKernel []rate     `json:"byKernel"`
	ByImage  []rate     `json:"byImage"`
	ByType   []rate     `json:"byInstanceType"`
	All      rate       `json:"all"`

	filter filter
	causes []string
}

type dayCount struct {
	Day    string `json:"day"`
	Deaths int    `json:"deaths"`
}

// defaultTrend is how far back rates look if the reader does not say.
const defaultTrend = "30d"

func (p *Page) trends(r *http.Request, now time.Time) (view, error) {
	if q := r.URL.Query(); !q.Has("range") && !q.Has("from") {
		q.Set("range", defaultTrend)
		r.URL.RawQuery = q.Encode()
	}
	all, found, _, f, err := p.read(r, now)
	if err != nil {
		return nil, err
	}
	found = dead(found)
	v := trendsView{From: f.start(), To: now, filter: f, causes: causes(all)}
	if !f.To.IsZero() && f.To.Before(now) {
		v.To = f.To
	}
	if v.From.IsZero() && len(found) > 0 {
		v.From = found[len(found)-1].Time
	}
	nodes := slices.DeleteFunc(slices.Clone(p.Source.Fleet()), func(n Node) bool { return n.Created.IsZero() })
	days := make([]float64, len(nodes))
	for i, n := range nodes {
		days[i] = nodeDays(n, v.From, v.To)
	}
	v.ByKernel = rates(found, nodes, days, func(d *policy.Death) string { return d.Release }, func(n Node) string { return n.Kernel })
	v.ByImage = rates(found, nodes, days, func(d *policy.Death) string { return d.NodeInfo.Image }, func(n Node) string { return n.Image })
	v.ByType = rates(found, nodes, days, func(d *policy.Death) string { return d.NodeInfo.InstanceType }, func(n Node) string { return n.InstanceType })
	if all := rates(found, nodes, days, func(*policy.Death) string { return "all" }, func(Node) string { return "all" }); len(all) > 0 {
		v.All = all[0]
	}
	v.Days = daily(found, v.From, v.To)
	return v, nil
}

// nodeDays is for how much of a time a Node existed.
func nodeDays(n Node, from, to time.Time) float64 {
	if n.Created.After(from) {
		from = n.Created
	}
	return max(to.Sub(from).Hours()/24, 0)
}

// rates counts deaths and node-days by the kind that ofDeath and ofNode name, the worst first.
func rates(deaths []*policy.Death, nodes []Node, days []float64, ofDeath func(*policy.Death) string, ofNode func(Node) string) []rate {
	byName := make(map[string]*rate)
	of := func(name string) *rate {
		name = cmp.Or(name, "unknown")
		if byName[name] == nil {
			byName[name] = &rate{Name: name}
		}
		return byName[name]
	}
	for _, d := range deaths {
		r := of(ofDeath(d))
		r.Deaths++
		if slices.Contains(d.Evidence, policy.ByNetconsole) {
			r.Heard++
		}
	}
	for i, n := range nodes {
		r := of(ofNode(n))
		r.Nodes++
		r.NodeDays += days[i]
	}
	out := make([]rate, 0, len(byName))
	for _, r := range byName {
		if r.NodeDays > 0 {
			r.PerThousand = float64(r.Deaths) / r.NodeDays * 1000
		}
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b rate) int {
		return cmp.Or(cmp.Compare(b.PerThousand, a.PerThousand), cmp.Compare(b.Deaths, a.Deaths), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// maxDays bounds the days that are drawn.
const maxDays = 90

// daily counts the deaths of each day, up to and including that of to.
func daily(deaths []*policy.Death, from, to time.Time) []dayCount {
	counts := make(map[string]int)
	for _, d := range deaths {
		counts[d.Time.UTC().Format(date)]++
	}
	if from.IsZero() || to.Sub(from) > maxDays*day {
		from = to.Add(-maxDays * day)
	}
	out := []dayCount{}
	last := to.Add(-time.Nanosecond).UTC().Format(date) // to is exclusive
	for t := from.UTC().Truncate(day); t.Format(date) <= last; t = t.Add(day) {
		out = append(out, dayCount{t.Format(date), counts[t.Format(date)]})
	}
	return out
}

func (v trendsView) title() string { return "Trends" }

func (v trendsView) render(h *html) {
	h.raw("<h1>How often do nodes die?</h1>")
	v.filter.form(h, "/trends", v.causes)
	h.raw(`<ul class="tiles"><li><span><b>%s</b> deaths</span></li><li><span><b>%s</b> per 1,000 node-days</span></li>`+
		"<li><span><b>%s</b> announced by the dying kernel</span></li></ul>", grouped(v.All.Deaths), perThousand(v.All), recall(v.All))
	v.draw(h)
	v.renderRates(h, "By kernel", "Kernel", v.ByKernel)
	v.renderRates(h, "By image", "Image", v.ByImage)
	v.renderRates(h, "By instance type", "Instance type", v.ByType)
	h.raw(`<p class="quiet">Node-days count the Nodes that exist now, under the kernel they run now. Nodes that are gone are not counted: ` +
		`after a roll-out the old kernel's rate is too high, and a kernel that no Node runs any more has none.</p>`)
}

func perThousand(r rate) string {
	if r.NodeDays == 0 {
		return "–"
	}
	return strconv.FormatFloat(r.PerThousand, 'f', 2, 64)
}

// recall is how many of the deaths were heard as they happened.
func recall(r rate) string {
	if r.Deaths == 0 {
		return "–"
	}
	return strconv.Itoa(r.Heard*100/r.Deaths) + " %"
}

func (v trendsView) renderRates(h *html, title string, column literal, rates []rate) {
	if len(rates) == 0 {
		return
	}
	h.element("h2", title)
	worst := 0.0
	for _, r := range rates {
		worst = max(worst, r.PerThousand)
	}
	shown := rates[:min(len(rates), perPage)]
	h.table(title+", worst first", []literal{column, "Deaths per 1,000 node-days", "Deaths", "Nodes now", "Node-days", "Heard dying"}, func() {
		for _, r := range shown {
			h.row(func() {
				h.textCell(column, r.Name)
				h.cell("Deaths per 1,000 node-days", func() {
					h.text(perThousand(r))
					if worst > 0 {
						h.raw(`<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">`+
							`<rect width="%s" height="8"></rect></svg>`, coordinate(r.PerThousand/worst*100))
					}
				})
				h.cell("Deaths", func() { h.number(r.Deaths) })
				h.cell("Nodes now", func() { h.number(r.Nodes) })
				h.cell("Node-days", func() { h.number(int(math.Round(r.NodeDays))) })
				h.textCell("Heard dying", recall(r))
			})
		}
	})
	if len(rates) > len(shown) {
		h.raw(`<p class="quiet">%s in the JSON of this page.</p>`, count(len(rates)-len(shown), "more is", "more are"))
	}
}

// draw draws the deaths of each day. The table for those who do not see it is in the details below.
func (v trendsView) draw(h *html) {
	if len(v.Days) < 2 {
		return
	}
	most := 0
	for _, d := range v.Days {
		most = max(most, d.Deaths)
	}
	h.raw(`<h2>By day</h2><svg class="days" viewBox="0 0 800 120" role="img" aria-label="Deaths by day; the numbers are in the table below">`)
	width := 800 / float64(len(v.Days))
	for i, d := range v.Days {
		if d.Deaths == 0 {
			continue
		}
		height := float64(d.Deaths) / float64(most) * 100
		h.raw(`<rect x="%s" width="%s" y="%s" height="%s"><title>%s: %s</title></rect>`, coordinate(float64(i)*width+width*0.1),
			coordinate(width*0.8), coordinate(118-height), coordinate(height), d.Day, count(d.Deaths, "death", "deaths"))
	}
	h.raw(`<line class="axis" x1="0" x2="800" y1="119" y2="119"></line></svg><p class="ends"><span>%s</span>`+
		"<span>most on one day: %s</span><span>%s</span></p><details><summary>As numbers</summary>",
		v.Days[0].Day, grouped(most), v.Days[len(v.Days)-1].Day)
	h.table("Deaths by day", []literal{"Day", "Deaths"}, func() {
		for _, d := range slices.Backward(v.Days) {
			h.row(func() {
				h.textCell("Day", d.Day)
				h.cell("Deaths", func() { h.number(d.Deaths) })
			})
		}
	})
	h.raw("</details>")
}
