// Package cleanup turns "this kernel is dead" into pods that failed for a stated reason, a Node nothing is scheduled to, and
// a NodeDeath that outlives both; and into nothing at all when the evidence does not hold.
//
// An incident is accepted once (accept.go): its Node is found, package policy judges it, and the NodeDeath is created while the Node is
// fenced (create.go). From then on everything is one loop over the death and its Node (reconcile.go):
//
//	read      the death, the Node, and the Lease of its kubelet
//	judge     what is known now (work.go, policy.Decide)
//	Wait      keep the fence up while the authority allows it, and look again in 2 s
//	Hold      too many at once: keep the fence up, until the breaker has room
//	Refuse    it is contradicted: lift the fence
//	Record    it is true, and nothing follows: lift the fence
//	Act       do the steps of the plan that are not done, up to one that has to wait, and look again (steps.go)
//
// Each write names what was read, each step may be done twice, and what is done is written into the death. So a crash, a takeover and
// the first run are one path. Any number of replicas hear every node. The one that creates a death owns it, until its own Lease expires;
// every second each of them looks for what nobody works on, and continues there (scan.go, roster.go).
//
// The steps: pods in failover.go and deletion.go, the fence in fence.go, the Node in node.go, its condition in health.go, the machine in
// instance.go, who may be to blame in suspects.go. Beside the loop:
//
//	engine.go       what comes in, and what is in hand
//	intake.go       incidents that wait, in three lanes; heard.go remembers those that left it, state.go those that must survive a restart
//	claims.go       canaries; findings.go: kernels that are wounded and live; farewell.go: nodes that are about to go
//	unexplained.go  boots that ended without a word, each an inquiry (inquiry.go); fate.go asks the cloud about them, obituary.go has the
//	                node's own word, afterwards.go records what became known only then, restarted.go the pods that were restarted
//	calls.go        API calls: one after the other through queue.go, repeated until answered
package cleanup
