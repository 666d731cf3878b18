package crowd

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

const (
	taint = "lastgasp.dev/dead"
	// waitTimeout is several times what a busy machine needs for anything that is awaited.
	waitTimeout = 5 * time.Minute
)

// seen holds when a Watcher first saw each change.
type seen struct {
	pinned, fenced, nodeGone map[string]time.Time // by Node
	failed, podGone          map[string]time.Time // by pod
}

// Watcher sees all Nodes and pods as any controller does.
type Watcher struct {
	mu     sync.Mutex
	seen   seen
	change chan struct{}
	err    error
}

// Watch begins to look. It ends with ctx.
func (w *World) Watch(ctx context.Context) (*Watcher, error) {
	o := &Watcher{change: make(chan struct{}), seen: seen{
		pinned: map[string]time.Time{}, fenced: map[string]time.Time{}, nodeGone: map[string]time.Time{},
		failed: map[string]time.Time{}, podGone: map[string]time.Time{},
	}}
	core := w.Admin.CoreV1()
	nodes, err := core.Nodes().List(ctx, metav1.ListOptions{Limit: 1}) // for the present only
	if err != nil {
		return nil, fmt.Errorf("watch the crowd: %w", err)
	}
	go o.watchAll(ctx, core.Nodes().Watch, nodes.ResourceVersion)
	go o.watchAll(ctx, core.Pods(metav1.NamespaceDefault).Watch, nodes.ResourceVersion)
	return o, nil
}

// watchAll watches until ctx ends. The API server ends the watch of a slow client, as every client on a busy machine is now and
// then; watchAll then continues at once from the same version.
func (o *Watcher) watchAll(ctx context.Context, begin func(context.Context, metav1.ListOptions) (watch.Interface, error), version string) {
	for ctx.Err() == nil {
		events, err := begin(ctx, metav1.ListOptions{ResourceVersion: version, AllowWatchBookmarks: true})
		if err == nil {
			version, err = o.collect(events, version)
		}
		if err != nil {
			o.fail(err)
			return
		}
	}
}

// collect takes events until there are no more, and returns the version from which to continue.
func (o *Watcher) collect(from watch.Interface, version string) (string, error) {
	defer from.Stop()
	for ev := range from.ResultChan() {
		if ev.Type == watch.Error {
			return version, apierrors.FromObject(ev.Object)
		}
		if obj, ok := ev.Object.(metav1.Object); ok {
			version = obj.GetResourceVersion()
		}
		if ev.Type != watch.Bookmark {
			o.see(ev, time.Now())
		}
	}
	return version, nil
}

// fail ends all waiting.
func (o *Watcher) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = err
	o.wake()
}

func (o *Watcher) see(ev watch.Event, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	note := func(when map[string]time.Time, name string, yes bool) {
		if _, already := when[name]; yes && !already {
			when[name] = now
			o.wake()
		}
	}
	gone := ev.Type == watch.Deleted
	switch obj := ev.Object.(type) {
	case *corev1.Node:
		note(o.seen.pinned, obj.Name, obj.Annotations[lab.PinKey] != "")
		note(o.seen.fenced, obj.Name, fenced(obj))
		note(o.seen.nodeGone, obj.Name, gone)
	case *corev1.Pod:
		note(o.seen.failed, obj.Name, obj.Status.Phase == corev1.PodFailed)
		note(o.seen.podGone, obj.Name, gone)
	}
}

// wake tells those who wait that something changed. o.mu is held.
func (o *Watcher) wake() {
	close(o.change)
	o.change = make(chan struct{})
}

// Pinned waits until all Nodes of c are pinned.
func (o *Watcher) Pinned(ctx context.Context, c Crowd) error {
	_, err := o.await(ctx, "pins", o.seen.pinned, c.Names())
	return err
}

// Fenced waits until a Node is fenced, and returns when that was seen.
func (o *Watcher) Fenced(ctx context.Context, node string) (time.Time, error) {
	return o.await(ctx, "fences", o.seen.fenced, []string{node})
}

// Failed waits until all pods of c are Failed, and returns when the last of them was seen so.
func (o *Watcher) Failed(ctx context.Context, c Crowd) (last time.Time, err error) {
	return o.await(ctx, "Failed pods", o.seen.failed, c.PodNames())
}

// Gone waits until all pods and Nodes of c are gone, and returns when that was seen.
func (o *Watcher) Gone(ctx context.Context, c Crowd) (last time.Time, err error) {
	pods, err := o.await(ctx, "deleted pods", o.seen.podGone, c.PodNames())
	if err != nil {
		return pods, err
	}
	nodes, err := o.await(ctx, "deleted nodes", o.seen.nodeGone, c.Names())
	if nodes.After(pods) {
		return nodes, err
	}
	return pods, err
}

// FailedBeforeFences counts the pods of c that were seen Failed before the last of its Nodes was seen fenced.
func (o *Watcher) FailedBeforeFences(c Crowd) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var last time.Time
	for _, name := range c.Names() {
		if at := o.seen.fenced[name]; at.After(last) {
			last = at
		}
	}
	for _, name := range c.PodNames() {
		if at, ok := o.seen.failed[name]; ok && at.Before(last) {
			n++
		}
	}
	return n
}

// await waits until every one of names is in when, and returns the latest of their times.
func (o *Watcher) await(ctx context.Context, what string, when map[string]time.Time, names []string) (last time.Time, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, waitTimeout, fmt.Errorf("not within %s", waitTimeout))
	defer cancel()
	missing := names
	for {
		o.mu.Lock()
		for len(missing) > 0 {
			at, ok := when[missing[0]]
			if !ok {
				break
			}
			if at.After(last) {
				last = at
			}
			missing = missing[1:]
		}
		change, err := o.change, o.err
		o.mu.Unlock()
		switch {
		case len(missing) == 0:
			return last, nil
		case err != nil:
			return last, fmt.Errorf("wait for %s: %w", what, err)
		}
		select {
		case <-change:
		case <-ctx.Done():
			return last, fmt.Errorf("wait for %s: %w; %d of %d, %s first, are missing", what, context.Cause(ctx), len(missing), len(names), missing[0])
		}
	}
}

func fenced(n *corev1.Node) bool {
	for _, t := range n.Spec.Taints {
		if t.Key == taint {
			return true
		}
	}
	return false
}
