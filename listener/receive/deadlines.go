package receive

import (
	"container/heap"
	"time"
)

// deadlines orders sources by when they want attention.
type deadlines struct{ h dueHeap }

func (d *deadlines) first() *source {
	if len(d.h) == 0 {
		return nil
	}
	return d.h[0]
}

// set moves a source to its new deadline; zero takes it out.
func (d *deadlines) set(src *source, at time.Time) {
	switch was := src.due; {
	case was.Equal(at):
	case was.IsZero():
		src.due = at
		heap.Push(&d.h, src)
	case at.IsZero():
		heap.Remove(&d.h, src.index)
		src.due = at
	default:
		src.due = at
		heap.Fix(&d.h, src.index)
	}
}

type dueHeap []*source

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *dueHeap) Push(x any) {
	src := x.(*source)
	src.index = len(*h)
	*h = append(*h, src)
}

func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	src := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return src
}
