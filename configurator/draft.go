package configurator

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/endpoint"
	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/configurator/nexthop"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// wanted is one listener, the way to it, and the target for it.
type wanted struct {
	listener netip.AddrPort
	hop      nexthop.Hop
	spec     configfs.Spec
}

// Draft is what a pass is about to do.
type Draft struct {
	Identity machine.Identity
	Found    endpoint.Found
	Support  configfs.Support
	Plan     Plan
	zone     string           // this node's, if listeners have zones
	query    nexthop.Query    // for every hop, without the destination
	chosen   []netip.AddrPort // listeners
	wanted   []wanted
	silent   []netip.AddrPort // chosen listeners that cannot be reached
	planned  bool             // Plan was made, from the wanted targets
	mac      string
}

// Draft finds and resolves everything and compares it with what the kernel has. It changes nothing. The error names
// each listener that cannot be reached; the draft holds the others.
func (c *Configurator) Draft(ctx context.Context) (Draft, error) {
	before, err := c.Root.State()
	if err != nil {
		c.Log.Warn("the state of the last pass is lost", "err", err)
	}
	return c.draft(ctx, nil, before, c.Root.Secret, func() (configfs.Support, error) { return c.support(ctx) })
}

// support returns what the kernel can do. If it has to make a target to find out, it takes the lock, so that no pass runs
// meanwhile.
func (c *Configurator) support(ctx context.Context) (configfs.Support, error) {
	if s, sure, err := c.Netconsole.Seen(); sure || err != nil {
		return s, err
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return configfs.Support{}, err
	}
	defer unlock()
	return c.Netconsole.Support()
}

// draft is Draft with its inputs as arguments: the listeners if they are known already (otherwise nil), the state of the last
// pass, and the functions that return the secret and what the kernel can do.
func (c *Configurator) draft(ctx context.Context, known *endpoint.Found, before *machine.State,
	secretOf func(boot string) (netconsole.Secret, error), support func() (configfs.Support, error)) (Draft, error) {
	var d Draft
	var err error
	instance := c.instanceOnce(ctx)
	if d.Identity, err = c.Root.Identity(idOf(instance, before)); err != nil {
		return d, err
	}
	if known != nil {
		d.Found = *known
	} else if d.Found, err = c.find(ctx, d.Identity); err != nil {
		return d, err
	}
	present, err := c.Netconsole.List()
	if err != nil {
		return d, err
	}
	d.zone, d.query = c.zone(d.Found.Endpoints, instance, before), c.query(instance, present)
	d.chosen = c.choose(d.Found.Endpoints, d, avoided(before, c.Uptime()))
	errs := []error{c.resolve(ctx, &d)}
	for _, w := range d.wanted {
		d.mac = w.hop.DeviceMAC.String()
	}
	if d.Support, err = support(); err != nil {
		return d, errors.Join(append(errs, err)...)
	}
	secret, err := secretOf(d.Identity.Boot)
	if err != nil {
		errs = append(errs, err)
		if slices.ContainsFunc(present, func(st configfs.State) bool { return st.Enabled }) {
			return d, errors.Join(errs...)
		}
	}
	var specs []configfs.Spec
	for i := range d.wanted {
		w := &d.wanted[i]
		w.spec = newSpec(w.hop, w.listener, d.Identity, secret, d.Support)
		if err != nil { // being heard without it is better than not being heard: the listener waits for its witness then
			w.spec = withoutSecret(w.spec)
		}
		specs = append(specs, w.spec)
	}
	if len(specs) > 0 {
		d.Plan, d.planned = newPlan(specs, present, c.Netconsole.Others(), c.Config.LocalPort, c.Config.Endpoint.Key != nil), true
	}
	return d, errors.Join(errs...)
}

// resolve asks how to reach each chosen listener.
func (c *Configurator) resolve(ctx context.Context, d *Draft) error {
	var errs []error
	for _, listener := range d.chosen {
		q := d.query
		q.Destination = listener.Addr()
		done := c.waiting("the next hop to listener " + listener.String())
		hop, err := c.Resolve(ctx, q)
		done()
		if err != nil {
			errs = append(errs, fmt.Errorf("listener %s: %w", listener, err))
			if otherMayDo(err) {
				d.silent = append(d.silent, listener)
			}
			continue
		}
		d.wanted = append(d.wanted, wanted{listener: listener, hop: hop})
	}
	return errors.Join(errs...)
}

// choose picks this node's listeners. Those to avoid come last.
func (c *Configurator) choose(list []endpoint.Endpoint, d Draft, avoid map[string]time.Duration) []netip.AddrPort {
	var chosen []netip.AddrPort
	for _, e := range endpoint.Choose(list, c.Config.Targets, d.zone, d.Identity.Instance, func(e endpoint.Endpoint) bool {
		_, silent := avoid[e.String()]
		return silent
	}) {
		listener, _ := e.Addr() // a Finder returns addresses only
		chosen = append(chosen, listener)
	}
	return chosen
}

// find asks all sources, and at the end the last known good list of this machine. Listeners outside of endpoint.within are
// refused, so that control over a source is not enough to redirect nodes.
func (c *Configurator) find(ctx context.Context, id machine.Identity) (endpoint.Found, error) {
	wait := bootTimeout
	f := endpoint.Finder{Sources: c.Sources, Lookup: c.Lookup}
	if len(c.Config.Endpoint.Within) > 0 {
		f.Within = func(e endpoint.Endpoint) bool {
			addr, _ := e.Addr()
			return c.within(addr.Addr())
		}
	}
	if !c.fresh {
		last := c.lastGood(id)
		f.Last = &last
		if _, _, err := last.Find(ctx); err == nil {
			wait = goodTimeout
		}
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	defer c.waiting("an answer to where the listeners are")()
	return f.Find(ctx)
}

// within reports whether endpoint.within allows a listener with that address.
func (c *Configurator) within(listener netip.Addr) bool {
	return len(c.Config.Endpoint.Within) == 0 ||
		slices.ContainsFunc(c.Config.Endpoint.Within, func(p netip.Prefix) bool { return p.Contains(listener) })
}

func (c *Configurator) lastGood(id machine.Identity) endpoint.LastGood {
	return endpoint.LastGood{File: c.Root.Path(machine.LastGoodFile), Instance: id.Instance, MACs: c.Root.MACs()}
}
