package listener

// What a listener may keep, all shards together. Each has its share, so that no amount of sources, of incidents or of
// log makes it grow beyond what its pod is given (packaging/kubernetes), whoever sends what.
const (
	// maxSources is a fleet of 65,536 with room for an uneven spread over the shards. An idle one takes some 2 KiB.
	maxSources = 72 << 10
	// maxKept bounds, in bytes, the log that sources keep: their last lines, incidents being told, records being joined.
	maxKept = 96 << 20
	// maxDeaths and maxReports bound the incidents that wait for the Sink.
	maxDeaths, maxReports = 32 << 10, 2 << 10
	// maxTraces bounds, in bytes, the traces that wait with them. What comes beyond keeps only its last lines.
	maxTraces = 64 << 20
)

// limits are a shard's share.
type limits struct{ sources, kept, deaths, reports, traces int }

// share is what one of so many shards may keep.
func share(shards int) limits {
	return limits{maxSources / shards, maxKept / shards, maxDeaths / shards, maxReports / shards, maxTraces / shards}
}

// settle books what s.src keeps by now. Where that makes more than the shard may keep, those who were heard longest ago
// make room, and failing that s.src itself: nobody else pays for what it was sent, and its alarm has been given.
func (s *shard) settle() {
	src, t := s.src, s.table
	t.book(src)
	if t.kept <= t.limits.kept {
		return
	}
	t.makeRoom()
	if t.kept <= t.limits.kept {
		return
	}
	s.metrics.Cramped.Inc()
	src.stream.GiveUp(s.onRecord)
	src.judge.Cramp()
	t.book(src)
	s.schedule()
}

// book notes what the source keeps.
func (t *table) book(src *source) {
	kept := src.stream.Size() + src.judge.Size()
	t.kept += kept - src.kept
	src.kept = kept
}

// makeRoom has sources forget all but their newest lines, strangers first, none that has something in hand. It looks at
// a few of them each time, which is as fast as they fill.
func (t *table) makeRoom() {
	for _, q := range [...]*queue{&t.strangers, &t.proven} {
		for range lookBack {
			src := q.untrimmed
			if src == nil {
				break
			}
			q.untrimmed = src.behind
			if !src.busy() {
				src.judge.Trim()
				t.book(src)
			}
			if t.kept <= t.limits.kept {
				return
			}
		}
	}
}
