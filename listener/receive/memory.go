package receive

// Bounds of what a listener keeps, all shards together. Each shard has its share, so that no number of sources, incidents or
// log lines makes the process outgrow its pod (packaging/kubernetes). Each lane has the whole bound.
const (
	// maxSources is enough for a verified fleet of 65,536, an uneven spread over the shards, and strangers. An idle source
	// takes some 2 KiB.
	maxSources = 80 << 10
	// maxKept bounds, in bytes, the log that the sources of a lane keep: their last lines, incidents in the making, records
	// being joined. maxKeptByParty bounds that of one node, or of the strangers of one address.
	maxKept, maxKeptByParty = 48 << 20, 2 << 20
	// maxDeaths and maxFindings bound the incidents of a lane that wait for the Sink.
	maxDeaths, maxFindings = 16 << 10, 1 << 10
	// maxTraces bounds, in bytes, the traces that wait with them. A trace beyond it keeps only its last lines.
	maxTraces = 32 << 20
)

// limits are a shard's share.
type limits struct {
	sources int
	// For each lane:
	kept, traces int
	incidents    [classes]int
}

// share returns what each of that many shards may keep.
func share(shards int) limits {
	return limits{
		sources: maxSources / shards, kept: maxKept / shards, traces: maxTraces / shards,
		incidents: [classes]int{deaths: maxDeaths / shards, findings: maxFindings / shards},
	}
}

// share is what the lines of a source of the lane may grow to, zero for no bound: half its part of a lane that is nearly full,
// because there is more to keep than lines. Otherwise the lines of many would be trimmed and grow again all the time.
func (t *table) share(l lane) int {
	lane := &t.lanes[l]
	if lane.kept < t.limits.kept/8*7 {
		return 0
	}
	return max(1, t.limits.kept/2/max(1, lane.count))
}

// enforceMemory books what the source keeps now. If its lane keeps too much, the sources of the lane that were heard longest
// ago make room; if that is not enough, or its party keeps too much, the source itself does: its alarm has been given already.
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

// book counts what the source keeps now.
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
