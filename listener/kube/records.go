package kube

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/kube/v1alpha1"
)

const (
	// Bounds of a trace, kept by the schema as well (packaging/kubernetes/base/crd.yaml).
	traceSize     = 128 << 10 // bytes, all lines together
	traceLineSize = 4 << 10   // bytes
	traceLines    = 2048
	// Bounds of single fields, in bytes. The schema counts characters, of which there are never more.
	titleSize    = 1024
	noteSize     = 2048
	nodeSize     = 253
	instanceSize = 256
	releaseSize  = 128
	wordSize     = 64 // ids, addresses, fingerprints, codes
)

// CreateRecord implements cleanup.Cluster. The claim is the POST: whatever becomes of the status, which the API server
// takes in a second request only, the record is ours. A status that did not get through is written by the next
// UpdateRecord; until then the record reads as Claimed at its creation by nobody.
func (c *Cluster) CreateRecord(ctx context.Context, r cleanup.Record) (cleanup.Record, error) {
	kp := &v1alpha1.KernelPanic{ObjectMeta: metav1.ObjectMeta{Name: r.Name}, Spec: specFrom(r)}
	err := c.records.Post().Resource(v1alpha1.Resource).Param("fieldManager", manager).Body(kp).Do(ctx).Into(kp)
	if err != nil {
		return cleanup.Record{}, explain(err, "create record %s", r.Name)
	}
	kp.Status = statusFrom(r)
	withStatus, err := c.putRecord(ctx, kp, "status")
	if err != nil {
		c.log.Warn("record created without its status", "record", r.Name, "err", err)
		return recordFrom(kp), nil
	}
	return recordFrom(withStatus), nil
}

// Record implements cleanup.Cluster.
func (c *Cluster) Record(ctx context.Context, name string) (cleanup.Record, error) {
	kp := &v1alpha1.KernelPanic{}
	err := c.records.Get().Resource(v1alpha1.Resource).Name(name).Do(ctx).Into(kp)
	if err != nil {
		return cleanup.Record{}, explain(err, "read record %s", name)
	}
	return recordFrom(kp), nil
}

// Records implements cleanup.Cluster.
func (c *Cluster) Records(context.Context) ([]cleanup.Record, error) {
	if !c.recordCache.HasSynced() {
		return nil, fmt.Errorf("list records: %w", errNotSynced)
	}
	var out []cleanup.Record
	for _, obj := range c.recordCache.GetStore().List() {
		out = append(out, recordFrom(obj.(*v1alpha1.KernelPanic)))
	}
	return out, nil
}

// newRecordInformer watches all KernelPanics and keeps them without their traces, which together would fill the memory.
func newRecordInformer(client cache.Getter) (cache.SharedIndexInformer, error) {
	lw := cache.NewListWatchFromClient(client, v1alpha1.Resource, metav1.NamespaceAll, fields.Everything())
	inf := cache.NewSharedIndexInformer(lw, &v1alpha1.KernelPanic{}, 0, nil)
	return inf, inf.SetTransform(func(obj any) (any, error) {
		if kp, ok := obj.(*v1alpha1.KernelPanic); ok {
			kp.Spec.Trace, kp.ManagedFields = nil, nil
		}
		return obj, nil
	})
}

// UpdateRecord implements cleanup.Cluster. The status is written always, the spec only if r adds to it. Both writes are
// refused with ErrConflict if the record is not what was read.
func (c *Cluster) UpdateRecord(ctx context.Context, r cleanup.Record) (cleanup.Record, error) {
	kp, err := c.putRecord(ctx, &v1alpha1.KernelPanic{
		ObjectMeta: metav1.ObjectMeta{Name: r.Name, UID: types.UID(r.UID), ResourceVersion: r.Version},
		Status:     statusFrom(r),
	}, "status")
	if err != nil {
		return cleanup.Record{}, err
	}
	if amend(&kp.Spec, specFrom(r)) {
		if kp, err = c.putRecord(ctx, kp); err != nil {
			return cleanup.Record{}, err
		}
	}
	return recordFrom(kp), nil
}

// DeleteRecord implements cleanup.Cluster.
func (c *Cluster) DeleteRecord(ctx context.Context, r cleanup.Record) error {
	uid := types.UID(r.UID)
	err := c.records.Delete().Resource(v1alpha1.Resource).Name(r.Name).
		Body(&metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}).Do(ctx).Error()
	return explain(err, "delete record %s", r.Name)
}

// putRecord replaces kp or its subresource and returns what the API server made of it.
func (c *Cluster) putRecord(ctx context.Context, kp *v1alpha1.KernelPanic, subresource ...string) (*v1alpha1.KernelPanic, error) {
	out := &v1alpha1.KernelPanic{}
	err := c.records.Put().Resource(v1alpha1.Resource).Name(kp.Name).SubResource(subresource...).
		Param("fieldManager", manager).Body(kp).Do(ctx).Into(out)
	if err != nil {
		return nil, explain(err, "update record %s", kp.Name)
	}
	return out, nil
}

// amend adds to have what the complete incident knows better and reports whether that changed anything. It never takes
// away, and who died, when and whence stays as it was first written.
func amend(have *v1alpha1.KernelPanicSpec, add v1alpha1.KernelPanicSpec) bool {
	changed := false
	for _, f := range []struct {
		have *string
		add  string
	}{
		{&have.Code, add.Code},
		{&have.Reason, add.Reason},
		{&have.Fingerprint, add.Fingerprint},
		{&have.Remedy, add.Remedy},
		{&have.Release, add.Release},
		{&have.Authority, add.Authority},
	} {
		if f.add != "" && f.add != *f.have {
			*f.have, changed = f.add, true
		}
	}
	if len(add.Trace) > 0 && !slices.Equal(have.Trace, add.Trace) {
		have.Trace, changed = add.Trace, true
	}
	return changed
}

// specFrom makes everything fit the schema. A record that it denied would be no claim: a forged gasp with one field too
// long would keep its node fenced.
func specFrom(r cleanup.Record) v1alpha1.KernelPanicSpec {
	spec := v1alpha1.KernelPanicSpec{
		Node:        clip(r.Node, nodeSize),
		NodeUID:     clip(r.NodeUID, wordSize),
		Instance:    clip(r.Instance, instanceSize),
		Boot:        clip(r.Boot, wordSize),
		Time:        metav1.NewMicroTime(r.Time),
		Code:        letters(r.Code, wordSize),
		Reason:      clip(r.Title, titleSize),
		Fingerprint: clip(r.Fingerprint, wordSize),
		Remedy:      clip(r.Remedy, noteSize),
		Release:     clip(r.Release, releaseSize),
		Authority:   r.Authority.String(),
		Trace:       boundTrace(r.Trace),
	}
	if r.Source.IsValid() {
		spec.Source = clip(r.Source.String(), wordSize)
	}
	return spec
}

func statusFrom(r cleanup.Record) v1alpha1.KernelPanicStatus {
	s := v1alpha1.KernelPanicStatus{
		Phase:       string(r.Phase),
		Decision:    clip(r.Decision, noteSize),
		Owner:       r.Owner,
		OwnerSeen:   microTime(r.OwnerSeen),
		Pods:        v1alpha1.Pods{Total: r.PodsTotal, Done: r.PodsDone},
		PodsSummary: fmt.Sprintf("%d/%d", r.PodsDone, r.PodsTotal),
	}
	for _, step := range r.Steps {
		s.Steps = append(s.Steps, v1alpha1.Step{
			Name: step.Name, Done: step.Done, Time: microTime(step.Time), Note: clip(step.Note, noteSize),
		})
	}
	return s
}

func recordFrom(kp *v1alpha1.KernelPanic) cleanup.Record {
	r := cleanup.Record{
		Name:        kp.Name,
		UID:         string(kp.UID),
		Version:     kp.ResourceVersion,
		Created:     kp.CreationTimestamp.Time,
		Node:        kp.Spec.Node,
		NodeUID:     kp.Spec.NodeUID,
		Instance:    kp.Spec.Instance,
		Boot:        kp.Spec.Boot,
		Time:        kp.Spec.Time.Time,
		Code:        kp.Spec.Code,
		Title:       kp.Spec.Reason,
		Fingerprint: kp.Spec.Fingerprint,
		Remedy:      kp.Spec.Remedy,
		Release:     kp.Spec.Release,
		Trace:       kp.Spec.Trace,
		Phase:       cleanup.Phase(kp.Status.Phase),
		Decision:    kp.Status.Decision,
		Owner:       kp.Status.Owner,
		PodsTotal:   kp.Status.Pods.Total,
		PodsDone:    kp.Status.Pods.Done,
		Released:    kp.Annotations[v1alpha1.ReleaseAnnotation] == "true",
	}
	// The schema admits the four words only; of anything else the weakest is believed.
	if err := r.Authority.UnmarshalText([]byte(kp.Spec.Authority)); err != nil {
		r.Authority = detect.Text
	}
	r.Source, _ = netip.ParseAddrPort(kp.Spec.Source) // for people; one that is none reads as zero
	if kp.Status.OwnerSeen != nil {
		r.OwnerSeen = kp.Status.OwnerSeen.Time
	}
	if r.Phase == "" { // created, and the status did not get through
		r.Phase, r.OwnerSeen = cleanup.Claimed, r.Created
	}
	for _, s := range kp.Status.Steps {
		step := cleanup.StepStatus{Name: s.Name, Done: s.Done, Note: s.Note}
		if s.Time != nil {
			step.Time = s.Time.Time
		}
		r.Steps = append(r.Steps, step)
	}
	return r
}

func microTime(t time.Time) *metav1.MicroTime {
	if t.IsZero() {
		return nil
	}
	mt := metav1.NewMicroTime(t)
	return &mt
}

// boundTrace makes a trace fit the schema. What has to go goes from the middle: the beginning tells why the kernel died,
// the end how far it came.
func boundTrace(lines []string) []string {
	size, out := 0, make([]string, 0, len(lines))
	for _, l := range lines {
		l = clip(l, traceLineSize)
		size += len(l)
		out = append(out, l)
	}
	if size <= traceSize && len(out) <= traceLines {
		return out
	}
	const gapSize = 64 // of the line that stands for what is left out
	head := fitting(out, (traceSize-gapSize)*3/4, (traceLines-1)*3/4)
	rest := slices.Clone(out[head:])
	slices.Reverse(rest)
	tail := len(out) - fitting(rest, (traceSize-gapSize)/4, (traceLines-1)/4)
	gap := fmt.Sprintf("[… %d lines left out …]", tail-head)
	return slices.Concat(out[:head], []string{gap}, out[tail:])
}

// fitting counts the first lines that together stay within size bytes and max lines.
func fitting(lines []string, size, max int) int {
	for i, l := range lines {
		if size -= len(l); size < 0 || i == max {
			return i
		}
	}
	return len(lines)
}
