// Package cleanup turns "this kernel is dying" into pods that failed for a stated reason, a Node nothing is scheduled to,
// and a record that outlives both; and into nothing at all when the evidence does not hold.
//
// Reading order: Policy.Decide (decide.go) is the judgement, one pure function. Plan (plan.go) is what follows from it,
// a plain value. The Engine carries plans out against a Cluster (cluster.go), which listener/kube implements:
//
//	engine.go     incidents and canaries come in, one job for each death
//	job.go        how a job makes its API calls, through queue.go, and shows meanwhile that it lives
//	hear.go       first half of a job: find the Node, fence it (fence.go), claim the incident (claim.go), weigh witnesses
//	steps.go      second half: the steps of the plan, pods in failover.go, volumes and Node in node.go, the machine
//	              below it in instance.go
//	save.go       the record as write-ahead log and sign of life
//	watch.go      what has no job: takeovers, held records, fences to lift, old records; decided in roster.go
//	pin.go        canaries
//	directory.go  what there is instead of all this without a cluster
//
// Any number of listeners may work on one cluster, all hearing every node. The KernelPanic record is claim and
// write-ahead log: whoever creates it owns the incident, and who falls silent loses it. Every step is idempotent, reads
// what it needs, and says in each write what it was decided on, so that doing it again, or from elsewhere, is harmless.
package cleanup
