package detect

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"
)

// Every capture of a death is replayed once for each of its datagrams, without that one. What is lost in the network may
// cost a name, but neither the death nor the secret of who died.
func TestNoSingleLostDatagramHidesADeath(t *testing.T) {
	paths, err := filepath.Glob("testdata/captures/*.ext.jsonl")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	var replays, renamed int
	for _, path := range paths {
		var capture []datagram
		for line := range linesOf(t, path) {
			var d datagram
			if err := json.Unmarshal(line, &d); err != nil {
				t.Fatal(err)
			}
			capture = append(capture, d)
		}
		whole := last(replay(t, capture, -1))
		if whole.Verdict != Dying {
			continue
		}
		for i := range capture {
			got := last(replay(t, capture, i))
			replays++
			if got.Verdict != Dying || !got.Complete || got.Identity != whole.Identity {
				t.Errorf("%s without datagram %d: %s %q of %q", path, i, got.Verdict, got.Title, got.Identity.Boot)
			}
			if got.Fingerprint != whole.Fingerprint {
				renamed++
			}
		}
	}
	t.Logf("%d replays, another fingerprint in %d", replays, renamed)
	if renamed*30 > replays {
		t.Errorf("a lost datagram changes %d of %d fingerprints, want at most one in thirty", renamed, replays)
	}
}

// last is the final incident, of the highest verdict if there are several.
func last(incidents []Incident) Incident {
	var l Incident
	for _, inc := range incidents {
		if inc.Verdict >= l.Verdict {
			l = inc
		}
	}
	return l
}

// replay feeds a capture of one source without the datagram at skip.
func replay(t *testing.T, capture []datagram, skip int) []Incident {
	t.Helper()
	var incidents []Incident
	emit := func(inc Incident) { incidents = append(incidents, inc) }
	s := sender{source: NewSource(&Config{}, capture[0].Src)}
	var now time.Time
	push := s.pusher(&now, emit)
	for i, d := range capture {
		if i == skip {
			continue
		}
		now = time.Unix(0, int64(d.T*1e9))
		if err := s.stream.Push(now, d.Payload, push); err != nil {
			t.Error(err)
		}
	}
	now = now.Add(time.Minute)
	s.stream.Flush(now, push)
	s.source.Flush(now.Add(time.Minute), emit)
	return incidents
}
