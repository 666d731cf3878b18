package policy

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// Answer is what to do about an incident.
type Answer int

const (
	// Refuse it: contradicted, or not ours to act on.
	Refuse Answer = iota
	// Wait for a second witness, with the Node fenced.
	Wait
	// Hold it: true, but too many at once. Fenced and recorded, nothing deleted.
	Hold
	// Act on it.
	Act
)

// String is the answer's name in logs and metrics.
func (a Answer) String() string { return [...]string{"refuse", "wait", "hold", "act"}[a] }

// Decision is an answer with its reason.
type Decision struct {
	Answer    Answer
	Authority detect.Authority
	Why       string // one sentence, for log, record and event
	// Distrust tells that the source was contradicted and is not to be believed again for a while. It is a Node's: who is
	// none can have nothing fenced, and there would be no end of them to remember.
	Distrust bool
	// Repeated tells that the same, or too much, was refused a short while ago: it is neither recorded nor told.
	Repeated bool
}

// View is what is known when an incident is judged.
type View struct {
	Now   time.Time
	Found error // what the look-up of the Node answered: nil, ErrNotFound, ErrAmbiguous
	Node  Node  // as it reads now
	First Node  // as it read when the gasp was first judged; equal to Node then
	Lease Lease // what was seen of the kubelet's Lease since
	// Distrusted: the source was contradicted on this authority lately.
	Distrusted bool
	// Room: the breaker lets this node pass.
	Room bool
	// Released: a human let this incident pass the breaker.
	Released bool
}

// Decide is the whole judgement over an incident. It never reads a missing answer as a witness.
func (p Policy) Decide(inc detect.Incident, v View) Decision {
	authority := Authority(inc, v.First)
	say := func(a Answer, format string, args ...any) Decision {
		return Decision{Answer: a, Authority: authority, Why: fmt.Sprintf(format, args...)}
	}
	contradicted := func(format string, args ...any) Decision {
		d := say(Refuse, format, args...)
		d.Distrust = true
		return d
	}
	boot := cmp.Or(inc.Identity.Boot, v.First.BootID)
	waited := v.Now.Sub(inc.Time).Round(time.Second)

	switch {
	case v.Distrusted:
		d := say(Refuse, "source %s was contradicted less than %s ago", inc.Source.Addr(), p.Distrust)
		d.Repeated = true
		return d
	case errors.Is(v.Found, ErrAmbiguous):
		return say(Refuse, "more than one Node answers to %s", claimant(inc))
	case errors.Is(v.Found, ErrNotFound) && v.First.Name != "":
		return say(Refuse, "node %s is gone", v.First.Name)
	case errors.Is(v.Found, ErrNotFound):
		return say(Refuse, "no Node answers to %s", claimant(inc))
	case v.Found != nil:
		return say(Refuse, "the Node of %s could not be looked up: %v", claimant(inc), v.Found)
	case authority == detect.Text:
		return contradicted("plain text, which anybody could have sent")
	case v.Node.ControlPlane && !p.ControlPlane:
		return say(Refuse, "node %s belongs to the control plane", v.Node.Name)
	case v.Node.UID != v.First.UID:
		return say(Refuse, "node %s was deleted and registered anew since the gasp", v.Node.Name)
	case v.Node.BootID != boot && v.First.BootID != boot:
		return contradicted("node %s runs boot %s, the gasp is of boot %s", v.Node.Name, v.Node.BootID, boot)
	case v.Node.BootID != boot:
		return say(Refuse, "node %s has rebooted into boot %s, what is on it lives", v.Node.Name, v.Node.BootID)
	case v.Lease.Alive():
		return contradicted("the kubelet of node %s renewed its Lease %s after the gasp", v.Node.Name, waited)
	}

	switch {
	case authority >= p.ActAt && !v.Lease.Doubtful(inc.Time):
		return p.pass(v, say(Act, "%v authority", authority))
	case v.First.Ready && v.Node.Silent: // Ready that is False is the word of a kubelet that lives
		return p.pass(v, say(Act, "%v authority, and the control plane does not hear from node %s any more", authority, v.Node.Name))
	case v.Lease.Missing() && v.Now.Sub(v.Lease.First) >= p.Corroborate:
		return contradicted("%v authority, and no second witness within %s", authority, p.Corroborate)
	case !v.Lease.Silent(v.Now, p.Corroborate):
		return say(Wait, "%v authority, a second witness is wanted", authority)
	case authority < p.ActAt && v.First.Silent:
		return contradicted("%v authority, and the silence of node %s is no witness: the control plane had lost it before",
			authority, v.Node.Name)
	case authority < p.ActAt && withheld(inc, v.Node) && v.First.Ready: // until the control plane does not hear from it
		return say(Wait, "%v authority, and the Lease of node %s is no witness: this boot has a secret, which the gasp lacks",
			authority, v.Node.Name)
	case authority < p.ActAt && withheld(inc, v.Node):
		return contradicted("%v authority, and no witness but the Lease of node %s: this boot has a secret, which the gasp lacks",
			authority, v.Node.Name)
	}
	return p.pass(v, say(Act, "%v authority, and the Lease of node %s was not renewed for %s",
		authority, v.Node.Name, v.Now.Sub(v.Lease.Since).Round(time.Second)))
}

// withheld reports whether inc was heard without the secret that n's kernel does have. A pod that starves its kubelet of
// CPU, or waits until it is restarted, can bring about such a gasp and a Lease that is renewed late.
func withheld(inc detect.Incident, n Node) bool {
	return inc.Source.IsValid() && n.BootID != "" && n.Pin.Boot == n.BootID
}

// pass holds what the breaker does not let pass.
func (p Policy) pass(v View, d Decision) Decision {
	if !v.Room && !v.Released {
		d.Answer = Hold
		d.Why += fmt.Sprintf("; held: %d nodes or %d%% died within %s already", p.MaxNodes, p.MaxPercent, p.Window)
	}
	return d
}

// claimant is who an incident says it is.
func claimant(inc detect.Incident) string {
	if inc.Identity.Instance == "" {
		return "address " + inc.Source.Addr().String()
	}
	return fmt.Sprintf("instance %s with address %s", inc.Identity.Instance, inc.Source.Addr())
}
