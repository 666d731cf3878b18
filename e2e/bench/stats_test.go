package main

import (
	"math"
	"testing"
)

func TestQuantile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for _, tt := range []struct {
		name   string
		values []float64
		q      float64
		want   float64
	}{
		{"the median of an odd number", []float64{3, 1, 2}, 0.5, 2},
		{"the lower median of an even number", []float64{4, 3, 1, 2}, 0.5, 2},
		{"one of a hundred may exceed p99", hundred, 0.99, 99},
		{"the greatest", hundred, 1, 100},
		{"the smallest", hundred, 0, 1},
		{"p99 of few is the greatest", []float64{5, 9}, 0.99, 9},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := quantile(tt.values, tt.q); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
	if got := quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("of nothing %v, want NaN", got)
	}
}
