package cleanup

import (
	"context"
	"sync"
	"time"
)

// urgency orders API calls when there are more than may be in flight: with a hundred nodes dying at once all are fenced
// before the first pod is written, and all pods fail over before the first is deleted.
type urgency int

const (
	fencing urgency = iota // find and fence a Node
	keeping                // read and write deaths, look at witnesses
	failing                // fail pods over
	tidying                // delete, detach, write progress, claim, emit findings
	urgencies
)

const (
	// callsInFlight is where the API server's throughput levels off.
	callsInFlight = 32
	// callTimeout bounds one API call: a connection to a server that vanished would block for minutes.
	callTimeout = 15 * time.Second
)

// queue runs API calls, a bounded number at a time: the most urgent first, and among equally urgent ones round robin over
// batches. A node has one batch of pods at a time, so that a node with hundreds of pods delays nobody.
type queue struct {
	mu     sync.Mutex
	more   *sync.Cond
	rings  [urgencies][]*batch
	closed bool
}

// batch is n calls of do, for one node.
type batch struct {
	ctx      context.Context
	do       func(ctx context.Context, i int)
	n        int
	next     int // first call not started
	done     int // calls finished or dropped
	finished chan struct{}
}

func newQueue() *queue {
	q := &queue{}
	q.more = sync.NewCond(&q.mu)
	return q
}

// submit asks for do(ctx, 0) to do(ctx, n-1), in any order and several at once. The channel is closed when no call runs or
// will run any more: all are done, or ctx ended and the rest was dropped.
func (q *queue) submit(ctx context.Context, u urgency, n int, do func(ctx context.Context, i int)) <-chan struct{} {
	b := &batch{ctx: ctx, do: do, n: n, finished: make(chan struct{})}
	q.mu.Lock()
	defer q.mu.Unlock()
	if n == 0 || q.closed {
		close(b.finished)
		return b.finished
	}
	q.rings[u] = append(q.rings[u], b)
	q.more.Broadcast()
	return b.finished
}

// run works until ctx ends and every batch is finished or dropped.
func (q *queue) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.closed = true
		q.more.Broadcast()
	})
	defer stop()
	var workers sync.WaitGroup
	for range callsInFlight {
		workers.Go(q.work)
	}
	workers.Wait()
}

func (q *queue) work() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		b, i := q.take()
		if b == nil {
			if q.closed {
				return
			}
			q.more.Wait()
			continue
		}
		q.mu.Unlock()
		ctx, cancel := context.WithTimeout(b.ctx, callTimeout)
		b.do(ctx, i)
		cancel()
		q.mu.Lock()
		b.finish(1)
	}
}

// take picks the next call; its batch goes to the back of its ring. What belongs to an ended context is dropped.
func (q *queue) take() (*batch, int) {
	for u := range q.rings {
		for len(q.rings[u]) > 0 {
			b := q.rings[u][0]
			q.rings[u] = q.rings[u][1:]
			if b.ctx.Err() != nil {
				b.finish(b.n - b.next)
				continue
			}
			i := b.next
			if b.next++; b.next < b.n {
				q.rings[u] = append(q.rings[u], b)
			}
			return b, i
		}
	}
	return nil, 0
}

// finish counts calls that are done or dropped.
func (b *batch) finish(calls int) {
	if b.done += calls; b.done == b.n {
		close(b.finished)
	}
}
