package story

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/lastgasp/lastgasp/listener/kube/v1alpha1"
)

// Sighting is one event of the API, and when it was seen.
type Sighting struct {
	At        time.Time
	Kind      watch.EventType
	Pod       *corev1.Pod
	Node      *corev1.Node
	NodeDeath *v1alpha1.NodeDeath
}

// Watcher stores all events about a namespace's pods, all Nodes and all NodeDeaths. It sees what any controller would see, no
// earlier.
type Watcher struct {
	mu     sync.Mutex
	seen   []Sighting
	change chan struct{}
	err    error
}

// Watch begins to look. It ends with ctx.
func Watch(ctx context.Context, config *rest.Config, namespace string) (*Watcher, error) {
	w := &Watcher{change: make(chan struct{})}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client to watch with: %w", err)
	}
	for _, what := range []struct {
		resource  schema.GroupVersionResource
		namespace string
	}{
		{corev1.SchemeGroupVersion.WithResource("pods"), namespace},
		{corev1.SchemeGroupVersion.WithResource("nodes"), ""},
		{v1alpha1.GroupVersion().WithResource("nodedeaths"), ""},
	} {
		of := client.Resource(what.resource).Namespace(what.namespace)
		events, err := of.Watch(ctx, metav1.ListOptions{AllowWatchBookmarks: true})
		if err != nil {
			return nil, fmt.Errorf("watch %s: %w", what.resource.Resource, err)
		}
		go w.watchAll(ctx, of, events)
	}
	return w, nil
}

// watchAll collects until ctx ends. The API server ends the watch of a slow client, as every client on a busy machine is now and then;
// watchAll then continues at once from the same version.
func (w *Watcher) watchAll(ctx context.Context, of dynamic.ResourceInterface, events watch.Interface) {
	for version := ""; ; {
		var err error
		if version, err = w.collect(events, version); err == nil && ctx.Err() == nil {
			if events, err = of.Watch(ctx, metav1.ListOptions{ResourceVersion: version, AllowWatchBookmarks: true}); err != nil {
				err = fmt.Errorf("continue a watch that the API server ended: %w", err)
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.end(err)
			return
		}
	}
}

// collect takes events until there are no more, and returns the version from which to continue.
func (w *Watcher) collect(from watch.Interface, version string) (string, error) {
	defer from.Stop()
	for ev := range from.ResultChan() {
		if obj, ok := ev.Object.(metav1.Object); ok {
			version = obj.GetResourceVersion()
		}
		if ev.Type == watch.Bookmark {
			continue
		}
		s, err := sighting(ev)
		if err != nil {
			return version, err
		}
		w.mu.Lock()
		w.seen = append(w.seen, s)
		close(w.change)
		w.change = make(chan struct{})
		w.mu.Unlock()
	}
	return version, nil
}

func (w *Watcher) end(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
	close(w.change)
	w.change = make(chan struct{})
}

func sighting(ev watch.Event) (Sighting, error) {
	s := Sighting{At: time.Now(), Kind: ev.Type}
	u, ok := ev.Object.(*unstructured.Unstructured)
	if !ok {
		return s, fmt.Errorf("a watch brought a %T", ev.Object)
	}
	var into any
	switch u.GetKind() {
	case "Pod":
		s.Pod = new(corev1.Pod)
		into = s.Pod
	case "Node":
		s.Node = new(corev1.Node)
		into = s.Node
	case "NodeDeath":
		s.NodeDeath = new(v1alpha1.NodeDeath)
		into = s.NodeDeath
	default:
		return s, fmt.Errorf("a watch brought a %s: %v", u.GetKind(), u.Object)
	}
	return s, runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, into)
}

// Await waits until done accepts what was seen so far, and returns the time of the sighting after which it did.
func (w *Watcher) Await(ctx context.Context, what string, done func([]Sighting) bool) (time.Time, error) {
	checked := 0
	for {
		w.mu.Lock()
		seen, change, err := slices.Clone(w.seen), w.change, w.err
		w.mu.Unlock()
		for ; checked < len(seen); checked++ {
			if done(seen[:checked+1]) {
				return seen[checked].At, nil
			}
		}
		if err != nil {
			return time.Time{}, fmt.Errorf("wait for %s: %w", what, err)
		}
		select {
		case <-change:
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
		}
	}
}

// pods returns the latest state of every pod that is still there.
func pods(seen []Sighting) map[string]*corev1.Pod {
	now := map[string]*corev1.Pod{}
	for _, s := range seen {
		switch {
		case s.Pod == nil:
		case s.Kind == watch.Deleted:
			delete(now, string(s.Pod.UID))
		default:
			now[string(s.Pod.UID)] = s.Pod
		}
	}
	return now
}

// node returns the latest state of a Node, nil if it has not been seen yet or is gone.
func node(seen []Sighting, name string) *corev1.Node {
	if s, ok := lastOf(seen, name); ok && s.Kind != watch.Deleted {
		return s.Node
	}
	return nil
}

// nodeGone reports whether a Node was there and is gone.
func nodeGone(seen []Sighting, name string) bool {
	s, ok := lastOf(seen, name)
	return ok && s.Kind == watch.Deleted
}

func lastOf(seen []Sighting, nodeName string) (Sighting, bool) {
	for _, s := range slices.Backward(seen) {
		if s.Node != nil && s.Node.Name == nodeName {
			return s, true
		}
	}
	return Sighting{}, false
}

// deleted counts those of the pods, by UID, that were deleted.
func deleted(seen []Sighting, uids map[string]bool) int {
	n := 0
	for _, s := range seen {
		if s.Pod != nil && s.Kind == watch.Deleted && uids[string(s.Pod.UID)] {
			n++
		}
	}
	return n
}

// nodeDeath returns the latest state of the NodeDeath of a Node, nil if there is none.
func nodeDeath(seen []Sighting, name string) *v1alpha1.NodeDeath {
	for _, s := range slices.Backward(seen) {
		if s.NodeDeath != nil && s.NodeDeath.Spec.Node == name && s.Kind != watch.Deleted {
			return s.NodeDeath
		}
	}
	return nil
}
