package netconsole

import "testing"

// Every benchmark's operation is one datagram; B/s is of payload.

func BenchmarkParseFrame(b *testing.B) {
	payload := []byte("6.12.117+deb13-cloud-amd64,0,456,3881321,-;Kernel panic - not syncing: Fatal exception\n instance=i-0123456789abcdef0\n")
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseFrame(payload); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStream(b *testing.B) {
	ours := []Field{{KeyInstance, "i-0123456789abcdef0"}, {KeyBoot, "7f3c2f6e-0000-4000-8000-000000000001"}, {KeySecret, "c2VjcmV0c2VjcmV0c2VjcmV0"}}
	record := sent{
		release: "6.12.117+deb13-cloud-amd64", prefix: 4, seq: 412, usec: 3864084, flag: '-', user: ours,
		text: "RDX: 0000000000000000 RSI: ffffffffc031a048 RDI: ff3d7e4d1fe3e3f0",
	}
	escaped := record
	escaped.text = "Kernel panic - not syncing: boom: multi\nline panic"
	long := record
	for len(long.body()) < 1200 {
		long.text += " and so on"
	}
	for _, bb := range []struct {
		name      string
		datagrams [][]byte
	}{
		{"extended with userdata", record.datagrams()},
		{"extended with an escape", escaped.datagrams()},
		{"fragmented", long.datagrams()},
		{"basic", [][]byte{[]byte("[    3.594994] RDX: 0000000000000000 RSI: ffffffffc031a048 RDI: ff3d7e4d1fe3e3f0\n")}},
		{"capture 6.12 null dereference", capture(b, "6.12-null-userdata.ext.jsonl")},
	} {
		b.Run(bb.name, func(b *testing.B) {
			s := Stream{Spare: new(Spare)}
			size, n := 0, 0
			for _, d := range bb.datagrams {
				size += len(d)
			}
			now := start
			count := func(*Record) { n++ }
			b.SetBytes(int64(size / len(bb.datagrams)))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%len(bb.datagrams) == 0 {
					now = now.Add(2 * WireTimeout) // so that the same record may come again
				}
				if err := s.Push(now, bb.datagrams[i%len(bb.datagrams)], count); err != nil {
					b.Fatal(err)
				}
			}
			if n == 0 {
				b.Fatal("nothing came out")
			}
		})
	}
}

func TestStreamAllocatesNothing(t *testing.T) {
	var s Stream
	emit := func(*Record) {}
	for _, payload := range []string{
		"6.12.117,4,412,3864084,-,caller=T170;RDX: 0000000000000000\n instance=i-0abc\n boot=7f3c2f6e\n gasp=c2Vj\n",
		"6.12.117,4,413,3864090,-;a tab \\x09 and a newline\\x0a\n instance=i-0abc\n boot=7f3c2f6e\n gasp=c2Vj\n",
		"[    3.594994] RDX: 0000000000000000\n",
		"[    3.594994] two\n[    3.594994] lines\n",
	} {
		b := []byte(payload)
		if n := testing.AllocsPerRun(1000, func() { _ = s.Push(start, b, emit) }); n != 0 {
			t.Errorf("%v allocations for %q, want none", n, payload)
		}
	}
}
