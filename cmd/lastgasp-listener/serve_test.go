package main

import "testing"

func TestSocketsLeaveAProcessorForCleanup(t *testing.T) {
	for _, tt := range []struct{ have, sockets, want int }{
		{have: 1, sockets: 1, want: 2},
		{have: 2, sockets: 2, want: 3},
		{have: 4, sockets: 8, want: 9},
		{have: 16, sockets: 4, want: 16},
	} {
		if got := processors(tt.have, tt.sockets); got != tt.want {
			t.Errorf("%d processors, %d sockets: %d, want %d", tt.have, tt.sockets, got, tt.want)
		}
	}
}
