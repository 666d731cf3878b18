package receive

// What a listener may keep, all shards together. Each has its share, so that no amount of sources, of incidents or of
// log makes it grow beyond what its pod is given (packaging/kubernetes), whoever sends what. Both lanes have as much.
const (
	// maxSources is a fleet of 65,536 that is verified, with room for an uneven spread over the shards and for strangers. An
	// idle one takes some 2 KiB.
	maxSources = 80 << 10
	// maxKept bounds, in bytes, the log that the sources of a lane keep: their last lines, incidents in the making, records
	// being joined. maxKeptByParty bounds that of one node, or of the strangers of one address.
	maxKept, maxKeptByParty = 48 << 20, 2 << 20
	// maxDeaths and maxReports bound the incidents of a lane that wait for the Sink.
	maxDeaths, maxReports = 16 << 10, 1 << 10
	// maxTraces bounds, in bytes, the traces that wait with them. What comes beyond keeps only its last lines.
	maxTraces = 32 << 20
)

// limits are a shard's share.
type limits struct {
	sources int
	// For each lane:
	kept, traces int
	incidents    [classes]int
}

// share is what one of so many shards may keep.
func share(shards int) limits {
	return limits{
		sources: maxSources / shards, kept: maxKept / shards, traces: maxTraces / shards,
		incidents: [classes]int{deaths: maxDeaths / shards, reports: maxReports / shards},
	}
}

// enforceMemory books what the source keeps by now. Where that makes more than its lane may keep, those of the lane who
// were heard longest ago make room, and failing that the source itself: nobody else pays for what it was sent, and its
// alarm has been given. It alone pays where its party keeps too much.
func (s *Shard) enforceMemory(src *source) {
	t, lane := s.table, src.party.lane()
	t.book(src)
	if t.lanes[lane].kept > t.limits.kept {
		t.makeRoom(lane)
	}
	if t.lanes[lane].kept <= t.limits.kept && src.party.kept <= maxKeptByParty {
		return
	}
	s.metrics.Cramped.Add(1)
	s.finishRecords(src)
	src.judge.Cramp()
	t.book(src)
	s.schedule(src)
}

// book notes what the source keeps.
func (t *table) book(src *source) {
	kept := src.stream.Size() + src.judge.Size()
	t.lanes[src.party.lane()].kept += kept - src.kept
	src.party.kept += kept - src.kept
	src.kept = kept
}

// makeRoom has sources of a lane forget all but their newest lines, strangers first whose canary was not answered, none
// that has something in hand. It looks at a few of them each time, which is as fast as they fill.
func (t *table) makeRoom(l lane) {
	lane := &t.lanes[l]
	for _, q := range [...]*queue{&lane.unproven, &lane.proven} {
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
			if lane.kept <= t.limits.kept {
				return
			}
		}
	}
}
