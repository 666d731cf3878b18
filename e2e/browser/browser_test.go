package browser

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/listener/page"
)

// forBrowser bounds each thing that is done in the browser, on a machine that does much else.
const forBrowser = 2 * time.Minute

// browser is a window of Chromium that looks at a Page.
type browser struct {
	t   *testing.T
	ctx context.Context
	url string
}

// open starts Chromium on a Page with n deaths.
func open(t *testing.T, n int) *browser {
	t.Helper()
	return openOn(t, newWorld(t, n))
}

// openOn starts Chromium on a Page of a world.
func openOn(t *testing.T, w page.Source) *browser {
	t.Helper()
	if err := lab.InstallPackages(t.Context(), t, "chromium", "fonts-dejavu-core"); err != nil {
		t.Fatal(err)
	}
	return start(t, serve(t, w))
}

// serve serves a Page of a world until the test ends, and returns its URL.
func serve(t *testing.T, w page.Source) string {
	server := httptest.NewServer((&page.Page{Source: w, Cluster: "prod-1", Version: "v0.1.0", Now: func() time.Time { return noon }}).Handler())
	t.Cleanup(server.Close)
	return server.URL
}

// start starts Chromium, which is to look at the page at url.
func start(t *testing.T, url string, more ...chromedp.ExecAllocatorOption) *browser {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.ExecPath("/usr/bin/chromium"),
		chromedp.WSURLReadTimeout(forBrowser), chromedp.Flag("disable-dev-shm-usage", true))
	allocator, stop := chromedp.NewExecAllocator(context.Background(), append(options, more...)...)
	t.Cleanup(stop)
	ctx, stop := chromedp.NewContext(allocator)
	t.Cleanup(stop)
	b := &browser{t, ctx, url}
	if err := chromedp.Run(ctx); err != nil { // its time must not be bounded: the browser would end with it
		t.Fatalf("start chromium: %v", err)
	}
	return b
}

// do runs actions in the browser, one after the other. An action that meets a page which is just being replaced had no effect, and is
// run again.
func (b *browser) do(actions ...chromedp.Action) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, forBrowser)
	defer cancel()
	for _, action := range actions {
		err := chromedp.Run(ctx, action)
		for ; replaced(err) && ctx.Err() == nil; err = chromedp.Run(ctx, action) {
			time.Sleep(50 * time.Millisecond)
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

// replaced reports whether an error of the browser says that what was acted on belongs to a page that is gone.
func replaced(err error) bool {
	const serverError = -32000 // "No node with given id found", "Could not find node with given id", "Cannot find context with specified id"
	var e *cdproto.Error
	return errors.As(err, &e) && e.Code == serverError
}

// look sets how large the window is and whether its user prefers dark.
func (b *browser) look(width int64, dark bool) {
	b.t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	b.do(emulation.SetDeviceMetricsOverride(width, 900, 1, false),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}))
}

// see waits until the page has a text, and fails with what it has if it never does.
func (b *browser) see(texts ...string) {
	b.t.Helper()
	var have string
	for deadline := time.Now().Add(forBrowser); ; time.Sleep(50 * time.Millisecond) {
		b.do(chromedp.Text("body", &have, chromedp.ByQuery))
		missing := ""
		for _, text := range texts {
			if !strings.Contains(have, text) {
				missing = text
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("the page lacks %q:\n%s", missing, have)
		}
	}
}

// path waits until the browser shows an address of the page, or one that goes on after the "/", "?", "=" or "&" at the end of want.
func (b *browser) path(want string) {
	b.t.Helper()
	var have string
	for deadline := time.Now().Add(forBrowser); ; time.Sleep(50 * time.Millisecond) {
		b.do(chromedp.Location(&have))
		have = strings.TrimPrefix(have, b.url)
		if have == want || strings.HasPrefix(have, want) && strings.ContainsAny(want[len(want)-1:], "/?=&") {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("the browser is at %s, want %s", have, want)
		}
	}
}

// focus is the text or the name of what the keyboard acts on.
func (b *browser) focus() (on string) {
	b.t.Helper()
	b.do(chromedp.Evaluate(`(e => e.id || e.innerText || e.tagName)(document.activeElement)`, &on))
	return on
}

// awaitFocus waits until the keyboard acts on what is wanted: a link to another place on the page is followed some moments later.
func (b *browser) awaitFocus(want, what string) {
	b.t.Helper()
	for deadline := time.Now().Add(forBrowser); ; time.Sleep(50 * time.Millisecond) {
		on := b.focus()
		if on == want {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s leads to %q, want %q", what, on, want)
		}
	}
}

// tab presses Tab until the keyboard acts on what is wanted.
func (b *browser) tab(want string) {
	b.t.Helper()
	var on []string
	for range 40 {
		b.do(chromedp.KeyEvent(kb.Tab))
		now := b.focus()
		if now == want {
			return
		}
		on = append(on, now)
	}
	b.t.Fatalf("Tab never comes to %q, but to %q", want, on)
}

// TestFindAPod is what a person does who asks what became of a pod.
func TestFindAPod(t *testing.T) {
	b := open(t, 200)
	b.look(1280, false)
	b.do(chromedp.Navigate(b.url))
	b.see("What kills our kernels", "held for a person")
	b.do(chromedp.SendKeys("#q", "batch/nightly-report-00044"+kb.Enter, chromedp.ByQuery)) // of the death with a suspect
	b.path("/?q=")
	b.see("1 pod on dead nodes", "nightly-report-00044")
	b.do(chromedp.Click(`td[data-column="Died with"] a`, chromedp.ByQuery))
	b.path("/deaths/")
	b.see("nightly-report-00044", "Workload", "What happened when", "What the kernel said", "Suspect:")
	var marks int
	b.do(chromedp.Evaluate(`document.querySelectorAll("mark#guilty").length`, &marks))
	if marks != 1 {
		t.Errorf("%d frames are marked as guilty, want 1", marks)
	}
	b.do(chromedp.Click(`a[href^="/deaths?"]`, chromedp.ByQuery))
	b.path("/deaths?in=fingerprint&q=")
	b.see("Deaths, latest first")
}

// TestFilter is what a person does who wants to see one kind of death of the last days.
func TestFilter(t *testing.T) {
	b := open(t, 200)
	b.do(chromedp.Navigate(b.url+"/deaths"),
		chromedp.SetValue("#cause", "KernelPanic", chromedp.ByQuery), chromedp.SetValue("#range", "7d", chromedp.ByQuery),
		chromedp.Click("form button", chromedp.ByQuery))
	b.path("/deaths?")
	b.see("Clear")
	var causes []string
	b.do(chromedp.Evaluate(`[...new Set([...document.querySelectorAll("td .tags .tag")].map(e => e.innerText))]`, &causes))
	if len(causes) != 1 || causes[0] != "KernelPanic" {
		t.Errorf("causes shown: %q, want KernelPanic only", causes)
	}
	b.do(chromedp.Click(".clear", chromedp.ByQuery))
	b.path("/deaths")
	b.see("200 deaths")
	b.do(chromedp.Click(".pages a", chromedp.ByQuery))
	b.see("Page 2 of 4")
}

// TestKeyboard does the same without a mouse.
func TestKeyboard(t *testing.T) {
	b := open(t, 60)
	b.do(chromedp.Navigate(b.url), chromedp.KeyEvent(kb.Tab))
	b.awaitFocus("Skip to the content", "the first Tab")
	b.do(chromedp.KeyEvent(kb.Enter))
	b.awaitFocus("main", "the link that skips the menu")
	b.tab("q")
	b.do(chromedp.KeyEvent("cassandra-4"), chromedp.KeyEvent(kb.Enter))
	b.path("/?q=cassandra-4&")
	b.see("pods on dead nodes")
	b.do(chromedp.KeyEvent(kb.Tab))
	var first string
	b.do(chromedp.Text(`td[data-column="Died with"] a`, &first, chromedp.ByQuery))
	b.tab(first)
	b.do(chromedp.KeyEvent(kb.Enter))
	b.path("/deaths/")
	b.see("What the kernel said")
	b.tab("Go to the function that it died in")
}

// window is how wide a browser's window is, in pixels, and whether its user prefers dark.
type window struct {
	width int64
	dark  bool
}

// TestLooks takes pictures of the pages: of a month with 1,000 deaths in light and narrow and in dark and wide, and of an empty
// cluster, of what is hard to show, and of an API server that does not answer, where they show something else. On each the
// accessibility engine axe finds nothing, and nothing is wider than the window.
func TestLooks(t *testing.T) {
	pictures := os.Getenv("PICTURES")
	if pictures == "" {
		pictures = t.TempDir()
	}
	if err := os.MkdirAll(pictures, 0o755); err != nil {
		t.Fatal(err)
	}
	axe := axeCore(t)
	empty, full, hard := newWorld(t, 0), newWorld(t, 1000), hardWorld(t)
	empty.fleet = nil
	narrow, both := []window{{360, false}}, []window{{360, false}, {1280, true}}
	all := map[string]string{"bugs": "/", "deaths": "/deaths", "fleet": "/fleet", "trends": "/trends"}
	b := openOn(t, empty)
	for _, tt := range []struct {
		name    string
		world   page.Source
		pages   map[string]string
		windows []window
	}{
		{"empty", empty, all, narrow},
		{"full", full, all, both},
		{"full", full, map[string]string{
			"death": "/deaths/" + full.deaths[3].Name, "held": "/deaths/" + full.deaths[0].Name, "suspect": "/deaths/" + full.deaths[4].Name,
			"found": "/?q=cassandra-4",
		}, both},
		{"hard", hard, map[string]string{"bugs": "/", "deaths": "/deaths", "fleet": "/fleet", "incomplete": "/deaths/" + hard.deaths[0].Name}, both},
		{"hard", hard, map[string]string{
			"refused": "/deaths/" + hard.deaths[2].Name, "unexplained": "/deaths/" + hard.deaths[3].Name,
			"found-nothing": "/deaths?q=no-such-pod&from=2026-11-01&to=2026-11-02&phase=Held",
		}, narrow},
		{"away", awayWorld{full}, map[string]string{"bugs": "/", "missing": "/no/such/page"}, narrow},
	} {
		b.url = serve(t, tt.world)
		for name, path := range tt.pages {
			for _, w := range tt.windows {
				b.look(w.width, w.dark)
				b.do(chromedp.Navigate(b.url + path))
				var picture []byte
				var wide int64
				b.do(chromedp.Evaluate(`document.documentElement.scrollWidth`, &wide), chromedp.FullScreenshot(&picture, 100))
				file := fmt.Sprintf("%s-%s-%s-%d.png", tt.name, name, map[bool]string{false: "light", true: "dark"}[w.dark], w.width)
				if err := os.WriteFile(filepath.Join(pictures, file), picture, 0o644); err != nil {
					t.Fatal(err)
				}
				if wide > w.width {
					t.Errorf("%s is %d pixels wide in a window of %d", file, wide, w.width)
				}
				b.audit(axe, file)
			}
		}
	}
}

// audit runs axe on the page that is shown.
func (b *browser) audit(axe, name string) {
	b.t.Helper()
	var report string
	b.do(chromedp.Evaluate(axe+";0", nil), chromedp.Evaluate(
		`axe.run({runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}).then(r => JSON.stringify(r.violations.map(
			v => ({id: v.id, help: v.help, nodes: v.nodes.slice(0, 3).map(n => n.html + " " + n.failureSummary)}))))`,
		&report, awaitPromise))
	var found []struct {
		ID, Help string
		Nodes    []string
	}
	if err := json.Unmarshal([]byte(report), &found); err != nil {
		b.t.Fatalf("%s: read axe's report %q: %v", name, report, err)
	}
	for _, f := range found {
		b.t.Errorf("%s: %s: %s\n%s", name, f.ID, f.Help, strings.Join(f.Nodes, "\n"))
	}
}

func awaitPromise(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }

// axe-core as it is on npm, with the hash that package-lock.json would have.
const (
	axeVersion   = "4.14.1"
	axeIntegrity = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
)

// axeCore is the source of axe-core, from the cache or from npm.
func axeCore(t *testing.T) string {
	t.Helper()
	dir, err := lab.CachedDownload(t.Context(), t, "axe-core-"+axeVersion, func(dir string) error {
		cmd := exec.CommandContext(t.Context(), "npm", "pack", "--silent", "axe-core@"+axeVersion)
		if _, err := exec.LookPath("npm"); err != nil {
			if err := lab.InstallPackages(t.Context(), t, "npm"); err != nil {
				return err
			}
		}
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("fetch axe-core: %w\n%s", err, out)
		}
		return unpackAxe(filepath.Join(dir, "axe-core-"+axeVersion+".tgz"), filepath.Join(dir, "axe.min.js"))
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// unpackAxe checks the package and takes the engine out of it.
func unpackAxe(archive, to string) error {
	text, err := os.ReadFile(archive)
	if err != nil {
		return err
	}
	if sum := sha512.Sum512(text); base64.StdEncoding.EncodeToString(sum[:]) != axeIntegrity {
		return fmt.Errorf("axe-core %s is not what it was: SHA-512 %s", axeVersion, base64.StdEncoding.EncodeToString(sum[:]))
	}
	unzipped, err := gzip.NewReader(strings.NewReader(string(text)))
	if err != nil {
		return err
	}
	for files := tar.NewReader(unzipped); ; {
		header, err := files.Next()
		if err != nil {
			return fmt.Errorf("find axe.min.js: %w", err)
		}
		if header.Name == "package/axe.min.js" {
			engine, err := io.ReadAll(files)
			if err != nil {
				return err
			}
			return os.WriteFile(to, engine, 0o644)
		}
	}
}

// TestPolicyKeepsScriptsOut runs a script in the page as the page itself would: the browser must refuse.
func TestPolicyKeepsScriptsOut(t *testing.T) {
	b := open(t, 1)
	ran := make(chan struct{}, 1)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { ran <- struct{}{} }))
	defer elsewhere.Close()
	var blocked int
	b.do(chromedp.Navigate(b.url), chromedp.Evaluate(`new Promise(done => {
		let n = 0;
		addEventListener("securitypolicyviolation", () => { if (++n == 2) done(n) });
		let s = document.createElement("script"); s.textContent = "fetch('`+elsewhere.URL+`')"; document.body.append(s);
		let i = document.createElement("img"); i.src = "`+elsewhere.URL+`"; document.body.append(i);
	})`, &blocked, awaitPromise))
	select {
	case <-ran:
		t.Error("a script or an image from elsewhere was loaded")
	default:
	}
	if blocked != 2 {
		t.Errorf("%d things were blocked, want script and image", blocked)
	}
}
