package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/kube/v1alpha1"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// CreateDeath implements cleanup.Cluster. The API server takes the status in a second request only.
func (c *Cluster) CreateDeath(ctx context.Context, d policy.Death) (policy.Death, error) {
	nd := &v1alpha1.NodeDeath{ObjectMeta: metav1.ObjectMeta{Name: d.Name, Labels: labelsOf(d)}, Spec: specFrom(d)}
	err := c.deaths.Post().Resource(v1alpha1.Resource).Param("fieldManager", manager).Body(nd).Do(ctx).Into(nd)
	if errors.Is(sentinel(err), cleanup.ErrExists) {
		// An earlier attempt may have got through, and its answer not: etcd was slow, or has just elected a leader. Nobody owns it then.
		if have, readErr := c.readDeath(ctx, d.Name); readErr == nil && have.Status.Owner == "" && sameSpec(have.Spec, nd.Spec) {
			nd, err = have, nil
		}
	}
	if err != nil {
		return policy.Death{}, explain(err, "create death %s", d.Name)
	}
	nd.Status = statusFrom(d)
	withStatus, err := c.putStatus(ctx, nd)
	if err != nil {
		c.log.Warn("death created without its status", "death", d.Name, "err", err)
		nd.Status = v1alpha1.NodeDeathStatus{}
		return deathFrom(nd), nil
	}
	return deathFrom(withStatus), nil
}

// sameSpec reports whether both are the same to the API server, which keeps microseconds.
func sameSpec(a, b v1alpha1.NodeDeathSpec) bool {
	x, err := json.Marshal(a)
	y, otherErr := json.Marshal(b)
	return err == nil && otherErr == nil && bytes.Equal(x, y)
}

// Death implements cleanup.Cluster.
func (c *Cluster) Death(ctx context.Context, name string) (policy.Death, error) {
	nd, err := c.readDeath(ctx, name)
	if err != nil {
		return policy.Death{}, err
	}
	return deathFrom(nd), nil
}

func (c *Cluster) readDeath(ctx context.Context, name string) (*v1alpha1.NodeDeath, error) {
	nd := &v1alpha1.NodeDeath{}
	err := c.deaths.Get().Resource(v1alpha1.Resource).Name(name).Do(ctx).Into(nd)
	return nd, explain(err, "read death %s", name)
}

// Deaths implements cleanup.Cluster.
func (c *Cluster) Deaths(context.Context) ([]policy.Death, error) {
	if !c.deathCache.HasSynced() {
		return nil, fmt.Errorf("list deaths: %w", errNotSynced)
	}
	return c.keptDeaths(), nil
}

// CachedDeath implements cleanup.Cluster.
func (c *Cluster) CachedDeath(name string) (policy.Death, bool) {
	obj, ok, err := c.deathCache.GetStore().GetByKey(name)
	if err != nil || !ok {
		return policy.Death{}, false
	}
	return obj.(*keptDeath).death, true
}

func (c *Cluster) keptDeaths() []policy.Death {
	list := c.deathCache.GetStore().List()
	out := make([]policy.Death, 0, len(list))
	for _, obj := range list {
		out = append(out, obj.(*keptDeath).death)
	}
	return out
}

// keptDeath is a NodeDeath as the cache keeps it: read once, for it is listed every second, without what would fill the
// memory, and with its pods packed. Of the object only the metadata is left.
type keptDeath struct {
	v1alpha1.NodeDeath

	death policy.Death // its slices are shared by all who list it
}

// keep makes of a NodeDeath what the cache keeps.
func keep(nd *v1alpha1.NodeDeath) *keptDeath {
	d := deathFrom(nd)
	d.Packed = policy.PackPods(d.Pods, d.Images)
	d.Trace, d.Pods, d.Images, d.Outcomes = nil, nil, nil, nil
	return &keptDeath{
		v1alpha1.NodeDeath{ObjectMeta: metav1.ObjectMeta{
			Name: nd.Name, UID: nd.UID, ResourceVersion: nd.ResourceVersion, CreationTimestamp: nd.CreationTimestamp,
		}},
		d,
	}
}

func newDeathInformer(client cache.Getter) (cache.SharedIndexInformer, error) {
	lw := cache.NewListWatchFromClient(client, v1alpha1.Resource, metav1.NamespaceAll, fields.Everything())
	inf := cache.NewSharedIndexInformer(lw, &v1alpha1.NodeDeath{}, 0, nil)
	return inf, inf.SetTransform(func(obj any) (any, error) {
		if nd, ok := obj.(*v1alpha1.NodeDeath); ok {
			return keep(nd), nil
		}
		return obj, nil // kept already, or cache.DeletedFinalStateUnknown around it
	})
}

// UpdateDeath implements cleanup.Cluster.
func (c *Cluster) UpdateDeath(ctx context.Context, d policy.Death) (policy.Death, error) {
	nd, err := c.putStatus(ctx, &v1alpha1.NodeDeath{
		ObjectMeta: metav1.ObjectMeta{Name: d.Name, UID: types.UID(d.UID), ResourceVersion: d.Version},
		Status:     statusFrom(d),
	})
	if err != nil {
		return policy.Death{}, err
	}
	return deathFrom(nd), nil
}

// putStatus replaces the status of nd and returns what the API server made of it.
func (c *Cluster) putStatus(ctx context.Context, nd *v1alpha1.NodeDeath) (*v1alpha1.NodeDeath, error) {
	out := &v1alpha1.NodeDeath{}
	err := c.deaths.Put().Resource(v1alpha1.Resource).Name(nd.Name).SubResource("status").
		Param("fieldManager", manager).Body(nd).Do(ctx).Into(out)
	if err != nil {
		return nil, explain(err, "update death %s", nd.Name)
	}
	return out, nil
}

// amendTries bounds how often AmendDeath reads again because another replica added something meanwhile.
const amendTries = 5

// AmendDeath implements cleanup.Cluster. The patch names the UID and no version. The schema ensures that evidence and trace
// never shrink: if a longer trace was written in between, the API server denies the patch, and the death is read again.
func (c *Cluster) AmendDeath(ctx context.Context, d policy.Death) (policy.Death, error) {
	var err error
	for range amendTries {
		var have *v1alpha1.NodeDeath
		if have, err = c.readDeath(ctx, d.Name); err != nil {
			return policy.Death{}, err
		}
		if string(have.UID) != d.UID {
			return policy.Death{}, fmt.Errorf("amend death %s: %w", d.Name, cleanup.ErrConflict)
		}
		var patch []byte
		if patch, err = amendment(have, d); err != nil {
			return policy.Death{}, fmt.Errorf("amend death %s: %w", d.Name, err)
		}
		if patch == nil {
			return deathFrom(have), nil
		}
		now := &v1alpha1.NodeDeath{}
		err = c.deaths.Patch(types.MergePatchType).Resource(v1alpha1.Resource).Name(d.Name).
			Param("fieldManager", manager).Body(patch).Do(ctx).Into(now)
		if err == nil {
			return deathFrom(now), nil
		}
		err = explain(err, "amend death %s", d.Name)
		if !errors.Is(err, cleanup.ErrDenied) || errors.Is(err, cleanup.ErrForbidden) {
			return policy.Death{}, err
		}
	}
	return policy.Death{}, err
}

// amendment is the merge patch that adds to have what d has and it lacks, nil if that is nothing.
func amendment(have *v1alpha1.NodeDeath, d policy.Death) ([]byte, error) {
	now := deathFrom(have)
	longer := linesOf(d.Trace, d.TraceOmitted) > linesOf(now.Trace, now.TraceOmitted)
	if longer {
		now.Trace, now.TraceOmitted = d.Trace, d.TraceOmitted
	}
	described := longer || now.ExplainedBy(d)
	if described {
		now.Cause, now.Reason, now.Fingerprint = d.Cause, d.Reason, d.Fingerprint
		now.Remedy, now.Release, now.Culprit = d.Remedy, d.Release, d.Culprit
	}
	named := len(now.Pods) == 0 && len(d.Pods) > 0
	if named {
		now.Pods, now.Images, now.PodsOmitted = d.Pods, d.Images, d.PodsOmitted
	}
	evidence := policy.AddEvidence(now.Evidence, d.Evidence)
	if !described && !named && slices.Equal(evidence, now.Evidence) {
		return nil, nil
	}
	now.Evidence = evidence
	spec, err := fieldsOf(specFrom(now))
	if err != nil {
		return nil, err
	}
	old, err := fieldsOf(have.Spec)
	if err != nil {
		return nil, err
	}
	patch := map[string]any{}
	for field, value := range spec {
		if !slices.Equal(value, old[field]) {
			patch[field] = value
		}
	}
	for field := range old {
		if _, ok := spec[field]; !ok {
			patch[field] = nil
		}
	}
	return json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": have.UID, "labels": labelsOf(now)},
		"spec":     patch,
	})
}

func fieldsOf(spec v1alpha1.NodeDeathSpec) (map[string]json.RawMessage, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	var out map[string]json.RawMessage
	return out, json.Unmarshal(text, &out)
}

// DeleteDeath implements cleanup.Cluster.
func (c *Cluster) DeleteDeath(ctx context.Context, d policy.Death) error {
	uid := types.UID(d.UID)
	err := c.deaths.Delete().Resource(v1alpha1.Resource).Name(d.Name).
		Body(&metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &d.Version}}).Do(ctx).Error()
	return explain(err, "delete death %s", d.Name)
}

func deathFrom(nd *v1alpha1.NodeDeath) policy.Death {
	spec, status := nd.Spec, nd.Status
	d := policy.Death{
		Name:         nd.Name,
		UID:          string(nd.UID),
		Version:      nd.ResourceVersion,
		Created:      nd.CreationTimestamp.Time,
		Node:         spec.Node,
		NodeUID:      spec.NodeUID,
		Instance:     spec.Instance,
		Boot:         spec.Boot,
		Time:         spec.Time.Time,
		Cause:        spec.Cause,
		Reason:       spec.Reason,
		Fingerprint:  spec.Fingerprint,
		Remedy:       spec.Remedy,
		Release:      spec.Release,
		Images:       spec.Images,
		PodsOmitted:  spec.PodsOmitted,
		Trace:        spec.Trace,
		TraceOmitted: spec.TraceOmitted,
		Phase:        policy.Phase(status.Phase),
		Decision:     status.Decision,
		Owner:        status.Owner,
		Started:      timeOf(status.StartTime),
		Completed:    timeOf(status.CompletionTime),
		PodsTotal:    status.Pods.Total,
		PodsFailed:   status.Pods.Failed,
		Released:     nd.Annotations[v1alpha1.ReleaseAnnotation] == "true",
	}
	// The schema admits known words only; anything else reads as the weakest.
	_ = d.Authority.UnmarshalText([]byte(spec.Authority))
	d.Source, _ = netip.ParseAddrPort(spec.Source) // for people; an invalid one reads as zero
	for _, e := range spec.Evidence {
		d.Evidence = append(d.Evidence, policy.Evidence(e))
	}
	if c := spec.Culprit; c != nil {
		d.Culprit = &policy.Culprit{Comm: c.Comm, PID: c.PID, CPU: c.CPU, Cgroup: c.Cgroup, Bystander: c.Bystander}
		if c.Pod != nil {
			d.Culprit.Namespace, d.Culprit.Pod, d.Culprit.PodUID = c.Pod.Namespace, c.Pod.Name, c.Pod.UID
		}
	}
	if spec.NodeInfo != nil {
		d.NodeInfo = policy.NodeInfo(*spec.NodeInfo)
	}
	for _, p := range spec.Pods {
		pod := policy.DeadPod{Namespace: p.Namespace, Name: p.Name, UID: p.UID, Images: p.Images}
		if p.Owner != nil {
			pod.OwnerKind, pod.OwnerName = p.Owner.Kind, p.Owner.Name
		}
		d.Pods = append(d.Pods, pod)
	}
	for _, c := range status.Conditions {
		d.Conditions = append(d.Conditions, policy.Condition{
			Type: c.Type, Status: policy.Status(c.Status), Reason: c.Reason, Message: c.Message, Time: c.LastTransitionTime.Time,
		})
	}
	for _, s := range status.Steps {
		d.Steps = append(d.Steps, policy.StepStatus{Name: s.Name, Done: s.Done, Note: s.Note, Time: timeOf(s.Time)})
	}
	for _, s := range status.Suspects {
		by := policy.Suspect{Rule: policy.SuspectRule(s.Rule), Namespace: s.Namespace, Pod: s.Pod, Image: s.Image, Deaths: s.Deaths}
		if s.Owner != nil {
			by.Kind, by.Name = s.Owner.Kind, s.Owner.Name
		}
		d.Suspects = append(d.Suspects, by)
	}
	for _, o := range status.Pods.Outcomes {
		d.Outcomes = append(d.Outcomes, policy.Outcome{What: o.Outcome, Pods: o.Pods})
	}
	return d
}

func timeOf(t *metav1.MicroTime) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.Time
}

func microTime(t time.Time) *metav1.MicroTime {
	if t.IsZero() {
		return nil
	}
	mt := metav1.NewMicroTime(t)
	return &mt
}
