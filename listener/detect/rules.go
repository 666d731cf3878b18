package detect

import (
	"fmt"
	"sync"
)

// builtin is the compiled table of this package's rules. Order matters within a file only: the first match counts, and
// the files do not overlap.
var builtin = sync.OnceValue(func() []Rule {
	var rules []Rule
	for _, part := range [][]Rule{dyingRules(), oopsRules(), sickRules()} {
		rules = append(rules, part...)
	}
	for i := range rules {
		if err := rules[i].Compile(); err != nil {
			panic(fmt.Sprintf("built-in %v", err)) // the tests compile them, too
		}
	}
	return rules
})

// Causes that the code has to know. All others are only in the rules.
const (
	kernelPanic   = "KernelPanic"
	kernelOops    = "KernelOops"
	kernelWarning = "KernelWarning"
	oomKilling    = "OOMKilling"
)
