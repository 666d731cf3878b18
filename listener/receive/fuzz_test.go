package receive

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// FuzzShard feeds a shard whatever datagrams, from a few sources and in leaps of time, with a Sink that comes and goes.
// An input is a row of datagrams, each led by two bytes of length, one of source and one of time.
func FuzzShard(f *testing.F) {
	add := func(payloads ...[]byte) {
		var in []byte
		for i, p := range payloads {
			in = append(binary.BigEndian.AppendUint16(in, uint16(len(p))), byte(i%3), byte(i*37))
			in = append(in, p...)
		}
		f.Add(in)
	}
	add(kernelRecord(8, "Kernel panic - not syncing: Fatal exception"))
	add(canaryDatagram(7, canaryA(true), userdata), canaryDatagram(8, canaryA(false), forged),
		kernelRecord(9, "BUG: kernel NULL pointer dereference, address: 0000000000000000"))
	add([]byte("0,1,1,-,ncfrag=0/20;Kernel panic - "), []byte("0,1,1,-,ncfrag=15/20;hello"), []byte("[    1.0] Oops: 0002"))
	f.Fuzz(func(t *testing.T, in []byte) {
		s := new(sink)
		pins := pins{bootA: netconsole.Secret(secretA).Sum()}
		records := new(leaks)
		sh := NewShard(&Config{Judge: &detect.Config{}, Sink: s, Metrics: new(Metrics), Pins: pins, Records: records})
		sh.table.limits.sources = 8
		now := epoch
		for len(in) >= 4 {
			n := min(int(binary.BigEndian.Uint16(in)), len(in)-4)
			from, leap, payload := in[2], in[3], in[4:4+n]
			in = in[4+n:]
			s.full = leap%5 == 0
			now = advance(sh, now, now.Add(time.Duration(leap)*time.Duration(leap)*time.Millisecond))
			addr := netip.AddrPortFrom(nth(int(from%4)).Addr(), uint16(from/64))
			if ack := sh.Receive(now, addr, payload); len(ack) > len(payload) {
				t.Fatalf("an ack of %d bytes answers %d", len(ack), len(payload))
			}
			if next := sh.Next(); !next.IsZero() && !next.After(now) {
				t.Fatalf("due at %s, which is now", next)
			}
		}
		s.full = false
		for rounds := 0; sh.unfinished() || !sh.Next().IsZero(); rounds++ {
			if rounds > 10_000 {
				t.Fatal("it never comes to rest")
			}
			now = sh.Next()
			sh.Tick(now)
		}
		if n := sh.table.size(); n > 8 {
			t.Fatalf("%d sources in a table of 8", n)
		}
		traces := sh.handover.lanes[verified].traces + sh.handover.lanes[strangers].traces
		if sh.dying != 0 || traces != 0 {
			t.Fatalf("%d deaths unfinished, %d bytes of trace left at rest", sh.dying, traces)
		}
		if records.found {
			t.Fatal("a secret is shipped")
		}
	})
}
