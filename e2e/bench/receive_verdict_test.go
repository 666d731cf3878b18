package main

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/e2e/load"
)

func TestBucketBound(t *testing.T) {
	metrics := map[string]float64{
		`h_seconds_bucket{le="1e-05"}`: 0, `h_seconds_bucket{le="4e-05"}`: 50, `h_seconds_bucket{le="0.00016"}`: 99,
		`h_seconds_bucket{le="+Inf"}`: 100, "h_seconds_count": 100, `other_seconds_bucket{le="1e-05"}`: 100,
	}
	for q, want := range map[float64]float64{0.5: 4e-05, 0.51: 0.00016, 0.99: 0.00016, 1: math.Inf(1)} {
		if got := bucketBound(metrics, "h_seconds", q); got != want {
			t.Errorf("quantile %v is at most %v, want %v", q, got, want)
		}
	}
}

func TestDelays(t *testing.T) {
	began := time.Unix(100, 0)
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	tr := trial{nodes: 5, sent: []time.Time{at(0), at(100), at(200)}}
	known := map[string]time.Time{
		"20261122T000000.000Z-" + load.Instance(5) + "-0a.json": at(7), // ours, a second time
		"20261122T000001.000Z-" + load.Instance(5) + "-0b.json": at(3),
		load.Addr(7).String() + ":6665":                         at(201), // a reference's
		load.Addr(70).String() + ":6665":                        at(1),
	}
	if diff := cmp.Diff([]float64{3, 1}, tr.delays(known)); diff != "" {
		t.Errorf("milliseconds (-want +got):\n%s", diff)
	}
}
