package netconsole

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// FuzzStream plays a script of datagrams. The script chooses pieces of records that are known, in any order and number,
// and datagrams made of its own bytes; the former must come out true, the latter must do no harm.
func FuzzStream(f *testing.F) {
	f.Add(uint64(1), []byte{0, 0, 0, 255, 0, 1, 0, 255})
	f.Add(uint64(2), []byte("\x00\x10\x00\x20\x01\x00\x00\x10\x80\x286,388,2968771,-;eth0: link becomes ready\n"))
	f.Add(uint64(3), []byte("\x80\x310,391,3610096,-,ncfrag=971/990;jklmnopqrstuvwxyza\n\xff\x100123456789abcdef"))
	f.Add(uint64(4), []byte("\x80\x18[    3.592626] Kernel\nx\xc0\x00"+"\x80\x20** 1 printk messages dropped **\n"))
	f.Fuzz(func(t *testing.T, seed uint64, script []byte) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var known [3]sent
		var body [len(known)]string
		var arrived [len(known)][]bool
		for i := range known {
			known[i] = randomSent(rng, uint64(i))
			known[i].release = "known"
			body[i] = known[i].body()
			arrived[i] = make([]bool, len(body[i]))
		}

		var s Stream
		var got []Record
		now := start
		own, late, refused := false, false, false
		for len(script) >= 4 {
			op := script[0]
			switch {
			case op < 0x80: // a piece of a known record: where it starts and how long it is, in parts of 255
				i := int(op) % len(known)
				off := int(script[1]) * (len(body[i]) - 1) / 255
				end := min(len(body[i]), off+1+int(script[2])*len(body[i])/255)
				if s.Push(now, known[i].piece(off, end), collect(&got)) != nil {
					refused = true
				}
				for at := off; at < end; at++ {
					arrived[i][at] = true
				}
				script = script[4:]
			case op < 0xe0: // a datagram of the script's own, some of them full
				own = true
				n := min(int(script[1]), len(script)-2)
				payload := string(script[2 : 2+n])
				if op >= 0xc0 {
					payload += strings.Repeat("x", chunk-len(payload))
				}
				_ = s.Push(now, []byte(payload), collect(&got))
				script = script[2+n:]
			default: // time
				late = true
				now = now.Add(time.Duration(script[1]) * 10 * time.Millisecond)
				s.Flush(now, collect(&got))
				if d := s.Deadline(); !d.IsZero() && !d.After(now) {
					t.Fatalf("deadline %v is over at %v", d, now)
				}
				script = script[4:]
			}
			if err := s.bounded(); err != nil {
				t.Fatal(err)
			}
		}
		s.Flush(now.Add(WireTimeout), collect(&got))
		if !s.Deadline().IsZero() || s.held != 0 || len(s.open) != 0 {
			t.Fatalf("%d bytes held after giving up, deadline %v", s.held, s.Deadline())
		}

		partial := 0
		for _, r := range got {
			if r.Partial {
				partial++
			}
			if r.Partial && r.Missing == 0 {
				t.Fatalf("a partial record that misses nothing: %+v", r)
			}
			if r.Extended != (r.Prefix >= 0) || !r.Extended && (r.FromKernel() || r.Fields != nil) {
				t.Fatalf("a record of neither format: %+v", r)
			}
		}
		if partial > len(got)-partial {
			t.Fatalf("%d records were begun, %d told for good", partial, len(got)-partial)
		}
		for i, k := range known {
			var of []Record
			contested := false // a kernel does not send pieces that overlap after the whole
			for _, r := range got {
				if r.Release == k.release && r.Seq == k.seq {
					of, contested = append(of, r), contested || r.Contested
					if err := k.holds(r); err != nil && !own {
						t.Fatalf("record %d: %v", i, err)
					}
				}
			}
			// What was given up and came again is told again, and another stream's bytes may have crowded it out.
			if own || late || refused || contested {
				continue
			}
			if err := k.check(arrived[i], of); err != nil {
				t.Fatalf("record %d: %v", i, err)
			}
		}
	})
}
