package configurator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/configurator/canary"
	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/ec2"
	"github.com/lastgasp/lastgasp/configurator/endpoint"
	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/configurator/nexthop"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// ErrUnproved means that a target is armed, or was to be armed, whose listener does not acknowledge canaries.
var ErrUnproved = errors.New("not acknowledged")

// Netconsole is the kernel's side of a pass. configfs.Dir implements it.
type Netconsole interface {
	Seen() (s configfs.Support, sure bool, err error) // changes nothing
	Support() (configfs.Support, error)               // under the lock only
	List() ([]configfs.State, error)
	Others() []configfs.State   // enabled, and not ours
	Enabled() ([]string, error) // names of our targets, cheaper than List
	Arm(configfs.Spec) (configfs.State, error)
	AddUserdata(name string, d configfs.Datum) error
	Disarm(name string) error
}

var _ Netconsole = configfs.Dir("")

// Configurator carries out passes. Its fields are the verbs a pass is made of.
type Configurator struct {
	Config  Config
	Root    machine.Root
	Version string
	Log     *slog.Logger

	Netconsole Netconsole
	Load       func(ctx context.Context) error // makes netconsole available
	Sources    []endpoint.Source               // where to look listeners up, in this order
	Lookup     func(ctx context.Context, e endpoint.Endpoint) ([]endpoint.Endpoint, error)
	Resolve    func(ctx context.Context, q nexthop.Query) (nexthop.Hop, error)
	Instance   func(ctx context.Context) (ec2.Instance, error) // asked on EC2 only
	Prove      func(ctx context.Context, id machine.Identity, f machine.Facts, routes []canary.Route) ([]canary.Proof, error)
	// Deliver sends an obituary until a listener has acknowledged all of it.
	Deliver  func(ctx context.Context, id netconsole.Identity, o netconsole.Obituary, routes []canary.Route) error
	Uptime   func() time.Duration // machine.Uptime
	Textfile string               // directory for metrics.prom, empty: none

	fresh bool // do not fall back on the last known good listeners
}

// forgiveAfter is how long a listener that did not acknowledge is avoided.
const forgiveAfter = time.Hour

// Apply makes the kernel's targets those of the configuration and proves each by a canary. Old targets are removed only
// when every wanted one is proved. A new target that is not acknowledged is removed again if another is armed, and stays
// otherwise. A listener that does not acknowledge is replaced by another of the list, once. The error names everything
// that went wrong; the state is saved for `status` in any case.
func (c *Configurator) Apply(ctx context.Context) (machine.State, error) {
	p, err := c.passes(ctx, nil, false)
	return p.state, err
}

// passes runs a pass and, if a chosen listener is silent and the list has others, a second one with those.
func (c *Configurator) passes(ctx context.Context, known *endpoint.Found, quiet bool) (passed, error) {
	p, err := c.pass(ctx, known, quiet)
	if (errors.Is(err, ErrUnproved) || otherMayDo(err)) && len(p.found.Endpoints) > c.Config.Targets {
		return c.pass(ctx, &p.found, quiet)
	}
	return p, err
}

// otherMayDo reports whether err is about the way to one listener, so that another of the list may be reached: its next hop, or
// itself if it is on-link, does not answer, or the device on the way cannot carry netconsole.
func otherMayDo(err error) bool {
	return errors.Is(err, nexthop.ErrNoReply) || errors.Is(err, nexthop.ErrNoRoute) || errors.Is(err, nexthop.ErrUnusable) ||
		errors.Is(err, configfs.ErrDevice)
}

// passed is a pass that has ended.
type passed struct {
	found  endpoint.Found
	query  nexthop.Query    // for every hop, without the destination
	chosen []netip.AddrPort // listeners
	canary bool             // it wrote a canary
	state  machine.State
	paths  []nexthop.Path // to the chosen listeners, as they were after it
}

// listeners returns the listeners it found, nil if there are none.
func (p passed) listeners() *endpoint.Found {
	if len(p.found.Endpoints) == 0 {
		return nil
	}
	return &p.found
}

// outcome is how the pass ended, given its error.
func (p passed) outcome(err error) outcome {
	switch {
	case err != nil:
		return passFailed
	case slices.ContainsFunc(p.state.Targets, func(t machine.TargetState) bool { return !t.Known }):
		return passStranger
	case !p.canary:
		return passUnchanged
	}
	return passProved
}

// destinations returns the addresses of the chosen listeners. If none were found it returns addresses that nobody has (RFC
// 5737, RFC 3849): the way to those is the default route, without which nobody can be asked.
func (p *passed) destinations() []netip.Addr {
	if len(p.chosen) == 0 {
		return []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 1}), netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 1})}
	}
	var list []netip.Addr
	for _, listener := range p.chosen {
		list = append(list, listener.Addr())
	}
	return list
}

// lookPaths reads the path to each destination.
func (p *passed) lookPaths(look func(nexthop.Query) nexthop.Path) []nexthop.Path {
	var paths []nexthop.Path
	for _, destination := range p.destinations() {
		q := p.query
		q.Destination = destination
		paths = append(paths, look(q))
	}
	return paths
}

// moved says which paths have changed since the last look, and how. It is empty if none has.
func (p *passed) moved(look func(nexthop.Query) nexthop.Path) (changes string) {
	p.paths, changes = nexthop.Compare(p.paths, p.lookPaths(look))
	return changes
}

// Reload is Apply without the last known good listeners: a reload must fail if the listeners cannot be looked
// up. What is armed stays in any case.
func (c *Configurator) Reload(ctx context.Context) (machine.State, error) {
	fresh := *c
	fresh.fresh = true
	return fresh.Apply(ctx)
}

// pass is one round of Apply. known are the listeners to use, nil to look them up. A quiet pass writes a canary only if it
// changes something or the last pass left something unproved.
func (c *Configurator) pass(ctx context.Context, known *endpoint.Found, quiet bool) (p passed, err error) {
	unlock, err := c.lock(ctx)
	if err != nil {
		return passed{}, err
	}
	defer unlock()
	before, err := c.Root.State()
	if err != nil {
		c.Log.Warn("the state of the last pass is lost", "err", err)
	}
	done := c.waiting("netconsole's module")
	err = c.Load(ctx)
	done()
	if errors.Is(err, configfs.ErrNoModule) && !c.Root.HasNetconsole() || errors.Is(err, configfs.ErrNoConfigfs) && c.Root.LacksNetconsole() {
		return c.passAfterTheFact(ctx, known, before, quiet)
	}
	if err != nil {
		p.state, err = c.finish(machine.State{Targets: []machine.TargetState{}}, err)
		return p, err
	}
	errs := []error{c.applySettings()}
	d, draftErr := c.draft(ctx, known, before, c.Root.MakeSecret, c.Netconsole.Support)
	errs = append(errs, draftErr)
	c.enterBoot(d.Identity)
	s := machine.State{Identity: d.Identity, Zone: d.zone, Where: d.Found.Where, Passed: d.Found.Passed}
	p = passed{found: d.Found, query: d.query, chosen: d.chosen, canary: true}
	if draftErr == nil && quiet && d.Plan.Idle() && proven(before, d.Plan.Keep) {
		s.Targets, s.Silent, p.canary = before.Targets, before.Silent, false
	} else {
		s.Silent = avoided(before, c.Uptime())
		errs = append(errs, c.execute(ctx, d, before, draftErr == nil, &s))
	}
	p.state, err = c.finish(s, errors.Join(errs...))
	return p, err
}

// proven reports whether the last pass left exactly these targets, all of them proved.
func proven(before *machine.State, targets []configfs.State) bool {
	return before != nil && before.Failed == "" && len(before.Targets) == len(targets) &&
		!slices.ContainsFunc(targets, func(st configfs.State) bool {
			t, ok := before.Target(st.Name)
			return !ok || !t.Acked || !t.Known || !proves(t, st)
		})
}

// avoided returns the listeners to avoid at uptime now, and since when each has been silent.
func avoided(before *machine.State, now time.Duration) map[string]time.Duration {
	if before == nil {
		return nil
	}
	list := maps.Clone(before.Silent)
	maps.DeleteFunc(list, func(_ string, since time.Duration) bool { return now-since > forgiveAfter })
	return list
}

// noteSilence adds chosen listeners that could not be reached or did not acknowledge to those to avoid, and removes those that
// did acknowledge. If every listener of the list is silent, it is this node that is cut off, and none is avoided.
func noteSilence(avoid map[string]time.Duration, d Draft, proofs []canary.Proof, now time.Duration) map[string]time.Duration {
	if avoid == nil {
		avoid = make(map[string]time.Duration)
	}
	for _, listener := range d.silent {
		avoid[listener.String()] = now
	}
	for _, w := range d.wanted {
		for _, p := range proofs {
			switch {
			case p.Listener != w.listener:
			case p.Acked:
				delete(avoid, w.listener.String())
			default:
				avoid[w.listener.String()] = now
			}
		}
	}
	if !slices.ContainsFunc(d.Found.Endpoints, func(e endpoint.Endpoint) bool { _, silent := avoid[e.String()]; return !silent }) {
		clear(avoid)
	}
	return avoid
}

// execute carries out the draft and writes the resulting targets into s. It removes old targets only if everything wanted was
// found (complete) and proved. If there is no plan it proves what is armed.
func (c *Configurator) execute(ctx context.Context, d Draft, before *machine.State, complete bool, s *machine.State) error {
	var errs []error
	plan := d.Plan
	if !d.planned {
		present, err := c.Netconsole.List()
		errs = append(errs, err)
		plan = Plan{Keep: slices.DeleteFunc(present, func(st configfs.State) bool { return !st.Enabled })}
	}
	plan, err := c.removeOutside(plan)
	errs = append(errs, err)
	for _, name := range plan.Clear {
		c.Log.Info("removing disabled target", "target", name)
		errs = append(errs, c.Netconsole.Disarm(name))
	}
	fresh, done, err := c.arm(plan, &d)
	if err != nil {
		errs, complete = append(errs, err), false
	}
	armed := slices.Concat(plan.Keep, fresh)
	if len(done.Arm) > 0 {
		errs = append(errs, c.applySettings()) // a queue's limit takes effect with the next frame: the canary
	}
	proofs, err := c.prove(ctx, d.Identity, armed, plan.Drop)
	if err == nil {
		added, addErr := c.addSecrets(d, armed, proofs)
		errs = append(errs, addErr)
		if added { // the listener learns it now, not only with the next canary
			proofs, err = c.prove(ctx, d.Identity, armed, plan.Drop)
		}
	}
	s.Silent = noteSilence(s.Silent, d, proofs, c.Uptime())
	if err != nil {
		errs, complete = append(errs, err), false
		proofs = unproved(slices.Concat(armed, plan.Drop), err)
	} else {
		for _, p := range proofs[:len(armed)] {
			if !p.Acked {
				errs, complete = append(errs, fmt.Errorf("%s to %s: %w: %s", p.Target, p.Listener, ErrUnproved, p.Why)), false
			}
		}
	}
	drop := plan.Drop
	if !complete {
		drop = rollback(done, proofs, before)
	} else if err := c.lastGood(d.Identity).Save(d.Found, d.mac, time.Now()); err != nil {
		c.Log.Warn("a boot at which no listener can be looked up would not find these", "err", err)
	}
	left := slices.Concat(armed, plan.Drop)
	for _, st := range drop {
		c.Log.Info("removing", "target", st.Name, "listener", st.Remote())
		errs = append(errs, c.Netconsole.Disarm(st.Name))
		left = slices.DeleteFunc(left, func(l configfs.State) bool { return l.Name == st.Name })
	}
	if len(drop) > 0 {
		errs = append(errs, c.applySettings()) // perhaps nothing sends through their devices any more
	}
	s.Targets = c.states(left, done.Arm, d.wanted, proofs, before)
	return errors.Join(errs...)
}

// removeOutside removes targets outside of endpoint.within at once: they learn the secret, and what the kernel prints, and nobody
// waits for others to take their place. It returns the plan without them.
func (c *Configurator) removeOutside(plan Plan) (Plan, error) {
	var errs []error
	outside := func(st configfs.State) bool { return !c.within(st.RemoteIP) }
	for _, st := range slices.Concat(plan.Keep, plan.Drop) {
		if outside(st) {
			c.Log.Warn("removing target outside of endpoint.within", "target", st.Name, "listener", st.Remote())
			errs = append(errs, c.Netconsole.Disarm(st.Name))
		}
	}
	plan.Keep, plan.Drop = slices.DeleteFunc(plan.Keep, outside), slices.DeleteFunc(plan.Drop, outside)
	return plan, errors.Join(errs...)
}

// arm arms the plan's new targets. It returns those that are armed, and the plan with no others. A listener that another of the
// list can replace is added to d.silent.
func (c *Configurator) arm(plan Plan, d *Draft) (armed []configfs.State, done Plan, err error) {
	var errs []error
	done = plan
	done.Arm = nil
	for _, spec := range plan.Arm {
		if c.Config.Endpoint.Key != nil {
			spec = withoutSecret(spec)
		}
		st, err := c.Netconsole.Arm(spec)
		if err != nil {
			errs = append(errs, err)
			if otherMayDo(err) {
				d.silent = append(d.silent, spec.Remote())
			}
			continue
		}
		c.Log.Info("armed", "target", st.Name, "device", st.Device, "source", st.Local(),
			"listener", st.Remote(), "mac", st.RemoteMAC.String())
		armed = append(armed, st)
		done.Arm = append(done.Arm, spec)
	}
	return armed, done, errors.Join(errs...)
}

// addSecrets adds the secret of this boot to targets that lack it and whose listener has proved itself. Targets lack it only
// if endpoint.key is set.
func (c *Configurator) addSecrets(d Draft, armed []configfs.State, proofs []canary.Proof) (added bool, err error) {
	var errs []error
	for i, st := range armed {
		w := slices.IndexFunc(d.wanted, func(w wanted) bool { return w.listener == st.Remote() })
		if w < 0 || !proofs[i].Acked || !proofs[i].Known || hasSecret(st.Spec) {
			continue
		}
		for _, datum := range d.wanted[w].spec.Userdata {
			if datum.Secret {
				errs = append(errs, c.Netconsole.AddUserdata(st.Name, datum))
				added = true
			}
		}
	}
	return added, errors.Join(errs...)
}

// states returns the remaining targets with their proofs, and the last acknowledgement that was known before. Fresh targets
// have no history: other targets may have had their names.
func (c *Configurator) states(left []configfs.State, fresh []configfs.Spec, all []wanted, proofs []canary.Proof, before *machine.State) []machine.TargetState {
	list := []machine.TargetState{}
	for _, st := range left {
		t := machine.TargetState{Name: st.Name, Listener: st.Remote(), Local: st.Local(),
			MAC: st.RemoteMAC.String(), LocalMAC: st.LocalMAC.String()}
		if known, ok := before.Target(st.Name); ok && !slices.ContainsFunc(fresh, func(s configfs.Spec) bool { return s.Name == st.Name }) {
			t.LastAck, t.LastAckUptime = known.LastAck, known.LastAckUptime
		}
		t.OnLink = slices.ContainsFunc(all, func(w wanted) bool { return w.listener == t.Listener && w.hop.OnLink })
		if i := slices.IndexFunc(proofs, func(p canary.Proof) bool { return p.Target == st.Name }); i >= 0 {
			c.note(&t, proofs[i])
		}
		list = append(list, t)
	}
	return list
}

// finish saves s and what went wrong for `status`.
func (c *Configurator) finish(s machine.State, err error) (machine.State, error) {
	s.Time, s.Uptime, s.Version, s.Interval = time.Now(), c.Uptime(), c.Version, c.Config.Canary.Interval
	if err != nil {
		s.Failed = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	err = errors.Join(err, c.Root.SaveState(s))
	c.WriteMetrics()
	return s, err
}

// lock keeps passes of other processes out. A wait for one is logged.
func (c *Configurator) lock(ctx context.Context) (unlock func(), err error) {
	return c.Root.Lock(ctx, func() { c.Log.Info("waiting for another lastgasp-configurator to finish") })
}

// waiting logs what is waited for, unless done is called soon.
func (c *Configurator) waiting(what string) (done func()) {
	const soon = 2 * time.Second
	t := time.AfterFunc(soon, func() { c.Log.Info("waiting", "for", what) })
	return func() { t.Stop() }
}
