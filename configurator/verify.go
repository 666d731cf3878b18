package configurator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/configurator/canary"
	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/machine"
)

// Verify proves every armed target as it is and saves the outcome for `status`. It resolves nothing and changes no target.
func (c *Configurator) Verify(ctx context.Context) ([]canary.Proof, error) {
	unlock, err := c.lock(ctx)
	if err != nil {
		return []canary.Proof{}, err
	}
	defer unlock()
	present, err := c.Netconsole.List()
	if err != nil {
		return []canary.Proof{}, err
	}
	armed := slices.DeleteFunc(present, func(st configfs.State) bool { return !st.Enabled })
	if c.lacksNetconsole() {
		return []canary.Proof{}, fmt.Errorf("%w: %s", configfs.ErrNoModule, c.Root.NoNetconsole())
	}
	if len(armed) == 0 {
		return []canary.Proof{}, fmt.Errorf("%w: no target is armed; run lastgasp-configurator apply", ErrUnproved)
	}
	before, err := c.Root.State()
	if err != nil {
		c.Log.Warn("the state of the last pass is lost", "err", err)
	}
	id, err := c.Root.Identity(idOf(c.instanceOnce(ctx), before))
	if err != nil {
		return []canary.Proof{}, err
	}
	proofs, err := c.prove(ctx, id, armed, nil)
	switch {
	case ctx.Err() != nil: // interrupted: what was proved before stands
		return []canary.Proof{}, err
	case err != nil:
		return []canary.Proof{}, errors.Join(err, c.saveProofs(before, armed, unproved(armed, err)))
	}
	errs := []error{c.saveProofs(before, armed, proofs)}
	for _, p := range proofs {
		if !p.Acked {
			errs = append(errs, fmt.Errorf("%s to %s: %w", p.Target, p.Listener, ErrUnproved))
		}
	}
	return proofs, errors.Join(errs...)
}

// saveProofs saves the outcome of canaries in s, what the last pass saved, for `status` and the metrics: a proof for each of the
// armed targets, as it is now. If that is lost, the next pass saves it again.
func (c *Configurator) saveProofs(s *machine.State, armed []configfs.State, proofs []canary.Proof) error {
	if s == nil {
		return nil
	}
	for i, st := range armed {
		for j := range s.Targets {
			if t := &s.Targets[j]; t.Name == st.Name {
				t.Listener, t.Local = st.Remote(), st.Local()
				t.MAC, t.LocalMAC = st.RemoteMAC.String(), st.LocalMAC.String()
				c.note(t, proofs[i])
			}
		}
	}
	err := c.Root.SaveState(*s)
	c.WriteMetrics()
	return err
}

// note writes the outcome of the latest canary into t.
func (c *Configurator) note(t *machine.TargetState, p canary.Proof) {
	t.Acked, t.Known, t.RTT, t.Why = p.Acked, p.Known, p.RTT, p.Why
	if p.Acked {
		t.LastAck, t.LastAckUptime = time.Now(), c.Uptime()
	}
}

// prove writes canaries and returns the proofs of the armed targets, then of the old ones. It does not wait for
// acknowledgements of the old ones, but notes those that arrive.
func (c *Configurator) prove(ctx context.Context, id machine.Identity, armed, olds []configfs.State) ([]canary.Proof, error) {
	if len(armed)+len(olds) == 0 {
		return nil, nil
	}
	list := routes(armed)
	for _, r := range routes(olds) {
		r.Optional = len(armed) > 0
		list = append(list, r)
	}
	defer c.waiting("acknowledgements of the listeners")()
	return c.Prove(ctx, id, c.Root.Facts(c.Version), list)
}

// unproved returns the proofs of targets for which err prevented a canary.
func unproved(targets []configfs.State, err error) []canary.Proof {
	var proofs []canary.Proof
	for _, r := range routes(targets) {
		proofs = append(proofs, canary.Proof{Target: r.Target, Listener: r.Remote, Why: err.Error()})
	}
	return proofs
}

// routes returns what a Prover needs to know about targets.
func routes(targets []configfs.State) []canary.Route {
	var list []canary.Route
	for _, st := range targets {
		list = append(list, canary.Route{Target: st.Name, Local: st.Local(), Remote: st.Remote()})
	}
	return list
}
