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
	"github.com/lastgasp/lastgasp/configurator/machine"
)

// Verify has every armed target proved as it stands and notes the outcome for `status`. It resolves nothing and changes
// no target.
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
	if len(armed) == 0 {
		return []canary.Proof{}, fmt.Errorf("%w: no target is armed; run lastgasp-configurator apply", ErrUnproved)
	}
	id, err := c.Root.Identity(idOf(c.instanceOnce(ctx)))
	if err != nil {
		return []canary.Proof{}, err
	}
	proofs, err := c.prove(ctx, id, armed)
	if err != nil {
		return []canary.Proof{}, errors.Join(err, c.noteProofs(unproved(armed, err), time.Now()))
	}
	errs := []error{c.noteProofs(proofs, time.Now())}
	for _, p := range proofs {
		if !p.Acked {
			errs = append(errs, fmt.Errorf("%s to %s: %w", p.Target, p.Listener, ErrUnproved))
		}
	}
	return proofs, errors.Join(errs...)
}

// noteProofs keeps for `status` what canaries said at now.
func (c *Configurator) noteProofs(proofs []canary.Proof, now time.Time) error {
	s, err := c.Root.State()
	if err != nil || s == nil {
		return err
	}
	for i := range s.Targets {
		for _, p := range proofs {
			if p.Target == s.Targets[i].Name {
				note(&s.Targets[i], p, now)
			}
		}
	}
	return c.Root.SaveState(*s)
}

// note writes down in t what a proof said at now.
func note(t *machine.TargetState, p canary.Proof, now time.Time) {
	t.RTT, t.Why = p.RTT, p.Why
	if p.Acked {
		t.LastAck = now
	}
}

// prove has canaries tell which of the armed targets are heard.
func (c *Configurator) prove(ctx context.Context, id machine.Identity, armed []configfs.State) ([]canary.Proof, error) {
	if len(armed) == 0 {
		return nil, nil
	}
	return c.Prove(ctx, id, c.Root.Facts(c.Version), routes(armed))
}

// unproved is what is noted of the armed targets if proving them could not be tried because of err.
func unproved(armed []configfs.State, err error) []canary.Proof {
	var proofs []canary.Proof
	for _, r := range routes(armed) {
		proofs = append(proofs, canary.Proof{Target: r.Target, Listener: r.Remote, Why: err.Error()})
	}
	return proofs
}

// routes are what a Prover needs to know of targets.
func routes(armed []configfs.State) []canary.Route {
	var list []canary.Route
	for _, st := range armed {
		list = append(list, canary.Route{
			Target: st.Name,
			Local:  netip.AddrPortFrom(st.LocalIP, st.LocalPort),
			Remote: netip.AddrPortFrom(st.RemoteIP, st.RemotePort),
		})
	}
	return list
}
