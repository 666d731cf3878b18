package configurator

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/configurator/canary"
	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/endpoint"
	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// passAfterTheFact is a pass on a kernel without netconsole. Nothing can be armed, but listeners are found and proved all the
// same, by canaries that we send ourselves: the next boot tells them how this one ended.
func (c *Configurator) passAfterTheFact(ctx context.Context, known *endpoint.Found, before *machine.State, quiet bool) (p passed, err error) {
	d, draftErr := c.draft(ctx, known, before, c.Root.MakeSecret, func() (configfs.Support, error) { return configfs.Support{}, nil })
	c.enterBoot(d.Identity)
	s := machine.State{
		Identity: d.Identity, Zone: d.zone, Where: d.Found.Where, Passed: d.Found.Passed,
		AfterTheFact: true, Targets: []machine.TargetState{}, Silent: avoided(before, c.Uptime()),
	}
	p = passed{found: d.Found, query: d.query, chosen: d.chosen, canary: true}
	errs := []error{draftErr}
	if draftErr == nil && quiet && provenAfterTheFact(before, d.wanted) {
		s.Targets, p.canary = before.Targets, false
	} else if len(d.wanted) > 0 {
		errs = append(errs, c.proveAfterTheFact(ctx, d, before, draftErr == nil, &s))
	}
	p.state, err = c.finish(s, errors.Join(errs...))
	return p, err
}

// provenAfterTheFact reports whether the last pass proved exactly these listeners.
func provenAfterTheFact(before *machine.State, all []wanted) bool {
	return before != nil && before.AfterTheFact && before.Failed == "" && len(before.Targets) == len(all) &&
		!slices.ContainsFunc(all, func(w wanted) bool {
			t, ok := before.Target(w.listener.String())
			return !ok || !t.Acked || !t.Known || t.Local.Addr() != w.hop.Source
		})
}

// proveAfterTheFact sends canaries to the draft's listeners and writes the outcome into s. With endpoint.key a listener gets the
// secret only once it has proved itself.
func (c *Configurator) proveAfterTheFact(ctx context.Context, d Draft, before *machine.State, complete bool, s *machine.State) error {
	secret, err := c.Root.Secret(d.Identity.Boot)
	if err != nil {
		return err
	}
	id := netconsole.Identity{Instance: d.Identity.Instance, Boot: d.Identity.Boot}
	if c.Config.Endpoint.Key == nil {
		id.Secret = secret
	}
	facts := c.Root.Facts(c.Version)
	facts.NoNetconsole = true
	var list []canary.Route
	for _, w := range d.wanted {
		list = append(list, canary.Route{
			Target: w.listener.String(), Local: netip.AddrPortFrom(w.hop.Source, c.Config.LocalPort), Remote: w.listener, Own: &id,
		})
	}
	defer c.waiting("acknowledgements of the listeners")()
	proofs, err := c.Prove(ctx, d.Identity, facts, list)
	if err == nil && id.Secret == "" && slices.ContainsFunc(proofs, func(p canary.Proof) bool { return p.Acked && p.Known }) {
		proofs, err = c.proveWithSecret(ctx, d.Identity, facts, secret, list, proofs)
	}
	s.Silent = noteSilence(s.Silent, d, proofs, c.Uptime())
	var errs []error
	if err != nil {
		errs, complete = append(errs, err), false
	}
	for i, r := range list {
		t := machine.TargetState{Name: r.Target, Listener: r.Remote, Local: r.Local}
		if former, ok := before.Target(r.Target); ok {
			t.LastAck, t.LastAckUptime = former.LastAck, former.LastAckUptime
		}
		proof := canary.Proof{}
		if i < len(proofs) {
			proof = proofs[i]
		} else if err != nil {
			proof.Why = err.Error()
		}
		c.note(&t, proof)
		s.Targets = append(s.Targets, t)
		if err == nil && !proof.Acked {
			errs, complete = append(errs, fmt.Errorf("listener %s: %w: %s", r.Remote, ErrUnproved, proof.Why)), false
		}
	}
	if complete {
		if err := c.lastGood(d.Identity).Save(d.Found, d.mac, time.Now()); err != nil {
			c.Log.Warn("a boot at which no listener can be looked up would not find these", "err", err)
		}
	}
	return errors.Join(errs...)
}

// proveWithSecret proves the listeners that know this node once more, and gives them the secret.
func (c *Configurator) proveWithSecret(ctx context.Context, id machine.Identity, facts machine.Facts, secret netconsole.Secret,
	list []canary.Route, proofs []canary.Proof) ([]canary.Proof, error) {
	var again []canary.Route
	for i, r := range list {
		if proofs[i].Acked && proofs[i].Known {
			own := *r.Own
			own.Secret = secret
			r.Own = &own
			again = append(again, r)
		}
	}
	more, err := c.Prove(ctx, id, facts, again)
	if err != nil {
		return proofs, err
	}
	for _, p := range more {
		i := slices.IndexFunc(proofs, func(o canary.Proof) bool { return o.Target == p.Target })
		proofs[i] = p
	}
	return proofs, nil
}

// afterTheFact judges a node without netconsole by its last pass, nil if there was none since boot; now is uptime.
func (s *Status) afterTheFact(now time.Duration, last *machine.State) {
	if last == nil || !last.AfterTheFact {
		return
	}
	s.Findings[0].Cost = "a panic is heard only after the fact, once this node runs again"
	if last.Failed != "" || len(last.Targets) == 0 {
		return
	}
	s.Verdict = AfterTheFact
	for _, t := range last.Targets {
		switch {
		case !t.Acked || stale(now, *last, t):
			s.Verdict = Mute
			s.Findings = append(s.Findings, machine.Finding{What: "listener " + t.Listener.String() + " does not acknowledge canaries",
				Cost: "it may not hear how this node died", Mend: "run lastgasp-configurator apply for the reason, and keep lastgasp-configurator-watch.service running"})
		case !t.Known:
			s.Findings = append(s.Findings, strangerFinding(t.Listener.String()))
		}
	}
}
