package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSocketsOfAPort(t *testing.T) {
	// /proc/net/udp of Linux 6.18 with two sockets on port 6666 (0x1A0A) and one on another.
	const table = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops            
  110: 0100007F:1A0A 00000000:0000 07 00000000:00000300 00:00000000 00000000     0        0 48151 2 0000000000000000 7          
  110: 0100007F:1A0A 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 48152 2 0000000000000000 5          
  999: 0100007F:A0AF 0100007F:1A0A 01 00000000:00000F00 00:00000000 00000000     0        0 48153 2 0000000000000000 3          
`
	var got socketState
	got.add(table, 6666)
	want := socketState{open: 2, queued: 0x300, dropped: 12}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(socketState{})); diff != "" {
		t.Errorf("sockets (-want +got):\n%s", diff)
	}
}
