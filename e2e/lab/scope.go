// Package lab makes the world lastgasp is tried in: network namespaces, Debian's own kernels in microVMs that really
// crash, and a real Kubernetes control plane. Tests and `make demo` use the same pieces.
//
// Every piece takes a Scope and registers its own removal there, so that nothing outlives a test, also when it fails.
package lab

// Scope is what owns the pieces of a lab and takes them down again, last made first. Every testing.TB is one; the demo
// brings its own, which also ends on ^C.
type Scope interface {
	// Cleanup registers f to run when the scope ends.
	Cleanup(f func())
	// Logf tells the reader what is going on. It is for progress, not for results.
	Logf(format string, args ...any)
	// Failed reports whether the scope ends in failure: evidence such as serial logs is then kept.
	Failed() bool
}
