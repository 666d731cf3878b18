package policy

import (
	"maps"
	"net/netip"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// distrustSources bounds how many sources are remembered. Only addresses of Nodes come here: others cost an attacker
// nothing, and a full memory would forget to distrust.
const distrustSources = 4096

// Distrust remembers sources that were contradicted. A pod that shares its node's address can send what the node's
// kernel could. It must not be able to keep the node fenced by sending it again and again. Distrust owns no clock.
type Distrust struct {
	For time.Duration

	sources map[netip.Addr]contradiction
	pruned  time.Time
}

type contradiction struct {
	authority detect.Authority // the strongest that was contradicted
	until     time.Time
}

// Add notes that an incident of src on authority a was contradicted at the time given.
func (d *Distrust) Add(at time.Time, src netip.Addr, a detect.Authority) {
	if !src.IsValid() || d.For == 0 {
		return
	}
	if d.sources == nil {
		d.sources = map[netip.Addr]contradiction{}
	}
	if len(d.sources) >= distrustSources && at.Sub(d.pruned) >= d.For/16 { // seldom: a flood must not cost much
		d.pruned = at
		maps.DeleteFunc(d.sources, func(_ netip.Addr, g contradiction) bool { return !at.Before(g.until) })
	}
	g, known := d.sources[src]
	if !known && len(d.sources) >= distrustSources {
		return // the memory stays bounded; the breaker and the witnesses remain
	}
	if until := at.Add(d.For); until.After(g.until) {
		g.until = until
	}
	g.authority = max(g.authority, a)
	d.sources[src] = g
}

// Has reports whether src is distrusted on authority a at now. Evidence stronger than what was contradicted is believed.
func (d *Distrust) Has(now time.Time, src netip.Addr, a detect.Authority) bool {
	g, ok := d.sources[src]
	return ok && now.Before(g.until) && a <= g.authority
}
