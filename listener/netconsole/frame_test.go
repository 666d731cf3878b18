package netconsole

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseFrame(t *testing.T) {
	fullOf := func(head string) string { // a datagram of 1000 bytes that has lost its newline
		return head + strings.Repeat("x", chunk-len(head))
	}
	tests := []struct {
		name, payload string
		want          Frame
	}{
		{
			"a kernel record", "6,388,2968771,-;eth0: link becomes ready\n",
			Frame{Extended: true, Prefix: 6, Seq: 388, Uptime: 2968771 * time.Microsecond, Header: []byte("6,388,2968771,-"), Body: []byte("eth0: link becomes ready\n")},
		},
		{
			"the first record of a boot", "5,0,0,-;Linux version\n",
			Frame{Extended: true, Prefix: 5, Header: []byte("5,0,0,-"), Body: []byte("Linux version\n")},
		},
		{
			"an empty text", "4,1,2,-;\n",
			Frame{Extended: true, Prefix: 4, Seq: 1, Uptime: 2 * time.Microsecond, Header: []byte("4,1,2,-"), Body: []byte("\n")},
		},
		{
			"release in front", "6.12.117+deb13-cloud-amd64,0,456,3881321,-;Kernel panic - not syncing: Fatal exception\n",
			Frame{Extended: true, Release: []byte("6.12.117+deb13-cloud-amd64"), Prefix: 0, Seq: 456, Uptime: 3881321 * time.Microsecond,
				Header: []byte("6.12.117+deb13-cloud-amd64,0,456,3881321,-"), Body: []byte("Kernel panic - not syncing: Fatal exception\n")},
		},
		{
			"caller and the unfinished line of a userspace program", "14,7,8,c,caller=T4711;half a",
			Frame{Extended: true, Prefix: 14, Seq: 7, Uptime: 8 * time.Microsecond, Cont: true, Caller: []byte("T4711"), Cut: true,
				Header: []byte("14,7,8,c,caller=T4711"), Body: []byte("half a")},
		},
		{
			"the continuation flag of kernels before 4.9", "6,7,8,+; line\n",
			Frame{Extended: true, Prefix: 6, Seq: 7, Uptime: 8 * time.Microsecond, Cont: true, Header: []byte("6,7,8,+"), Body: []byte(" line\n")},
		},
		{
			"a key nobody knows", "6,7,8,-,colour=blue,caller=C1;x\n",
			Frame{Extended: true, Prefix: 6, Seq: 7, Uptime: 8 * time.Microsecond, Caller: []byte("C1"), Header: []byte("6,7,8,-,colour=blue,caller=C1"), Body: []byte("x\n")},
		},
		{
			"a fragment", "0,391,3610096,-,ncfrag=971/990;jklmnopqrstuvwxyza\n",
			Frame{Extended: true, Seq: 391, Uptime: 3610096 * time.Microsecond, Fragment: true, Offset: 971, Total: 990,
				Header: []byte("0,391,3610096,-"), Body: []byte("jklmnopqrstuvwxyza\n")},
		},
		{
			"a fragment with release and caller", "6.12.1,0,1,2,-,caller=C0,ncfrag=0/4;ab",
			Frame{Extended: true, Release: []byte("6.12.1"), Seq: 1, Uptime: 2 * time.Microsecond, Caller: []byte("C0"), Fragment: true, Total: 4,
				Header: []byte("6.12.1,0,1,2,-,caller=C0"), Body: []byte("ab")},
		},
		{
			"a replayed record", replayNotice + "4,1,2,-;x\n",
			Frame{Extended: true, Prefix: 4, Seq: 1, Uptime: 2 * time.Microsecond, Header: []byte("4,1,2,-"), Body: []byte("x\n")},
		},
		{
			"the highest numbers there are", "2047,18446744073709551615,9223372036854775,-;x\n",
			Frame{Extended: true, Prefix: 2047, Seq: 1<<64 - 1, Uptime: 9223372036854775 * time.Microsecond,
				Header: []byte("2047,18446744073709551615,9223372036854775,-"), Body: []byte("x\n")},
		},
		{
			"1000 bytes, the last one lost to a NUL", fullOf("4,1,2,-;")[:chunk-1] + "\x00",
			Frame{Extended: true, Prefix: 4, Seq: 1, Uptime: 2 * time.Microsecond, Header: []byte("4,1,2,-"), Body: []byte(strings.Repeat("x", chunk-9))},
		},
		{
			"1000 bytes, the last one not sent", fullOf("4,1,2,-;")[:chunk-1],
			Frame{Extended: true, Prefix: 4, Seq: 1, Uptime: 2 * time.Microsecond, Header: []byte("4,1,2,-"), Body: []byte(strings.Repeat("x", chunk-9))},
		},
		{
			"1000 bytes without newline", fullOf("4,1,2,-;"),
			Frame{Extended: true, Prefix: 4, Seq: 1, Uptime: 2 * time.Microsecond, Cut: true, Header: []byte("4,1,2,-"), Body: []byte(strings.Repeat("x", chunk-8))},
		},
		{
			"nothing behind the semicolon", "4,1,2,-;",
			Frame{Extended: true, Prefix: 4, Seq: 1, Uptime: 2 * time.Microsecond, Cut: true, Header: []byte("4,1,2,-"), Body: []byte{}},
		},
		{"the basic format", "[    3.592626] Kernel panic\n", Frame{Prefix: -1, Uptime: -1, Body: []byte("[    3.592626] Kernel panic\n")}},
		{"a replayed basic record", replayNotice + "[    3.5] x\n", Frame{Prefix: -1, Uptime: -1, Body: []byte("[    3.5] x\n")}},
		{"a full basic datagram", fullOf("[    3.592626] "), Frame{Prefix: -1, Uptime: -1, Cut: true, Body: []byte(fullOf("[    3.592626] "))}},
		{"text with commas", "1,2,3, go;\n", Frame{Prefix: -1, Uptime: -1, Body: []byte("1,2,3, go;\n")}},
		{"a number of five digits in front", "10000,1,2,-;x\n", Frame{Prefix: -1, Uptime: -1, Body: []byte("10000,1,2,-;x\n")}},
		{"a release with a space", "6.1 x,4,1,2,-;x\n", Frame{Prefix: -1, Uptime: -1, Body: []byte("6.1 x,4,1,2,-;x\n")}},
		{"an empty release", ",4,1,2,-;x\n", Frame{Prefix: -1, Uptime: -1, Body: []byte(",4,1,2,-;x\n")}},
		{"a release of 65 bytes", strings.Repeat("r", 65) + ",4,1,2,-;x\n", Frame{Prefix: -1, Uptime: -1, Body: []byte(strings.Repeat("r", 65) + ",4,1,2,-;x\n")}},
		{"a sequence number that is none", "4,x,2,-;x\n", Frame{Prefix: -1, Uptime: -1, Body: []byte("4,x,2,-;x\n")}},
		{"an uptime that is no number", "4,1,x,-;x\n", Frame{Prefix: -1, Uptime: -1, Body: []byte("4,1,x,-;x\n")}},
		{"an unknown flag", "4,1,2,x;x\n", Frame{Prefix: -1, Uptime: -1, Body: []byte("4,1,2,x;x\n")}},
		{"a header cut before its flag", "4,1,2", Frame{Prefix: -1, Uptime: -1, Body: []byte("4,1,2")}},
		{"bytes that are no UTF-8", "\xff\xfe\x01", Frame{Prefix: -1, Uptime: -1, Body: []byte("\xff\xfe\x01")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseFrame([]byte(tt.payload))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("frame (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseFrameRefuses(t *testing.T) {
	tests := []struct {
		name, payload string
		want          error
	}{
		{"nothing", "", ErrEmpty},
		{"nothing but a replay notice", replayNotice, ErrEmpty},
		{"more than any socket delivers", strings.Repeat("x", MaxPayload+1), ErrTooLong},
		{"basic text with a NUL", "a\x00b", ErrBinary},
		{"a body with a NUL", "4,1,2,-;a\x00b\n", ErrBinary},
		{"a NUL at the end of a short datagram", "4,1,2,-;a\x00", ErrBinary},
		{"a fragment with a NUL", "4,1,2,-,ncfrag=0/9;a\x00", ErrBinary},
		{"a facility that does not exist", "2048,1,2,-;x\n", ErrHeader},
		{"a sequence number beyond 64 bits", "4,18446744073709551616,2,-;x\n", ErrHeader},
		{"an uptime of more than 292 years", "4,1,9223372036854776,-;x\n", ErrHeader},
		{"an uptime beyond 64 bits", "4,1,99999999999999999999,-;x\n", ErrHeader},
		{"no semicolon", "4,1,2,-,caller=T1", ErrHeader},
		{"a key without value", "4,1,2,-,caller;x\n", ErrHeader},
		{"a header of more than 256 bytes", "4,1,2,-,caller=" + strings.Repeat("T", 256) + ";x\n", ErrHeader},
		{"a header of many keys", "4,1,2,-" + strings.Repeat(",k=v", 64) + ";x\n", ErrHeader},
		{"a sequence number of 300 digits", "4," + strings.Repeat("0", 300) + ",2,-;x\n", ErrHeader},
		{"a value without key", "4,1,2,-,=T1;x\n", ErrHeader},
		{"an empty key and value", "4,1,2,-,;x\n", ErrHeader},
		{"a fragment without total", "4,1,2,-,ncfrag=0;x", ErrFragment},
		{"a fragment with a signed offset", "4,1,2,-,ncfrag=-1/9;x", ErrFragment},
		{"a fragment of nothing", "4,1,2,-,ncfrag=0/0;x", ErrFragment},
		{"a fragment behind the end", "4,1,2,-,ncfrag=9/9;x", ErrFragment},
		{"a fragment across the end", "4,1,2,-,ncfrag=8/9;xy", ErrFragment},
		{"an offset beyond 64 bits", "4,1,2,-,ncfrag=99999999999999999999/9;x", ErrFragment},
		{"an empty fragment", "4,1,2,-,ncfrag=0/9;", ErrFragment},
		{"two fragments in one", "4,1,2,-,ncfrag=0/9,ncfrag=1/9;x", ErrFragment},
		{"a key behind the fragment", "4,1,2,-,ncfrag=0/9,caller=T1;x", ErrFragment},
		{"a record of more than 128 KiB", "4,1,2,-,ncfrag=0/131073;x", ErrTooLong},
		{"a total beyond 64 bits", "4,1,2,-,ncfrag=0/99999999999999999999;x", ErrTooLong},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := ParseFrame([]byte(tt.payload))
			if !errors.Is(err, tt.want) {
				t.Errorf("ParseFrame = %+v, %v, want %v", f, err, tt.want)
			}
		})
	}
}

func TestParseFrameAllocatesNothing(t *testing.T) {
	for _, payload := range []string{
		"6.12.117+deb13-cloud-amd64,0,456,3881321,-,caller=T170;Kernel panic\n instance=i-0abc\n",
		"6.12.117+deb13-cloud-amd64,0,456,3881321,-,caller=T170,ncfrag=0/2000;Kernel panic",
		"[    3.592626] Kernel panic - not syncing: sysrq triggered crash\n",
		"4,1,2,-,ncfrag=9/9;x",
	} {
		b := []byte(payload)
		if n := testing.AllocsPerRun(100, func() { _, _ = ParseFrame(b) }); n != 0 {
			t.Errorf("%v allocations for %q, want none", n, payload)
		}
	}
}

// extendedFrame is the shape of an extended datagram as one expression: an independent reading of the grammar.
var extendedFrame = regexp.MustCompile(`^(?:\*\* replaying previous printk message \*\*\n)?` +
	`(?:([^,;\s]{0,63}[^,;\s0-9][^,;\s]{0,63}),)?(\d{1,4}),(\d+),(\d+),([-c+])((?:,[^,;=]+=[^,;]*)*);`)

func FuzzFrame(f *testing.F) {
	for _, s := range []string{
		"6,388,2968771,-;eth0: link becomes ready\n",
		"6.12.117+deb13-cloud-amd64,0,456,3881321,-,caller=T1;panic\n instance=i-0abc\n",
		"0,391,3610096,-,ncfrag=971/990;jklmnopqrstuvwxyza\n",
		replayNotice + "4,1,2,c;x\n",
		"[    3.592626] Kernel panic - not syncing: sysrq triggered crash\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		fr, err := ParseFrame(payload)
		m := extendedFrame.FindSubmatch(payload)
		if m != nil && len(m[1]) > 64 {
			m = nil
		}
		if err != nil {
			return
		}
		if fr.Extended != (m != nil) {
			t.Fatalf("extended is %v, the grammar says %v", fr.Extended, m != nil)
		}
		if !fr.Extended {
			if fr.Prefix != -1 || fr.Uptime != -1 || fr.Fragment || fr.Header != nil {
				t.Fatalf("a basic frame says %+v", fr)
			}
			return
		}
		got := fmt.Sprintf("%s %d %d %d %v", fr.Release, fr.Prefix, fr.Seq, fr.Uptime.Microseconds(), fr.Cont)
		want := fmt.Sprintf("%s %s %s %s %v", m[1], zeroless(m[2]), zeroless(m[3]), zeroless(m[4]), string(m[5]) != "-")
		if got != want {
			t.Fatalf("read %q, the grammar says %q", got, want)
		}
		if fr.Fragment && (fr.Offset < 0 || len(fr.Body) == 0 || fr.Offset+len(fr.Body) > fr.Total || fr.Total > MaxTotal) {
			t.Fatalf("fragment of %d bytes at %d of %d", len(fr.Body), fr.Offset, fr.Total)
		}
		if !strings.Contains(string(payload), string(fr.Header)) || !strings.Contains(string(payload), string(fr.Body)) {
			t.Fatalf("frame %+v is not of the payload", fr)
		}
	})
}

// zeroless is a decimal without leading zeros.
func zeroless(b []byte) string {
	s := strings.TrimLeft(string(b), "0")
	if s == "" {
		return "0"
	}
	return s
}
