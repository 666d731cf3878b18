package configurator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/ec2"
	"github.com/lastgasp/lastgasp/configurator/endpoint"
	"github.com/lastgasp/lastgasp/configurator/nexthop"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// ErrUnproved means that a target is armed, or was to be armed, whose listener does not acknowledge canaries.
var ErrUnproved = errors.New("not acknowledged")

// Netconsole is the kernel's side of a pass. configfs.Dir is the real one.
type Netconsole interface {
	Seen() (s configfs.Support, sure bool, err error) // changes nothing
	Support() (configfs.Support, error)               // under the lock only
	List() ([]configfs.State, error)
	Arm(configfs.Spec) (configfs.State, error)
	Disarm(name string) error
}

var _ Netconsole = configfs.Dir("")

// Configurator carries out passes. Its fields are the verbs a pass is made of.
type Configurator struct {
	Config  Config
	Root    Root
	Version string
	Log     *slog.Logger

	Netconsole Netconsole
	Load       func(ctx context.Context) error // makes netconsole available
	Sources    []endpoint.Source               // where listeners may be written down, in their order
	Lookup     func(ctx context.Context, e endpoint.Endpoint) ([]endpoint.Endpoint, error)
	Resolve    func(ctx context.Context, q nexthop.Query) (nexthop.Hop, error)
	Instance   func(ctx context.Context) (ec2.Instance, error) // asked on EC2 only
	Prove      func(ctx context.Context, id Identity, f Facts, routes []Route) ([]Proof, error)

	fresh bool // never the last known good listeners
}

// wanted is one listener with the way to it, and the target that follows.
type wanted struct {
	listener netip.AddrPort
	hop      nexthop.Hop
	spec     configfs.Spec
}

// Draft is what a pass is about to do.
type Draft struct {
	Identity Identity
	Found    endpoint.Found
	Support  configfs.Support
	Plan     Plan
	wanted   []wanted
	mac      string
}

// Draft finds and resolves everything and compares it with what the kernel has. It changes nothing. The error names
// each listener that cannot be reached; the draft holds the others.
func (c *Configurator) Draft(ctx context.Context) (Draft, error) {
	return c.draft(ctx, nil, c.Root.gasp, func() (configfs.Support, error) { return c.support(ctx) })
}

// support tells what the kernel can do. If that takes a target made for a moment, no pass may run meanwhile.
func (c *Configurator) support(ctx context.Context) (configfs.Support, error) {
	if s, sure, err := c.Netconsole.Seen(); sure || err != nil {
		return s, err
	}
	unlock, err := c.Root.lock(ctx)
	if err != nil {
		return configfs.Support{}, err
	}
	defer unlock()
	return c.Netconsole.Support()
}

// draft is Draft with the listeners known already, unless that is nil, and with the secret and what the kernel can do
// from somewhere.
func (c *Configurator) draft(ctx context.Context, known *endpoint.Found, gaspOf func(boot string) (netconsole.Secret, error),
	support func() (configfs.Support, error)) (Draft, error) {
	var d Draft
	var err error
	instance := c.instanceOnce(ctx)
	if d.Identity, err = c.Root.Identity(instance); err != nil {
		return d, err
	}
	if known != nil {
		d.Found = *known
	} else if d.Found, err = c.find(ctx, d.Identity); err != nil {
		return d, err
	}
	chosen := endpoint.Choose(d.Found.Endpoints, c.Config.Targets, c.zone(d.Found.Endpoints, instance), d.Identity.Instance, nil)
	q := c.query(instance)
	var errs []error
	for _, e := range chosen {
		listener, _ := e.Addr() // a Finder returns addresses only
		q.Destination = listener.Addr()
		hop, err := c.Resolve(ctx, q)
		if err != nil {
			errs = append(errs, fmt.Errorf("listener %s: %w", listener, err))
			continue
		}
		d.wanted = append(d.wanted, wanted{listener: listener, hop: hop})
		d.mac = hop.DeviceMAC.String()
	}
	if d.Support, err = support(); err != nil {
		return d, errors.Join(append(errs, err)...)
	}
	gasp, err := gaspOf(d.Identity.Boot)
	if err != nil {
		return d, errors.Join(append(errs, err)...)
	}
	present, err := c.Netconsole.List()
	if err != nil {
		return d, errors.Join(append(errs, err)...)
	}
	var specs []configfs.Spec
	for i := range d.wanted {
		w := &d.wanted[i]
		w.spec = newSpec(w.hop, w.listener, d.Identity, gasp, d.Support)
		specs = append(specs, w.spec)
	}
	d.Plan = newPlan(specs, present, c.Config.LocalPort)
	return d, errors.Join(errs...)
}

// Apply makes the kernel's targets those of the configuration and has each proved by a canary. What was armed before
// goes only when all that is wanted is proved; a new target that is not acknowledged is taken away again if something
// else is armed, and stays if it is all there is. The error says everything that is not as it should be; the state is
// kept for `status` in any case.
func (c *Configurator) Apply(ctx context.Context) (State, error) {
	_, s, err := c.apply(ctx, nil)
	return s, err
}

// Reload is Apply without the last known good listeners: somebody who asks for a reload wants to hear that there is
// nothing new to be had. What is armed stays in any case.
func (c *Configurator) Reload(ctx context.Context) (State, error) {
	fresh := *c
	fresh.fresh = true
	return fresh.Apply(ctx)
}

// apply is Apply with the listeners known already, unless that is nil. It returns those it used.
func (c *Configurator) apply(ctx context.Context, known *endpoint.Found) (endpoint.Found, State, error) {
	unlock, err := c.Root.lock(ctx)
	if err != nil {
		return endpoint.Found{}, State{}, err
	}
	defer unlock()
	before, err := c.Root.State()
	if err != nil {
		c.Log.Warn("what the last pass saw is lost", "err", err)
	}
	if err := c.Load(ctx); err != nil {
		s, err := c.finish(State{}, err)
		return endpoint.Found{}, s, err
	}
	errs := []error{c.settle()}
	d, draftErr := c.draft(ctx, known, c.Root.makeGasp, c.Netconsole.Support)
	errs = append(errs, draftErr)
	s := State{Identity: d.Identity, Where: d.Found.Where, Passed: d.Found.Passed, Targets: []TargetState{}}
	if len(d.wanted) > 0 {
		s.Targets, err = c.carryOut(ctx, d, before, draftErr == nil)
		errs = append(errs, err)
	} else if before != nil {
		s.Targets = before.Targets // nothing can be reached: what is armed may still be right, it stays
	}
	s, err = c.finish(s, errors.Join(errs...))
	return d.Found, s, err
}

// find asks all sources, the last known good list of this very machine at the end.
func (c *Configurator) find(ctx context.Context, id Identity) (endpoint.Found, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	f := endpoint.Finder{Sources: c.Sources, Lookup: c.Lookup}
	if !c.fresh {
		last := c.lastGood(id)
		f.Last = &last
	}
	return f.Find(ctx)
}

func (c *Configurator) lastGood(id Identity) endpoint.LastGood {
	return endpoint.LastGood{File: c.Root.Path(lastGoodFile), Instance: id.Instance, MACs: c.Root.MACs()}
}

// carryOut does what the draft says, the breaking only if all was found (complete) and proved.
func (c *Configurator) carryOut(ctx context.Context, d Draft, before *State, complete bool) ([]TargetState, error) {
	var errs []error
	for _, name := range d.Plan.Clear {
		c.Log.Info("removing disabled target", "target", name)
		errs = append(errs, c.Netconsole.Disarm(name))
	}
	armed := slices.Clone(d.Plan.Keep)
	done := d.Plan
	done.Arm = nil
	for _, spec := range d.Plan.Arm {
		st, err := c.Netconsole.Arm(spec)
		if err != nil {
			errs, complete = append(errs, err), false
			continue
		}
		c.Log.Info("armed", "target", st.Name, "device", st.Device, "source", netip.AddrPortFrom(st.LocalIP, st.LocalPort),
			"listener", netip.AddrPortFrom(st.RemoteIP, st.RemotePort), "mac", st.RemoteMAC.String())
		armed = append(armed, st)
		done.Arm = append(done.Arm, spec)
	}
	if len(done.Arm) > 0 {
		errs = append(errs, c.settle()) // a queue's limit takes effect with the next frame: the canary
	}
	proofs, err := c.prove(ctx, d.Identity, armed)
	if err != nil {
		errs, complete = append(errs, err), false
	}
	for _, p := range proofs {
		if !p.Acked {
			errs, complete = append(errs, fmt.Errorf("%s to %s: %w: %s", p.Target, p.Listener, ErrUnproved, p.Why)), false
		}
	}
	if err != nil {
		proofs = unproved(armed, err)
	}
	drop := d.Plan.Drop
	if !complete {
		drop = retreat(done, proofs, before)
	} else {
		errs = append(errs, c.lastGood(d.Identity).Save(d.Found, d.mac, time.Now()))
	}
	left := slices.Concat(armed, d.Plan.Drop)
	for _, st := range drop {
		c.Log.Info("removing", "target", st.Name, "listener", netip.AddrPortFrom(st.RemoteIP, st.RemotePort))
		errs = append(errs, c.Netconsole.Disarm(st.Name))
		left = slices.DeleteFunc(left, func(l configfs.State) bool { return l.Name == st.Name })
	}
	if len(drop) > 0 {
		errs = append(errs, c.settle()) // nothing may send through their devices any more
	}
	return states(left, done.Arm, d.wanted, proofs, before), errors.Join(errs...)
}

// states are the targets that are left with what their proofs said, or what was known of them before. The fresh ones
// have no before: their names may have been used by others.
func states(left []configfs.State, fresh []configfs.Spec, all []wanted, proofs []Proof, before *State) []TargetState {
	list := []TargetState{}
	for _, st := range left {
		t := TargetState{Name: st.Name, Listener: netip.AddrPortFrom(st.RemoteIP, st.RemotePort)}
		if known, ok := before.target(st.Name); ok && !slices.ContainsFunc(fresh, func(s configfs.Spec) bool { return s.Name == st.Name }) {
			t.LastAck, t.Why = known.LastAck, known.Why
		}
		t.OnLink = slices.ContainsFunc(all, func(w wanted) bool { return w.listener == t.Listener && w.hop.OnLink })
		if i := slices.IndexFunc(proofs, func(p Proof) bool { return p.Target == st.Name }); i >= 0 {
			t.note(proofs[i], time.Now())
		}
		list = append(list, t)
	}
	return list
}

// finish keeps s with what went wrong, for `status`.
func (c *Configurator) finish(s State, err error) (State, error) {
	s.Time, s.Version = time.Now(), c.Version
	if err != nil {
		s.Failed = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return s, errors.Join(err, c.Root.keepState(s))
}
