package kube

import (
	"context"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

// attachmentsTimeout bounds one LIST of all VolumeAttachments.
const attachmentsTimeout = 15 * time.Second

// Attachments implements cleanup.Cluster.
func (c *Cluster) Attachments(ctx context.Context, node string) (int, error) {
	counts, err := c.attachments.get(ctx)
	return counts[node], explain(err, "list volume attachments of node %s", node)
}

// listAttachments counts the VolumeAttachments of every node, within attachmentsTimeout.
func listAttachments(ctx context.Context, client rest.Interface) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(ctx, attachmentsTimeout)
	defer cancel()
	return countAttachments(ctx, client)
}

// countAttachments reads one by one: a large fleet has too many for the memory.
func countAttachments(ctx context.Context, client rest.Interface) (map[string]int, error) {
	counts := make(map[string]int)
	type attachment struct {
		Spec struct {
			NodeName string `json:"nodeName"`
		} `json:"spec"`
	}
	err := eachItem(ctx, client.Get().AbsPath("/apis/storage.k8s.io/v1/volumeattachments"), func(a *attachment) { counts[a.Spec.NodeName]++ })
	if err != nil {
		return nil, err
	}
	return counts, nil
}

// attachments shares LISTs: VolumeAttachments cannot be selected by node, and a hundred dying nodes poll at once.
// Each caller gets the answer of a LIST that began after its call, which is as good as one of its own.
type attachments struct {
	list func(context.Context) (map[string]int, error)

	mu            sync.Mutex
	running, next *round
}

type round struct {
	done   chan struct{}
	counts map[string]int
	err    error
}

func (a *attachments) get(ctx context.Context) (map[string]int, error) {
	a.mu.Lock()
	if a.next == nil {
		a.next = &round{done: make(chan struct{})}
	}
	r := a.next
	if a.running == nil {
		a.start()
	}
	a.mu.Unlock()

	select {
	case <-r.done:
		return r.counts, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// start makes the next round the running one. a.mu is held.
func (a *attachments) start() {
	r := a.next
	a.running, a.next = r, nil
	if r == nil {
		return
	}
	go func() {
		r.counts, r.err = a.list(context.Background()) // shared: it outlives the context of each caller
		a.mu.Lock()
		defer a.mu.Unlock()
		close(r.done)
		a.start()
	}()
}
