//go:build rollout

package browser

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestRollout looks at the page of a listener at work, at ROLLOUT_PAGE, which has name and password in it: nobody has died, or, if
// ROLLOUT_NODE is set, what killed it and what became of its pod ROLLOUT_POD. e2e's TestRollout runs it, before and after a death.
func TestRollout(t *testing.T) {
	url, node, pod := os.Getenv("ROLLOUT_PAGE"), os.Getenv("ROLLOUT_NODE"), os.Getenv("ROLLOUT_POD")
	if url == "" {
		t.Fatal("ROLLOUT_PAGE is not set; make rollout sets it")
	}
	b := start(t, url, chromedp.IgnoreCertErrors)
	b.look(1280, false)
	b.do(chromedp.Navigate(url))
	if node == "" {
		b.see("What kills our kernels", "No death is on record.")
		b.picture("rollout-before.png")
		return
	}
	b.see("1 bug, 1 death", "sysrq triggered crash")
	b.picture("rollout-bugs.png")
	b.do(chromedp.SendKeys("#q", pod+kb.Enter, chromedp.ByQuery))
	b.see("1 pod on dead nodes", pod)
	b.do(chromedp.Click(`td[data-column="Died with"] a`, chromedp.ByQuery))
	b.see("sysrq triggered crash", node, pod, "Cleaned", "What the kernel said", "Kernel panic - not syncing: sysrq triggered crash")
	b.picture("rollout-death.png")
}

// picture keeps a picture of the page in the folder PICTURES, if that is set.
func (b *browser) picture(name string) {
	b.t.Helper()
	folder := os.Getenv("PICTURES")
	if folder == "" {
		return
	}
	var picture []byte
	b.do(chromedp.FullScreenshot(&picture, 100))
	if err := os.WriteFile(filepath.Join(folder, name), picture, 0o644); err != nil {
		b.t.Fatal(err)
	}
}
