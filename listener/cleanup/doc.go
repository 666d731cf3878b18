// Package cleanup turns "this kernel is dead" into pods that failed for a stated reason, a Node nothing is scheduled to, and
// a NodeDeath that outlives both; and into nothing at all when the evidence does not hold.
//
// What is judged, and what follows from it, is package policy's. Here an Engine carries it out against a Cluster
// (cluster.go), which listener/kube implements. Reading order:
//
//	engine.go     incidents and canaries come in; what is in hand, and how it ends
//	intake.go     incidents that wait, in three lanes; heard.go remembers those that left it
//	accept.go     the only way from an incident to a NodeDeath: find the Node, judge; create.go creates the death and fences
//	reconcile.go  what a death and its Node ask for next, again and again: the first time, after a crash, after a takeover
//	steps.go      the steps of a plan; pods in failover.go and deletion.go, fence and Node in fence.go and node.go, the machine
//	              in instance.go
//	suspects.go   who may be to blame
//	scan.go       what nobody works on: takeovers, held deaths, fences to lift, late pods, old deaths; roster.go knows which
//	              replicas are alive
//	claims.go     canaries; findings.go kernels that are wounded and live; health.go the Node's condition
//	unexplained.go  boots that ended without a word, each an inquiry (inquiry.go); fate.go asks the cloud about them,
//	              obituary.go has the node's own word, afterwards.go records deaths from which nothing follows
//	restarted.go  pods that lost a container to a death that is only on record
//	state.go      incidents that must survive a restart
//	calls.go      API calls: one after the other through queue.go, repeated until answered
//
// Any number of listeners may work on one cluster, all hearing every node. The replica that creates the NodeDeath owns it,
// and loses it if its Lease expires. Every step is idempotent, reads what it needs, and says in each write what it was
// decided on, so that doing it again, or from elsewhere, is harmless.
package cleanup
