package kube

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/lastgasp/lastgasp/listener/kube/v1alpha1"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// Bounds of single fields, in bytes. The schema (packaging/kubernetes/base/crd.yaml) counts characters, of which there
// are never more.
const (
	nameSize     = 253 // Nodes, pods, owners, replicas
	kindSize     = 63  // namespaces and kinds
	instanceSize = 256
	providerSize = 512 // of a Node's spec.providerID; those of Azure have some 250
	reasonSize   = 1024
	remedySize   = 2048
	releaseSize  = 128
	imageSize    = 512
	sentenceSize = 2048 // decisions and conditions' messages
	noteSize     = 1024 // of a step
	wordSize     = 64   // ids, addresses, fingerprints
	causeSize    = 63   // it is a label's value, too
	placeSize    = 128  // instance types and zones
)

// Bounds of a whole NodeDeath, as JSON. A datagram may bring any bytes, and JSON makes up to six of one.
const (
	specSize       = 384 << 10 // leaves 128 KiB of the 512 to status and metadata
	traceSize      = 128 << 10
	traceFloor     = 32 << 10 // pods are left out before the trace gets shorter than this
	traceLineSize  = 4 << 10  // before it is JSON
	traceLines     = 2048
	maxImagesOfPod = 64
	imagesSize     = 256 << 10 // of all pods, to which each may add its share

	maxDeathsOfSuspect = 32
)

// specFrom makes everything fit the schema. A death that the schema denied would never be on record, and one overlong field
// in a forged datagram would keep its node fenced.
func specFrom(d policy.Death) v1alpha1.NodeDeathSpec {
	spec := v1alpha1.NodeDeathSpec{
		Node:        printable(d.Node, nameSize),
		NodeUID:     printable(d.NodeUID, wordSize),
		Instance:    printable(d.Instance, instanceSize),
		Boot:        printable(d.Boot, wordSize),
		Time:        metav1.NewMicroTime(d.Time),
		Cause:       cmp.Or(letters(d.Cause, causeSize), "Unexplained"),
		Reason:      printable(d.Reason, reasonSize),
		Fingerprint: printable(d.Fingerprint, wordSize),
		Remedy:      printable(d.Remedy, remedySize),
		Release:     printable(d.Release, releaseSize),
		Authority:   d.Authority.String(),
	}
	if d.Source.IsValid() {
		spec.Source = printable(d.Source.String(), wordSize)
	}
	for _, e := range d.Evidence {
		if !slices.Contains(spec.Evidence, string(e)) {
			spec.Evidence = append(spec.Evidence, string(e))
		}
	}
	if c := d.Culprit; c != nil {
		spec.Culprit = &v1alpha1.Culprit{
			Comm: printable(c.Comm, wordSize), PID: max(c.PID, 0), CPU: max(c.CPU, 0),
			Cgroup: printable(c.Cgroup, reasonSize), Bystander: c.Bystander,
		}
		if c.Pod != "" || c.PodUID != "" {
			spec.Culprit.Pod = &v1alpha1.PodRef{
				Namespace: printable(c.Namespace, kindSize), Name: printable(c.Pod, nameSize), UID: printable(c.PodUID, wordSize),
			}
		}
	}
	if i := d.NodeInfo; i != (policy.NodeInfo{}) {
		spec.NodeInfo = &v1alpha1.NodeInfo{
			InstanceType: printable(i.InstanceType, placeSize), Zone: printable(i.Zone, placeSize),
			NodePool: printable(i.NodePool, nameSize), Image: printable(i.Image, instanceSize),
		}
	}
	// The trace gives way first, the pods next.
	room := specSize - jsonSize(spec)
	trace, omitted := boundTrace(d.Trace, traceSize)
	fitPods(&spec, d, room-min(jsonSize(trace), traceFloor))
	if left := room - jsonSize(spec.Pods) - jsonSize(spec.Images); jsonSize(trace) > left {
		trace, omitted = boundTrace(d.Trace, left)
	}
	spec.Trace, spec.TraceOmitted = trace, d.TraceOmitted+omitted
	return spec
}

// fitPods names as many of d's pods as fit into room bytes, each image once, and counts the rest. Images that take more than a pod's share
// are left out, so that a pod with many long ones takes no other's room.
func fitPods(spec *v1alpha1.NodeDeathSpec, d policy.Death, room int) {
	index := map[int]int{} // of d.Images in spec.Images
	for i, p := range d.Pods {
		if i == policy.MaxPods {
			spec.PodsOmitted = d.PodsOmitted + len(d.Pods) - i
			return
		}
		pod := v1alpha1.DeadPod{
			Namespace: printable(p.Namespace, kindSize), Name: printable(p.Name, nameSize), UID: printable(p.UID, wordSize),
		}
		if p.OwnerKind != "" {
			pod.Owner = &v1alpha1.OwnerOf{Kind: printable(p.OwnerKind, kindSize), Name: printable(p.OwnerName, nameSize)}
		}
		images, added := spec.Images, []int(nil)
		share := imagesSize / min(len(d.Pods), policy.MaxPods)
		for _, at := range p.Images {
			if at < 0 || at >= len(d.Images) || len(pod.Images) == maxImagesOfPod {
				continue
			}
			to, ok := index[at]
			if !ok {
				to = len(images)
				image := printable(d.Images[at], imageSize)
				if share -= jsonSize(image) + 1; share < 0 {
					continue
				}
				images = append(images, image)
				index[at], added = to, append(added, at)
			}
			pod.Images = append(pod.Images, to)
		}
		size := jsonSize(pod) + 1
		for _, at := range added {
			size += jsonSize(images[index[at]]) + 1
		}
		if size > room {
			spec.PodsOmitted = d.PodsOmitted + len(d.Pods) - i
			return
		}
		room -= size
		spec.Pods, spec.Images = append(spec.Pods, pod), images
	}
	spec.PodsOmitted = d.PodsOmitted
}

// labelsOf lets deaths be selected.
func labelsOf(d policy.Death) map[string]string {
	labels := map[string]string{
		v1alpha1.LabelCause:     cmp.Or(letters(d.Cause, causeSize), "Unexplained"),
		v1alpha1.LabelAuthority: d.Authority.String(),
	}
	if d.Node != "" && len(validation.IsValidLabelValue(d.Node)) == 0 {
		labels[v1alpha1.LabelNode] = d.Node
	}
	return labels
}

func statusFrom(d policy.Death) v1alpha1.NodeDeathStatus {
	s := v1alpha1.NodeDeathStatus{
		Phase:          string(d.Phase),
		Decision:       printable(d.Decision, sentenceSize),
		Owner:          printable(d.Owner, nameSize),
		StartTime:      microTime(d.Started),
		CompletionTime: microTime(d.Completed),
		Pods: v1alpha1.Pods{
			Total: d.PodsTotal, Failed: d.PodsFailed, Summary: fmt.Sprintf("%d/%d", d.PodsFailed, d.PodsTotal),
		},
	}
	for _, c := range d.Conditions {
		s.Conditions = append(s.Conditions, metav1.Condition{
			Type: c.Type, Status: metav1.ConditionStatus(c.Status), LastTransitionTime: metav1.NewTime(c.Time),
			Reason: cmp.Or(letters(c.Reason, kindSize), c.Type), Message: printable(c.Message, sentenceSize),
		})
	}
	for _, step := range d.Steps {
		s.Steps = append(s.Steps, v1alpha1.Step{
			Name: step.Name, Done: step.Done, Time: microTime(step.Time), Note: printable(step.Note, noteSize),
		})
	}
	for _, by := range d.Suspects {
		s.Suspects = append(s.Suspects, suspectFrom(by))
	}
	for _, o := range d.Outcomes {
		s.Pods.Outcomes = append(s.Pods.Outcomes, v1alpha1.Outcome{Outcome: o.What, Pods: o.Pods})
	}
	return s
}

// suspectFrom bounds a suspect. A chain of replacements keeps its latest deaths.
func suspectFrom(s policy.Suspect) v1alpha1.Suspect {
	out := v1alpha1.Suspect{
		Rule: letters(string(s.Rule), kindSize), Namespace: printable(s.Namespace, kindSize), Pod: printable(s.Pod, nameSize),
		Image: printable(s.Image, imageSize), Why: printable(s.Why(), sentenceSize),
	}
	if s.Kind != "" {
		out.Owner = &v1alpha1.OwnerOf{Kind: printable(s.Kind, kindSize), Name: printable(s.Name, nameSize)}
	}
	for _, name := range s.Deaths[max(len(s.Deaths)-maxDeathsOfSuspect, 0):] {
		out.Deaths = append(out.Deaths, printable(name, nameSize))
	}
	return out
}

// boundTrace makes a trace fit the schema and size bytes of JSON, and counts the lines it leaves out. It leaves out the
// middle: the beginning says why the kernel died, the end how far it came.
func boundTrace(lines []string, size int) (trace []string, omitted int) {
	out := make([]string, 0, len(lines))
	for _, l := range lines {
		out = append(out, printable(l, traceLineSize))
	}
	if jsonSize(out) <= size && len(out) <= traceLines {
		return out, 0
	}
	const gapSize = 80 // of the line that stands for what is left out, and the brackets
	head := fitting(out, (size-gapSize)*3/4, (traceLines-1)*3/4)
	rest := slices.Clone(out[head:])
	slices.Reverse(rest)
	tail := len(out) - fitting(rest, (size-gapSize)/4, (traceLines-1)/4)
	gap := fmt.Sprintf("[… %d lines left out …]", tail-head)
	return slices.Concat(out[:head], []string{gap}, out[tail:]), tail - head
}

// fitting counts the first lines that together stay within size bytes of JSON and max lines.
func fitting(lines []string, size, max int) int {
	for i, l := range lines {
		if size -= jsonSize(l) + 1; size < 0 || i == max {
			return i
		}
	}
	return len(lines)
}

// linesOf is how many lines a trace had before one line took the place of the omitted ones.
func linesOf(trace []string, omitted int) int {
	if omitted > 0 {
		return len(trace) - 1 + omitted
	}
	return len(trace)
}

// jsonSize is how many bytes v takes in an object. encoding/json escapes < and >, as the API server does.
func jsonSize(v any) int {
	b, err := json.Marshal(v)
	if err != nil {
		return 0 // strings and numbers only: there is none
	}
	return len(b)
}
