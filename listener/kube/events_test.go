package kube

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/policy"
)

func TestEventFrom(t *testing.T) {
	now := time.Unix(1, 0xabc)
	for _, tt := range []struct {
		name string
		in   cleanup.Event
		want eventsv1.Event
	}{
		{
			name: "on a node",
			in: cleanup.Event{Node: policy.Node{Name: "n", UID: "u"}, Warning: true, Reason: "KernelPanic", Action: "Fence",
				Note: strings.Repeat("x", 2000)},
			want: eventsv1.Event{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "n.3b9ad4bc"}, Type: "Warning",
				Regarding: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: "n", UID: "u"},
				Reason:    "KernelPanic", Action: "Fence", Note: strings.Repeat("x", 1021) + "…",
			},
		},
		{
			name: "on a pod",
			in: cleanup.Event{Pod: policy.Pod{Namespace: "ns", Name: "p", UID: "u"}, Warning: true, Reason: "KernelPanic", Action: "FailPod",
				Note: "\x1b[2J"},
			want: eventsv1.Event{
				ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p.3b9ad4bc"}, Type: "Warning",
				Regarding: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: "ns", Name: "p", UID: "u"},
				Reason:    "KernelPanic", Action: "FailPod", Note: `\x1b[2J`,
			},
		},
		{
			name: "on an owner",
			in: cleanup.Event{Owner: policy.Owner{APIVersion: "batch/v1", Kind: "Job", Name: "j", UID: "u"}, Namespace: "ns",
				Reason: "KernelPanic", Action: "FailPods", Note: "2 pods failed"},
			want: eventsv1.Event{
				ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "j.3b9ad4bc"}, Type: "Normal",
				Regarding: corev1.ObjectReference{APIVersion: "batch/v1", Kind: "Job", Namespace: "ns", Name: "j", UID: "u"},
				Reason:    "KernelPanic", Action: "FailPods", Note: "2 pods failed",
			},
		},
	} {
		tt.want.EventTime = metav1.NewMicroTime(now)
		tt.want.ReportingController, tt.want.ReportingInstance = "lastgasp.dev/listener", "replica"
		if diff := cmp.Diff(&tt.want, eventFrom(tt.in, "replica", now)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestEventsReachWhoControlsTheOwner(t *testing.T) {
	controlledBy := func(name, uid, api, kind, by string) metav1.ObjectMeta {
		m := metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(uid)}
		if by != "" {
			m.OwnerReferences = []metav1.OwnerReference{{APIVersion: api, Kind: kind, Name: by, UID: types.UID("uid-" + by), Controller: new(true)}}
		}
		return m
	}
	for _, tt := range []struct {
		name  string
		owner policy.Owner
		want  []string // whom the events are about, in order
	}{
		{"a Deployment's ReplicaSet", policy.Owner{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-1", UID: "u"}, []string{"ReplicaSet web-1 u", "Deployment web uid-web"}},
		{"a Rollout's ReplicaSet", policy.Owner{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "api-1", UID: "u"}, []string{"ReplicaSet api-1 u", "Rollout api uid-api"}},
		{"a CronJob's Job", policy.Owner{APIVersion: "batch/v1", Kind: "Job", Name: "nightly-1", UID: "u"}, []string{"Job nightly-1 u", "CronJob nightly uid-nightly"}},
		{"a tenant's ReplicaSet, of somebody's Node", policy.Owner{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "liar", UID: "u"}, []string{"ReplicaSet liar u"}},
		{"a ReplicaSet of nobody", policy.Owner{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "alone", UID: "u"}, []string{"ReplicaSet alone u"}},
		{"a ReplicaSet that has been made anew", policy.Owner{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-1", UID: "old"}, []string{"ReplicaSet web-1 old"}},
		{"a ReplicaSet that is gone", policy.Owner{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "gone", UID: "u"}, []string{"ReplicaSet gone u"}},
		{"a ReplicaSet that may not be read", policy.Owner{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "secret", UID: "u"}, []string{"ReplicaSet secret u"}},
		{"a StatefulSet", policy.Owner{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "db", UID: "u"}, []string{"StatefulSet db u"}},
		{"a tenant's ReplicaSet, of a cluster-scoped object", policy.Owner{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "wide", UID: "u"}, []string{"ReplicaSet wide u"}},
		{"a cluster-scoped object", policy.Owner{APIVersion: "operator.tigera.io/v1", Kind: "Installation", Name: "default", UID: "u"}, nil},
		{"a Node", policy.Owner{APIVersion: "v1", Kind: "Node", Name: "n1", UID: "u"}, nil},
		{"an API version that is none", policy.Owner{APIVersion: "../healthz", Kind: "Thing", Name: "t", UID: "u"}, nil},
		{"an object of an API that is not served", policy.Owner{APIVersion: "gone.example.com/v1", Kind: "Thing", Name: "t", UID: "u"}, []string{"Thing t u"}},
		{"somebody else's Job", policy.Owner{APIVersion: "batch.volcano.sh/v1alpha1", Kind: "Job", Name: "nightly-1", UID: "u"}, []string{"Job nightly-1 u"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			core := fake.NewClientset(
				&appsv1.ReplicaSet{ObjectMeta: controlledBy("web-1", "u", "apps/v1", "Deployment", "web")},
				&appsv1.ReplicaSet{ObjectMeta: controlledBy("api-1", "u", "argoproj.io/v1alpha1", "Rollout", "api")},
				&appsv1.ReplicaSet{ObjectMeta: controlledBy("liar", "u", "v1", "Node", "n1")},
				&appsv1.ReplicaSet{ObjectMeta: controlledBy("wide", "u", "operator.tigera.io/v1", "Installation", "default")},
				&appsv1.ReplicaSet{ObjectMeta: controlledBy("alone", "u", "", "", "")},
				&batchv1.Job{ObjectMeta: controlledBy("nightly-1", "u", "batch/v1", "CronJob", "nightly")},
			)
			core.Resources = []*metav1.APIResourceList{
				{GroupVersion: "v1", APIResources: []metav1.APIResource{{Name: "nodes", Kind: "Node"}}},
				{GroupVersion: "operator.tigera.io/v1", APIResources: []metav1.APIResource{{Name: "installations", Kind: "Installation"}}},
				{GroupVersion: "apps/v1", APIResources: []metav1.APIResource{{Name: "replicasets", Kind: "ReplicaSet", Namespaced: true}}},
			}
			core.PrependReactor("get", "replicasets", func(a kubetesting.Action) (bool, runtime.Object, error) {
				if name := a.(kubetesting.GetAction).GetName(); name == "secret" {
					return true, nil, apierrors.NewForbidden(schema.GroupResource{Group: "apps", Resource: "replicasets"}, name, nil)
				}
				return false, nil, nil
			})
			_, c := newAPI(t, 500, "")
			c.core = core
			ctx, cancel := context.WithCancel(t.Context())
			var got []string
			core.PrependReactor("create", "events", func(a kubetesting.Action) (bool, runtime.Object, error) {
				e := a.(kubetesting.CreateAction).GetObject().(*eventsv1.Event)
				if e.Reason == "Last" {
					cancel()
					return false, nil, nil
				}
				if got = append(got, fmt.Sprint(e.Regarding.Kind, " ", e.Regarding.Name, " ", e.Regarding.UID)); e.Namespace != "ns" || e.Note != "it died" {
					t.Errorf("event %+v", e)
				}
				return false, nil, nil
			})
			c.Emit(cleanup.Event{Owner: tt.owner, Namespace: "ns", Reason: "KernelPanic", Action: "FailPods", Note: "it died"})
			c.Emit(cleanup.Event{Node: policy.Node{Name: "n"}, Reason: "Last", Action: "End"})
			c.writeEvents(ctx)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

// Nodes that die together had the same workloads: what is known of their owners is not asked for again.
func TestOwnersAreRemembered(t *testing.T) {
	core := fake.NewClientset(&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web-1", UID: "u", OwnerReferences: []metav1.OwnerReference{
		{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: "uid-web", Controller: new(true)}}}})
	core.Resources = []*metav1.APIResourceList{{GroupVersion: "apps/v1"}}
	_, c := newAPI(t, 500, "")
	c.core = core
	o := owners{c: c}
	of := corev1.ObjectReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Namespace: "ns", Name: "web-1", UID: "u"}
	for range 3 {
		if above := o.controllerOf(t.Context(), of); above == nil || above.Name != "web" || !o.mayBeRegarded(t.Context(), of) {
			t.Fatalf("%+v controls the ReplicaSet, want Deployment web", above)
		}
	}
	if n := len(core.Actions()); n != 2 {
		t.Errorf("%d requests, want one for the ReplicaSet and one for its kind", n)
	}
}

// Whoever creates a ReplicaSet chooses what controls it. The API server bounds the length of none of its words.
func TestOwnersAreBounded(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	core := fake.NewClientset(&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web-1", UID: "u", OwnerReferences: []metav1.OwnerReference{
		{APIVersion: long, Kind: long, Name: long, UID: types.UID(long), Controller: new(true)}}}})
	_, c := newAPI(t, 500, "")
	c.core = core
	o := owners{c: c}
	above := o.controllerOf(t.Context(), corev1.ObjectReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Namespace: "ns", Name: "web-1", UID: "u"})
	for _, word := range []string{above.APIVersion, above.Kind, above.Name, string(above.UID)} {
		if len(word) > nameSize {
			t.Errorf("a word of %d bytes is remembered, want %d at most", len(word), nameSize)
		}
	}
}

// The API server refuses names of more than 253 bytes; a pod's may be as long.
func TestEventOnALongName(t *testing.T) {
	for _, n := range []int{1, 235, 236, 237, 253} {
		name := eventName(strings.Repeat("n", n-1)+"x", time.Unix(1_800_000_000, 0))
		if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
			t.Errorf("object of %d bytes: %v", n, problems)
		}
	}
	if name := eventName(strings.Repeat("n", 234)+"-.-"+strings.Repeat("n", 16), time.Unix(1_800_000_000, 0)); len(validation.IsDNS1123Subdomain(name)) > 0 {
		t.Errorf("%s is no name", name)
	}
}

func TestEmitNeverBlocks(t *testing.T) {
	_, c := newAPI(t, 500, "")
	for range eventsQueued + 5 { // nobody writes them: Run was not called
		c.Emit(cleanup.Event{Reason: "KernelPanic"})
	}
	if got := c.eventsDropped.Load(); got != 5 {
		t.Errorf("%d events dropped, want 5", got)
	}
}
