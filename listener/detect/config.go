package detect

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

// Config applies to all sources of a listener. The zero value is usable. It must not change once sources use it.
type Config struct {
	// Lines is how many lines a source keeps of what it sent last. 200 if zero.
	Lines int
	// Bytes bounds the memory for these lines. 32 KiB if zero.
	Bytes int
	// Silence is how long a dying source must be silent for its incident to be complete, thrice as long where CPUs stall.
	// 2 s if zero; no shorter than netconsole.WireTimeout, for which fragments are waited for.
	Silence time.Duration
	// Rules are the user's. They are asked before the built-in ones and may overrule them.
	Rules []Rule

	table *table
}

// Compile checks the rules and prepares the Config for use. It is called once, before the first NewSource.
func (c *Config) Compile() error {
	for i := range c.Rules {
		if err := c.Rules[i].Compile(); err != nil {
			return err
		}
	}
	c.table = newTable(c.Rules, builtin())
	return nil
}

// A Finding is the verdict and cause that an incident is counted by.
type Finding struct {
	Verdict Verdict
	Cause   string
}

// Findings lists every finding that incidents can have under this Config, each once. An oops is a death where the kernel
// panics on it.
func (c *Config) Findings() []Finding {
	seen := make(map[Finding]bool)
	for _, rules := range [][]Rule{c.Rules, builtin()} {
		for _, r := range rules {
			seen[Finding{r.Verdict, r.Cause}] = true
			if r.Verdict == Oops {
				seen[Finding{Dying, r.Cause}] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(seen), func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Verdict, b.Verdict), cmp.Compare(a.Cause, b.Cause))
	})
}

// builtinTable has the built-in rules alone.
var builtinTable = sync.OnceValue(func() *table { return newTable(builtin()) })

func (c *Config) lines() int             { return cmp.Or(c.Lines, 200) }
func (c *Config) bytes() int             { return cmp.Or(c.Bytes, 32<<10) }
func (c *Config) silence() time.Duration { return cmp.Or(c.Silence, 2*time.Second) }
