package policy

import (
	"cmp"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Names of the steps, as they stand in records and in the audit log.
const (
	StepFence  = "fence"
	StepRecord = "record"
	StepList   = "list"
	StepFail   = "fail"
	StepTell   = "tell"
	StepDetach = "detach"
	StepDelete = "delete"
	// StepInstance is there only where Policy.AfterPanic asks for it.
	StepInstance = "instance"
	StepNode     = "node"
	StepExpire   = "expire"
	// StepDistrust is no step of a plan: it tells other replicas that the record's source was contradicted.
	StepDistrust = "distrust"
)

// Step is one line of a Plan. All of them are idempotent.
type Step struct {
	Name string
	What string // for people
}

// Plan is what follows from a decision to act: a plain value, to be printed, compared and carried out.
type Plan struct {
	Record string
	Node   string
	Death  Death
	Verb   NodeVerb
	// AfterPanic is what is done with the machine.
	AfterPanic AfterPanic
	// DetachFor bounds how long the volumes are waited for, and with it the out-of-service taint.
	DetachFor time.Duration
	AwaitTill time.Time // NodeAwait: when a node that is not back is deleted
	KeepTill  time.Time // when kept pods are deleted, zero if none are kept
	Steps     []Step
}

// detachFor is how long volumes may take to detach before the Node goes without waiting for them. With the
// out-of-service taint it takes 0.1 s, without it 6 minutes.
const detachFor = 2 * time.Minute

// NewPlan says what follows from r under p.
func NewPlan(p Policy, r Record) Plan {
	plan := Plan{
		Record: r.Name, Node: r.Node, Death: death(r), Verb: p.NodeVerb, AfterPanic: p.AfterPanic, DetachFor: detachFor,
	}
	plan.add(StepFence, "taint node %s, so that nothing more is scheduled to it", r.Node)
	plan.add(StepRecord, "create kernelpanic %s, the claim on everything below", r.Name)
	plan.add(StepList, "list the pods on it")
	plan.add(StepFail, "mark them Failed, reason %s; leave alone what ended before or started after the gasp", plan.Death.Code)
	plan.add(StepTell, "tell by events on the node and on the pods' owners")
	plan.add(StepDetach, "if volumes are attached, taint the node out-of-service for at most %s", detachFor)

	expire := func() {}
	if p.KeepPods > 0 {
		plan.KeepTill = r.Time.Add(p.KeepPods)
		plan.add(StepDelete, "delete the Failed pods of Jobs")
		expire = func() { plan.add(StepExpire, "delete the other Failed pods %s after the gasp", p.KeepPods) }
	} else {
		plan.add(StepDelete, "delete the Failed pods, those of Jobs first")
	}
	if p.AfterPanic != LeaveInstance {
		plan.add(StepInstance, "%s instance %s once its whole trace is on record, unless it is back by itself",
			p.AfterPanic, cmp.Or(r.Instance, "(unknown)"))
	}
	switch p.NodeVerb {
	case NodeDelete:
		expire() // before the Node: PodGC removes every pod of a Node that is gone
		plan.add(StepNode, "delete the node once its volumes are gone, unless it is back on a new boot")
	case NodeAwait:
		plan.AwaitTill = r.Time.Add(p.AwaitTimeout)
		plan.add(StepNode, "lift the fence when the node is Ready on a new boot, delete it if it is not back within %s", p.AwaitTimeout)
		expire()
	case NodeAnnotate:
		plan.add(StepNode, "keep the node, fenced until it is Ready on a new boot")
		expire()
	}
	return plan
}

func (p *Plan) add(name, format string, args ...any) {
	p.Steps = append(p.Steps, Step{Name: name, What: fmt.Sprintf(format, args...)})
}

// String prints the plan, one step a line.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "node %s, %s at %s\n", p.Node, p.Death.Reason, p.Death.Time.UTC().Format(time.RFC3339))
	for i, s := range p.Steps {
		fmt.Fprintf(&b, "%d. %-7s %s\n", i+1, s.Name, s.What)
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

// death is what the pods of r's node are told.
func death(r Record) Death {
	d := Death{
		Record: r.Name,
		Code:   cmp.Or(r.Code, "KernelPanic"),
		Reason: cmp.Or(firstLine(r.Title), "kernel panic"),
		Time:   r.Time,
	}
	d.Message = fmt.Sprintf("%s on node %s", d.Reason, r.Node)
	if r.Release != "" {
		d.Message += ", kernel " + r.Release
	}
	if r.Remedy != "" {
		d.Message += "; " + r.Remedy
	}
	d.Message += "; see kernelpanic " + r.Name
	return d
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
