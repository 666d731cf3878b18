package v1alpha1

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
)

// DeepCopyObject implements runtime.Object.
func (d *NodeDeath) DeepCopyObject() runtime.Object { return d.DeepCopy() }

// DeepCopyObject implements runtime.Object.
func (l *NodeDeathList) DeepCopyObject() runtime.Object { return l.DeepCopy() }

// DeepCopy returns a copy that shares nothing with d.
func (d *NodeDeath) DeepCopy() *NodeDeath {
	if d == nil {
		return nil
	}
	out := *d
	d.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	d.Spec.deepCopyInto(&out.Spec)
	d.Status.deepCopyInto(&out.Status)
	return &out
}

func (s *NodeDeathSpec) deepCopyInto(out *NodeDeathSpec) {
	out.Time = *s.Time.DeepCopy()
	out.Evidence = slices.Clone(s.Evidence)
	if c := s.Culprit; c != nil {
		out.Culprit = clone(c)
		out.Culprit.Pod = clone(c.Pod)
	}
	out.NodeInfo = clone(s.NodeInfo)
	out.Images = slices.Clone(s.Images)
	out.Pods = slices.Clone(s.Pods)
	for i := range out.Pods {
		out.Pods[i].Owner = clone(s.Pods[i].Owner)
		out.Pods[i].Images = slices.Clone(s.Pods[i].Images)
	}
	out.Trace = slices.Clone(s.Trace)
}

func (s *NodeDeathStatus) deepCopyInto(out *NodeDeathStatus) {
	out.StartTime = s.StartTime.DeepCopy()
	out.CompletionTime = s.CompletionTime.DeepCopy()
	out.Conditions = slices.Clone(s.Conditions)
	for i := range out.Conditions {
		s.Conditions[i].DeepCopyInto(&out.Conditions[i])
	}
	out.Steps = slices.Clone(s.Steps)
	for i := range out.Steps {
		out.Steps[i].Time = s.Steps[i].Time.DeepCopy()
	}
	out.Suspects = slices.Clone(s.Suspects)
	for i := range out.Suspects {
		out.Suspects[i].Owner = clone(s.Suspects[i].Owner)
		out.Suspects[i].Deaths = slices.Clone(s.Suspects[i].Deaths)
	}
	out.Pods.Outcomes = slices.Clone(s.Pods.Outcomes)
	for i := range out.Pods.Outcomes {
		out.Pods.Outcomes[i].Pods = slices.Clone(s.Pods.Outcomes[i].Pods)
	}
}

// clone copies what p points to, which must not point any further.
func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	out := *p
	return &out
}

// DeepCopy returns a copy that shares nothing with l.
func (l *NodeDeathList) DeepCopy() *NodeDeathList {
	if l == nil {
		return nil
	}
	out := *l
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	out.Items = slices.Clone(l.Items)
	for i := range out.Items {
		out.Items[i] = *l.Items[i].DeepCopy()
	}
	return &out
}
