package kube

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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

func TestEmitNeverBlocks(t *testing.T) {
	_, c := newAPI(t, 500, "")
	for range eventsQueued + 5 { // nobody writes them: Run was not called
		c.Emit(cleanup.Event{Reason: "KernelPanic"})
	}
	if got := c.eventsDropped.Load(); got != 5 {
		t.Errorf("%d events dropped, want 5", got)
	}
}
