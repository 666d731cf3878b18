package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/lastgasp/lastgasp/listener/cleanup"
)

const (
	eventsQueued = 10_000 // a hundred dead nodes with a hundred pods each
	// eventTimeout is how long an event is retried while the API server does not answer; those behind it wait as long.
	eventTimeout  = time.Minute
	eventRetry    = 2 * time.Second
	eventNoteSize = 1024 // bytes; the API server refuses longer ones
)

// Emit implements cleanup.Cluster. Events beyond ten thousand waiting ones are dropped and counted.
func (c *Cluster) Emit(e cleanup.Event) {
	select {
	case c.events <- eventFrom(e, c.replica, time.Now()):
	default:
		c.eventsDropped.Add(1)
	}
}

// writeEvents writes what Emit queued, one at a time, until ctx ends. An event about the owner of pods is also written about what
// controls that owner.
func (c *Cluster) writeEvents(ctx context.Context) {
	owners := owners{c: c}
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-c.events:
			if owners.mayBeRegarded(ctx, e.Regarding) {
				c.writeOrLog(ctx, e)
			}
			if above := owners.controllerOf(ctx, e.Regarding); above != nil && owners.mayBeRegarded(ctx, *above) {
				c.writeOrLog(ctx, eventOn(*above, e))
			}
		}
		if n := c.eventsDropped.Swap(0); n > 0 {
			c.log.Warn("events dropped: too many waiting", "count", n)
		}
	}
}

func (c *Cluster) writeOrLog(ctx context.Context, e *eventsv1.Event) {
	if err := c.writeEvent(ctx, e); err != nil && ctx.Err() == nil {
		c.log.Warn("event not written", "reason", e.Reason, "regarding", e.Regarding.Name, "err", err)
	}
}

func eventOn(object corev1.ObjectReference, e *eventsv1.Event) *eventsv1.Event {
	again := e.DeepCopy()
	again.Regarding, again.Name = object, eventName(object.Name, e.EventTime.Time)
	return again
}

// eventName is the name of the event on an object, as client-go's recorder makes it. A name has 253 bytes at most
// (apimachinery pkg/util/validation): the object's name is cut where the event's would be longer.
func eventName(object string, at time.Time) string {
	suffix := fmt.Sprintf(".%x", at.UnixNano())
	return strings.TrimRight(object[:min(len(object), validation.DNS1123SubdomainMaxLength-len(suffix))], "-.") + suffix
}

func (c *Cluster) writeEvent(ctx context.Context, e *eventsv1.Event) error {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	for {
		_, err := c.core.EventsV1().Events(e.Namespace).Create(ctx, e, metav1.CreateOptions{FieldManager: manager})
		if err == nil || errors.Is(sentinel(err), cleanup.ErrExists) { // an earlier attempt got through, its answer did not
			return nil
		}
		if sentinel(err) != nil {
			return explain(err, "create event")
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("create event: %w", err)
		case <-time.After(eventRetry):
		}
	}
}

func eventFrom(e cleanup.Event, replica string, now time.Time) *eventsv1.Event {
	regarding := corev1.ObjectReference{
		APIVersion: e.Owner.APIVersion,
		Kind:       e.Owner.Kind,
		Namespace:  e.Namespace,
		Name:       e.Owner.Name,
		UID:        types.UID(e.Owner.UID),
	}
	switch {
	case e.Node.Name != "":
		regarding = corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: e.Node.Name, UID: types.UID(e.Node.UID)}
	case e.Pod.Name != "":
		regarding = corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: e.Pod.Namespace, Name: e.Pod.Name, UID: types.UID(e.Pod.UID),
		}
	}
	// Events on cluster-scoped objects live in namespace default.
	namespace := cmp.Or(regarding.Namespace, metav1.NamespaceDefault)
	kind := corev1.EventTypeNormal
	if e.Warning {
		kind = corev1.EventTypeWarning
	}
	return &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: namespace, Name: eventName(regarding.Name, now)},
		EventTime:           metav1.NewMicroTime(now),
		ReportingController: prefix + "listener",
		ReportingInstance:   replica,
		Type:                kind,
		Regarding:           regarding,
		Reason:              e.Reason,
		Action:              e.Action,
		Note:                printable(e.Note, eventNoteSize),
	}
}
