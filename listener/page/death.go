package page

import (
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

// guilty is the index of the line of the trace that names the headline's function: its RIP or pc line, else the first that
// names it. It is -1 if there is none.
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
	h.raw(`<p class="crumb"><a href="/deaths">Deaths</a></p><h1>%s</h1><p class="lead">`, v.Reason)
	state(h, v.Phase)
	h.raw(" Node <strong>")
	h.host(v.Node)
	died := literal("died")
	if v.Phase == string(policy.Refused) {
		died = "was said to have died"
	}
	h.raw("</strong> " + died + " ")
	h.at(v.Time)
	h.raw("</p>")
	v.renderAdvice(h)
	v.renderFacts(h)
	renderTimeline(h, v.Timeline)
	v.renderPods(h)
	v.renderTrace(h)
	v.renderConditions(h)
	h.raw("<h2>The object</h2>")
	h.command("kubectl get nodedeath", v.Name, "-o yaml")
}

// renderAdvice says what was decided and what a person can do.
func (v deathView) renderAdvice(h *html) {
	if v.Decision != "" {
		h.raw(`<p class="decision">%s.</p>`, v.Decision)
	}
	notice := func(kind, strong literal, text string) {
		h.raw(`<div class="notice `+kind+`"><p><strong>`+strong+"</strong> %s</p></div>", text)
	}
	switch policy.Phase(v.Phase) {
	case policy.Held:
		h.raw(`<div class="notice bad"><p><strong>It waits for you:</strong> too many nodes died at once. If it is true, release it:</p>`)
		h.command("kubectl annotate nodedeath", v.Name, "lastgasp.dev/release=true")
		h.raw("</div>")
	case policy.Incomplete:
		notice("bad", "Some pods could not be failed.", "They are listed first below, and the condition PodsFailed says why. "+
			"Remove what is in the way, and the listener tries again while the node stays dead; or delete them: kubectl delete pod --force.")
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
		h.raw(`<div class="notice warn"><p><strong>Suspect:</strong> %s.</p><p>`, s.Why)
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
		h.raw("<div><dt>" + name + "</dt><dd>")
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
			h.raw("<code>%s</code> ", v.Fingerprint)
			if v.Others > 0 {
				h.element("a", count(v.Others, "other death", "other deaths"), href("/deaths", "", sameBug(v.Fingerprint)))
			} else {
				h.raw(`<span class="quiet">the only death on record</span>`)
			}
		})
	}
	if c := v.Culprit; c != nil {
		fact("Running task", func() {
			h.raw("<code>%s</code>, pid %s", c.Comm, strconv.Itoa(c.PID))
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
				h.raw(`<div class="quiet cut">%s</div>`, c.Cgroup)
			}
		})
	}
	fact("Known from", func() {
		if v.unexplained() {
			h.raw("nothing but the fact that the boot ended")
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
		return "according to the cloud"
	}
	return "by text that anybody could have sent"
}

func (v deathView) renderTrace(h *html) {
	h.raw(`<h2 id="trace">What the kernel said</h2>`)
	if len(v.Trace) == 0 {
		h.raw(`<p class="empty">Nothing was heard from this kernel.</p>`)
		return
	}
	if v.Guilty >= 0 {
		h.raw(`<p><a href="#guilty">Go to the function that it died in</a></p>`)
	}
	h.raw(`<pre class="trace" tabindex="0" role="region" aria-label="Kernel log">`)
	for i, line := range v.Trace {
		if i == v.Guilty {
			h.raw("<mark id=\"guilty\"><span class=\"hidden\">Here it died: </span>%s</mark>\n", line)
			continue
		}
		h.raw("%s\n", line)
	}
	h.raw("</pre>")
	if v.TraceOmitted > 0 {
		h.raw(`<p class="quiet">%s left out.</p>`, count(v.TraceOmitted, "line was", "lines were"))
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

// renderTimeline draws the timeline and lists it. The drawing says nothing that the list does not.
func renderTimeline(h *html, moments []moment) {
	h.raw("<h2>What happened when</h2>")
	drawTimeline(h, moments)
	h.raw(`<ol class="timeline">`)
	for i, m := range moments {
		exactly := m.Time.UTC().Format(time.RFC3339Nano)
		if i == 0 {
			h.raw(`<li><span><time datetime="%s">%s</time>`, exactly, m.Time.UTC().Format("15:04:05.000"))
		} else {
			h.raw(`<li><span><time datetime="%s" title="%s">+%s</time>`, exactly, stamp(m.Time), span(max(m.Time.Sub(moments[0].Time), 0)))
		}
		h.raw("</span> <strong>%s</strong> %s", m.Name, m.Note)
		if !m.Done {
			h.raw(` <span class="tag warn">under way</span>`)
		}
		h.raw("</li>")
	}
	h.raw("</ol>")
}

func coordinate(x float64) string { return strconv.FormatFloat(x, 'f', 1, 64) }
