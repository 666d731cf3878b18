package page

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

const asHTML, asJSON = "text/html,application/xhtml+xml,*/*;q=0.8", "application/json"

func TestPages(t *testing.T) {
	w := world{
		deaths: []policy.Death{died(1), died(2), died(3), died(30)},
		fleet: []Node{
			{Name: "ip-10-0-9-1", Cover: "covered", Kernel: "6.12.1", Created: now.Add(-10 * day)},
			{Name: "ip-10-0-9-2", Cover: "mute", Why: "its console level is 4", Kernel: "6.1.9", Created: now.Add(-2 * day)},
		},
	}
	held := died(4)
	held.Phase = policy.Held
	w.deaths = append(w.deaths, held)
	for _, tt := range []struct {
		name, path, accept string
		code               int
		want               []string
		not                []string
	}{
		{"bugs", "/", asHTML, 200, []string{"null pointer dereference in foo_write", "hard LOCKUP in bar_spin", "2 bugs, 5 deaths",
			"kubectl annotate nodedeath ip-10-0-0-4-b1 lastgasp.dev/release=true", "1</b> node would die unheard"}, []string{"Some pods could not be failed"}},
		{"bugs of a cause", "/?cause=HardLockup", asHTML, 200, []string{"1 bug, 2 deaths"}, []string{">null pointer dereference in foo_write<"}},
		{"bugs of a day", "/?range=24h", asHTML, 200, []string{"2 bugs, 4 deaths"}, nil},
		{"what became of a pod", "/?q=shop/cart-7d9f-0002", asHTML, 200, []string{"1 pod on dead nodes", `href="/deaths/ip-10-0-0-2-b1"`}, []string{"bar_spin</a>"}},
		{"by image", "/deaths?q=crunch:2&in=image", asHTML, 200, []string{"5 pods on dead nodes", "5 deaths"}, nil},
		{"by namespace", "/deaths?q=shop&in=namespace", asHTML, 200, []string{"5 pods on dead nodes"}, nil},
		{"by fingerprint", "/deaths?q=ba9876543210&in=fingerprint", asHTML, 200, []string{"2 deaths"}, []string{"foo_write"}},
		{"in vain", "/deaths?q=nobody", asHTML, 200, []string{"No death matches"}, nil},
		{"between dates", "/deaths?from=2026-11-20&to=2026-11-20", asHTML, 200, []string{"1 death<"}, nil},
		{"one death", "/deaths/ip-10-0-0-2-b1", asHTML, 200, []string{"<mark id=\"guilty\"><span class=\"hidden\">Here it died: </span>RIP: 0010:foo_write+0x12/0x40</mark>",
			"2 other deaths", "+40 ms", "shop/</span>ReplicaSet cart-7d9f", "<div>cart-7d9f-0002</div>"}, nil},
		{"a death there is not", "/deaths/x", asHTML, 404, []string{"There is no such death on record"}, nil},
		{"a name that is none", "/deaths/x%2Fstatus", asHTML, 404, []string{"There is no such death on record"}, nil},
		{"coverage", "/fleet", asHTML, 200, []string{"its console level is 4", "2 nodes"}, nil},
		{"coverage of one kind", "/fleet?cover=covered", asHTML, 200, []string{"1 node<"}, []string{"its console level is 4"}},
		{"trends", "/trends", asHTML, 200, []string{"500.00", "By kernel"}, nil},
		{"the style", "/page.css", asHTML, 200, []string{"prefers-color-scheme: dark"}, nil},
		{"what is not there", "/admin", asHTML, 404, []string{"There is no such page"}, nil},
		{"bugs as JSON", "/", asJSON, 200, []string{`"bugs":[{"fingerprint":"ba9876543210"`, `"nodes":{"covered":1,"mute":1,"silent":0`}, []string{"<html"}},
		{"a death as JSON", "/deaths/ip-10-0-0-2-b1", asJSON, 200, []string{`"guiltyLine":1`, `"pods":[{"namespace":"batch"`}, nil},
		{"a death there is not, as JSON", "/deaths/x", asJSON, 404, []string{`{"error":"There is no such death`}, nil},
		{"rates as JSON", "/trends", asJSON, 200, []string{`"byKernel":[{"name":"6.12.1","nodes":1,"nodeDays":10,"deaths":5,"heard":5,"deathsPer1000NodeDays":500}`}, nil},
		{"coverage as JSON", "/fleet", asJSON, 200, []string{`"nodes":[{"node":"ip-10-0-9-2","cover":"mute"`}, nil},
		{"a page beyond the last", "/deaths?page=9", asHTML, 200, []string{"5 deaths", "ip-10-0-0-30"}, nil},
		{"what the query does not say right", "/deaths?page=-3&range=1y&from=x&in=y", asHTML, 200, []string{"5 deaths"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, body, header := get(t, w, tt.path, tt.accept)
			if code != tt.code {
				t.Errorf("answered %d, want %d", code, tt.code)
			}
			checkBody(t, tt.path, body, tt.want, tt.not)
			csp := header.Get("Content-Security-Policy")
			if !strings.HasPrefix(csp, "default-src 'none'; style-src 'self';") || strings.Contains(csp, "script") ||
				header.Get("Referrer-Policy") != "no-referrer" || header.Get("X-Frame-Options") != "DENY" {
				t.Errorf("headers %v, want no script, no frame and no referrer", header)
			}
			if tt.accept == asJSON && !json.Valid([]byte(body)) {
				t.Errorf("no JSON: %s", body)
			}
		})
	}
}

func TestOnlyReading(t *testing.T) {
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
		for _, path := range []string{"/", "/deaths", "/deaths/x", "/fleet"} {
			out := httptest.NewRecorder()
			(&Page{Source: world{}}).Handler().ServeHTTP(out, httptest.NewRequest(method, path, nil))
			if out.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d, want %d", method, path, out.Code, http.StatusMethodNotAllowed)
			}
		}
	}
}

func TestNothingToShow(t *testing.T) {
	for path, want := range map[string]string{
		"/": "No death is on record.", "/deaths": "0 deaths", "/fleet": "0 nodes", "/trends": "How often do nodes die?",
	} {
		if code, body, _ := get(t, world{}, path, asHTML); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d, lacks %q:\n%s", path, code, want, body)
		}
	}
	code, body, _ := get(t, world{err: errors.New("list deaths: not synced")}, "/", asHTML)
	if code != 503 || !strings.Contains(body, "The deaths cannot be read now: list deaths: not synced. Try again in a few seconds.") {
		t.Errorf("%d %s", code, body)
	}
}

// Whoever has something to do finds it on the first page, and from there the deaths that it is about.
func TestWhatWaitsForAPerson(t *testing.T) {
	of := func(n int, p policy.Phase) policy.Death {
		d := died(n)
		d.Phase = p
		return d
	}
	w := world{deaths: []policy.Death{
		of(1, policy.Incomplete), of(2, policy.Cleaning), of(3, policy.Pending), of(4, policy.Cleaned), of(5, policy.Recorded), of(25, policy.Incomplete),
	}}
	for _, tt := range []struct {
		name, path string
		want, not  []string
	}{
		{"the first page", "/", []string{
			"Some pods could not be failed.", `href="/deaths?phase=Incomplete&amp;range=24h">1 death of the last 24 hours</a>`,
			`href="/deaths?phase=under+way"><b>2</b> being cleaned up`,
		}, []string{"Too many nodes died"}},
		{"those that are incomplete", "/deaths?phase=Incomplete&range=24h", []string{"1 death<", "ip-10-0-0-1<"}, []string{"ip-10-0-0-25<"}},
		{"those under way", "/deaths?phase=under+way", []string{"2 deaths<", "ip-10-0-0-2<", "ip-10-0-0-3<", `<option value="under way" selected="">`}, nil},
		{"a state that there is not", "/deaths?phase=Odd", []string{"0 deaths<", `<option value="Odd" selected="">`}, nil},
		{"what the states mean", "/deaths", []string{"6 deaths<", "a person must remove what is in the way, or delete them", "it was back or gone already", "the node lives, or is not of this cluster"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, body, _ := get(t, w, tt.path, asHTML)
			checkBody(t, tt.path, body, tt.want, tt.not)
		})
	}
}

// Every text that a kernel, a pod or a reader has a say in, on every page: no markup, no control byte, no change of direction.
func TestHostileTexts(t *testing.T) {
	const evil = "\"'><script>alert(1)</script>\x1b[2J\u202e\x00&lt;"
	d := died(2)
	d.Node, d.Instance, d.Boot, d.Cause, d.Reason, d.Fingerprint, d.Remedy, d.Release = evil, evil, evil, evil, evil, evil, evil, evil
	d.Decision, d.Owner = evil, evil
	d.NodeInfo = policy.NodeInfo{InstanceType: evil, Zone: evil, NodePool: evil, Image: evil}
	d.Culprit = &policy.Culprit{Comm: evil, Cgroup: evil, Pod: evil, Namespace: evil}
	d.Pods = []policy.DeadPod{{Namespace: evil, Name: evil, OwnerKind: evil, OwnerName: evil, Images: []int{0}}}
	d.Images, d.Trace = []string{evil}, []string{evil}
	d.Evidence = []policy.Evidence{evil}
	d.Steps = []policy.StepStatus{{Name: evil, Note: evil, Time: now}}
	d.Conditions = []policy.Condition{{Type: evil, Status: evil, Reason: evil, Message: evil}}
	d.Outcomes = []policy.Outcome{{What: evil, Pods: []int{0, 99, -1}}}
	d.Suspects = []policy.Suspect{{Rule: policy.ByImage, Image: evil, Deaths: []string{evil, d.Name}}}
	w := world{deaths: []policy.Death{d}, fleet: []Node{{Name: evil, Address: evil, Cover: evil, Why: evil, Kernel: evil, Image: evil, InstanceType: evil, Created: now.Add(-day)}}}
	query := "%22%3E%3Cscript%3Ealert(1)%3C/script%3E%1b%E2%80%AE"
	for _, path := range []string{
		"/", "/deaths", "/deaths/" + d.Name, "/fleet", "/trends", "/?q=" + query, "/deaths?cause=" + query + "&phase=" + query, "/fleet?q=" + query,
		"/" + query, "/deaths/" + query,
	} {
		_, body, _ := get(t, w, path, asHTML)
		if strings.Contains(body, "<script") || strings.ContainsAny(body, "\x00\x1b\u202e") || strings.Contains(body, "\"'>") {
			t.Errorf("%s lets text through:\n%s", path, body)
		}
	}
}

// What is markup stands in the source as a constant: nothing is ever converted to it.
func TestMarkupIsConstant(t *testing.T) {
	files := token.NewFileSet()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(files, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			seen++
			if to, ok := call.Fun.(*ast.Ident); ok && to.Name == "literal" {
				if arg, ok := call.Args[0].(*ast.BasicLit); !ok || arg.Kind != token.STRING {
					t.Errorf("%s: a value is converted to markup; write it with text", files.Position(call.Pos()))
				}
			}
			of, ok := call.Fun.(*ast.SelectorExpr)
			if ok && strings.HasPrefix(of.Sel.Name, "Write") && name != "html.go" && name != "page.go" {
				t.Errorf("%s: text is written without escaping; write it with text", files.Position(call.Pos()))
			}
			if ok && of.Sel.Name == "raw" {
				verbs := 0
				ast.Inspect(call.Args[0], func(n ast.Node) bool {
					if part, ok := n.(*ast.BasicLit); ok {
						verbs += strings.Count(part.Value, "%s")
					}
					return true
				})
				if texts := len(call.Args) - 1; verbs != texts {
					t.Errorf("%s: %d texts for %d times %%s", files.Position(call.Pos()), texts, verbs)
				}
			}
			return true
		})
	}
	if seen < 100 {
		t.Fatalf("saw %d calls: the walk is broken", seen)
	}
}

func TestGuilty(t *testing.T) {
	trace := []string{"Call Trace:", " foo+0x1/0x2", "RIP: 0010:bar+0x3/0x4", " bar+0x9/0x9"}
	for _, tt := range []struct {
		name, reason string
		want         int
	}{
		{"the RIP line", "general protection fault in bar", 2},
		{"a frame, where no register names it", "hung task in foo", 1},
		{"behind a helper", "bad access (memcpy) in bar", 2},
		{"a function that the trace does not have", "general protection fault in baz", -1},
		{"no function", "out of memory", -1},
	} {
		if got := guilty(&policy.Death{Reason: tt.reason, Trace: trace}); got != tt.want {
			t.Errorf("%s: line %d, want %d", tt.name, got, tt.want)
		}
	}
}

// A node that is left out died all the same: its death counts, and its page says why nothing followed.
func TestDeathsOfNodesThatAreLeftOut(t *testing.T) {
	d := died(6)
	d.Phase, d.Decision = policy.Recorded, "pinned authority; node ip-10-0-0-6 belongs to the control plane, so nothing follows"
	d.Conditions = []policy.Condition{{Type: policy.Complete, Status: policy.True, Reason: policy.ControlPlane, Message: d.Decision}}
	w := world{deaths: []policy.Death{died(1), d}}
	for _, tt := range []struct{ path, want string }{
		{"/", "2 deaths"},
		{"/deaths/" + d.Name, "<strong>The node is left out:</strong> it died, but was not fenced, and its pods were not failed.</p>"},
		{"/deaths/" + d.Name, `<p class="decision">pinned authority; node ip-10-0-0-6 belongs to the control plane, so nothing follows.</p>`},
		{"/deaths/" + d.Name, "</strong> died "},
	} {
		if _, body, _ := get(t, w, tt.path, asHTML); !strings.Contains(body, tt.want) {
			t.Errorf("%s lacks %q:\n%s", tt.path, tt.want, body)
		}
	}
	other := died(1)
	other.Phase = policy.Recorded
	if _, body, _ := get(t, world{deaths: []policy.Death{other}}, "/deaths/"+other.Name, asHTML); strings.Contains(body, "left out:") {
		t.Errorf("every recorded death is said to be left out:\n%s", body)
	}
}

func TestGroups(t *testing.T) {
	refused := died(6)
	refused.Phase = policy.Refused
	nameless := died(2)
	nameless.Fingerprint, nameless.Cause, nameless.Reason = "", "PowerLoss", "the power was cut"
	all := []policy.Death{died(1), died(3), died(101), nameless, refused}
	var got []string
	for _, b := range groups(all, []*policy.Death{&all[0], &all[1], &all[2], &all[3]}, now) {
		got = append(got, fmt.Sprintf("%s: %d on %v, new %v, first %s", b.Reason, b.Deaths, b.Nodes, b.New, age(now, b.First)))
	}
	want := []string{
		"hard LOCKUP in bar_spin: 3 on [ip-10-0-0-1 ip-10-0-0-3 ip-10-0-0-101], new false, first 4 days ago",
		"the power was cut: 1 on [ip-10-0-0-2], new true, first 2 h ago",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// checkBody reports what the page at path lacks of want, and has of not.
func checkBody(t *testing.T, path, body string, want, not []string) {
	t.Helper()
	for _, s := range want {
		if !strings.Contains(body, s) {
			t.Errorf("%s lacks %q:\n%s", path, s, body)
		}
	}
	for _, s := range not {
		if strings.Contains(body, s) {
			t.Errorf("%s has %q:\n%s", path, s, body)
		}
	}
}

// A refused death is on record, but nobody died: no page says so.
func TestRefusedDeaths(t *testing.T) {
	refused := died(6)
	refused.Phase, refused.Decision = policy.Refused, "the kubelet of node ip-10-0-0-6 renewed its Lease 4s after the panic"
	w := world{deaths: []policy.Death{died(1), refused}}
	for _, tt := range []struct {
		path      string
		want, not []string
	}{
		{"/", []string{"1 bug, 1 death<"}, []string{"2 deaths"}},
		{"/deaths?q=cart-7d9f-0006", []string{"1 death<"}, []string{"on dead nodes"}},
		{"/deaths?phase=Refused", []string{"1 death<"}, nil},
		{"/deaths/" + refused.Name, []string{"was said to have died", "Refused:</strong> no pod was failed or deleted."}, []string{"</strong> died ", "<strong>died</strong>"}},
	} {
		_, body, _ := get(t, w, tt.path, asHTML)
		checkBody(t, tt.path, body, tt.want, tt.not)
	}
}

// What is known afterwards arrived with no fatal record, and on nobody's authority if nothing is known.
func TestDeathsKnownAfterwards(t *testing.T) {
	told, silent := died(2), died(4)
	told.Evidence, told.Phase = []policy.Evidence{policy.ByPstore}, policy.Recorded
	silent.Evidence, silent.Phase, silent.Authority, silent.Cause = []policy.Evidence{policy.ByNothing}, policy.Recorded, detect.Text, "Unexplained"
	silent.Trace, silent.Suspects = nil, nil
	w := world{deaths: []policy.Death{told, silent}}
	for _, tt := range []struct {
		path      string
		want, not []string
	}{
		{"/deaths/" + told.Name, []string{"pstore, with the secret that the node pinned", "as far as it is known afterwards"}, []string{"the first fatal record"}},
		{"/deaths/" + silent.Name, []string{"nothing but the fact that the boot ended"}, []string{"the first fatal record", "anybody could have sent"}},
		{"/deaths", []string{"<span class=\"quiet\">none</span>"}, []string{"none, text"}},
	} {
		_, body, _ := get(t, w, tt.path, asHTML)
		checkBody(t, tt.path, body, tt.want, tt.not)
	}
}

// A stranger is heard; it is nobody's node.
func TestStrangersAreNotUnheard(t *testing.T) {
	w := world{fleet: []Node{{Name: "a", Cover: "covered"}, {Address: "10.0.0.9", Cover: "stranger"}}}
	if _, body, _ := get(t, w, "/", asHTML); !strings.Contains(body, "<b>0</b> nodes would die unheard") {
		t.Errorf("a stranger counts as unheard:\n%s", body)
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ms", 40 * time.Millisecond: "40 ms", 3 * time.Second: "3 s", 119 * time.Second: "119 s", 2 * time.Minute: "2 min",
		119 * time.Minute: "119 min", 2 * time.Hour: "2 h", 47 * time.Hour: "47 h", 48 * time.Hour: "2 days",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

// BenchmarkList serves the first page and a search among 10,000 deaths of 30 pods each. heap-MiB is what the deaths take.
func BenchmarkList(b *testing.B) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	w := world{}
	for i := range 10_000 {
		d := died(i)
		d.Name, d.Fingerprint = fmt.Sprintf("node-%d-b1", i), fmt.Sprintf("%012x", i%200)
		d.Pods = nil
		for j := range 30 {
			d.Pods = append(d.Pods, policy.DeadPod{
				Namespace: "shop", Name: fmt.Sprintf("cart-7d9f8c6b5-%05x", i*30+j), OwnerKind: "ReplicaSet", OwnerName: "cart-7d9f8c6b5", Images: []int{0, 1},
			})
		}
		d.Packed = policy.PackPods(d.Pods, d.Images)
		d.Pods, d.Images, d.Trace = nil, nil, nil
		w.deaths = append(w.deaths, d)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	p := (&Page{Source: w, Now: func() time.Time { return now }}).Handler()
	for _, path := range []string{"/", "/deaths", "/?q=cart-7d9f8c6b5-0abc1", "/?q=shop&in=namespace", "/trends"} {
		b.Run(path, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				out := httptest.NewRecorder()
				p.ServeHTTP(out, httptest.NewRequest(http.MethodGet, path, nil))
				if out.Code != http.StatusOK {
					b.Fatal(out.Code)
				}
			}
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "heap-MiB")
		})
	}
}

// However close moments are, the names that are written do not touch each other, and those that are far apart all stand there.
func TestNamesInTheTimeline(t *testing.T) {
	names := []string{"said to have died", "fence", "list", "fail", "events", "condition", "detach", "delete", "node", "complete"}
	written := regexp.MustCompile(`<text class="step" x="([0-9.]+)" y="([0-9.]+)">([^<]*)</text>`)
	for _, tt := range []struct {
		name  string
		apart time.Duration
		want  int // names at least
	}{
		{"all at once", 0, 8},
		{"milliseconds apart", 5 * time.Millisecond, 8},
		{"growing apart", -1, len(names)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var moments []moment
			at := now
			for i, name := range names {
				moments = append(moments, moment{Name: name, Time: at, Done: true})
				if tt.apart < 0 {
					at = now.Add(40 * time.Millisecond << i)
				} else {
					at = at.Add(tt.apart)
				}
			}
			h := new(html)
			drawTimeline(h, moments)
			ends := map[string]float64{}
			found := written.FindAllStringSubmatch(h.String(), -1)
			if len(found) < tt.want {
				t.Errorf("%d names of %d are written, want %d", len(found), len(names), tt.want)
			}
			for _, m := range found {
				x, err := strconv.ParseFloat(m[1], 64)
				if err != nil {
					t.Fatal(err)
				}
				half := float64(len(m[3])) * letter / 2
				if x-half < ends[m[2]] || x-half < 0 || x+half > drawingWidth {
					t.Errorf("%s, in the row at %s, is at %.1f to %.1f; the one before it ends at %.1f", m[3], m[2], x-half, x+half, ends[m[2]])
				}
				ends[m[2]] = x + half
			}
		})
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int]string{0: "0", 1000: "1000", 9999: "9999", 10000: "10,000", 1234567: "1,234,567"} {
		if got := grouped(n); got != want {
			t.Errorf("%d is written %s, want %s", n, got, want)
		}
	}
}
