package page

import (
	"cmp"
	"slices"
	"strings"

	"github.com/lastgasp/lastgasp/listener/policy"
)

type podRow struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	Owner     string   `json:"owner,omitempty"`
	Images    []string `json:"images,omitempty"`
	Outcome   string   `json:"outcome,omitempty"`
}

// podsOf lists the pods that were there, those that could not be failed first, then by namespace.
func podsOf(d *policy.Death) []podRow {
	became := make(map[int]string)
	for _, o := range d.Outcomes {
		for _, i := range o.Pods {
			became[i] = o.What
		}
	}
	rows := []podRow{}
	for i, p := range d.Pods {
		row := podRow{Namespace: p.Namespace, Name: p.Name, Owner: ownerOf(p), Outcome: became[i]}
		for _, at := range p.Images {
			if at >= 0 && at < len(d.Images) {
				row.Images = append(row.Images, d.Images[at])
			}
		}
		rows = append(rows, row)
	}
	slices.SortStableFunc(rows, func(a, b podRow) int {
		denied := func(r podRow) int {
			if r.Outcome == policy.PodDenied || r.Outcome == policy.PodFull {
				return 0
			}
			return 1
		}
		return cmp.Or(denied(a)-denied(b), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Owner, b.Owner), strings.Compare(a.Name, b.Name))
	})
	return rows
}

func (v deathView) renderPods(h *html) {
	h.raw(`<h2 id="pods">Pods</h2>`)
	if len(v.Pods) == 0 {
		h.raw(`<p class="empty">No pod is on record for this death.</p>`)
		return
	}
	h.table(count(len(v.Pods)+v.PodsOmitted, "pod was", "pods were")+" on the node", []literal{"Workload", "Pods", "What became of them", "Images"}, func() {
		for _, group := range workloads(v.Pods) {
			p := group[0]
			h.row(func() {
				h.cell("Workload", func() {
					h.raw(`<span class="quiet">%s/</span>%s`, p.Namespace, cmp.Or(p.Owner, "no owner"))
				})
				h.cell("Pods", func() {
					for i, pod := range group {
						if i == few && len(group) > few+1 {
							h.raw("<details><summary>%s more</summary>", grouped(len(group)-few))
						}
						h.element("div", pod.Name)
					}
					if len(group) > few+1 {
						h.raw("</details>")
					}
				})
				h.cell("What became of them", func() {
					if p.Outcome == policy.PodDenied || p.Outcome == policy.PodFull {
						h.element("span", v.outcome(p.Outcome), class("tag bad"))
						return
					}
					h.text(v.outcome(p.Outcome))
				})
				h.cell("Images", func() {
					for _, image := range p.Images {
						h.raw(`<div class="image">`)
						h.image(image)
						h.raw("</div>")
					}
				})
			})
		}
	})
	if v.PodsOmitted > 0 {
		h.raw(`<p class="quiet">%s not named in the NodeDeath.</p>`, count(v.PodsOmitted, "more pod is", "more pods are"))
	}
}

// workloads groups neighbouring pods that have everything in common but their name.
func workloads(pods []podRow) (groups [][]podRow) {
	for _, p := range pods {
		if n := len(groups); n > 0 {
			if g := groups[n-1][0]; p.Owner != "" && g.Namespace == p.Namespace && g.Owner == p.Owner && g.Outcome == p.Outcome && slices.Equal(g.Images, p.Images) {
				groups[n-1] = append(groups[n-1], p)
				continue
			}
		}
		groups = append(groups, []podRow{p})
	}
	return groups
}

func (v deathView) outcome(what string) string {
	switch what {
	case policy.PodFailed:
		return "failed over"
	case policy.PodDeleted:
		return "failed over, deleted"
	case policy.PodGone:
		return "gone already"
	case policy.PodDenied:
		return "could not be failed: denied"
	case policy.PodFull:
		return "could not be failed: no room for annotations"
	case policy.PodMirror:
		return "static pod, annotated"
	case policy.PodLeft:
		return "left alone: finished before, or started after"
	}
	switch policy.Phase(v.Phase) {
	case policy.Held, policy.Pending, policy.Cleaning:
		return "nothing yet"
	}
	return "left alone"
}
