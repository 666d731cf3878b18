package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lastgasp/lastgasp/e2e/story"
)

// traceShown is how many lines of the trace the demo shows.
const traceShown = 12

// report prints what happened, for a person.
func report(ctx context.Context, out io.Writer, w *story.World, n *story.Node, d story.Death) error {
	fmt.Fprintf(out, "\n%s died. Seconds from the moment the listener heard it:\n\n", n.Name)
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	type milestone struct {
		at   time.Time
		what string
	}
	milestones := []milestone{
		{d.Panic, "the kernel is made to panic"},
		{d.Heard, "its last gasp arrives: " + d.NodeDeath.Spec.Reason},
		{d.Fenced, "the node is fenced: nothing new is scheduled there"},
		{d.Recorded, "a NodeDeath records it, authority " + d.NodeDeath.Spec.Authority},
		{d.PodsFailed, fmt.Sprintf("its %d pods have failed, with the reason", d.NodeDeath.Status.Pods.Failed)},
		{d.Replaced, "the services run elsewhere"},
		{d.PodsGone, "the dead pods are gone"},
		{d.NodeGone, "the node is gone"},
		{d.JobRetried, fmt.Sprintf("both Jobs have retried, which cost %d of its retries with the policy and %d without",
			d.Policy.Failed, d.Plain.Failed)},
	}
	slices.SortStableFunc(milestones, func(a, b milestone) int { return a.at.Compare(b.at) })
	for _, m := range milestones {
		fmt.Fprintf(tw, "%+.3f s\t  %s\n", m.at.Sub(d.Heard).Seconds(), m.what)
	}
	tw.Flush()

	table, err := w.Cluster.Kubectl(ctx, "get", "nodedeaths")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n$ kubectl get nodedeaths\n%s", table)
	fmt.Fprintf(out, "\nWhy did pod %s die?\n", d.FailedPod.Name)
	for _, c := range d.FailedPod.Status.Conditions {
		if string(c.Type) == "DisruptionTarget" {
			fmt.Fprintf(out, "  phase %s, reason %s, condition %s=%s\n", d.FailedPod.Status.Phase, d.FailedPod.Status.Reason, c.Type, c.Status)
		}
	}
	fmt.Fprintf(out, "  %s\n", d.FailedPod.Annotations["lastgasp.dev/termination-reason"])
	fmt.Fprintf(out, "\nThe kept trace, %d lines:\n", len(d.NodeDeath.Spec.Trace))
	fmt.Fprint(out, indent(strings.Join(d.NodeDeath.Spec.Trace[:min(traceShown, len(d.NodeDeath.Spec.Trace))], "\n")))
	fmt.Fprintln(out)
	return nil
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.TrimRight(text, "\n") + "\n") {
		b.WriteString("        " + line)
	}
	return b.String()
}
