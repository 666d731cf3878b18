package listener

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
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
		sh, _ := testShard(s)
		sh.table.limits.sources = 2
		sh.ship = NewShipper(io.Discard, sh.metrics, nil)
		now := epoch
		for len(in) >= 4 {
			n := min(int(binary.BigEndian.Uint16(in)), len(in)-4)
			from, leap, payload := in[2], in[3], in[4:4+n]
			in = in[4+n:]
			s.full = leap%5 == 0
			now = advance(sh, now, now.Add(time.Duration(leap)*time.Duration(leap)*time.Millisecond))
			addr := netip.AddrPortFrom(node(int(from%4)).Addr(), uint16(from/64))
			if ack := sh.receive(now, addr, payload); len(ack) > len(payload) {
				t.Fatalf("an ack of %d bytes answers %d", len(ack), len(payload))
			}
			if next := sh.next(); !next.IsZero() && !next.After(now) {
				t.Fatalf("due at %s, which is now", next)
			}
		}
		s.full = false
		for rounds := 0; sh.unfinished() || sh.due.first() != nil; rounds++ {
			if rounds > 10_000 {
				t.Fatal("it never comes to rest")
			}
			now = sh.next()
			sh.tick(now)
		}
		if len(sh.table.source) > 2 {
			t.Fatalf("%d sources in a table of 2", len(sh.table.source))
		}
		if sh.dying != 0 || sh.handover.traces != 0 {
			t.Fatalf("%d deaths unfinished, %d bytes of trace left at rest", sh.dying, sh.handover.traces)
		}
		if bytes.Contains(sh.ship.lines, []byte(`"gasp"`)) {
			t.Fatal("a secret is shipped")
		}
	})
}

// FuzzConfig holds every config to an answer in one line that names the file.
func FuzzConfig(f *testing.F) {
	for _, name := range invalidConfigs(f) {
		f.Add(read(f, name))
	}
	f.Add(read(f, "../cmd/lastgasp-listener/listener.yaml"))
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := ParseConfig("c.yaml", in)
		if err != nil {
			if msg := err.Error(); !strings.HasPrefix(msg, "c.yaml:") || strings.ContainsAny(msg, "\n\r") {
				t.Fatalf("error %q", msg)
			}
			return
		}
		if err := c.Policy.Validate(); err != nil {
			t.Fatalf("accepted a policy that is not valid: %v", err)
		}
		detect.NewSource(&c.Judge, nodeA)
	})
}
