package configurator

import (
	"context"
	"errors"
	"time"

	"github.com/lastgasp/lastgasp/configurator/canary"
	"github.com/lastgasp/lastgasp/configurator/lastboot"
	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// LastBootConfig says what to do with what the previous boot left behind.
type LastBootConfig struct {
	KeepPstore bool // do not remove entries of pstore that a listener has acknowledged
}

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
		c.Log.Warn("the ledger of boots is not kept, so how a boot ended may stay unknown", "err", err)
	}
	if p := l.Previous; p != nil && l.Since.Equal(now) && !p.Orderly() {
		c.Log.Warn("the previous boot died", "boot", p.Boot, "cause", p.Summary(), "evidence", p.Evidence)
	}
}

// Why an obituary waits.
var (
	errNoneProved = errors.New("no listener has proved itself")
	errUnpinned   = errors.New("this boot is not pinned")
)

// sendObituary sends the listeners how the previous boot ended, and earlier ones that died too young to send theirs, unless one has
// acknowledged that already. An error means that it has to be called again. pinned says to wait for the pin of this boot: sent under
// a pinned secret it is believed more. News of a shutdown always waits for it: listeners believe no other sender that a boot ended in
// good order.
func (c *Configurator) sendObituary(ctx context.Context, pinned bool) error {
	before, err := c.Root.State()
	if err != nil || before == nil || before.Identity.Boot == "" {
		return errors.Join(errNoneProved, err)
	}
	l, err := lastboot.Look(c.Root, before.Identity)
	if err != nil {
		return err
	}
	endings := l.Unacknowledged()
	if len(endings) == 0 {
		return nil
	}
	if len(provenRoutes(before)) == 0 {
		return errNoneProved
	}
	enrolled, _ := enrolment(c.Root)
	isPinned := enrolled != nil && enrolled.Enrolled
	var waits error
	for _, e := range endings {
		if (pinned || e.Orderly()) && !isPinned {
			waits = errUnpinned
			continue
		}
		if err := c.sendEnding(ctx, l.Boot, e); err != nil {
			return err
		}
	}
	return waits
}

// sendEnding sends how a former boot ended until a listener acknowledges it, notes that in the ledger of this boot, and makes room for
// the next panic.
func (c *Configurator) sendEnding(ctx context.Context, boot string, e lastboot.Ending) error {
	unlock, err := c.lock(ctx) // no pass may use the socket
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.deliver(ctx, e); err != nil {
		return err
	}
	c.Log.Info("a listener knows how the previous boot ended", "boot", e.Boot, "cause", e.Summary())
	if err := lastboot.Acknowledge(c.Root, boot, e.Boot, time.Now()); err != nil {
		return err
	}
	if c.Config.LastBoot.KeepPstore || lastboot.MovesPstore(c.Root) {
		return nil
	}
	if err := e.Clear(c.Root); err != nil {
		c.Log.Warn("entries of pstore stay, so the next panic may find no room there", "err", err)
	}
	return nil
}

// deliver sends the obituary to the listeners that the last pass has proved.
func (c *Configurator) deliver(ctx context.Context, e lastboot.Ending) error {
	s, err := c.Root.State() // again: a pass may have ended meanwhile
	if err != nil || s == nil {
		return errors.Join(errNoneProved, err)
	}
	secret, err := c.Root.Secret(s.Identity.Boot)
	if err != nil {
		return err
	}
	id := netconsole.Identity{Instance: s.Identity.Instance, Boot: s.Identity.Boot, Secret: secret}
	return c.Deliver(ctx, id, e.Obituary(c.Config.Cluster), provenRoutes(s))
}

// provenRoutes returns the listeners that the pass has proved, and that know this node.
func provenRoutes(s *machine.State) []canary.Route {
	var list []canary.Route
	for _, t := range s.Targets {
		if t.Acked && t.Known {
			list = append(list, canary.Route{Target: t.Name, Local: t.Local, Remote: t.Listener})
		}
	}
	return list
}
