package page

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// deathView is the page of one death.
type deathView struct {
	deathRow
	NodeUID      string      `json:"nodeUID,omitempty"`
	Boot         string      `json:"boot,omitempty"`
	Source       string      `json:"source,omitempty"`
	Remedy       string      `json:"remedy,omitempty"`
	Decision     string      `json:"decision,omitempty"`
	Zone         string      `json:"zone,omitempty"`
	NodePool     string      `json:"nodePool,omitempty"`
	Culprit      *culprit    `json:"culprit,omitempty"`
	Suspects     []suspect   `json:"suspects,omitempty"`
	Timeline     []moment    `json:"timeline"`
	Conditions   []condition `json:"conditions"`
	Pods         []podRow    `json:"pods"`
	PodsOmitted  int         `json:"podsOmitted,omitempty"`
	Trace        []string    `json:"trace"`
	TraceOmitted int         `json:"traceOmitted,omitempty"`
	Guilty       int         `json:"guiltyLine"` // index into Trace, -1 if no line names the function
	Others       int         `json:"otherDeaths"`

	owner string
}

type culprit struct {
	Comm      string `json:"comm"`
	PID       int    `json:"pid"`
	CPU       int    `json:"cpu"`
	Cgroup    string `json:"cgroup,omitempty"`
	Pod       string `json:"pod,omitempty"`
	Bystander bool   `json:"bystander,omitempty"`
}

type suspect struct {
	Name   string   `json:"name"`
	Rule   string   `json:"rule"`
	Why    string   `json:"why"`
	Deaths []string `json:"deaths"`
}

type condition struct {
	Type    string    `json:"type"`
	Status  string    `json:"status"`
	Reason  string    `json:"reason"`
	Message string    `json:"message,omitempty"`
	Time    time.Time `json:"time,omitzero"`
}

type podRow struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	Owner     string   `json:"owner,omitempty"`
	Images    []string `json:"images,omitempty"`
	Outcome   string   `json:"outcome,omitempty"`
}

func (p *Page) death(r *http.Request, now time.Time) (view, error) {
	all, err := p.Source.Deaths(r.Context())
	if err != nil {
		return nil, err
	}
	name := r.PathValue("name")
	if !slices.ContainsFunc(all, func(d policy.Death) bool { return d.Name == name }) {
		return nil, ErrNotFound // the API server is not asked for made-up names
	}
	d, err := p.Source.Death(r.Context(), name)
	if err != nil {
		return nil, err
	}
	v := viewOf(&d)
	for i := range all {
		if o := &all[i]; o.Name != d.Name && d.Fingerprint != "" && o.Fingerprint == d.Fingerprint && o.Phase != policy.Refused {
			v.Others++
		}
	}
	return v, nil
}

func viewOf(d *policy.Death) deathView {
	v := deathView{
		deathRow: rowOf(d), NodeUID: d.NodeUID, Boot: d.Boot, Remedy: d.Remedy, Decision: d.Decision, Zone: d.NodeInfo.Zone,
		NodePool: d.NodeInfo.NodePool, Timeline: timeline(d), Conditions: []condition{}, Pods: podsOf(d), PodsOmitted: d.PodsOmitted,
		Trace: append([]string{}, d.Trace...), TraceOmitted: d.TraceOmitted, Guilty: guilty(d), owner: d.Owner,
	}
	if d.Source.IsValid() {
		v.Source = d.Source.String()
	}
	if c := d.Culprit; c != nil {
		v.Culprit = &culprit{Comm: c.Comm, PID: c.PID, CPU: c.CPU, Cgroup: c.Cgroup, Bystander: c.Bystander, Pod: c.PodUID}
		if c.Pod != "" {
			v.Culprit.Pod = c.Namespace + "/" + c.Pod
		}
		for _, pod := range d.Pods {
			if pod.UID != "" && pod.UID == c.PodUID {
				v.Culprit.Pod = pod.Namespace + "/" + pod.Name
			}
		}
	}
	for _, s := range d.Suspects {
		v.Suspects = append(v.Suspects, suspect{s.String(), string(s.Rule), s.Why(), s.Deaths})
	}
	for _, c := range d.Conditions {
		v.Conditions = append(v.Conditions, condition{c.Type, string(c.Status), c.Reason, c.Message, c.Time})
	}
	return v
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

// guilty is the index of the line of the trace that names the function in which the kernel died, as the headline has it: its
// RIP or pc line, else the first that has it. It is -1 if there is none.
func guilty(d *policy.Death) int {
	words := strings.Fields(d.Reason)
	for _, word := range slices.Backward(words) {
		frame := strings.Trim(word, "():,") + "+0x"
		if len(frame) < len("ab+0x") {
			continue
		}
		first := -1
		for i, line := range d.Trace {
			if !strings.Contains(line, frame) {
				continue
			}
			if strings.Contains(line, "RIP: ") || strings.Contains(line, "pc : ") {
				return i
			}
			if first < 0 {
				first = i
			}
		}
		if first >= 0 {
			return first
		}
	}
	return -1
}

func (v deathView) title() string { return v.Node + ": " + v.Reason }

func (v deathView) render(h *html) {
	h.raw(`<p class="crumb"><a href="/deaths">Deaths</a></p><h1>`)
	h.text(v.Reason)
	h.raw(`</h1><p class="lead">`)
	state(h, v.Phase)
	h.raw(" Node <strong>")
	h.host(v.Node)
	if v.Phase == string(policy.Refused) {
		h.raw("</strong> was said to have died ")
	} else {
		h.raw("</strong> died ")
	}
	h.at(v.Time)
	h.raw("</p>")
	v.renderAdvice(h)
	v.renderFacts(h)
	renderTimeline(h, v.Timeline)
	v.renderPods(h)
	v.renderTrace(h)
	v.renderConditions(h)
	h.raw(`<h2>The object</h2>`)
	h.command("kubectl get nodedeath", v.Name, "-o yaml")
}

// renderAdvice says what was decided and what a person can do.
func (v deathView) renderAdvice(h *html) {
	if v.Decision != "" {
		h.raw(`<p class="decision">`)
		h.text(v.Decision)
		h.raw(".</p>")
	}
	notice := func(kind literal, strong literal, text string) {
		h.raw(`<div class="notice `)
		h.raw(kind)
		h.raw(`"><p><strong>`)
		h.raw(strong)
		h.raw("</strong> ")
		h.text(text)
		h.raw("</p></div>")
	}
	switch policy.Phase(v.Phase) {
	case policy.Held:
		h.raw(`<div class="notice bad"><p><strong>It waits for you:</strong> too many nodes died at once. If it is true, release it:</p>`)
		h.command("kubectl annotate nodedeath", v.Name, "lastgasp.dev/release=true")
		h.raw("</div>")
	case policy.Incomplete:
		notice("bad", "Some pods could not be failed.", "They are listed first below, and the condition PodsFailed says why. Delete them yourself: kubectl delete pod --force.")
	case policy.Refused:
		notice("", "Refused:", "no pod was failed or deleted. Either a witness contradicted it, or it came from no node of this cluster.")
	case policy.Recorded:
		if slices.ContainsFunc(v.Conditions, func(c condition) bool { return c.Reason == policy.NodeExcluded || c.Reason == policy.ControlPlane }) {
			notice("", "The node is left out:", "it died, but was not fenced, and its pods were not failed.")
		}
	case policy.Pending:
		notice("warn", "Nothing was failed yet.", "A witness is awaited: the node's Lease, its Ready condition, or a new boot.")
	}
	if v.Remedy != "" {
		notice("", "Remedy:", v.Remedy)
	}
	for _, s := range v.Suspects {
		h.raw(`<div class="notice warn"><p><strong>Suspect:</strong> `)
		h.text(s.Why)
		h.raw(".</p><p>")
		for i, name := range s.Deaths {
			if i > 0 {
				h.raw(" → ")
			}
			if name == v.Name {
				h.raw("this death")
			} else {
				h.element("a", name, href("/deaths/", name, nil))
			}
		}
		h.raw("</p></div>")
	}
}

func (v deathView) renderFacts(h *html) {
	h.raw(`<dl class="facts">`)
	fact := func(name literal, value func()) {
		h.raw("<div><dt>")
		h.raw(name)
		h.raw("</dt><dd>")
		value()
		h.raw("</dd></div>")
	}
	plain := func(name literal, value string) {
		if value != "" {
			fact(name, func() { h.text(value) })
		}
	}
	plain("Cause", v.Cause)
	if v.Fingerprint != "" {
		fact("Bug", func() {
			h.element("code", v.Fingerprint)
			h.raw(" ")
			if v.Others > 0 {
				h.element("a", count(v.Others, "other death", "other deaths"), href("/deaths", "", sameBug(v.Fingerprint)))
			} else {
				h.raw(`<span class="quiet">the only death on record</span>`)
			}
		})
	}
	if c := v.Culprit; c != nil {
		fact("Running task", func() {
			h.element("code", c.Comm)
			h.text(", pid " + strconv.Itoa(c.PID))
			if c.CPU >= 0 {
				h.text(", cpu " + strconv.Itoa(c.CPU))
			}
			if c.Pod != "" {
				h.text(", pod " + c.Pod)
			}
			if c.Bystander {
				h.raw(`<span class="quiet">; a bystander, the kernel died in an interrupt</span>`)
			}
			if c.Cgroup != "" {
				h.raw(`<div class="quiet cut">`)
				h.text(c.Cgroup)
				h.raw("</div>")
			}
		})
	}
	fact("Known from", func() {
		if v.unexplained() {
			h.raw("nothing but that the boot ended")
			return
		}
		h.text(strings.Join(v.Evidence, ", ") + ", " + believed(v.Authority))
	})
	plain("Kernel", v.Kernel)
	plain("Image", v.Image)
	plain("Instance", v.Instance)
	plain("Machine", strings.Join(slices.DeleteFunc([]string{v.Type, v.Zone}, func(s string) bool { return s == "" }), ", "))
	plain("Node pool", v.NodePool)
	plain("Boot", v.Boot)
	plain("Heard from", v.Source)
	plain("Replica at work", v.owner)
	h.raw("</dl>")
}

// believed says what an authority proves.
func believed(authority string) string {
	switch authority {
	case "pinned":
		return "with the secret that the node pinned"
	case "claimed":
		return "with the secret that was claimed for the boot"
	case "boot":
		return "with the Node's boot id"
	case "kernel":
		return "from the node's address"
	case "cloud":
		return "by the cloud's word"
	}
	return "by text that anybody could have sent"
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
					h.raw(`<span class="quiet">`)
					h.text(p.Namespace)
					h.raw("/</span>")
					h.text(cmp.Or(p.Owner, "no owner"))
				})
				h.cell("Pods", func() {
					for i, pod := range group {
						if i == few && len(group) > few+1 {
							h.raw("<details><summary>")
							h.number(len(group) - few)
							h.raw(" more</summary>")
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
						h.open("div", class("image"))
						h.image(image)
						h.end("div")
					}
				})
			})
		}
	})
	if v.PodsOmitted > 0 {
		h.raw(`<p class="quiet">`)
		h.text(count(v.PodsOmitted, "more pod is", "more pods are") + " not named in the NodeDeath.")
		h.raw("</p>")
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

// outcome says what became of a pod.
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

func (v deathView) renderTrace(h *html) {
	h.raw(`<h2 id="trace">What the kernel said</h2>`)
	if len(v.Trace) == 0 {
		h.raw(`<p class="empty">Nothing was heard of this kernel.</p>`)
		return
	}
	if v.Guilty >= 0 {
		h.raw(`<p><a href="#guilty">Go to the function in which it died</a></p>`)
	}
	h.raw(`<pre class="trace" tabindex="0" role="region" aria-label="Kernel log">`)
	for i, line := range v.Trace {
		if i == v.Guilty {
			h.raw(`<mark id="guilty"><span class="hidden">Here it died: </span>`)
			h.text(line)
			h.raw("</mark>\n")
			continue
		}
		h.text(line)
		h.raw("\n")
	}
	h.raw("</pre>")
	if v.TraceOmitted > 0 {
		h.raw(`<p class="quiet">`)
		h.text(count(v.TraceOmitted, "line was", "lines were") + " left out.")
		h.raw("</p>")
	}
}

func (v deathView) renderConditions(h *html) {
	if len(v.Conditions) == 0 {
		return
	}
	h.raw("<h2>Conditions</h2>")
	h.table("Conditions of the NodeDeath", []literal{"Condition", "Status", "Reason", "Message", "Since"}, func() {
		for _, c := range v.Conditions {
			h.row(func() {
				h.textCell("Condition", c.Type)
				h.textCell("Status", c.Status)
				h.textCell("Reason", c.Reason)
				h.textCell("Message", c.Message)
				h.cell("Since", func() { h.at(c.Time) })
			})
		}
	})
}

// moment is one point of a death's timeline.
type moment struct {
	Name string    `json:"name"`
	Time time.Time `json:"time"`
	Note string    `json:"note,omitempty"`
	Done bool      `json:"done"`
}

// timeline is what happened, in order, from the death on.
func timeline(d *policy.Death) []moment {
	first := moment{"died", d.Time, "as far as it is known afterwards", true}
	switch {
	case slices.Contains(d.Evidence, policy.ByNetconsole):
		first.Note = "the first fatal record arrived"
	case slices.Contains(d.Evidence, policy.ByConsole):
		first.Note = "as EC2's console output has it"
	}
	if d.Phase == policy.Refused {
		first.Name = "said to have died"
	}
	out := []moment{first}
	for _, s := range d.Steps {
		if !s.Time.IsZero() {
			out = append(out, moment{s.Name, s.Time, s.Note, s.Done})
		}
	}
	if !d.Completed.IsZero() {
		out = append(out, moment{"complete", d.Completed, "", true})
	}
	slices.SortStableFunc(out[1:], func(a, b moment) int { return a.Time.Compare(b.Time) })
	return out
}

// renderTimeline draws the timeline and lists it. The drawing says nothing that the list does not.
func renderTimeline(h *html, moments []moment) {
	h.raw("<h2>What happened when</h2>")
	drawTimeline(h, moments)
	h.raw(`<ol class="timeline">`)
	for i, m := range moments {
		h.raw("<li><span>")
		if i == 0 {
			h.open("time", attr{"datetime", m.Time.UTC().Format(time.RFC3339Nano)})
			h.text(m.Time.UTC().Format("15:04:05.000"))
			h.raw("</time>")
		} else {
			h.open("time", attr{"datetime", m.Time.UTC().Format(time.RFC3339Nano)}, attr{"title", stamp(m.Time)})
			h.text("+" + span(max(m.Time.Sub(moments[0].Time), 0)))
			h.raw("</time>")
		}
		h.raw("</span> <strong>")
		h.text(m.Name)
		h.raw("</strong> ")
		h.text(m.Note)
		if !m.Done {
			h.raw(` <span class="tag warn">under way</span>`)
		}
		h.raw("</li>")
	}
	h.raw("</ol>")
}

func coordinate(x float64) string { return strconv.FormatFloat(x, 'f', 1, 64) }
