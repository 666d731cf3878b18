package policy

import (
	"cmp"
	"fmt"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// Answer is what to do about an incident.
type Answer int

const (
	// Refuse it: contradicted, or not ours to act on.
	Refuse Answer = iota
	// Wait for a witness.
	Wait
	// Record it: true, and nothing follows. The node is back on another boot, or is left out.
	Record
	// Hold it: true, but too many at once. The Node is fenced, nothing is failed or deleted.
	Hold
	// Act on it.
	Act
)

// String is the answer's name in logs and metrics.
func (a Answer) String() string { return [...]string{"refuse", "wait", "record", "hold", "act"}[a] }

// Decision is an answer with its reason.
type Decision struct {
	Answer    Answer
	Authority detect.Authority
	Why       string // one sentence, for log, death and event
	// Fence says that the Node may carry our taint: with Act and Hold always, with Wait for a bounded time.
	Fence bool
	// Distrust says that the source was contradicted: its Node is not fenced early for a while. Only addresses of Nodes are
	// distrusted: other senders can have nothing fenced, and there is no bound on their number.
	Distrust bool
	// LeftOut says why nothing follows from a true death: NodeExcluded or ControlPlane. It is empty for all others.
	LeftOut string
}

// Why nothing follows from a true death: reasons of its condition Complete.
const (
	NodeExcluded = "NodeExcluded" // by ExcludeLabel
	ControlPlane = "ControlPlane"
)

// Lookup is the result of looking up an incident's Node.
type Lookup int

const (
	Found     Lookup = iota
	NoNode           // no Node answers to the sender
	Ambiguous        // several do, and neither boot nor pin tells which
	Denied           // the API server refuses to say
)

// View is what is known when an incident is judged.
type View struct {
	Now    time.Time
	Lookup Lookup
	Node   Node  // as it reads now
	First  Node  // as it read when the incident was first judged; equal to Node then
	Lease  Lease // what was seen of the kubelet's Lease since
	// Judged is when this replica first judged the incident: an early fence is bounded from then on.
	Judged time.Time
	// Heard: this replica heard the incident itself. What it only read from a NodeDeath, whoever wrote that, waits for the
	// witness.
	Heard bool
	// Sum is the SHA-256 of the secret that was heard, empty if there was none.
	Sum string
	// Distrusted: the source was contradicted on this authority recently.
	Distrusted bool
	// Early: one more Node may be fenced before there is a witness.
	Early bool
	// Room: the breaker lets this node pass.
	Room bool
	// Released: a human let this death pass the breaker.
	Released bool
	// Proved: the death is, or was, on record as a true one, which was held or acted on.
	Proved bool
	// Ended says in a sentence that the machine does not run any more, by the cloud's word. It is empty if the cloud was not
	// asked or says anything else.
	Ended string
}

// maxFailedLooks is how many looks in a row may go without an answer, one every two seconds, before the wait for a witness
// ends.
const maxFailedLooks = 300

// Decide judges an incident. It never takes a missing answer for a witness. What is said of a node that is left out is judged like
// anything else, but nothing follows from it, and it takes no room of others.
func (p Policy) Decide(inc detect.Incident, v View) Decision {
	p = p.PolicyFor(v.Node)
	reason, why := p.leavesOut(v.Node)
	if reason == "" {
		return p.decide(inc, v)
	}
	v.Room = true
	d := p.decide(inc, v)
	d.Fence = false
	if d.Answer == Act {
		d.Answer, d.LeftOut, d.Why = Record, reason, d.Why+"; "+why+", so nothing follows"
	}
	return d
}

// decide is Decide for a node that may be acted on.
func (p Policy) decide(inc detect.Incident, v View) Decision {
	authority := Authority(inc, v.Sum, v.First)
	say := func(a Answer, format string, args ...any) Decision {
		return Decision{Answer: a, Authority: authority, Why: fmt.Sprintf(format, args...)}
	}
	contradicted := func(format string, args ...any) Decision {
		d := say(Refuse, format, args...)
		d.Distrust = true
		return d
	}
	boot := cmp.Or(inc.Identity.Boot, v.First.BootID)

	switch {
	case v.Lookup == Ambiguous:
		return say(Refuse, "more than one Node answers to %s", sender(inc))
	case v.Lookup == Denied:
		return say(Refuse, "the API server denies the look-up of %s", sender(inc))
	case v.Lookup == NoNode && v.Proved:
		return say(Record, "node %s is gone, and its death had been decided on before", v.First.Name)
	case v.Lookup == NoNode && v.First.Name != "":
		return say(Refuse, "node %s is gone", v.First.Name)
	case v.Lookup == NoNode:
		return say(Refuse, "no Node answers to %s", sender(inc))
	case authority == detect.Text:
		return contradicted("plain text, which anybody could have sent")
	case v.Node.UID != v.First.UID && !(v.Proved && v.Node.BootID != boot):
		return say(Refuse, "node %s was deleted and registered again after the panic", v.Node.Name)
	case v.Node.BootID != boot && v.First.BootID == boot:
		return say(Record, "node %s has rebooted into boot %s; what runs on it is alive", v.Node.Name, v.Node.BootID)
	case v.Node.BootID != boot && v.Node.knows(boot, v.Sum):
		return say(Record, "boot %s of node %s had this secret, and the node runs boot %s now", boot, v.Node.Name, v.Node.BootID)
	case v.Node.BootID != boot:
		return contradicted("node %s runs boot %s, but the panic came from boot %s", v.Node.Name, v.Node.BootID, boot)
	case v.Lease.Alive():
		return contradicted("the kubelet of node %s renewed its Lease %s after the panic", v.Node.Name,
			v.Now.Sub(inc.Time).Round(time.Second))
	}

	atOnce := v.Heard && authority >= p.ActAt
	// The silence of a node that was lost before the panic was heard proves nothing. The control plane's clock is asked only
	// where we did not see the silence begin. A kubelet that reports NotReady is alive, not silent. The console is read
	// because the node is silent, so its silence always comes first.
	lost := v.Node.Silent && v.First.Silent && !v.Node.SilentSince.After(inc.Time.Add(skew)) && authority != detect.Cloud && !v.Proved
	// Whoever may write the status of Nodes can call any of them silent. The Lease must not contradict it, nor be deleted. A node may
	// die before its kubelet has made one. A console is read after the silence has begun, so that a Lease which says that it was not
	// renewed since is enough.
	deleted := v.Lease.Missing && inc.Time.Sub(v.Node.Created) > leaseMade
	unrenewed := authority == detect.Cloud && !v.Lease.Doubtful(inc.Time) || v.Lease.Overdue(v.Now) || v.Lease.Unread()
	silent := v.Node.Silent && !lost && unrenewed && !deleted
	switch {
	case atOnce && !v.Lease.Doubtful(inc.Time):
		return p.pass(v, say(Act, "%v authority", authority))
	case v.Ended != "":
		return p.pass(v, say(Act, "%v authority, and %s", authority, v.Ended))
	case silent:
		return p.pass(v, say(Act, "%v authority, and the control plane no longer hears from node %s", authority, v.Node.Name))
	case v.Lease.Silent(v.Now) && lost && !atOnce:
		return contradicted("%v authority, and the silence of node %s proves nothing: the control plane had lost it before",
			authority, v.Node.Name)
	case v.Lease.Silent(v.Now) && (atOnce || !withheld(inc, v)):
		return p.pass(v, say(Act, "%v authority, and the Lease of node %s was not renewed for %s",
			authority, v.Node.Name, v.Now.Sub(v.Lease.Since).Round(time.Second)))
	case v.Lease.Failed >= maxFailedLooks:
		return say(Refuse, "%v authority, and it is unknown whether node %s is alive: its Lease could not be read", authority, v.Node.Name)
	}
	d := say(Wait, "%v authority, waiting for a witness", authority)
	if v.Lease.Silent(v.Now) {
		d.Why = fmt.Sprintf("%v authority, and the Lease of node %s is not enough: this boot has pinned a secret, and the incident came without it",
			authority, v.Node.Name)
	}
	d.Fence = v.Heard && authority == detect.Pinned || p.fenceEarly(authority, v)
	return d
}

// CallsSick reports whether inc, whose kernel runs on, suffices for the condition of n to call the kernel sick. Others drain and
// replace nodes because of the condition, so it takes a finding with a remedy, and the authority that a death needs to be
// acted on at once: there is no witness for sickness. Sum is the SHA-256 of the secret that inc came with.
func (p Policy) CallsSick(inc detect.Incident, sum string, n Node) bool {
	p = p.PolicyFor(n)
	boot := inc.Identity.Boot
	return inc.Remedy != "" && (boot == "" || boot == n.BootID) && Authority(inc, sum, n) >= p.ActAt && p.ActsOn(n)
}

// fenceEarly reports whether v's Node may be fenced before there is a witness, on less than a pinned secret: for
// Corroborate, and for longer only while its kubelet is overdue.
func (p Policy) fenceEarly(a detect.Authority, v View) bool {
	overdue := v.Node.Silent || v.Lease.Overdue(v.Now)
	return a >= detect.Kernel && !v.Distrusted && v.Early && (overdue || v.Now.Sub(v.Judged) < p.Corroborate)
}

// withheld reports whether inc was heard without the secret that its node pinned. A pod that starves its kubelet of CPU,
// or waits for its restart, can send such an incident while the Lease is renewed late.
func withheld(inc detect.Incident, v View) bool {
	pin := v.Node.PinOnWire()
	return v.Heard && inc.Source.IsValid() && pin != (Pin{}) && v.Sum != pin.Sum
}

// pass turns d into a Hold where the breaker has no room.
func (p Policy) pass(v View, d Decision) Decision {
	d.Fence = true
	if !v.Room && !v.Released {
		d.Answer = Hold
		d.Why += fmt.Sprintf("; held: the limit is %d nodes or %d%% of all within %s", p.MaxNodes, p.MaxPercent, p.Window)
	}
	return d
}

// sender names the sender of inc as the incident itself does.
func sender(inc detect.Incident) string {
	if inc.Identity.Instance == "" {
		return "address " + inc.Source.Addr().String()
	}
	return fmt.Sprintf("instance %s with address %s", inc.Identity.Instance, inc.Source.Addr())
}
