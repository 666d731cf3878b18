// Package policy judges whether a kernel is dead and says what follows from it. It is pure: values in, decisions out. It
// has no clock, no context and no Kubernetes client; whoever calls it applies what was decided.
//
// Reading order: Policy.Decide (decide.go) is the judgement. Authority (authority.go) is how far an incident is believed,
// Lease (lease.go) is the witness, Plan (plan.go) is what follows. Node, Pod and Death are the values all of it is about.
package policy
