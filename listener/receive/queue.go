package receive

// queue is a linked list of sources, threaded through them.
type queue struct {
	first, last *source
	untrimmed   *source // the sources before it are trimmed; nil if all are
}

func (q *queue) push(src *source) {
	if q.untrimmed == nil {
		q.untrimmed = src
	}
	src.before, src.behind = q.last, nil
	if q.last == nil {
		q.first = src
	} else {
		q.last.behind = src
	}
	q.last = src
}

func (q *queue) remove(src *source) {
	if q.untrimmed == src {
		q.untrimmed = src.behind
	}
	if src.before == nil {
		q.first = src.behind
	} else {
		src.before.behind = src.behind
	}
	if src.behind == nil {
		q.last = src.before
	} else {
		src.behind.before = src.before
	}
	src.before, src.behind = nil, nil
}

func (q *queue) touch(src *source) {
	switch {
	case q.last != src:
		q.remove(src)
		q.push(src)
	case q.untrimmed == nil:
		q.untrimmed = src
	}
}
