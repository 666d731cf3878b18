package v1alpha1

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
)

// DeepCopyObject implements runtime.Object.
func (p *KernelPanic) DeepCopyObject() runtime.Object { return p.DeepCopy() }

// DeepCopyObject implements runtime.Object.
func (l *KernelPanicList) DeepCopyObject() runtime.Object { return l.DeepCopy() }

// DeepCopy returns a copy that shares nothing with p.
func (p *KernelPanic) DeepCopy() *KernelPanic {
	if p == nil {
		return nil
	}
	out := *p
	p.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Spec.Time = *p.Spec.Time.DeepCopy()
	out.Spec.Trace = slices.Clone(p.Spec.Trace)
	out.Status.OwnerSeen = p.Status.OwnerSeen.DeepCopy()
	out.Status.Steps = slices.Clone(p.Status.Steps)
	for i := range out.Status.Steps {
		out.Status.Steps[i].Time = out.Status.Steps[i].Time.DeepCopy()
	}
	return &out
}

// DeepCopy returns a copy that shares nothing with l.
func (l *KernelPanicList) DeepCopy() *KernelPanicList {
	if l == nil {
		return nil
	}
	out := *l
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	out.Items = slices.Clone(l.Items)
	for i := range out.Items {
		out.Items[i] = *out.Items[i].DeepCopy()
	}
	return &out
}
