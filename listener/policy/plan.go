package policy

import (
	"cmp"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Names of the steps, as they stand in NodeDeaths and in the audit log.
const (
	StepFence  = "fence"
	StepList   = "list"
	StepFail   = "fail"
	StepEvents = "events"
	// StepCondition sets our condition on the Node.
	StepCondition = "condition"
	StepDetach    = "detach"
	StepDelete    = "delete"
	// StepInstance is there only where Policy.AfterPanic asks for it.
	StepInstance = "instance"
	StepNode     = "node"
	// StepExpire is there only where pods are kept.
	StepExpire = "expire"
	// StepDistrust is not part of any plan: it shows other replicas that the source was contradicted.
	StepDistrust = "distrust"
)

// Step is one line of a Plan. All of them are idempotent.
type Step struct {
	Name string
	What string // for people
}

// Plan is what follows from a decision to act: a plain value, to be printed, compared and executed.
type Plan struct {
	Death  string // name of the NodeDeath
	Node   string
	Notice Notice
	Verb   NodeVerb
	// AfterPanic is what is done with the machine.
	AfterPanic AfterPanic
	// DetachFor bounds the wait for the volumes, and with it the out-of-service taint.
	DetachFor time.Duration
	AwaitTill time.Time // when a node that is awaited and not back is deleted
	KeepTill  time.Time // when pods that nobody owns are deleted, zero if none are kept
	// LearnFor is how long the failed pods of controllers that are not part of Kubernetes are kept.
	LearnFor time.Duration
	Steps    []Step
}

// detachFor is how long volumes may take to detach before the Node goes without waiting for them. With the
// out-of-service taint it takes 0.1 s, without it 6 minutes.
const detachFor = 2 * time.Minute

// learnFor is how long failed pods stay if their controller is not part of Kubernetes. Argo Workflows and Tekton read in the pod
// why a step failed, and take a pod that is gone for another kind of error, which they retry under another policy or not at
// all. Others, actions-runner-controller among them, create the next pod under the same name, once the old one is gone.
const learnFor = 30 * time.Second

// NewPlan says what follows from d for its node n under p.
func NewPlan(p Policy, d Death, n Node) Plan {
	p = p.PolicyFor(n)
	plan := Plan{
		Death: d.Name, Node: d.Node, Notice: NoticeOf(d), Verb: p.NodeVerb, AfterPanic: p.AfterPanic, DetachFor: detachFor,
	}
	deletes := plan.Verb == NodeDelete || plan.Verb == NodeDeleteClaim && n.NodeClaim.Name == ""
	if deletes && n.Quarantined {
		plan.Verb = NodeAwait // if it were deleted, it would come back without its cordon and taints
	}
	plan.add(StepFence, "taint node %s, so that nothing more is scheduled to it", d.Node)
	plan.add(StepList, "list the pods on it")
	plan.add(StepFail, "mark them Failed, reason %s; leave alone what ended before or started after the panic", plan.Notice.Cause)
	plan.add(StepEvents, "emit events on the node, on the pods and on their owners")
	plan.add(StepCondition, "set the node's condition: its kernel is not healthy")
	plan.add(StepDetach, "if volumes are attached, taint the node out-of-service for at most %s", detachFor)

	expire := func() {}
	if p.KeepPods > 0 {
		plan.KeepTill, plan.LearnFor = d.Time.Add(p.KeepPods), min(learnFor, p.KeepPods)
		plan.add(StepDelete, "delete the Failed pods that Kubernetes replaces, those of Jobs first")
		expire = func() {
			plan.add(StepExpire, "delete those of other controllers %s after they failed, the rest %s after the panic", plan.LearnFor, p.KeepPods)
		}
	} else {
		plan.add(StepDelete, "delete the Failed pods, those of Jobs first")
	}
	if p.AfterPanic != LeaveInstance {
		plan.add(StepInstance, "%s once its whole trace is on record, unless it is back by itself",
			p.AfterPanic.Do("instance "+cmp.Or(n.Instance(), "(unknown)")))
	}
	switch plan.Verb {
	case NodeDelete:
		expire() // before the Node: PodGC removes every pod of a Node that is gone
		plan.add(StepNode, "delete the node once its volumes are gone, unless it is back on a new boot")
	case NodeDeleteClaim:
		expire()
		plan.add(StepNode, "delete nodeclaim %s once the volumes are gone, unless the node is back on a new boot",
			cmp.Or(n.NodeClaim.Name, "(none: the node itself)"))
	case NodeAwait:
		plan.AwaitTill = d.Time.Add(p.AwaitTimeout)
		plan.add(StepNode, "lift the fence when the node is back on a new boot, delete it if it is not back within %s", p.AwaitTimeout)
		expire()
	case NodeAnnotate:
		plan.add(StepNode, "keep the node, fenced until it is back on a new boot")
		expire()
	}
	return plan
}

// KeptTill is until when a pod that was failed at the time given is kept, zero if it is not.
func (p Plan) KeptTill(pod Pod, failed time.Time) time.Time {
	switch {
	case p.KeepTill.IsZero(), pod.Replaced():
		return time.Time{}
	case pod.Owned():
		return failed.Add(p.LearnFor)
	}
	return p.KeepTill
}

func (p *Plan) add(name, format string, args ...any) {
	p.Steps = append(p.Steps, Step{Name: name, What: fmt.Sprintf(format, args...)})
}

// String prints the plan, one step a line.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "node %s, %s at %s\n", p.Node, p.Notice.Reason, p.Notice.Time.UTC().Format(time.RFC3339))
	for i, s := range p.Steps {
		fmt.Fprintf(&b, "%d. %-9s %s\n", i+1, s.Name, s.What)
	}
	return b.String()
}

// LogValue is the audit log's short form.
func (p Plan) LogValue() slog.Value {
	names := make([]string, len(p.Steps))
	for i, s := range p.Steps {
		names[i] = s.Name
	}
	return slog.StringValue(strings.Join(names, " "))
}

// Notice is what is written to the pods of a dead node.
type Notice struct {
	Death   string    // name of the NodeDeath
	Cause   string    // KernelPanic, …
	Reason  string    // one line: the headline
	Message string    // ≤ 1 KiB: headline, node, kernel, NodeDeath
	Time    time.Time // of the panic: when the pod stopped being ready
	Counts  bool      // the pod is no victim: its failure counts against the limits of its Job, see Holds
}

// NoticeOf returns what is written to the pods of d's node.
func NoticeOf(d Death) Notice {
	n := Notice{
		Death:  d.Name,
		Cause:  cmp.Or(d.Cause, "KernelPanic"),
		Reason: cmp.Or(FirstLine(d.Reason), "kernel panic"),
		Time:   d.Time,
	}
	n.Message = fmt.Sprintf("%s on node %s", n.Reason, d.Node)
	if d.Release != "" {
		n.Message += ", kernel " + d.Release
	}
	if d.Remedy != "" {
		n.Message += "; " + d.Remedy
	}
	n.Message += "; see nodedeath " + d.Name
	return n
}

// HealthOf is what the condition of d's Node says of the kernel that died.
func HealthOf(d Death) Health {
	n := NoticeOf(d)
	return Health{Unhealthy: d.Boot, Reason: n.Cause, Message: n.Message}
}

// FirstLine is s up to its first newline.
func FirstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
