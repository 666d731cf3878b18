package detect

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// FuzzSource feeds a script of records, one a line: a byte that says how the record arrives, one for the time that
// passes, one for its clock, and the text.
func FuzzSource(f *testing.F) {
	for i := range builtin() {
		r := &builtin()[i]
		var script bytes.Buffer
		for _, s := range append(r.Examples, r.Counterexamples...) {
			script.WriteString("@A0" + strings.ReplaceAll(s, "\n", "\r") + "\n")
		}
		f.Add(script.Bytes())
	}
	f.Add([]byte("@@0" + oopsLine + "\n@@0" + oopsRIP + "\nA@0" + panicLine + "\n@@0" + fatalLine + "\n@@0 foo+0x1/0x2\n@~0" + panicEnd + "\nB~0" + panicLine))
	f.Add([]byte("@@9" + panicLine + "\n@z0Linux version 6.1\nP@0" + lockup + "\nX@0" + panicLine + "\n@@0" + strings.Repeat("x", 5000)))
	f.Add([]byte("CA0Kernel panic - not syncing: x\x1b[2J\xff\nCA0[    1.000000] x"))

	f.Fuzz(func(t *testing.T, script []byte) {
		g := newRig(&Config{Bytes: 4 << 10, Lines: 50})
		deaths := make(map[netconsole.Secret]int)
		emit := func(inc Incident) {
			checkIncident(t, inc)
			if inc.Verdict == Dying && inc.Complete && inc.Identity.Secret != "" {
				deaths[inc.Identity.Secret]++
			}
		}
		for n, op := range bytes.Split(script, []byte("\n")) {
			if len(op) < 3 || n == 3000 {
				break
			}
			g.now = g.now.Add(time.Duration(op[1]-'@') * 50 * time.Millisecond)
			r := g.record(strings.ReplaceAll(string(op[3:]), "\r", "\n"))
			r.Uptime += time.Duration(int(op[2])-'0') * time.Second
			r.Seq += uint64(op[2])
			switch op[0] & 3 {
			case 1:
				r.Fields = identity("boot-2", "secret-2")
			case 2:
				r.Fields = nil
			case 3:
				r = netconsole.Record{Prefix: -1, Uptime: r.Uptime, Text: r.Text}
			}
			if op[0]&4 != 0 && r.Extended {
				r.Prefix = 12
			}
			r.Cont = op[0]&8 != 0
			if op[0]&16 != 0 {
				r.Partial, r.Missing = true, 1
			}
			if op[0]&32 != 0 {
				r.Uptime = -1
			}
			g.source.Push(g.now, &r, emit)
			checkBounds(t, g.source)
		}

		g.source.Flush(g.now.Add(time.Hour), emit)
		if due := g.source.Deadline(); !due.IsZero() {
			t.Errorf("still something to wait for, until %v", due)
		}
		for gasp, n := range deaths {
			if n > 1 {
				t.Errorf("the boot of %q died %d times", string(gasp), n)
			}
		}
	})
}

func checkIncident(t *testing.T, inc Incident) {
	t.Helper()
	if inc.Title == "" || len(inc.Title) > maxTitle+len("…") || !utf8.ValidString(inc.Title) {
		t.Errorf("title %q", inc.Title)
	}
	if inc.Verdict == Sick && !inc.Complete {
		t.Errorf("a sick report that is not complete: %q", inc.Title)
	}
	if inc.Complete && len(inc.Fingerprint) != 12 {
		t.Errorf("fingerprint %q", inc.Fingerprint)
	}
	for _, l := range inc.Trace {
		if i := strings.IndexFunc(l, func(r rune) bool { return r < ' ' && r != '\t' || 0x7f <= r && r < 0xa0 }); i >= 0 || !utf8.ValidString(l) {
			t.Errorf("line %q", l)
		}
	}
}

// checkBounds holds whatever is sent.
func checkBounds(t *testing.T, s *Source) {
	t.Helper()
	if len(s.boots) > maxBoots {
		t.Fatalf("%d boots", len(s.boots))
	}
	for _, b := range s.boots {
		if len(b.ring.buf) > 4<<10 || b.ring.lines > 50 || len(b.reported) > maxReported {
			t.Fatalf("a ring of %d bytes and %d lines, %d findings", len(b.ring.buf), b.ring.lines, len(b.reported))
		}
		if b.draft == nil {
			continue
		}
		size := 0
		for _, ln := range b.draft.lines {
			size += len(ln.text)
		}
		if size > 4<<10+maxTailBytes || len(b.draft.lines) > 50+maxTail {
			t.Fatalf("a report of %d bytes and %d lines", size, len(b.draft.lines))
		}
	}
}

// FuzzLogReader feeds lines of a log. Whatever they are, records come out that could stand in one.
func FuzzLogReader(f *testing.F) {
	for _, log := range []string{
		"[    3.591339][    T1] x\n<4>[    3.591339] x\nkern  :emerg : [    3.591339] x\n4,1,3591339,-,caller=T1; x\n",
		"Nov 29 13:49:23 host kernel: [    3.591339] x\n2024-11-29T13:49:23.123456+00:00 host systemd[1]: x\n<4>1 2024-11-29T13:49:23Z host kernel - - - x\n",
		"2024-11-29T13:49:23.123456789Z stdout F [    3.591339] x\n{\"log\":\"[    3.591339] x\\n\"}\n{\"_TRANSPORT\":\"kernel\",\"MESSAGE\":[120,255]}\n",
		"__CURSOR=s\n_TRANSPORT=kernel\nMESSAGE\n12345678x\n\n{\n\"MESSAGE\" : \"x\"\n}\n",
		"{\"events\": [\n{\"message\": \"[    3.591339] x\"},\n{\"message\": \"{\\\"ident\\\":\\\"kernel\\\",\\\"message\\\":\\\"x\\\"}\"}\n]}\n",
		"{\"dmesg\":[{\"fac\":\"kern\",\"pri\":-1,\"time\":3.591339,\"msg\":\" x\"}]}\n{\"priority\":4,\"sec\":3,\"usec\":1,\"msg\":\" \",\"message\":\"x\"}\n",
		"2024-11-29T13:49:23Z stdout P [    3.5\n2024-11-29T13:49:23Z stdout F 91339] x\n[0] kmsg: [1.1, {\"priority\"=>4, \"sec\"=>1, \"usec\"=>2, \"msg\"=>\"x\"}]\n",
		"[    3.591339] " + strings.Repeat("x", 80-15) + "\nx\n12 <4>1 - - kernel - - [a b=\"\\]\"] x\n[    3.591339]  y\n",
		"Panic#1 Part2\n<4>[    3.591339] x\nPanic#1 Part1\n<4>[    3.591340] y\n",
		"panic: e[    3.591339] x\n[    3.591340] y\nPassword: [    9.591339] x\n",
	} {
		f.Add(log)
	}
	f.Fuzz(func(t *testing.T, log string) {
		var reader LogReader
		lines := 0
		check := func(r *netconsole.Record) {
			if len(bytes.TrimSpace(r.Text)) == 0 || r.Extended || r.Uptime < -1 || r.Prefix < -1 || r.Prefix > 999 {
				t.Fatalf("%+v", r)
			}
		}
		for line := range strings.SplitSeq(log, "\n") {
			lines++
			reader.Line(line, check)
		}
		reader.Flush(check)
		if number, text := reader.Unrecognised(); number > lines || number > 0 && strings.TrimSpace(text) == "" {
			t.Fatalf("of %d lines the first unrecognised one is %d %q", lines, number, text)
		}
	})
}
