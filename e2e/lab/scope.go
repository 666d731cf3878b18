// Package lab makes the environment in which lastgasp is tested: network namespaces, Debian's own kernels in microVMs that
// really crash, and a real Kubernetes control plane. Tests and `make demo` use the same pieces.
//
// Every piece takes a Scope and registers its own removal there, so that nothing outlives a test, even if it fails.
package lab

import "sync"

// Scope is what owns the pieces of a lab and takes them down again, last made first. Every testing.TB is one; the demo
// brings its own, which also ends on ^C.
type Scope interface {
	// Cleanup registers f to run when the scope ends.
	Cleanup(f func())
	// Logf logs progress, not results.
	Logf(format string, args ...any)
	// Failed reports whether the scope ends in failure: evidence such as serial logs is then kept.
	Failed() bool
}

// Cleanups implements Cleanup for a Scope that is not a test. The zero value is ready.
type Cleanups struct {
	mu  sync.Mutex
	all []func()
}

// Cleanup registers f.
func (c *Cleanups) Cleanup(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, f)
}

// Run runs what is registered, last registered first, also what is registered meanwhile.
func (c *Cleanups) Run() {
	for {
		c.mu.Lock()
		n := len(c.all)
		if n == 0 {
			c.mu.Unlock()
			return
		}
		f := c.all[n-1]
		c.all = c.all[:n-1]
		c.mu.Unlock()
		f()
	}
}
