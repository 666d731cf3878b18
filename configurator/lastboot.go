package configurator

import (
	"context"
	"time"

	"github.com/lastgasp/lastgasp/configurator/lastboot"
	"github.com/lastgasp/lastgasp/configurator/machine"
)

// LastBoot returns what is known about the previous boot. It changes nothing.
func (c *Configurator) LastBoot(ctx context.Context) (lastboot.Ledger, error) {
	before, _ := c.Root.State() // only for the identity, if nothing else knows it
	id, err := c.Root.Identity(idOf(c.instanceOnce(ctx), before))
	if err != nil {
		return lastboot.Ledger{}, err
	}
	return lastboot.Look(c.Root, id)
}

// enterBoot opens the ledger of this boot. No pass fails for it: being heard comes first.
func (c *Configurator) enterBoot(id machine.Identity) {
	if id.Boot == "" {
		return
	}
	now := time.Now()
	l, err := lastboot.Open(c.Root, id, now)
	if err != nil {
		c.Log.Warn("how the previous boot ended may go unsaid", "err", err)
	}
	if p := l.Previous; p != nil && l.Since.Equal(now) && !p.Orderly() {
		c.Log.Warn("the previous boot died", "boot", p.Boot, "cause", p.Summary(), "evidence", p.Evidence)
	}
}
