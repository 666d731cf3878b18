package detect

import (
	"strings"
	"sync"

	"github.com/lastgasp/lastgasp/listener/lazyregexp"
)

const (
	// maxNames bounds how many names are remembered, and maxName how much of each is looked at. A kernel's own are KSYM_NAME_LEN at
	// most (include/linux/kallsyms.h), few are longer than this, and what tells them apart is their beginning.
	maxNames, maxName = 1024, 64
)

// names is a set of function names, given as a regular expression. The large ones take tens of microseconds to match a name, and
// every trace has the same names again, so answers are remembered. It is safe for concurrent use.
type names struct {
	text *lazyregexp.Regexp

	mu    sync.RWMutex
	known map[string]bool
}

func newNames(text string) *names {
	return &names{text: lazyregexp.New(text), known: map[string]bool{}}
}

// has reports whether the function is in the set.
func (n *names) has(function string) bool {
	function = function[:min(len(function), maxName)]
	n.mu.RLock()
	yes, ok := n.known[function]
	n.mu.RUnlock()
	if ok {
		return yes
	}
	yes = n.text.MatchString(function)
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.known) >= maxNames { // somebody makes names up
		clear(n.known)
	}
	n.known[strings.Clone(function)] = yes
	return yes
}
