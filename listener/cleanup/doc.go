// Package cleanup turns "this kernel is dying" into pods that failed for a stated reason, a Node nothing is scheduled to,
// and a record that outlives both; and into nothing at all when the evidence does not hold.
//
// Reading order: Policy.Decide (decide.go) is the judgement, one pure function. Plan (plan.go) is what follows from it,
// a plain value. The Engine carries plans out against a Cluster (cluster.go), which listener/kube implements:
//
//	engine.go   incidents and canaries come in, one job for each death
//	hear.go     a job's first half: find the Node, fence it, claim the incident, weigh the witnesses
//	steps.go    a job's second half: the steps of the plan
//	watch.go    what has no job: takeovers, held records, fences to lift, old records
//
// Any number of listeners may work on one cluster, all hearing every node. The KernelPanic record is claim and
// write-ahead log: whoever creates it owns the incident, and who falls silent loses it. Every step is idempotent, reads
// what it needs, and says in each write what it was decided on, so that doing it again, or from elsewhere, is harmless.
package cleanup
